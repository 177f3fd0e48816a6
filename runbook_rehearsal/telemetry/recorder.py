"""The nodes' series under the chain's own names and labels, as a collector exports them.

Names, units and labels are those of the chain (rpp/runtime/telemetry/metrics.rs, rpp/crypto-vrf/
src/telemetry.rs, rpp/consensus/src/timetoke/replay.rs) behind an OpenTelemetry collector that drops
the unbounded labels (height, round, epoch, slot, leader) and whatever nobody here asks for. Every
series carries ``job``, ``cluster`` and ``instance`` (the node's name). Counters begin at the
origin of the history and again when a node restarts. Instants are rehearsal seconds.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import pi, sin

import numpy as np

from ..arrays import Flags, Floats, Indices, Instants
from ..chain.timeline import QUORUM_MS, REPLAY_PERIOD_S, ROUND_MS, VOTE_MS, WITNESS_TOPICS, Timeline
from ..chain.world import Event, World
from .tsdb import Store, format_value

JOB = "rpp-node"
MINUTE_S = 60.0
SCRAPED_S = 10.0
AHEAD_S = 12 * 3600.0  # how far series are computed ahead
LATENCY_MS = (100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0)  # bounds of buckets
BLOCKS_PER_CHANGE = 600.0  # between changes of a round's leader
STALL_CRITICAL_S = 1800.0
SWING_S = 4 * 3600.0  # the period of a latency that comes and goes
PROVE_MS, VERIFY_S = 850.0, 0.045  # typical: proving, verifying
SLOW_GOSSIP, DROP_PERIOD_S = 3.0, 120.0  # under faults: factor of latencies, pace of drops per node
SLOW_PROOFS = 40.0  # what the fault proof-slow multiplies verifying by
_NONE: Floats = np.empty(0)
_P = "rpp_runtime_consensus_"


@dataclass(frozen=True)
class Row:
    """A counter's value at each edge of the minutes, or a gauge's at the instants asked for."""

    name: str
    labels: Mapping[str, str]
    values: Floats
    whole: bool = False
    gate: str = ""  # exists only while this gate is on
    paced: bool = True  # a counter: moves with the blocks, not with the clock


class NodeTelemetry:
    """The series of one node since ``origin``, up to ``end``."""

    def __init__(self, timeline: Timeline, index: int, origin: float, end: float) -> None:
        self.timeline, self.index, self.name = timeline, index, timeline.names[index]
        self.origin, self.end = origin, end
        self.labels = {"job": JOB, "cluster": timeline.spec.name, "instance": self.name}
        minutes = np.arange(origin // MINUTE_S, end // MINUTE_S + 2) * MINUTE_S
        inner = timeline.starts[(timeline.starts > origin) & (timeline.starts < end)]
        edges = np.union1d(minutes[minutes > origin], inner)
        self._edges: Floats = np.concatenate(([origin], edges))
        self._start = self._edges[:-1]
        self._segments = timeline.segment(self._start)

    def up(self, at: Floats) -> Flags:
        return np.asarray(self.timeline.up[self.timeline.segment(at), self.index])

    def samples(self, at: Floats) -> Iterator[tuple[Row, Floats, Flags]]:
        segment = self.timeline.segment(at)
        spoilt = self.timeline.fault("metrics-nan", self.name)[segment]
        since = np.maximum(self.timeline.up_since[segment, self.index], self.origin)
        where = self._where(segment, self.up(at) & ~self._withheld(at))
        for paced, (rows, table, whole) in self._counters.items():
            now, begin = (self._block_time(each) if paced else each for each in (at, since))
            counted = self._read(table, now) - self._read(table, begin)
            values = np.where(whole, np.floor(counted + 1e-6), counted)
            for row, told in zip(rows, np.where(spoilt, np.nan, values.T), strict=True):
                yield row, told, where(row)
        for row in self._gauges(at):
            yield row, np.where(spoilt, np.nan, row.values), where(row)

    def _where(self, segment: Indices, there: Flags) -> Callable[[Row], Flags]:
        timeline = self.timeline
        ended = there & ~timeline.fault("panel-stale")[segment]
        unverified = there & ~timeline.fault("telemetry-gap-in-watch")[segment]
        gates = {
            gate: there & timeline.at_work(gate)[segment, self.index]
            for gate in ("timetoke_rewards", "witness_network")
        }

        def where(row: Row) -> Flags:
            if row.name.startswith("rpp_crypto_vrf_"):
                return ended
            verified = row.name.startswith("rpp_stark_verify")
            return unverified if verified else gates.get(row.gate, there)

        return where

    def _withheld(self, at: Floats) -> Flags:
        """Where a fault keeps series back: all, their end, or half an hour of every 45 minutes."""
        timeline = self.timeline
        segment = timeline.segment(at)
        gap = timeline.fault("metrics-gap", self.name)
        hole = (timeline.elapsed(gap, at) % 2700.0 < 1800.0) & gap[segment]
        missing = timeline.fault("metrics-missing", self.name)
        return missing[segment] | timeline.fault("metrics-stale", self.name)[segment] | hole

    def _block_time(self, at: Floats) -> Floats:
        """When the node saw its latest block: sums and counts of observations move together."""
        active = self.timeline.advancing & self.timeline.up[:, self.index]
        return self._latest(active, self.timeline.spec.block_time_s, at)

    def _latest(self, active: Flags, period: float, at: Floats) -> Floats:
        """When something last happened that happens once a ``period`` of ``active`` time."""
        passed = self.timeline.elapsed(active, self._edges)
        seconds = np.floor(self.timeline.elapsed(active, at) / period + 1e-9) * period
        index = np.minimum(np.searchsorted(passed, seconds), len(passed) - 1)
        return np.asarray(self._edges[index] - (passed[index] - seconds))

    def _read(self, table: Floats, at: Floats) -> Floats:
        """Counters (edges x rows) at instants between the edges (instants x rows)."""
        edges = self._edges
        index = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, len(edges) - 2)
        part = np.clip((at - edges[index]) / (edges[index + 1] - edges[index]), 0.0, 1.0)
        values: Floats = table[index] + part[:, None] * (table[index + 1] - table[index])
        return values

    @cached_property
    def _counters(self) -> dict[bool, tuple[list[Row], Floats, Flags]]:
        """By whether they are paced: counters and histograms, their values (edges x rows), and
        which of them count whole things."""
        rows = [*self._consensus(), *self._proofs(), *self._traffic()]
        kinds = {paced: [row for row in rows if row.paced is paced] for paced in (True, False)}
        return {
            paced: (
                [replace(row, values=_NONE) for row in found],
                np.stack([row.values for row in found], axis=1),
                np.array([row.whole for row in found]),
            )
            for paced, found in kinds.items()
        }

    def _per_minute(self, active: Flags) -> Floats:
        """Seconds of each minute in which ``active`` (per segment) held and the node was up."""
        own = active & self.timeline.up[:, self.index]
        return np.diff(self.timeline.elapsed(own, self._edges))

    @cached_property
    def _blocks(self) -> Floats:
        return self._per_minute(self.timeline.advancing) / self.timeline.spec.block_time_s

    @cached_property
    def _seconds(self) -> Floats:
        return self._per_minute(np.ones(len(self.timeline.starts), dtype=bool))

    def _consensus(self) -> Iterator[Row]:
        blocks, slots = self._blocks, self._seconds / self.timeline.spec.block_time_s
        lost, validator = slots - blocks, self.timeline.spec.nodes[self.index].validator
        # Votes travel by gossip.
        slow = np.where(self._faulty("gossip-slow"), SLOW_GOSSIP, 1.0)
        votes = blocks * ~self._faulty("canary-does-not-vote")
        name, voter = f"{_P}vote_latency_milliseconds", {"validator": validator}
        yield from _histogram(name, voter, votes, self._ms("vote", VOTE_MS) * slow)
        name = f"{_P}round_quorum_latency_milliseconds"
        yield from _histogram(name, {}, blocks, self._ms("quorum", QUORUM_MS) * slow)
        name = f"{_P}round_duration_milliseconds"
        yield from _histogram(name, {}, blocks, self._ms("round", ROUND_MS), bounds=LATENCY_MS)
        height = np.maximum(self.timeline.height(self._start) - self._late(), 0.0)
        yield from _histogram("rpp_runtime_chain_block_height", {}, blocks, height, 0.0)
        changed = blocks / BLOCKS_PER_CHANGE
        yield _counter(f"{_P}round_leader_changes_total", {}, changed + lost / 6, paced=False)
        # Where the leader changes, a slot goes by without its block.
        yield _counter(f"{_P}block_schedule_slots_total", {}, slots + changed, paced=False)
        yield _counter("consensus_quorum_verifications_total", {"result": "failure"}, blocks * 0)
        epochs = blocks / self.timeline.spec.epoch_length
        yield _counter("validator_set_changes_total", {}, epochs)
        pool, share = float(len(self.timeline.names)), self.timeline.participation(self._start)
        name = "rpp_crypto_vrf_selection_"
        yield from _histogram(f"{name}participation_rate", {}, blocks, share, 0.0)
        verified = blocks * pool * share
        yield _counter(f"{name}accepted_total", {}, verified)
        yield _counter(f"{name}rejected_total", {}, blocks * pool - verified)

    def _proofs(self) -> Iterator[Row]:
        blocks, depth = self._blocks, self.timeline.queue_depth(self._start)
        queue = {"cache": "proof", "backend": "stwo"}
        waiting = depth * self._own("queue", 1.0, 0.1)
        yield from _histogram("rpp_runtime_proof_cache_queue_depth", queue, blocks, waiting, 3.0)
        proving = self._own("prove", PROVE_MS, 0.05) * np.maximum(depth / 12.0, 1.0)
        name = "rpp_runtime_proof_generation_duration_milliseconds"
        yield from _histogram(name, {"backend": "stwo"}, blocks, proving, bounds=LATENCY_MS)
        slow = np.where(self._faulty("proof-slow"), SLOW_PROOFS, 1.0)
        verifying = self._own("verify", VERIFY_S, 0.06) * slow
        proof = {"proof_backend": "stwo", "proof_kind": "consensus", "proof_circuit": "consensus"}
        yield from _histogram("rpp_stark_verify_duration_seconds", proof, 2 * blocks, verifying)
        outcomes = "rpp_runtime_proof_verification_outcomes_total"
        yield _counter(outcomes, {**proof, "result": "ok"}, 2 * blocks)

    def _traffic(self) -> Iterator[Row]:
        timeline, blocks, segments = self.timeline, self._blocks, self._segments
        peers = timeline.up[segments].sum(axis=1) - 1.0
        name = "rpp_runtime_network_peer_count"
        for row in _histogram(name, {}, self._seconds / 15.0, peers, 0.0):
            yield replace(row, paced=False)
        said = blocks * peers * self._own("gossip", 3.0, 0.1)
        yield _counter("pipeline_gossip_events_total", {}, said * ~self._faulty("gossip-silent"))
        dropped = self._seconds * self._faulty("gossip-drops") / DROP_PERIOD_S
        dropped = dropped + 3 * blocks * (self._faulty("relay-drops") & self._rewarded())
        yield _counter("pipeline_errors_total", {"stage": "gossip"}, dropped, paced=False)
        witness = f"{_P}witness_events_total"
        yield _counter(witness, {"topic": "blocks"}, blocks)
        heard = blocks * ~self._faulty("witness-silent")
        sent = heard * timeline.gate("witness_network")[segments, self.index]
        for topic in WITNESS_TOPICS:
            yield _counter(witness, {"topic": topic}, sent, gate="witness_network")
        stage, gate = {"stage": "rewards_distributed"}, "timetoke_rewards"
        due = blocks * ~self._faulty("rewards-stall")
        paid = due * timeline.at_work(gate)[segments, self.index]
        yield _counter("pipeline_stage_latency_ms_count", stage, paid, gate=gate)
        transactions = blocks * self._own("submissions", 18.0, 0.2)
        transactions = transactions * ~self._faulty("no-transactions")
        yield _counter("pipeline_submissions_total", {"reason": "accepted"}, transactions)
        replaying = self._per_minute(~timeline.fault("replay-stall"))
        name, error = "timetoke_replay_{}_total", {"reason": "stalled"}
        for what, labels, spent in (
            ("success", {}, replaying),
            ("failure", error, self._seconds - replaying),
        ):
            yield _counter(name.format(what), labels, spent / REPLAY_PERIOD_S, paced=False)

    def _gauges(self, at: Floats) -> Iterator[Row]:
        age = at - self._latest(~self.timeline.fault("replay-stall"), REPLAY_PERIOD_S, at)
        stalled = (age > STALL_CRITICAL_S).astype(float)
        yield Row("timetoke_replay_stalled", {"threshold": "critical"}, stalled)

    def _own(self, key: str, typical: float, spread: float) -> Floats:
        return self.timeline.level(f"{self.name}/{key}", typical, spread, self._start)

    def _ms(self, key: str, typical: float) -> Floats:
        """A latency the cluster has in common, each node a little off it."""
        common = self.timeline.level(key, typical, 0.05, self._start)
        slow = self.timeline.slowdown(self._start)
        return common * slow * self._own(key, 1.0, 0.03) * self._burden()

    def _late(self) -> Floats:
        """By how many blocks the node is behind: now and then by one or two."""
        behind = self.timeline.noise(f"{self.name}/late", self._start)
        return np.floor(np.clip(1.5 * behind, 0.0, 3.0))

    def _burden(self) -> Floats:
        """What rewards cost a canary under a fault: half as much time again, or a slow swing."""
        gated = self._rewarded()
        swing = np.exp(0.4 * np.sin(2 * pi * (self._start - self.timeline.spec.genesis) / SWING_S))
        slow = np.where(gated & self._faulty("canary-slow"), 1.5, 1.0)
        burden: Floats = slow * np.where(gated & self._faulty("canary-noisy"), swing, 1.0)
        return burden

    def _rewarded(self) -> Flags:
        return np.asarray(self.timeline.gate("timetoke_rewards")[self._segments, self.index])

    def _faulty(self, name: str) -> Flags:
        return np.asarray(self.timeline.fault(name, self.name)[self._segments])


def _counter(
    name: str, labels: Mapping[str, str], steps: Floats, *, gate: str = "", paced: bool = True
) -> Row:
    return Row(name, labels, _summed(steps), True, gate, paced)


def _summed(steps: Floats) -> Floats:
    return np.concatenate(([0.0], np.cumsum(steps)))


def _histogram(
    name: str,
    labels: Mapping[str, str],
    observations: Floats,
    typical: Floats,
    shape: float = 8.0,
    bounds: tuple[float, ...] = (),
) -> Iterator[Row]:
    """Log-logistic observations of that median and shape (larger is narrower; 0: all equal), with
    buckets where somebody asks for them."""
    count = _summed(observations)
    for bound in bounds:
        share = 1.0 / (1.0 + (typical / bound) ** shape)
        le = {**labels, "le": format_value(bound)}
        yield Row(f"{name}_bucket", le, _summed(observations * share), True)
    if bounds:
        yield Row(f"{name}_bucket", {**labels, "le": "+Inf"}, count, True)
    mean = pi / shape / sin(pi / shape) if shape else 1.0
    yield Row(f"{name}_sum", labels, _summed(observations * typical * mean))
    yield Row(f"{name}_count", labels, count, True)


class Recorder:
    """All nodes' series since ``origin``, at any instants, in bulk or as one scrape reads them."""

    def __init__(self, world: World, origin: float) -> None:
        self.world = world
        self.origin = origin
        self._known: dict[str, tuple[list[Event], list[NodeTelemetry]]] = {}

    def nodes(self, until: float) -> Iterator[NodeTelemetry]:
        """A cluster's computed anew when something has happened there, or a while has passed."""
        for cluster in self.world.clusters:
            own = self.world.events_of(cluster)
            events, nodes = self._known.get(cluster, ([], []))
            if events != own or until > nodes[0].end:
                timeline, end = Timeline(self.world, cluster), until + AHEAD_S
                numbers = range(len(timeline.names))
                nodes = [NodeTelemetry(timeline, number, self.origin, end) for number in numbers]
                self._known = {**self._known, cluster: (own, nodes)}
            yield from nodes

    def lay(self, store: Store, instants: Floats) -> Instants:
        """Append every series at those rehearsal instants to ``store``; returns their wall times."""
        offset = self.world.clock.offset
        wall: Instants = np.round((instants - offset) * 1000.0).astype(np.int64)
        # Scrapes come oftener than what they bring is laid: their age is small whenever one asks.
        scrapes = np.union1d(instants, np.arange(instants[0], instants[-1], SCRAPED_S))
        scraped: Instants = np.round((scrapes - offset) * 1000.0).astype(np.int64)
        for node in self.nodes(float(instants[-1])):
            up = {"__name__": "up", **node.labels}
            store.append(up, scraped, node.up(scrapes).astype(float))
            for row, values, there in node.samples(instants):
                labels = {"__name__": row.name, **node.labels, **row.labels}
                store.append_while(labels, wall, values, there)
        return wall

    def is_up(self, name: str) -> bool:
        now = self.world.clock.now()
        return any(bool(n.up(np.array([now]))[0]) for n in self.nodes(now) if n.name == name)
