"""Fleets: everyone is asked, one failure hides nobody, shapes are the chain's."""

from typing import Any

import httpx
import pytest

from runbook_lib import reach, site
from runbook_lib.errors import ParameterError, SourceError
from runbook_lib.sources.http import make_request
from runbook_lib.sources.node import Account, Fleet, Peer, parse_printed
from runbook_lib.sources.tape import LiveTape, Sent

from ..conftest import recorded
from ..messages import saying
from .conftest import World, says

GATES = {"pruning": True, "malachite_consensus": False}
TELEMETRY = {"enabled": True, "endpoint": "https://otlp.example:4317", "sample_interval_secs": 15}
ROLLOUT: dict[str, Any] = {
    "release_channel": "canary",
    "feature_gates": GATES,
    "telemetry": {**TELEMETRY, "last_observed_height": None},
}
CONSENSUS: dict[str, Any] = {
    "height": 7200, "block_hash": "ab", "proposer": "addr2", "round": 0, "epoch": 10,
    "total_power": str(2**128 - 1), "quorum_threshold": "601", "commit_power": "900",
    "quorum_reached": True, "round_latencies_ms": [410, 395], "leader_changes": 12,
    "witness_events": 77, "slashing_events": 0, "failed_votes": 0,
}  # fmt: skip


def cluster(*nodes: site.Node, **rpc: Any) -> site.Cluster:
    return site.Cluster(chain_id="c", nodes=list(nodes), rpc=reach.Rpc(**rpc))


def by_url(name: str) -> site.Node:
    return site.Node(name=name, url=f"http://gateway/{name}")


def as_json(value: Any) -> Any:
    return lambda _: httpx.Response(200, json=value)


@pytest.mark.usefixtures("no_waiting")
def test_one_failing_node_never_hides_the_others(world: World) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/b"):
            raise httpx.ConnectError("refused")
        if request.url.path.startswith("/c"):
            return httpx.Response(200, content=b'{"release_channel":')
        return httpx.Response(200, json=ROLLOUT)

    fleet = Fleet(world.scope(answer), cluster(*map(by_url, "abcd")))
    found = fleet.rollout()
    assert list(found) == ["a", "b", "c", "d"]
    assert (list(found.known), list(found.failed)) == (["a", "d"], ["b", "c"])
    refused, cut = "an answer, got ConnectError: refused", "JSON, got: EOF while parsing a value at"
    assert str(found.failed["b"]) == f"b /status/rollout: expected {refused}"
    assert str(found.failed["c"]) == f"c /status/rollout: expected {cut} line 1 column 19"


def test_only_the_nodes_named_are_asked(world: World) -> None:
    fleet = Fleet(world.scope(as_json(ROLLOUT)), cluster(by_url("a"), by_url("b")))
    assert list(fleet.rollout(["b", "b"])) == ["b"]
    assert list(fleet.rollout([])) == []
    assert [str(request.url) for request in world.asked] == ["http://gateway/b/status/rollout"]


def test_powers_are_decimal_strings_of_any_size(world: World) -> None:
    """u128 does not fit a JSON number."""
    found = Fleet(world.scope(as_json(CONSENSUS)), cluster(by_url("a"))).consensus()["a"]
    assert (found.total_power, found.quorum_threshold) == (2**128 - 1, 601)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("total_power", 900, "total_power: expected a decimal string, got 900"),
        ("total_power", "-1", "total_power: expected a decimal string, got '-1'"),
        ("total_power", "1e3", "total_power: expected a decimal string, got '1e3'"),
        ("height", "7200", "height: expected a valid integer, got '7200'"),
        ("height", -1, "height: expected greater than or equal to 0, got -1"),
        ("quorum_reached", 1, "quorum_reached: expected a valid boolean, got 1"),
    ],
)
def test_a_key_of_another_type_is_refused(world: World, key: str, value: Any, problem: str) -> None:
    fleet = Fleet(world.scope(as_json(CONSENSUS | {key: value})), cluster(by_url("a")))
    assert str(fleet.consensus().failed["a"]) == f"a /status/consensus: {problem}"


def test_peers_may_advertise_nothing(world: World) -> None:
    one, other = {"peer": "p1", "version": "v", "features": GATES}, {"peer": "p2", "version": "v"}
    body = {"local_peer_id": "me", "peer_count": 2, "block_height": 9}
    body |= {"peers": [one | {"latency_ms": 3}, other]}
    found = Fleet(world.scope(as_json(body)), cluster(by_url("a"))).peers()["a"]
    assert found.peers == [Peer(**one), Peer(**other, features={})]


