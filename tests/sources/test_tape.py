"""The tape: what was judged is what was recorded, and a replay asks nobody."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from runbook_lib.canonical import digest_bytes
from runbook_lib.errors import RecordDamaged, SourceError, TapeMiss
from runbook_lib.site import Clock
from runbook_lib.sources.http import Answer, Failure, Request
from runbook_lib.sources.redact import Redactor
from runbook_lib.sources.tape import Scope, mutations, read_entries

from .conftest import World

PING = Request("GET", "http://node/ping")


def counting() -> object:
    count = iter(range(1, 100))
    return lambda request: httpx.Response(200, text=f"{next(count)} {request.url.path}")


def everything(scope: Scope, file: Path) -> list[object]:
    """One use of everything a scope can do."""
    ended = scope.run([sys.executable, "-c", "print('out')"], timeout_s=60)
    return [
        scope.now(),
        scope.reread(),
        scope.http([PING, Request("POST", "http://node/x", body=b"b", params=(("q", "1"),))]),
        scope.http([PING]),
        scope.read(file),
        scope.listing(file.parent),
        scope.listing(file.parent / "none"),
        scope.file_digest(file),
        ended,
    ]


def test_replay_gives_every_answer_again_and_asks_nobody(world: World, tmp_path: Path) -> None:
    """Clock, HTTP, files and commands: the same values, the same digest of inputs."""
    file = tmp_path / "folder" / "file"
    file.parent.mkdir()
    file.write_bytes(b"content")
    live = world.scope(counting(), aliases=((str(tmp_path), "store"),))  # type: ignore[arg-type]
    said = everything(live, file)
    file.unlink()
    elsewhere = Path("/elsewhere/folder/file")
    replay = world.replay(aliases=(("/elsewhere", "store"),))
    assert everything(replay, elsewhere) == said
    assert replay.inputs == live.inputs
    assert len(world.asked) == 3


def test_a_command_says_a_folder_it_was_told_by_its_name(world: World, tmp_path: Path) -> None:
    """The same elsewhere; a path that it was not told stands as it was said."""
    live = world.scope(aliases=((str(tmp_path), "attempt"),))
    told = ["echo", f"testing {tmp_path}/a.yaml"]
    untold = ["sh", "-c", 'echo "$(dirname /elsewhere/a)"']

    assert live.run(told, timeout_s=60).stdout == b"testing {attempt}/a.yaml\n"
    assert live.run(untold, timeout_s=60).stdout == b"/elsewhere\n"
    replay = world.replay(aliases=(("/elsewhere", "attempt"),))
    assert replay.run(["echo", "testing /elsewhere/a.yaml"], timeout_s=60).stdout == (
        b"testing {attempt}/a.yaml\n"
    )


def test_each_use_of_a_request_has_its_own_answer(world: World) -> None:
    """Polling the same URL gives a new answer each time, and the same ones again in replay."""
    live = world.scope(counting())  # type: ignore[arg-type]
    first, second = live.http([PING])[0], live.http([PING])[0]
    assert (first, second) == (
        Answer(200, b"1 /ping", {"content-type": "text/plain; charset=utf-8"}),
    ) * 1 + (Answer(200, b"2 /ping", {"content-type": "text/plain; charset=utf-8"}),)
    replay = world.replay()
    assert [replay.http([PING])[0], replay.http([PING])[0]] == [first, second]


def test_what_was_never_recorded_is_a_miss_and_not_retried(world: World) -> None:
    """A miss is an error of its own, which no retry swallows."""
    world.scope(counting()).http([PING])  # type: ignore[arg-type]
    with pytest.raises(TapeMiss) as caught:
        world.replay().http([Request("GET", "http://node/other", params=(("b", "2"), ("a", "1")))])
    assert str(caught.value) == (
        "item: replay: expected a recorded answer to GET http://node/other?a=1&b=2 (try 1, use 1),"
        " got none; it was recorded by another version, or this run asks something else"
    )


def test_replay_answers_from_the_judged_try(world: World) -> None:
    """Of several tries, the last one with a result counts."""
    world.scope(lambda _: httpx.Response(200, text="first"), number=1).http([PING])
    world.scope(lambda _: httpx.Response(200, text="second"), number=2).http([PING])
    for judged, text in ((1, b"first"), (2, b"second")):
        [answer] = world.replay(judged=judged).http([PING])
        assert isinstance(answer, Answer)
        assert answer.body == text


def test_identical_concurrent_requests_are_refused(world: World) -> None:
    """Their answers could change places between the run and its replay."""
    with pytest.raises(ValueError) as caught:
        world.scope().http([PING, PING])
    assert str(caught.value) == ("identical concurrent requests cannot be told apart on the tape")


@pytest.mark.usefixtures("no_waiting")
def test_each_retry_is_an_entry(world: World) -> None:
    """A server that recovers is asked again; the tape shows how often."""
    answers = iter([503, 500, 200])
    live = world.scope(lambda _: httpx.Response(next(answers), text="x"))
    [answer] = live.http([PING])
    assert isinstance(answer, Answer)
    assert answer.status == 200
    entries = read_entries(world.folder)
    assert [(entry.n, entry.meta["status"]) for entry in entries] == [(1, 503), (2, 500), (3, 200)]
    assert world.replay().http([PING]) == [answer]


def test_a_long_retry_after_is_not_waited_for(world: World) -> None:
    """Nobody sits in a cell for an hour; the replay gives up at the same place."""
    live = world.scope(lambda _: httpx.Response(429, headers={"retry-after": "3600"}))
    [answer] = live.http([PING])
    assert answer == Answer(429, b"", {"retry-after": "3600"})
    assert len(world.asked) == 1
    assert world.replay().http([PING]) == [answer]


def test_a_short_retry_after_is_obeyed(world: World) -> None:
    """Zero seconds is at once, shorter than our own pause."""
    answers = iter([(429, {"retry-after": "0"}), (200, {})])

    def answer(_: httpx.Request) -> httpx.Response:
        status, headers = next(answers)
        return httpx.Response(status, headers=headers)

    assert world.scope(answer).http([PING]) == [Answer(200, b"", {})]


@pytest.mark.usefixtures("no_waiting")
def test_a_change_is_never_asked_twice(world: World) -> None:
    """A change whose answer was lost may have happened: only reads are retried."""
    request = Request("POST", "http://node/change", purpose="change")
    world.scope(lambda _: httpx.Response(503)).http([request])
    assert [entry.purpose for entry in read_entries(world.folder)] == ["change"]
    assert [entry.key for entry in mutations(read_entries(world.folder))] == [
        "POST http://node/change"
    ]


@pytest.mark.usefixtures("no_waiting")
def test_a_failure_is_recorded_by_its_kind(world: World) -> None:
    """No answer is an answer too, in replay as well."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    assert world.scope(refuse).http([PING]) == [Failure("ConnectError", "refused")]
    assert world.replay().http([PING]) == [Failure("ConnectError", "refused")]
    assert len(world.asked) == 3


