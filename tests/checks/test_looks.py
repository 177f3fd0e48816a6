"""The watch: where its looks lie, what each makes of the store, and which anomalies they open."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.checks.anomalies import known, open_new
from runbook_lib.checks.watch import Slots, judge_level
from runbook_lib.checks.watch_log import WatchLog
from runbook_lib.context import Context
from runbook_lib.evidence.events import Looked
from runbook_lib.evidence.log import Log
from runbook_lib.findings import Findings
from runbook_lib.metrics.catalogue import Metric
from runbook_lib.metrics.frames import align
from runbook_lib.outcomes import Outcome, Row, check_row

from ..events import event
from ..metrics.samples import METRIC, samples
from .conftest import Bare

BEGUN = datetime(2026, 12, 1, 12, tzinfo=UTC)
STEP = timedelta(minutes=1)


PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


@given(
    minutes=st.floats(1, 15), hours=st.floats(24, 72), anchor=st.datetimes(timezones=st.just(UTC))
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
    assert slots.length % STEP == timedelta(0)
    assert anchor - slots.anchor < timedelta(milliseconds=1)
    assert slots.end - slots.anchor >= span - timedelta(microseconds=1)
    assert [slot.start for slot in every] == [slots.anchor, *[slot.end for slot in every[:-1]]]
    assert every[-1].end == slots.end
    assert [slot.name for slot in every] == [str(n + 1) for n in range(len(every))]


def test_no_look_lies_in_a_planned_restart() -> None:
    quiet = (BEGUN + timedelta(minutes=10), BEGUN + timedelta(minutes=20))
    slots = Slots.of(BEGUN, timedelta(hours=1), timedelta(minutes=15), [quiet])

    assert [slot.name for slot in slots.all()] == ["2", "3", "4"]


# --- levels ---------------------------------------------------------------------------------------

NAN = float("nan")
HIGH = {"direction": "higher", "limit": {"min": 0.66}}


@pytest.mark.parametrize(
    ("values", "more", "judged"),
    [
        # The worst series tells; what lies between two looks counts.
        ([[10.0] * 15, [20.0] * 15], {}, [(PASS, 20.0)]),
        ([[10.0] * 5 + [101.0] + [10.0] * 9], {}, [(FAIL, 101.0)]),
        ([[0.9] * 14 + [0.5]], HIGH, [(FAIL, 0.5)]),
        ([[0.9] * 13 + [NAN, 0.7]], HIGH, [(PASS, 0.7)]),
        # What is not known proves nothing, nor does it hide what is.
        ([], {}, [(INCONCLUSIVE, "no series")]),
        ([[10.0] * 13 + [NAN, NAN]], {}, [(INCONCLUSIVE, "2 of 15 points missing, more than 2%")]),
        (
            [[10.0] * 15, [101.0] * 13 + [NAN, NAN]],
            {},
            [(INCONCLUSIVE, "2 of 15 points missing, more than 2%"), (FAIL, 101.0)],
        ),
        # Of a look that a restart leaves a point or two, the newest counts.
        ([[1.0], [NAN]], {}, [(INCONCLUSIVE, "no data of 1 of 2 series")]),
        ([[NAN]], {}, [(INCONCLUSIVE, "no data of 1 of 1 series")]),
        ([[1.0, NAN], [1.0, NAN]], {}, [(INCONCLUSIVE, "no data of 2 of 2 series")]),
    ],
    ids=range(10),
)
def test_a_level_is_held_to_its_limit_at_each_minute(
    values: list[list[float]], more: dict[str, Any], judged: list[tuple[Outcome, object]]
) -> None:
    found = [
        samples(BEGUN, {at: v for at, v in enumerate(row) if not np.isnan(v)}, node=str(number))
        for number, row in enumerate(values)
    ]
    last = BEGUN + (max(map(len, values), default=15) - 1) * STEP
    frame = align("prometheus", found, BEGUN, last)
    metric = Metric.model_validate({**METRIC, "limit": {"max": 100.0}, **more})
    context: Any = Bare(params=SimpleNamespace(max_missing=0.02))
    level = judge_level(context, metric, "level", frame, look=True)

    assert [(row.outcome, row.observed) for row in context.findings] == judged
    assert {row.expected for row in context.findings} == {
        "at least 0.66 ms" if more else "at most 100 ms"
    }
    assert level == (judged[0][1] if judged[0][0] is PASS else None)


def test_a_window_that_may_lack_nothing_lacks_nothing() -> None:
    found = [samples(BEGUN, dict.fromkeys(range(14), 10.0), node="a")]
    frame = align("prometheus", found, BEGUN, BEGUN + 14 * STEP)
    metric = Metric.model_validate({**METRIC, "limit": {"max": 100.0}})
    context: Any = Bare(params=SimpleNamespace(max_missing=0.0))
    judge_level(context, metric, "level", frame)

    [row] = context.findings
    assert (row.outcome, row.observed) == (
        INCONCLUSIVE,
        "1 of 15 points missing, more than 0%",
    )


# --- Anomalies: one for what goes on, another for what begins anew --------------------------------


def log_on(log: Log) -> WatchLog:
    """A log as a live try has it."""

    def derive(what: str, compute: Callable[[], str]) -> str:
        return compute()

    scope = SimpleNamespace(derive=derive, live=True)
    return WatchLog(cast(Context, SimpleNamespace(scope=scope, log=log, journal=log.events())))


@pytest.fixture
def attempt_log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log.jsonl")


@pytest.fixture
def log(attempt_log: Log) -> WatchLog:
    return log_on(attempt_log)


def finding(ok: bool) -> Row:
    return check_row("vrf_participation", "level", "at least 0.66", 0.9 if ok else 0.4, ok)


def looked(log: WatchLog, *healthy: bool, first: int = 1, attempt: str = "v1/mainnet/0001") -> None:
    """Looks a quarter of an hour apart, and what they open."""
    for number, ok in enumerate(healthy, start=first):
        at = BEGUN + timedelta(minutes=15 * number)
        log.add(event("look", key=str(number), at=at, made=at, rows=[finding(ok)]))
    open_new(log, attempt, BEGUN, {"vrf_participation": "avg(share)"})


def decide(log: WatchLog, kind: str, minutes: float) -> None:
    """The commander's decision on the newest anomaly."""
    name, at = known(log)[-1].id, BEGUN + timedelta(minutes=minutes)
    about = {"key": name, "by": "carol", "at": at, "grounds": "", "reason": "seen"}
    log.add(event("decided", **about, decision=kind))


