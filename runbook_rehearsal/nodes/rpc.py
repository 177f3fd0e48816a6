"""The nodes' HTTP RPC: routes, errors, token and rate limit as the chain's router has them.

Of each answer the fields that somebody asks for, in the chain's shapes; powers are decimal strings.
"""

import hmac
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from ..chain.timeline import ChainState, state_at
from ..loopback import App, Loopback, Scope
from .fleet import Fleet, Running


class View:
    """What one node shows of itself and its chain at one instant."""

    def __init__(self, fleet: Fleet, running: Running, state: ChainState) -> None:
        self.fleet, self.running, self.state = fleet, running, state
        self.validators = fleet.world.clusters[running.spec.cluster].nodes

    @property
    def block_hash(self) -> str:
        spec = self.running.spec
        split = self.fleet.faults.is_on("hash-split", spec.cluster, spec.name)
        return self.state.block_hash[::-1] if split else self.state.block_hash

    def node(self) -> dict[str, Any]:
        state, size = self.state, len(self.validators)
        accepted = round(state.vrf_participation * size)
        return {
            "address": self.running.spec.validator,
            "height": state.height,
            "last_hash": self.block_hash,
            "epoch": state.epoch,
            "vrf_metrics": {
                "target_validator_count": 100,
                "verified_submissions": accepted,
                "accepted_validators": accepted,
                "rejected_candidates": 0,
                "participation_rate": round(state.vrf_participation, 6),
            },
        }

    def consensus(self) -> dict[str, Any]:
        state = self.state
        names = ("height", "round", "epoch", "quorum_reached", "leader_changes", "witness_events",
                 "slashing_events", "failed_votes")  # fmt: skip
        powers = ("total_power", "quorum_threshold", "commit_power")
        latency = {"quorum_latency_ms": state.quorum_latency_ms}
        return {
            "block_hash": self.block_hash,
            **{name: getattr(state, name) for name in names},
            **{name: str(getattr(state, name)) for name in powers},
            "round_latencies_ms": list(state.round_latencies_ms),
            **(latency if state.quorum_latency_ms is not None else {}),
        }

    def rollout(self) -> dict[str, Any]:
        config = self.running.config
        return {
            "release_channel": config.channel,
            "feature_gates": dict(config.gates),
            "telemetry": dict(config.telemetry),
        }

    def membership(self) -> dict[str, Any]:
        validators = [
            {
                "address": spec.validator,
                "stake": str(spec.stake),
                "reputation_score": spec.reputation,
                "tier": "Tl4",
                "timetoke_hours": spec.timetoke_hours,
            }
            for spec in self.validators
        ]
        height, epoch = self.state.height, self.state.epoch
        return {"height": height, "epoch": epoch, "validators": validators, "observers": []}

    def peers(self) -> dict[str, Any]:
        me, faults = self.running.spec, self.fleet.faults
        others = [self.fleet.running.get(spec.name) for spec in self.fleet.members(me.cluster)]
        peers = [
            self._peer(other)
            for other in others
            if other is not None
            and other.spec.name != me.name
            and not faults.is_on("no-nodes-in-peers", me.cluster, other.spec.name)
        ]
        return {
            "local_peer_id": me.peer,
            "peer_count": len(peers),
            "block_height": self.state.height,
            "peers": peers,
        }

    def _peer(self, other: Running) -> dict[str, Any]:
        gates = dict(other.config.gates)
        if self.fleet.faults.is_on("peers-disagree", other.spec.cluster, other.spec.name):
            gates["witness_network"] = not gates["witness_network"]
        return {
            "peer": other.spec.peer,
            "version": f"rpp-node/{other.build.version.removeprefix('v')}",
            "features": gates,
        }

    def account(self, address: str) -> dict[str, Any] | None:
        for spec in self.validators:
            if spec.validator == address:
                balance, stake = spec.stake + self.state.rewards[spec.name], str(spec.stake)
                return {"address": address, "balance": balance, "nonce": 0, "stake": stake}
        return None  # the chain answers 200 with null


