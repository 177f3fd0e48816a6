"""What people said of a release: comments of its issue and signed files, one reader for all kinds.

A comment counts when an account that the site knows wrote it and it was not edited since (an
edited withdrawal still withdraws). A file counts when the key of the person or validator it names
signed it. What does not count is named, with why.

A line begins with the verb (any case, a ``/`` before it allowed) and holds nothing else:

    acknowledge RELEASE STAGE START/END                  a validator knows the window
    sign-off    RELEASE STAGE START/END sha256:PLAN      a validator accepts window and plan
    approve     sha256:DIGEST                            a person approves a plan, waiver or state
    accept-policy sha256:DIGEST                          a person accepts what moved of the site
    acknowledge-anomaly ID                               the commander knows of an anomaly
    decide      ID continue|restart|recover REASON       and decides what becomes of the watch
    withdraw    [VERB [what was said, or its beginning]] takes back all earlier words like it

START and END are ISO 8601 instants with their offset. A line counts only in a plain paragraph
(CommonMark): text that every reader sees. A withdrawal counts wherever it can be read, and one that
is malformed takes back all that its readable beginning covers.

A file is ``{"statement": {...}, "signature": BASE64}``: Ed25519 over the canonical JSON of a
``Statement``, by the key of the person (``account``) or the ``signoff_key`` of the ``validator`` (an
address) that it names.

A ``NodeReport`` is what an operator says of a node that only they can look into, signed by the node's
``signoff_key``. It lies in ``reports`` below the site's folder of words for the release, or stands in
a comment of the release issue, in a fenced block that is named ``node-report``. A comment counts
only by the operator's own or a listed account: a stranger could stop a rollout otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from ..errors import SourceError, tried
from ..outcomes import Model
from ..playbook import NOW_SOURCE_LAG
from ..site import Site
from ..strict import Name, matching, parse_instant, project_path
from ..wording import visible
from .github import Comment, GitHub
from .keys import MAX_SIGNED, M, Signed, read_signed
from .scope import Scope
from .wire import complaint

Kind = Literal[
    "acknowledge", "sign-off", "approve", "accept-policy", "acknowledge-anomaly", "decide"
]
FORMS: dict[str, tuple[str, ...]] = {
    "acknowledge": ("release", "stage", "window"),
    "sign-off": ("release", "stage", "window", "plan"),
    "approve": ("plan",),
    "accept-policy": ("plan",),
    "acknowledge-anomaly": ("anomaly",),
    "decide": ("anomaly", "decision", "reason"),
}
_SHOWN = {
    "release": "RELEASE", "stage": "STAGE", "window": "START/END", "plan": "sha256:DIGEST",
    "anomaly": "ID", "decision": "continue|restart|recover", "reason": "REASON",
}  # fmt: skip
LONGEST_REASON = 500
_DIGEST, _ID = "expected sha256: and 64 hex digits", "expected A and 8 hex digits"
_ANOMALY = r"A[0-9a-f]{8}"
# "decide" is a word that people use: it is ours only before an anomaly's id. A verb is ASCII: any
# case of Unicode's would take in letters that are another's (long s, dotless i).
_LINE = re.compile(
    rf"\s*/?((?ai:acknowledge(?:-anomaly)?|sign-off|approve|accept-policy|withdraw|decide(?=\s+{_ANOMALY}\s)))(?!\S)(.*)",
    re.S,
)
LONGEST_COMMENT = 16_384
"""Characters of a comment whose words count: Markdown that is made to be slow takes the square."""
_HIDDEN = "expected plain text, no code, list, table, link or HTML; say it in a comment of its own"


@dataclass(frozen=True)
class Window:
    """A window of time, UTC; ``text`` is how it is written."""

    start: datetime
    end: datetime

    def __str__(self) -> str:
        return f"{self.start.isoformat()}/{self.end.isoformat()}".replace("+00:00", "Z")


def parse_window(text: str) -> Window:
    """``START/END``. Raises ValueError."""
    start, slash, end = text.partition("/")
    if not slash:
        raise ValueError(f"expected START/END, got {visible(text, 80)!r}")
    window = Window(parse_instant(start), parse_instant(end))
    if window.start >= window.end:
        raise ValueError(f"expected a window that ends after it starts, got {visible(text, 80)!r}")
    return window


_lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
_window = BeforeValidator(lambda value: parse_window(value) if isinstance(value, str) else value)


class Said(Model):
    """What was said, whoever said it; of a withdrawal, what it leaves out covers everything."""

    kind: Kind | Literal[""]
    withdraw: bool = False
    release: Name = ""
    stage: Literal["", "development", "testnet", "canary", "mainnet"] = ""
    window: Annotated[Window | None, _window] = None
    plan: Annotated[str, _lower, matching("sha256:[0-9a-f]{64}", _DIGEST)] = ""
    anomaly: Annotated[str, AfterValidator(str.capitalize), matching(_ANOMALY, _ID)] = ""
    decision: Annotated[Literal["", "continue", "restart", "recover"], _lower] = ""
    reason: Annotated[str, AfterValidator(lambda text: visible(text.strip(), LONGEST_REASON))] = ""

    @model_validator(mode="after")
    def _whole(self) -> Said:
        needed = FORMS[self.kind] if self.kind and not self.withdraw else ()
        if missing := [name for name in needed if not getattr(self, name)]:
            raise ValueError(f"expected {_form(self.kind)}, got no {missing[0]}")
        return self

    def __str__(self) -> str:
        place = (self.release, self.stage, str(self.window or ""), self.plan)
        words = (self.kind, *place, self.anomaly, self.decision, self.reason)
        return " ".join(filter(None, ("withdraw" if self.withdraw else "", *words)))

    def covers(self, other: Said) -> bool:
        """Whether this withdrawal takes back ``other``."""
        named = ("kind", "release", "stage", "window", "plan", "anomaly", "decision")
        return all(getattr(self, n) in ("", None, getattr(other, n)) for n in named)


def _form(kind: str) -> str:
    return f"`{kind} {' '.join(_SHOWN[name] for name in FORMS[kind])}`"


class Statement(Said):
    """What a signed file says, and who. What its kind does not need is not said."""

    kind: Kind
    account: str = ""
    validator: str = ""
    at: AwareDatetime

    @model_validator(mode="after")
    def _spoken(self) -> Statement:
        if bool(self.account) == bool(self.validator):
            raise ValueError("expected either account or validator")
        if "stage" not in FORMS[self.kind] and not self.account:
            raise ValueError(f"expected the account of a person for {self.kind}")
        return self

    def said(self) -> Said:
        """The same as a line says it."""
        names = ("kind", "withdraw", *FORMS[self.kind])
        return Said.model_validate({name: getattr(self, name) for name in names})


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


def lines(body: str) -> Iterator[Said | Malformed]:
    """Every word of a comment. A withdrawal that cannot be read, or seen, is both, and counts."""
    body = re.sub(r"\r\n?", "\n", body)
    plain, other = _shown(body) if len(body) <= LONGEST_COMMENT else ([], [])
    raw, known = body.split("\n"), set[str]()
    for number, text in enumerate((*plain, *raw, *other)):
        found, key = _LINE.fullmatch(text), " ".join(text.split())
        if found is None or key in known:
            continue
        verb, shown = found[1].lower(), number < len(plain)
        if verb != "withdraw" and number >= len(plain) + len(raw):
            continue
        known.add(key)
        said, why = _parse(verb, found[2].split())
        if said is not None and (shown or said.withdraw):
            yield said
        if why or not shown:
            yield Malformed(visible(text.strip(), 250), why if shown else _HIDDEN)


def _parse(verb: str, words: list[str]) -> tuple[Said | None, str]:
    """What a verb and the words after it say, of a withdrawal its readable beginning; what is wrong."""
    kind, problem, withdraw = verb, "", verb == "withdraw"
    if withdraw:
        kind, words = (words[0].lower(), words[1:]) if words else ("", [])
        if kind not in ("", *FORMS):
            problem = f"expected one of {', '.join(FORMS)}, got {kind!r}"
            return Said(kind="", withdraw=True), problem
    names = FORMS.get(kind, ())
    if names[-1:] == ("reason",) and len(words) > len(names):
        words = [*words[: len(names) - 1], " ".join(words[len(names) - 1 :])]
    if len(words) > len(names):
        problem = f"expected {_form(kind)}, got {len(words)} words after {kind}"
    words = words[: len(names)]
    while not problem or withdraw:
        try:
            fields = dict(zip(names, words, strict=False))
            return Said.model_validate({"kind": kind, "withdraw": withdraw, **fields}), problem
        except ValidationError as error:
            problem = complaint(error)
            problem += "" if "`" in problem else f" in {_form(kind)}"
            words = words[:-1]
    return None, problem


def _shown(body: str) -> tuple[list[str], list[str]]:
    """The lines of plain paragraphs, and those that stand elsewhere, but for quotations.

    A forge may show less than CommonMark does: behind raw HTML, in formulas, struck out, and in
    footnotes, which are references here and leave a line that belongs to nothing.
    """
    from markdown_it import MarkdownIt

    source, plain, other = body.split("\n"), list[str](), list[str]()
    end, below, attached, html, quoted = 0, "", False, False, 0
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(body):
        children = token.children or []
        kinds = {child.type for child in children}
        html = html or token.type == "html_block" or "html_inline" in kinds
        quoted += (token.type == "blockquote_open") - (token.type == "blockquote_close")
        if token.type == "inline" and not quoted:
            top = token.level == 1 and below == "paragraph_open"
            seen = kinds <= {"text", "softbreak", "hardbreak"} and not set("~$[") & {*token.content}
            text = "".join("\n" if "break" in child.type else child.content for child in children)
            (plain if top and seen and attached and not html else other).extend(text.split("\n"))
        elif token.level == 0 and token.map:
            attached = end == token.map[0] or not source[token.map[0] - 1].strip()
            below, end = token.type, token.map[1]
    return plain, other


MAX_FILES = 1000
Fault = Literal["malformed", "stranger", "edited", "forged", "unreadable", "ahead"]


@dataclass(frozen=True)
class Refused:
    """A word that does not count. ``who`` is the account or validator it names, or its file.

    ``said`` is what it claims; None where it cannot be read.
    """

    who: str
    why: str
    grounds: str
    fault: Fault
    said: Said | None = None


@dataclass(frozen=True)
class Heard:
    """All that was said of a release, in no order."""

    words: tuple[Word, ...] = ()
    withdrawals: tuple[Word, ...] = ()
    refused: tuple[Refused, ...] = ()


def taken_back(word: Word, withdrawals: Iterable[Word]) -> Word | None:
    """The withdrawal, of those by its speakers, that took it back; of the same instant too."""
    return next((one for one in withdrawals if one.at >= word.at and one.covers(word)), None)


def read_words(scope: Scope, site: Site, *, issue: int, release: str) -> Heard:
    """All words in the release issue (0: none) and in the site's folder for this release.

    Raises SourceError when a place cannot be read, or there is none.
    """
    if not issue and site.words_folder(release) is None:
        raise SourceError("words", "expected a release issue (issue) or the site's folder (words)")
    return hear(scope, site, "", issues=[issue], release=release)


def _comment(site: Site, comment: Comment) -> Iterator[Word | Refused]:
    who, grounds = known(site, comment.author), comment.html_url
    edited = comment.updated_at != comment.created_at
    for said in lines(comment.body):
        claim = said if isinstance(said, Said) else None
        if not who:
            shown = visible(comment.author, 80)
            why = f"expected an account the site lists, got {shown!r}"
            yield Refused(shown, why, grounds, "stranger", claim)
        elif isinstance(said, Malformed):
            yield Refused(who, f"{said.line!r}: {said.why}", grounds, "malformed")
        elif edited and not said.withdraw:
            why = f"edited since, at {comment.updated_at:%Y-%m-%d %H:%M:%SZ}; say it anew"
            yield Refused(who, why, grounds, "edited", said)
        else:
            at = comment.updated_at if said.withdraw else comment.created_at
            yield Word(**vars(said), account=who, at=at, grounds=grounds)


def known(site: Site, account: str) -> str:
    """The account of a listed person or a node's operator as the site spells it; empty for others."""
    if (person := site.person(account)) is not None:
        return person.account
    operators = {
        node.operator.casefold(): node.operator for c in site.clusters.values() for node in c.nodes
    }
    return operators.get(account.casefold(), "")


