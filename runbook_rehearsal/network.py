"""The rehearsal network: clusters, forge, telemetry and clock, on threads of this process."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from . import layout, people
from .calls import Calls
from .chain import templates
from .chain.timeline import HALTS, LEAD_S, quorum_of, state_at, voting_power
from .chain.world import (
    HISTORY_S,
    SIZES,
    STAGE_CLUSTERS,
    Clock,
    NodeSpec,
    World,
    make_cluster,
    profile,
)
from .control import called, commands, run
from .faults.asset_effects import Undo
from .faults.effects import EFFECTS
from .faults.table import FAULTS, FaultBoard, parse
from .files import digest_of, write_atomically
from .forge import Forge
from .loopback import Listener, Loopback, free_addresses
from .nodes.assets import Assets
from .nodes.fleet import Fleet, Running, StartupError
from .nodes.rpc import Rpc
from .saved import Saved
from .signing import SignedRelease
from .telemetry.grafana import grafana_app

if TYPE_CHECKING:
    from .telemetry.servers import Servers, TelemetryServers

NOWHERE = "http://127.0.0.1:9"  # where telemetry is not wanted: nothing listens there


class RehearsalNetwork:
    """Three clusters of validators on loopback, with all that a rollout of them needs.

    ``root`` must be new or empty. ``sizes`` overrides the number of nodes per cluster. Telemetry is
    by the embedded or the real ``servers``, with ``history_s`` of history, or there is none. With
    ``team`` nobody may approve their own. Nothing runs or listens after ``stop``.
    """

    def __init__(
        self,
        root: Path,
        *,
        seed: int = 1,
        servers: Servers = "embedded",
        sizes: Mapping[str, int] | None = None,
        telemetry: bool = True,
        history_s: float = 12 * 3600.0,
        team: bool = False,
    ) -> None:
        self.root = root.absolute()
        self.seed = seed
        self.site = self.root / "site.yaml"
        self.params = {stage: self.root / "params" / f"{stage}.yaml" for stage in layout.BEGINS_H}
        self.env = {name: layout.token(seed, name) for name in layout.SECRETS}
        self.env["RUNBOOK_OPERATOR"] = layout.OPERATOR
        self.env["RUNBOOK_SIGNING_KEY"] = str(self.root / "keys" / f"{layout.OPERATOR}.pem")
        self.world: World
        self.fleet: Fleet
        self.release: layout.Release
        self.assets: Assets
        self.signed: SignedRelease
        self.telemetry: TelemetryServers | None = None
        self.servers = servers if telemetry else None
        self._history_s, self._team = history_s, team
        self._sizes = dict(SIZES) | dict(sizes or {})
        self._undo: dict[str, Undo] = {}
        self._armed: list[str] = []  # faults that come with a change
        self.listeners: dict[str, Listener] = {}  # forge and grafana, which can go and come back

    def __enter__(self) -> RehearsalNetwork:
        return self.start()

    def __exit__(self, *raised: object) -> None:
        self.stop()

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> RehearsalNetwork:
        """Write the folder, open every listener. Raises FileExistsError for a folder in use."""
        self.root.mkdir(parents=True, exist_ok=True)
        if any(self.root.iterdir()):
            raise FileExistsError(f"{self.root}: expected a new or empty folder; choose another")
        self._loopback = Loopback()
        self._cleanup = contextlib.ExitStack()
        try:
            self._loopback.start()
            self._cleanup.callback(self._loopback.stop)
            self._start()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def stop(self) -> None:
        (self.root / "network.json").unlink(missing_ok=True)
        self._cleanup.close()

    def _start(self) -> None:
        self.world = self._make_world()
        self.release = layout.write_release(self.root, self.seed)
        (self.root / "bundle").mkdir()
        (self.root / "bundle" / "mainnet.toml").write_text(templates.bundle())
        (self.root / "store").mkdir()
        (self.root / "store").chmod(0o2775 if self._team else 0o755)
        for cluster in self.world.clusters:
            layout.write_nodes(self.world, self.release, cluster)
        self.world.begin(asdict(self.release.previous))
        self.faults = FaultBoard(self.world)
        self.rpc = Rpc(self.env["RPP_RPC_TOKEN"], self._loopback)
        self.fleet = self.rpc.fleet = Fleet(self.world, self._loopback, self.faults, self.rpc.app)
        self.fleet.boot()
        self._write_assets()
        self.forge = Forge(
            self.release, self.world.clock, self.faults, self.env["GITHUB_TOKEN"], self._loopback
        )
        self.say, self.speak = self.forge.say, partial(people.speak, self)
        self.operators: people.Operators = people.Operators(self)
        self._cleanup.callback(self.operators.stop)
        self.forge.on_comment = lambda text: self.operators.see(text, "comment")
        grafana = grafana_app(self.faults, self.env["GRAFANA_TOKEN"])
        for name, app in (("forge", self.forge.app), ("grafana", grafana)):
            self.listeners[name] = Listener(self._loopback, app)
        self.signed = SignedRelease(self.release, self.faults, self._loopback)
        self.signed.publish(layout.trusted_root(self.root))
        self._cleanup.callback(Calls(self.root, partial(called, self)).stop)
        self.backends = self._start_telemetry()
        self._write_files()

    def next_release(self, version: str) -> layout.Release:
        """One more release, built, signed and green, on the clusters as they are; what it follows is
        staged for the way back, and parameter files are about it."""
        self.release = layout.write_next_release(self.root, self.seed, self.release, version)
        self._write_assets()
        self.forge.follow(self.release)
        self.signed.follow(self.release)
        self.signed.publish(layout.trusted_root(self.root))
        self._write_release_files()
        return self.release

    def _write_assets(self) -> None:
        self.assets = Assets(self.world, self.release.previous_artifact, self.release.artifact)
        for cluster in self.world.clusters:
            self.assets.write(cluster)

    def _start_telemetry(self) -> dict[str, str]:
        if self.servers is None:
            return dict.fromkeys(("prometheus", "alertmanager"), NOWHERE)
        from .telemetry.servers import TelemetryServers  # PromQL and its parser: only when wanted

        origin = self.world.clock.now() - self._history_s
        self.telemetry = TelemetryServers(self.world, self.servers, origin)
        self.telemetry.start()
        self._cleanup.callback(self.telemetry.stop)
        self.settle()
        return self.telemetry.urls

    def _make_world(self) -> World:
        hosts = [
            [f"127.1.{number}.{index}" for index in range(1, self._sizes[name] + 1)]
            for number, name in enumerate(SIZES, start=1)
        ]
        clock = Clock(self.root / "clock.json")
        genesis = clock.now() - HISTORY_S
        clusters = {
            name: make_cluster(name, addresses, self.seed, genesis)
            for name, addresses in zip(SIZES, free_addresses(hosts), strict=True)
        }
        return World(self.root, self.seed, clusters)

    def _write_files(self) -> None:
        nodes = self.world.nodes()
        people.write_keys(self.root, self.seed, nodes)
        keys = {node.name: people.public_key(self.seed, node.name) for node in nodes}
        urls = {name: listener.url for name, listener in self.listeners.items()} | self.backends
        site = layout.site(self.world, urls | {"log": self.signed.log}, keys)
        site["commands"] = commands(self.root)
        site["clock"]["wait"] = site["commands"].pop("fast_forward")
        key = people.public_key(self.seed, layout.OPERATOR)
        signer = {"name": layout.OPERATOR, "person": layout.OPERATOR, "key": key}
        site |= {"people": people.people(self.seed), "signers": {"keys": [signer]}}
        layout.write_yaml(self.site, {**site, "single_operator": not self._team})
        self._write_release_files()
        exports = [f"export {name}={shlex.quote(value)}\n" for name, value in self.env.items()]
        write_atomically(self.root / "env.sh", "".join(exports), 0o600)
        write_atomically(self.root / "network.json", json.dumps({"pid": os.getpid()}) + "\n")

    def _write_release_files(self) -> None:
        (self.root / "words" / self.release.version).mkdir(parents=True)
        for stage, path in self.params.items():
            layout.write_yaml(path, layout.parameters(self.world, self.release, stage))

    # --- what happens to it -------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.world.clock.now(), UTC)

    def fault(self, text: str) -> None:
        """Break something: ``NAME@STAGE`` or ``NAME@STAGE/NODE``. Raises ValueError."""
        self.check_fault(text)
        active = self.faults.switch_on(text)
        if active.name in HALTS:
            self.fleet.restored.clear()
        if (effect := EFFECTS.get(active.name)) is not None:
            self._undo[active.name] = effect(self, active)
        # What is measured has been wrong for a while already: the history is laid again.
        if active.name in LEAD_S:
            self.relay()
        self.settle()

    def fault_in_time(self, text: str) -> bool:
        """As ``fault``, or with its stage's change, if it comes with that; whether it has begun."""
        self.check_fault(text)
        name, stage = (active := parse(text, self.world)).name, active.stage
        if FAULTS[name].comes_with_change(stage) and not self._changed(stage):
            self._armed.append(text)
            return False
        self.fault(text)
        return True

    def restart(self, name: str) -> Running:
        """Restart a node; a fault that waited for the last of a change begins. StartupError."""
        running = self.fleet.restart(name)
        for text in tuple(self._armed):
            if self._changed(parse(text, self.world).stage):
                self._armed.remove(text)
                self.fault(text)
        return running

    def _changed(self, stage: str) -> bool:
        gates = {gate for gate, on in profile(stage).items() if on}
        nodes = [n for n in self._nodes(STAGE_CLUSTERS[stage]) if n.canary or stage != "canary"]
        return all(
            (running := self.fleet.running.get(node.name)) is not None
            and running.build.commit == self.release.commit
            and all(running.config.gates[gate] for gate in gates)
            for node in nodes
        )

    def check_fault(self, text: str) -> None:
        if FAULTS[parse(text, self.world).name].embedded and self.servers == "real":
            raise ValueError(f"fault {text!r}: expected embedded servers, got real ones")

    def clear(self, name: str) -> None:
        name = name.partition("@")[0]
        if self._end(name):
            self.relay()
        self.settle()

    def heal(self) -> None:
        """End every fault; what is measured is for the caller to lay again."""
        for active in tuple(self.faults):
            self._end(active.name)

    def _end(self, name: str) -> bool:
        if self.faults.switch_off(name) is None:
            return False
        events = len(self.world.events)
        self._undo.pop(name, lambda: None)()
        return name in LEAD_S or len(self.world.events) < events

    def relay(self, seconds: float = 0.0) -> None:
        """Let the clock run ahead; with 0, lay the history of what is measured again."""
        if self.telemetry is None:
            self.world.clock.advance(seconds)
        else:
            self.telemetry.relay(seconds)

    def fast_forward(self, seconds: float) -> None:
        """Let that much time pass at once, for people, the chain, its telemetry and its alerts."""
        self.operators.settle()
        self.relay(seconds)
        broken = {one.cluster for one in self.faults if FAULTS[one.name].layer == "assets"}
        for cluster in self.world.clusters.keys() - broken:
            self.assets.back_up_when_due(cluster)
        self.settle()
        with contextlib.suppress(AttributeError):  # glibc alone keeps what it was given back
            ctypes.CDLL(None).malloc_trim(0)

    def settle(self) -> None:
        """Wait until alerts would arrive; a real Prometheus needs some seconds for that."""
        if self.telemetry is not None:
            self.telemetry.settle()

    def bring_up(self, name: str) -> None:
        """Start a node that is down; one that its own files keep down stays so."""
        if name not in self.fleet.running:
            with contextlib.suppress(StartupError):
                self.fleet.restart(name)

    def start_node(self, name: str) -> None:
        """Start a node that is down. A chain goes on once a quorum of it starts from one state;
        whoever still runs on other data stays behind."""
        if name not in self.fleet.running:
            self.fleet.restart(name)
        cluster = self.fleet.spec(name).cluster
        for active in list(self.faults):
            if active.name in HALTS and active.cluster == cluster and self._restored(cluster):
                height = state_at(self.world, cluster, self.world.clock.now()).height
                others = [n.name for n in self._nodes(cluster) if n.name in self.fleet.running]
                others = [n for n in others if n not in self.fleet.restored]
                self.fleet.stuck |= dict.fromkeys(others, height)
                self.clear(active.name)

    def _restored(self, cluster: str) -> bool:
        power: dict[tuple[int, str], int] = {}
        for spec in self._nodes(cluster):
            state = self.fleet.restored.get(spec.name)
            if state is not None and spec.name in self.fleet.running:
                power[state] = power.get(state, 0) + voting_power(spec)
        total = sum(voting_power(spec) for spec in self._nodes(cluster))
        return max(power.values(), default=0) >= quorum_of(total)

    def reinstall(self, cluster: str) -> None:
        """Put every node of a cluster back to what it began as, and restart those that differ."""
        self.operators.forget()
        self.fleet.stuck.clear()
        self.rpc.refill()
        folders = {n.name: self.world.node_dir(cluster, n.name) for n in self._nodes(cluster)}
        files = [f / name for f in folders.values() for name in ("config.toml", "bin/rpp-node")]
        before = {path: path.read_bytes() for path in files}
        layout.write_nodes(self.world, self.release, cluster)
        for name, folder in folders.items():
            moved = any(p.read_bytes() != was for p, was in before.items() if folder in p.parents)
            if moved or name not in self.fleet.running:
                self.fleet.restart(name)

    def _nodes(self, cluster: str) -> Sequence[NodeSpec]:
        return self.world.clusters[cluster].nodes

    def install_candidate(self) -> list[str]:
        """The canaries' operators install the release: each keeps its configuration and is
        restarted. Returns their names. Raises Failed."""
        artifact, digest = self.release.artifact, digest_of(self.release.artifact)
        canaries = [spec for spec in self._nodes("mainnet") if spec.canary]
        for spec in canaries:
            config = self.world.node_dir(spec.cluster, spec.name) / "config.toml"
            self.command("deploy", spec.name, str(artifact), digest, str(config))
            self.command("restart", spec.name)
        return [spec.name for spec in canaries]

    def command(self, *words: str, by: str = "") -> str:
        """What a command of the site prints, by us or by an operator. Raises Failed."""
        return run(self, [*words], by)

    def provision(self, cluster: str, name: str, config: str) -> NodeSpec:
        if self.faults.is_on("provision-wrong-gates"):
            config = config.replace("timetoke_rewards = false", "timetoke_rewards = true")
        silent = self.faults.is_on("provision-no-answer")
        return self.fleet.provision(cluster, name, config, silent=silent)

    def save(self, folder: Path) -> Saved:
        return Saved(self, folder)


def serve(
    root: Path, ready: Callable[[RehearsalNetwork], None] = lambda network: None, **options: Any
) -> None:
    """A network in the foreground until SIGINT or SIGTERM; ``ready`` is called once it answers."""
    stop: SimpleQueue[None] = SimpleQueue()  # put() is safe in a signal handler
    before = {
        number: signal.signal(number, lambda *_: stop.put(None))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with RehearsalNetwork(root, **options) as network:
            ready(network)
            stop.get()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
