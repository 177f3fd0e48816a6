"""Verifying an attempt from its files and the trusted keys: signature first, offline.

The procedure; each step is reported, and none is skipped for an earlier one that failed unless it
cannot be done without it:

(1) the attestations are there, readable, numbered without a gap
(2) those who may sign this stage did, and they are enough persons
(3) every subject has its digest, none is missing, none is there that is not attested
(4) each seal names the payload before it, and the log's head of its time
(5) the log's events form an unbroken chain up to the head the statement names
(6) the tape holds every body it speaks of, and results were judged on the entries they name
(7) each finding follows from its own numbers
(8) every declared item has its final result, in order, and enforce ran last
(9) every change began only after all items before it passed or were waived
(10) the statement says what the log says; the verdict computed from it is the one on the card
(11) the notebook's code is one of ours, and so is the package that ran it
(12) the head is the one that was handed over, where one was
(13) nothing was added since the seal: what was is named, and is INCONCLUSIVE until it is sealed
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from operator import eq, ge, gt, le, lt
from pathlib import Path
from typing import Any

from .. import notebook, playbook
from ..display import MIME
from ..errors import RunbookError
from ..outcomes import CheckResult, Outcome, Row, check_row, unknown_row
from ..package import VERSION
from ..signers import Trust
from ..sources.local import recorded
from ..sources.tape import Entry as TapeEntry
from ..sources.tape import check_body, inputs_of, read_entries
from ..verdicts import Verdict
from ..wording import count, utc
from . import events as kinds
from . import seal
from .log import opened_by, parse
from .seal import Seal
from .status import item_status, verdict

GROWING = ("log.jsonl", "tape/index.jsonl")
"""What is appended to, line by line."""
BEGINNINGS: dict[type[kinds.Event], str] = {
    kinds.WatchBegun: "runbook watch",
    kinds.SessionOpened: "a further run",
}
"""What begins with an event of that kind. Nothing else may add to a sealed attempt."""


@dataclass(frozen=True)
class Unsealed:
    """Events since the seal of ``at``, oldest first; none for an attempt that is sealed to its end."""

    entries: tuple[kinds.Event, ...] = ()
    at: str = ""

    def __str__(self) -> str:
        by = " and ".join(what for kind, what in BEGINNINGS.items() if kinds.of(self.entries, kind))
        many = count(len(self.entries), "event")
        since = utc(datetime.fromisoformat(self.at))
        return f"not yet sealed: {many} since {since} by {by}; the next --continue seals it"


def unsealed(entries: Sequence[kinds.Event], facts: Mapping[str, Any]) -> Unsealed:
    """What a log has gained since the seal of ``facts``. Nothing where it does not go on as it should."""
    try:
        number, head = facts["log"]["events"], facts["log"]["head"]
        sealed, later = entries[number - 1], tuple(entries[number:])
        datetime.fromisoformat(sealed.written)
        goes_on = isinstance(sealed, kinds.Sealed) and sealed.hash == head and number > 0
        begun = [type(event) for event in later if not isinstance(event, kinds.Torn)][:1]
        if goes_on and begun and begun[0] in BEGINNINGS:
            return Unsealed(later, sealed.written)
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


def verify(
    folder: Path, trust: Trust | None = None, *, head: str = ""
) -> tuple[list[Row], Verdict | None]:
    """The procedure's rows, and the verdict the log amounts to (None when it is unreadable or broken).

    ``head`` is what the attempt's is compared with.
    """
    report = _Report()
    found, facts, since, entries = report.log(folder, trust)
    hashed = report.step("3 files", lambda: _files(folder, found, facts, since)) or {}
    report.step("6 tape", lambda: _tape(folder, entries, found, hashed))
    report.step("7 findings", lambda: _findings(entries))
    final = report.step("8 completeness", lambda: _complete(entries, facts))
    report.step("9 the rule", lambda: _guarded(entries))
    report.step("10 verdict", lambda: _agree(folder, found, facts, entries, final))
    report.step("11 notebook", lambda: _ours(folder, facts, trust))
    report.step("12 head", lambda: _head(found, head))
    report.step("13 seal", lambda: _sealed(since))
    return sorted(report.rows, key=lambda row: int(row.what.split()[0])), final


def verify_log(folder: Path, trust: Trust) -> list[Row]:
    """The steps by which a sealed log can be believed, whatever became of the other files."""
    report = _Report()
    report.log(folder, trust)
    return report.rows


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

    def log(
        self, folder: Path, trust: Trust | None
    ) -> tuple[list[Seal], dict[str, Any], Unsealed, list[kinds.Event]]:
        """Its seals, what the newest states, what came since, and the entries that are sealed."""
        found = self.step("1 attestations", lambda: _seals(folder)) or []
        facts = seal.facts_of(found[-1].payload) if found else {}
        self.step("2 signers", lambda: _signers(trust, found, facts))
        read = self.step("5 log", lambda: _log(folder, facts))
        entries, since = read or ([], Unsealed())
        self.step("4 seals", lambda: _chained(found, entries))
        return found, facts, since, entries

    def step(self, name: str, run: Callable[[], Any]) -> Any:
        """What a step comes to, None where it fails; one that holds may say how, as text."""
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
        said = value if isinstance(value, str) else "holds"
        self.rows.append(check_row("evidence", name, "holds", said, ok=True))
        return value


def _seals(folder: Path) -> list[Seal]:
    found = seal.seals(folder)
    if not found:
        raise _Wrong("a sealed attempt", "no attestation; seal it with `runbook seal`")
    for one in found:
        seal.facts_of(one.payload)
    return found


def _signers(trust: Trust | None, found: Sequence[Seal], facts: Mapping[str, Any]) -> str:
    if not found:
        raise _Wrong("a signature", "none")
    if trust is None:
        got = "no keys to compare with; name the trusted ones: --trust FILE"
        raise _NotYet("signatures by keys that are trusted", got)
    if trust.signing == "none":
        return "unsigned: the site asks for no signature"
    stage, newest = playbook.RECOVERY.get(facts["stage"], facts["stage"]), found[-1]
    sealed = datetime.fromisoformat(facts["sealed_at"])
    who, lacks = trust.judge(newest.envelopes.values(), stage, sealed)
    if lacks:
        signed = any(one.signatures for one in newest.envelopes.values())
        how = "" if signed else "; it is unsigned: `runbook seal --sign FOLDER` signs it"
        wanted, _, got = lacks.partition(", got ")
        raise _Wrong(wanted.removeprefix("expected "), got + how)
    return f"signed by {', '.join(who)}"


def _chained(found: Sequence[Seal], entries: Sequence[kinds.Event]) -> None:
    if not found:
        raise _Wrong("a seal", "none")
    previous, heads = "", {entry.hash: entry.seq + 1 for entry in entries}
    for one in found:
        facts = seal.facts_of(one.payload)
        if facts["previous"] != previous:
            raise _Wrong(f"seal {one.number} after {previous or 'none'}", str(facts["previous"]))
        if heads.get(facts["log"]["head"]) != facts["log"]["events"]:
            raise _Wrong(f"the head of seal {one.number} in the log", "another history")
        previous = one.digest


def _subjects(found: Sequence[Seal]) -> dict[str, str]:
    """File -> digest, as the newest seal attests. Raises _Wrong."""
    if not found:
        raise _Wrong("a statement", "none")
    listed = json.loads(found[-1].payload)["subject"]
    subjects = {one["name"]: f"sha256:{one['digest']['sha256']}" for one in listed}
    if len(subjects) != len(listed):
        raise _Wrong("each subject once", "one twice")
    return subjects


def _files(
    folder: Path, seals: Sequence[Seal], facts: Mapping[str, Any], since: Unsealed
) -> dict[str, str]:
    listed, found = _subjects(seals), seal.file_digests(folder)
    missing = sorted(set(listed) - set(found))
    extra = sorted(set(found) - set(listed)) if not since.entries else []
    altered = {name for name in listed if name in found and listed[name] != found[name]}
    if since.entries:
        altered -= {n for n in GROWING if n in altered and sealed_lines(folder / n, listed[n])}
    for what, names in (
        ("missing", missing),
        ("not attested", extra),
        ("altered", sorted(altered)),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise _Wrong("every file as attested", f"{what}: {', '.join(names[:3])}{more}")
    return found


def _log(folder: Path, facts: Mapping[str, Any]) -> tuple[list[kinds.Event], Unsealed]:
    """The events that are sealed, and what came since."""
    entries, rest = parse(recorded(folder / "log.jsonl"), "log.jsonl")
    sealed, since = facts["log"], unsealed(entries, facts)
    if since.entries:
        return entries[: sealed["events"]], since
    if rest:
        raise _Wrong("a finished last event", f"{len(rest)} bytes of an unfinished one")
    if len(entries) != sealed["events"] or not entries or entries[-1].hash != sealed["head"]:
        got = f"{len(entries)} ending in {entries[-1].hash if entries else 'nothing'}"
        raise _Wrong(f"{sealed['events']} events ending in {sealed['head']}", got)
    return entries, since


def _tape(
    folder: Path, entries: Sequence[kinds.Event], found: Sequence[Seal], hashed: Mapping[str, str]
) -> None:
    bodies = {name.removeprefix("tape/"): value for name, value in hashed.items()}
    digest_then = _subjects(found).get("tape/index.jsonl", "")
    index = folder / "tape" / "index.jsonl"
    lines = sealed_lines(index, digest_then) if index.exists() else None
    tape = read_entries(folder / "tape")[:lines]
    for name in {entry.body for entry in tape}:
        check_body(folder / "tape", name, bodies)
    heard: dict[tuple[str, int], list[TapeEntry]] = {}
    for entry in tape:
        heard.setdefault((entry.item, entry.number), []).append(entry)
    for ended in kinds.of(entries, kinds.RunEnded):
        heard_now = inputs_of(heard.get((ended.item, ended.number), []))
        if heard_now != ended.result.inputs:
            where = f"{ended.item}, try {ended.number}"
            raise _Wrong(f"{where}: inputs {ended.result.inputs}", heard_now)


_BOUND = re.compile(r"(>=|<=|>|<|at least|at most|below|above)? ?(-?[\d,]+(?:\.\d+)?)")
_HOLDS: dict[str, Callable[[float, float], bool]] = {
    "": eq, ">=": ge, "at least": ge, "<=": le, "at most": le, ">": gt, "above": gt, "<": lt,
    "below": lt,
}  # fmt: skip


def _findings(entries: Sequence[kinds.Event]) -> None:
    """No row passed whose numbers say otherwise: 101 where 0 was expected."""
    for ended in kinds.of(entries, kinds.RunEnded):
        for row in ended.result.rows:
            if row.outcome is Outcome.PASS and not _follows(row):
                where = f"{ended.item}: {row.subject}: {row.what}"
                raise _Wrong(f"{where}: {row.expected}", f"PASS with {row.observed}")


def _follows(row: Row) -> bool:
    if isinstance(row.observed, bool) or not isinstance(row.observed, int | float):
        return isinstance(row.expected, str) or row.expected == row.observed
    if not isinstance(row.expected, str):
        return row.expected == row.observed
    bound = _BOUND.fullmatch(row.expected)
    limit = float(bound[2].replace(",", "")) if bound else 0.0
    return bound is None or _HOLDS[bound[1] or ""](row.observed, limit)


def _complete(entries: Sequence[kinds.Event], facts: Mapping[str, Any]) -> Verdict:
    if not entries:
        raise _Wrong("a log", "none that can be read")
    broken = [why for why in facts.get("broken", []) if why]
    final = verdict(entries)
    if final.broken:
        raise _Wrong("a complete run", "; ".join(final.broken))
    if broken:
        raise _Wrong("an unbroken run", "; ".join(broken))
    return final


def _guarded(entries: Sequence[kinds.Event]) -> None:
    if not entries:
        raise _Wrong("a log", "none that can be read")
    opened = opened_by(entries, "log")
    if opened.stage in playbook.RECOVERY:
        return  # no item of a recovery waits for another
    for step in (step for step in kinds.of(entries, kinds.StepTaken) if step.phase == "intent"):
        for item in opened.declared[: opened.declared.index(step.item)]:
            was = item_status(entries[: step.seq], item)
            if was.outcome is not Outcome.PASS:
                got = f"it began while {item} was {was.outcome} ({was.state})"
                raise _Wrong(f"{step.item} after every item before it", got)


def _agree(
    folder: Path,
    found: Sequence[Seal],
    facts: Mapping[str, Any],
    entries: Sequence[kinds.Event],
    final: Verdict | None,
) -> None:
    if final is None:
        raise _Wrong("a verdict from the log", "none")
    said = (facts["outcome"], facts["exit_code"])
    if said != (final.outcome.value, int(final.exit_code)):
        raise _Wrong(f"{final.outcome} ({int(final.exit_code)})", f"{said[0]} ({said[1]})")
    subjects = _subjects(found)
    about = json.loads(found[-1].payload)["predicate"]
    expected = seal.statement(entries, subjects, facts["previous"])["predicate"]
    for mine, theirs in ((expected[seal.FACTS], facts), (expected, about)):
        for key in (key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)):
            raise _Wrong(f"{key} {mine.get(key)!r}", repr(theirs.get(key)))
    if subjects.get(facts["notebook"]) != kinds.of(entries, kinds.Sealed)[-1].digest:
        raise _Wrong("the notebook that was sealed", "another one")
    book = _book(folder, facts)
    shown = book["cells"][0]["outputs"][0]["data"][MIME]
    if shown["verdict"]["outcome"] != final.outcome.value:
        raise _Wrong(f"{final.outcome} on the card", str(shown["verdict"]["outcome"]))
    for cell in book["cells"][1:]:
        for output in cell.get("outputs", ()):
            card = output.get("data", {}).get(MIME)
            if isinstance(card, dict) and card.get("kind") == "result":
                _same_result(card, final)


def _same_result(card: dict[str, Any], final: Verdict) -> None:
    shown = card["status"]
    mine = next((item for item in final.items if item.item == shown["item"]), None)
    if mine is None or mine.result is None or shown.get("result") is None:
        return
    result = CheckResult.model_validate_json(json.dumps(shown["result"]))
    if result != mine.result and shown["number"] == mine.number:
        raise _Wrong(f"{mine.item} as in the log", "another result in the notebook")


def _ours(folder: Path, facts: Mapping[str, Any], trust: Trust | None) -> None:
    book = _book(folder, facts)
    found = notebook.code_digest(book)
    if facts["foreign"]:
        raise _Wrong("a notebook of ours", "a foreign one; it never promotes")
    if found != facts["code"]:
        raise _Wrong(f"code {facts['code']}", found)
    known = {VERSION, *(trust.versions if trust else ())}
    if (version := facts["package"]["version"]) not in known:
        raise _NotYet(
            f"one of the versions {sorted(known)}", f"a version not known here, {version!r}"
        )
    expected = notebook.known_digests().get(playbook.NOTEBOOKS[facts["stage"]])
    if version == VERSION and found != expected:
        raise _Wrong(f"this version's code {expected}", f"{found}, of another version")


def _head(found: Sequence[Seal], head: str) -> str:
    newest = found[-1].digest if found else "none"
    if not head:
        return f"not compared; it is {newest}, compare it with the release issue: --head"
    if head != newest:
        raise _Wrong(f"head {head}", f"{newest}; a seal is missing, or was replaced")
    return f"as handed over, {newest}"


def _sealed(since: Unsealed) -> None:
    if since.entries:
        raise _NotYet("nothing added since", str(since))


def _book(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    name = str(facts["notebook"])
    if "/" in name or name.startswith("."):
        raise _Wrong("a file of the attempt", name)
    return dict(json.loads(recorded(folder / name, notebook.MAX_BOOK)))
