"""Alertmanager's route tree, held against its own tool; expressions, silences and alerts."""

import json
import random
import shutil
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib import reach
from runbook_lib.errors import SourceError
from runbook_lib.sources.alertmanager import (
    LONGEST,
    Alertmanager,
    Config,
    matched,
    matches,
    read_config,
)
from runbook_lib.sources.tape import read_entries

from ..messages import saying
from .conftest import World
from .test_prometheus import AHEAD, AT, ENDPOINT, MINUTE, ahead

__all__ = ["ahead"]
NAMES = ("severity", "team", "cluster")
VALUES = ("page", "critical", "a.b", "axb", "", 'q"q')


def config(route: dict[str, Any], **more: Any) -> Config:
    document = {"route": {"receiver": "root", **route}, "receivers": [{"name": "root"}], **more}
    return read_config(yaml.safe_dump(document))


def receivers(found: Config, labels: Mapping[str, str], *, complete: bool = True) -> list[str]:
    known = {name: [value] for name, value in labels.items()}
    leaves = found.route.leaves(known, complete=complete)
    return [leaf.receiver + ("" if leaf.sure else "?") for leaf in leaves]


@pytest.mark.parametrize(
    ("text", "labels", "holds"),
    [
        ('severity="page"', {"severity": "page"}, True),
        (' severity="page" ', {"severity": "page"}, True),
        ('severity=~"pa|cri"', {"severity": "page"}, False),
        ('severity=~"pa.*|cri"', {"severity": "page"}, True),
        ('severity!="page"', {}, True),
        ('severity=""', {}, True),
        ('severity!~"page|critical"', {"severity": "critical"}, False),
        (r'team="say \"hi\"\n"', {"team": 'say "hi"\n'}, True),
        (r'team=~"a\.b"', {"team": "axb"}, False),
        ('severity=~"(p+)+x"', {"severity": "p" * 1000}, False),
    ],
)  # fmt: skip
def test_matchers_are_read_as_alertmanager_prints_them(
    text: str, labels: dict[str, str], holds: bool
) -> None:
    found = config({"routes": [{"receiver": "leaf", "matchers": [text]}]})
    assert receivers(found, labels) == (["leaf"] if holds else ["root"])


TREE = {
    "routes": [
        {"match": {"team": "a"}, "receiver": "team", "continue": True,
         "routes": [{"match_re": {"severity": "page|critical"}}]},
        {"match": {"severity": "page"}, "receiver": "pager"},
        {"receiver": "last"},
    ]
}  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "complete", "expected"),
    [
        ({"team": "a", "severity": "page"}, True, ["team", "pager"]),
        ({"team": "a", "severity": "info"}, True, ["team", "last"]),
        ({"severity": "page"}, True, ["pager"]),
        ({"severity": "page"}, False, ["team?", "pager"]),
        ({"team": "a"}, False, ["team?", "team?", "pager?", "last?"]),
    ],
)
def test_the_tree_is_walked_by_what_is_known(
    labels: dict[str, str], complete: bool, expected: list[str]
) -> None:
    assert receivers(config(TREE), labels, complete=complete) == expected


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
    rng = random.Random(seed)
    routes = [random_route(rng, 2) for _ in range(4)]
    document = {
        "route": {"receiver": "r0", "routes": routes},
        "receivers": [{"name": f"r{number}"} for number in range(6)],
    }
    path = tmp_path / "alertmanager.yml"
    path.write_text(yaml.safe_dump(document))
    subprocess.run(["amtool", "check-config", str(path)], check=True, capture_output=True)
    found = read_config(path.read_text())
    for _ in range(12):
        labels = {name: rng.choice(VALUES) for name in NAMES if rng.random() < 0.8}
        argv = ["amtool", "config", "routes", "test", f"--config.file={path}"]
        argv += [f"{name}={json.dumps(value)}" for name, value in labels.items()]
        said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
        assert ",".join(receivers(found, labels)) == said, labels


@given(
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=3),
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(["", "x", "y"])),
    st.data(),
)
def test_what_is_said_of_a_part_of_the_labels_holds_of_all(
    names: list[str], labels: dict[str, str], data: st.DataObject
) -> None:
    texts = [f'{name}{data.draw(st.sampled_from(["=", "!=", "=~"]))}"x"' for name in names]
    route = config({"routes": [{"matchers": texts}]}).route.routes[0]
    kept = {name: value for name, value in labels.items() if data.draw(st.booleans())}
    known = matched(route.matchers, {name: [value] for name, value in kept.items()})
    full = {name: [value] for name, value in labels.items()}
    assert known in (None, matched(route.matchers, full, complete=True))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("route: [", "line 2: expected YAML, got: did not find expected node content"),
        ("receivers: []", "route: expected a value, got none"),
        ("route: {matchers: 7}\nreceivers: []", "route: expected matchers as a list, got 7"),
        ("route: {matchers: ['a=b']}\nreceivers: []", "route: expected a matcher such as a=\"b\", got 'a=b'"),
        ("route: &a {routes: [*a]}\nreceivers: []", "line 1: expected YAML, got: an alias; write it out"),
    ],
)  # fmt: skip
def test_an_unreadable_configuration_is_an_error(text: str, problem: str) -> None:
    with saying(SourceError, f"alertmanager: config: {problem}"):
        read_config(text)


