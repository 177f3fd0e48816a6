"""canary.activate.observe: rewards reach the canaries alone, and they go on voting, for whole epochs.

Per epoch from the metrics store, so that nothing is lost when a kernel dies: the last stage of the
chain's pipeline counts rewards on each node, its vote latencies count votes. Balances, hashes and
slashing have no past: they are read now, and held to what was recorded before the gate was turned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from statistics import median
from typing import TYPE_CHECKING, Any

from ..changes.roll import healthy
from ..context import Context, judges
from ..errors import SourceError
from ..evidence.events import Event
from ..evidence.status import effect
from ..outcomes import CheckResult, Outcome
from ..sources.node import Consensus
from .activation_proof import Span, counted, counters, gated, judge_effect, traffic
from .epochs import epochs_since
from .regression import REWARDS, data_of, shown
from .rollouts import captured

if TYPE_CHECKING:
    from ..metrics.compare import Compared


GATE = "timetoke_rewards"
VOTES_OF_MEDIAN = 0.9
"""A canary votes as often as the others: at least this share of the median validator's votes."""
LOOKS = 3

Answers = dict[str, Consensus | SourceError]


@judges("canary.activate.observe")
def observe(context: Context) -> CheckResult:
    """At least three whole epochs since the last canary took the gate, by the journal.

    The window is the first of them, whenever it is judged. Until it is over, what is over already
    is judged. Playbook: canary, activation, 2.
    """
    assert context.plan is not None
    before = captured(context.journal, REWARDS)
    if before is None:
        raise SourceError(REWARDS, "expected balances recorded before the change, got none")
    since, wanted = effect(context.journal, REWARDS), context.params.observe_epochs
    what = "rewards and votes observed"
    found = epochs_since(context, since, lambda seen: wanted - len(seen), what)
    window, over = found[:wanted], len(found) >= wanted
    on, beside, off = gated(context.plan, REWARDS, GATE)
    if not on:
        context.unknown("canaries", "nodes with the gate on", "at least one", "none by the plan")
    if window:
        spans = [Span(f"epoch {each.number}", each.start, each.end) for each in window]
        judge_effect(context, GATE, on, off, spans)
        votes(context, on, spans)
    credited(context, before, on, beside, off, due=bool(window))
    agreement(context, int(before["slashing"]))
    context.findings += healthy(context, [node.name for node in context.cluster.nodes])
    epochs = [
        {"number": each.number, "start": each.start.isoformat(), "end": each.end.isoformat()}
        for each in window
    ]
    return context.conclude(
        passed=f"{wanted} whole epochs: {len(on)} canaries rewarded and voting, nobody else rewarded",
        data={"since": since.isoformat(), "over": over, "epochs": epochs},
    )


def observed(journal: Sequence[Event]) -> tuple[datetime, datetime]:
    """From when to when the observed epochs went, by an attempt's log. Raises SourceError."""
    told = data_of(journal, observe.item)
    epochs = told[-1].get("epochs") if told else None
    if not epochs:
        raise SourceError(observe.item, "expected epochs that were observed, got none")
    start, end = epochs[0]["start"], epochs[-1]["end"]
    return datetime.fromisoformat(start), datetime.fromisoformat(end)


def votes(context: Context, canaries: Sequence[str], spans: Sequence[Span]) -> None:
    """Each canary's votes in each epoch beside the median of the other validators'.

    Nodes that do not vote are no measure, nor are canaries of each other; when less than half of
    the others are known, nothing is. Raises SourceError.
    """
    latency = next(name for name in counters(context, "consensus_latency") if "vote" in name)
    seen = traffic(context, [latency], "validator", spans[0].start, spans[-1].end)
    addresses = {node.name: node.validator for node in context.cluster.nodes}
    allowed = context.params.max_missing
    for span in spans:
        counts = {name: counted(seen, at, span, allowed) for name, at in addresses.items()}
        others = [counts[n] for n, address in addresses.items() if address and n not in canaries]
        known = [each.amount for each in others if each.covered]
        usual = median(known) if known and 2 * len(known) >= len(others) else 0.0
        least = round(VOTES_OF_MEDIAN * usual, 1)
        expected = f"at least {least:g}, {VOTES_OF_MEDIAN:.0%} of the median validator's"
        for name in canaries:
            with context.finding(name, f"votes, {span.name}", expected) as judge:
                own = counts[name]
                if not usual > 0:
                    got = f"votes are counted of {len(known)} of {len(others)} other validators"
                    judge(got, Outcome.INCONCLUSIVE)
                elif not own.covered:
                    judge("too many points missing", Outcome.INCONCLUSIVE)
                else:
                    judge(own.amount, own.amount >= least)


def agreement(context: Context, slashed: int) -> None:
    """Every node has the block that the others have at its height, and nobody new was slashed.

    Nodes are asked up to three times until each was seen at the same height as another.
    """
    compared, split = set[str](), dict[str, tuple[str, str, str]]()
    nodes = [node.name for node in context.cluster.nodes]
    answers: Answers = {}
    for look in range(LOOKS):
        if look:
            context.scope.sleep(context.cluster.block_time_ms / 3000)
        answers = context.fleet.consensus()
        split, alike = _hashes(answers)
        compared |= alike
        if split or compared == set(nodes):
            break
    silent = {name for name, answer in answers.items() if isinstance(answer, SourceError)}
    seen = (compared | set(split)) - silent
    alone = {name: answers[name] for name in nodes if name not in seen}
    all_alike = f"{len(nodes)} nodes alike"
    with context.clean("nodes", "block at a height", "the same hash", all_alike):
        for name, (what, usual, own) in split.items():
            context.judge(name, what, usual, own, ok=False)
        what, others = "its block", "the others'"
        for name, answer in context.answers(what, others, alone, whose=False):
            context.unknown(name, what, others, f"nobody else at height {answer.height}")
    _slashing(context, answers, slashed)


