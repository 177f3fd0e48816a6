"""The chain as a function of seed, events and time: heights, votes, rewards, gossip, latencies.

Nothing is simulated step by step: every quantity at an instant is computed from the cluster's
events and from seeded noise, so an hour skipped by the clock has happened like any other. Times
are rehearsal seconds. Power, quorum and rewards follow the chain's own formulas
(rpp/consensus/node.rs, rpp/storage/ledger.rs); unlike the real chain of today, rewards are
credited and witness messages sent only where the running gate is on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Flags, Floats, Indices
from .world import BASE_GATES, HISTORY_S, ClusterSpec, Event, NodeSpec, World

BASE_BLOCK_REWARD = 5
LEADER_BONUS = 1  # 20 % of the base reward, rounded up
MAX_TIMETOKE_HOURS = 720
WITNESS_TOPICS = ("WitnessProofs", "WitnessMeta")  # one message each per block and sender
REPLAY_PERIOD_S = 45.0

# Typical latencies (median, ms) of a healthy cluster.
ROUND_MS, QUORUM_MS, VOTE_MS = 400.0, 160.0, 90.0
SLOWDOWN = 5.0  # what the fault consensus-slow multiplies them by

# Faults of what is measured have been on for a while when they are declared, so that a window that
# has just passed shows them; when cleared within ten minutes they leave no trace.
LEAD_S = {
    name: lead
    for lead, names in {
        HISTORY_S: ("relay-drops", "canary-slow", "canary-noisy", "metrics-missing"),
        7200.0: (
            "consensus-slow", "vrf-low", "proof-backlog", "rewards-stall", "witness-silent",
            "reward-on-other-node", "reward-too-large", "canary-does-not-vote", "metrics-nan",
            "no-transactions",
        ),
        3600.0: ("replay-stall",),
        2400.0: ("metrics-gap",),
        1800.0: ("telemetry-gap-in-watch",),
        1200.0: ("halt-during-epochs",),
        900.0: ("metrics-stale", "panel-stale"),
        720.0: ("participation-dip", "commander-silent", "notify-down", "proof-slow"),
    }.items()
    for name in names
}  # fmt: skip
TRACELESS_S = 600.0
NOISE_STEP_S = 60.0
HALTS = ("chain-halt", "consensus-stall")
"""Faults that end when a quorum of the nodes was restored to one state."""
DIPS = ("participation-dip", "commander-silent", "notify-down")
"""Faults that bring an anomaly of participation, whatever else they do."""


@dataclass(frozen=True)
class ChainState:
    """A cluster at an instant; powers in the chain's unit, latencies in ms, rewards since genesis."""

    height: int
    block_hash: str
    epoch: int
    round: int
    total_power: int
    quorum_threshold: int
    commit_power: int
    quorum_reached: bool
    round_latencies_ms: tuple[int, ...]
    quorum_latency_ms: int | None
    leader_changes: int
    failed_votes: int
    slashing_events: int
    vrf_participation: float
    witness_events: int
    rewards: Mapping[str, int]


def voting_power(spec: NodeSpec) -> int:
    multiplier = round(spec.reputation * 1000) + 1000
    return spec.stake * multiplier * (min(spec.timetoke_hours, MAX_TIMETOKE_HOURS) + 1)


