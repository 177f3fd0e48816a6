"""mainnet.ready.no-regression: the canaries are proven no worse, metric by metric.

Against their own past, which the canary stage pinned before its first change, and what moves by
itself against the validators that are no canaries, at the same instants, then as now. Aggregates
are judged node by node.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ..context import Context, judges
from ..errors import SourceError
from ..evidence.events import Event, NodeVerified, of
from ..evidence.status import effect
from ..metrics.baseline import CLUSTER_WIDE, by_node
from ..metrics.catalogue import Metric
from ..metrics.frames import STEP
from ..outcomes import CheckResult
from .baselines import capture, data_of, names_of, pinned_before, read_catalogue, restarts
from .epochs import LATE, Span, whole_epochs

if TYPE_CHECKING:
    from ..metrics.compare import Compared

REWARDS = "canary.activate.rewards-gate"
LOOKS = 3
"""How often the same watch may be judged before the chance of a lucky look is spent."""
PAST, REST = "against its own past", "against the rest"


@judges("mainnet.ready.no-regression")
def no_regression(context: Context) -> CheckResult:
    """At least seven whole epochs with rewards, the last three of them after the last change.

    Every whole epoch until now is judged: an INCONCLUSIVE look may be taken again later, with more
    of them, ``LOOKS`` times. Playbook: mainnet, readiness, 1.
    """
    entries = context.ledger.events(context.earlier_stage.name)
    spent = (int(data.get("look", 0)) for data in data_of(context.journal, context.item))
    look = 1 + max(spent, default=0)
    if look > LOOKS:
        raise SourceError("looks", f"expected at most {LOOKS} at one watch, got one more")
    gate, enough = effect(entries, REWARDS), int(context.params.regression_epochs)
    enough_after = int(context.params.epochs_after_change)
    changed = max(event.at for event in of(entries, NodeVerified))

    def missing(found: Sequence[Span]) -> int:
        after = sum(epoch.start >= changed for epoch in found)
        return max(enough - len(found), enough_after - after)

    epochs = whole_epochs(context, "canaries with rewards on", gate, missing)
    if missing(epochs) > 0:
        return context.conclude(data={"epochs": len(epochs)})
    start, end = epochs[0].start, epochs[-1].end
    cluster = context.cluster
    epoch = timedelta(milliseconds=cluster.epoch_length * cluster.block_time_ms)

    def due(points: int) -> datetime | None:
        """When as many whole epochs will be over; after the last look, more data are of no use."""
        return end + math.ceil(points * STEP / epoch) * epoch + LATE if look < LOOKS else None

    compared = beside_past_and_rest(context, entries, start, end, look)
    rows = [row for kind, ones in compared.items() for one in ones for row in one.rows(kind, due)]
    context.findings += rows
    if not rows:
        context.unknown("catalogue", "critical metrics of the canaries", "one or more", "none")
    return context.conclude(
        passed=f"{len(rows)} judgements: the canaries are proven no worse over {len(epochs)} epochs",
        data={"look": look, "start": start.isoformat(), "end": end.isoformat()},
    )


def _critical(context: Context) -> list[Metric]:
    """What must be judged of the canaries: single validators, nodes, and what only all can show."""
    catalogue = read_catalogue(context)
    single = by_node(catalogue, context.site.telemetry.node_label)
    whole = [m for m in catalogue.metrics if m.per == "validator" or m.topic in CLUSTER_WIDE]
    return [metric for metric in (*single, *whole) if metric.critical]


def beside_past_and_rest(
    context: Context, entries: Sequence[Event], start: datetime, end: datetime, look: int
) -> dict[str, list[Compared]]:
    """Critical metrics against the canaries' past and, gauges, the rest.

    The canaries of an attempt are, by its log, the nodes that took the rewards gate.
    """
    from ..metrics.compare import compare

    before = pinned_before(context, entries, REWARDS)
    catalogue, metrics = read_catalogue(context), _critical(context)
    now, _ = capture(context, [*metrics, *catalogue.loads], start, end, before.queries)
    beside = [m for m in metrics if m.per == "validator" and m.kind == "gauge"]
    changed = of(entries, NodeVerified)

    def compared(of: Sequence[Metric], *, paired: bool) -> list[Compared]:
        return compare(
            of,
            before,
            now,
            load=catalogue.load,
            max_missing=context.params.max_missing,
            names=names_of(context),
            looks=LOOKS,
            look=look,
            restarts=restarts(entries),
            canaries={event.node for event in changed if event.item == REWARDS},
            paired=paired,
            # Bad minutes are judged against the past alone: two tails tell too little together.
            statistics=("location",) if paired else ("location", "tail"),
        )

    return {PAST: compared(metrics, paired=False), REST: compared(beside, paired=True)}
