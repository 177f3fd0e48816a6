"""Marks of a figure: what changed and what fired, and never silence for ignorance."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from runbook_lib.checks import baselines, figures
from runbook_lib.errors import SourceError
from runbook_lib.evidence.events import Event
from runbook_lib.metrics.baseline import SETTLE, About, Measured
from runbook_lib.metrics.catalogue import Metric
from runbook_lib.metrics.plots import Mark
from runbook_lib.outcomes import check_row
from runbook_lib.plan import NodeState
from runbook_lib.sources.matrix import Series

from ..changes.plans import node, phase, plan
from ..events import event
from ..metrics.samples import METRIC, samples

START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(hours=1)
WATCHDOG = {"alertname": "Watchdog", "severity": "none"}


def minute(number: float) -> datetime:
    return START + timedelta(minutes=number)


def firing(labels: dict[str, str], *minutes: int) -> Series:
    values = dict.fromkeys(minutes, 1.0)
    return samples(START, values, __name__="ALERTS", alertstate="firing", **labels)


@dataclass
class Answering:
    """A Prometheus with one answer."""

    answer: list[Series] | SourceError

    def range(self, expr: str, start: datetime, end: datetime, step: timedelta) -> list[Series]:
        assert (expr, start, end) == ('ALERTS{alertstate="firing"}', START, END)
        if isinstance(self.answer, SourceError):
            raise self.answer
        return self.answer


def context(
    answer: list[Series] | SourceError, journal: Sequence[Event] = (), plan: object = None
) -> Any:
    return SimpleNamespace(
        prometheus=Answering(answer), journal=journal, plan=plan, matchers={"cluster": "dev"},
        site=SimpleNamespace(telemetry=SimpleNamespace(watchdog="Watchdog")),
    )  # fmt: skip


def quiet(*series: Series) -> list[Series]:
    return [firing(WATCHDOG, 0, 1), *series]


def test_alerts_are_stretches_and_series_of_one_name_are_one() -> None:
    slow = {"alertname": "Slow", "severity": "page"}
    answer = quiet(
        firing({**slow, "cluster": "dev", "node": "a"}, 5, 6),
        firing({**slow, "cluster": "dev", "node": "b"}, 7, 20),
        firing({**slow, "cluster": "other"}, 40),
        firing({"alertname": "Down"}, 30),
    )

    assert figures.happened(context(answer), START, END) == (
        [
            Mark(minute(5), "alert Slow (page)", minute(8)),
            Mark(minute(20), "alert Slow (page)", minute(21)),
            Mark(minute(30), "alert Down (no severity)", minute(31)),
        ],
        "",
    )


def test_no_alert_is_said_when_the_watchdog_was_there() -> None:
    assert figures.happened(context(quiet()), START, END) == ([], "alerts: none fired")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ([], "expected Watchdog to fire, got nothing of it"),
        (SourceError("prometheus", "refused"), "refused"),
    ],
)
def test_what_cannot_be_told_of_alerts_is_said(answer: Any, why: str) -> None:
    journal = [event("state", item="x.deploy", node="a", at=minute(-5).isoformat())]

    found, note = figures.happened(context(answer, journal), START, END)

    assert [mark.label for mark in found] == ["x.deploy, last of 1 node"]
    assert note == f"alerts: unknown: {why}"


def test_more_marks_than_can_be_read_are_counted() -> None:
    answer = quiet(*(firing({"alertname": f"A{number}"}, 2 * number) for number in range(15)))

    found, note = figures.happened(context(answer), START, END)

    assert (len(found), note) == (figures.MOST, "3 later marks not drawn")


def test_a_change_says_what_it_turned_and_when_the_last_node_took_it() -> None:
    before = NodeState(gates={"witness_network": False}, channel="c", binary="b", config="c")
    after = before.model_copy(update={"gates": {"witness_network": True}})
    turned = plan(*(phase(i, i, [node("a", before, after)]) for i in ("x.gate", "x.later")))
    journal = [
        event("state", item="long.ago", node="a", at=minute(-60).isoformat()),
        event("state", item="x.gate", node="a", at=minute(-2).isoformat()),
        event("state", item="x.gate", node="b", at=minute(3).isoformat()),
    ]

    found, _ = figures.happened(context(quiet(), journal, turned), START, END)

    assert found == [Mark(minute(3), "x.gate, last of 2 nodes: witness_network on")]


def test_planned_restarts_are_marked_those_of_one_wave_once() -> None:
    steps = (("a", "deliver", 9), ("a", "restart", 10), ("b", "restart", 12), ("c", "restart", 40))
    journal = [
        event("step", item="x", node=name, step=step, phase=phase, at=minute(at + later))
        for phase, later in (("intent", 0), ("done", 1))
        for name, step, at in steps
    ]

    found, _ = figures.happened(context(quiet(), journal), START, END)

    assert found == [
        Mark(minute(10), "planned restarts, left out", minute(18)),
        Mark(minute(40), "planned restarts, left out", minute(46)),
    ]
    windows = [(minute(at), minute(at + 1) + SETTLE) for at in (10, 12, 40)]
    assert sorted(baselines.restarts(journal)) == windows


def held(level: float, query: str = "up") -> Measured:
    grid = pd.date_range(START, END, freq="60s", unit="ms")
    frame = pd.DataFrame({"{}": np.full(len(grid), level)}, index=grid)
    about: Any = {"release": "v1", "cluster": "dev", "epoch_length": 1, "validators": 1}
    return Measured(About(start=START, end=END, **about), {"latency": query}, {"latency": frame})


@pytest.mark.parametrize(
    ("before", "change", "band", "level", "note"),
    [
        (held(2.0), "x.gate", 2.0, 1.0, ""),
        (held(2.0, "old"), "x.gate", None, 1.0, "no baseline: not measured before, or by another query"),
        (SourceError("x.gate", "lost"), "x.gate", None, 1.0, "no baseline: lost"),
        (held(2.0), "", None, None, "no baseline: this window is pinned as the first one"),
    ],
)  # fmt: skip
def test_a_panel_has_its_baseline_its_verdict_or_says_why_not(
    monkeypatch: pytest.MonkeyPatch,
    before: Any, change: str, band: float | None, level: float | None, note: str,
) -> None:  # fmt: skip
    metric = Metric.model_validate(METRIC)
    row = check_row("latency all nodes", "no worse", "proven", "worse", ok=False)
    told = SimpleNamespace(item="x.judged", result=SimpleNamespace(rows=[row]))
    drawn: list[Any] = []
    for name, answer in (("pinned_before", before), ("_development", held(1.0))):
        monkeypatch.setattr(figures, name, Mock(side_effect=[answer]))
    monkeypatch.setattr(
        figures, "read_catalogue", lambda context: Mock(of_topic=lambda *t: [metric])
    )
    monkeypatch.setattr(figures, "of", lambda events, kind: [told])
    monkeypatch.setattr(
        figures,
        "draw",
        lambda context, file, metrics, window, beside: drawn.append(beside("latency", "up")),
    )
    figures.stage_figure(
        cast(Any, SimpleNamespace(journal=[], stage="x")), "x.judged", (START, END), change=change
    )
    [found] = drawn

    assert (found["baseline"] and found["baseline"].p50, found["reference"]) == (band, level)
    assert (found["note"], found["verdict"]) == (note, "✗ FAIL")


def test_a_window_that_has_not_begun_is_drawn_later() -> None:
    with pytest.raises(SourceError, match="draw it later"):
        figures.draw(context(quiet()), "f.png", [], (END, START))
