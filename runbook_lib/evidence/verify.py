"""Verifying an attempt from its files alone: nothing altered, nothing missing, the same verdict.

The procedure; each step is reported, and none is skipped for an earlier one that failed unless it
cannot be done without it:

(1) the manifest is there, canonical, and of a version we know
(2) every file it lists has its digest, none is missing, none is there that it does not list
(3) the record's entries form an unbroken chain up to the head the manifest names
(4) the tape holds every body it speaks of, and results were judged on the entries they name
(5) every declared item has its final result, in order, and enforce ran last
(6) every change began only after all items before it passed or were waived
(7) the manifest says what the record says; the verdict computed from it is the one on the card
(8) the notebook's code is one of ours
(9) nothing was added since the seal: what was is named, and is INCONCLUSIVE until it is sealed
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from .. import notebook, playbook
from ..canonical import canonical, digest
from ..display import MIME
from ..errors import RunbookError
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..sources.local import recorded
from ..sources.tape import check_body, read_entries
from ..verdicts import Verdict
from ..wording import utc
from . import seal
from .record import Entry, parse
from .standing import load_result, standing, verdict

GROWING = ("record.jsonl", "tape/index.jsonl")
"""What is appended to, line by line."""
BEGINNINGS = {"watching": "runbook watch", "session": "a further try"}
"""What begins with an entry of that kind. Nothing else may add to a sealed attempt."""


@dataclass(frozen=True)
class Unsealed:
    """Entries since the seal of ``at``, oldest first; none for an attempt that is sealed to its end."""

    entries: tuple[Entry, ...] = ()
    at: str = ""

    def __str__(self) -> str:
        begun = [entry.kind for entry in self.entries if entry.kind in BEGINNINGS]
        by = " and ".join(what for kind, what in BEGINNINGS.items() if kind in begun)
        many = "1 entry" if len(self.entries) == 1 else f"{len(self.entries):,} entries"
        since = utc(datetime.fromisoformat(self.at))
        return f"not yet sealed: {many} since {since} by {by}; the next --continue seals it"


def unsealed(folder: Path, manifest: Mapping[str, Any]) -> Unsealed:
    """What the record has gained since ``manifest``. Nothing where it does not go on as it should."""
    try:
        entries, _ = parse(recorded(folder / "record.jsonl"), "record.jsonl")
        number, head = manifest["record"]["entries"], manifest["record"]["head"]
        sealed, later = entries[number - 1], tuple(entries[number:])
        datetime.fromisoformat(sealed.at)
        goes_on = (sealed.kind, sealed.hash) == ("sealed", head) and number > 0
        begun = [entry.kind for entry in later if entry.kind != "torn"][:1]
        if goes_on and begun and begun[0] in BEGINNINGS:
            return Unsealed(later, sealed.at)
    except Exception:  # files are hostile; the procedure's own steps say what is wrong with them
        return Unsealed()
    return Unsealed()


def sealed_lines(path: Path, digest: str) -> int | None:
    """How many lines from its beginning a file had when it had that digest; None when it never had."""
    hashed = hashlib.sha256()
    for number, line in enumerate(BytesIO(recorded(path)), start=1):
        hashed.update(line)
        if f"sha256:{hashed.hexdigest()}" == digest:
            return number
    return None


MAX_JSON = 256 * 1024 * 1024


def verify(folder: Path) -> tuple[list[Row], Verdict | None]:
    """The procedure's rows, and the verdict the record amounts to (None when it is unreadable or broken)."""
    report = _Report()
    manifest = report.step("1 manifest", lambda: _manifest(folder)) or {}
    since = unsealed(folder, manifest)
    report.step("2 files", lambda: _files(folder, manifest, since))
    entries = report.step("3 record", lambda: _record(folder, manifest, since)) or []
    report.step("4 tape", lambda: _tape(folder, entries, manifest))
    final = report.step("5 completeness", lambda: _complete(entries, manifest))
    report.step("6 the rule", lambda: _guarded(entries))
    report.step("7 verdict", lambda: _agree(folder, manifest, entries, final))
    report.step("8 notebook", lambda: _ours(folder, manifest))
    report.step("9 seal", lambda: _sealed(since))
    return report.rows, final