def _files(scope: Scope, folder: Path, most: int) -> Iterator[tuple[str, bytes | SourceError]]:
    """The signed files of a folder, by name."""
    names = [n for n in scope.listing(folder) if n.endswith(".json") and not n.startswith(".")]
    if len(names) > most:
        raise SourceError(str(folder), f"expected at most {most} files, got {len(names)}")
    for name in names:
        data = tried(scope.read, folder / name, limit=MAX_SIGNED, follow=False)
        yield visible(name, 120), data


def _read(data: bytes | SourceError, model: type[M], kind: str) -> Signed[M] | str:
    """A signed statement; of anything else, why it is none."""
    if isinstance(data, SourceError):
        return data.problem
    try:
        return read_signed(data, model)
    except ValueError as error:
        return f"expected a {kind}, got: {error}"


def _folder(scope: Scope, site: Site, folder: Path) -> Iterator[Word | Refused]:
    # A folder that is not there may be one that is not mounted: a withdrawal may lie in it.
    root = site.words_root
    if root.name not in scope.listing(root.parent):
        raise SourceError(str(root), "expected a folder, even an empty one; create or mount it")
    for name, data in _files(scope, folder, MAX_FILES):
        signed = _read(data, Statement, "signed word")
        if isinstance(signed, str):
            yield Refused(name, signed, name, "unreadable")
        else:
            yield verify(site, signed, name, scope.now())


