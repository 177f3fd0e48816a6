"""A release carried through the practice network, which can be put back to any point it passed.

Each point is saved once, when the walk reaches it: the store, the nodes, the forge and the clock as
they were. A test asks for a point, breaks something and runs a notebook; the next one begins where
nothing of that has happened.
"""

from __future__ import annotations

import copy
import filecmp
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from runbook_rehearsal import layout
from runbook_rehearsal.chain.node_config import parse
from runbook_rehearsal.network import RehearsalNetwork

from . import seam

STAGES = ("development", "testnet", "canary", "mainnet")
NOTICE = timedelta(hours=25)
SOAK = timedelta(hours=49)
EPOCHS = {"canary": 11, "mainnet": 18}
SAMPLES = {"testnet.activate.gate": 6 * 3600.0, "canary.activate.witness-clients": 3600.0}
THREE_LOOKS_S = 46 * 60.0
SESSIONS = 12
KEPT = (
    "prometheus", "alertmanager", "faults", "checkout", "network.json", "control", "keys",
    "clock.json",
)  # fmt: skip
"""What of the network's folder no run changes, or its servers hold open."""
TOLD = {
    "summary": "Rehearsed: the release is taken back after its change took effect.",
    "impact": "Blocks were late or missing; no funds were at risk.",
    "mitigations": ["gates off on the affected nodes"],
    "next_steps": ["find the cause on development"],
}


def mirror(source: Path, target: Path, skip: tuple[str, ...] = ()) -> None:
    """Make ``target`` what ``source`` is; files of the same size and time are taken as equal."""
    target.mkdir(exist_ok=True)
    names = {entry.name: entry for entry in os.scandir(source) if entry.name not in skip}
    for entry in os.scandir(target):
        if entry.name not in names and entry.name not in skip:
            path = Path(entry.path)
            shutil.rmtree(path) if entry.is_dir(follow_symlinks=False) else path.unlink()
    for name, entry in names.items():
        there = target / name
        if entry.is_symlink():
            there.unlink(missing_ok=True)
            there.symlink_to(Path(entry.path).readlink())
        elif entry.is_dir():
            mirror(Path(entry.path), there)
        elif not there.exists() or not filecmp.cmp(entry.path, there):
            shutil.copy2(entry.path, there)
    shutil.copystat(source, target)


class Point:
    """The network as it was at one instant."""

    def __init__(self, practice: Practice, folder: Path) -> None:
        network = practice.network
        mirror(network.root, folder, KEPT)
        self.folder, self.now = folder, network.world.clock.now()
        self.offset = network.world.clock.offset
        self.events = tuple(network.world.events)
        self.split = slice(len(self.events)), slice(len(self.events), None)
        self.given = copy.deepcopy(practice.given)
        self.forge = {
            name: copy.deepcopy(getattr(network.forge, name)) for name in ("comments", "issues")
        }
        releases = network.forge.releases
        self.releases = dict(releases.releases), copy.deepcopy(releases.assets)
        self.done = set(network.operators._done)
        self.restored = dict(network.fleet.restored)
        self.backed_up = dict(network.assets._backed_up)

    def restore(self, practice: Practice) -> None:
        """Put everything back; the clock and the history only when they were moved."""
        network = practice.network
        for name in [active.name for active in network.faults]:
            network.clear(name)
        network.operators.forget()
        assert network.telemetry is not None
        network.telemetry._backend._alertmanager._silences.clear()  # it remembers those that ended
        moved = abs(network.world.clock.now() - self.now) > 900.0
        then, new = (tuple(network.world.events[part]) for part in self.split)
        changed = then != self.events or any(not one.kind.startswith("fault-") for one in new)
        others = self._others(network)
        for name in others:
            network.fleet.stop(name)
        mirror(self.folder, network.root, KEPT)
        for name in others:
            network.fleet.restart(name)
        network.fleet.stuck.clear()
        network.fleet.restored = dict(self.restored)
        network.assets._backed_up = dict(self.backed_up)
        for name, value in self.forge.items():
            held = getattr(network.forge, name)
            held.clear()
            held.update(copy.deepcopy(value))
        network.forge._writes.clear()
        releases = network.forge.releases
        releases.releases, releases.assets = copy.deepcopy(self.releases)
        network.operators._done = set(self.done)
        network.rpc.refill()
        practice.given = copy.deepcopy(self.given)
        if moved or changed:
            network.world.events[:] = self.events
            network.rpc._chains.clear()
            # Samples lie on a grid of wall time: whole minutes keep them where they were.
            late = 60.0 * math.floor((time.time() + self.offset - self.now) / 60.0)
            offset = json.dumps({"offset_s": self.offset - late})
            network.world.clock.path.write_text(offset)
            network.telemetry.relay()
            network.settle()

    def _others(self, network: RehearsalNetwork) -> list[str]:
        """Nodes that do not run on what they ran on then."""
        found = []
        for cluster in network.world.clusters.values():
            for spec in cluster.nodes:
                folder = self.folder / "clusters" / cluster.name / spec.name
                running = network.fleet.running.get(spec.name)
                build = json.loads((folder / "running.json").read_text())["digest"]
                config = parse((folder / "config.toml").read_text())
                if running is None or (running.build.digest, running.config) != (build, config):
                    found.append(spec.name)
        return found


