"""The nodes as processes would be: a change on disk is effective only after a restart."""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ..chain.node_config import EXIT_CONFIGURATION, ConfigurationError, NodeConfig, read_config
from ..chain.timeline import Timeline
from ..chain.world import Event, NodeSpec, World
from ..faults.table import FaultBoard
from ..files import write_atomically
from ..loopback import Address, App, Loopback, free_addresses
from . import storage

EXIT_STARTUP = 3
STAYS_DOWN = ("node-stays-down", "node-will-not-start")


class StartupError(Exception):
    """A node that did not start; ``exit_code`` is the chain's."""

    def __init__(self, message: str, exit_code: int = EXIT_STARTUP) -> None:
        startup = "startup error: " if exit_code == EXIT_STARTUP else ""
        super().__init__(startup + message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Build:
    """What a binary is: the digest of its file, and what it says of itself."""

    digest: str
    commit: str
    version: str


def read_build(name: str, binary: bytes) -> Build:
    """Raises StartupError when it is not a node of this rehearsal."""
    try:
        comments = [line for line in binary.decode().splitlines() if line.startswith("# ")]
        said = dict(line[2:].split(": ", 1) for line in comments if ": " in line)
        digest = f"sha256:{hashlib.sha256(binary).hexdigest()}"
        return Build(digest, said["commit"], said["version"])
    except (ValueError, KeyError) as error:
        raise StartupError(f"{name}: exec format error") from error


@dataclass(frozen=True)
class Running:
    """A node that is up, with what it loaded when it started."""

    spec: NodeSpec
    config: NodeConfig
    build: Build


class Fleet:
    """All nodes by name. Methods may be called from any thread but the HTTP one."""

    def __init__(
        self, world: World, loopback: Loopback, faults: FaultBoard, make_app: Callable[[str], App]
    ) -> None:
        self.running: dict[str, Running] = {}
        self.restored: dict[str, tuple[int, str]] = {}  # height and root a node was started on
        self.stuck: dict[str, int] = {}  # height at which a node stands that was not restored
        self.world, self.faults = world, faults
        self._loopback, self._make_app = loopback, make_app
        self._listening: dict[str, Address] = {}
        self._provisioned: dict[str, NodeSpec] = {}
        self._lock = threading.RLock()

    def spec(self, name: str) -> NodeSpec:
        return self._provisioned.get(name) or self.world.node(name)

    def members(self, cluster: str) -> Iterator[NodeSpec]:
        yield from self.world.clusters[cluster].nodes
        yield from (spec for spec in self._provisioned.values() if spec.cluster == cluster)

    def boot(self) -> None:
        for spec in self.world.nodes():
            self._start(spec)

    def restart(self, name: str) -> Running:
        """Down, then up on what lies on disk. Raises StartupError: the node is down then."""
        with self._lock:
            spec = self.spec(name)
            self.stop(name)
            running = self._start(spec)
            if name not in self._provisioned:
                gates, now = dict(running.config.gates), self.world.clock.now()
                self.world.started(now, spec, asdict(running.build), running.config.channel, gates)
            return running

    def stop(self, name: str) -> None:
        """Refuse connections from now on; nothing when it is down already."""
        with self._lock:
            address = self._listening.pop(name, None)
            if address is None:
                return
            spec = self.spec(name)
            if self.faults.is_on("node-will-not-stop", spec.cluster, name):
                self._listening[name] = address
                return
            self._loopback.close(address)
            del self.running[name]
            self._flush(spec)
            if not self.faults.is_on("node-half-stopped", spec.cluster, name):
                (self._directory(spec) / "running.json").unlink()
            if name not in self._provisioned:
                self.world.append(Event(self.world.clock.now(), spec.cluster, name, "down"))

    def provision(self, cluster: str, name: str, config: str, *, silent: bool) -> NodeSpec:
        """A fresh node that is no validator, on the build of the cluster's first node; a ``silent``
        one never listens. Raises ValueError, StartupError."""
        with self._lock:
            if any(spec.name == name for spec in self.members(cluster)):
                raise ValueError(f"provision {name}: expected a new name, got an existing node")
            first = self.world.clusters[cluster].nodes[0]
            host, port = self._free(first.host, 100 + len(self._provisioned))
            spec = replace(
                first, name=name, host=host, port=port, validator="", canary=False,
                peer=f"12D3KooW{name}", stake=0, timetoke_hours=0,
            )  # fmt: skip
            directory = self._directory(spec)
            (directory / "bin").mkdir(parents=True)
            (directory / "config.toml").write_text(config)
            source = self._directory(first) / "bin" / "rpp-node"
            shutil.copyfile(source, directory / "bin" / "rpp-node")
            self._provisioned[name] = spec
            try:
                if not silent:
                    self._start(spec)
            except StartupError:
                self.deprovision(cluster, name)
                raise
            return spec

    def deprovision(self, cluster: str, name: str) -> None:
        """Raises ValueError for a node that was not provisioned."""
        with self._lock:
            spec = self._provisioned.get(name)
            if spec is None or spec.cluster != cluster:
                raise ValueError(f"deprovision {name}: expected a node provisioned in {cluster}")
            self.stop(name)
            del self._provisioned[name]
            shutil.rmtree(self._directory(spec))

    def _start(self, spec: NodeSpec) -> Running:
        directory = self._directory(spec)
        if any(self.faults.is_on(n, spec.cluster, spec.name) for n in STAYS_DOWN):
            raise StartupError("p2p listener: address in use")
        try:
            config = read_config(directory / "config.toml")
        except ConfigurationError as error:
            raise StartupError(str(error), EXIT_CONFIGURATION) from error
        try:
            build = read_build("rpp-node", (directory / "bin" / "rpp-node").read_bytes())
        except OSError as error:
            raise StartupError(f"rpp-node: {error.strerror}") from error
        if spec.name not in self._provisioned and (problem := storage.problem(directory / "data")):
            raise StartupError(problem)
        app = self._make_app(spec.name)
        try:
            self._listening[spec.name] = self._loopback.listen(app, spec.host, spec.port)
        except OSError as error:
            raise StartupError(f"rpc listener: {error}") from error
        running = self.running[spec.name] = Running(spec, config, build)
        if restored := storage.take_up(directory / "data"):
            self.restored[spec.name] = restored
            self.stuck.pop(spec.name, None)
        write_atomically(directory / "running.json", json.dumps(asdict(build)) + "\n")
        return running

    def _flush(self, spec: NodeSpec) -> None:
        """A node that stops writes what it has; a provisioned one has nothing yet."""
        if spec.name not in self._provisioned:
            now = np.array([self.world.clock.now()])
            height = int(Timeline(self.world, spec.cluster).height(now)[0])
            key = storage.key_of(self.world.seed, self.world.clusters[spec.cluster].chain_id)
            storage.flush(self._directory(spec) / "data", key, height)

    def _free(self, host: str, last: int) -> Address:
        prefix = host.rpartition(".")[0]
        return free_addresses([[f"{prefix}.{last}" if host != "127.0.0.1" else host]])[0][0]

    def _directory(self, spec: NodeSpec) -> Path:
        return self.world.node_dir(spec.cluster, spec.name)
