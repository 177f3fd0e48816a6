"""PromQL as a tree: every selector narrowed, nothing else touched."""

from __future__ import annotations

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.metrics import catalogue

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
    """Deep inside calls, subqueries and binary operators, and only there."""
    assert catalogue.inject(query, MATCHERS) == expected


def test_a_dashboards_own_matchers_may_stay_beside_ours() -> None:
    """What was narrowed by a variable is narrowed to the cluster as well, never to another."""
    query = 'sum(up{cluster=~"dev|test"}) + up{cluster!="x"}'

    assert catalogue.inject(query, MATCHERS, beside=True) == (
        'sum(up{cluster=~"dev|test",cluster="dev"}) + up{cluster!="x",cluster="dev"}'
    )
    with pytest.raises(ValueError, match='expected cluster="dev", got the selector'):
        catalogue.inject('up{cluster="test"}', MATCHERS, beside=True)


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
    """Whatever the expression: as many selectors, each narrowed, still PromQL."""
    narrowed = catalogue.inject(query, MATCHERS)
    again = catalogue.inject(narrowed, MATCHERS)
    assert promql_parser.parse(again).prettify() == promql_parser.parse(narrowed).prettify()
    assert narrowed.count('cluster="dev"') == narrowed.count("{")
    assert all('cluster="dev"' in selector for selector in catalogue.selectors(narrowed))


@pytest.mark.parametrize(
    ("query", "matchers", "problem"),
    [
        ('up{cluster="test"}', MATCHERS, 'expected cluster="dev", got the selector up{cluster="test"}'),
        ('a + up{cluster!="dev"}', MATCHERS, 'expected cluster="dev", got the selector up{cluster!="dev"}'),
        ("up", {"cluster": 'd"ev'}, "expected a plain value of cluster, got 'd\"ev'"),
        ("up[", MATCHERS, "expected PromQL, got 'up[': unexpected end of input inside brackets"),
        ("rate(x[1500ms])", MATCHERS, "expected PromQL without escapes and milliseconds, got 'rate(x[1500ms])'"),
    ],
)  # fmt: skip
def test_what_cannot_be_narrowed_is_refused(
    query: str, matchers: dict[str, str], problem: str
) -> None:
    """Rather than asked of all clusters at once, or of another one."""
    with pytest.raises(ValueError) as caught:
        catalogue.inject(query, matchers)
    assert str(caught.value) == problem


def test_plain_selectors_of_a_query() -> None:
    """Without range, offset and instant, each once: what freshness is asked of."""
    query = 'sum(rate(a{b="c"}[5m] offset 1h)) / sum(a{b="c"}) + (d @ 12)'
    assert catalogue.selectors(query) == ['a{b="c"}', "d{}"]


@pytest.mark.parametrize("query", ["1 + 1", "vector(1)", "time()"])
def test_a_query_without_selectors_is_refused(query: str) -> None:
    """No matcher could keep it to one cluster."""
    with pytest.raises(ValueError) as caught:
        catalogue.check(query)
    assert str(caught.value) == f"expected a query with a selector, got '{query}'"


def test_a_query_too_long_for_the_parser_is_refused() -> None:
    """Its recursion would end the process."""
    with pytest.raises(
        ValueError, match=r"^expected at most 8000 characters of PromQL, got 60001$"
    ):
        catalogue.check("1+" * 30_000 + "1")
