"""The watch: what a look makes of the store, and which anomalies it opens."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from runbook_lib.checks.anomalies import known, open_new
from runbook_lib.checks.watch import level
from runbook_lib.checks.watch_log import WatchLog
from runbook_lib.context import Context
from runbook_lib.evidence.log import Log
from runbook_lib.findings import Findings
from runbook_lib.metrics.catalogue import Metric
from runbook_lib.metrics.frames import Frame, align
from runbook_lib.outcomes import Outcome, Row, check_row
from runbook_lib.wording import utc

from ..events import event
from ..metrics.samples import METRIC, samples

BEGUN = datetime(2026, 12, 1, 12, tzinfo=UTC)
STEP = timedelta(minutes=1)


PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


# --- levels ---------------------------------------------------------------------------------------

NAN = float("nan")
HIGH = {"direction": "higher", "limit": {"min": 0.66}}


@pytest.mark.parametrize(
    ("values", "more", "judged"),
    [
        # The worst series tells; what lies between two looks counts.
        ([[10.0] * 15, [20.0] * 15], {}, [(PASS, "20 ms")]),
        ([[10.0] * 5 + [101.0, 103.0] + [10.0] * 8], {}, [(FAIL, "103 ms", 5, 7)]),
        ([[101.0] + [10.0] * 13 + [102.0]], {}, [(FAIL, "102 ms", 0, 1), (FAIL, "102 ms", 14, 15)]),
        ([[0.9] * 14 + [0.5]], HIGH, [(FAIL, "0.5 ms", 14, 15)]),
        ([[0.9] * 149 + [0.7]], HIGH, [(PASS, "0.7 ms")]),
        ([[0.9] * 148 + [NAN, 0.7]], HIGH, [(PASS, "0.7 ms")]),
        # What is not known proves nothing, nor does it hide what is.
        ([], {}, [(INCONCLUSIVE, "no series")]),
        ([[10.0] * 13 + [NAN, NAN]], {}, [(INCONCLUSIVE, "no data", 13, 15)]),
        ([[10.0] * 500 + [NAN] * 4 + [1.0]], {}, [(INCONCLUSIVE, "no data", 500, 504)]),
        ([[10.0] * 500 + [NAN] * 3 + [1.0]], {}, [(PASS, "10 ms")]),
        (
            [[10.0] * 15, [101.0] * 13 + [NAN, NAN]],
            {},
            [(INCONCLUSIVE, "no data", 13, 15), (FAIL, "101 ms", 0, 13)],
        ),
        # Of no series the newest point.
        ([[10.0] * 500, [10.0] * 499 + [NAN]], {}, [(INCONCLUSIVE, "no data", 499, 500)]),
        ([[NAN]], {}, [(INCONCLUSIVE, "no data", 0, 1)]),
    ],
    ids=range(13),
)
def test_a_level_is_held_to_its_limit_at_each_minute(
    values: list[list[float]], more: dict[str, Any], judged: list[tuple[Any, ...]]
) -> None:
    found = [
        samples(BEGUN, {at: v for at, v in enumerate(row) if not np.isnan(v)}, node=str(number))
        for number, row in enumerate(values)
    ]
    last = BEGUN + (max(map(len, values), default=15) - 1) * STEP
    frame = align("prometheus", found, BEGUN, last)
    metric = Metric.model_validate({**METRIC, "limit": {"max": 100.0}, **more})
    [seen] = level(metric, {}, window_of(frame))

    def said(text: str, *minutes: int) -> str:
        ends = [utc(BEGUN + minute * STEP) for minute in minutes]
        return f"{text}, {ends[0]} to {ends[1]}" if ends else text

    rows = seen.rows()
    assert [(row.outcome, row.observed) for row in rows] == [
        (outcome, said(*told)) for outcome, *told in judged
    ]
    assert {row.expected for row in rows} == {"at least 0.66 ms" if more else "at most 100 ms"}


def window_of(*frames: Frame, most: float = 0.02) -> Any:
    """A window of which each query reads the next frame, and the last one ever after."""
    answers = chain(frames, repeat(frames[-1]))
    context = SimpleNamespace(matchers={}, params=SimpleNamespace(max_missing=most))
    return SimpleNamespace(context=context, read=lambda query, narrow: next(answers))


def test_the_first_candidate_with_a_series_is_asked() -> None:
    none, some = (
        align("prometheus", found, BEGUN, BEGUN)
        for found in ([], [samples(BEGUN, {0: 10.0}, node="a")])
    )
    metric = Metric.model_validate({**METRIC, "queries": ["none_up", "some_up", "other_up"]})
    queries: dict[str, str] = {}
    [seen] = level(metric, queries, window_of(none, some))

    assert (seen.observed, queries) == ("10 ms", {metric.name: "some_up{}"})


def test_a_window_that_may_lack_nothing_lacks_nothing() -> None:
    found = [samples(BEGUN, {at: 10.0 for at in range(15) if at != 7}, node="a")]
    frame = align("prometheus", found, BEGUN, BEGUN + 14 * STEP)
    [seen] = level(Metric.model_validate(METRIC), {}, window_of(frame, most=0.0))

    assert [row.outcome for row in seen.rows()] == [INCONCLUSIVE]


# --- Anomalies: one for what goes on, another for what begins anew --------------------------------


def log_on(log: Log) -> WatchLog:
    """A log as a live run has it."""

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


def looked(log: WatchLog, *begun: int, end: int = 0, attempt: str = "v1/mainnet/0001") -> None:
    """A look that finds what began at these minutes and lasted one, or until ``end``."""
    failing = [
        (finding(ok=False), (BEGUN + minute * STEP, BEGUN + (end or minute + 1) * STEP))
        for minute in begun
    ]
    open_new(log, attempt, BEGUN, {"vrf_participation": "avg(share)"}, failing, 15 * STEP)


def decide(log: WatchLog, kind: str, minutes: float) -> None:
    """The commander's decision on the newest anomaly."""
    name, at = known(log)[-1].id, BEGUN + timedelta(minutes=minutes)
    about = {"key": name, "by": "carol", "at": at, "grounds": "", "reason": "seen"}
    log.add(event("decided", **about, decision=kind))