class Practice:
    """One release, one network, and the points that the walk has passed."""

    def __init__(self, root: Path) -> None:
        self.network = RehearsalNetwork(
            root / "network", servers="embedded", history_s=36 * 3600.0, team=True
        )
        self.given: dict[str, dict[str, Any]] = {}
        self.healthy: dict[str, seam.Run] = {}
        self._points: dict[str, Point] = {}
        self._root, self._walk = root, self._steps()

    def __enter__(self) -> Practice:
        self.network.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.network.stop()

    def at(self, name: str) -> None:
        """Put everything back to that point; the walk goes on to it when it is the first time."""
        if name not in self._points:
            if self._points:
                [*self._points.values()][-1].restore(self)
            for reached in self._walk:
                self._points[reached] = Point(self, self._root / reached)
                if reached == name:
                    return
            raise KeyError(name)
        self._points[name].restore(self)

    @property
    def now(self) -> datetime:
        now = datetime.fromtimestamp(self.network.world.clock.now(), UTC)
        return now.replace(microsecond=0)

    def run(self, stage: str, **more: Any) -> seam.Run:
        """The stage's notebook with what this point gives it."""
        keywords = {name: more.pop(name) for name in ("item", "begin") if name in more}
        return seam.run(stage, {**self.given[stage], **more}, **keywords)

    def session(self, stage: str, **more: Any) -> seam.Run:
        """Run a stage, again as long as people do meanwhile what it waits for."""
        made, seen = self.run(stage, **more), set[tuple[str, ...]]()
        while made.exit_code in (2, 4) and (waits := made.waits) not in seen:
            seen.add(waits)
            self.network.operators.settle()
            made = self.run(stage, **{**more, "attempt": made.attempt})
        return made

    def come_back(self, run: seam.Run) -> None:
        """Let pass the time that a stage waits for and a minute, and what gives enough samples."""
        least = SAMPLES.get(run.blocking, 0.0)
        due = run.return_at or self.now
        self.network.fast_forward(max((due - self.now).total_seconds() + 61.0, least))

    # --- the walk -------------------------------------------------------------------------------

    def _steps(self) -> Iterator[str]:
        """Every point, in order; what happens before each is done when it is reached."""
        self._take_over()
        self.given |= {name: self._file(name) for name in ("preflight", "development")}
        yield "development.apply"
        yield from self._sessions("development")
        yield "development.recover"
        for stage in STAGES[1:]:
            yield from self._stage(stage)

    def _stage(self, stage: str) -> Iterator[str]:
        start = self.now + {"testnet": SOAK}.get(stage, self._epochs(stage))
        start += NOTICE if stage == "mainnet" else timedelta()
        end = start + layout.WINDOW
        network = self.network
        self.given[stage] = layout.rollout(network.world, network.release, start, end)
        if stage == "canary":
            network.install_candidate()
        yield f"{stage}.silent"
        if stage == "testnet":
            network.speak("acknowledge", stage, start, end)
        self.pass_until(start - (NOTICE if stage == "mainnet" else timedelta()))
        yield f"{stage}.plan"
        self.healthy[f"{stage} plan"] = planned = self.run(stage)
        digest = planned.plan
        self.given[stage] |= {"mode": "apply", "approved_plan": digest}
        for account in (layout.COMMANDER, *([layout.SECOND] if stage == "mainnet" else [])):
            network.say(account, f"approve {digest}")
        yield f"{stage}.unsigned"
        if stage == "mainnet":
            network.speak("sign-off", stage, start, end, digest)
        yield f"{stage}.apply"
        yield from self._sessions(stage)
        yield f"{stage}.recover"

    def _sessions(self, stage: str) -> Iterator[str]:
        """The apply until it passes; a point, named after what waits, each time that time passed."""
        for _ in range(SESSIONS):
            made = self.session(stage)
            self.given[stage]["attempt"] = made.attempt
            if made.exit_code != 4:
                break
            waiting = seam.short(made.blocking)
            if waiting == "watch":
                self.come_back(made)
                self.network.fast_forward(THREE_LOOKS_S)
                yield "mainnet.watch"
                self.network.fast_forward(24 * 3600.0)
            else:
                self.come_back(made)
                known = f"{stage}.{waiting}" in self._points
                yield f"{stage}.{waiting}" + ("+" if known else "")
        self._seal(made)

    def _seal(self, run: seam.Run) -> None:
        code, said = seam.command("seal", run.folder)
        assert (run.exit_code, code) == (0, 0), said
        self.healthy[run.stage] = run
        self.given[f"{run.stage}_recovery"] = self._recovery(run.stage)

    def _take_over(self) -> None:
        """Every cluster is adopted, on the commander's word."""
        before = self.network.release.previous_artifact
        for cluster in self.network.world.clusters:
            argv = ("adopt", "--site", self.network.site, "--cluster", cluster)
            argv = (*argv, "--artifact", before, "--issue", layout.ISSUE, "--json")
            digest = json.loads(seam.command(*argv)[1])["digest"]
            self.network.say(layout.COMMANDER, f"approve {digest}")
            code, said = seam.command(*argv)
            assert code == 0, said

    def pass_until(self, instant: datetime) -> None:
        left = (instant - self.now).total_seconds()
        if left > 0:
            self.network.fast_forward(left)

    def _epochs(self, stage: str) -> timedelta:
        spec = self.network.world.clusters["mainnet"]
        seconds = EPOCHS.get(stage, 0) * spec.epoch_length * spec.block_time_s
        return timedelta(seconds=seconds) + timedelta(minutes=10)

    def _file(self, stage: str) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(self.network.params[stage].read_text())
        return found

    def _recovery(self, stage: str) -> dict[str, Any]:
        """The parameters of a stage's recovery, as its commander fills them in."""
        common = {key: self.given[stage][key] for key in ("site", "release", "commit", "issue")}
        return {**common, "mode": "apply", "previous_release": layout.PREVIOUS, **TOLD}
