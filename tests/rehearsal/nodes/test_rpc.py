"""The nodes' HTTP RPC: routes, shapes, token, rate limit, and what faults make of them."""

from __future__ import annotations

import httpx
import pytest

from ..conftest import Visitor

GATES = {
    "pruning": True,
    "recursive_proofs": True,
    "reconstruction": True,
    "consensus_enforcement": True,
    "malachite_consensus": False,
    "timetoke_rewards": False,
    "witness_network": False,
}


def test_rollout_shows_the_loaded_configuration(visitor: Visitor) -> None:
    """The whole answer, null height included."""
    answer = visitor.rpc("dev-1", "/status/rollout")

    assert answer.json() == {
        "release_channel": "development",
        "feature_gates": GATES,
        "telemetry": {
            "enabled": True,
            "endpoint": "http://collector.development.internal:4317",
            "sample_interval_secs": 15,
            "last_observed_height": None,
        },
    }


@pytest.mark.parametrize("auth", ["", "Bearer wrong", "Basic eDp5", "wrong"])
@pytest.mark.parametrize("path", ["/health", "/status/node", "/no/such/route"])
def test_every_route_wants_the_token(visitor: Visitor, auth: str, path: str) -> None:
    """Health routes and unknown ones are no exception."""
    answer = visitor.rpc("dev-3", path, auth=auth)

    assert (answer.status_code, answer.json()) == (401, {"error": "unauthorized"})


def test_bare_token_is_accepted(visitor: Visitor) -> None:
    """The scheme may be left out, as the chain allows."""
    answer = visitor.rpc("dev-1", "/health", auth=visitor.network.env["RPP_RPC_TOKEN"])

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/status", "/status/storage", "/consensus/validators", "/"])
def test_routes_the_chain_lacks_are_absent(visitor: Visitor, path: str) -> None:
    """Routes that the chain's documents mention and its router does not have."""
    assert visitor.rpc("dev-1", path).status_code == 404


