"""An activation that is killed, interrupted or met by another: it goes on where it stopped."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.changes.adopt import adopt
from runbook_lib.evidence.record import parse
from runbook_lib.params import STAGE_PARAMS
from runbook_lib.rehearsal.network import RehearsalNetwork
from runbook_lib.strict import PROJECT

from ..conftest import unmeasured
from .conftest import entries

DRIVER = Path(__file__).with_name("activation.py")
NODES = {
    "testnet": [f"test-{number}" for number in range(1, 8)],
    "mainnet": [f"main-{number}" for number in range(1, 8)],
}
GATES = {"testnet": "malachite_consensus", "mainnet": "witness_network"}
OURS = 4  # of the seven; each of the others has its own operator
DEPLOY = "testnet.activate.deploy"


@dataclass
class Activation:
    """One release's activation on a network, run by one process after the other.

    Testnet installs the release and turns the gate on by a change each, mainnet both by one.
    """

    network: RehearsalNetwork
    stage: str
    release: str
    folder: Path = field(init=False)
    params: dict[str, Any] = field(init=False)
    before: int = field(init=False)

    def __post_init__(self) -> None:
        now = datetime.fromtimestamp(self.network.world.clock.now(), UTC).replace(microsecond=0)
        self.params = {
            **STAGE_PARAMS[self.stage]().model_dump(),
            "site": str(self.network.site),
            "release": self.release,
            "commit": self.network.release.commit,
            "window_start": (now - timedelta(hours=1)).isoformat(),
            "window_end": (now + timedelta(hours=8)).isoformat(),
        }
        planned = self.run(mode="plan")
        store = self.network.root / "store" / self.release / self.stage
        plan = next(e for e in entries(store / "0001") if e["kind"] == "plan")
        assert planned["exit_code"] == 0, planned
        self.params |= {"mode": "apply", "approved_plan": plan["body"]["digest"], "wait": True}
        self.folder = store / "0002"
        self.before = len(self.network.world.events)

    @contextmanager
    def started(self, env: dict[str, str], **changes: Any) -> Iterator[subprocess.Popen[str]]:
        file = self.network.root / f"{self.release}-{time.monotonic_ns()}.json"
        file.write_text(json.dumps({**self.params, **changes}))
        with subprocess.Popen(
            [sys.executable, str(DRIVER), self.stage, str(file)],
            env={**unmeasured(), **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            yield process

    def run(self, env: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
        """What it came to; without an ``exit_code`` when it did not end by itself."""
        if "mode" not in changes and self.folder.exists():
            changes["attempt"] = 2
        with self.started(env or {}, **changes) as process:
            out, err = process.communicate(timeout=120)
        said = json.loads(out.splitlines()[-1]) if process.returncode == 0 else {}
        return {"code": process.returncode, "err": err, **said}

    def steps(self, phase: str) -> Counter[tuple[str, str]]:
        """(node, step) -> how often the journal has it in that phase."""
        bodies = [e["body"] for e in entries(self.folder) if e["kind"] == "step"]
        return Counter((b["node"], b["step"]) for b in bodies if b["phase"] == phase)

    def require_done(self) -> None:
        """Everything was made, once; the record reads; the nodes run what was planned."""
        parse((self.folder / "record.jsonl").read_bytes(), "record")
        done, events = self.steps("done"), self.network.world.events[self.before :]
        assert set(done.values()) == {1}
        assert len(done) == 2 * 2 * OURS + 2 * 3
        ups = Counter(event.node for event in events if event.kind == "up")
        assert ups == dict.fromkeys(NODES[self.stage], 2)
        for name in NODES[self.stage]:
            assert self.network.fleet.running[name].config.gates[GATES[self.stage]]
            assert self.network.fleet.running[name].build.version == "v1.4.0"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalNetwork]:
    root = tmp_path_factory.mktemp("activation") / "network"
    with (
        pytest.MonkeyPatch.context() as patch,
        RehearsalNetwork(root, telemetry=False) as made,
    ):
        for name, value in made.env.items():
            patch.setenv(name, value)
        yield made


def fresh(network: RehearsalNetwork, stage: str) -> Activation:
    """Of a release of its own, on a cluster that is as it began."""
    network.reinstall(stage)
    adopt(str(network.site), stage)
    artifacts = network.root / "artifacts"
    release = f"v1.4.0-{len(list(artifacts.iterdir()))}"
    (artifacts / release).symlink_to(artifacts / "v1.4.0")
    return Activation(network, stage, release)


@pytest.fixture
def activation(network: RehearsalNetwork) -> Activation:
    return fresh(network, "testnet")


@pytest.mark.parametrize("stage", NODES)
def test_killed_twenty_times_it_is_made_once(network: RehearsalNetwork, stage: str) -> None:
    """Each run is killed as soon as it has journalled two more entries, the next goes on there."""
    activation, codes = fresh(network, stage), []
    while (found := activation.run({"KILL_AT": "4"}))["code"] == -signal.SIGKILL:
        codes.append(found["code"])
        assert len(codes) < 60

    assert len(codes) >= 20
    assert found.get("exit_code") == 0, found
    activation.require_done()


def test_killed_beside_a_command_that_goes_on(activation: Activation) -> None:
    """Nobody works beside it: the next run says who holds the lock, and later finds it done."""
    activation.network.fault("slow-deploy@testnet")
    try:
        killed = activation.run({"KILL_AT": "5", "KILL_AFTER_S": "0.8"})
    finally:
        activation.network.clear("slow-deploy")
    beside = activation.run()
    while (found := activation.run())["exit_code"] == 2:
        time.sleep(0.2)

    assert killed["code"] == -signal.SIGKILL
    held = f"held by rehearsal ({activation.release}/testnet/0002)"
    assert held in beside["reasons"][DEPLOY]
    assert found["exit_code"] == 0, found
    assert activation.steps("intent")["test-1", "deliver"] == 1
    activation.require_done()


def test_stopped_by_hand_it_goes_on(activation: Activation) -> None:
    """Ctrl-C inside a wave, then between two: recorded as stopped, and resumed like any other end."""
    stopped = [activation.run({"STOP_AT": at}) for at in ("8", "9")]
    kinds = [entry["kind"] for entry in entries(activation.folder)]
    found = activation.run()

    assert [run["code"] for run in stopped] == [-signal.SIGINT] * 2
    assert kinds.count("stopped") == 2
    assert kinds[-1] == "stopped"
    assert found["exit_code"] == 0, found
    activation.require_done()


def test_two_applies_at_once_one_runs(activation: Activation, tmp_path: Path) -> None:
    """From two clones and one store: the other says who holds the cluster's lock."""
    for part in ("runbook_lib", "params"):
        shutil.copytree(PROJECT / part, tmp_path / part)
    with activation.started({"PAUSE_AT": "6"}) as first:
        assert first.stdout is not None
        assert first.stdin is not None
        assert first.stdout.readline() == "paused\n"
        other = activation.run({"PYTHONPATH": str(tmp_path)}, mode="apply")
        first.stdin.write("\n")
        first.stdin.flush()
        out, err = first.communicate(timeout=120)

    assert other["exit_code"] == 2
    assert other["project"] == str(tmp_path)
    held = f"held by rehearsal ({activation.release}/testnet/0002)"
    assert f"testnet: lock: expected free, got {held}" in other["reasons"][DEPLOY]
    assert json.loads(out)["exit_code"] == 0, out + err
    activation.require_done()


@pytest.mark.torture
@pytest.mark.parametrize("at", range(1, 66))
@pytest.mark.parametrize("stage", NODES)
def test_killed_at_any_entry_it_is_made_once(
    network: RehearsalNetwork, stage: str, at: int
) -> None:
    """Every point of the journal, one by one."""
    activation = fresh(network, stage)
    activation.run({"KILL_AT": str(at)})
    found = activation.run()

    assert found["exit_code"] == 0, found
    activation.require_done()


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(100))
def test_killed_at_any_time_it_is_made_once(activation: Activation, seed: int) -> None:
    """Wherever it is: in a command, between two, in the middle of a write."""
    after = random.Random(seed).uniform(0.05, 6.0)
    activation.run({"KILL_AT": "1", "KILL_AFTER_S": str(after)})
    while (found := activation.run())["exit_code"] == 2:
        time.sleep(0.2)

    assert found["exit_code"] == 0, found
    activation.require_done()
