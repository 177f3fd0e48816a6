"""preflight.observability: dashboards."""

from __future__ import annotations

from typing import Any

import pytest

from runbook_lib.outcomes import Outcome
from runbook_lib.site import Dashboards
from runbook_lib.strict import Range

from .observing import FAIL, INCONCLUSIVE, TOPICS, Look


@pytest.mark.parametrize(
    ("values", "outcome", "shown"),
    [
        (["80"], FAIL, "80 at i=0"),
        (["1", "80", "90"], FAIL, "80 at i=1; 90 at i=2"),
        (["60", "1"], INCONCLUSIVE, "60 at i=0"),
        (["60", "80"], FAIL, "80 at i=1"),
        (["0"], FAIL, "0 at i=0"),
    ],
)
def test_a_red_panel_is_named_with_its_values(
    look: Look, values: list[str], outcome: Outcome, shown: str
) -> None:
    look.world.steps("green", None, "dark-orange", 50, "red", 80)
    down = {"type": "value", "options": {"0": {"text": "DOWN", "color": "red"}}}
    look.world.panel["fieldConfig"]["defaults"]["mappings"] = [down]
    look.world.values['x{cluster="dev"}'] = values
    assert look.bad() == [(outcome, "D: P", "query ?", shown)]


CURE = (
    "expected absolute thresholds, got percentage; state a limit for this panel: dashboards.limits"
)


@pytest.mark.parametrize(
    ("limit", "rows"),
    [
        (None, [(INCONCLUSIVE, "D: P", "panel", CURE)]),
        ({"max": 1}, []),
        ({"min": 0.5, "max": 2}, []),
        ({"max": 0.5}, [(FAIL, "D: P", "query ?", "1 at i=0")]),
        ({"min": 2}, [(FAIL, "D: P", "query ?", "1 at i=0")]),
    ],
)
def test_a_limit_of_the_site_takes_the_place_of_colours(
    look: Look, limit: dict[str, float] | None, rows: list[Any]
) -> None:
    defaults = look.world.panel["fieldConfig"]["defaults"]["thresholds"]
    defaults["mode"] = "percentage"
    limits = {} if limit is None else {"D: P": Range.model_validate(limit)}
    found = look.bad(site=look.site(limits=limits))
    assert [row for row in found if row[1] not in TOPICS] == rows
    if limit is not None:
        assert found == rows
        defaults["mode"] = "absolute"
        assert look.bad(site=look.site(limits=limits)) == rows


def test_what_of_the_sites_dashboards_is_not_there_is_named(look: Look) -> None:
    found = look.bad(site=look.site(limits={"D: Q": Range(max=1)}))
    row = (INCONCLUSIVE, "D: Q", "limit of the site", "no such panel; see dashboards.limits")
    assert found == [row]

    boards = Dashboards(topics={"proof_latency": ["uid"]})
    found = look.bad(site=look.site().model_copy(update={"dashboards": boards}))
    problem = "expected dashboards.grafana for a uid, got none; set it"
    assert (INCONCLUSIVE, "uid", "dashboard", problem) in found
    unmapped = [row for row in found if row[2] == "dashboards"]
    assert unmapped == [
        (INCONCLUSIVE, t, "dashboards", f"none; set dashboards.topics.{t}")
        for t in TOPICS
        if t != "proof_latency"
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"value": "NaN"}, "no number: nan at i=0"),
        ({"age": 200.0}, "stale: 200 s old, at most 180 s"),
        ({"age": 600.0}, 'no data: nothing emits x{cluster="dev"} now'),
        # A join that finds no partner has fresh sources and says nothing.
        ({"values": {'x{cluster="dev"}': []}}, "no data: the query is empty"),
    ],
)
def test_what_is_no_fresh_number_is_inconclusive(
    look: Look, changes: dict[str, Any], problem: str
) -> None:
    vars(look.world).update(changes)
    assert look.bad() == [(INCONCLUSIVE, "D: P", "query ?", problem)]


@pytest.mark.parametrize("limits", [{}, {"D: P": Range(max=70)}])
def test_a_series_that_ended_is_left_out_and_counted(look: Look, limits: dict[str, Range]) -> None:
    """A quotient of histograms whose labels change with every block."""
    look.world.values['x{cluster="dev"}'] = ["NaN", "60", "NaN"]
    cure = "2 more without a number (short-lived by i, take the sum without it)"
    [row] = [row for row in look(site=look.site(limits=limits)).rows if row.what == "query ?"]
    assert (row.outcome, row.observed) == (Outcome.PASS, f"1 series, 5 s old; {cure}")
    look.world.values['x{cluster="dev"}'][1] = "90"
    assert look.bad() == [(FAIL, "D: P", "query ?", f"90 at i=1; {cure}")]


def test_one_panel_is_one_row_whatever_its_query(look: Look) -> None:
    site = look.site()
    boards = site.dashboards.model_copy(update={"variables": {"cluster": "dev"}})
    look.world.panel["targets"] = [
        {"refId": "A", "expr": 'max_over_time(x{cluster=~"${cluster:regex}"}[5m:])'},
        {"refId": "B", "expr": 'sum(rate(x{cluster="$cluster"}[$__rate_interval])) or vector(0)'},
        {"refId": "C", "expr": "x{"},
    ]
    site = look.site().model_copy(update={"dashboards": boards})
    [(outcome, subject, what, got)] = look.bad(site=site)
    assert (outcome, subject, what) == (INCONCLUSIVE, "D: P", "query C")
    assert str(got).startswith("expected PromQL, got 'x{'")


def test_a_constant_proves_nothing(look: Look) -> None:
    look.world.panel["targets"] = [{"refId": "A", "expr": "vector(1)"}]
    problem = "expected a query with a selector, got 'vector(1)'"
    assert look.bad() == [(INCONCLUSIVE, "D: P", "query A", problem)]


def test_panels_without_thresholds_get_the_catalogues_limit(look: Look) -> None:
    look.world.panel["fieldConfig"] = {}
    topics = [
        (INCONCLUSIVE, t, "panels that can be red", "0 of 1; give one thresholds") for t in TOPICS
    ]
    assert look.bad() == topics
    expr = "sum(rate(rpp_stark_verify_duration_seconds_bucket[5m]))"
    look.world.panel["targets"] = [{"expr": expr}]
    look.world.value = "999"
    assert look.bad() == []
    look.world.value = "1001"
    what = "Time to verify a proof (the catalogue's limit)"
    assert look.bad() == [(FAIL, "D: P", what, "1001 at i=0")]
