"""Activation proofs: a gate's traffic is there on every node that has it on, and nowhere else.

A flag is not a feature. Each gate names a topic of the metric catalogue. Design: section 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from ..context import Context
from ..errors import SourceError
from ..metrics import catalogue
from ..metrics.baseline import SETTLE
from ..metrics.frames import fetch
from ..outcomes import Outcome
from ..plan import Plan
from .baselines import read_catalogue
from .epochs import Span

if TYPE_CHECKING:
    import pandas as pd


OBSERVABLE = {"timetoke_rewards": "reward_distribution", "witness_network": "witness_gossip"}
"""Gate -> the catalogue's topic that shows it at work."""
BLOCKS = "rpp_runtime_chain_block_height_count"
"""Every node counts its blocks: where that is told, other traffic would be told too."""
LOOKBACK = timedelta(minutes=3)


@dataclass(frozen=True)
class Counted:
    """How much one subject did in a span, and whether that is known; ``there``: it has a series."""

    amount: float
    covered: bool
    there: bool


def counted(rates: pd.DataFrame, subject: str, span: Span, allowed: float) -> Counted:
    """A subject's count in a span; at most ``allowed`` of its points may be missing.

    Only points whose three minutes lie wholly in the span count, scaled to the whole of it.
    """
    inside = rates[(rates.index >= span.start + LOOKBACK) & (rates.index <= span.end)]
    values = inside[subject].to_numpy() if subject in inside else np.array([])
    seen = np.isfinite(values)
    if not seen.any():
        return Counted(0.0, covered=False, there=False)
    amount = float(values[seen].mean()) * (span.end - span.start).total_seconds()
    return Counted(round(amount, 1), bool((~seen).mean() <= allowed), there=True)


def traffic(
    context: Context, candidates: Sequence[str], label: str, start: datetime, end: datetime
) -> pd.DataFrame:
    """Rates per second of the first of some counters that has any series in the window, by ``label``.

    None of them has: no columns. Raises SourceError.
    """
    frame = None
    for selector in candidates:
        query = catalogue.inject(f"sum by ({label}) (rate({selector}[3m]))", context.matchers)
        frame = fetch(context.prometheus, query, start, end)
        if frame.labels:
            break
    assert frame is not None
    return frame.by(label)


def counters(context: Context, topic: str) -> list[str]:
    """Selectors of the counters that the catalogue's queries of a topic are made of."""
    found = [
        selector
        for metric in read_catalogue(context).of_topic(topic)
        for query in metric.queries
        for selector in catalogue.selectors(query)
        if selector.partition("{")[0].endswith(("_count", "_total"))
    ]
    if not found:
        raise SourceError("metrics", f"topic {topic}: expected a counter in its queries, got none")
    return found


def gated(plan: Plan, item: str, gate: str) -> tuple[list[str], list[str], list[str]]:
    """(nodes of the change, other nodes whose gate is on, nodes whose gate is off) after ``item``."""
    after = {name: state.gates for name, state in plan.untouched.items()}
    own = [number for number, phase in enumerate(plan.phases) if phase.item == item]
    for phase in plan.phases[: own[-1] + 1]:  # a change may have several
        after |= {node.node: node.after.gates for node in phase.nodes}
    mine = list(dict.fromkeys(node.node for phase in plan.of(item) for node in phase.nodes))
    on = [name for name, gates in after.items() if gates.get(gate) and name not in mine]
    off = [name for name, gates in after.items() if not gates.get(gate)]
    return [name for name in mine if name not in off], on, off


def judge_effect(
    context: Context, gate: str, on: Sequence[str], off: Sequence[str], spans: Sequence[Span]
) -> None:
    """In each span: traffic on every node of ``on``, none on any of ``off``, which told of itself.

    Raises SourceError.
    """
    label, topic = context.site.telemetry.node_label, OBSERVABLE[gate]
    start, end = spans[0].start, spans[-1].end
    seen = traffic(context, counters(context, topic), label, start, end)
    told = traffic(context, [BLOCKS], label, start, end)
    allowed = context.params.max_missing
    for span in spans:
        for node in on:
            _on(context, node, gate, span, counted(seen, node, span, allowed))
    for span in spans:
        for node in off:
            amount, blocks = (counted(rates, node, span, allowed) for rates in (seen, told))
            _off(context, node, gate, span, amount, blocks)
    if not off:
        text = "none: every node has the gate on"
        context.judge(gate, "negative control", "a node with the gate off", text, ok=True)


def _on(context: Context, node: str, gate: str, span: Span, seen: Counted) -> None:
    proof = seen.amount > 0 and seen.covered
    got = f"{'0' if seen.there else 'no series'}: {gate} is on without effect"
    got = "too many points missing" if seen.there and not seen.covered else got
    what, outcome = f"{OBSERVABLE[gate]}, {span.name}", proof or Outcome.INCONCLUSIVE
    context.judge(node, what, "above 0", seen.amount if proof else got, outcome)


def _off(context: Context, node: str, gate: str, span: Span, seen: Counted, told: Counted) -> None:
    with context.finding(
        node, f"{OBSERVABLE[gate]} with the gate off, {span.name}", "none"
    ) as judge:
        if seen.amount > 0:
            judge(seen.amount, ok=False)
        elif told.covered:
            judge("none")
        else:
            judge("its telemetry has holes: nothing is known", Outcome.INCONCLUSIVE)


def judge_proof(context: Context, item: str, gate: str, effect: datetime) -> None:
    """A gate's effect in the minutes after a change took effect; not yet due before that."""
    span = Span("after the change", effect, effect + 2 * SETTLE)
    if context.now < span.end:
        context.unknown(gate, "effect", "traffic", "too early to be seen", span.end)
        return
    assert context.plan is not None
    mine, _, off = gated(context.plan, item, gate)
    if not mine:  # a bundle whose profile has it off: that nothing happens is no proof
        expected = "a node that the change turns it on for"
        context.unknown(gate, "effect", expected, "none by the plan")
        return
    judge_effect(context, gate, mine, off, [span])
