"""The nodes' HTTP RPC: routes, shapes, token, rate limit, and what faults make of them."""

from __future__ import annotations

import pytest

from ..conftest import Visitor


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
