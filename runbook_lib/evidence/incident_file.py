"""One incident: what its hash-chained file tells of it, and what is left to be done about it.

It is opened by a recovery, acknowledged, mitigated, closed, and signed off by somebody other than
its author: with an approval of the digest of the closing statement. Nothing is ever overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..canonical import digest
from ..errors import RecordDamaged
from ..playbook import COUNCIL_WITHIN
from ..wording import utc
from .record import Entry, parse

FOLDER, SUFFIX = ".incidents", ".jsonl"
STEPS = ("opened", "acknowledged", "mitigated", "closed", "signed-off")
"""What happens to an incident, in this order."""


@dataclass(frozen=True)
class Incident:
    """One incident as its file tells it. Raises RecordDamaged in properties for odd entries."""

    id: str
    entries: Sequence[Entry]

    @property
    def opened(self) -> dict[str, Any]:
        return self.entries[0].body

    @property
    def release(self) -> str:
        return str(self.opened["release"])

    @property
    def author(self) -> str:
        return str(self.opened["author"])

    def last(self, kind: str) -> dict[str, Any] | None:
        """The body of the newest entry of a kind. A sign-off of an earlier closing is none."""
        found = [entry.body for entry in self.entries if entry.kind == kind]
        if kind == "signed-off" and found:
            closed = self.last("closed")
            if closed is None or found[-1]["digest"] != closed["digest"]:
                return None
        return found[-1] if found else None

    def when(self, kind: str) -> datetime | None:
        body = self.last(kind)
        return datetime.fromisoformat(body["at"]) if body else None

    @property
    def step(self) -> str:
        """The last of ``STEPS`` that it has come to."""
        return [step for step in STEPS if self.last(step) is not None][-1]

    @property
    def standing(self) -> str:
        """The same as a word."""
        return {"opened": "open", "signed-off": "signed off"}.get(self.step, self.step)

    @property
    def times(self) -> list[tuple[str, datetime, str]]:
        """(what, when, who) of all that happened to it."""
        return [
            (entry.kind, datetime.fromisoformat(entry.body["at"]), str(entry.body["by"]))
            for entry in self.entries
            if "by" in entry.body and "at" in entry.body
        ]

    @property
    def break_glass(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.opened.get("break_glass")
        return found

    @property
    def ratified(self) -> dict[str, Any] | None:
        """The council's decision that ratifies the break-glass."""
        found = [e.body for e in self.entries if e.kind == "decision" and e.body.get("ratifies")]
        return found[0] if found else None

    def problem(self, single_operator: bool) -> str:
        """Why it blocks its release, with what to do; empty when it is over."""
        signed = self.last("signed-off")
        if signed is None:
            held = f"closed and signed off by somebody other than {self.author}"
            since = datetime.fromisoformat((self.last(self.step) or {})["at"])
            return f"expected it {held}, got it {self.standing} since {utc(since)}"
        if signed["account"].casefold() == self.author.casefold() and not single_operator:
            return f"expected it signed off by somebody other than {self.author}, got their own"
        if self.break_glass and self.ratified is None:
            due = utc(self.ratify_until)
            return f"expected its break-glass ratified by the council until {due}, got no decision"
        return ""

    @property
    def opened_at(self) -> datetime:
        return datetime.fromisoformat(self.opened["at"])

    @property
    def ratify_until(self) -> datetime:
        """When the council's word on the recovery is due."""
        return self.opened_at + COUNCIL_WITHIN

    def is_late(self, at: datetime) -> bool:
        """Whether a decision of that instant comes later than the playbook allows."""
        return at > self.ratify_until

    @property
    def filed(self) -> list[int]:
        """The forge's issues in which it was filed."""
        return [int(e.body["number"]) for e in self.entries if e.kind == "filed"]

    def decided(self, wanted: str) -> dict[str, Any] | None:
        """The council's decision on the text of that digest, as it was recorded."""
        made = (e.body for e in self.entries if e.kind == "decision")
        return next((body for body in made if body["digest"] == wanted), None)

    @property
    def to_ratify(self) -> str:
        """The digest whose approval by the council ratifies its break-glass."""
        return digest({"ratifies": self.id, "opened": self.entries[0].hash})

    def statement(self, reason: str, by: str, at: str) -> dict[str, Any]:
        """What a sign-off approves the digest of: the whole incident up to its closing, and why."""
        decisions = [e.body for e in self.entries if e.kind == "decision"]
        return {
            "closes": self.id,
            "opened": self.entries[0].hash,
            "head": self.entries[-1].hash,
            "reason": reason,
            "by": by,
            "at": at,
            "decided_late": [body["digest"] for body in decisions if body.get("late")],
        }


def parse_incident(data: bytes, name: str) -> Incident:
    """An incident out of its file's bytes. Raises RecordDamaged for anything else."""
    entries, _ = parse(data, f"{FOLDER}/{name}")
    found = Incident(name.removesuffix(SUFFIX), entries)
    try:
        if entries[0].kind != "opened" or found.opened["id"] != found.id:
            raise ValueError("its first entry opens another incident")
        for key in ("release", "stage", "author", "attempt"):
            if not isinstance(found.opened[key], str):
                raise TypeError(f"{key} is no text")
        for entry in entries:
            _require_sound(entry)
    except (IndexError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise RecordDamaged(
            f"{FOLDER}/{name}: expected the record of an incident, got: {error!r}; restore it"
        ) from error
    return found


def _require_sound(entry: Entry) -> None:
    """Raises what an entry of another shape stumbles over."""
    body = entry.body
    if entry.kind in (*STEPS, "decision") and not datetime.fromisoformat(body["at"]).tzinfo:
        raise ValueError(f"entry {entry.seq}: an instant without its offset")
    if entry.kind in ("closed", "signed-off", "decision"):
        body["digest"]
    if entry.kind == "filed":
        int(body["number"])
    if entry.kind == "signed-off" and not isinstance(body["account"], str):
        raise TypeError("account is no text")
