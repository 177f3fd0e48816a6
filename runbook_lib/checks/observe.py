"""canary.activate.observe: rewards reach the canaries alone, and they go on voting, for whole epochs.

Per epoch from the metrics store, so that nothing is lost when a kernel dies: the last stage of the
chain's pipeline counts rewards on each node, its vote latencies count votes. Balances, hashes and
slashing have no past: they are read now, and held to what was recorded before the gate was turned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from statistics import median

from ..changes.roll import healthy
from ..context import Context, judges
from ..errors import SourceError
from ..evidence.order import effect
from ..evidence.record import Entry
from ..metrics import epochs
from ..metrics.epochs import Epoch, Progress
from ..outcomes import CheckResult, Row, check_row, unknown_row
from ..sources.node import Consensus
from . import ledger
from .effects import Span, counters, effect_rows, gated, traffic
from .rollouts import captured

LATE = timedelta(minutes=3)
"""A boundary is seen at most so late (``metrics.epochs``)."""

Missing = Callable[[Sequence[Epoch]], int]


def whole_epochs(
    context: Context, since: datetime, missing: Missing, what: str
) -> tuple[tuple[Epoch, ...], list[Row]]:
    """Every whole epoch that began after ``since``, and a row that says when enough will be over.

    ``missing`` says how many more are needed beyond those. Raises SourceError.
    """
    cluster, length = context.cluster, context.cluster.epoch_length
    # From a little before, so that the height is known at once.
    seen = epochs.progress(context.prometheus, context.matchers, since - LATE, context.now, length)
    # A boundary is seen late: one that was passed before ``since`` must not count.
    found = tuple(epoch for epoch in seen.epochs if epoch.start >= since + LATE)
    left = missing(found)
    if left <= 0:
        return found, []
    more = left + (not _under_way(seen, since + LATE, length))
    due = epochs.due(more, seen.height, length, cluster.block_time_ms / 1000, context.now)
    expected = f"{len(found) + left} whole epochs"
    return found, [unknown_row("epochs", what, expected, f"{len(found)} so far", return_at=due)]


def _under_way(seen: Progress, since: datetime, length: int) -> bool:
    """Whether an epoch that counts has begun: its boundary was seen at ``since`` or later."""
    heights = seen.frame.values.iloc[:, 0].dropna()
    before = heights[heights.index < since]
    return len(before) > 0 and seen.height // length > float(before.iloc[-1]) // length


REWARDS = "canary.activate.rewards-gate"
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
    found, rows = whole_epochs(
        context, since, lambda seen: wanted - len(seen), "rewards and votes observed"
    )
    window, over = found[:wanted], len(found) >= wanted
    on, beside, off = gated(context.plan, REWARDS, GATE)
    if not on:
        got = "none by the plan"
        rows.append(unknown_row("canaries", "nodes with the gate on", "at least one", got))
    if window:
        spans = [Span(f"epoch {each.number}", each.start, each.end) for each in window]
        rows += effect_rows(context, GATE, on, off, spans)
        rows += votes(context, on, spans)
    rows += ledger.credited(context, before, on, beside, off, due=bool(window))
    rows += agreement(context, int(before["slashing"]))
    rows += healthy(context, [node.name for node in context.cluster.nodes])
    return context.conclude(
        rows,
        passed=f"{wanted} whole epochs: {len(on)} canaries rewarded and voting, nobody else rewarded",
        empty="",
        data={"since": since.isoformat(), "over": over, "epochs": [_told(each) for each in window]},
    )


def observed(journal: Sequence[Entry]) -> tuple[datetime, datetime]:
    """From when to when the observed epochs went, by an attempt's record. Raises SourceError."""
    results = [
        entry.body["result"]
        for entry in journal
        if entry.kind == "result" and entry.body["item"] == observe.item
    ]
    epochs = results[-1]["data"].get("epochs") if results else None
    if not epochs:
        raise SourceError(observe.item, "expected epochs that were observed, got none")
    ends = epochs[0]["start"], epochs[-1]["end"]
    return datetime.fromisoformat(ends[0]), datetime.fromisoformat(ends[1])


