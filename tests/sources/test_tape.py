"""The tape: what was judged is what was recorded, and a replay asks nobody."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import pytest

from runbook_lib.canonical import digest_bytes
from runbook_lib.errors import RecordDamaged, TapeMiss
from runbook_lib.reach import Command
from runbook_lib.sources.http import Answer, Request
from runbook_lib.sources.redact import Redactor
from runbook_lib.sources.scope import Scope
from runbook_lib.sources.tape import read_entries

from .conftest import World

PING = Request("GET", "http://node/ping")


def counting() -> object:
    count = iter(range(1, 100))
    return lambda request: httpx.Response(200, text=f"{next(count)} {request.url.path}")


def everything(scope: Scope, file: Path) -> list[object]:
    """One use of everything a scope can do."""
    ended = scope.run(Command(argv=[sys.executable, "-c", "print('out')"]))
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


def test_a_secret_reaches_neither_the_tape_nor_the_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was judged is what was recorded: both hold the mark instead."""
    monkeypatch.setenv("TOKEN", "s3cret-t0ken")
    world = World(tmp_path / "tape", Redactor(["TOKEN"]))
    scope = world.scope(lambda request: httpx.Response(200, text=request.headers["authorization"]))
    [answer] = scope.http([Request("GET", "http://node/s3cret-t0ken", bearer="TOKEN")])
    ended = scope.run(Command(argv=["printf", "s3cret-t0ken and more"]))
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


def test_replay_has_nothing_to_wait_for_and_nothing_to_record(world: World) -> None:
    """Sleeping takes no time, and an unknown question is a miss, not a new entry."""
    replay = world.replay()
    replay.sleep(3600)
    with pytest.raises(TapeMiss):
        replay.now()
    assert not world.folder.exists() or read_entries(world.folder) == []
