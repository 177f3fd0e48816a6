"""Evidence is data: reading it, however hostile, writes nothing, follows nothing, and ends."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from runbook_lib.canonical import canonical, digest_bytes
from runbook_lib.changes.plan import NodePlan
from runbook_lib.changes.state import NodeState
from runbook_lib.commands.evidence import page_of
from runbook_lib.errors import ParameterError, RunbookError, SourceError, StoreError
from runbook_lib.evidence.record import GENESIS
from runbook_lib.evidence.replay import replay
from runbook_lib.evidence.status import attempts_of
from runbook_lib.evidence.store import Store
from runbook_lib.evidence.verify import verify
from runbook_lib.outcomes import Outcome, Row, worst
from runbook_lib.recording import open_replay
from runbook_lib.site import read_site
from runbook_lib.sources.redact import Redactor
from runbook_lib.sources.scope import Outside, Scope
from runbook_lib.sources.tape import Asked, LiveTape, read_body
from runbook_lib.stage import Stage

BOOK = "10_development.ipynb"
NAMES = "../../../home/u/.cargo/config", "/etc/cron.d/x", "..", "-rf", "a/b", "a\nb", ".hidden", "²"


def snapshot(root: Path) -> dict[str, Any]:
    """Every name below ``root`` with what a write or an access by name would alter."""
    found = {}
    for path in sorted(root.rglob("*")):
        about = path.lstat()
        found[str(path)] = (about.st_mode, about.st_size, about.st_mtime_ns, about.st_ino)
    return found


def chained(folder: Path, alter: Callable[[list[dict[str, Any]]], None]) -> None:
    """The record with altered entries, its chain computed anew, as a forger would."""
    path = folder / "record.jsonl"
    entries = [json.loads(line) for line in path.read_bytes().splitlines()]
    alter(entries)
    prev, lines = GENESIS, []
    for seq, entry in enumerate(entries):
        line = canonical({**entry, "seq": seq, "prev": prev})
        prev = digest_bytes(line)
        lines.append(line + b"\n")
    path.write_bytes(b"".join(lines))


def on_tape(folder: Path, **changes: Any) -> None:
    """The site file on the tape with ``changes``, under its own digest."""
    index = folder / "tape" / "index.jsonl"
    entries = [json.loads(line) for line in index.read_bytes().splitlines()]
    (entry,) = [e for e in entries if e["item"] == "stage.open" and e["key"].startswith("READ ")]
    tape = LiveTape(folder / "tape", Redactor())
    site = yaml.safe_load(read_body(folder / "tape", entry["body"]))
    body = yaml.safe_dump({**site, **changes}).encode()
    entry["body"] = tape.record(("i", 1, "k", 1), Asked("read"), {}, body)[0].body
    index.write_bytes(b"".join(canonical(e) + b"\n" for e in entries))


def opened(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: chained(folder, lambda entries: entries[0]["body"].update(changes))


def instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def alter(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return alter


def zeros(path: Path) -> None:
    path.touch()
    os.truncate(path, 10 * 1024**3)


def bottomless(path: Path) -> None:
    path.write_bytes(b"[" * 100_000 + b"\n")


def deeply(path: Path) -> None:
    (path / "/".join("b" * 900)).mkdir(parents=True)
    (path / "file").write_text("")


def node(name: str) -> dict[str, Any]:
    nodes = [{"name": name, "url": "http://127.0.0.1:9"}]
    return {"clusters": {"development": {"chain_id": "x", "nodes": nodes}}}


INDEX = "tape/index.jsonl"
TYPES = b'{"item":["a"],"number":{},"n":1,"key":"k","purpose":"read","at":"","ms":0,"meta":[],"body":1}\n'
HOSTILE = {
    **{f"node {name!r}": lambda folder, name=name: on_tape(folder, **node(name)) for name in NAMES},
    "site": lambda folder: on_tape(folder, name="../../x"),
    "artifact": lambda folder: on_tape(folder, artifacts={"/etc/x": "x"}),
    "number": opened(attempt="../../../x"),
    "huge number": opened(attempt=10**15),
    "release": opened(params={"release": "../../x", "site": "x"}),
    "stage": opened(stage="../../development"),
    "no body": lambda folder: chained(folder, lambda entries: entries[0]["body"].clear()),
    "zeros": instead("record.jsonl", zeros),
    "zeros on tape": instead(INDEX, zeros),
    "zeros as notebook": instead(BOOK, zeros),
    "pipe": instead(INDEX, os.mkfifo),
    "pipe as notebook": instead(BOOK, os.mkfifo),
    "device": instead("record.jsonl", lambda path: path.symlink_to("/dev/zero")),
    "link": instead(INDEX, lambda path: path.symlink_to("/etc/passwd")),
    "linked folder": instead("more", lambda path: path.symlink_to("/etc")),
    "bottomless": instead("record.jsonl", bottomless),
    "bottomless on tape": instead(INDEX, bottomless),
    "deep folders": instead("a", deeply),
    "another type on tape": instead(INDEX, lambda path: path.write_bytes(TYPES)),
}  # fmt: skip


def run_here(folder: Path) -> Callable[[str], Any]:
    """Our stage over the tape, without a kernel: what ``replay`` starts is the same."""

    def run(stage: str) -> Any:
        try:
            Stage(open_replay(stage, folder)).close()
        except RunbookError as error:
            return SimpleNamespace(problems=[str(error)])
        return SimpleNamespace(problems=[])

    return run


@pytest.mark.parametrize("alter", HOSTILE.values(), ids=HOSTILE)
def test_nothing_of_hostile_evidence_is_believed_or_written(
    practice: Any, tmp_path: Path, alter: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """verify, replay, status and render end without a traceback, and the file system is as it was."""
    folder = tmp_path / "store" / "v1.4.0" / "development" / "0001"
    shutil.copytree(practice.sealed(), folder)
    alter(folder)
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path)

    rows, again = verify(folder)[0], list[Row]()
    with suppress(RunbookError):
        again = replay(folder, run_here(folder))[0]
    with suppress(RunbookError):
        attempts_of(Store(tmp_path / "store"), "v1.4.0")
    with suppress(RunbookError):
        page_of(folder / BOOK)

    assert worst(row.outcome for row in rows) is not Outcome.PASS
    assert worst(row.outcome for row in again) is not Outcome.PASS
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", NAMES)
def test_names_obey_one_rule_in_a_site_and_in_evidence(practice: Any, name: str) -> None:
    """Nodes, clusters, sites and artifacts; and what a plan of a record names."""
    cluster = node("dev-1")["clusters"]["development"]
    clusters = {"development": cluster, name: node("dev-2")["clusters"]["development"]}
    for changes in ({"name": name}, node(name), {"clusters": clusters}, {"artifacts": {name: "x"}}):
        practice.write_site(**changes)
        with pytest.raises(ParameterError, match="expected a name of letters, digits"):
            read_site(str(practice.site))
    state = NodeState(gates={}, channel="x", binary="x", config="x")
    with pytest.raises(ValueError, match="expected a name of letters, digits"):
        NodePlan(node=name, control="ours", before=state, after=state)


def test_a_replay_has_a_folder_of_its_own_below_the_engines(
    practice: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside what lies there: a release named like the engine's own note alters nothing."""
    folder = practice.sealed()
    monkeypatch.setenv("RUNBOOK_SCRATCH", str(tmp_path))
    (tmp_path / "attempt.json").write_text("{}")
    chained(folder, lambda entries: entries[0]["body"]["params"].update(release="attempt.json"))
    stage = Stage(open_replay("development", folder))
    stage.close()

    assert stage.folder.parents[3] == tmp_path
    assert (tmp_path / "attempt.json").read_text() == "{}"


