"""A rehearsal network for whole runs, and our commands as a person starts them: as processes."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from runbook_lib import opening, playbook
from runbook_lib.changes import apply
from runbook_lib.changes.adopt import adopt
from runbook_lib.checks import development, preflight
from runbook_lib.context import Judge
from runbook_lib.errors import StageRefused
from runbook_lib.notebook import NOTEBOOKS
from runbook_lib.outcomes import CheckResult
from runbook_lib.params import STAGE_PARAMS
from runbook_lib.sources.tape import Entry, read_entries
from runbook_lib.stage import Stage, open_stage
from runbook_lib.strict import parse_yaml
from runbook_lib.verdicts import Verdict
from runbook_rehearsal.chain.templates import node_config
from runbook_rehearsal.chain.world import profile
from runbook_rehearsal.files import unpack
from runbook_rehearsal.network import RehearsalNetwork

from ..conftest import mutations as changes_of
from ..conftest import ran, started, unmeasured

NOTEBOOK = "10_development.ipynb"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module", autouse=True)
def impatient() -> Iterator[None]:
    """Who answers on loopback answers soon: changes look again more often than at a real node,
    and a question is asked again without a pause."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apply, "POLL_S", 0.1)
        patch.setattr("runbook_lib.sources.github.SECONDARY_S", 0.0)
        patch.setattr("runbook_lib.sources.http.FIRST_WAIT_S", 0.0)
        yield