def test_powers_are_decimal_strings_that_add_up(visitor: Visitor) -> None:
    """The validators' powers by the chain's formula sum to the total; the quorum is above 2/3."""
    members = visitor.rpc("main-1", "/ui/bft/membership").json()["validators"]
    consensus = visitor.rpc("main-1", "/status/consensus").json()
    powers = [
        int(row["stake"])
        * (round(row["reputation_score"] * 1000) + 1000)
        * (row["timetoke_hours"] + 1)
        for row in members
    ]

    assert consensus["total_power"] == str(sum(powers))
    assert consensus["quorum_threshold"] == str(-(-2 * sum(powers) // 3) + 1)
    assert consensus["commit_power"] == consensus["total_power"]
    assert consensus["quorum_reached"] is True


def test_account_of_a_validator_and_of_nobody(visitor: Visitor) -> None:
    """An unknown address is null with status 200."""
    spec = visitor.network.world.node("dev-1")

    assert visitor.rpc("dev-1", f"/accounts/{spec.validator}").json()["stake"] == str(spec.stake)
    assert visitor.rpc("dev-1", "/accounts/nobody").json() is None


def test_only_accounts_of_nodes_whose_rewards_gate_is_on_grow(visitor: Visitor) -> None:
    """Over an epoch they share the base reward of its blocks, and lead some of them themselves."""
    network = visitor.network
    nodes = {node.name: node.validator for node in network.world.clusters["development"].nodes}

    def balances() -> dict[str, int]:
        answers = {n: visitor.rpc("dev-4", f"/accounts/{address}") for n, address in nodes.items()}
        return {name: answer.json()["balance"] for name, answer in answers.items()}

    before = balances()
    for name in ("dev-1", "dev-2"):
        path = network.world.node_dir("development", name) / "config.toml"
        path.write_text(
            path.read_text().replace("timetoke_rewards = false", "timetoke_rewards = true")
        )
        network.fleet.restart(name)
    network.world.clock.advance(3600)
    after = balances()

    gained = {name: after[name] - before[name] for name in nodes}
    assert (gained["dev-3"], gained["dev-4"]) == (0, 0)
    shared, led = 720 * 5, 720 * 2 // 4
    assert gained["dev-1"] + gained["dev-2"] == pytest.approx(shared + led, abs=10)
    assert gained["dev-1"] == pytest.approx(gained["dev-2"], abs=10)


def test_chain_advances_with_the_clock(visitor: Visitor) -> None:
    """An hour that is skipped is an epoch that happened."""
    before = visitor.rpc("dev-1", "/status/node").json()
    visitor.network.world.clock.advance(3600)

    after = visitor.rpc("dev-1", "/status/node").json()
    assert after["height"] - before["height"] in (720, 721)
    assert after["epoch"] == before["epoch"] + 1


def test_peers_show_every_other_node(visitor: Visitor) -> None:
    """With the gates that each has loaded and the version of its build."""
    answer = visitor.rpc("dev-1", "/p2p/peers").json()
    others = visitor.network.world.clusters["development"].nodes[1:]

    assert answer["peer_count"] == 3
    assert [row["peer"] for row in answer["peers"]] == [spec.peer for spec in others]
    assert answer["peers"][0]["features"] == GATES
    assert answer["peers"][0]["version"] == "rpp-node/1.3.0"


def test_rate_limit_refuses_after_the_burst_and_refills(visitor: Visitor) -> None:
    """The 121st request at once is 429 and says when to come back; a minute brings 60 more."""
    answers = [visitor.rpc("dev-4", "/health") for _ in range(125)]
    refused = [answer for answer in answers if answer.status_code == 429]

    assert 1 <= len(refused) <= 5
    assert refused[0].json() == {"error": "rate limit exceeded"}
    assert refused[0].headers["retry-after"] == "1"
    assert refused[0].headers["x-ratelimit-limit"] == "120"
    assert refused[0].headers["x-ratelimit-remaining"] == "0"
    visitor.network.world.clock.advance(60)
    assert visitor.rpc("dev-4", "/health").headers["x-ratelimit-remaining"] == "59"


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        ("rpc-401", 401, {"error": "unauthorized"}),
        ("rpc-429", 429, {"error": "rate limit exceeded"}),
        ("rpc-500", 500, {"error": "storage backend unavailable"}),
        ("rpc-wrong-shape", 200, {"status": "ok"}),
    ],
)
def test_fault_answers_of_one_node(
    visitor: Visitor, fault: str, status: int, body: dict[str, str]
) -> None:
    """The node of the fault answers so; its neighbour is well."""
    visitor.network.fault(f"{fault}@development/dev-2")

    answer = visitor.rpc("dev-2", "/status/rollout")
    assert (answer.status_code, answer.json()) == (status, body)
    assert visitor.rpc("dev-1", "/status/rollout").json()["feature_gates"] == GATES


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("rpc-truncated", httpx.RemoteProtocolError),
        ("rpc-timeout", httpx.ReadTimeout),
        ("node-down", httpx.ConnectError),
    ],
)
def test_faults_of_the_connection(
    visitor: Visitor, fault: str, error: type[httpx.TransportError]
) -> None:
    """Half an answer, none at all, nobody there; whole again when the fault is cleared."""
    visitor.network.fault(f"{fault}@development")

    url = visitor.network.world.node("dev-2").url + "/status/node"
    headers = {"authorization": f"Bearer {visitor.network.env['RPP_RPC_TOKEN']}"}
    with pytest.raises(error):
        visitor.http.get(url, headers=headers, timeout=0.3)
    visitor.network.clear(fault)
    assert visitor.rpc("dev-2", "/status/node").status_code == 200


def test_peers_may_disagree_or_lack_a_node(visitor: Visitor) -> None:
    """Both faults concern what others say of the node, not what it says itself."""
    peer = visitor.network.world.node("dev-2").peer

    visitor.network.fault("peers-disagree@development")
    rows = visitor.rpc("dev-1", "/p2p/peers").json()["peers"]
    said = {row["peer"]: row["features"]["witness_network"] for row in rows}
    assert [name for name, value in said.items() if value] == [peer]
    assert visitor.rpc("dev-2", "/status/rollout").json()["feature_gates"] == GATES

    visitor.network.fault("no-nodes-in-peers@development")
    rows = visitor.rpc("dev-1", "/p2p/peers").json()["peers"]
    assert peer not in [row["peer"] for row in rows]