def quorum_of(total_power: int) -> int:
    """ceil(2/3 of the total) + 1, as the chain counts it."""
    return -(-2 * total_power // 3) + 1


def state_at(world: World, cluster: str, at: float) -> ChainState:
    return Timeline(world, cluster).state(at)


@dataclass(frozen=True)
class _NodeState:
    up: bool
    since: float
    config: Mapping[str, Any]

    def after(self, event: Event) -> _NodeState:
        if event.kind == "config":
            return replace(self, config=event.data)
        if event.kind in ("up", "down"):
            up = event.kind == "up"
            return replace(self, up=up, since=event.at if up else self.since)
        return self


def _effective(events: list[Event]) -> list[Event]:
    """The events in time order, faults of what is measured moved as ``LEAD_S`` says."""
    out: list[Event] = []
    begun: dict[tuple[str, str], Event] = {}
    for event in events:
        name = str(event.data.get("name", ""))
        if event.kind == "fault-on" and name in LEAD_S:
            begun[name, event.node] = event
            out.append(replace(event, at=event.at - LEAD_S[name]))
        elif event.kind == "fault-off" and (name, event.node) in begun:
            start = begun.pop((name, event.node))
            if event.at - start.at < TRACELESS_S:
                out.remove(replace(start, at=start.at - LEAD_S[name]))
            else:
                out.append(event)
        else:
            out.append(event)
    first = events[0].at if events else 0.0
    out = [replace(event, at=max(event.at, first)) for event in out]
    return sorted(out, key=lambda event: event.at)


class Timeline:
    """A cluster's events cut into segments in which nothing changes but time. Row ``i`` of each
    array is the segment that begins at ``starts[i]``; columns are nodes."""

    def __init__(self, world: World, cluster: str) -> None:
        self.spec: ClusterSpec = world.clusters[cluster]
        self.seed = world.seed
        self.names = [node.name for node in self.spec.nodes]
        self.powers = [voting_power(node) for node in self.spec.nodes]
        self.total_power = sum(self.powers)
        self.quorum = quorum_of(self.total_power)
        self._flags: dict[tuple[str, str, str], Flags] = {}
        self._read(world)

    def _read(self, world: World) -> None:
        column = {name: index for index, name in enumerate(self.names)}
        now = [_NodeState(False, self.spec.genesis, {}) for _ in self.names]
        faults: frozenset[tuple[str, str]] = frozenset()
        rows: dict[float, tuple[list[_NodeState], frozenset[tuple[str, str]]]] = {}
        for event in _effective(world.events_of(self.spec.name)):
            if event.kind == "fault-on":
                faults |= {(str(event.data["name"]), event.node)}
            elif event.kind == "fault-off":
                faults -= {(str(event.data["name"]), event.node)}
            elif event.node in column or not event.node:  # a provisioned node is no validator
                touched = [column[event.node]] if event.node else list(column.values())
                for index in touched:
                    now[index] = now[index].after(event)
            rows[event.at] = (list(now), faults)
        states = [nodes for nodes, _ in rows.values()]
        self.starts: Floats = np.array(list(rows))
        self.up: Flags = np.array([[node.up for node in nodes] for nodes in states], dtype=bool)
        self.up_since: Floats = np.array([[node.since for node in nodes] for nodes in states])
        self.configs = [[node.config for node in nodes] for nodes in states]
        self.faults = [faults for _, faults in rows.values()]

    def segment(self, at: Floats | float) -> Indices:
        """Index of the segment that holds each instant; the first one for earlier instants."""
        return np.maximum(np.searchsorted(self.starts, at, side="right") - 1, 0)

    def fault(self, name: str, node: str = "") -> Flags:
        return self._known(
            ("fault", name, node),
            lambda: np.array([(name, "") in on or (name, node) in on for on in self.faults]),
        )

    def _any(self, *names: str) -> Flags:
        return np.asarray(np.any([self.fault(name) for name in names], axis=0))

    def gate(self, name: str) -> Flags:
        default = name in BASE_GATES
        return self._known(
            ("gate", name, ""),
            lambda: np.array(
                [[bool(c["gates"].get(name, default)) for c in row] for row in self.configs]
            ),
        )

    def at_work(self, gate: str) -> Flags:
        """Per segment and node: where a gate's work is done, as it is on or a fault does it anyway."""

        def work() -> Flags:
            if gate != "timetoke_rewards":
                return self.gate(gate)
            strays = [self.fault("reward-on-other-node", name) for name in self.names]
            return self.gate(gate) | np.stack(strays, axis=1)

        return self._known(("work", gate, ""), work)

    def _known(self, what: tuple[str, str, str], find: Callable[[], Flags]) -> Flags:
        if what not in self._flags:
            self._flags[what] = find()
        return self._flags[what]

    @cached_property
    def advancing(self) -> Flags:
        powers = np.array([float(power) for power in self.powers])
        enough: Flags = self.up @ powers >= float(self.quorum)
        return enough & ~self._any("halt-during-epochs", *HALTS)

    def elapsed(self, active: Flags, at: Floats) -> Floats:
        """Seconds since the first segment in which ``active`` (per segment) held, up to ``at``."""
        lengths = np.diff(self.starts, append=np.inf)
        lengths[-1] = 0.0
        before = np.concatenate(([0.0], np.cumsum(lengths * active)[:-1]))
        index = self.segment(at)
        inside = np.maximum(at - self.starts[index], 0.0)
        return before[index] + np.where(active[index], inside, 0.0)

    def height(self, at: Floats) -> npt.NDArray[np.int64]:
        seconds = self.elapsed(self.advancing, at)
        return np.floor(seconds / self.spec.block_time_s + 1e-9).astype(np.int64)

    def rewards(self, at: float) -> dict[str, int]:
        """What each validator was credited up to ``at``, all together in whole units: the running
        ones whose rewards gate is on share each block's base reward and, in turn, the leader's."""
        stalled = self.fault("rewards-stall")[:, None]
        eligible = self.at_work("timetoke_rewards") & self.up & ~stalled
        base = np.where(self.fault("reward-too-large"), 3, 1) * BASE_BLOCK_REWARD
        share = base / np.maximum(eligible.sum(axis=1), 1) + LEADER_BONUS / len(self.names)
        last = int(self.segment(at))
        blocks = np.diff(self.height(np.append(self.starts[: last + 1], max(at, self.starts[0]))))
        credited = (blocks * share[: last + 1]) @ eligible[: last + 1] + 1e-9
        whole = np.diff(np.floor(np.cumsum(credited)), prepend=0.0)
        return dict(zip(self.names, whole.astype(int).tolist(), strict=True))

    def witness_events(self, at: Floats) -> int:
        """Witness messages of all validators up to ``at``: one per topic and block."""
        active = self.advancing & ~self.fault("witness-silent")
        sending = self.gate("witness_network") & self.up & active[:, None]
        blocks = (self.elapsed(one, at)[0] // self.spec.block_time_s for one in sending.T)
        return len(WITNESS_TOPICS) * int(sum(blocks))

    def slowdown(self, at: Floats) -> Floats:
        index = self.segment(at)
        missing = 1.0 - self.up[index].mean(axis=1)
        slow = np.where(self.fault("consensus-slow")[index], SLOWDOWN, 1.0)
        factor: Floats = slow * (1.0 + 0.5 * missing)
        return factor

    def level(self, key: str, typical: float, spread: float, at: Floats) -> Floats:
        return np.asarray(typical * np.exp(spread * self.noise(f"{self.spec.name}/{key}", at)))

    def noise(self, key: str, at: Floats) -> Floats:
        """Counted from genesis: a network shows the same, whenever it is started."""
        return noise(self.seed, key, at - self.spec.genesis)

    def participation(self, at: Floats) -> Floats:
        """Share of the VRF pool whose submissions were verified, 0..1."""
        index = self.segment(at)
        wander = np.abs(self.noise(f"{self.spec.name}/vrf", at))
        low = np.where(self._any("vrf-low", *DIPS)[index], 0.5, 1.0)
        share: Floats = self.up[index].mean(axis=1) * low * (1.0 - 0.008 * wander)
        return np.clip(share, 0.0, 1.0)

    def queue_depth(self, at: Floats) -> Floats:
        index = self.segment(at)
        jam = np.where(self.fault("proof-backlog")[index], 40.0, 1.0)
        return jam * self.level("queue", 3.0, 0.25, at)

    def state(self, at: float) -> ChainState:
        instants = np.array([at])
        row = int(self.segment(at))
        height = int(self.height(instants)[0])
        epoch = height // self.spec.epoch_length
        voting = sum(
            power
            for name, power, up in zip(self.names, self.powers, self.up[row], strict=True)
            if up and not self.fault("canary-does-not-vote", name)[row]
        )
        reached = bool(self.advancing[row])
        slow = float(self.slowdown(instants)[0])
        recent = at - self.spec.block_time_s * np.arange(8.0)[::-1]
        rounds = self.level("round", ROUND_MS, 0.06, recent) * slow
        quorum = float(self.level("quorum", QUORUM_MS, 0.06, instants)[0]) * slow
        stalled = self.elapsed(~self.advancing, instants)[0]
        return ChainState(
            height=height,
            block_hash=hashlib.sha256(
                f"{self.seed}/{self.spec.chain_id}/block/{height}".encode()
            ).hexdigest(),
            epoch=epoch,
            round=0 if reached else 1 + int((at - self.starts[row]) // 30),
            total_power=self.total_power,
            quorum_threshold=self.quorum,
            commit_power=voting if reached else 0,
            quorum_reached=reached,
            round_latencies_ms=tuple(int(value) for value in rounds),
            quorum_latency_ms=int(quorum) if reached else None,
            leader_changes=height // 600 + int(stalled // 30),
            failed_votes=height // 900 + int(stalled // 10),
            slashing_events=int(self.fault("slashing")[row]),
            vrf_participation=float(self.participation(instants)[0]),
            witness_events=self.witness_events(instants),
            rewards=self.rewards(at),
        )


# --- seeded noise: it depends on the instant alone, so that windows that overlap agree -------------


def noise(seed: int, key: str, at: Floats, memory: float = 0.6) -> Floats:
    """A stationary AR(1) series of unit variance on a minute grid, read off at instants (s)."""
    grid = np.floor(at / NOISE_STEP_S).astype(np.int64)
    first, last = int(grid.min()), int(grid.max())
    weights = memory ** np.arange(32) * np.sqrt(1.0 - memory**2)
    series = np.convolve(_normals(seed, key, first - 31, last), weights, mode="valid")
    return series[grid - first]


def _normals(seed: int, key: str, first: int, last: int) -> Floats:
    """Independent standard normals for the integers first..last (counter based)."""
    salt = int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:8], "big")
    index = np.arange(first, last + 1, dtype=np.int64).astype(np.uint64)
    halves = [_uniforms(index * np.uint64(2) + np.uint64(half), salt) for half in (0, 1)]
    radius = np.sqrt(-2.0 * np.log(halves[0]))
    normals: Floats = radius * np.cos(2.0 * np.pi * halves[1])
    return normals


def _uniforms(counter: npt.NDArray[np.uint64], salt: int) -> Floats:
    """The splitmix64 hash of each counter as a float in (0, 1)."""
    value = counter * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    uniform: Floats = ((value >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    return uniform
