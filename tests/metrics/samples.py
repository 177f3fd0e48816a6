"""Series of Prometheus and metrics of a catalogue, in small."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np

from runbook_lib.sources.matrix import Series

METRIC: dict[str, Any] = {
    "name": "latency", "title": "Latency", "topic": "consensus_latency", "family": "consensus",
    "unit": "ms", "queries": ["avg(new)", "avg(old) / avg(count)"], "direction": "lower",
    "tolerance": {"relative": 0.1}, "critical": True,
}  # fmt: skip


def samples(start: datetime, values: Mapping[int, float], **labels: str) -> Series:
    """A series with values by the minute after ``start``."""
    first = round(start.timestamp() * 1000)
    times = np.array([first + 60_000 * minute for minute in values], np.int64)
    return Series(labels, times, np.array(list(values.values()), float))
