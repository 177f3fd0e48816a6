"""Anomalies of a watch: one for what goes on, another for what begins anew, and what is decided."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from runbook_lib.checks.anomalies import known, open_new
from runbook_lib.checks.watch_log import Log
from runbook_lib.context import Context
from runbook_lib.evidence.events import Looked
from runbook_lib.evidence.record import Record
from runbook_lib.findings import Findings
from runbook_lib.outcomes import Outcome, Row, check_row

from ..events import event

BEGUN = datetime(2026, 12, 1, 12, tzinfo=UTC)


def log_on(record: Record) -> Log:
    """A log as a live try has it."""

    def derive(what: str, compute: Callable[[], str]) -> str:
        return compute()

    scope = SimpleNamespace(derive=derive, live=True)
    return Log(cast(Context, SimpleNamespace(scope=scope, record=record, journal=record.events())))


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "record.jsonl")


@pytest.fixture
def log(record: Record) -> Log:
    return log_on(record)


def finding(ok: bool) -> Row:
    return check_row("vrf_participation", "level", "at least 0.66", 0.9 if ok else 0.4, ok)


def looked(log: Log, *healthy: bool, first: int = 1, attempt: str = "v1/mainnet/0001") -> None:
    """Looks a quarter of an hour apart, and what they open."""
    for number, ok in enumerate(healthy, start=first):
        at = BEGUN + timedelta(minutes=15 * number)
        log.add(event("look", key=str(number), at=at, made=at, rows=[finding(ok)]))
    open_new(log, attempt, BEGUN, {"vrf_participation": "avg(share)"})


def decide(log: Log, kind: str, minutes: float) -> None:
    """The commander's decision on the newest anomaly."""
    name, at = known(log)[-1].id, BEGUN + timedelta(minutes=minutes)
    about = {"key": name, "by": "carol", "at": at, "grounds": "", "reason": "seen"}
    log.add(event("decided", **about, decision=kind))


def found_at(log: Log) -> list[int]:
    """The looks that opened an anomaly, by number."""
    return [int((each.at - BEGUN) / timedelta(minutes=15)) for each in known(log)]


def test_what_goes_on_is_one_anomaly(log: Log) -> None:
    looked(log, True, False, False, True, False)

    assert found_at(log) == [2]
    assert known(log)[0].query == "avg(share)"


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
    log: Log, kind: str, after: tuple[bool, ...], opened: list[int]
) -> None:
    looked(log, False)
    decide(log, kind, 16)
    looked(log, *after, first=2)

    assert found_at(log) == opened


@pytest.mark.parametrize(("said", "anew"), [(16, 16), (15, 15), (-600, 15)])
def test_a_restart_never_begins_before_what_was_found(log: Log, said: float, anew: float) -> None:
    looked(log, False)
    assert known(log)[0].restarted is None
    decide(log, "restart", said)

    assert known(log)[0].restarted == BEGUN + timedelta(minutes=anew)


def test_a_judged_window_adds_nothing_to_what_was_decided(log: Log) -> None:
    looked(log, False, True)
    decide(log, "continue", 16)
    about = {"start": BEGUN, "at": BEGUN + timedelta(hours=24), "rows": [finding(ok=False)]}
    log.add(event("watched", key="a", **about))
    looked(log)
    assert found_at(log) == [1]


def test_the_same_finding_has_the_same_name_for_everybody(record: Record) -> None:
    one, other = log_on(record), log_on(record)
    looked(one, False)
    # Of two who look at once one is recorded; the other takes what the first has seen.
    assert not other.add(event("look", slot=7))
    assert [e.content for e in other.of(Looked)] == [e.content for e in one.of(Looked)]
    looked(other)

    assert [e.kind for e in record.events()] == ["look", "anomaly"]
    [name] = [each.id for each in known(other)]
    elsewhere = log_on(Record(record.path.with_name("other.jsonl")))
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
def test_what_an_anomaly_comes_to(log: Log, kind: str, outcomes: tuple[Outcome, ...]) -> None:
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
    log: Log, acknowledged: int | None, now: int, escalated: bool
) -> None:
    """Computed from the instants by any later look; an acknowledgement that came late changes nothing."""
    looked(log, False)
    [found] = known(log)
    if acknowledged is not None:
        at = found.opened + timedelta(minutes=acknowledged)
        log.add(event("acknowledged", key=found.id, by="carol", at=at, grounds=""))
    [found] = known(log)

    assert found.escalated(found.opened + timedelta(minutes=now), timedelta(minutes=5)) is escalated