@dataclass
class Operator:
    """Somebody with a shell, a home and a temporary directory of their own."""

    home: Path
    secrets: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    network: RehearsalNetwork | None = None
    measured: bool = True
    _releases: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def before(self) -> list[Path]:
        """The artifact that the network's nodes began with."""
        assert self.network is not None
        return [self.network.release.previous_artifact]

    @property
    def temporary(self) -> Path:
        return self.home / "tmp"

    @property
    def environment(self) -> dict[str, str]:
        given = os.environ if self.measured else unmeasured()
        ours = {k: v for k, v in given.items() if not k.startswith("RUNBOOK_")}
        self.temporary.mkdir(exist_ok=True)
        path = os.pathsep.join([str(BIN), ours["PATH"]])
        return {
            **ours,
            "PATH": path,
            "TMPDIR": str(self.temporary),
            "JUPYTER_RUNTIME_DIR": str(self.home / "runtime"),
            **self.env,
        }

    def run(self, *argv: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        return ran(*argv, cwd=self.home, env=self.environment | env)

    def start(self, *argv: str | Path) -> subprocess.Popen[str]:
        return started(*argv, cwd=self.home, env=self.environment)

    def papermill(self, output: str, *more: str | Path, **env: str) -> Any:
        argv = ("papermill", "--engine", "runbook", NOTEBOOKS / NOTEBOOK, output)
        return self.run(*argv, *more, **env)

    # --- on a network ---------------------------------------------------------------------------

    @property
    def params(self) -> Path:
        assert self.network is not None
        return self.network.params["development"]

    @property
    def site(self) -> Path:
        assert self.network is not None
        return self.network.site

    def release(self) -> str:
        """The network's release under a name of its own, so that runs have nothing in common."""
        assert self.network is not None
        name = f"v1.4.0-{next(self._releases)}"
        artifacts = self.network.root / "artifacts"
        shutil.copytree(artifacts / "v1.4.0", artifacts / name)
        return name

    def attempt(self, release: str, number: int = 1) -> Path:
        assert self.network is not None
        return self.network.root / "store" / release / "development" / f"{number:04d}"

    @contextlib.contextmanager
    def fault(self, name: str) -> Iterator[None]:
        assert self.network is not None
        self.network.fault(f"{name}@development")
        try:
            yield
        finally:
            self.network.clear(name)


def given(network: RehearsalNetwork, runbook: str, **changes: Any) -> dict[str, Any]:
    """The parameters of a runbook on the network: its release, and a window that is open."""
    model, now = STAGE_PARAMS[runbook], network.now.replace(microsecond=0)
    window = {"window_start": now - timedelta(hours=1), "window_end": now + timedelta(hours=8)}
    known = {
        "site": str(network.site),
        "release": "v1.4.0",
        "commit": network.release.commit,
        **{name: at.isoformat() for name, at in window.items()},
    }
    return {
        **model().model_dump(),
        **{name: value for name, value in known.items() if name in model.model_fields},
        **changes,
    }


@contextlib.contextmanager
def opened(runbook: str, params: dict[str, Any]) -> Iterator[Stage]:
    """A stage, closed again whatever happens."""
    stage = open_stage(runbook, params)
    try:
        yield stage
    finally:
        stage.close()


def enter(network: RehearsalNetwork, patch: pytest.MonkeyPatch) -> None:
    """Whoever runs a stage here has the network's tokens, and no stage before it."""
    for name, value in network.env.items():
        patch.setenv(name, value)
    patch.setattr(opening, "require_order", lambda *given: None)


@contextlib.contextmanager
def practising(root: Path, **options: Any) -> Iterator[tuple[RehearsalNetwork, pytest.MonkeyPatch]]:
    """A network that is entered, for as long as it is up."""
    with pytest.MonkeyPatch.context() as patch, RehearsalNetwork(root, **options) as network:
        enter(network, patch)
        yield network, patch


@contextlib.contextmanager
def operating(root: Path, *, measured: bool = True) -> Iterator[Operator]:
    """An operator whose development cluster is up and adopted."""
    home = root / "home"
    home.mkdir(parents=True)
    with practising(root / "network") as (network, _):
        adopt(str(network.site), "development", artifacts=[network.release.previous_artifact])
        secrets = tuple(network.env[name] for name in ("RPP_RPC_TOKEN", "GITHUB_TOKEN"))
        yield Operator(home, secrets, dict(network.env), network, measured)


def held(make: Callable[..., contextlib.AbstractContextManager[Any]], **options: Any) -> Any:
    """A module's fixture: what ``make`` makes in a folder of its own, closed after the last test."""

    @pytest.fixture(scope="module")
    def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
        with make(tmp_path_factory.mktemp("held"), **options) as found:
            yield found

    return made


def practised(**options: Any) -> Callable[[Callable[..., object]], Any]:
    """A module's fixture: a network that is entered, and prepared by what this decorates."""

    def fixture(prepare: Callable[..., object]) -> Any:
        @contextlib.contextmanager
        def prepared(root: Path) -> Iterator[RehearsalNetwork]:
            with practising(root, **options) as (network, patch):
                prepare(network, patch)
                yield network

        return held(prepared)

    return fixture


@practised(telemetry=False, sizes={"development": 2, "testnet": 1, "mainnet": 2})
def issuing(network: RehearsalNetwork, patch: pytest.MonkeyPatch) -> None:
    """A small network, and a development stage of two items: drift, and the release issue."""
    items = ("preflight.config-drift", "preflight.release-issue")
    patch.setitem(playbook.DECLARED, "development", items)
    patch.setitem(playbook.PLAN_BEFORE, "development", items[1])
    adopt(str(network.site), "development", artifacts=[network.release.previous_artifact])


@pytest.fixture
def network(issuing: RehearsalNetwork) -> Iterator[RehearsalNetwork]:
    """The same, its forge with an empty issue and no releases, whole again afterwards."""
    issuing.forge.comments.clear()
    issuing.forge.releases.releases.clear()
    issuing.world.clock.advance(61)
    yield issuing
    clear(issuing)


@contextlib.contextmanager
def ready_to_post(network: RehearsalNetwork, **changes: Any) -> Iterator[Stage]:
    """The stage of ``issuing`` with drift judged and its plan made."""
    file = network.params["development"]
    params = given(network, "development") | parse_yaml(file.read_bytes(), file.name) | changes
    with opened("development", params) as stage:
        stage.check(preflight.config_drift)
        stage.plan(development.plan)
        yield stage


@contextlib.contextmanager
def in_the_way_of_kits(network: RehearsalNetwork) -> Iterator[None]:
    """No recovery kit can be written."""
    place = network.root / "kits"
    aside = place.with_name("kits.aside")
    if place.exists():
        place.rename(aside)
    place.write_text("in the way")
    try:
        yield
    finally:
        place.unlink()
        if aside.exists():
            aside.rename(place)


def entries(attempt: Path) -> list[dict[str, Any]]:
    """The log's entries, read as plain lines."""
    lines = (attempt / "log.jsonl").read_bytes().splitlines()
    return [json.loads(line) for line in lines]


def plan_digest(attempt: Path) -> str:
    return next(str(e["digest"]) for e in entries(attempt) if e["kind"] == "plan")


def mutations(attempt: Path) -> list[Entry]:
    """The entries of its tape that changed the world."""
    return changes_of(read_entries(attempt / "tape"))


def ended(stage: Stage) -> tuple[Verdict, Path]:
    """Its last cell run: the verdict, and the attempt's folder."""
    with contextlib.suppress(StageRefused):
        stage.enforce()
    return stage.verdict(), stage.folder


def alone(runbook: str, check: Judge, params: dict[str, Any]) -> tuple[Verdict, CheckResult, Path]:
    """A check that is the stage's one item: verdict, result, and the attempt's folder."""
    with opened(runbook, params) as stage:
        stage.check(check)
        verdict, folder = ended(stage)
    result = verdict.items[0].result
    assert result is not None
    return verdict, result, folder


@contextlib.contextmanager
def edited(network: RehearsalNetwork, change: Callable[[dict[str, Any]], Any]) -> Iterator[None]:
    """The network's site file changed, for as long."""
    before = network.site.read_text()
    document = yaml.safe_load(before)
    change(document)
    network.site.write_text(yaml.safe_dump(document))
    try:
        yield
    finally:
        network.site.write_text(before)


def clear(network: RehearsalNetwork) -> None:
    """Repair whatever a test broke."""
    for active in list(network.faults):
        network.clear(active.name)


@contextlib.contextmanager
def fault(network: RehearsalNetwork, text: str) -> Iterator[None]:
    network.fault(text)
    try:
        yield
    finally:
        network.clear(text)


def finish(network: RehearsalNetwork, cluster: str) -> None:
    """Every node of a cluster as the first release's last stage there left it."""
    spec = network.world.clusters[cluster]
    for node in spec.nodes:
        folder = network.world.node_dir(cluster, node.name)
        text = node_config(node, spec, cluster, profile(cluster))
        (folder / "config.toml").write_text(text)
        (folder / "bin" / "rpp-node").write_bytes(unpack(network.release.artifact))
        network.fleet.restart(node.name)


def left_in(operator: Operator) -> list[str]:
    """What runs left in the temporary and Jupyter's runtime directories."""
    places = (operator.temporary, operator.home / "runtime")
    return sorted(p.name for place in places if place.exists() for p in place.rglob("*"))


def processes_of(operator: Operator) -> list[int]:
    """Processes that an operator's runs started, by their environment."""
    mark, found = f"TMPDIR={operator.temporary}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has just ended
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found
