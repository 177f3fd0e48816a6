"""The tape: what was judged is what was recorded, retries too, and a replay asks nobody."""

import json
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from runbook_lib.canonical import canonical, digest_bytes
from runbook_lib.errors import LogDamaged, TapeMiss
from runbook_lib.reach import Command
from runbook_lib.sources.http import make_request
from runbook_lib.sources.scope import Scope
from runbook_lib.sources.tape import read_entries

from ..conftest import mutations, recorded
from ..messages import saying
from .conftest import World, told

PING = make_request("GET", "http://node/ping")


def counting() -> object:
    count = iter(range(1, 100))
    return lambda request: httpx.Response(200, text=f"{next(count)} {request.url.path}")


def everything(scope: Scope, file: Path) -> list[object]:
    """One use of everything a scope can do."""
    ended = scope.run(Command(argv=[sys.executable, "-c", "print('out')"]))
    posted = make_request("POST", "http://node/x", body=b"b", params=(("q", "1"),))
    return [
        scope.now(), scope.reread(), told(*scope.http([PING, posted]), *scope.http([PING])), scope.read(file), scope.listing(file.parent),
        scope.listing(file.parent / "none"), scope.file_digest(file), ended,
    ]  # fmt: skip


def test_replay_gives_every_answer_again_and_asks_nobody(world: World, tmp_path: Path) -> None:
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


def test_what_was_never_recorded_is_a_miss_and_not_retried(world: World) -> None:
    world.scope(counting()).http([PING])  # type: ignore[arg-type]
    with saying(
        TapeMiss,
        "item: replay: expected a recorded answer to GET http://node/other?a=1&b=2 (run 1, use 1),"
        " got none; it was recorded by another version, or this run asks something else",
    ):
        world.replay().http(
            [make_request("GET", "http://node/other", params=(("b", "2"), ("a", "1")))]
        )


def test_tampering_with_a_body_is_noticed(world: World) -> None:
    world.scope(lambda _: httpx.Response(200, text="honest")).http([PING])
    name = digest_bytes(b"honest").removeprefix("sha256:")
    (world.folder / name[:2] / name).write_bytes(b"forged")
    said = f"tape: sha256:{name}: expected that content, got {digest_bytes(b'forged')}"
    with saying(LogDamaged, said):
        world.replay().http([PING])
    (world.folder / name[:2] / name).unlink()
    with saying(LogDamaged, f"tape: sha256:{name}: expected its body, got none"):
        world.replay().http([PING])


def test_a_line_cut_by_a_crash_is_none_and_any_other_that_is_no_entry_is_damage(
    world: World,
) -> None:
    world.scope(counting()).http([PING])  # type: ignore[arg-type]
    with (world.folder / "index.jsonl").open("ab") as file:
        file.write(b'{"item":"item","num')
    assert len(read_entries(world.folder)) == 1
    world.scope(counting(), number=2).http([PING])  # type: ignore[arg-type]
    assert [entry.number for entry in read_entries(world.folder)] == [1, 2]
    # A finished line of another shape was not written by us.
    (world.folder / "index.jsonl").write_bytes(b'{"item": 1}\n')
    problem = "tape/index.jsonl: line 1: expected a tape entry, got: "
    with saying(LogDamaged, problem, whole=False):
        read_entries(world.folder)


@pytest.mark.parametrize(
    ("key", "meta"),
    [
        ("GET http://node/ping", {"status": 200, "headers": {}, "more": 1}),
        ("GET http://node/ping", {"status": "200"}),
        ("GET http://node/ping", {"failure": "SystemExit", "text": "1"}),
        ("CLOCK", {"utc": "2026-01-01T00:00:00Z"}), ("READ /f", {"code": 0}),
        ("DIGEST /f", {"bytes": 1}), ("DERIVE it", {"value": 7}),
        ('RUN ["x"]', {"code": 0, "problem": "", "out": -1}),
    ],
)  # fmt: skip
def test_an_entry_that_is_no_answer_to_its_question_is_damage(
    world: World, key: str, meta: dict[str, object]
) -> None:
    live, file = world.scope(), Path("/f")
    recorded(live.tape, ("item", 1, key, 1))
    index = world.folder / "index.jsonl"
    entry = json.loads(index.read_bytes().splitlines()[-1])
    index.write_bytes(canonical({**entry, "meta": meta}) + b"\n")
    scope = world.replay()
    asks = (lambda: scope.http([PING]), scope.now, lambda: scope.read(file),
            lambda: scope.file_digest(file), lambda: scope.derive("it", str),
            lambda: scope.run(Command(argv=["x"])))  # fmt: skip
    with saying(LogDamaged, f"tape: {key}: expected an answer to it, got: ", whole=False):
        for ask in asks:
            with suppress(TapeMiss):
                ask()


def test_replay_has_nothing_to_wait_for_and_nothing_to_log(world: World) -> None:
    replay = world.replay()
    replay.sleep(3600)
    with pytest.raises(TapeMiss):
        replay.now()
    assert not world.folder.exists() or read_entries(world.folder) == []


# --- which questions are asked again --------------------------------------------------------------


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ([(503, None), (500, None), (200, None)], 3),
        ([(429, "0"), (200, None)], 2),
        ([(429, "3600"), (200, None)], 1),
    ],
    ids=["errors", "a short retry-after", "a long retry-after"],
)
def test_each_retry_is_an_entry_and_a_long_wait_is_not_made(
    world: World, given: list[tuple[int, str | None]], taken: int
) -> None:
    answers = iter(given)

    def answer(_: httpx.Request) -> httpx.Response:
        status, after = next(answers)
        return httpx.Response(status, headers={} if after is None else {"retry-after": after})

    found = world.scope(answer).http([PING])
    entries = [(entry.n, entry.meta["status"]) for entry in read_entries(world.folder)]
    assert entries == [(n, status) for n, (status, _) in enumerate(given[:taken], start=1)]
    assert [one.status_code for one in found] == [given[taken - 1][0]]
    assert told(*world.replay().http([PING])) == told(*found)


@pytest.mark.usefixtures("no_waiting")
def test_a_change_is_never_asked_twice(world: World) -> None:
    """A change whose answer was lost may have happened: only reads are retried."""
    request = make_request("POST", "http://node/change", purpose="change")
    world.scope(lambda _: httpx.Response(503)).http([request])
    [entry] = read_entries(world.folder)
    assert mutations([entry]) == [entry]
    assert (entry.purpose, entry.key) == ("change", "POST http://node/change")
