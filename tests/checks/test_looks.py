"""Looks of the watch: where they lie, and what a look makes of what the store says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.checks.watch import Slot, Slots, alert_rows, limit_of
from runbook_lib.context import Context
from runbook_lib.metrics.catalogue import Metric
from runbook_lib.metrics.frames import align
from runbook_lib.outcomes import Outcome, Row
from runbook_lib.sources.matrix import Matrix, Series

from ..metrics.samples import METRIC, samples

BEGUN = datetime(2026, 12, 1, 12, tzinfo=UTC)
STEP = timedelta(minutes=1)
CONTEXT = cast(
    Context,
    SimpleNamespace(
        matchers={"cluster": "mainnet"},
        params=SimpleNamespace(paging_severities=["page", "critical"], max_missing=0.02),
        site=SimpleNamespace(
            telemetry=SimpleNamespace(watchdog="Watchdog", paging_severities=["sms"])
        ),
    ),
)


@given(
    minutes=st.floats(0.1, 15), hours=st.floats(24, 72), anchor=st.datetimes(timezones=st.just(UTC))
)
def test_looks_are_never_farther_apart_than_declared(
    minutes: float, hours: float, anchor: datetime
) -> None:
    if not 1971 < anchor.year < 2286:
        return
    apart, span = timedelta(minutes=minutes), timedelta(hours=hours)
    slots = Slots.of(anchor, span, apart, [])
    every = slots.all()

    assert slots.length <= apart
    assert slots.step <= timedelta(minutes=1)
    assert slots.length % slots.step == timedelta(0)
    assert anchor - slots.anchor < timedelta(milliseconds=1)
    assert slots.end - slots.anchor >= span - timedelta(microseconds=1)
    assert [slot.start for slot in every] == [slots.anchor, *[slot.at for slot in every[:-1]]]
    assert every[-1].at == slots.end
    assert [slot.number for slot in every] == list(range(1, len(every) + 1))


def test_no_look_lies_in_a_planned_restart() -> None:
    quiet = (BEGUN + timedelta(minutes=10), BEGUN + timedelta(minutes=20))
    slots = Slots.of(BEGUN, timedelta(hours=1), timedelta(minutes=15), [quiet])

    assert [slot.number for slot in slots.all()] == [2, 3, 4]


# --- alerts ---------------------------------------------------------------------------------------


def series(minutes: list[int], **labels: str) -> Series:
    return samples(BEGUN, dict.fromkeys(minutes, 1.0), **labels)


WATCHDOG = series(list(range(1, 16)), alertname="Watchdog", severity="none")


def alerts(*found: Series, warnings: tuple[str, ...] = ()) -> list[tuple[str, str, str]]:
    end = BEGUN + timedelta(minutes=15)
    rows = alert_rows(CONTEXT, Matrix(found, warnings), BEGUN, end, STEP)
    return [(row.outcome.value, row.subject, str(row.observed)) for row in rows]


@pytest.mark.parametrize("severity", ["page", "critical", "sms"])
def test_an_alert_that_pages_is_found_wherever_it_fired(severity: str) -> None:
    page = series([4, 5], alertname="Stall", severity=severity)

    assert alerts(WATCHDOG, page) == [
        ("FAIL", "alert Stall", f"{severity}, from 2026-12-01 12:04:00 UTC")
    ]


@pytest.mark.parametrize(
    "other",
    [
        series([4], alertname="Stall", severity="critical", cluster="testnet"),
        series([4], alertname="Stall", severity="warning", cluster="mainnet"),
        series([0, 16], alertname="Stall", severity="critical", cluster="mainnet"),
    ],
)
def test_what_is_not_ours_or_pages_nobody_or_is_of_another_look_is_none(other: Series) -> None:
    assert alerts(WATCHDOG, other) == [("PASS", "alerts that page", "none, Watchdog was there")]


@pytest.mark.parametrize(
    ("minutes", "why"),
    [
        ([], "Watchdog was missing at 15 of 15 instants"),
        (list(range(1, 15)), "Watchdog was missing at 1 of 15 instants"),
        ([1, 2, *range(5, 16)], "Watchdog was missing at 2 of 15 instants"),
    ],
)
def test_no_alert_proves_nothing_without_the_one_that_always_fires(
    minutes: list[int], why: str
) -> None:
    control = series(minutes, alertname="Watchdog", severity="none")

    assert alerts(control) == [("INCONCLUSIVE", "alerts that page", why)]


def test_a_partial_answer_is_no_answer() -> None:
    assert alerts(WATCHDOG, warnings=("a store is down",)) == [
        ("INCONCLUSIVE", "alerts that page", "a store is down")
    ]


# --- metrics --------------------------------------------------------------------------------------

SLOTS = Slots.of(BEGUN, timedelta(hours=24), timedelta(minutes=15), [])
NAN = float("nan")


def metric(**more: Any) -> Metric:
    return Metric.model_validate({**METRIC, "limit": {"max": 100.0}, **more})


def limit(values: list[list[float]], **more: Any) -> tuple[Row, float | None]:
    """The row of a look whose series have these values in their last minutes."""
    slot = Slot(1, BEGUN, BEGUN + timedelta(minutes=15))
    found = []
    for number, row in enumerate(values):
        kept = {at: v for at, v in enumerate(row, 16 - len(row)) if not np.isnan(v)}
        found.append(samples(BEGUN, kept, node=str(number)))
    matrix = Matrix(tuple(found))
    frame = align("prometheus", matrix, BEGUN + STEP, slot.at, STEP)
    return limit_of(metric(**more), frame, slot, SLOTS)


def test_a_level_inside_its_limit_is_told_as_the_worst_series() -> None:
    row, level = limit([[10.0] * 15, [20.0] * 15])

    assert (row.outcome, row.observed, level) == (Outcome.PASS, 20.0, 20.0)


def test_a_minute_beyond_the_limit_between_two_looks_is_found() -> None:
    over = limit([[10.0] * 5 + [101.0] + [10.0] * 9])[0]
    gone = limit([[101.0, 10.0, NAN]])[0]

    assert [(row.outcome, row.observed) for row in (over, gone)] == [(Outcome.FAIL, 101.0)] * 2


def test_the_other_way_round_for_what_should_be_high() -> None:
    row, _ = limit([[0.9] * 14 + [0.5]], direction="higher", limit={"min": 0.66})

    assert (row.outcome, row.observed, row.expected) == (Outcome.FAIL, 0.5, "at least 0.66 ms")


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([], "no data"),
        ([[10.0, NAN]], "no data of 1 of 1 series"),
        ([[10.0, 10.0], [10.0, NAN]], "no data of 1 of 2 series"),
    ],
)
def test_without_data_at_its_instant_a_look_proves_nothing(
    values: list[list[float]], why: str
) -> None:
    row, level = limit(values)

    assert (row.outcome, row.observed, level) == (Outcome.INCONCLUSIVE, why, None)
