"""What the release issue says of an attempt: verdict, what blocks, evidence, then details folded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import wording
from ..outcomes import Outcome
from ..verdicts import Standing, Verdict
from ..wording import count, utc
from .comment import LEVELS, Section, code, fold, link, plain


@dataclass(frozen=True)
class Filed:
    """A file of the attempt as the forge keeps it; ``url`` empty when it does not yet."""

    name: str
    digest: str
    url: str = ""


@dataclass(frozen=True)
class Account:
    """Everything a section is made of.

    ``verdict`` holds the items to be shown; ``head`` is the record's, ``plan`` the plan's digest or
    empty; ``previous`` says what came of the stage before. ``sealed``: the attempt is over.
    """

    verdict: Verdict
    name: str
    head: str
    plan: str
    previous: str
    sealed: bool
    files: tuple[Filed, ...] = ()


def section(account: Account, level: int = 0) -> Section:
    """The stage's section, briefer with each level of LEVELS."""
    verdict, (chars, rows) = account.verdict, LEVELS[level]
    word = wording.verdict_word(verdict)[0] if account.sealed else "▷ CHECKS HOLD, apply begins"
    parts = [f"### {word} · {verdict.stage} · attempt {verdict.attempt}"]
    if notice := wording.SOURCE[verdict.source]:
        parts.append(f"**{notice}**")
    parts.append(_who(account))
    if verdict.broken:
        broken = [[plain(why, chars)] for why in verdict.broken]
        parts.append(f"**This run cannot count:**\n\n{_table(('why',), broken, rows)}")
    if account.sealed and verdict.blocking:
        parts += _blocking(verdict, chars, rows)
    waived = [
        [code(item.item), plain(said, chars)]
        for item in verdict.items
        for said in wording.waivers(item)
    ]
    if waived:
        parts.append(f"**Waived ({len(waived)}):**\n\n{_table(('item', 'waiver'), waived, rows)}")
    parts.append(_evidence(account))
    good = [item for item in verdict.items if item.outcome is Outcome.PASS]
    if not account.sealed:
        good = list(verdict.items)
    if good:
        tally = wording.tally(wording.standing_word(item)[0] for item in good)
        summary = f"{len(good)} of {count(len(verdict.items), 'item')}: {tally}"
        parts.append(fold(summary, _items(good, chars, rows)))
    parts.append(fold("Digests, and how to check them", _digests(account)))
    return Section(verdict.stage, verdict.attempt, "\n\n".join(parts))


def _who(account: Account) -> str:
    verdict = account.verdict
    tries = f", try {verdict.number}" if verdict.number > 1 else ""
    until = f" to {utc(verdict.ended)}" if account.sealed else ""
    return (
        f"{verdict.mode.title()} of {code(verdict.release)} at {code(verdict.commit[:12])} on"
        f" {plain(verdict.site, 60)} by {plain(verdict.operator, 60)}, {verdict.run}{tries},"
        f" {utc(verdict.started)}{until}"
    )


def _evidence(account: Account) -> str:
    if not account.sealed:
        return "**Evidence:** the executed notebook is attached when the attempt is sealed"
    attached = [link(filed.name, filed.url) for filed in account.files if filed.url]
    if len(attached) == len(account.files) and attached:
        return f"**Evidence:** {' · '.join(attached)}"
    said = "; ".join([*attached, f"not attached yet: {code(f'runbook publish {account.name}')}"])
    return f"**Evidence:** {said}"


def _digests(account: Account) -> str:
    facts = [
        ["commit", code(account.verdict.commit)],
        ["record head", code(account.head)],
        ["plan", code(account.plan) if account.plan else "none was made"],
        ["previous stage", account.previous],
    ]
    facts += [[plain(filed.name, 80), code(filed.digest)] for filed in account.files]
    table = _table(("what", "digest"), facts, len(facts))
    if not account.sealed:
        return table
    return (
        f"{table}\n\nFrom the store: {code(f'runbook verify {account.name}')} needs the files alone,"
        f" {code(f'runbook replay {account.name}')} judges them again"
    )


def _blocking(verdict: Verdict, chars: int, limit: int) -> list[str]:
    """What blocks by itself, then the names of what was not reached behind it."""
    behind = [item for item in verdict.blocking if item.state == "not-reached"]
    first = [item for item in verdict.blocking if item not in behind] or behind
    whole = count(len(verdict.items), "item")
    parts = [f"**What blocks ({len(first)} of {whole}):**\n\n{_items(first, chars, limit)}"]
    if behind and first is not behind:
        named = ", ".join(code(item.item) for item in behind)
        parts.append(f"**Not reached behind it ({len(behind)}):** {named}")
    return parts


def _items(items: Sequence[Standing], chars: int, limit: int) -> str:
    """A list, as a table's last column is cut off where a reason holds a long name."""
    said = []
    for item in items[:limit]:
        tries = wording.tries(item)
        why = wording.reason(item) + (f" ({tries})" if tries else "")
        due = f", return at {utc(item.return_at)}" if item.return_at is not None else ""
        word = wording.standing_word(item)[0]
        said.append(f"- **{word}** {code(item.item)}: {plain(why + due, chars)}")
    return "\n".join(said) + _more(len(items) - limit)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], limit: int) -> str:
    """A Markdown table of cells that are Markdown; rows beyond the limit are counted."""
    listed = [columns, [":--"] * len(columns), *rows[:limit]]
    table = "\n".join(f"| {' | '.join(row)} |" for row in listed)
    return table + _more(len(rows) - limit)


def _more(left: int) -> str:
    return f"\n\n{count(left, 'more row')}; see the evidence" if left > 0 else ""
