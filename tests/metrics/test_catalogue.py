"""The catalogue: strict reading, the shipped file, and which candidate is used."""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import promql_parser
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib import playbook
from runbook_lib.errors import ParameterError, SourceError
from runbook_lib.metrics.catalogue import (
    LOAD,
    check,
    inject,
    narrow,
    parse_catalogue,
    resolve,
    selectors,
)
from runbook_lib.sources.prometheus import Prometheus, Sample, Vector
from runbook_lib.strict import PROJECT, Range

from ..messages import saying
from .samples import METRIC

AT = datetime(2026, 1, 1, tzinfo=UTC)


ONE_LOAD = "expected one aggregate metric of topic load at most, got dict"


def catalogue(*metrics: dict[str, Any]) -> bytes:
    return yaml.safe_dump({"metrics": [deepcopy(metric) for metric in metrics]}).encode()


def test_the_shipped_catalogue_covers_every_topic() -> None:
    path = PROJECT / "params" / "metrics.yaml"
    found = parse_catalogue(path.read_bytes(), "params/metrics.yaml")
    topics = {metric.topic for metric in found.metrics}
    named = """
        consensus_latency block_production missed_slots finality_lag proof_latency
        proof_queue_depth vrf_participation witness_gossip validator_gossip gossip_drops
        reward_distribution timetoke_replay network_churn telemetry_freshness
    """
    assert topics == {*named.split(), LOAD}
    assert set(playbook.BASELINE_TOPICS) <= topics
    for metric in found.metrics:
        for query in narrow(metric, {"cluster": "dev"}):
            assert 'cluster="dev"' in query


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ([{}, {}], "expected every name once, got latency twice"),
        ([{"topic": LOAD}, {"topic": LOAD, "name": "other"}], ONE_LOAD),
        ([{"topic": LOAD, "per": "validator", "label": "validator"}], ONE_LOAD),
        ({"queries": []}, "queries: expected List should have at least 1 item after validation, not 0, got list"),
        ({"queries": ["sum("]}, "queries.0: expected PromQL, got 'sum(': unclosed left parenthesis"),
        ({"queries": ["up", "up"]}, "queries: expected every candidate once"),
        ({"direction": "down"}, "direction: expected 'lower', 'higher' or 'either', got 'down'"),
        ({"tolerance": {}}, "tolerance: expected either relative or absolute, got dict"),
        ({"tolerance": {"relative": 0.1, "absolute": 1.0}}, "tolerance: expected either relative or absolute, got dict"),
        ({"tolerance": {"relative": 0.0}}, "tolerance.relative: expected greater than 0, got 0.0"),
        ({"limit": {"min": 1.0}}, "limit.min: expected none, as lower is better"),
        ({"limit": {}}, "limit: expected min, max or both, got dict"),
        ({"bounds": {"min": 2.0, "max": 1.0}}, "bounds: expected min below max, got dict"),
        ({"bounds": {"max": float("nan")}}, "bounds.max: expected a finite number, got nan"),
        ({"per": "validator"}, "label: expected the validator's label with per: validator only"),
        ({"label": "validator"}, "label: expected the validator's label with per: validator only"),
        ({"colour": "red"}, "colour: expected no such key; remove it or correct its spelling"),
        ({"name": "Latency"}, "name: expected String should match pattern '^[a-z][a-z0-9_]*$', got 'Latency'"),
    ],
)  # fmt: skip
def test_a_wrong_metric_is_the_users_mistake(changes: Any, problem: str) -> None:
    given = changes if isinstance(changes, list) else [changes]
    path = "" if isinstance(changes, list) else "metrics.0."
    with saying(ParameterError, f"m.yaml: {path}{problem}"):
        parse_catalogue(catalogue(*(METRIC | each for each in given)), "m.yaml")


@pytest.mark.parametrize(
    ("value", "held"),
    [(0.0, True), (1.0, True), (1.1, False), (-0.1, False), (float("nan"), False)],
)
def test_bounds_are_inclusive_and_nan_is_in_none(value: float, held: bool) -> None:
    assert Range(min=0.0, max=1.0).holds(value) is held
    assert Range(min=1.0).holds(float("inf")) and not Range(max=1.0).holds(float("nan"))


