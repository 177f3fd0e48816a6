"""One rehearsal network without telemetry for the tests of this folder."""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from runbook_rehearsal.chain.world import Event, World, make_cluster
from runbook_rehearsal.network import RehearsalNetwork

from ..conftest import ran


@dataclass
class Visitor:
    """Asks a network as a stage would: by HTTP with its tokens, and by the site's commands."""

    network: RehearsalNetwork
    site: Mapping[str, Any]
    http: httpx.Client

    def rpc(self, node: str, path: str, *, auth: str | None = None) -> httpx.Response:
        token = auth if auth is not None else f"Bearer {self.network.env['RPP_RPC_TOKEN']}"
        url = self.network.fleet.spec(node).url
        return self.http.get(url + path, headers={"authorization": token}, timeout=2)

    def forge(self, method: str, path: str, **options: Any) -> httpx.Response:
        url = self.site["forge"]["url"] + "/repos/HUBId/chain" + path
        headers = {"authorization": f"Bearer {self.network.env['GITHUB_TOKEN']}"}
        return self.http.request(method, url, headers=headers, timeout=2, **options)

    def command(self, purpose: str, **values: Any) -> subprocess.CompletedProcess[str]:
        return self._run(self.site["commands"][purpose], values)

    def wait(self, seconds: float) -> subprocess.CompletedProcess[str]:
        return self._run(self.site["clock"]["wait"], {"seconds": seconds})

    def _run(self, command: Any, values: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
        argv = [word.format(**values) for word in command["argv"]]
        return ran(*argv)


def begun(root: Path, genesis: float, *clusters: str, nodes: int = 4) -> World:
    """A world of these clusters, as the build before the release left it."""
    hosts = [(f"127.1.1.{number}", 7070) for number in range(1, nodes + 1)]
    world = World(root, 1, {name: make_cluster(name, hosts, 1, genesis) for name in clusters})
    world.begin({"digest": "sha256:0", "commit": "c0ffee", "version": "v1.3.0"})
    return world


def happening(cluster: str, begin: float) -> Callable[..., None]:
    """Puts events of a cluster into a world, so many seconds after ``begin``."""

    def happen(world: World, at: float, kind: str, node: str = "", **data: Any) -> None:
        world.append(Event(begin + at, cluster, node, kind, data))

    return happen


def visit(network: RehearsalNetwork, http: httpx.Client) -> Visitor:
    return Visitor(network, yaml.safe_load(network.site.read_text()), http)


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(trust_env=False, limits=limits) as client:
        yield client


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, http: httpx.Client) -> Iterator[Visitor]:
    root = tmp_path_factory.mktemp("rehearsal") / "network"
    with RehearsalNetwork(root, telemetry=False) as network:
        yield visit(network, http)


@pytest.fixture
def visitor(shared: Visitor) -> Iterator[Visitor]:
    """The shared network, whole again after each test, its rate limits refilled."""
    network = shared.network
    network.world.clock.advance(120)
    nodes = network.root / "clusters"
    files = [p for name in ("config.toml", "bin/rpp-node") for p in nodes.glob(f"*/*/{name}")]
    before = {path: path.read_bytes() for path in files}
    yield shared
    for active in list(network.faults):
        network.clear(active.name)
    # Nodes that a test changed or took down get their files back and are restarted on them.
    mine = {path: path.relative_to(nodes).parts[1] for path in files}
    changed = {mine[path] for path, content in before.items() if path.read_bytes() != content}
    for path, content in before.items():
        path.write_bytes(content)
    for name in sorted(changed | ({*mine.values()} - set(network.fleet.running))):
        network.fleet.restart(name)