def _hashes(answers: Answers) -> tuple[dict[str, tuple[str, str, str]], set[str]]:
    """Nodes whose block is not the one most have (at which height, theirs, its own); nodes alike."""
    at: dict[int, dict[str, list[str]]] = {}
    for name, answer in answers.items():
        if not isinstance(answer, SourceError):
            at.setdefault(answer.height, {}).setdefault(answer.block_hash, []).append(name)
    split, alike = dict[str, tuple[str, str, str]](), set[str]()
    for height, blocks in at.items():
        (most, usual), *others = sorted(blocks.items(), key=lambda item: -len(item[1]))
        if len(usual) > 1:
            alike |= set(usual)
        split |= {n: (f"block {height}", most, own) for own, names in others for n in names}
    return split, alike


def _slashing(context: Context, answers: Answers, before: int) -> None:
    known = [a.slashing_events for a in answers.values() if not isinstance(a, SourceError)]
    seen, what = max(known, default=-1), "slashing events"
    got = f"{seen}: the count went back" if known else "no node answers"
    outcome = seen == before if seen >= before else Outcome.INCONCLUSIVE
    expected = f"{before}, as before the change"
    context.judge("slashing", what, expected, got if seen < before else seen, outcome)


# --- What the ledger credited ---
#
# Per block the base reward is 5, and the leader's bonus 20 % of it, rounded up (the chain's
# rpp/runtime/node.rs). Whoever shares it and by which weights (leader 0.6, witnesses 0.3): no account,
# and no two together, can be credited more than both for every block.

BASE_REWARD = 5
LEADER_BONUS = math.ceil(BASE_REWARD * 0.2)
PER_BLOCK = BASE_REWARD + LEADER_BONUS
CREDITED = "credited since before the change"


def balances(context: Context) -> dict[str, Any]:
    """Height, slashing events and every validator's balance, as of now, to be kept.

    The height is read first, so that no block between is missed in a bound.
    """
    consensus, accounts = context.fleet.consensus(), context.fleet.accounts()
    what, amounts = "balance before the change", dict[str, str]()
    for name, account in context.answers(what, "an amount", accounts, whose=False):
        amounts[name] = str(account.balance)
        context.judge(name, what, "any", amounts[name], ok=True)
    what = "height before the change"
    known = [one for _, one in context.answers(what, "an answer", consensus, whose=False)]
    return {
        "balances": amounts,
        "height": min((answer.height for answer in known), default=0),
        "slashing": max((answer.slashing_events for answer in known), default=0),
    }


def credited(
    context: Context, before: dict[str, Any], on: list[str], beside: list[str], off: list[str],
    *, due: bool,
) -> None:  # fmt: skip
    """What each validator was credited since ``before``: ``on`` some (once ``due``), ``off`` none.

    All that may be rewarded, ``beside`` too, are held to the formula together. A balance that fell
    was spent from: what it was credited cannot be known.
    """
    now, answers = context.fleet.accounts(), context.fleet.status().values()
    heights = [found.height for found in answers if not isinstance(found, SourceError)]
    if not heights:
        context.unknown("ledger", "height", "an answer", "no node answers")
        return
    blocks = max(heights) - int(before["height"])
    most, gains = blocks * PER_BLOCK, dict[str, int]()
    for name, account in now.items():
        if name not in before["balances"]:
            context.unknown(name, CREDITED, "a balance before", "none was recorded")
            continue
        for _, known in context.answers(CREDITED, "an amount", {name: account}, whose=False):
            gains[name] = known.balance - int(before["balances"][name])
            wanted = due and name in on
            _gain(context, name, gains[name], most, blocks, off=name in off, wanted=wanted)
    together = sum(max(gains.get(name, 0), 0) for name in (*on, *beside))
    expected, what = f"at most {most} for {blocks} blocks", "credited to all that may be"
    context.judge("rewards", what, expected, str(together), together <= most)


def _gain(
    context: Context, name: str, gain: int, most: int, blocks: int, *, off: bool, wanted: bool
) -> None:
    expected = "0: its gate is off" if off else f"above 0, at most {most} for {blocks} blocks"
    if gain < 0:
        problem = f"{-gain} less than before: credits cannot be told from what was spent"
        context.unknown(name, CREDITED, expected, problem)
    elif off or not gain == 0 <= most:
        context.judge(name, CREDITED, expected, str(gain), gain <= (0 if off else most))
    elif wanted:
        context.unknown(name, CREDITED, expected, "0: no effect")


def canary_comparison(context: Context) -> list[Compared]:
    """The observed epochs beside the canaries' past and the rest. Raises SourceError."""
    start, end = observed(context.journal)
    return shown(context, context.journal, start, end)