def test_a_topic_without_metric_is_the_users_mistake() -> None:
    found = parse_catalogue(catalogue(METRIC), "m.yaml")
    assert [metric.name for metric in found.of_topic("consensus_latency")] == ["latency"]
    with saying(ParameterError, "metrics: expected a metric of topic weather, got none"):
        found.of_topic("weather")


# --- which candidate ----------------------------------------------------------------------------


@dataclass
class Store(Prometheus):
    """Answers queries from a table: query text to age of the newest samples in seconds."""

    ages: dict[str, list[float]]
    asked: list[str] = field(default_factory=list)

    def instant(self, expr: str, at: datetime) -> Vector:
        self.asked.append(expr)
        return tuple(Sample({}, 1.0, at) for _ in self.ages.get(expr, []))

    def newest(self, selectors: Iterable[str], at: datetime) -> dict[str, Vector | SourceError]:
        found = {
            each: [at.timestamp() - age for age in self.ages.get(each, [])] for each in selectors
        }
        return {
            each: tuple(Sample({}, stamp, at) for stamp in stamps) for each, stamps in found.items()
        }


NEW, OLD = 'avg(new{c="x"})', 'avg(old{c="x"}) / avg(count{c="x"})'
NEW_SAMPLES, OLD_SAMPLES = 'new{c="x"}', 'old{c="x"}'
COUNT_SAMPLES = 'count{c="x"}'


def pick(store: Store) -> str:
    [metric] = parse_catalogue(catalogue(METRIC), "m").metrics
    return resolve(store, metric, {"c": "x"}, AT)


def test_the_first_candidate_with_fresh_data_is_used() -> None:
    assert pick(Store({NEW: [0], NEW_SAMPLES: [10, 400]})) == NEW
    assert pick(Store({OLD: [0], OLD_SAMPLES: [10], COUNT_SAMPLES: [20]})) == OLD


@pytest.mark.parametrize(
    ("store", "new", "old"),
    [
        (Store({}), "no series", "no series"),
        (Store({NEW: [0], NEW_SAMPLES: [200]}), "newest sample is 200 s old, at most 180 s", "no series"),
        (Store({OLD: [0], OLD_SAMPLES: [10]}), "no series", 'count{c="x"} has no samples'),
        (Store({OLD: [0], OLD_SAMPLES: [10], COUNT_SAMPLES: [200]}), "no series",
         "newest sample is 200 s old, at most 180 s"),
    ],
    ids=["nothing", "stale", "half", "staler"],
)  # fmt: skip
def test_no_candidate_is_an_error_that_says_why_of_each(store: Store, new: str, old: str) -> None:
    """A bare query looks five minutes back in silence: that is no data."""
    said = f"prometheus: latency: no candidate has data: {NEW}: {new}; {OLD}: {old}"
    with saying(SourceError, said):
        pick(store)


def test_a_contradicting_site_matcher_is_the_users_mistake() -> None:
    [metric] = parse_catalogue(catalogue(METRIC | {"queries": ['up{c="y"}']}), "m").metrics
    with saying(ParameterError, 'metrics: latency: expected c="x", got the selector up{c="y"}'):
        narrow(metric, {"c": "x"})


# --- PromQL as a tree: every selector narrowed, nothing else touched ---


