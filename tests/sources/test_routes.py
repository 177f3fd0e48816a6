"""Alertmanager's route tree, held against its own tool, and its time intervals."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.errors import SourceError
from runbook_lib.sources.routes import Config, Inhibition, Span, matcher, may_match, read_config

NAMES = ("severity", "team", "cluster")
VALUES = ("page", "critical", "a.b", "axb", "", 'q"q')


def config(route: dict[str, Any], **more: Any) -> Config:
    document = {"route": {"receiver": "root", **route}, "receivers": [{"name": "root"}], **more}
    return read_config(yaml.safe_dump(document))


def receivers(found: Config, **labels: str) -> list[str]:
    return [leaf.receiver for leaf in found.leaves(labels)]


@pytest.mark.parametrize(
    ("text", "labels", "holds"),
    [
        ('severity="page"', {"severity": "page"}, True),
        ("severity=page", {"severity": "page"}, True),
        (' severity = "page" ', {"severity": "page"}, True),
        ('severity=~"pa|cri"', {"severity": "page"}, False),
        ('severity=~"pa.*|cri"', {"severity": "page"}, True),
        ('severity!="page"', {}, True),
        ('severity=""', {}, True),
        ('severity!~"page|critical"', {"severity": "critical"}, False),
        ('{severity="page",team=~"a,b|c"}', {"severity": "page", "team": "a,b"}, True),
        (r'team="say \"hi\"\n"', {"team": 'say "hi"\n'}, True),
        (r'team=~"a\.b"', {"team": "axb"}, False),
    ],
)  # fmt: skip
def test_matchers_are_read_as_alertmanager_reads_them(
    text: str, labels: dict[str, str], holds: bool
) -> None:
    """Quotes optional, expressions anchored, a missing label empty, several in braces."""
    found = config({"routes": [{"receiver": "leaf", "matchers": [text]}]})

    assert receivers(found, **labels) == (["leaf"] if holds else ["root"])


def test_receivers_are_inherited_and_continue_goes_on() -> None:
    """A child without its own receiver has its parent's; siblings follow only a continue."""
    found = config({
        "routes": [
            {"match": {"team": "a"}, "receiver": "team", "continue": True,
             "routes": [{"match_re": {"severity": "page|critical"}}]},
            {"match": {"severity": "page"}, "receiver": "pager"},
            {"receiver": "never"},
        ]
    })  # fmt: skip

    assert receivers(found, team="a", severity="page") == ["team", "pager"]
    assert receivers(found, team="a", severity="info") == ["team", "never"]


def random_route(rng: random.Random, depth: int) -> dict[str, Any]:
    node: dict[str, Any] = {"receiver": f"r{rng.randrange(6)}"} if rng.random() < 0.8 else {}
    name, value = rng.choice(NAMES), rng.choice(VALUES)
    quoted = json.dumps(value)
    match rng.randrange(4):
        case 0:
            node["match"] = {name: value}
        case 1:
            node["match_re"] = {name: rng.choice(["page|critical", "a.b", ".*", ""])}
        case _:
            node["matchers"] = [f"{name}{rng.choice(('=', '!=', '=~', '!~'))}{quoted}"]
    if rng.random() < 0.4:
        node["continue"] = True
    if depth:
        node["routes"] = [random_route(rng, depth - 1) for _ in range(rng.randrange(4))]
    return node


@pytest.mark.servers
@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool is not installed")
@pytest.mark.parametrize("seed", range(6))
def test_the_tree_leads_where_amtool_says(seed: int, tmp_path: Path) -> None:
    """Random trees and label sets, against `amtool config routes test`."""
    rng = random.Random(seed)
    routes = [random_route(rng, 2) for _ in range(4)]
    document = {
        "route": {"receiver": "r0", "routes": routes},
        "receivers": [{"name": f"r{number}"} for number in range(6)],
    }
    path = tmp_path / "alertmanager.yml"
    path.write_text(yaml.safe_dump(document))
    found = read_config(path.read_text())
    for _ in range(20):
        labels = {name: rng.choice(VALUES) for name in NAMES if rng.random() < 0.8}
        argv = ["amtool", "config", "routes", "test", f"--config.file={path}"]
        argv += [f"{name}={json.dumps(value)}" for name, value in labels.items()]
        said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
        assert ",".join(receivers(found, **labels)) == said, labels


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("route: [", "line 2: expected YAML, got: did not find expected node content"),
        ("receivers: []", "route: expected a value, got none"),
        ("route: {matchers: severity}\nreceivers: []", "route.matchers: expected a list of matchers, got 'severity'"),
        ("route: {matchers: ['severity']}\nreceivers: []", "route.matchers: expected a matcher, got 'severity'"),
        ("route: {matchers: ['a=\"b']}\nreceivers: []", "route.matchers: expected a matcher with its quotes closed, got 'a=\"b'"),
        ("route: &a {routes: [*a]}\nreceivers: []", "line 1: expected YAML, got: an alias; write it out"),
    ],
)  # fmt: skip
def test_an_unreadable_configuration_is_an_error(text: str, problem: str) -> None:
    """Never an empty tree."""
    with pytest.raises(SourceError) as caught:
        read_config(text)
    assert str(caught.value) == f"alertmanager: config: {problem}"


def test_an_expression_we_cannot_read_is_an_error() -> None:
    """A guess would be no proof; the message says which."""
    found = config({"routes": [{"matchers": [r'severity=~"(?=p)age"']}]})
    problem = r"expected a regular expression we can read, got '\(\?=p\)age': Invalid regular"
    with pytest.raises(SourceError, match=problem):
        found.leaves({"severity": "page"})


