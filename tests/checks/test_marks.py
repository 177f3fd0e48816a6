"""Marks of a figure: what changed and what fired, and never silence for ignorance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from runbook_lib.changes.plan import NodePlan, Phase, Plan
from runbook_lib.changes.state import NodeState
from runbook_lib.checks import annotations, baselines
from runbook_lib.checks.development import baseline_figure
from runbook_lib.errors import SourceError
from runbook_lib.evidence.record import Entry
from runbook_lib.metrics.baseline import SETTLE, write
from runbook_lib.metrics.panels import Mark
from runbook_lib.sources.matrix import Matrix, Series

START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(hours=1)
WATCHDOG = {"alertname": "Watchdog", "severity": "none"}


def minute(number: float) -> datetime:
    return START + timedelta(minutes=number)


def firing(labels: dict[str, str], *minutes: int) -> Series:
    times = [int(minute(each).timestamp() * 1000) for each in minutes]
    named = {"__name__": "ALERTS", "alertstate": "firing", **labels}
    return Series(named, np.array(times, dtype=np.int64), np.ones(len(times)))


def entry(kind: str, **body: Any) -> Entry:
    return Entry(0, "", "", kind, body, "")


@dataclass
class Answering:
    """A Prometheus with one answer."""

    answer: Matrix | SourceError

    def range(self, expr: str, start: datetime, end: datetime, step: timedelta) -> Matrix:
        assert (expr, start, end) == ('ALERTS{alertstate="firing"}', START, END)
        if isinstance(self.answer, SourceError):
            raise self.answer
        return self.answer


def context(
    answer: Matrix | SourceError, journal: Sequence[Entry] = (), plan: object = None
) -> Any:
    return SimpleNamespace(
        prometheus=Answering(answer),
        journal=journal,
        plan=plan,
        matchers={"cluster": "dev"},
        site=SimpleNamespace(telemetry=SimpleNamespace(watchdog="Watchdog")),
    )


def quiet(*series: Series) -> Matrix:
    return Matrix((firing(WATCHDOG, 0, 1), *series))


def test_alerts_are_stretches_and_series_of_one_name_are_one() -> None:
    """Another cluster's are not ours; one without a cluster may be."""
    slow = {"alertname": "Slow", "severity": "page"}
    answer = quiet(
        firing({**slow, "cluster": "dev", "node": "a"}, 5, 6),
        firing({**slow, "cluster": "dev", "node": "b"}, 7, 20),
        firing({**slow, "cluster": "other"}, 40),
        firing({"alertname": "Down"}, 30),
    )

    assert annotations.happened(context(answer), START, END) == (
        [
            Mark(minute(5), "alert Slow (page)", minute(8)),
            Mark(minute(20), "alert Slow (page)", minute(21)),
            Mark(minute(30), "alert Down (no severity)", minute(31)),
        ],
        "",
    )


def test_no_alert_is_said_when_the_watchdog_was_there() -> None:
    """An empty figure and a broken source do not look alike."""
    assert annotations.happened(context(quiet()), START, END) == ([], "alerts: none fired")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Matrix(()), "expected Watchdog to fire, got nothing of it"),
        (Matrix((firing(WATCHDOG, 0),), warnings=("shard down",)), "shard down"),
        (SourceError("prometheus", "refused"), "refused"),
    ],
)
def test_what_cannot_be_told_of_alerts_is_said(answer: Any, why: str) -> None:
    """The figure is drawn all the same, with its other marks."""
    journal = [entry("state", item="x.deploy", node="a", at=minute(-5).isoformat())]

    found, note = annotations.happened(context(answer, journal), START, END)

    assert [mark.label for mark in found] == ["x.deploy, last of 1 node"]
    assert note == f"alerts: unknown: {why}"


def test_more_marks_than_can_be_read_are_counted() -> None:
    """The first are drawn."""
    answer = quiet(*(firing({"alertname": f"A{number}"}, 2 * number) for number in range(15)))

    found, note = annotations.happened(context(answer), START, END)

    assert (len(found), note) == (annotations.MOST, "3 later marks not drawn")


def test_a_change_says_what_it_turned_and_when_the_last_node_took_it() -> None:
    """One mark an item, of those that can have shaped the window."""
    before = NodeState(gates={"witness_network": False}, channel="c", binary="b", config="c")
    after = before.model_copy(update={"gates": {"witness_network": True}})
    node = NodePlan(node="a", control="ours", before=before, after=after)
    phases = [Phase(item=i, name=i, nodes=(node,), waves=(("a",),)) for i in ("x.gate", "x.later")]
    plan = Plan.model_construct(phases=tuple(phases))
    journal = [
        entry("state", item="long.ago", node="a", at=minute(-60).isoformat()),
        entry("state", item="x.gate", node="a", at=minute(-2).isoformat()),
        entry("state", item="x.gate", node="b", at=minute(3).isoformat()),
    ]

    found, _ = annotations.happened(context(quiet(), journal, plan), START, END)

    assert found == [Mark(minute(3), "x.gate, last of 2 nodes: witness_network on")]


def test_a_planned_restart_inside_the_window_is_marked() -> None:
    """Its points are left out: the gap has a reason."""
    step = {"item": "x", "node": "a", "step": "restart"}
    journal = [
        entry("step", **step, phase="intent", at=minute(10).isoformat()),
        entry("step", **step, phase="done", at=minute(12).isoformat()),
    ]

    found, _ = annotations.happened(context(quiet(), journal), START, END)

    assert found == [Mark(minute(10), "1 planned restart, left out", minute(17))]


def test_restarts_of_one_wave_are_one_mark() -> None:
    """Of a node each they would hide the lines; one that stands apart is its own."""
    journal = [
        entry("step", item="x", node=node, step="restart", phase=phase, at=minute(at).isoformat())
        for phase, later in (("intent", 0), ("done", 1))
        for node, at in (("a", 10 + later), ("b", 12 + later), ("c", 40 + later))
    ]

    found, _ = annotations.happened(context(quiet(), journal), START, END)

    assert found == [
        Mark(minute(10), "2 planned restarts, left out", minute(18)),
        Mark(minute(40), "1 planned restart, left out", minute(46)),
    ]


def test_a_baseline_of_nothing_is_no_figure(tmp_path: Path) -> None:
    """Every metric was missing: the notebook says so and goes on."""
    about = {"start": START.isoformat(), "end": END.isoformat(), "epoch_length": 1, "validators": 1}
    facts = {**about, "release": "v1", "cluster": "dev", "digest": "sha256:0"}
    write([], tmp_path / "metrics" / "baseline.parquet", facts)
    empty = context(quiet())
    empty.folder, empty.cluster = tmp_path, SimpleNamespace(nodes=[])

    assert baseline_figure(empty) is None


def test_planned_restarts_are_read_from_the_journal() -> None:
    """From the intent until the rates have settled; what was not a restart is left alone."""
    steps = (("deliver", "done", 0), ("restart", "intent", 1), ("restart", "done", 3))
    journal = [
        entry("step", item="x", node="dev-1", step=step, phase=phase, at=minute(at).isoformat())
        for step, phase, at in steps
    ]

    assert baselines.restarts(journal) == [(minute(1), minute(3) + SETTLE)]
