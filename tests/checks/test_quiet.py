"""What of a window is quiet, answer by answer, with a store and an Alertmanager of plain values."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runbook_lib.checks import quiet
from runbook_lib.errors import SourceError
from runbook_lib.outcomes import Outcome, worst
from runbook_lib.site import Node
from runbook_lib.sources.alertmanager import Silence
from runbook_lib.sources.matrix import Series

from ..metrics.samples import samples

T0 = datetime(2026, 1, 1, tzinfo=UTC)
POINTS = 61
END = T0 + timedelta(minutes=POINTS - 1)
PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
WATCHDOG = {"alertname": "Watchdog", "severity": "none"}
ALL = range(POINTS)


class Store:
    """Answers a query by the words in it: labels and the minutes in which there is a value."""

    def __init__(self) -> None:
        self.partial, self.asked = False, 0
        self.answers: dict[str, list[tuple[dict[str, str], Any, float]]] = {
            "ALERTS": [(WATCHDOG, ALL, 1.0)],
            "over_time(up": [({"instance": "dev-1"}, ALL, 1.0)],
            "present_over_time(rpp": [({"instance": "dev-1"}, ALL, 1.0)],
            "increase": [({}, ALL, 36.0)],
        }

    def range(self, query: str, start: datetime, end: datetime, step: timedelta) -> list[Series]:
        self.asked += 1
        if self.partial:
            raise SourceError("prometheus", "expected all of it, got shard 3 unavailable")
        [found] = [answer for words, answer in self.answers.items() if words in query]
        assert "ALERTS" in query or 'cluster="development"' in query
        return [
            samples(start, dict.fromkeys(minutes, value), **labels)
            for labels, minutes, value in found
            if len(minutes)
        ]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def over(store: Store) -> quiet.Window:
    node = Node(name="dev-1", url="http://dev-1:7070")
    telemetry = SimpleNamespace(
        watchdog="Watchdog", node_label="instance", paging_severities=["critical", "sev1"]
    )
    context = SimpleNamespace(
        prometheus=store,
        matchers={"cluster": "development"},
        cluster_name="development",
        cluster=SimpleNamespace(nodes=[node], block_time_ms=5000),
        site=SimpleNamespace(telemetry=telemetry),
        params=SimpleNamespace(max_missing=0.02, paging_severities=["critical", "page"]),
    )
    return quiet.Window(cast(Any, context), T0, END)


def outcome(over: quiet.Window, look: quiet.Look) -> Outcome:
    return worst(row.outcome for seen in quiet.look(over, look) for row in seen.rows())


def test_a_covered_window_without_a_page_is_quiet(over: quiet.Window) -> None:
    looks = (quiet.watchdog, quiet.telemetry, quiet.pages, quiet.halts)
    rows = [row for seen in quiet.look(over, *looks) for row in seen.rows()]

    assert [(row.subject, row.what, row.observed, row.outcome) for row in rows] == [
        ("Watchdog", "fires throughout", "0 of 61 min missing", PASS),
        ("dev-1", "telemetry", "0 of 61 min missing", PASS),
        ("development", "paging alerts", "none fired", PASS),
        ("development", "blocks committed", "none stood still", PASS),
    ]


@pytest.mark.parametrize(
    ("words", "minutes"),
    [
        ("ALERTS", range(0)),
        ("ALERTS", [m for m in ALL if not 20 <= m < 30]),
        ("over_time(up", range(0)),
        ("over_time(up", range(40)),
        ("present_over_time(rpp", range(10, POINTS)),
    ],
)
def test_what_is_not_covered_proves_nothing(
    over: quiet.Window, store: Store, words: str, minutes: Any
) -> None:
    [(labels, _, value)] = store.answers[words]
    store.answers[words] = [(labels, minutes, value)]

    look = quiet.watchdog if words == "ALERTS" else quiet.telemetry
    assert outcome(over, look) is INCONCLUSIVE


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"severity": "critical", "cluster": "development"}, FAIL),
        ({"severity": "page"}, FAIL),
        ({"severity": "sev1", "cluster": "development"}, FAIL),
        ({"severity": "critical", "cluster": "testnet"}, PASS),
        ({"severity": "warning", "cluster": "development"}, PASS),
        ({"cluster": "development"}, PASS),
    ],
)
def test_a_page_of_this_cluster_or_of_none_counts(
    over: quiet.Window, store: Store, labels: dict[str, str], expected: Outcome
) -> None:
    store.answers["ALERTS"].append(({"alertname": "Stall", **labels}, range(30, 32), 1.0))

    assert outcome(over, quiet.pages) is expected


def test_a_page_is_named_with_node_and_times_and_a_partial_answer_proves_nothing(
    over: quiet.Window, store: Store
) -> None:
    store.partial = True
    assert outcome(over, quiet.pages) is INCONCLUSIVE

    store.partial = False
    labels = {"alertname": "Stall", "severity": "page", "instance": "dev-1"}
    store.answers["ALERTS"].append((labels, [5, 6, 40], 1.0))
    rows = [row for seen in quiet.look(over, quiet.pages) for row in seen.rows()]
    assert [(row.subject, row.observed) for row in rows] == [
        ("Stall", "fired (page) on dev-1, 2026-01-01 00:05:00 UTC to 2026-01-01 00:07:00 UTC"),
        ("Stall", "fired (page) on dev-1, 2026-01-01 00:40:00 UTC to 2026-01-01 00:41:00 UTC"),
    ]


@pytest.mark.parametrize(
    ("matchers", "hides"),
    [
        ([("cluster", "development", False, True)], True),
        ([("cluster", "testnet", False, True)], False),
        ([("cluster", "testnet", False, False)], True),
        ([("severity", "warning", False, True)], False),
        ([("severity", "warning|sev1", True, True)], True),
        ([("severity", "critical", False, False)], True),
        ([("severity", "critical|page|sev1", True, False)], False),
        ([("alertname", "Stall", False, True)], True),
        ([("alertname", "Watchdog", False, True)], False),
        ([("team", "(", True, True)], True),
        ([("severity", "(", True, True)], True),
        ([("node", "dev-9", False, True)], False),
        ([("node", "dev-1.example:9100", False, True)], True),
    ],
)
def test_a_silence_counts_when_a_page_could_match(
    over: quiet.Window, matchers: list[tuple[str, str, bool, bool]], hides: bool
) -> None:
    keys = ("name", "value", "isRegex", "isEqual")
    said = {"id": "s1", "status": {"state": "active"}, "startsAt": T0, "endsAt": END}
    said |= {"matchers": [dict(zip(keys, each, strict=True)) for each in matchers]}
    silence = Silence.model_validate({**said, "createdBy": "somebody", "comment": "maintenance"})

    assert quiet._hides(over, silence) is hides
