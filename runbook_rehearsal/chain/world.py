"""What the rehearsal network is made of: clusters, nodes, a clock that runs ahead, events.

Every instant is *rehearsal* time, in unix seconds (float), unless it is named ``wall``. The chain
and its telemetry are functions of the seed and the events, so that a skipped hour has happened.
"""

import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..files import write_atomically
from .node_config import CHANNELS, GATES

BASE_GATES = GATES[:4]
STAGE_CLUSTERS = dict(zip(CHANNELS, ("development", "testnet", "mainnet", "mainnet"), strict=True))
HISTORY_S = 10 * 86400.0
SIZES: Mapping[str, int] = {"development": 4, "testnet": 7, "mainnet": 7}
OPERATORS = ("north-validators", "harbor-stake", "lumen-nodes")
_PREFIXES = {"development": "dev", "testnet": "test", "mainnet": "main"}
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"

EventKind = Literal["up", "down", "config", "build", "fault-on", "fault-off"]


@dataclass(frozen=True)
class NodeSpec:
    """One validator. ``host`` and ``port`` are where its RPC listens."""

    cluster: str
    name: str
    host: str
    port: int
    validator: str
    peer: str
    control: Literal["ours", "operator"]
    operator: str
    canary: bool
    stake: int
    reputation: float
    timetoke_hours: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@dataclass(frozen=True)
class ClusterSpec:
    """A chain and its validators; ``genesis`` is the rehearsal time of height 0."""

    name: str
    chain_id: str
    nodes: tuple[NodeSpec, ...]
    genesis: float
    epoch_length: int = 720
    block_time_s: float = 5.0


@dataclass(frozen=True)
class Event:
    """Something that changed the world; ``node`` is empty when it concerns the whole cluster.

    ``data`` by kind: config {"gates": {gate: bool}, "channel": str}; build {"digest", "commit",
    "version"}; fault-on and fault-off {"name"}; up and down {}.
    """

    at: float
    cluster: str
    node: str
    kind: EventKind
    data: Mapping[str, Any] = field(default_factory=dict)


class Clock:
    """Wall time plus an offset that only grows, kept in a file that others may read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            write_atomically(path, '{"offset_s": 0.0}\n')

    @property
    def offset(self) -> float:
        return float(json.loads(self.path.read_text())["offset_s"])

    def now(self) -> float:
        return time.time() + self.offset

    def advance(self, seconds: float) -> None:
        if not seconds >= 0:
            raise ValueError(f"clock: the offset only grows: expected >= 0 s, got {seconds}")
        write_atomically(self.path, json.dumps({"offset_s": self.offset + seconds}) + "\n")


class World:
    """The clusters, their clock and events; threads may append."""

    def __init__(self, root: Path, seed: int, clusters: Mapping[str, ClusterSpec]) -> None:
        self.root = root
        self.seed = seed
        self.clusters = dict(clusters)
        self.clock = Clock(root / "clock.json")
        self.events: list[Event] = []
        self.faults: set[str] = set()  # the names of those that are on

    def append(self, event: Event) -> None:
        self.events.append(event)

    def started(
        self, at: float, node: NodeSpec, build: Mapping[str, str], channel: str, gates: Any
    ) -> None:
        """A node came up on this build, channel and gates."""
        config = {"gates": gates, "channel": channel}
        what: dict[EventKind, Mapping[str, Any]] = {"build": build, "config": config, "up": {}}
        for kind, data in what.items():
            self.append(Event(at, node.cluster, node.name, kind, data))

    def begin(self, build: Mapping[str, str]) -> None:
        """The past: since genesis every node is up, on this build and the four base gates."""
        for node in self.nodes():
            genesis = self.clusters[node.cluster].genesis
            self.started(genesis, node, build, node.cluster, profile("development"))

    def events_of(self, cluster: str) -> list[Event]:
        chosen = [event for event in tuple(self.events) if event.cluster == cluster]
        return sorted(chosen, key=lambda event: event.at)

    def nodes(self) -> list[NodeSpec]:
        return [spec for cluster in self.clusters.values() for spec in cluster.nodes]

    def node(self, name: str) -> NodeSpec:
        return {spec.name: spec for spec in self.nodes()}[name]

    def node_dir(self, cluster: str, name: str) -> Path:
        return self.root / "clusters" / cluster / name


def profile(stage: str) -> dict[str, bool]:
    """The gates of a stage's profile, as the chain's mainnet bundle sets them."""
    order = ("malachite_consensus", "timetoke_rewards", "witness_network")
    extra = order[: CHANNELS.index(stage)]
    return {gate: gate in BASE_GATES or gate in extra for gate in GATES}


def make_cluster(
    name: str, addresses: list[tuple[str, int]], seed: int, genesis: float
) -> ClusterSpec:
    """A cluster of ``len(addresses)`` validators whose powers differ by 10 % at most, so that two
    canaries of seven stay under a third of the power, whatever the seed."""
    nodes = []
    for index, (host, port) in enumerate(addresses, start=1):
        rng = random.Random(f"{seed}/{name}/{index}")
        owner = _owner(name, index, len(addresses))
        nodes.append(
            NodeSpec(
                cluster=name,
                name=f"{_PREFIXES.get(name, name)}-{index}",
                host=host,
                port=port,
                validator="rpp1" + "".join(rng.choices(_BECH32, k=38)),
                peer="12D3KooW" + "".join(rng.choices(_BASE58, k=44)),
                control="operator" if owner else "ours",
                operator=owner,
                canary=name == "mainnet" and index <= 2,
                stake=rng.randrange(980_000, 1_020_000, 1000),
                reputation=rng.randrange(880, 921) / 1000,
                timetoke_hours=rng.choice((23, 24)),
            )
        )
    return ClusterSpec(name, f"rpp-{name}", tuple(nodes), genesis)


def _owner(cluster: str, index: int, size: int) -> str:
    if cluster == "development" or size < 5 or index <= size - len(OPERATORS):
        return ""
    return OPERATORS[index - 1 - (size - len(OPERATORS))]