def _told(epoch: Epoch) -> dict[str, str | int]:
    start, end = epoch.start.isoformat(), epoch.end.isoformat()
    return {"number": epoch.number, "start": start, "end": end}


def votes(context: Context, canaries: Sequence[str], spans: Sequence[Span]) -> list[Row]:
    """Each canary's votes in each epoch beside the median of the other validators'.

    Nodes that do not vote are no measure, nor are canaries of each other; when less than half of
    the others are known, nothing is. Raises SourceError.
    """
    latency = next(name for name in counters(context, "consensus_latency") if "vote" in name)
    seen = traffic(context, [latency], "validator", spans[0].start, spans[-1].end)
    addresses = {node.name: node.validator for node in context.cluster.nodes}
    rows = []
    for span in spans:
        counted = {
            name: seen.of(address, span, context.params.max_missing)
            for name, address in addresses.items()
        }
        others = [counted[n] for n, address in addresses.items() if address and n not in canaries]
        known = [each.amount for each in others if each.covered]
        usual = median(known) if known and 2 * len(known) >= len(others) else 0.0
        for name in canaries:
            own, what = counted[name], f"votes, {span.name}"
            least = round(VOTES_OF_MEDIAN * usual, 1)
            expected = f"at least {least:g}, {VOTES_OF_MEDIAN:.0%} of the median validator's"
            if not usual > 0:
                got = f"votes are counted of {len(known)} of {len(others)} other validators"
                rows.append(unknown_row(name, what, expected, got))
            elif not own.covered:
                rows.append(unknown_row(name, what, expected, "too many points missing"))
            else:
                rows.append(check_row(name, what, expected, own.amount, own.amount >= least))
    return rows


def agreement(context: Context, slashed: int) -> list[Row]:
    """Every node has the block that the others have at its height, and nobody new was slashed.

    Nodes are asked up to three times until each was seen at the same height as another.
    """
    compared: set[str] = set()
    names, rows = [node.name for node in context.cluster.nodes], list[Row]()
    answers: Answers = {}
    for look in range(LOOKS):
        if look:
            context.scope.sleep(context.cluster.block_time_ms / 3000)
        answers = context.fleet.consensus()
        split, alike = _hashes(answers)
        rows, compared = rows + split, compared | alike
        if split or compared == set(names):
            break
    rows = list({row.subject: row for row in rows}.values())
    for name in names:
        answer = answers[name]
        if isinstance(answer, SourceError):
            rows.append(context.unreadable("its block", "the others'", answer))
        elif name not in compared and name not in {row.subject for row in rows}:
            got = f"nobody else at height {answer.height}"
            rows.append(unknown_row(name, "its block", "the others'", got))
    if not rows:
        got = f"{len(names)} nodes alike"
        rows.append(check_row("nodes", "block at a height", "the same hash", got, ok=True))
    return [*rows, *_slashing(answers, slashed)]


def _hashes(answers: Answers) -> tuple[list[Row], set[str]]:
    """A row for each node whose block is not the one most have; and the nodes that are alike."""
    at: dict[int, dict[str, list[str]]] = {}
    for name, answer in answers.items():
        if not isinstance(answer, SourceError):
            at.setdefault(answer.height, {}).setdefault(answer.block_hash, []).append(name)
    rows, alike = [], set[str]()
    for height, blocks in at.items():
        ranked = sorted(blocks.items(), key=lambda item: -len(item[1]))
        usual = ranked[0][1]
        if len(usual) > 1:
            alike |= set(usual)
        for digest, names in ranked[1:]:
            what, expected = f"block {height}", ranked[0][0]
            rows += [check_row(name, what, expected, digest, ok=False) for name in names]
    return rows, alike


def _slashing(answers: Answers, before: int) -> list[Row]:
    seen = [a.slashing_events for a in answers.values() if not isinstance(a, SourceError)]
    what, expected = "slashing events", f"{before}, as before the change"
    if not seen:
        return [unknown_row("slashing", what, expected, "no node answers")]
    if max(seen) < before:
        return [unknown_row("slashing", what, expected, f"{max(seen)}: the count went back")]
    return [check_row("slashing", what, expected, max(seen), max(seen) == before)]
