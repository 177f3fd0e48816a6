"""The forms of a person's word: a line of a comment, or a signed file that says the same.

A line begins with the verb (any case, a ``/`` before it allowed) and holds nothing else:

    acknowledge RELEASE STAGE START/END                  a validator knows the window
    sign-off    RELEASE STAGE START/END sha256:PLAN      a validator accepts window and plan
    approve     sha256:DIGEST                            a person approves a plan, waiver or state
    acknowledge-anomaly ID                               the commander knows of an anomaly
    decide      ID continue|restart|recover REASON       and decides what becomes of the watch
    withdraw    [VERB [what was said, or its beginning]] takes back all earlier words like it

START and END are ISO 8601 instants with their offset. A withdrawal that cannot be read takes back
all that its readable beginning covers. Lines in fenced blocks and hidden comments say nothing,
but for withdrawals: what is a block to us may be none to their writer.

A file is ``{"statement": {...}, "signature": BASE64}``: Ed25519 over the canonical JSON of the
statement, which holds ``kind`` (the verb), ``release``, ``stage``, ``window`` (START/END),
``plan``, ``anomaly``, ``decision``, ``reason``, ``withdraw`` (true for a withdrawal), ``at`` (instant), and one of ``account``
(signed with that person's key) and ``validator`` (an address; signed with its ``signoff_key``).
What a kind does not need may be left out. ``{"approve": DIGEST, "account", "at"}`` is short for an
approval.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ValidationError, model_validator

from ..canonical import canonical
from ..fields import NAME, Name, parse_instant
from ..markup import visible
from ..outcomes import Model
from ..playbook import STAGES

Kind = Literal["acknowledge", "sign-off", "approve", "acknowledge-anomaly", "decide"]
DECISIONS = ("continue", "restart", "recover")
FORMS: dict[str, tuple[str, ...]] = {
    "acknowledge": ("release", "stage", "window"),
    "sign-off": ("release", "stage", "window", "plan"),
    "approve": ("plan",),
    "acknowledge-anomaly": ("anomaly",),
    "decide": ("anomaly", "decision", "reason"),
}
MAX_FILE = 64 * 1024
LONGEST_REASON = 500
_PLACES = {
    "release": "RELEASE",
    "stage": "STAGE",
    "window": "START/END",
    "plan": "sha256:DIGEST",
    "anomaly": "ID",
    "decision": "|".join(DECISIONS),
    "reason": "REASON",
}
_ANOMALY = r"A[0-9a-f]{8}"
# "decide" is a word that people use: it is ours only before an anomaly's id. A verb is ASCII: any
# case of Unicode's would take in letters that are another's (long s, dotless i).
_LINE = re.compile(
    rf"\s*/?((?ai:acknowledge(?:-anomaly)?|sign-off|approve|withdraw|decide(?=\s+{_ANOMALY}\s)))(?!\S)(.*)",
    re.S,
)
# A fence of backticks has none behind it on its line, and ends at one with nothing behind it.
_HIDDEN = re.compile(
    r"<!--.*?(?:-->|\Z)|^ {0,3}(`{3,}+(?![^\n]*`)|~{3,}).*?(?:^ {0,3}\1[`~]*[ \t]*$|\Z)",
    re.S | re.M,
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Window:
    """A window of time, UTC; ``text`` is how it is written."""

    start: datetime
    end: datetime

    def __str__(self) -> str:
        return f"{_utc(self.start)}/{_utc(self.end)}"


def _utc(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


@dataclass(frozen=True)
class Said:
    """What was said, whoever said it; of a withdrawal, what it leaves out covers everything."""

    kind: str
    withdraws: bool = False
    release: str = ""
    stage: str = ""
    window: Window | None = None
    plan: str = ""
    anomaly: str = ""
    decision: str = ""
    reason: str = ""

    def __str__(self) -> str:
        place = (self.release, self.stage, str(self.window or ""), self.plan)
        words = (self.kind, *place, self.anomaly, self.decision, self.reason)
        return " ".join(filter(None, ("withdraw" if self.withdraws else "", *words)))

    def covers(self, other: Said) -> bool:
        """Whether this withdrawal takes back ``other``."""
        return all(
            mine in ("", None, theirs)
            for mine, theirs in (
                (self.kind, other.kind),
                (self.release, other.release),
                (self.stage, other.stage),
                (self.window, other.window),
                (self.plan, other.plan),
                (self.anomaly, other.anomaly),
                (self.decision, other.decision),
            )
        )


@dataclass(frozen=True, kw_only=True)
class Word(Said):
    """What was said by a known account, or with a validator's key; ``at`` which instant; where."""

    account: str = ""
    validator: str = ""
    at: datetime
    grounds: str


