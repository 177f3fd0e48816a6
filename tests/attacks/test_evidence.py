"""Evidence is data: reading it, however hostile, writes nothing, follows nothing, and ends."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from runbook_lib.canonical import canonical, digest_bytes
from runbook_lib.changes.plan import NodePlan
from runbook_lib.changes.state import NodeState
from runbook_lib.commands.evidence import page_of
from runbook_lib.errors import ParameterError, RunbookError, StoreError
from runbook_lib.evidence.record import GENESIS
from runbook_lib.evidence.replay import replay
from runbook_lib.evidence.status import attempts_of
from runbook_lib.evidence.store import Store
from runbook_lib.evidence.verify import verify
from runbook_lib.outcomes import Outcome, worst
from runbook_lib.site import read_site
from runbook_lib.sources.redact import Redactor
from runbook_lib.sources.scope import Outside, Scope
from runbook_lib.sources.tape import LiveTape
from runbook_lib.stage import Stage, open_replay

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
    path = folder / "tape" / "index.jsonl"
    entries = [json.loads(line) for line in path.read_bytes().splitlines()]
    (entry,) = [e for e in entries if e["item"] == "stage.open" and e["key"].startswith("READ ")]
    old = entry["body"].removeprefix("sha256:")
    site = yaml.safe_load((folder / "tape" / old[:2] / old).read_bytes())
    body = yaml.safe_dump({**site, **changes}).encode()
    entry["body"] = digest_bytes(body)
    new = entry["body"].removeprefix("sha256:")
    (folder / "tape" / new[:2]).mkdir(exist_ok=True)
    (folder / "tape" / new[:2] / new).write_bytes(body)
    path.write_bytes(b"".join(canonical(e) + b"\n" for e in entries))


def node(name: str) -> Callable[[Path], None]:
    cluster = {"chain_id": "x", "nodes": [{"name": name, "url": "http://127.0.0.1:9"}]}
    return lambda folder: on_tape(folder, clusters={"development": cluster})


def opened(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: chained(folder, lambda entries: entries[0]["body"].update(changes))


def instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def alter(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return alter


def zeros(path: Path) -> None:
    path.touch()
    os.truncate(path, 10 * 1024**3)


def deeply(path: Path) -> None:
    folder = path / "/".join("b" * 900)
    folder.mkdir(parents=True)
    (folder / "file").write_text("")


def added(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    return lambda folder: make(folder / name)


def entry(**changes: Any) -> Callable[[Path], None]:
    """A line more on the tape."""

    def alter(folder: Path) -> None:
        path = folder / "tape" / "index.jsonl"
        line = json.loads(path.read_bytes().splitlines()[0])
        with path.open("ab") as file:
            file.write(json.dumps({**line, **changes}).encode() + b"\n")

    return alter


HOSTILE = {
    **{f"node {name!r}": node(name) for name in NAMES},
    "cluster": lambda folder: on_tape(folder, stages={"development": "../up"}, clusters={"../up": {}}),
    "site": lambda folder: on_tape(folder, name="../../x"),
    "artifact": lambda folder: on_tape(folder, artifacts={"/etc/x": "x"}),
    "number": opened(attempt="../../../x"),
    "huge number": opened(attempt=10**15),
    "release": opened(params={"release": "../../x", "site": "x"}),
    "stage": opened(stage="../../development"),
    "no body": lambda folder: chained(folder, lambda entries: entries[0]["body"].clear()),
    "kinds of others": lambda folder: chained(folder, lambda e: e.append({**e[-1], "body": {"item": []}})),
    "zeros": instead("record.jsonl", zeros),
    "zeros on tape": instead("tape/index.jsonl", zeros),
    "zeros as notebook": instead(BOOK, zeros),
    "pipe": instead("tape/index.jsonl", os.mkfifo),
    "pipe as notebook": instead(BOOK, os.mkfifo),
    "device": instead("record.jsonl", lambda path: path.symlink_to("/dev/zero")),
    "link": instead("tape/index.jsonl", lambda path: path.symlink_to("/etc/passwd")),
    "linked folder": added("more", lambda path: path.symlink_to("/etc", target_is_directory=True)),
    "deep": instead("record.jsonl", lambda path: path.write_bytes(b"[" * 100_000 + b"\n")),
    "deep on tape": instead("tape/index.jsonl", lambda path: path.write_bytes(b"[" * 100_000 + b"\n")),
    "deep folders": added("a", deeply),
    "another type on tape": entry(item=["a"], number={}),
    "more on tape": entry(argv="rm"),
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

    rows, _ = verify(folder)
    try:
        again, _ = replay(folder, run_here(folder))
    except RunbookError:
        again = []
    for read in (
        lambda: attempts_of(Store(tmp_path / "store"), "v1.4.0"),
        lambda: page_of(folder / BOOK),
    ):
        try:
            read()
        except RunbookError:
            continue

    assert worst(row.outcome for row in rows) is not Outcome.PASS
    assert worst(row.outcome for row in again) is not Outcome.PASS
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", NAMES)
def test_names_obey_one_rule_in_a_site_and_in_evidence(practice: Any, name: str) -> None:
    """Nodes, clusters, sites and artifacts; and what a plan of a record names."""
    state = NodeState(gates={}, channel="x", binary="x", config="x")
    nodes = {
        "development": {"chain_id": "x", "nodes": [{"name": name, "url": "http://127.0.0.1:9"}]}
    }
    site = yaml.safe_load(practice.site.read_text())
    for changes in (
        {"name": name},
        {"clusters": nodes},
        {"clusters": {**site["clusters"], name: deepcopy(site["clusters"]["development"])}},
        {"artifacts": {name: "x"}},
    ):
        practice.write_site(**changes)
        with pytest.raises(ParameterError, match="expected a name of letters"):
            read_site(str(practice.site))
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


@pytest.mark.parametrize("where", ["a", "b/c"])
def test_a_file_of_the_store_is_not_read_through_a_link(tmp_path: Path, where: str) -> None:
    """A colleague's link to a key of ours would put it on the tape."""
    (tmp_path / "key").write_text("a key")
    store = tmp_path / "store"
    store.mkdir()
    link = store / where
    if "/" in where:
        (tmp_path / "c").write_text("a key")
        (store / "b").symlink_to(tmp_path, target_is_directory=True)
    else:
        link.symlink_to(tmp_path / "key")
    outside = Outside(Redactor())
    scope = Scope(
        LiveTape(tmp_path / "tape", Redactor()), outside, "i", 1, aliases=[(str(store), "store")]
    )
    with pytest.raises(RunbookError):
        scope.read(link)
    outside.close()

    assert b"a key" not in b"".join(
        p.read_bytes() for p in (tmp_path / "tape").rglob("*") if p.is_file()
    )


@pytest.mark.parametrize("name", ["1²", "00²1", "0001.bak", "x"])
def test_a_folder_that_is_no_attempt_is_no_attempt(tmp_path: Path, name: str) -> None:
    """Digits of other scripts are none; a second spelling of a number is a gap."""
    store = Store(tmp_path / "store")
    store.create("v1", "canary", {})
    (store.root / "v1" / "canary" / name).mkdir()
    assert [one.number for one in store.attempts("v1")] == [1]

    (store.root / "v1" / "canary" / "00001").mkdir()
    with pytest.raises(StoreError, match="expected attempts 1 to 2 without a gap"):
        store.attempts("v1")