class _Wrong(RunbookError):
    """A step that does not hold; carries what was expected and what was found."""

    def __init__(self, expected: str, found: str) -> None:
        self.expected, self.found = expected, found
        super().__init__(f"expected {expected}, got {found}")


class _NotYet(_Wrong):
    """A step that neither holds nor is broken."""


class _Report:
    def __init__(self) -> None:
        self.rows: list[Row] = []

    def step(self, name: str, run: Callable[[], Any]) -> Any:
        try:
            value = run()
        except _Wrong as wrong:
            outcome = Outcome.INCONCLUSIVE if isinstance(wrong, _NotYet) else Outcome.FAIL
            self.rows.append(check_row("evidence", name, wrong.expected, wrong.found, outcome))
            return None
        except RunbookError as error:
            self.rows.append(check_row("evidence", name, "holds", str(error), ok=False))
            return None
        except Exception as error:  # files are hostile: whatever we stumble over proves nothing
            problem = f"unreadable: {type(error).__name__}: {error}"
            self.rows.append(unknown_row("evidence", name, "readable", problem[:300]))
            return None
        self.rows.append(check_row("evidence", name, "holds", "holds", ok=True))
        return value


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / seal.MANIFEST
    if not path.is_file():
        raise _Wrong("a sealed attempt", "no manifest; seal it with `runbook seal`")
    text = recorded(path, MAX_JSON)
    value = json.loads(text)
    if value.get("version") != 1:
        raise _Wrong("manifest version 1", repr(value.get("version")))
    if canonical(value) + b"\n" != text:
        raise _Wrong("its own canonical form", "other bytes")
    return dict(value)


