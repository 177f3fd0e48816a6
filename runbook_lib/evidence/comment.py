"""The one comment a release has in its issue: hidden markers, a section a stage, and the size limit.

    <!-- rpp-runbook release=v1.4.0 -->
    ## Rollout of v1.4.0
    development ✓ PASS → testnet ✗ FAIL
    <!-- rpp-runbook section=testnet attempt=1 -->
    ### ✗ FAIL · testnet · attempt 1
    ...
    <!-- rpp-runbook end=testnet sha256=0123456789abcdef -->

What others wrote into a result goes through ``plain``: it can neither format, link, mention, refer
to an issue nor close a marker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..canonical import digest_bytes
from ..markup import visible
from ..playbook import RECOVERY, STAGES

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
_SECTION = re.compile(
    rf"<!-- {_TAG} section=(?P<stage>[a-z_]+) attempt=(?P<attempt>\d{{1,9}}) -->\n"
    rf"(?P<text>.*?)\n<!-- {_TAG} end=(?P=stage) sha256=(?P<digest>[0-9a-f]{{16}}) -->",
    re.DOTALL,
)
_FOLD = re.compile(r"<details><summary>(?P<summary>[^\n]*)</summary>\n.*?\n</details>", re.DOTALL)
# A zero-width space parts what a forge would make a mention, a reference or a link of.
_PART = "&#8203;"
_SPECIAL = re.compile(r"[\\`*_\[\]<>&|~!]|[@#]|\$|://|www\.|GH-", re.IGNORECASE)
_SAFE = re.compile(r"[\w.:/+ -]+", re.ASCII)
_LINK = re.compile(r"https://[\w.~:/?=&%+-]+", re.ASCII)


@dataclass(frozen=True)
class Section:
    """What the comment says of one stage. ``altered``: it is no longer as we wrote it."""

    stage: str
    attempt: int
    text: str
    altered: bool = False

    @property
    def title(self) -> str:
        return self.text.partition("\n")[0]

    @property
    def standing(self) -> str:
        """Stage and verdict in a few words; what somebody else wrote is not repeated."""
        word, stage, _ = (*self.title.removeprefix("### ").split(" · "), "", "")[:3]
        known = not self.altered and stage == self.stage
        return f"{self.stage} **{word if known else '? ALTERED by hand'}**"

    def marked(self) -> str:
        """The section between its markers; one that was altered stays so until it is written anew."""
        digest = "0" * 16 if self.altered else _short_digest(self.text)
        return (
            f"<!-- {_TAG} section={self.stage} attempt={self.attempt} -->\n{self.text}\n"
            f"<!-- {_TAG} end={self.stage} sha256={digest} -->"
        )


def plain(text: str, limit: int) -> str:
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
    return f"`{text}`" if _SAFE.fullmatch(text) else plain(text, 120)


def link(text: str, url: str) -> str:
    """A link where ``url`` is an ordinary https address, else the text alone."""
    return f"[{plain(text, 120)}]({url})" if _LINK.fullmatch(url) else plain(text, 120)


def fold(summary: str, body: str) -> str:
    """A part that opens on a click. ``summary`` counts what is in it: it stays if the rest must go."""
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


# --- the whole comment ------------------------------------------------------------------------------


def marker(release: str) -> str:
    """The first line of a release's comment."""
    return f"<!-- {_TAG} release={release} -->"


def is_marked(body: str, release: str) -> bool:
    return lines(body).partition("\n")[0].strip() == marker(release)


def lines(body: str) -> str:
    """A comment's text as it compares: a forge may change line ends and what surrounds the text."""
    return body.replace("\r\n", "\n").strip()


def sections(body: str) -> list[Section]:
    """The sections of a comment of ours, one a stage; of anything else, none."""
    found: dict[str, Section] = {}
    for match in _SECTION.finditer(lines(body)):
        stage, text = match["stage"], match["text"]
        if stage in ORDER and stage not in found:
            altered = match["digest"] != _short_digest(text)
            found[stage] = Section(stage, int(match["attempt"]), text, altered)
    return list(found.values())


def compose(release: str, render: Callable[[int], Section], others: Sequence[Section]) -> str:
    """The comment: the section that ``render`` makes at a level of LEVELS, and the others as they are.

    Newest stage first. When it would be too long, the folded details of other stages go first,
    the oldest's before all, then ours get briefer; what goes is counted where it stood.
    """
    mine = render(0)
    kept = {section.stage: section for section in others if section.stage != mine.stage}
    oldest_first = [stage for stage in ORDER if stage in kept]
    body = _whole(release, [mine, *kept.values()])
    for stage in oldest_first:
        if _fits(body):
            return body
        kept[stage] = _without_details(kept[stage])
        body = _whole(release, [mine, *kept.values()])
    for level in range(1, len(LEVELS)):
        if _fits(body):
            return body
        mine = render(level)
        body = _whole(release, [mine, *kept.values()])
    for stage in oldest_first:
        if _fits(body):
            return body
        kept[stage] = _title_alone(kept[stage])
        body = _whole(release, [mine, *kept.values()])
    return body


def _whole(release: str, parts: Sequence[Section]) -> str:
    newest_first = sorted(parts, key=lambda part: -ORDER.index(part.stage))
    marked = [part.marked() for part in newest_first]
    stands = " → ".join(part.standing for part in reversed(newest_first))
    head = f"{marker(release)}\n## Rollout of {code(release)}\n\n{stands}"
    return "\n\n".join([head, *marked]) + "\n"


def _fits(body: str) -> bool:
    return len(body.encode("utf-16-le")) // 2 <= LIMIT


def _without_details(section: Section) -> Section:
    text = _FOLD.sub(lambda found: f"{found['summary']}: {_LEFT_OUT}", section.text)
    return Section(section.stage, section.attempt, text, section.altered)


def _title_alone(section: Section) -> Section:
    rest = section.text.count("\n")
    text = f"{section.title}\n\n{rest:,} lines {_LEFT_OUT}"
    return Section(section.stage, section.attempt, text, section.altered)


_LEFT_OUT = f"left out, a comment holds {LIMIT:,} characters; see the evidence."


def _short_digest(text: str) -> str:
    return digest_bytes(text.encode("utf-8", "backslashreplace")).removeprefix("sha256:")[:16]