def found_at(log: WatchLog) -> list[int]:
    """The looks that opened an anomaly, by number."""
    return [int((each.found.at - BEGUN) / timedelta(minutes=15)) for each in known(log)]


def test_what_goes_on_is_one_anomaly(log: WatchLog) -> None:
    looked(log, True, False, False, True, False)

    assert found_at(log) == [2]
    assert known(log)[0].found.query == "avg(share)"


@pytest.mark.parametrize(
    ("kind", "after", "opened"),
    [
        ("continue", (False, False), [1]),
        ("continue", (False, True, False), [1, 4]),
        ("restart", (False,), [1, 2]),
        ("recover", (False,), [1, 2]),
    ],
)
def test_after_a_decision_what_begins_anew_is_another(
    log: WatchLog, kind: str, after: tuple[bool, ...], opened: list[int]
) -> None:
    looked(log, False)
    decide(log, kind, 16)
    looked(log, *after, first=2)

    assert found_at(log) == opened


@pytest.mark.parametrize(("said", "anew"), [(16, 16), (15, 15), (-600, 15)])
def test_a_restart_never_begins_before_what_was_found(
    log: WatchLog, said: float, anew: float
) -> None:
    looked(log, False)
    assert known(log)[0].restarted is None
    decide(log, "restart", said)

    assert known(log)[0].restarted == BEGUN + timedelta(minutes=anew)


def test_a_judged_window_adds_nothing_to_what_was_decided(log: WatchLog) -> None:
    looked(log, False, True)
    decide(log, "continue", 16)
    about = {"start": BEGUN, "at": BEGUN + timedelta(hours=24), "rows": [finding(ok=False)]}
    log.add(event("watched", key="a", **about))
    looked(log)
    assert found_at(log) == [1]


def test_the_same_finding_has_the_same_name_for_everybody(attempt_log: Log) -> None:
    one, other = log_on(attempt_log), log_on(attempt_log)
    looked(one, False)
    # Of two who look at once one is recorded; the other takes what the first has seen.
    assert not other.add(event("look", slot=7))
    assert [e.content for e in other.of(Looked)] == [e.content for e in one.of(Looked)]
    looked(other)

    assert [e.kind for e in attempt_log.events()] == ["look", "anomaly"]
    [name] = [each.id for each in known(other)]
    elsewhere = log_on(Log(attempt_log.path.with_name("other.jsonl")))
    looked(elsewhere, False, attempt="v1/mainnet/0002")
    assert known(elsewhere)[0].id != name


@pytest.mark.parametrize(
    ("kind", "outcomes"),
    [
        ("", (Outcome.FAIL, Outcome.INCONCLUSIVE)),
        ("continue", (Outcome.FAIL, Outcome.PASS)),
        ("restart", (Outcome.PASS, Outcome.PASS)),
        ("recover", (Outcome.FAIL, Outcome.FAIL)),
    ],
)
def test_what_an_anomaly_comes_to(log: WatchLog, kind: str, outcomes: tuple[Outcome, ...]) -> None:
    looked(log, False)
    if kind:
        decide(log, kind, 16)
    context = Findings()
    known(log)[0].judge(context, "", escalated=False)
    finding, decision = context.findings

    assert (finding.outcome, decision.outcome) == outcomes
    assert finding.subject == "vrf_participation"
    said = (
        f"{kind} by carol 2026-12-01 12:16:00 UTC: seen" if kind else "undecided, not acknowledged"
    )
    assert decision.observed == said


@pytest.mark.parametrize(
    ("acknowledged", "now", "escalated"),
    [(None, 4, False), (None, 5, True), (3, 60, False), (6, 60, True)],
)
def test_what_nobody_acknowledged_in_time_is_escalated(
    log: WatchLog, acknowledged: int | None, now: int, escalated: bool
) -> None:
    """Computed from the instants by any later look; an acknowledgement that came late changes nothing."""
    looked(log, False)
    [found] = known(log)
    if acknowledged is not None:
        at = found.found.opened + timedelta(minutes=acknowledged)
        log.add(event("acknowledged", key=found.id, by="carol", at=at, grounds=""))
    [found] = known(log)

    assert (
        found.escalated(found.found.opened + timedelta(minutes=now), timedelta(minutes=5))
        is escalated
    )
