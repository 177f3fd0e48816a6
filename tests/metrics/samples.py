"""Series of Prometheus and metrics of a catalogue, in small."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from runbook_lib.metrics.intervals import observe
from runbook_lib.metrics.judge import Judgement, Rule, judge_all
from runbook_lib.sources.matrix import Series

METRIC: dict[str, Any] = {
    "name": "latency", "title": "Latency", "topic": "consensus_latency",
    "unit": "ms", "queries": ["avg(new)", "avg(old) / avg(count)"], "direction": "lower",
    "tolerance": {"relative": 0.1}, "critical": True,
}  # fmt: skip


def samples(start: datetime, values: Mapping[int, float], **labels: str) -> Series:
    """A series with values by the minute after ``start``."""
    first = round(start.timestamp() * 1000)
    times = np.array([first + 60_000 * minute for minute in values], np.int64)
    return Series(labels, times, np.array(list(values.values()), float))


def judge(baseline: ArrayLike, current: ArrayLike, rule: Rule, subject: str = "value") -> Judgement:
    """Judge one series: samples in time order at a constant step, NaN where one is missing."""
    before, after = (observe(np.ravel(values), rule.range) for values in (baseline, current))
    return judge_all(before, after, rule, (subject,))[0]
