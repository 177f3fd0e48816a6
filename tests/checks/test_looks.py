"""Looks of the watch: where they lie, and what a look makes of what the store says."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.checks.watch import Slot, Slots, judge_alerts, level_of
from runbook_lib.metrics.catalogue import Metric
from runbook_lib.metrics.frames import align
from runbook_lib.outcomes import Outcome, Row
from runbook_lib.sources.matrix import Matrix, Series

from ..metrics.samples import METRIC, samples
from .conftest import Bare

BEGUN = datetime(2026, 12, 1, 12, tzinfo=UTC)
STEP = timedelta(minutes=1)


def bare() -> Any:
    return Bare(
        matchers={"cluster": "mainnet"},
        params=SimpleNamespace(paging_severities=["page", "critical"], max_missing=0.02),
        site=SimpleNamespace(
            telemetry=SimpleNamespace(watchdog="Watchdog", paging_severities=["sms"])
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


def stall(severity: str, *minutes: int, **labels: str) -> Series:
    return series(list(minutes), alertname="Stall", severity=severity, **labels)


QUIET = ("PASS", "alerts that page", "none, Watchdog was there")


@pytest.mark.parametrize(
    ("found", "row"),
    [
        *(([WATCHDOG, stall(severity, 4, 5)],
           ("FAIL", "alert Stall", f"{severity}, from 2026-12-01 12:04:00 UTC"))
          for severity in ("page", "critical", "sms")),
        # Not ours, it pages nobody, or it is of another look.
        ([WATCHDOG, stall("critical", 4, cluster="testnet")], QUIET),
        ([WATCHDOG, stall("warning", 4, cluster="mainnet")], QUIET),
        ([WATCHDOG, stall("critical", 0, 16, cluster="mainnet")], QUIET),
        # No alert proves nothing without the one that always fires.
        *(([series([*minutes], alertname="Watchdog", severity="none")], ("INCONCLUSIVE", "alerts that page",
                                  f"Watchdog was missing at {missing} of 15 instants"))
          for missing, minutes in ((15, ()), (1, range(1, 15)), (2, (1, 2, *range(5, 16))))),
        # A partial answer is none.
        ([WATCHDOG, "a store is down"], ("INCONCLUSIVE", "alerts that page", "a store is down")),
    ],
    ids=range(10),
)  # fmt: skip
def test_a_page_of_ours_is_found_and_quiet_is_proven(
    found: list[Series | str], row: tuple[str, str, str]
) -> None:
    answer = Matrix(
        tuple(one for one in found if not isinstance(one, str)),
        tuple(one for one in found if isinstance(one, str)),
    )
    judge_alerts(context := bare(), answer, BEGUN, BEGUN + timedelta(minutes=15), STEP)

    told = [(row.outcome.value, row.subject, str(row.observed)) for row in context.findings]
    assert told == [row]


# --- metrics --------------------------------------------------------------------------------------

SLOTS = Slots.of(BEGUN, timedelta(hours=24), timedelta(minutes=15), [])
NAN = float("nan")


def limit(values: list[list[float]], **more: Any) -> tuple[Row, float | None]:
    """The row of a look whose series have these values in their last minutes."""
    slot = Slot(1, BEGUN, BEGUN + timedelta(minutes=15))
    found = []
    for number, row in enumerate(values):
        kept = {at: v for at, v in enumerate(row, 16 - len(row)) if not np.isnan(v)}
        found.append(samples(BEGUN, kept, node=str(number)))
    matrix = Matrix(tuple(found))
    frame = align("prometheus", matrix, BEGUN + STEP, slot.at, STEP)
    metric = Metric.model_validate({**METRIC, "limit": {"max": 100.0}, **more})
    level = level_of(context := bare(), metric, frame, slot, SLOTS)
    [row] = context.findings
    return row, level


HIGH = {"direction": "higher", "limit": {"min": 0.66}}
PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("values", "more", "outcome", "observed"),
    [
        # The worst series tells; what lies between two looks counts.
        ([[10.0] * 15, [20.0] * 15], {}, PASS, 20.0),
        ([[10.0] * 5 + [101.0] + [10.0] * 9], {}, FAIL, 101.0),
        ([[101.0, 10.0, NAN]], {}, FAIL, 101.0),
        ([[0.9] * 14 + [0.5]], HIGH, FAIL, 0.5),
        # Without data at its instant a look proves nothing.
        ([], {}, INCONCLUSIVE, "no data"),
        ([[10.0, NAN]], {}, INCONCLUSIVE, "no data of 1 of 1 series"),
        ([[10.0, 10.0], [10.0, NAN]], {}, INCONCLUSIVE, "no data of 1 of 2 series"),
    ],
    ids=range(7),
)
def test_a_level_is_held_to_its_limit_at_each_minute_of_a_look(
    values: list[list[float]], more: dict[str, Any], outcome: Outcome, observed: object
) -> None:
    row, level = limit(values, **more)

    assert (row.outcome, row.observed) == (outcome, observed)
    assert row.expected == ("at least 0.66 ms" if more else "at most 100 ms")
    assert level == (observed if outcome is PASS else None)