def test_each_validator_is_asked_for_its_own_account(world: World) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        address = request.url.path.rpartition("/")[2]
        known = {"address": address, "balance": 7, "nonce": 0}
        return httpx.Response(200, json=known if address == "rpp1a" else None)

    nodes = [by_url(name).model_copy(update={"validator": v}) for name, v in VALIDATORS.items()]
    found = Fleet(world.scope(answer), cluster(*nodes)).accounts()

    assert found["a"] == Account(address="rpp1a", balance=7)
    assert list(found.failed) == ["b"]
    assert list(found) == ["a", "b"]


# --- by a command -------------------------------------------------------------------------------

VALIDATORS = {"a": "rpp1a", "b": "rpp1b", "c": ""}
PRINTED = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b: c\r\n\r\n{}"


def test_a_printed_answer_is_read_behind_interim_ones() -> None:
    for text in (PRINTED, PRINTED.replace("\r\n", "\n")):
        answer = parse_printed("n", text.encode())
        assert (answer.status_code, answer.content) == (200, b"{}")
        assert dict(answer.headers) == {"content-length": "2"}


HEADERS = [("server", b"\xe9"), ("content-type", b"t/\xe9"), ("content-encoding", b"gzip, gzip")]


def test_no_header_breaks_an_answer_or_lets_it_grow(world: World) -> None:
    """Printed by a command, live, and of a tape that somebody wrote."""
    printed = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in HEADERS)
    answer = parse_printed("n", b"HTTP/1.1 200 OK\r\n" + printed + b"\r\n{}")
    assert (answer.content, answer.headers["content-type"]) == (b"{}", "t/\u00e9")

    live = world.scope(lambda request: httpx.Response(200, headers=HEADERS[:2], content=b"{}"))
    tape = LiveTape(world.folder)
    given = Sent(status=200, headers={"content-encoding": "gzip, gzip", "link": "\u00e9"})
    recorded(tape, ("item", 1, "GET http://n/hostile", 1), b"{}", given)
    for scope, path in ((live, ""), (None, ""), (None, "hostile")):
        [found] = (scope or world.replay()).http([make_request("GET", f"http://n/{path}")])
        assert (found.status_code, found.content) == (200, b"{}")


@pytest.mark.parametrize(
    ("printed", "problem"),
    [
        ("", "expected output of curl --include, got ''"),
        ("{}", "expected output of curl --include, got '{}'"),
        (
            "HTTP/1.1 200 OK\nA: b",
            "expected output of curl --include, got 'HTTP/1.1 200 OK\\nA: b'",
        ),
        ("HTTP/2 200\r\ncontent-length: 9\r\n\r\n{}", "expected 9 bytes, got 2"),
    ],
)
def test_anything_else_printed_is_an_error(printed: str, problem: str) -> None:
    with saying(SourceError, f"n: {problem}"):
        parse_printed("n", printed.encode())


def test_nodes_by_command_and_by_url_answer_together(world: World) -> None:
    telemetry = '{"enabled": true, "sample_interval_secs": 15}'
    body = f'{{"release_channel": "canary", "feature_gates": {{}}, "telemetry": {telemetry}}}'
    printed = {"a": f"200 OK\r\n\r\n{body}", "b": "401 Unauthorized\r\n\r\n{path} of {node}"}
    said_by = {name: says(f"HTTP/1.1 {text}") for name, text in printed.items()}
    said_by["c"] = says("", code=7)
    nodes = [*(site.Node(name=n, rpc_command=each) for n, each in said_by.items()), by_url("d")]
    said = []
    for make in (lambda: world.scope(as_json(ROLLOUT)), world.replay):
        found = Fleet(make(), cluster(*nodes)).rollout()
        said.append({name: str(value) for name, value in (found.known | found.failed).items()})
    assert said[0] == said[1]
    assert said[0]["a"].startswith("release_channel='canary'")
    assert said[0]["b"] == (
        "b /status/rollout: expected status 200, got 401: /status/rollout of b; check the token"
    )
    assert said[0]["c"] == "c /status/rollout: expected exit code 0, got 7: it said nothing"
    assert said[0]["d"].startswith("release_channel='canary'")


def test_an_unknown_placeholder_is_the_users_mistake(world: World) -> None:
    node = site.Node(name="a", rpc_command=says("{port}"))
    said = "site: nodes.a.rpc_command: expected placeholders among {node}, {path}, got {port}"
    with saying(ParameterError, said):
        Fleet(world.scope(), cluster(node)).rollout()
