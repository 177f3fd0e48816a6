"""The nodes' HTTP RPC: one question to a whole fleet at once, answers typed.

Routes and shapes are those of rpp-node's router; a node is reached by its URL (a path prefix is
kept) or by a command that prints the answer as ``curl --include`` does. One node that fails never
hides the others: its place in the answer holds the error.
"""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Literal, TypeVar

from httpx import Response
from pydantic import Field

from ..errors import Answers, SourceError
from ..plan import rollout_keys
from ..site import Cluster, Node
from . import wire
from .commands import execute, filled
from .http import MAX_NODE, answered, make_request
from .scope import RETRIES, Scope
from .wire import DecimalString, Wire

COMMANDS_AT_ONCE = 16
_HEAD = re.compile(rb"HTTP/[0-9.]+ ([1-5][0-9]{2})[^\r\n]*\r?\n((?:[^\r\n]+\r?\n)*)\r?\n")

Count = Annotated[int, Field(ge=0)]
Channel = Literal["development", "testnet", "canary", "mainnet"]


class NodeTelemetry(Wire):
    """How a node reports; ``last_observed_height`` is hard-coded null in the chain, so not read."""

    enabled: bool
    endpoint: str | None = None


class Rollout(Wire):
    """/status/rollout: the channel and gates of the configuration the node has loaded."""

    release_channel: Channel
    feature_gates: dict[str, bool]
    telemetry: NodeTelemetry

    def flat(self) -> dict[str, str | bool]:
        """Channel and gates by dotted key, as the node says it runs."""
        return rollout_keys(self.release_channel, self.feature_gates)


class Status(Wire):
    """/status/node. ``height`` is the committed tip."""

    address: str
    height: Count


class Consensus(Wire):
    """/status/consensus: the last round. Powers are stake-weighted votes."""

    height: Count
    block_hash: str
    total_power: DecimalString
    quorum_threshold: DecimalString
    commit_power: DecimalString
    quorum_reached: bool
    slashing_events: Count


class Peer(Wire):
    """What one peer advertises; the node leaves ``features`` out when it knows none."""

    peer: str
    version: str
    features: dict[str, bool] = {}


class Peers(Wire):
    """/p2p/peers: the fleet as one node sees it."""

    block_height: Count
    peers: list[Peer]


class Validator(Wire):
    """A validator as the ledger has it; ``stake`` in the chain's smallest unit."""

    address: str
    stake: DecimalString
    reputation_score: float
    tier: str
    timetoke_hours: Count


class Account(Wire):
    """/accounts/:address: ``balance`` in the chain's smallest unit."""

    address: str
    balance: Count


class Membership(Wire):
    """/ui/bft/membership: who votes."""

    height: Count
    validators: list[Validator]


T = TypeVar("T", bound=Wire)


class Fleet:
    """The nodes of one cluster, asked concurrently.

    Every method takes the names of the nodes to ask (all by default) and answers by name, in the
    site's order. An unknown name is a KeyError: names come from the same cluster.
    """

    def __init__(self, scope: Scope, cluster: Cluster) -> None:
        self._scope, self._rpc = scope, cluster.rpc
        self._nodes = {node.name: node for node in cluster.nodes}

    def get(
        self,
        path: str | Callable[[Node], str],
        model: type[T],
        nodes: Sequence[str] | None = None,
        *,
        retries: int = RETRIES,
    ) -> Answers[str, T]:
        """``GET path`` of every node as ``model``.

        ``path`` may differ from node to node.
        """
        names = list(self._nodes) if nodes is None else list(dict.fromkeys(nodes))
        asked = [self._nodes[name] for name in names]
        paths = {node.name: path if isinstance(path, str) else path(node) for node in asked}
        rpc, limits = self._rpc, (self._rpc.per_minute, self._rpc.burst)
        requests = {
            name: make_request(
                "GET", f"{url}{paths[name]}", rpc, pace=(name, *limits), max_bytes=MAX_NODE
            )
            for name, url in ((node.name, node.url) for node in asked)
            if url is not None
        }
        answers = self._scope.http([*requests.values()], retries=retries) if requests else []
        by_command = [node.name for node in asked if node.url is None]
        with ThreadPoolExecutor(COMMANDS_AT_ONCE) as pool:
            printed = Answers(lambda n: self._by_command(n, paths[n]), by_command, pool.map)
        got = dict(zip(requests, answers, strict=True))

        # Large fleets say the same in many places: what is equal is decoded once.
        known: dict[bytes, T] = {}

        def typed(name: str) -> T:
            source = f"{name} {paths[name]}"
            body = wire.content(source, got[name] if name in got else printed[name])
            if body not in known:
                known[body] = wire.decode(source, body, model)
            return known[body]

        return Answers(typed, names)

    def rollout(self, nodes: Sequence[str] | None = None) -> Answers[str, Rollout]:
        """Channel and gates in force."""
        return self.get("/status/rollout", Rollout, nodes)

    def status(self, nodes: Sequence[str] | None = None) -> Answers[str, Status]:
        """Address and height."""
        return self.get("/status/node", Status, nodes)

    def consensus(self, nodes: Sequence[str] | None = None) -> Answers[str, Consensus]:
        """The last round's votes."""
        return self.get("/status/consensus", Consensus, nodes)

    def peers(self, nodes: Sequence[str] | None = None) -> Answers[str, Peers]:
        """What each node's peers advertise."""
        return self.get("/p2p/peers", Peers, nodes)

    def membership(self, nodes: Sequence[str] | None = None) -> Answers[str, Membership]:
        """The validator set as each node knows it."""
        return self.get("/ui/bft/membership", Membership, nodes)

    def accounts(self, nodes: Sequence[str] | None = None) -> Answers[str, Account]:
        """Each validator's own account in the ledger that its node holds; others are left out."""
        asked = self._nodes if nodes is None else nodes
        validators = [name for name in asked if self._nodes[name].validator]
        return self.get(lambda node: f"/accounts/{node.validator}", Account, validators)

    def _by_command(self, name: str, path: str) -> Response:
        command = self._nodes[name].rpc_command
        assert command is not None
        source = f"{name} {path}"
        asked = filled(f"nodes.{name}.rpc_command", command, path=path, node=name)
        return parse_printed(source, execute(self._scope, source, asked).stdout)


def parse_printed(source: str, printed: bytes) -> Response:
    """An answer as ``curl --include`` prints it: status line, headers, blank line, body.

    Interim and proxy answers printed before the last one are passed over. Raises SourceError.
    """
    status, headers, body = 0, dict[str, str](), printed
    while found := _HEAD.match(body):
        status, body = int(found[1]), body[found.end() :]
        pairs = (line.partition(":") for line in found[2].decode("latin-1").splitlines())
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if not status:
        text = printed[:60].decode("utf-8", "replace")
        raise SourceError(source, f"expected output of curl --include, got {text!r}")
    length = headers.get("content-length", "")
    if length.isdigit() and len(body) < int(length):
        raise SourceError(source, f"expected {length} bytes, got {len(body)}")
    return answered(status, headers, body)
