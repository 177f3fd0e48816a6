"""The summary comment of a release in its issue: rendered whole from the log, and edited.

    <!-- rpp-runbook release=v1.4.0 -->
    ## Rollout of v1.4.0
    development ✓ PASS → testnet ✗ FAIL
    ### ✗ FAIL · testnet · attempt 1
    ...

What others wrote into a result goes through ``plain``: it can neither format, link, mention nor
refer to an issue. Each seal is told by a short comment of its own as well, as edits notify nobody.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .. import wording
from ..display import Form, item_rows, verdict_facts
from ..errors import RunbookError, SourceError, tried
from ..outcomes import Outcome
from ..playbook import RECOVERY, STAGES
from ..site import Site
from ..sources.github import GitHub, Post
from ..sources.scope import live_scope
from ..verdicts import Verdict
from ..wording import visible
from .events import Event, Sealed, of
from .status import plan_digest
from .status import verdict as verdict_of
from .store import Store

LIMIT = 65_536
"""Characters of a comment, GitHub's limit; counted as UTF-16 units, of which there are never fewer."""
ORDER = tuple(
    name
    for stage in STAGES
    for name in (stage, *(runbook for runbook, about in RECOVERY.items() if about == stage))
)
"""Sections, oldest first: a stage's recovery comes after it."""
LEVELS = ((300, 200), (120, 40), (60, 12))
"""Ever briefer: characters of a reason, rows of a table."""
_TAG = "rpp-runbook"
# A zero-width space parts what a forge would make a mention, a reference or a link of.
_PART = "&#8203;"
_SPECIAL = re.compile(r"[\\`*_\[\]<>&|~!]|[@#]|\$|://|www\.|GH-", re.IGNORECASE)
_SAFE = re.compile(r"[\w.:/+ -]+", re.ASCII)
_LINK = re.compile(r"https://[\w.~:/?=&%+-]+", re.ASCII)


def plain(text: str, limit: int = 120) -> str:
    """``text`` of whatever origin as Markdown that shows just that, on one line."""
    return _SPECIAL.sub(lambda found: _harmless(found[0]), visible(text, limit))


def _harmless(special: str) -> str:
    if special == "$":
        return "<span>$</span>"  # no mathematics
    if len(special) > 1:
        return special[0] + _PART + special[1:]
    entity = f"&#{ord(special)};"
    return entity + _PART if special in "@#" else entity


def code(text: str) -> str:
    """A name, digest or command of ours in a code span; anything else as plain text."""
    return f"`{text}`" if _SAFE.fullmatch(text) else plain(text)


def fence(text: str) -> str:
    """Backticks that hold ``text`` in Markdown, whatever it holds."""
    return "`" * max(4, 1 + max(map(len, re.findall("`+", text)), default=0))


def link(text: str, url: str) -> str:
    """A link where ``url`` is an ordinary https address, else the text alone."""
    return f"[{plain(text)}]({url})" if _LINK.fullmatch(url) else plain(text)


MARKDOWN = Form(plain, code=code, link=link, fence=fence)
"""Templates of what is written for a forge: what a filter did not make shows as it is."""


class Filed(NamedTuple):
    """A file of the attempt as the forge keeps it; ``url`` empty when it does not yet."""

    name: str
    digest: str
    url: str = ""


@dataclass(frozen=True)
class Account:
    """Everything a section is made of.

    ``verdict`` holds the items to be shown; ``head`` is its newest seal's, or the log's; ``plan`` the plan's digest or
    empty. ``sealed``: the attempt is over.
    """

    verdict: Verdict
    name: str
    head: str
    plan: str
    sealed: bool = True
    files: tuple[Filed, ...] = ()

    @property
    def word(self) -> str:
        begins = "▷ CHECKS HOLD, apply begins"
        return wording.verdict_word(self.verdict)[0] if self.sealed else begins

    @property
    def title(self) -> str:
        return f"### {self.word} · {self.verdict.stage} · attempt {self.verdict.attempt}"


def section(account: Account, level: int = 0) -> str:
    """The stage's section, briefer with each level of LEVELS."""
    verdict, sealed = account.verdict, account.sealed
    blocking = verdict.blocking if sealed else ()
    behind = [item for item in blocking if item.state == "not-reached"]
    # What blocks by itself, then the names of what was not reached behind it.
    first = [item for item in blocking if item not in behind] or behind
    good = [item for item in verdict.items if item.outcome is Outcome.PASS or not sealed]
    values = {
        "chars": LEVELS[level][0],
        "rows": LEVELS[level][1],
        "first": item_rows(first, due=True),
        "behind": [item.item for item in behind] if first is not behind else [],
        "waived": [(i.item, said) for i in verdict.items for said in wording.waivers(i)],
        "good": item_rows(good, due=True),
        "whole": len(verdict.items),
        "tally": wording.tally(wording.standing_word(item)[0] for item in good),
    }
    return MARKDOWN.render("section.md.j2", **_facts(account), **values).removesuffix("\n")