@pytest.mark.parametrize("name", ["link", "linked/key", "../key"])
def test_a_file_of_the_store_is_read_through_no_link(tmp_path: Path, name: str) -> None:
    """A colleague's link to a key of ours would put it on the tape."""
    store = tmp_path / "store"
    store.mkdir()
    (tmp_path / "key").write_text("a key")
    (store / "link").symlink_to(tmp_path / "key")
    (store / "linked").symlink_to(tmp_path, target_is_directory=True)
    outside, aliases = Outside(Redactor()), [(str(store), "store")]
    with pytest.raises(SourceError, match="expected a"):
        scope = Scope(LiveTape(tmp_path / "tape", Redactor()), outside, "i", 1, aliases=aliases)
        scope.read(store / name)
    outside.close()

    found = [path.read_bytes() for path in (tmp_path / "tape").rglob("*") if path.is_file()]
    assert found and b"a key" not in b"".join(found)


@pytest.mark.parametrize("name", ["1²", "00²1", "0001.bak"])
def test_a_folder_that_is_no_attempt_is_no_attempt(tmp_path: Path, name: str) -> None:
    """Digits of other scripts are none; a second spelling of a number is a gap."""
    store = Store(tmp_path / "store")
    store.create("v1", "canary", {}).folder.with_name(name).mkdir()
    assert [one.number for one in store.attempts("v1")] == [1]

    (store.root / "v1" / "canary" / "00001").mkdir()
    with pytest.raises(StoreError, match="expected attempts 1 to 2 without a gap"):
        store.attempts("v1")