def test_a_receiver_notifies_by_what_is_not_empty() -> None:
    pager = {"name": "pager", "webhook_configs": [{"url": "http://x"}], "email_configs": []}
    found = config({}, receivers=[pager, {"name": "null"}])
    assert [found.notifiers(each) for each in ("pager", "null", "nobody")] == [["webhook"], [], []]


def test_alerts_silences_and_configuration(world: World, ahead: reach.Clock) -> None:
    times = {"startsAt": "2026-01-01T12:00:00Z", "endsAt": "2026-01-01T13:00:00Z"}
    alert = {
        "labels": {"alertname": "A"}, "annotations": {}, "fingerprint": "f",
        "status": {"state": "suppressed", "silencedBy": ["s1"], "inhibitedBy": []},
        "receivers": [{"name": "pager"}], "updatedAt": "2026-01-01T12:30:00Z", **times,
    }  # fmt: skip
    silence = {
        "id": "s1", "status": {"state": "active"}, "createdBy": "ada", "comment": "works",
        "matchers": [{"name": "alertname", "value": "A", "isRegex": False}], **times,
    }  # fmt: skip
    text = "{route: {receiver: a}, receivers: [{name: a}]}"
    bodies = {"status": {"config": {"original": text}}, "alerts": [alert], "silences": [silence]}

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=bodies[request.url.path.rsplit("/", 1)[1]])

    alertmanager = Alertmanager(world.scope(answer, clock=ahead), ENDPOINT)
    [held], [silenced] = alertmanager.alerts(), alertmanager.silences()
    assert (held.status.silenced_by, held.receivers[0].name) == (["s1"], "pager")
    noon, half = datetime(2026, 1, 1, 12, tzinfo=UTC) + AHEAD, 30 * MINUTE
    assert (silenced.starts_at, silenced.ends_at) == (noon, noon + 2 * half)
    assert held.updated_at == noon + half
    assert str(silenced.matchers[0]) == 'alertname="A"'
    assert alertmanager.config().route.receiver == "a"


def test_a_test_alert_is_a_notification_in_wall_time_and_never_retried(
    world: World, ahead: reach.Clock
) -> None:
    scope = world.scope(lambda _: httpx.Response(200), clock=ahead)
    now = scope.now()
    Alertmanager(scope, ENDPOINT).post({"alertname": "T"}, {"summary": "s"}, now + MINUTE)
    [posted] = json.loads(world.asked[0].content)
    assert (posted["labels"], posted["annotations"]) == ({"alertname": "T"}, {"summary": "s"})
    times = [datetime.fromisoformat(posted[key]) for key in ("startsAt", "endsAt")]
    assert times == [now - AHEAD, now - AHEAD + MINUTE]
    assert read_entries(world.folder)[-1].purpose == "notify"
    refused = world.scope(lambda _: httpx.Response(400, json="at least one label pair required"))
    with pytest.raises(SourceError, match="alertmanager: post: expected status 200, got 400"):
        Alertmanager(refused, ENDPOINT).post({}, {}, AT)
    assert len(world.asked) == 2


# --- expressions of others ------------------------------------------------------------------------

CATASTROPHIC = ("(a+)+b", "(a|a)*b", "(a|aa)+b", "(.*)*b", "((a*)*)*b", "a?" * 60 + "a" * 60 + "b")


@pytest.mark.parametrize(
    ("pattern", "text", "same"),
    [
        ("page", "page", True), ("page", "pages", False), ("pa|cri", "page", False),
        ("pa.*|cri", "page", True), (r"a\.b", "axb", False), ("a.b", "a\nb", True),
        ("a", "a\n", False), ("(?i)PAGE", "page", True), (r"\pL+", "é", True), ("", "", True),
        ("[[:alpha:]]+", "page", True),
    ],
)  # fmt: skip
def test_an_expression_must_match_the_whole_text(pattern: str, text: str, same: bool) -> None:
    assert matches(pattern, text) is same


@pytest.mark.parametrize("pattern", CATASTROPHIC, ids=range(len(CATASTROPHIC)))
def test_no_expression_holds_us(pattern: str) -> None:
    """Each of these takes python's own engine longer than a rollout."""
    before = time.process_time()

    assert matches(pattern, "a" * LONGEST) is False
    assert time.process_time() - before < 5


@pytest.mark.parametrize(
    ("pattern", "text", "problem"),
    [
        ("(", "a", "Invalid regular expression: missing )"),
        ("(?=a)a", "a", "Invalid regular expression: invalid perl operator"),
        (r"(a)\1", "aa", "Invalid regular expression: invalid escape sequence"),
        ("(a{1000}){1000}", "a", "Invalid regular expression: invalid repetition size"),
        ("a" * (LONGEST + 1), "a", f"an expression of {LONGEST + 1} characters, at most {LONGEST}"),
        ("a", "a" * (LONGEST + 1), f"a text of {LONGEST + 1} characters, at most {LONGEST}"),
        ("\ud800", "a", "surrogates not allowed"),
    ],
    ids=["open", "look-ahead", "back reference", "large", "long", "long text", "no UTF-8"],
)
def test_what_cannot_be_judged_is_an_error(pattern: str, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem.replace("(", r"\(").replace(")", r"\)")):
        matches(pattern, text)


@given(st.text(max_size=50), st.text(max_size=50))
def test_any_text_is_matched_or_refused(pattern: str, text: str) -> None:
    with suppress(ValueError):
        assert matches(pattern, text) in (True, False)
