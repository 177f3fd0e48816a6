"""Metrics of a whole cluster taken node by node: what one node's own series say.

An aggregate is asked once a node, narrowed to it by the label that names nodes, and becomes one
metric with a series a node. So a canary has a past of its own, and others beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from ..errors import SourceError
from ..outcomes import Row, unknown_row
from ..sources.matrix import label_text
from ..sources.prometheus import Prometheus
from . import catalogue
from .baseline import STEP, Captured
from .catalogue import Catalogue, Metric, resolve
from .frames import Frame, Tally, fetch

SUFFIX = "_by_node"
CLUSTER_WIDE = frozenset({"finality_lag"})
"""Topics that compare nodes with each other: they say nothing of one alone."""


def of_nodes(catalogue: Catalogue, label: str) -> list[Metric]:
    """The critical aggregates, each as a metric of single nodes."""
    return [
        metric.model_copy(
            update={
                "name": metric.name + SUFFIX,
                "title": f"{metric.title}, by node",
                "per": "validator",
                "label": label,
            }
        )
        for metric in catalogue.metrics
        if metric.per == "aggregate" and metric.critical and metric.topic not in CLUSTER_WIDE
    ]


def capture(
    prometheus: Prometheus,
    metrics: Sequence[Metric],
    matchers: Mapping[str, str],
    nodes: Sequence[str],
    start: datetime,
    end: datetime,
) -> tuple[list[Captured], list[Row]]:
    """Frames of metrics of ``of_nodes``; one that has no data of some node is a row instead."""
    captured, rows = [], []
    for metric in metrics:
        try:
            found = resolve(prometheus, metric, matchers, end)
            frame = fetch_nodes(prometheus, found.query, metric.label, nodes, start, end)
            captured.append(Captured(metric, found.query, frame))
        except SourceError as error:
            rows.append(unknown_row(metric.name, "has data", "a fresh series", error.problem))
    return captured, rows


def fetch_nodes(
    prometheus: Prometheus,
    query: str,
    label: str,
    nodes: Sequence[str],
    start: datetime,
    end: datetime,
) -> Frame:
    """An aggregate ``query``, once for each node, as one frame. Raises SourceError."""
    import pandas as pd

    parts, labels = [], []
    tallies, warnings = list[Tally](), list[str]()
    for node in nodes:
        frame = fetch(prometheus, catalogue.inject(query, {label: node}), start, end, STEP)
        if frame.values.shape[1] != 1:
            got = f"{frame.values.shape[1]}"
            raise SourceError("prometheus", f"{node}: expected one series, got {got}")
        own = {label: node}
        parts.append(frame.values.set_axis([label_text(own)], axis=1))
        labels.append(own)
        tallies += frame.tallies
        warnings += frame.warnings
    return Frame(pd.concat(parts, axis=1), tuple(labels), tuple(tallies), tuple(warnings))
