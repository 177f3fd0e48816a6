"""A recovery kit and the store: what was done without it is brought in.

What a kit's journal says is never trusted as a state: it becomes steps of the recovery's record,
marked as imported, and the recovery then reads every node back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from . import playbook
from .canonical import digest_bytes
from .changes.kit_model import JOURNAL, Kit, read_kit
from .errors import ParameterError
from .evidence.record import Entry, Record, parse
from .evidence.store import Attempt, Store
from .evidence.undoing import what_to_undo
from .files import replace_file
from .opening import prepare_attempt
from .site import Site, read_site
from .sources.clock import read_clock

STORE = "store"
"""The folder of a kit in which a recovery works while the store is gone."""
LONGEST_JOURNAL = 1_000_000
AHEAD = timedelta(minutes=5)
_LINE = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)\t([A-Za-z0-9_.~%-]+)\t((?:deliver|restart)-(?:back|stall))"
    rb"\t(?:(intent)\t-|(done)\t0|(failed)\t([1-9]\d{0,2}))"
)


@dataclass(frozen=True)
class Brought:
    """What an import came to: the recovery it went into, how much, and what was refused."""

    attempt: Attempt
    added: int
    refused: tuple[str, ...]


def open_kit(folder: Path) -> Kit:
    """The kit in ``folder``. Raises ParameterError, SourceError."""
    return read_kit(folder, _read(folder / "plan.json", 64 * 1024 * 1024))


def _read(path: Path, limit: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ParameterError(f"{path}: expected a readable file, got: {error.strerror}") from error
    if len(data) > limit:
        raise ParameterError(f"{path}: expected at most {limit} bytes, got more")
    return data


# --- bringing in ----------------------------------------------------------------------------------


def bring_in(stage: str, folder: Path, params: Mapping[str, Any], where: str) -> Brought:
    """Bring a kit's journal, and what a recovery did in its store, into a recovery's record.

    Lines that are already in a record are not added again. Raises ParameterError for a kit of
    another attempt, or one that is not as it was written.
    """
    kit, runbook = open_kit(folder), f"{stage}_recovery"
    site = read_site(str(params["site"]))
    store = Store(site.store_path)
    undone = _undone(store, kit, stage, folder)
    text = _read(folder / JOURNAL, LONGEST_JOURNAL) if (folder / JOURNAL).exists() else b""
    lines, refused = _lines(kit, text, site)
    found = [*lines, *_locally(folder, kit, runbook)]
    mine = [
        one
        for one in store.readable(kit.release, runbook)[0]
        if (store.opened(one).get("undoes") or {}).get("name") == undone.name
    ]
    there = {e.body.get("origin") for one in mine for e in one.record.entries() if _imported(e)}
    fresh = [(kind, body) for kind, body in found if body["origin"] not in there]
    if not fresh and mine:  # by an import that may have been killed before it came to incidents
        return Brought(mine[-1], 0, (*refused, *_incidents(folder, store)))
    source = store.opened(undone)["source"]
    usual, _ = what_to_undo(store, kit.release, stage, source, int(params.get("undoes") or 0))
    if usual is None or usual["name"] != kit.name:
        raise ParameterError(
            f"undoes: expected {undone.number}, the attempt of {folder.name}, got"
            f" {usual['name'] if usual else 'none'}"
        )
    attempt = prepare_attempt(runbook, params, where)
    for kind, body in fresh:
        _add(attempt.record, kind, body)
    refused += _incidents(folder, store)
    body = {"kit": kit.name, "journal": digest_bytes(text), "added": len(fresh)}
    attempt.record.append("import", {**body, "refused": refused})
    return Brought(attempt, len(fresh), tuple(refused))


def _imported(entry: Entry) -> bool:
    return entry.kind in ("step", "state") and bool(entry.body.get("imported"))


def _add(record: Record, kind: str, body: dict[str, Any]) -> None:
    def once(entries: list[Entry]) -> dict[str, Any] | None:
        known = any(_imported(e) and e.body["origin"] == body["origin"] for e in entries)
        return None if known else body

    record.append_if(kind, once)


def _undone(store: Store, kit: Kit, stage: str, folder: Path) -> Attempt:
    """The attempt that the kit is of. Raises ParameterError."""
    name = f"{folder.name}/plan.json"
    for attempt in store.readable(kit.release, stage)[0]:
        if attempt.name == kit.name:
            break
    else:
        raise ParameterError(
            f"{name}: expected the kit of an attempt at {stage} in the store, got that of {kit.name}"
        )
    written = [entry.body for entry in attempt.record.entries() if entry.kind == "kit"]
    for file in ("plan.json", "recover.sh"):
        wanted = written[-1]["files"][file] if written else "one that its record names"
        got = digest_bytes(_read(folder / file, 64 * 1024 * 1024))
        if got != wanted:
            raise ParameterError(f"{folder.name}/{file}: expected {wanted}, got {got}")
    return attempt


def _lines(kit: Kit, text: bytes, site: Site) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """The steps of a journal, and each line that is none, by its number."""
    item = playbook.DECLARED[f"{kit.stage}_recovery"][0]
    nodes = {node.key: node.node for node in kit.ours}
    now, offset = read_clock(site.clock)
    made = datetime.fromisoformat(kit.made)
    begun: set[tuple[str, str]] = set()
    steps, refused = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"{JOURNAL}: line {number}: expected"
        found = _LINE.fullmatch(line)
        if found is None:
            refused.append(f"{where} instant, node, step, phase and exit code, got {line[:60]!r}")
            continue
        key, step, code = found[2].decode(), found[3].decode(), found[7]
        phase = next(word for word in found.group(4, 5, 6) if word).decode()
        try:  # written by the machine's clock; the record keeps the site's
            at = datetime.fromisoformat(found[1].decode()) + timedelta(seconds=offset)
        except ValueError:
            refused.append(f"{where} an instant, got {found[1].decode()}")
            continue
        if key not in nodes:
            refused.append(f"{where} a node of the kit, got {key}")
        elif not made - AHEAD <= at <= now + AHEAD:
            refused.append(f"{where} an instant since {kit.made}, got {at.isoformat()}")
        elif phase != "intent" and (key, step) not in begun:
            refused.append(f"{where} an intent of {key} {step} before its end, got none")
        else:
            (begun.add if phase == "intent" else begun.discard)((key, step))
            origin = f"{kit.name} line {number} {digest_bytes(line)}"
            body = {"item": item, "node": nodes[key], "step": step, "phase": phase}
            more: dict[str, object] = {
                "stem": f"kit-{number}",
                "at": at.isoformat(),
                "origin": origin,
            }
            if code:
                more["code"] = int(code)
            steps.append(("step", {**body, **more, "imported": True}))
    return steps, refused


def _locally(folder: Path, kit: Kit, runbook: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Steps and states of recoveries that worked in the kit's own store."""
    for path in sorted((folder / STORE / kit.release / runbook).glob("[0-9]*/record.jsonl")):
        for entry in parse(_read(path, 64 * 1024 * 1024), f"{folder.name}/{path.parent.name}")[0]:
            if entry.kind in ("step", "state") and not entry.body.get("imported"):
                yield entry.kind, {**entry.body, "imported": True, "origin": entry.hash}


def _incidents(folder: Path, store: Store) -> list[str]:
    """Bring in incidents that were opened, or added to, in the kit's store; what stands in the way.

    What the store knows of an incident is only ever added to; another one of that name is kept.
    """
    refused = []
    for path in sorted((folder / STORE / ".incidents").glob("*.jsonl")):
        target = store.root / ".incidents" / path.name
        data = _read(path, 64 * 1024 * 1024)
        there = target.read_bytes() if target.exists() else b""
        if data.startswith(there) and data != there:
            target.parent.mkdir(exist_ok=True)
            replace_file(target, data)
        elif not there.startswith(data):
            refused.append(f"{path.name}: expected one incident of that name, got two")
    return refused
