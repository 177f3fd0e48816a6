"""Validators' words: the upgrade window acknowledged, the maintenance window signed off.

A validator of the chain speaks by its operator's account (an ours-controlled node without one: by
the release engineers') or by a file signed with its own key. Each is one row, named after its node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..clusters import Node
from ..context import Context, judges
from ..errors import SourceError
from ..outcomes import CheckResult, Outcome, Row, check_row, unknown_row
from ..playbook import SPEAKS_FOR_OURS
from ..site import Site
from ..sources.node import Membership
from ..sources.words import Heard, Refused, Said, Window, Word, parse_window, read_words, taken_back

SET = "validator set"
AGREED = "the same to every node"


@dataclass(frozen=True)
class Voice:
    """A validator: its address, stake (the chain's unit) and share, its node, who speaks for it."""

    address: str
    stake: int
    share: float
    node: Node | None
    accounts: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.node.name if self.node is not None else self.address

    def says(self, word: Word) -> bool:
        return word.validator == self.address or word.account in self.accounts

    def claimed_by(self, one: Refused) -> bool:
        return one.who == self.address or one.who in self.accounts


def voices(context: Context) -> tuple[list[Voice], Row | None]:
    """The chain's validators, and what is wrong with what the nodes say of them, if anything."""
    answers = context.fleet.membership()
    views = {n: view for n, view in answers.items() if isinstance(view, Membership)}
    stakes: dict[str, int] = {}
    for view in views.values():
        for validator in view.validators:
            stakes.setdefault(validator.address, validator.stake)
    total = sum(stakes.values())
    nodes = {node.validator: node for node in context.cluster.nodes if node.validator}
    found = [
        Voice(address, stake, stake / total if total else 0.0, node, _accounts(context.site, node))
        for address, stake in stakes.items()
        for node in [nodes.get(address)]
    ]
    return found, _disputed(answers, views, stakes)


def _accounts(site: Site, node: Node | None) -> tuple[str, ...]:
    if node is None:
        return ()
    if node.operator:
        return (node.operator,)
    return tuple(person.account for person in site.people if SPEAKS_FOR_OURS in person.roles)


def _disputed(
    answers: dict[str, Membership | SourceError],
    views: dict[str, Membership],
    stakes: dict[str, int],
) -> Row | None:
    what, expected = AGREED, "one set, said by more than half of the nodes"
    failed = [str(error) for error in answers.values() if isinstance(error, SourceError)]
    if len(views) * 2 <= len(answers):
        got = f"{len(views)} of {len(answers)} nodes answer ({failed[0]})"
        return unknown_row(SET, what, expected, got)
    for name, view in views.items():
        if sorted((v.address, v.stake) for v in view.validators) != sorted(stakes.items()):
            return unknown_row(SET, what, expected, f"another one by {name}")
    if not sum(stakes.values()):
        return unknown_row(SET, what, "validators with stake", f"{len(stakes)} without any")
    return None


@dataclass(frozen=True)
class _Asked:
    """What every validator must say, ``what`` we call it, and until when."""

    said: Said
    what: str
    deadline: datetime
    now: datetime

    @property
    def due(self) -> datetime | None:
        """When to come back, while there is time left."""
        return self.deadline if self.now < self.deadline else None

    @property
    def expected(self) -> str:
        return f"said by {self.deadline:%Y-%m-%d %H:%M:%SZ}"


@judges("testnet.ready.validators-acknowledged")
def validators_acknowledged(context: Context) -> CheckResult:
    """Every validator acknowledged this release's window, ``notice_hours`` before it at the latest.

    A missing one is not yet due until then, and needs a waiver after. Playbook: testnet
    readiness, 2.
    """
    window = _window(context)
    if isinstance(window, Row):
        return context.conclude([window], passed="", empty="")
    deadline = window.start - timedelta(hours=context.params.notice_hours)
    said = Said("acknowledge", False, context.params.release, context.stage, window)
    return _judge(context, _Asked(said, "acknowledged the window", deadline, context.now))


@judges("mainnet.ready.validators-signed-off")
def validators_signed_off(context: Context) -> CheckResult:
    """Every validator signed off on this window, release and plan, before the window starts.

    Until there is a plan, and a missing word until the window starts, is not yet due. Playbook:
    mainnet readiness, 2.
    """
    window = _window(context)
    if isinstance(window, Row):
        return context.conclude([window], passed="", empty="")
    # An apply names the plan it is about, before its cell has found it.
    named = getattr(context.params, "approved_plan", "")
    plan = context.plan.digest if context.plan is not None else named
    said = Said("sign-off", False, context.params.release, context.stage, window, plan)
    asked = _Asked(said, "signed off", window.start, context.now)
    if not plan:
        why = "no plan yet that could be signed off"
        row = unknown_row("plan", asked.what, "this stage's plan", why, return_at=asked.due)
        return context.conclude([row], passed="", empty="")
    return _judge(context, asked)


def _window(context: Context) -> Window | Row:
    start, end = context.params.window_start, context.params.window_end
    if not (start and end):
        missing = "none; set window_start and window_end"
        return unknown_row("window", "scheduled", "a window of this stage", missing)
    try:
        return parse_window(f"{start}/{end}")
    except ValueError as error:
        return unknown_row("window", "scheduled", "a window of this stage", str(error))


def _judge(context: Context, asked: _Asked) -> CheckResult:
    speakers, problem = voices(context)
    release = asked.said.release
    heard = read_words(context.scope, context.site, issue=context.params.issue, release=release)
    rows = [_row(voice, asked, heard) for voice in speakers]
    good = [v for v, row in zip(speakers, rows, strict=True) if row.outcome is Outcome.PASS]
    share = sum(voice.share for voice in good)
    summary = f"{len(good)} of {len(speakers)} validators, {share:.1%} of stake, {asked.what}"
    if problem is not None:
        rows.append(problem)
    elif speakers:
        rows.append(check_row(SET, AGREED, "one set", summary, ok=True))
    rows += [_unreadable(one) for one in heard.refused if one.fault == "unreadable"]
    return context.conclude(
        rows,
        passed=f"{summary}: {asked.said}",
        empty="the chain has no validators",
        data={
            "word": str(asked.said),
            "said": len(good),
            "validators": len(speakers),
            "stake_share": share,
            "call": sorted({a for v in speakers if v not in good for a in v.accounts}),
            "refused": [f"{one.grounds}: {one.who}: {one.why}" for one in heard.refused[:50]],
        },
    )


def _unreadable(one: Refused) -> Row:
    # It may be somebody's withdrawal.
    return unknown_row(one.who, "signed word", "readable", one.why)


# --- one validator ------------------------------------------------------------------------------


def _row(voice: Voice, asked: _Asked, heard: Heard) -> Row:
    """Where one validator stands; nothing that is not its word, in time, counts."""
    what = f"{asked.what} ({voice.share:.1%} of stake)"
    call = f"; call {' or '.join(voice.accounts) or 'its operator'}"
    if voice.node is None:
        return unknown_row(voice.name, what, asked.expected, "a validator the site does not list")
    refused = [one for one in heard.refused if voice.claimed_by(one) and _about(one, asked)]
    for one in refused:
        if one.fault == "forged":
            got = f"forged: {one.grounds}: {one.why}{call}"
            return check_row(voice.name, what, asked.expected, got, ok=False, waivable=False)
    words = [w for w in heard.words if w.kind == asked.said.kind and voice.says(w)]
    mine = [w for w in words if not _differs(w, asked.said)]
    back = [w for w in heard.withdrawals if voice.says(w)]
    standing = [word for word in mine if taken_back(word, back) is None]
    for word in standing:
        if word.at <= asked.deadline:
            got = f"{word.at:%Y-%m-%d %H:%M:%SZ} by {_speaker(word)}: {word.grounds}"
            return check_row(voice.name, what, asked.expected, got, ok=True)
    if standing:
        late = min(standing, key=lambda word: word.at)
        got = f"late, {late.at:%Y-%m-%d %H:%M:%SZ} by {_speaker(late)}: {late.grounds}{call}"
        return unknown_row(voice.name, what, asked.expected, got)
    for word in mine:
        if (taken := taken_back(word, back)) is not None:
            got = f"withdrawn {taken.at:%Y-%m-%d %H:%M:%SZ} by {_speaker(taken)}: {taken.grounds}"
            return check_row(voice.name, what, asked.expected, got + call, ok=False)
    got = _instead(asked, words, refused) + call
    return unknown_row(voice.name, what, asked.expected, got, return_at=asked.due)


def _about(one: Refused, asked: _Asked) -> bool:
    return one.said is None or (
        one.said.kind in ("", asked.said.kind) and one.said.stage in ("", asked.said.stage)
    )


def _differs(word: Said, asked: Said) -> str:
    """In what a word is another than the one asked for; empty when in nothing."""
    return ", ".join(
        name
        for name in ("release", "stage", "window", "plan")
        if getattr(word, name) != getattr(asked, name)
    )


def _instead(asked: _Asked, words: Sequence[Word], refused: Sequence[Refused]) -> str:
    """What was said in place of what was asked for."""
    if words:
        last = max(words, key=lambda word: word.at)
        return f"for another {_differs(last, asked.said)}: {last} ({last.grounds})"
    if refused:
        return f"{refused[-1].fault}: {refused[-1].why} ({refused[-1].grounds})"
    return "missing"


def _speaker(word: Word) -> str:
    return word.account or f"its key ({word.validator})"