MATCHERS = {"cluster": "dev"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("up", 'up{cluster="dev"}'),
        ('up{job="n"}', 'up{job="n",cluster="dev"}'),
        ('up{cluster="dev"}', 'up{cluster="dev"}'),
        ("rate(x[5m] offset 1m)", 'rate(x{cluster="dev"}[5m] offset 1m)'),
        ("a / on (i) group_left b", 'a{cluster="dev"} / on (i) group_left () b{cluster="dev"}'),
        ("max_over_time(sum(x)[1h:5m])", 'max_over_time(sum(x{cluster="dev"})[1h:5m])'),
        ("-(a + b) * 2", '-(a{cluster="dev"} + b{cluster="dev"}) * 2'),
        ("topk(scalar(k), x)", 'topk(scalar(k{cluster="dev"}), x{cluster="dev"})'),
        ("time() - timestamp(up)", 'time() - timestamp(up{cluster="dev"})'),
        ('{__name__=~"a|b"}', '{__name__=~"a|b",cluster="dev"}'),
        ("x @ 12 offset -5m", 'x{cluster="dev"} @ 12.000 offset -5m'),
    ],
)
def test_matchers_go_into_every_selector(query: str, expected: str) -> None:
    assert inject(query, MATCHERS) == expected


def test_a_dashboards_own_matchers_may_stay_beside_ours() -> None:
    query = 'sum(up{cluster=~"dev|test"}) + up{cluster!="x"}'

    assert inject(query, MATCHERS, beside=True) == (
        'sum(up{cluster=~"dev|test",cluster="dev"}) + up{cluster!="x",cluster="dev"}'
    )
    with pytest.raises(ValueError, match='expected cluster="dev", got the selector'):
        inject('up{cluster="test"}', MATCHERS, beside=True)


NAMES = st.sampled_from(["a", "b_total", "c:d"])
SELECTORS = st.builds(
    lambda name, label, value: name + (f'{{{label}="{value}"}}' if label else ""),
    NAMES,
    st.sampled_from(["", "job", "instance"]),
    st.text("ab.-", max_size=3),
)
EXPRESSIONS = st.recursive(
    SELECTORS,
    lambda inner: st.one_of(
        st.builds("({} + {})".format, inner, inner),
        st.builds("({} / on (job) {})".format, SELECTORS, SELECTORS),
        st.builds("sum by (job) ({})".format, inner),
        st.builds("quantile(0.95, {})".format, inner),
        st.builds("clamp_min({}, 0)".format, inner),
        st.builds("rate({}[3m])".format, SELECTORS),
        st.builds("max_over_time({}[1h:1m])".format, inner),
    ),
    max_leaves=6,
)


@given(EXPRESSIONS)
def test_the_narrowed_tree_is_the_old_one_with_matchers(query: str) -> None:
    narrowed = inject(query, MATCHERS)
    again = inject(narrowed, MATCHERS)
    assert promql_parser.parse(again).prettify() == promql_parser.parse(narrowed).prettify()
    assert narrowed.count('cluster="dev"') == narrowed.count("{")
    assert all('cluster="dev"' in selector for selector in selectors(narrowed))


@pytest.mark.parametrize(
    ("query", "matchers", "problem"),
    [
        ('up{cluster="test"}', MATCHERS, 'expected cluster="dev", got the selector up{cluster="test"}'),
        ('a + up{cluster!="dev"}', MATCHERS, 'expected cluster="dev", got the selector up{cluster!="dev"}'),
        ("up", {"cluster": 'd"ev'}, "expected a plain value of cluster, got 'd\"ev'"),
        ("up[", MATCHERS, "expected PromQL, got 'up[': unexpected end of input inside brackets"),
        ("rate(x[1500ms])", MATCHERS, "expected PromQL without escapes and milliseconds, got 'rate(x[1500ms])'"),
        *((query, {}, f"expected a query with a selector, got '{query}'") for query in ("1 + 1", "vector(1)", "time()")),
        # Its recursion would end the process.
        ("1+" * 30_000 + "1", {}, "expected at most 8000 characters of PromQL, got 60001"),
    ],
    ids=range(9),
)  # fmt: skip
def test_what_cannot_be_narrowed_or_kept_to_a_cluster_is_refused(
    query: str, matchers: dict[str, str], problem: str
) -> None:
    with saying(ValueError, problem):
        inject(query, matchers) if matchers else check(query)


def test_freshness_is_asked_of_each_plain_selector_once() -> None:
    query = 'sum(rate(a{b="c"}[5m] offset 1h)) / sum(a{b="c"}) + (d @ 12)'
    assert selectors(query) == ['a{b="c"}', "d{}"]