def test_a_secret_reaches_neither_the_tape_nor_the_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was judged is what was recorded: both hold the mark instead."""
    monkeypatch.setenv("TOKEN", "s3cret-t0ken")
    world = World(tmp_path / "tape", Redactor(["TOKEN"]))
    scope = world.scope(lambda request: httpx.Response(200, text=request.headers["authorization"]))
    [answer] = scope.http([Request("GET", "http://node/s3cret-t0ken", bearer="TOKEN")])
    ended = scope.run(["printf", "s3cret-t0ken and more"], timeout_s=60)
    assert isinstance(answer, Answer)
    assert answer.body == b"Bearer [redacted]"
    assert ended.stdout == b"[redacted] and more"
    written = b"".join(path.read_bytes() for path in world.folder.rglob("*") if path.is_file())
    assert b"s3cret-t0ken" not in written
    world.close()


def test_tampering_with_a_body_is_noticed(world: World) -> None:
    """A body must have the digest that is its name."""
    world.scope(lambda _: httpx.Response(200, text="honest")).http([PING])
    name = digest_bytes(b"honest").removeprefix("sha256:")
    (world.folder / name[:2] / name).write_bytes(b"forged")
    with pytest.raises(RecordDamaged) as caught:
        world.replay().http([PING])
    assert str(caught.value) == (
        f"tape: sha256:{name}: expected that content, got {digest_bytes(b'forged')}"
    )
    (world.folder / name[:2] / name).unlink()
    with pytest.raises(RecordDamaged) as caught:
        world.replay().http([PING])
    assert str(caught.value) == f"tape: sha256:{name}: expected its body, got none"


def test_a_line_cut_by_a_crash_is_none_and_harms_no_later_one(world: World) -> None:
    """An unfinished last line is no entry; the next entry does not become part of it."""
    world.scope(counting()).http([PING])  # type: ignore[arg-type]
    with (world.folder / "index.jsonl").open("ab") as file:
        file.write(b'{"item":"item","num')
    assert len(read_entries(world.folder)) == 1
    world.scope(counting(), number=2).http([PING])  # type: ignore[arg-type]
    assert [entry.number for entry in read_entries(world.folder)] == [1, 2]


def test_a_line_that_is_no_entry_is_damage(world: World) -> None:
    """A finished line of another shape was not written by us."""
    (world.folder).mkdir()
    (world.folder / "index.jsonl").write_bytes(b'{"item": 1}\n')
    with pytest.raises(RecordDamaged) as caught:
        read_entries(world.folder)
    assert str(caught.value).startswith("tape/index.jsonl: line 1: expected a tape entry, got: ")


def test_files_that_cannot_be_read_are_source_errors(world: World, tmp_path: Path) -> None:
    """Live and in replay, and under the name that is the same everywhere."""
    aliases = ((str(tmp_path), "store"),)
    for make in (world.scope, world.replay):
        with pytest.raises(SourceError) as caught:
            make(aliases=aliases).read(tmp_path / "none")
        assert str(caught.value) == (
            "{store}/none: expected a readable file, got: No such file or directory"
        )
    with pytest.raises(SourceError) as caught:
        world.scope(aliases=aliases).file_digest(tmp_path / "none")
    assert str(caught.value) == (
        "{store}/none: expected a readable file, got: No such file or directory"
    )


def test_the_clock_is_read_once_per_try(world: World) -> None:
    """One reading, however often it is asked; a fresh one only on purpose."""
    scope = world.scope()
    assert scope.now() == scope.now()
    assert scope.reread() >= scope.now()
    assert [entry.key for entry in read_entries(world.folder)] == ["CLOCK", "CLOCK"]


def test_a_rehearsals_clock_runs_ahead_by_its_file(world: World, tmp_path: Path) -> None:
    """The offset is on the tape, so that a replay needs no file."""
    file = tmp_path / "clock.json"
    file.write_text(json.dumps({"offset_s": 86_400.5}))
    scope = world.scope(clock=Clock(source="offset-file", path=str(file)))
    ahead = scope.now() - world.scope(item="other").now()
    assert timedelta(hours=23) < ahead < timedelta(hours=25)
    assert scope.offset == timedelta(seconds=86_400.5)
    replay = world.replay()
    assert (replay.now(), replay.offset) == (scope.now(), scope.offset)


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("{}", "KeyError('offset_s')"),
        ('{"offset_s": true}', "ValueError(True)"),
        ('{"offset_s": NaN}', "ValueError(nan)"),
        ('{"offset_s": "5"}', "TypeError('must be real number, not str')"),
        ("[]", "TypeError('list indices must be integers or slices, not str')"),
    ],
)
def test_an_unreadable_clock_is_a_source_error(
    world: World, tmp_path: Path, text: str, got: str
) -> None:
    """No instant is better than a wrong one."""
    file = tmp_path / "clock.json"
    file.write_text(text)
    with pytest.raises(SourceError) as caught:
        world.scope(clock=Clock(source="offset-file", path=str(file))).now()
    assert str(caught.value) == f"clock: {file}: expected {{offset_s: SECONDS}}, got: {got}"


def test_replay_has_nothing_to_wait_for_and_nothing_to_record(world: World) -> None:
    """Sleeping takes no time, and an unknown question is a miss, not a new entry."""
    replay = world.replay()
    replay.sleep(3600)
    with pytest.raises(TapeMiss):
        replay.now()
    assert not world.folder.exists() or read_entries(world.folder) == []