def verify(site: Site, signed: Signed[Statement], name: str, now: datetime) -> Word | Refused:
    """A signed file as a word, once its signature is that of whom it names. Judged at ``now``."""
    statement = signed.statement
    who, said = visible(statement.account or statement.validator, 80), statement.said()
    if statement.account:
        person, owner = site.person(statement.account), "a listed person with a key"
        keys = {person.key} if person is not None else set()
    else:
        nodes, owner = (
            [n for c in site.clusters.values() for n in c.nodes],
            "a signoff_key in the site",
        )
        keys = {n.signoff_key for n in nodes if n.validator == statement.validator}
    fault, why = _doubt(
        signed, keys, f"{owner}, got {who!r}", f"a signature by {who}", statement.at, now
    )
    # A withdrawal counts whatever its clock says: it may have been signed by one that is fast.
    if fault and not (fault == "ahead" and said.withdraw):
        return Refused(who, why, name, fault, said)
    return Word(
        **vars(said),
        account=known(site, statement.account),
        validator=statement.validator,
        at=statement.at,
        grounds=name,
    )


def _doubt(
    signed: Signed[Any], keys: set[str], owner: str, by: str, at: datetime, now: datetime
) -> tuple[Fault | Literal[""], str]:
    """Why a signed statement of that instant is not one by the owner of ``keys``; empty when it is."""
    if not (keys := keys - {""}):
        return "stranger", f"expected {owner}"
    if not any(map(signed.is_by, keys)):
        return "forged", f"expected {by}, got another"
    if at > now + NOW_SOURCE_LAG:
        return "ahead", f"expected an instant that has come, got {at:%Y-%m-%d %H:%M:%SZ}"
    return "", ""