def _facts(account: Account) -> dict[str, Any]:
    """What is said of an attempt wherever it is told."""
    mine = {name: value for name, value in vars(account).items() if name != "verdict"}
    return verdict_facts(account.verdict) | mine | {"title": account.title}


# --- the whole comment ------------------------------------------------------------------------------


def marker(release: str) -> str:
    """The first line of a release's summary."""
    return f"<!-- {_TAG} release={release} -->"


SEAL = re.compile(rf"<!-- {_TAG} seal=([\w.+/-]+) head=(sha256:[0-9a-f]{{64}}) -->")


def seal_marker(account: Account) -> str:
    """The first line of the short comment on a seal, which ``SEAL`` reads."""
    return f"<!-- {_TAG} seal={account.name} head={account.head} -->"


def compose(mine: Account, others: Mapping[str, tuple[str, str, str]]) -> str:
    """The summary: a stage's section, and those of ``others`` (word, title, text by runbook).

    Newest stage first. When it would be too long ours gets briefer, then of the others the titles
    alone are left, which say so.
    """
    stage, release, body = mine.verdict.stage, mine.verdict.release, ""
    facts = {"marker": marker(release), "release": release, "limit": LIMIT}
    for level, whole in ((0, True), (1, True), (2, True), (2, False)):
        told = {name: (word, title, whole and text) for name, (word, title, text) in others.items()}
        told[stage] = mine.word, "", section(mine, level)
        stages = [(name, *told[name]) for name in ORDER if name in told]
        body = MARKDOWN.render("summary.md.j2", **facts, stages=stages)
        if len(body.encode("utf-16-le", "surrogatepass")) // 2 <= LIMIT:
            break
    return body


def sealed_text(account: Account) -> str:
    """The short comment on a seal: the verdict and the head. Never edited: an edited one tells none."""
    return MARKDOWN.render("sealed.md.j2", marker=seal_marker(account), **_facts(account))


def other_stages(store: Store, release: str, stage: str) -> dict[str, tuple[str, str, str]]:
    """Word, title and brief section of the newest apply of every other stage, by runbook."""
    found = {}
    for attempt in store.readable(release)[0]:
        opened = attempt.opened
        if opened.mode != "apply" or opened.stage == stage or opened.stage not in ORDER:
            continue
        try:
            made = account_of(attempt.name, attempt.log.events())
        except RunbookError:  # one whose log is damaged is named by verify
            continue
        found[opened.stage] = made.word, made.title, section(made, 1)
    return found


def account_of(name: str, entries: Sequence[Event]) -> Account:
    """What an attempt's own log says of it. Raises LogDamaged."""
    sealed = bool(of(entries, Sealed))
    return Account(verdict_of(entries), name, entries[-1].hash, plan_digest(entries), sealed=sealed)


# --- heads: whoever writes the store can put yesterday's back; what the issue was told stays ---------


def heads_told(comments: Iterable[Post], me: str, site: Site) -> list[tuple[str, str]]:
    """(RELEASE/STAGE/NNNN, head) that comments tell; one that was edited, or a stranger's, tells none."""
    found = []
    for comment in comments:
        ours = comment.author == me or site.person(comment.author) is not None
        line = re.match(SEAL, comment.body)
        if line and ours and comment.created_at == comment.updated_at:
            found.append((line[1], line[2]))
    return found


def heads_missing(store: Store, release: str, told: Iterable[tuple[str, str]]) -> list[str]:
    """What the release issue was told and the store does not hold, in words."""
    problems = []
    known = {attempt.name: attempt for attempt in store.readable(release)[0]}
    for name, head in dict.fromkeys(told):
        if name.partition("/")[0] != release:
            continue
        try:
            held = known[name].heads if name in known else None
        except RunbookError as error:
            problems.append(f"{name}: {error}")
            continue
        if held is None:
            problems.append(
                f"{name}: expected the attempt that the release issue tells of, got none;"
                " it was removed: restore it"
            )
        elif head not in held:
            problems.append(
                f"{name}: expected it to hold head {head}, as the release issue tells, got"
                " another history; it was replaced: restore it"
            )
    return list(dict.fromkeys(problems))


def compare_heads(site: Site, release: str, issue: int) -> tuple[list[str], str]:
    """What the store lacks of what the release issue tells, and why that was not compared."""
    if not issue:
        return [], ""
    with live_scope("heads", site) as scope:
        forge = GitHub(scope, site.forge)
        told = tried(lambda: heads_told(forge.comments(issue), forge.me(), site))
    if isinstance(told, SourceError):
        return [], f"heads not compared with the release issue: {told}"
    return heads_missing(Store(site.store_path), release, told), ""