class Rpc:
    """Answers for every node of a fleet; ``token`` is what the nodes were started with."""

    def __init__(self, token: str, loopback: Loopback) -> None:
        self.fleet: Fleet
        self._token = token
        self._loopback = loopback
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}  # tokens left, and when
        self._chains: dict[str, tuple[tuple[int, int], ChainState]] = {}

    def app(self, name: str) -> App:
        return partial(self._serve, name)

    async def _serve(self, name: str, scope: Scope, receive: Any, send: Any) -> None:
        running = self.fleet.running.get(name)
        if running is None:
            return  # it went down with this request: the connection is gone
        on = self._faults(running)
        if on("rpc-timeout"):
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        limits: dict[str, str] = {}
        try:
            limits = self._limit(running, scope["client"][0])
            response = self._answer(running, scope)
        except HTTPException as refused:
            response = JSONResponse({"error": refused.detail}, refused.status_code, refused.headers)
        response.headers.update(limits)
        if not on("rpc-truncated"):
            await response(scope, receive, send)
            return
        body = bytes(response.body)[: len(response.body) // 2]
        await self._loopback.break_off(
            scope, send, response.status_code, response.raw_headers, body
        )

    def _faults(self, running: Running) -> Callable[[str], bool]:
        spec = running.spec
        return lambda name: self.fleet.faults.is_on(name, spec.cluster, spec.name)

    def refill(self) -> None:
        """Every node's rate limit starts afresh, and its chain is looked at anew."""
        self._buckets.clear()
        self._chains.clear()

    def _limit(self, running: Running, client: str) -> dict[str, str]:
        """A token bucket for each client: ``burst`` requests at once, then so many a minute.

        It refills in rehearsal time: hours skipped by the clock have passed for it too.
        """
        config, now, key = running.config, self.fleet.world.clock.now(), (running.spec.name, client)
        tokens, at = self._buckets.get(key, (float(config.burst), now))
        tokens = min(config.burst, tokens + max(now - at, 0) * config.per_minute / 60)
        left = int(tokens) - 1
        self._buckets[key] = tokens - (left >= 0), now
        wait = str(math.ceil(60 / config.per_minute))
        values = {"limit": str(config.burst), "remaining": str(max(left, 0)), "reset": wait}
        headers = {f"x-ratelimit-{name}": value for name, value in values.items()}
        if left < 0 or self._faults(running)("rpc-429"):
            raise HTTPException(429, "rate limit exceeded", headers | {"retry-after": wait})
        return headers

    def _answer(self, running: Running, scope: Scope) -> Response:
        on = self._faults(running)
        self._authorize(scope, on("rpc-401"))
        if on("rpc-500"):
            raise HTTPException(500, "storage backend unavailable")
        head, _, address = scope["path"].rpartition("/")
        show = ROUTES.get(scope["path"])
        if show is None and head != "/accounts":
            return Response(status_code=404)
        if scope["method"] != "GET":
            return Response(status_code=405, headers={"allow": "GET,HEAD"})
        if on("rpc-wrong-shape"):
            return JSONResponse({"status": "ok"})
        state = self._chain(running.spec.cluster)
        if on("node-lags"):
            state = replace(state, height=state.height - 3)
        if (height := self.fleet.stuck.get(running.spec.name)) is not None:
            state = replace(state, height=height, quorum_reached=False, commit_power=0)
        view = View(self.fleet, running, state)
        return JSONResponse(view.account(address) if show is None else show(view))

    def _chain(self, cluster: str) -> ChainState:
        # Computed once per second and event: a fleet is asked many things at one instant.
        world = self.fleet.world
        now = world.clock.now()
        key = (len(world.events), int(now))
        if self._chains.get(cluster, (None,))[0] != key:
            self._chains[cluster] = (key, state_at(world, cluster, now))
        return self._chains[cluster][1]

    def _authorize(self, scope: Scope, refuse: bool) -> None:
        given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1").strip()
        scheme, _, rest = given.partition(" ")
        token = rest.strip() if scheme.lower() == "bearer" else given
        if refuse or not hmac.compare_digest(token.encode(), self._token.encode()):
            raise HTTPException(401, "unauthorized")


ROUTES: dict[str, Callable[[View], Any]] = {
    "/health": lambda view: {"status": "ok"},
    "/status/node": View.node,
    "/status/consensus": View.consensus,
    "/status/rollout": View.rollout,
    "/p2p/peers": View.peers,
    "/ui/bft/membership": View.membership,
}
"""What a rollout asks for, beside ``/accounts/ADDRESS``."""