def hear(
    scope: Scope,
    site: Site,
    digest: str,
    *,
    issues: Iterable[int],
    files: Iterable[str | bytes] = (),
    release: str = "",
) -> Heard:
    """What was said in issues (0: none) and the site's folder, and approvals of ``digest`` in ``files``.

    A file is its path, or what was in it. Raises SourceError when a place cannot be read, and for a file that approves anything else.
    """
    found: list[Word | Refused] = [_signed(scope, site, digest, file) for file in files if file]
    for issue in dict.fromkeys(filter(None, issues)):
        for comment in GitHub(scope, site.forge).comments(issue):
            found += _comment(site, comment)
    if (folder := site.words_folder(release)) is not None:
        found += _folder(scope, site, folder)
    words = [one for one in dict.fromkeys(found) if isinstance(one, Word)]
    return Heard(
        tuple(word for word in words if not word.withdraw),
        tuple(word for word in words if word.withdraw),
        tuple(one for one in dict.fromkeys(found) if isinstance(one, Refused)),
    )


def withdrawn(word: Word, heard: Heard) -> Word | None:
    """The withdrawal by which the same account took its approval back."""
    return taken_back(word, [one for one in heard.withdrawals if one.account == word.account])


def _signed(scope: Scope, site: Site, digest: str, found: str | bytes) -> Word:
    file, data = ("a signed file", found) if isinstance(found, bytes) else (found, b"")
    try:
        signed = read_signed(data or scope.read(project_path(file), limit=MAX_SIGNED), Statement)
        said = signed.statement.said()
        if said.kind != "approve" or said.withdraw:
            raise ValueError(f"a signed {'withdrawal' if said.withdraw else said.kind}")
    except ValueError as error:
        raise SourceError(file, f"expected a signed approval, got: {error}") from error
    if said.plan != digest and site.person(signed.statement.account):
        raise SourceError(file, f"expected an approval of {digest}, got of {said.plan}")
    word = verify(site, signed, Path(file).name, scope.now())
    if isinstance(word, Refused):
        raise SourceError(file, word.why)
    return word