def _files(folder: Path, manifest: dict[str, Any], since: Unsealed) -> None:
    listed, found = dict(manifest["files"]), seal.file_digests(folder)
    # An earlier seal of the same attempt is listed as a file of its own.
    missing = sorted(set(listed) - set(found))
    extra = sorted(set(found) - set(listed)) if not since.entries else []
    altered = sorted(name for name in listed if name in found and listed[name] != found[name])
    if since.entries:
        grown = {n for n in GROWING if n in altered and sealed_lines(folder / n, listed[n])}
        altered = [name for name in altered if name not in grown]
    for what, names in (("missing", missing), ("not listed", extra), ("altered", altered)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise _Wrong("every file as listed", f"{what}: {', '.join(names[:3])}{more}")


def _record(folder: Path, manifest: dict[str, Any], since: Unsealed) -> list[Entry]:
    entries, rest = parse(recorded(folder / "record.jsonl"), "record.jsonl")
    if since.entries:
        return entries[: manifest["record"]["entries"]]
    sealed = manifest["record"]
    if rest:
        raise _Wrong("a finished last entry", f"{len(rest)} bytes of an unfinished one")
    if len(entries) != sealed["entries"] or not entries or entries[-1].hash != sealed["head"]:
        got = f"{len(entries)} ending in {entries[-1].hash if entries else 'nothing'}"
        raise _Wrong(f"{sealed['entries']} entries ending in {sealed['head']}", got)
    return entries


def _tape(folder: Path, entries: Sequence[Entry], manifest: dict[str, Any]) -> None:
    digest_then = dict(manifest.get("files", {})).get("tape/index.jsonl", "")
    index = folder / "tape" / "index.jsonl"
    lines = sealed_lines(index, digest_then) if index.exists() else None
    tape = read_entries(folder / "tape")[:lines]
    for name in {entry.body for entry in tape}:
        check_body(folder / "tape", name)
    heard: dict[tuple[str, int], list[Any]] = {}
    for entry in tape:
        use = [entry.key, entry.n, entry.meta, entry.body]
        heard.setdefault((entry.item, entry.number), []).append(use)
    for result in (entry.body for entry in entries if entry.kind == "result"):
        item, number = result.get("under", (result["item"], result["number"]))
        uses = heard.get((item, number), [])
        found = digest(sorted(uses, key=canonical))
        if found != result["result"]["inputs"]:
            where = f"{result['item']}, try {result['number']}"
            raise _Wrong(f"{where}: inputs {result['result']['inputs']}", found)


def _complete(entries: Sequence[Entry], manifest: dict[str, Any]) -> Verdict:
    if not entries:
        raise _Wrong("a record", "none that can be read")
    broken = [why for why in manifest.get("broken", []) if why]
    final = verdict(entries)
    if final.broken:
        raise _Wrong("a complete run", "; ".join(final.broken))
    if broken:
        raise _Wrong("an unbroken run", "; ".join(broken))
    return final


def _guarded(entries: Sequence[Entry]) -> None:
    if not entries:
        raise _Wrong("a record", "none that can be read")
    declared = entries[0].body["declared"]
    if entries[0].body["stage"] in playbook.RECOVERY:
        return  # no item of a recovery waits for another
    for entry in entries:
        if entry.kind != "step" or entry.body["phase"] != "intent":
            continue
        before = declared[: declared.index(entry.body["item"])]
        for item in before:
            was = standing(entries[: entry.seq], item)
            if was.outcome is not Outcome.PASS:
                got = f"it began while {item} was {was.outcome} ({was.state})"
                raise _Wrong(f"{entry.body['item']} after every item before it", got)


def _agree(
    folder: Path, manifest: dict[str, Any], entries: Sequence[Entry], final: Verdict | None
) -> None:
    if final is None:
        raise _Wrong("a verdict from the record", "none")
    said = (manifest["outcome"], manifest["exit_code"])
    if said != (final.outcome.value, int(final.exit_code)):
        raise _Wrong(f"{final.outcome} ({int(final.exit_code)})", f"{said[0]} ({said[1]})")
    expected = seal.manifest(entries, manifest["files"])
    for key in {**expected, **manifest}:
        if expected.get(key) != manifest.get(key):
            raise _Wrong(f"{key} {expected.get(key)!r}", repr(manifest.get(key)))
    if manifest["files"].get(manifest["notebook"]) != entries[-1].body["digest"]:
        raise _Wrong("the notebook that was sealed", "another one")
    book = _book(folder, manifest)
    shown = book["cells"][0]["outputs"][0]["data"][MIME]
    if shown["verdict"]["outcome"] != final.outcome.value:
        raise _Wrong(f"{final.outcome} on the card", str(shown["verdict"]["outcome"]))
    for cell in book["cells"][1:]:
        for output in cell.get("outputs", ()):
            card = output.get("data", {}).get(MIME)
            if isinstance(card, dict) and card.get("kind") == "result":
                _same_result(card, final)


def _same_result(card: dict[str, Any], final: Verdict) -> None:
    shown = card["standing"]
    mine = next((item for item in final.items if item.item == shown["item"]), None)
    if mine is None or mine.result is None or shown.get("result") is None:
        return
    if load_result(shown["result"]) != mine.result and shown["number"] == mine.number:
        raise _Wrong(f"{mine.item} as in the record", "another result in the notebook")


def _ours(folder: Path, manifest: dict[str, Any]) -> None:
    book = _book(folder, manifest)
    found = notebook.code_digest(book)
    if manifest["foreign"]:
        raise _Wrong("a notebook of ours", "a foreign one; it never promotes")
    if found != manifest["code"]:
        raise _Wrong(f"code {manifest['code']}", found)
    expected = notebook.known_digests().get(playbook.NOTEBOOKS[manifest["stage"]])
    if found != expected:
        raise _Wrong(f"this version's code {expected}", f"{found}, of another version")


def _sealed(since: Unsealed) -> None:
    if since.entries:
        raise _NotYet("nothing added since", str(since))


def _book(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    name = str(manifest["notebook"])
    if "/" in name or name.startswith("."):
        raise _Wrong("a file of the attempt", name)
    return dict(json.loads(recorded(folder / name, MAX_JSON)))