@dataclass(frozen=True)
class Malformed:
    """A line that begins with one of our verbs and says nothing; ``why`` with the form expected."""

    line: str
    why: str


def parse_window(text: str) -> Window:
    """``START/END``. Raises ValueError."""
    start, slash, end = text.partition("/")
    if not slash:
        raise ValueError(f"expected START/END, got {visible(text, 80)!r}")
    window = Window(parse_instant(start), parse_instant(end))
    if window.start >= window.end:
        raise ValueError(f"expected a window that ends after it starts, got {visible(text, 80)!r}")
    return window


def _field(name: str, text: str) -> Any:
    """One word of a line. Raises ValueError."""
    shown = visible(text, 80)
    match name:
        case "window":
            return parse_window(text)
        case "anomaly" if not re.fullmatch(_ANOMALY, text, re.I):
            raise ValueError(f"expected A and 8 hex digits, got {shown!r}")
        case "anomaly":
            return "A" + text[1:].lower()
        case "decision" if text.lower() not in DECISIONS:
            raise ValueError(f"expected one of {', '.join(DECISIONS)}, got {shown!r}")
        case "decision":
            return text.lower()
        case "reason":
            return visible(text.strip(), LONGEST_REASON)
        case "plan" if not _DIGEST.fullmatch(text.lower()):
            raise ValueError(f"expected sha256: and 64 hex digits, got {shown!r}")
        case "plan":
            return text.lower()
        case "stage" if text not in STAGES:
            raise ValueError(f"expected one of {', '.join(STAGES)}, got {shown!r}")
        case "release" if not NAME.fullmatch(text):
            raise ValueError(f"expected the name of a release, got {shown!r}")
    return text


def parse_said(kind: str, words: list[str]) -> Said:
    """What a verb and the words after it say. Raises ValueError with the form expected."""
    form = FORMS[kind]
    words = _joined(form, words)
    expected = f"`{kind} {' '.join(_PLACES[name] for name in form)}`"
    if len(words) != len(form):
        raise ValueError(f"expected {expected}, got {len(words)} words after {kind}")
    try:
        return Said(kind, **{n: _field(n, word) for n, word in zip(form, words, strict=True)})
    except ValueError as error:
        raise ValueError(f"{error} in {expected}") from error


def _joined(form: tuple[str, ...], words: list[str]) -> list[str]:
    """A reason is all the words that are left."""
    if form[-1:] != ("reason",) or len(words) <= len(form):
        return words
    return [*words[: len(form) - 1], " ".join(words[len(form) - 1 :])]


def lines(body: str) -> Iterator[Said | Malformed]:
    """Every word of a comment. A withdrawal that cannot be read, or seen, is both, and counts."""
    body = re.sub(r"\r\n?", "\n", body)
    hidden = [found.span() for found in _HIDDEN.finditer(body)]
    at = 0
    for text in re.findall(r"[^\n]*(?:\n|\Z)", body):
        begin, at = at, at + len(text)
        if (found := _LINE.fullmatch(text)) is None:
            continue
        verb, words = found[1].lower(), found[2].split()
        unseen = any(start < at and begin < end for start, end in hidden)
        if unseen:
            yield Malformed(visible(text.strip(), 250), "it stands in a block that is no text")
        if verb == "withdraw":
            yield from _withdrawal(text, words)
        elif not unseen:
            try:
                yield parse_said(verb, words)
            except ValueError as error:
                yield Malformed(visible(text.strip(), 250), str(error))