def found_at(log: WatchLog) -> list[int]:
    """The minutes at which anomalies began."""
    return [int((each.found.at - BEGUN) / STEP) for each in known(log)]


def test_what_is_undecided_is_one_anomaly(log: WatchLog) -> None:
    looked(log, 15, 45)
    looked(log, 15, 45, 75)

    assert found_at(log) == [15]
    assert known(log)[0].found.query == "avg(share)"


@pytest.mark.parametrize("kind", ["continue", "restart", "recover"])
def test_after_a_decision_what_begins_anew_is_another(log: WatchLog, kind: str) -> None:
    looked(log, 15)
    decide(log, kind, 16)
    looked(log, 14, 15, 16, 30)
    looked(log, 15, 30, 45)

    assert found_at(log) == [15, 30]


@pytest.mark.parametrize(
    ("kind", "said", "begun", "end", "at"),
    [
        # What ended before the next look after the restart is of the window before.
        ("restart", 20, 20, 21, [15]),
        ("restart", 20, 20, 35, [15]),
        ("restart", 20, 17, 35, [15]),
        # What does not is of the window that it spoils: a level, a halt, a silence as old as before.
        ("restart", 20, 20, 36, [15, 20]),
        ("restart", 20, 17, 36, [15, 17]),
        ("restart", 20, 15, 1460, [15, 15]),
        ("restart", 20, 21, 22, [15, 21]),
        # Of a clock that is wrong a window begins with the finding in it.
        ("restart", -600, 15, 16, [15, 15]),
        ("continue", 20, 15, 1460, [15]),
        ("recover", 20, 15, 1460, [15]),
    ],
)
def test_what_outlives_a_restart_is_another(
    log: WatchLog, kind: str, said: int, begun: int, end: int, at: list[int]
) -> None:
    looked(log, 15)
    decide(log, kind, said)
    for _ in range(2):
        looked(log, begun, end=end)

    assert found_at(log) == at
    assert len({each.id for each in known(log)}) == len(at)
    assert [each.decided is None for each in known(log)] == [False, True][: len(at)]


@pytest.mark.parametrize(("said", "anew"), [(16, 16), (15, 15), (-600, 15)])
def test_a_restart_never_begins_before_what_was_found(
    log: WatchLog, said: float, anew: float
) -> None:
    looked(log, 15)
    assert known(log)[0].restarted is None
    decide(log, "restart", said)

    assert known(log)[0].restarted == BEGUN + timedelta(minutes=anew)


def test_the_same_finding_has_the_same_name_for_everybody(attempt_log: Log) -> None:
    """Of two who look at once one opens it; the other takes what the first has seen."""
    one, other = log_on(attempt_log), log_on(attempt_log)
    looked(one, 15)
    looked(other, 15)

    assert [e.kind for e in attempt_log.events()] == ["anomaly"]
    [name] = [each.id for each in known(other)]
    elsewhere = log_on(Log(attempt_log.path.with_name("other.jsonl")))
    looked(elsewhere, 15, attempt="v1/mainnet/0002")
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
    looked(log, 15)
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
    looked(log, 15)
    [found] = known(log)
    if acknowledged is not None:
        at = found.found.opened + timedelta(minutes=acknowledged)
        log.add(event("acknowledged", key=found.id, by="carol", at=at, grounds=""))
    [found] = known(log)

    assert (
        found.escalated(found.found.opened + timedelta(minutes=now), timedelta(minutes=5))
        is escalated
    )