# --- node reports ---------------------------------------------------------------------------------

MAX_REPORTS = 2000
FOLDER, FENCE = "reports", "node-report"
_BLOCK = re.compile(rf"^```{FENCE}[ \t]*\r?\n(.*?)\r?\n```[ \t]*$", re.S | re.M)
_Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
_Short = Annotated[str, Field(max_length=200)]


class NodeReport(Model):
    """What runs on a node, said beside it. ``plan`` and ``phase`` are empty outside a rollout.

    ``target`` is the file that ``dry_run``, strict, was about; None: it was not run.
    """

    kind: Literal["node-report"] = "node-report"
    node: _Short
    release: _Short
    stage: Literal["development", "testnet", "canary", "mainnet"]
    plan: _Digest | Literal[""] = ""
    phase: _Short = ""
    channel: _Short
    gates: dict[_Short, bool] = Field(max_length=100)
    config: _Digest
    binary: _Digest
    target: _Digest
    dry_run: bool | None
    at: AwareDatetime


@dataclass(frozen=True)
class Received:
    """A report and where it was found; ``fault`` is empty when its node's key signed it."""

    report: NodeReport
    grounds: str
    fault: str = ""


@dataclass
class Reports:
    """All reports of a release; ``unreadable`` says of the rest where they are and why."""

    received: list[Received] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def of(self, node: str, stage: str) -> list[Received]:
        """Those in a node's name, oldest first."""
        mine = [r for r in self.received if (r.report.node, r.report.stage) == (node, stage)]
        return sorted(mine, key=lambda one: one.report.at)


def read_reports(scope: Scope, site: Site, *, issue: int, release: str) -> Reports:
    """Every node report of a release. Raises SourceError when a place cannot be read."""
    found = Reports()
    for grounds, data in _report_places(scope, site, issue, release):
        signed = _read(data, NodeReport, "node report")
        if isinstance(signed, str):
            found.unreadable.append((grounds, signed))
        elif (report := signed.statement).release == release:
            nodes = site.cluster_of(report.stage).nodes if report.stage in site.stages else []
            keys = {node.signoff_key for node in nodes if node.name == report.node}
            owner = "a signoff_key of this node in the site file, got none"
            by = "the signature of this node's signoff_key"
            fault, why = _doubt(signed, keys, owner, by, report.at, scope.now())
            found.received.append(Received(report, grounds, fault and f"{fault}: {why}"))
    return found


def _report_places(
    scope: Scope, site: Site, issue: int, release: str
) -> Iterator[tuple[str, bytes | SourceError]]:
    for comment in GitHub(scope, site.forge).comments(issue) if issue else ():
        if known(site, comment.author):
            for text in _BLOCK.findall(comment.body):
                yield comment.html_url, text.encode("utf-8", "backslashreplace")
    if (folder := site.words_folder(release)) is not None:
        yield from _files(scope, folder / FOLDER, MAX_REPORTS)