def _withdrawal(text: str, words: list[str]) -> Iterator[Said | Malformed]:
    kind = words[0].lower() if words else ""
    form, fields = FORMS.get(kind, ()), dict[str, Any]()
    words = [*words[:1], *_joined(form, words[1:])]
    problem = "" if kind in ("", *FORMS) else f"expected one of {', '.join(FORMS)}, got {kind!r}"
    for name, word in zip(form, words[1:], strict=False):
        try:
            fields[name] = _field(name, word)
        except ValueError as error:
            problem = str(error)
            break
    if form and len(words) > len(form) + 1:
        problem = f"expected at most {len(form)} words after {kind}"
    yield Said(kind if form else "", withdraws=True, **fields)
    if problem:
        yield Malformed(visible(text.strip(), 250), problem)


# --- signed files -------------------------------------------------------------------------------


class Statement(Model):
    """What a signed file says; see the module's text."""

    kind: Kind
    withdraw: bool = False
    release: Name = ""
    stage: Literal["", "development", "testnet", "canary", "mainnet"] = ""
    window: str = ""
    plan: str = ""
    anomaly: str = ""
    decision: str = ""
    reason: str = ""
    account: str = ""
    validator: str = ""
    at: AwareDatetime

    @model_validator(mode="after")
    def _whole(self) -> Statement:
        if bool(self.account) == bool(self.validator):
            raise ValueError("expected either account or validator")
        if self.kind == "approve" and not self.account:
            raise ValueError("expected the account of a person who approves")
        if "anomaly" in FORMS[self.kind] and not self.account:
            raise ValueError("expected the account of a release commander")
        self.said()
        return self

    def said(self) -> Said:
        """The same as a line says it. Raises ValueError for one that lacks what its kind needs."""
        if self.withdraw:
            window = parse_window(self.window) if self.window else None
            plan = _field("plan", self.plan) if self.plan else ""
            anomaly = _field("anomaly", self.anomaly) if self.anomaly else ""
            return Said(self.kind, True, self.release, self.stage, window, plan, anomaly)
        return parse_said(self.kind, [getattr(self, name) for name in FORMS[self.kind]])


class _Envelope(BaseModel):
    model_config = {"extra": "forbid", "strict": True}

    statement: Statement
    signature: str


@dataclass(frozen=True)
class Signed:
    """A signed file as read, before its signature is checked over ``content``."""

    statement: Statement
    content: bytes
    signature: str


def parse_signed(data: bytes) -> Signed:
    """A signed file's content. Raises ValueError, in one line, for anything else."""
    if len(data) > MAX_FILE:
        raise ValueError(f"at most {MAX_FILE} bytes, got {len(data)}")
    try:
        # A key given twice has one meaning to us and maybe another to who signed it.
        raw = json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Invalid JSON: {visible(str(error), 200)}") from error
    try:
        envelope = _Envelope.model_validate_json(json.dumps(_long(raw)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        text = visible(first["msg"].removeprefix("Value error, "), 200)
        raise ValueError(f"{text} ({where})" if where else text) from error
    return Signed(envelope.statement, canonical(raw["statement"]), envelope.signature)


def _long(raw: Any) -> Any:
    """An envelope whose statement is spelled out, where it was short."""
    statement = raw.get("statement") if isinstance(raw, dict) else None
    if not isinstance(statement, dict) or "approve" not in statement or "kind" in statement:
        return raw
    rest = {key: value for key, value in statement.items() if key != "approve"}
    return {**raw, "statement": {"kind": "approve", "plan": statement["approve"], **rest}}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("expected every key once, got one twice")
    return found
