"""Validators' words: the upgrade window acknowledged, the maintenance window signed off.

A validator of the chain speaks by its operator's account (an ours-controlled node without one: by
the release engineers') or by a file signed with its own key. Each is one row, named after its node.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from ..context import Context, judges
from ..errors import Answers
from ..outcomes import CheckResult, Outcome
from ..playbook import SPEAKS_FOR_OURS
from ..site import Node
from ..sources.node import Membership
from ..sources.quorum import differs, spoken
from ..sources.words import Heard, Said, Window, Word, known, parse_window, read_words

SET = "validator set"
AGREED = "the same to every node"
Views = Answers[str, Membership]


@dataclass(frozen=True)
class Voice:
    """A validator: its address, stake (the chain's unit) and share, its node, who speaks for it."""

    address: str
    stake: int
    share: float
    node: Node | None
    accounts: Sequence[str]

    @property
    def name(self) -> str:
        return self.node.name if self.node is not None else self.address

    def says(self, word: Word) -> bool:
        return word.validator == self.address or word.account in self.accounts


def voices(context: Context, answers: Views) -> list[Voice]:
    """The chain's validators, by what any node says of them."""
    stakes: dict[str, int] = {}
    for view in answers.known.values():
        for validator in view.validators:
            stakes.setdefault(validator.address, validator.stake)
    total = sum(stakes.values())
    nodes = {node.validator: node for node in context.cluster.nodes if node.validator}
    found = list[Voice]()
    for address, stake in stakes.items():
        node = nodes.get(address)
        accounts = context.site.holders(SPEAKS_FOR_OURS) if node is not None else []
        if node is not None and node.operator:
            accounts = [known(context.site, node.operator)]
        found.append(Voice(address, stake, stake / total if total else 0.0, node, accounts))
    return found


def _judge_set(context: Context, answers: Views, speakers: list[Voice], summary: str) -> None:
    """Whether the nodes say the same of the validators."""
    expected = "one set, said by more than half of the nodes"
    views, failed = answers.known, [str(error) for error in answers.failed.values()]
    mine = sorted((voice.address, voice.stake) for voice in speakers)
    said = {n: sorted((v.address, v.stake) for v in view.validators) for n, view in views.items()}
    others = [name for name, theirs in said.items() if theirs != mine]
    if len(views) * 2 <= len(answers):
        got = f"{len(views)} of {len(answers)} nodes answer ({failed[0]})"
        context.unknown(SET, AGREED, expected, got)
    elif others:
        context.unknown(SET, AGREED, expected, f"another one by {others[0]}")
    elif not sum(voice.stake for voice in speakers):
        got = f"{len(speakers)} without any"
        context.unknown(SET, AGREED, "validators with stake", got)
    else:
        context.judge(SET, AGREED, "one set", summary, ok=True)


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


@judges("testnet.ready.validators-acknowledged")
def validators_acknowledged(context: Context) -> CheckResult:
    """Every validator acknowledged this release's window, ``notice_hours`` before it at the latest.

    A missing one is not yet due until then, and needs a waiver after. Playbook: testnet
    readiness, 2.
    """
    window = _window(context)
    if window is None:
        return context.conclude()
    deadline = window.start - timedelta(hours=context.params.notice_hours)
    said = _asked_for(context, window, "acknowledge")
    return _judge(context, _Asked(said, "acknowledged the window", deadline, context.now))


@judges("mainnet.ready.validators-signed-off")
def validators_signed_off(context: Context) -> CheckResult:
    """Every validator signed off on this window, release and plan, before the window starts.

    Until there is a plan, and a missing word until the window starts, is not yet due. Playbook:
    mainnet readiness, 2.
    """
    window = _window(context)
    if window is None:
        return context.conclude()
    # An apply names the plan it is about, before its cell has found it.
    named = getattr(context.params, "approved_plan", "")
    plan = context.plan.digest if context.plan is not None else named
    what, due = "signed off", window.start
    if not plan:
        why, later = "no plan yet that could be signed off", due if context.now < due else None
        context.unknown("plan", what, "this stage's plan", why, later)
        return context.conclude()
    said = _asked_for(context, window, "sign-off", plan=plan)
    return _judge(context, _Asked(said, what, due, context.now))


def _asked_for(context: Context, window: Window, kind: str, **more: str) -> Said:
    named = {"release": context.params.release, "stage": context.stage, "window": window, **more}
    return Said.model_validate({"kind": kind, **named})


def _window(context: Context) -> Window | None:
    start, end = context.params.window_start, context.params.window_end
    with context.reading("scheduled", "a window of this stage", "window", ValueError):
        if not (start and end):
            raise ValueError("none; set window_start and window_end")
        return parse_window(f"{start}/{end}")
    return None


def _judge(context: Context, asked: _Asked) -> CheckResult:
    answers = context.fleet.membership()
    speakers, release = voices(context, answers), asked.said.release
    heard = read_words(context.scope, context.site, issue=context.params.issue, release=release)
    good = [voice for voice in speakers if _said(context, voice, asked, heard)]
    share = sum(voice.share for voice in good)
    summary = f"{len(good)} of {len(speakers)} validators, {share:.1%} of stake, {asked.what}"
    _judge_set(context, answers, speakers, summary)
    for one in heard.refused:
        if one.fault == "unreadable":  # it may be somebody's withdrawal
            context.unknown(one.who, "signed word", "readable", one.why)
    return context.conclude(
        passed=f"{summary}: {asked.said}",
        data={
            "word": str(asked.said),
            "said": len(good),
            "validators": len(speakers),
            "stake_share": share,
            "call": sorted({a for v in speakers if v not in good for a in v.accounts}),
            "refused": [f"{one.grounds}: {one.who}: {one.why}" for one in heard.refused[:50]],
        },
    )


# --- one validator ------------------------------------------------------------------------------


def _said(context: Context, voice: Voice, asked: _Asked, heard: Heard) -> bool:
    """Whether one validator said it; nothing that is not its word, in time, counts."""
    what = f"{asked.what} ({voice.share:.1%} of stake)"
    expected = f"said by {asked.deadline:%Y-%m-%d %H:%M:%SZ}"
    judge = partial(context.judge, voice.name, what, expected)
    call, unknown = f"; call {' or '.join(voice.accounts) or 'its operator'}", Outcome.INCONCLUSIVE
    if voice.node is None:
        return judge("a validator the site does not list", unknown)
    found = spoken(heard, asked.said, voice.says)
    if found.standing and found.standing[0].at <= asked.deadline:
        return judge(_quoted(found.standing[0]), ok=True)
    if found.standing:
        return judge(f"late, {_quoted(found.standing[0])}{call}", unknown)
    if found.taken:
        return judge(f"withdrawn {_quoted(next(iter(found.taken.values())))}{call}", ok=False)
    kinds, stages = ("", asked.said.kind), ("", asked.said.stage)
    refused = [
        one
        for one in heard.refused
        if one.who in (voice.address, *voice.accounts)
        if one.said is None or (one.said.kind in kinds and one.said.stage in stages)
    ]
    got = "missing"
    if found.other:
        last = max(found.other, key=lambda word: word.at)
        got = f"for another {differs(last, asked.said)}: {last} ({last.grounds})"
    elif refused:
        got = f"{refused[-1].fault}: {refused[-1].why} ({refused[-1].grounds})"
    return judge(got + call, unknown, return_at=asked.due)


def _quoted(word: Word) -> str:
    by = word.account or f"its key ({word.validator})"
    return f"{word.at:%Y-%m-%d %H:%M:%SZ} by {by}: {word.grounds}"