@pytest.mark.parametrize("key", ["match_re", "matchers"])
def test_no_expression_of_a_configuration_holds_us(key: str) -> None:
    """Python's own engine would try two to the power of 1000 ways."""
    given = {"severity": "(p+)+x"} if key == "match_re" else ['severity=~"(p+)+x"']
    found = config({"routes": [{"receiver": "leaf", key: given}]})

    assert receivers(found, severity="p" * 1000) == ["root"]


def test_no_text_of_a_configuration_holds_us() -> None:
    """Nor do blanks, which could be the name's, the operator's or the value's."""
    blanks = " " * 20_000
    found = config({"routes": [{"receiver": "leaf", "matchers": [f"a{blanks}={blanks}b{blanks}"]}]})

    assert receivers(found, a="b") == ["leaf"]
    with pytest.raises(SourceError, match="expected a matcher, got"):
        config({"routes": [{"matchers": [f"a{blanks}b"]}]})


def test_a_receiver_notifies_by_what_is_not_empty() -> None:
    """A receiver without any list of notifications keeps quiet, whatever its name."""
    document = {
        "route": {"receiver": "pager"},
        "receivers": [
            {"name": "pager", "webhook_configs": [{"url": "http://x"}], "email_configs": []},
            {"name": "null"},
        ],
    }
    found = read_config(yaml.safe_dump(document))

    assert (found.notifiers("pager"), found.notifiers("null")) == (["webhook"], [])
    assert found.notifiers("nobody") == []


SATURDAY = datetime(2026, 1, 31, 17, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("span", "holds"),
    [
        ({}, True),
        ({"weekdays": ["saturday", "sunday"]}, True),
        ({"weekdays": ["monday:friday"]}, False),
        ({"times": [{"start_time": "17:30", "end_time": "17:31"}]}, True),
        ({"times": [{"start_time": "09:00", "end_time": "17:30"}]}, False),
        ({"times": [{"start_time": 1050, "end_time": "24:00"}]}, True),
        ({"days_of_month": ["-1"]}, True),
        ({"days_of_month": ["1:-2"]}, False),
        ({"months": ["january:march"], "years": [2026]}, True),
        ({"months": ["2:12"]}, False),
        ({"years": ["2020:2025"]}, False),
        ({"location": "Asia/Tokyo", "weekdays": ["sunday"]}, True),
        ({"location": "Asia/Tokyo", "days_of_month": ["1"], "months": ["february"]}, True),
    ],
)
def test_time_intervals_hold_where_they_say(span: dict[str, Any], holds: bool) -> None:
    """Ends of a day are outside, all other ends inside; days count from the end; zones count."""
    assert Span.model_validate(span).holds(SATURDAY) is holds


def test_a_route_is_muted_by_an_interval_and_outside_its_active_ones() -> None:
    """The route's own intervals, old and new sections; an unknown name is an error."""
    weekend = {"name": "weekend", "time_intervals": [{"weekdays": ["saturday"]}]}
    night = {
        "name": "night",
        "time_intervals": [{"times": [{"start_time": "00:00", "end_time": "06:00"}]}],
    }
    found = config(
        {"routes": [{"matchers": ["a=mute"], "mute_time_intervals": ["night", "weekend"]},
                    {"matchers": ["a=active"], "active_time_intervals": ["night"]},
                    {"matchers": ["a=wrong"], "mute_time_intervals": ["gone"]}]},
        time_intervals=[weekend], mute_time_intervals=[night],
    )  # fmt: skip

    def muted(name: str) -> str:
        return found.muted(found.leaves({"a": name})[0], SATURDAY)

    assert (muted("mute"), muted("active"), muted("")) == ("weekend", "outside night", "")
    with pytest.raises(SourceError, match="expected the time interval 'gone', got none"):
        muted("wrong")


def test_an_unreadable_interval_is_an_error() -> None:
    """A time that is none, a zone nobody knows."""
    for span in ({"times": [{"start_time": "9", "end_time": "17:00"}]}, {"location": "Nowhere/At"}):
        broken = {"name": "x", "time_intervals": [span]}
        found = config({"routes": [{"mute_time_intervals": ["x"]}]}, time_intervals=[broken])
        with pytest.raises(SourceError, match="time interval 'x': expected a readable one, got: "):
            found.muted(found.leaves({})[0], SATURDAY)


def test_an_alert_of_which_little_is_known_may_match() -> None:
    """True and False are proven; None is neither."""
    page = matcher("severity", "page")
    node = matcher("instance", "a|b", is_regex=True)

    assert may_match([page], {"severity": "page"}) is True
    assert may_match([page, node], {"severity": "page"}) is None
    assert may_match([page, node], {"severity": "warning"}) is False
    assert (str(page), str(node)) == ('severity="page"', 'instance=~"a|b"')


def test_an_inhibition_touches_unless_a_label_of_ours_must_be_equal() -> None:
    """An alert whose name nothing else has cannot be equal to another's."""
    rule = {"source_match": {"severity": "critical"}, "target_matchers": ['severity="warning"']}
    plain = Inhibition.model_validate({**rule, "equal": ["cluster"]})
    named = Inhibition.model_validate({**rule, "equal": ["cluster", "alertname"]})

    assert plain.touches({"severity": "critical"}, ["alertname"]) is True
    assert plain.touches({"severity": "warning"}, ["alertname"]) is True
    assert plain.touches({"severity": "page"}, ["alertname"]) is False
    assert named.touches({"severity": "critical"}, ["alertname"]) is False


@given(st.text(max_size=60))
def test_no_configuration_ends_the_reader(text: str) -> None:
    """A tree or a named problem, whatever the text."""
    try:
        read_config(text)
    except SourceError as error:
        assert error.source == "alertmanager: config"
