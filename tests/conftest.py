"""What all tests share: their settings, and a stage on a site of plain files.

What the checks of such a stage find and what its changes do is said by the test.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from runbook_lib import open_stage, playbook
from runbook_lib.canonical import canonical
from runbook_lib.changes.apply import Applier, Change, Step
from runbook_lib.cli import main
from runbook_lib.context import Context, Judge, judges
from runbook_lib.errors import RunbookError
from runbook_lib.evidence.events import Event
from runbook_lib.evidence.log import Log
from runbook_lib.evidence.replay import seal_by_hand
from runbook_lib.evidence.store import Store
from runbook_lib.evidence.verify import verify
from runbook_lib.notebook import NOTEBOOKS
from runbook_lib.outcomes import CheckResult, Outcome, Row, check_row
from runbook_lib.params import DevelopmentParams, Waiver
from runbook_lib.plan import Artifact, NodePlan, NodeState, Phase, Plan
from runbook_lib.reach import Command
from runbook_lib.recording import recorded_site
from runbook_lib.signers import Trust
from runbook_lib.sources.tape import Answer, Read, Slot, Tape, read_entries
from runbook_lib.sources.tape import Entry as TapeEntry
from runbook_lib.stage import Stage
from runbook_lib.strict import PROJECT, parse_yaml

# A first example pays for imports, and machines are shared: time is no property to test here.
settings.register_profile("runbooks", deadline=None)
settings.load_profile("runbooks")


def mutations(entries: Iterable[TapeEntry]) -> list[TapeEntry]:
    """The entries of a tape that changed the world."""
    return [entry for entry in entries if entry.purpose == "change"]


LONG = ("net", "stages", "browser", "notebooks", "rehearsal")
"""Folders of tests that start networks, kernels and servers."""
MATRIX = "net/test_matrix.py"
LATE = ("canary:", "mainnet:")
"""What the matrix tests on the way to mainnet is one walk; so is what comes before."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first: workers take files in this order, and the short ones fill up the end."""
    items.sort(key=lambda item: [*LONG, item.path.parent.name].index(item.path.parent.name))


class Groups(LoadFileScheduling):
    """A file's tests stay on one worker, those of the matrix by the half of the way they belong to."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        _, found, case = test.partition("[")
        late = bool(found) and file.endswith(MATRIX) and case.startswith(LATE)
        return f"{file}, late" if late else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    return Groups(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where servers and a browser are required, a test skipped for want of one fails."""
    report = yield
    required = os.environ.get("RUNBOOK_REQUIRE_SERVERS") == "1"
    if (
        required
        and report.skipped
        and {"servers", "browser"} & {m.name for m in item.iter_markers()}
    ):
        report.outcome, report.longrepr = "failed", f"required here: {report.longrepr[2]}"
    return report


def unmeasured() -> dict[str, str]:
    """The environment for a process whose lines other tests cover: tracing it only costs time."""
    return {name: v for name, v in os.environ.items() if name != "COVERAGE_PROCESS_CONFIG"}


def ran(*argv: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """A process that has ended, and what it said."""
    known = {"capture_output": True, "text": True, "timeout": 150, "check": False}
    return subprocess.run([str(word) for word in argv], **{**known, **options})


def started(*argv: str | Path, **options: Any) -> subprocess.Popen[str]:
    """A process at work, whose input and output are pipes."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([str(word) for word in argv], text=True, **{**pipes, **options})


def path_of(folder: Path, *programs: str) -> str:
    """A ``PATH`` with these programs alone, as links in ``folder``."""
    if not folder.exists():
        folder.mkdir()
        for name in programs:
            (folder / name).symlink_to(str(shutil.which(name)))
    return str(folder)


def until(holds: Callable[[], Any], what: str, within: float = 60.0) -> Any:
    """What ``holds`` finds, once it is something."""
    deadline = time.monotonic() + within
    while not (found := holds()):
        assert time.monotonic() < deadline, f"expected within {within:g} s: {what}"
        time.sleep(0.02)
    return found


def blank(name: str) -> Any:
    """A shipped notebook without outputs."""
    import nbformat  # two seconds, which the process that hands out tests need not wait for

    book = nbformat.read(NOTEBOOKS / name, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return book


def benchmark(name: str) -> ModuleType:
    """A script of ``bench/`` as a module."""
    spec = spec_from_file_location(f"bench_{name}", PROJECT / "bench" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SMALL = (
    "preflight.config-drift",
    "development.ready.ci-green",
    "development.ready.telemetry-reachable",
    "development.ready.provision",
    "development.activate.deploy",
    "development.activate.smoke-suites",
    "development.activate.baseline",
)
"""A development stage small enough to reason about: what its machinery is tested with."""
DRIFT, CI, REACHABLE, PROVISION, DEPLOY, SUITES, BASELINE = SMALL
PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
NOWHERE = "http://127.0.0.1:9"
ALICE, BOB = "alice", "bob"
READ = Read()
CELLS = (
    "stage.check(preflight.config_drift",
    "stage.check(development.",
    "stage.change(development.",
)
"""The cells of the shipped notebook whose items the small stage has."""


def states(stage: Stage) -> dict[str, str]:
    """The state of each item."""
    return {item.item: item.state for item in stage.verdict().items}


def not_passed(rows: Iterable[Row], *names: str) -> list[tuple[Any, ...]]:
    """These attributes of the rows that are not PASS."""
    bad = [row for row in rows if row.outcome is not PASS]
    return [tuple(getattr(row, name) for name in names) for row in bad]


def text(card: Any) -> str:
    """A card as a terminal shows it."""
    return card._repr_mimebundle_()[0]["text/plain"]


def recorded(tape: Tape, slot: Slot, body: bytes = b"", answer: Answer = READ) -> TapeEntry:
    """An entry on a tape."""
    return tape.answer(slot, lambda: (answer, body), "read", datetime.now(UTC))[0]


def short(item: str) -> str:
    """The keyword that stands for an item in ``Practice.walk``."""
    return item.split(".")[-1].replace("-", "_")


def named(key: Ed25519PrivateKey) -> str:
    """Its public key as a site names it."""
    return f"ed25519:{base64.b64encode(key.public_key().public_bytes_raw()).decode()}"


def as_pem(key: Any, passphrase: bytes = b"") -> bytes:
    """A private key as a file of PEM."""
    how = serialization.BestAvailableEncryption(passphrase) if passphrase else None
    return bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            how or serialization.NoEncryption(),
        )
    )


def stages_of(*names: str) -> dict[str, Any]:
    """What a site says of these stages, each on a cluster of its own."""
    clusters = {
        name: {"chain_id": f"rpp-{name}", "nodes": [{"name": f"{name}-1", "url": NOWHERE}]}
        for name in names
    }
    return {"stages": {name: name for name in names}, "clusters": clusters}


def example_site() -> dict[str, Any]:
    """The values of the site file that explains every key."""
    return parse_yaml((PROJECT / "params/sites/example.yaml").read_bytes(), "example.yaml")


def put(values: Any, key: str, value: Any) -> Any:
    """``values`` with one dotted key set; numbers are places in lists, and tables are made."""
    at, (*path, last) = values, key.split(".")
    for word in path:
        at = at[int(word)] if isinstance(at, list) else at.setdefault(word, {})
    at[int(last) if isinstance(at, list) else last] = value
    return values


def signed_file(key: Ed25519PrivateKey, **statement: Any) -> str:
    """A document of somebody's word, as a folder of words holds it."""
    signature = base64.b64encode(key.sign(canonical(statement))).decode()
    return json.dumps({"statement": statement, "signature": signature})


def trust_of(folder: Path) -> Trust:
    """Who may sign, as the attempt's own site says: no reader would believe it."""
    return recorded_site(folder, "site").trust


ALICES_KEY = Ed25519PrivateKey.from_private_bytes(b"a" * 32)
ALICES = Trust.model_validate({"signers": {"keys": [{"name": ALICE, "key": named(ALICES_KEY)}]}})
"""Who may sign what is sealed in tests."""


def red(folder: Path, by: Trust | None = ALICES, head: str = "") -> dict[str, str]:
    """Step -> what was found, of every step of the verification that does not hold."""
    rows, _ = verify(folder, by, head=head)
    return {row.what: str(row.observed) for row in rows if row.outcome is not PASS}


class Terminal:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def run(self, *argv: str | Path) -> int:
        """A command's exit code."""
        try:
            return main([str(word) for word in argv])
        except SystemExit as left:
            return int(left.code or 0)
        finally:
            self.out, self.err = self._capsys.readouterr()

    def json(self, *argv: str | Path) -> Any:
        """The one document that a command prints with --json."""
        self.code = self.run(*argv, "--json")
        return json.loads(self.out)


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys)


class Practice:
    """A site, its store and its clock below ``root``, and stages opened on them."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch
        self.root, self.site = root, root / "site.yaml"
        self.clock, self.world, self.ledger = root / "clock", root / "world", root / "ledger"
        self.key = Ed25519PrivateKey.from_private_bytes(b"b" * 32)
        self.pem = root / "alice.pem"
        self.pem.write_bytes(as_pem(ALICES_KEY))
        self.params: dict[str, Any] = {
            **DevelopmentParams().model_dump(),
            "site": str(self.site),
            "release": "v1.4.0",
            "commit": "c0ffee" * 6 + "abcd",
            "mode": "apply",
        }
        self._open: list[Stage] = []
        (root / "store").mkdir()
        (root / "store").chmod(0o2775)
        self.wind(0)
        self.world.write_text("all is well")
        self.write_site()

    # --- the world ------------------------------------------------------------------------------

    def write_site(self, **changes: Any) -> None:
        site = {
            "name": "practice",
            "clock": {"source": "offset-file", "path": str(self.clock)},
            "store": str(self.root / "store"),
            "bundle": {"path": str(self.root / "bundle.toml")},
            "people": [
                {"name": "Alice", "account": ALICE},
                {"name": "Bob", "account": BOB, "key": named(self.key)},
            ],
            "stages": {"development": "development"},
            "clusters": {
                "development": {
                    "chain_id": "rpp-practice",
                    "nodes": [{"name": "dev-1", "url": NOWHERE}],
                }
            },
            "telemetry": {
                "prometheus": {"url": NOWHERE},
                "alertmanager": {"url": NOWHERE},
                "backends": ["prometheus"],
            },
            "forge": {
                "kind": "github",
                "url": NOWHERE,
                "repository": "practice/chain",
                "token_env": "GITHUB_TOKEN",
                "account": "practice[bot]",
                "ci": {"app": "ci", "required": ["tests"]},
            },
            "commands": {},
            "signers": {"keys": [{"name": ALICE, "person": ALICE, "key": named(ALICES_KEY)}]},
        }
        self.site.write_text(yaml.safe_dump({**site, **changes}))

    def wind(self, seconds: float) -> None:
        """Set the clock that much ahead of UTC."""
        self.clock.write_text(json.dumps({"offset_s": seconds}))

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=json.loads(self.clock.read_text())["offset_s"])

    def approve(self, digest: str, account: str = BOB) -> str:
        """Bob's signed approval of ``digest``, as ``account`` says it is; the file's path."""
        at = datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
        path = self.root / f"approval-{digest[-8:]}.json"
        path.write_text(signed_file(self.key, kind="approve", plan=digest, account=account, at=at))
        return str(path)

    def waiver(self, **changes: Any) -> dict[str, Any]:
        """A waiver of the FAIL of dev-1's CI that nobody has approved yet."""
        return {
            "item": CI,
            "subjects": ["dev-1"],
            "outcome": "FAIL",
            "reason": "a known flake, see the issue",
            "expires": (self.now() + timedelta(days=1)).isoformat(),
            **changes,
        }

    def approved_waiver(self, **changes: Any) -> dict[str, Any]:
        """The same, approved by Bob."""
        made = self.waiver(**changes)
        digest = Waiver(**made).digest(release="v1.4.0", stage="development")
        return {**made, "approval": self.approve(digest)}

    @property
    def made(self) -> list[str]:
        """The changes that were really made, in order."""
        return self.ledger.read_text().split() if self.ledger.exists() else []

    # --- checks and changes ---------------------------------------------------------------------

    def check(
        self, item: str, outcome: Outcome | BaseException = Outcome.PASS, **more: Any
    ) -> Judge:
        """A check of ``item`` that reads the world and finds one row (an exception is raised)."""

        @judges(item)
        def check(context: Context) -> CheckResult:
            context.scope.read(self.world)
            if isinstance(outcome, BaseException):
                raise outcome
            return context.conclude([self.row(outcome, **more)], passed="it holds", empty="none")

        return check

    def change(self, item: str, code: int | BaseException = 0) -> Change:
        """A change of ``item``: one step, a command that writes to the ledger."""

        def apply(context: Context, applier: Applier) -> CheckResult:
            def run(lock: int, outputs: Path) -> Any:
                script = f"echo {item} >>{self.ledger}; exit {code if isinstance(code, int) else 0}"
                command = Command(argv=["/bin/sh", "-c", script], timeout_s=10)
                ended = context.scope.run(command, purpose="change", lock=lock, outputs=outputs)
                if isinstance(code, BaseException):
                    raise code
                return ended

            if applier.step(Step("dev-1", "touch", run)):
                applier.rows.append(self.row(Outcome.PASS))
            return context.conclude(applier.rows, passed="made", empty="no step")

        return Change(item, lambda context: [self.row(Outcome.INCONCLUSIVE)], apply)

    @staticmethod
    def row(outcome: Outcome, subject: str = "dev-1", **more: Any) -> Row:
        return check_row(subject, "height", 1, 1 if outcome is Outcome.PASS else 2, outcome, **more)

    @staticmethod
    def plan(context: Context) -> Plan:
        before = NodeState(gates={}, channel="development", binary="sha256:1", config="sha256:1")
        after = before.model_copy(update={"binary": "sha256:2"})
        return Plan(
            stage=context.stage,
            release=context.params.release,
            commit=context.params.commit,
            cluster=context.cluster_name,
            chain_id=context.cluster.chain_id,
            artifact=Artifact(path="rpp-node", digest="sha256:2", binary="sha256:2"),
            phases=(
                Phase(
                    item=playbook.PLAN_BEFORE["development"],
                    name="build",
                    nodes=(NodePlan(node="dev-1", control="ours", before=before, after=after),),
                    waves=(("dev-1",),),
                ),
            ),
            policy=context.site.policy_digest,
            limits=context.limits(),
        )

    # --- a stage --------------------------------------------------------------------------------

    def open(self, **changes: Any) -> Stage:
        stage = open_stage("development", {**self.params, **changes})
        self._open.append(stage)
        return stage

    def item(self, stage: Stage, item: str, outcome: Any = None) -> Any:
        """Run the cell of one item, with the plan before the item that needs it; its card."""
        if item == playbook.PLAN_BEFORE["development"]:
            stage.plan(self.plan)
        if playbook.ITEMS[item].kind == "change":
            return stage.change(self.change(item, 0 if outcome is None else outcome))
        return stage.check(self.check(item, Outcome.PASS if outcome is None else outcome))

    def walk(self, stage: Stage, **outcomes: Any) -> list[Any]:
        """Every item's cell, in order; ``outcomes`` by the last word of an item, ``-`` as ``_``."""
        return [
            self.item(stage, item, outcomes.get(short(item)))
            for item in playbook.DECLARED["development"]
        ]

    def until(self, item: str, **changes: Any) -> Stage:
        """A stage in which every item before ``item`` has passed."""
        stage = self.open(**changes)
        for before in SMALL[: SMALL.index(item)]:
            self.item(stage, before)
        return stage

    def enforced(self, **changes: Any) -> Path:
        """The folder of an attempt in which everything passed, its notebook saved."""
        stage = self.open(**changes)
        self.write_notebook(self.walk(stage), stage.enforce())
        return self.folder()

    def sealed(self, **changes: Any) -> Path:
        """The same, sealed by hand."""
        folder = self.enforced(**changes)
        seal_by_hand(folder)
        return folder

    def replaying(self, **outcomes: Any) -> Callable[..., Any]:
        """Runs the stage as a replay has our notebook run, without a kernel; what it did is kept."""

        def run(stage: str, *given: Any, **more: Any) -> Any:
            assert (stage, os.environ["RUNBOOK_REPLAY_OK"]) == ("development", "1")
            try:
                with closing(self.open()) as replayed:
                    self.walk(replayed, **outcomes)
                    kept = Path(os.environ["RUNBOOK_REPLAY_KEEP"])
                    shutil.copy(replayed.folder / "log.jsonl", kept)
            except RunbookError as error:
                return SimpleNamespace(problems=[str(error)])
            return SimpleNamespace(problems=[])

        return run

    def write_notebook(self, cards: list[Any], verdict: Any = None) -> Path:
        """The shipped notebook in the newest attempt's folder, with the cards of its items."""
        import nbformat  # two seconds, which the process that hands out tests need not wait for

        path = self.folder() / "10_development.ipynb"
        book = nbformat.read(NOTEBOOKS / path.name, as_version=4)
        waiting = list(cards)
        for cell in book.cells:
            if cell.cell_type == "code" and cell.source.startswith(CELLS):
                cell.outputs = [nbformat.from_dict(_output(waiting.pop(0)))]
            elif "enforce" in cell.metadata.get("tags", ()) and verdict is not None:
                cell.outputs = [nbformat.from_dict(_output(verdict))]
        nbformat.write(book, path)
        return path

    def folder(self, number: int | None = None) -> Path:
        store = Store(self.root / "store")
        numbers = store.numbers("v1.4.0", "development")
        return store.attempt("v1.4.0", "development", number or numbers[-1]).folder

    def events(self, kind: str | None = None) -> list[Event]:
        found = Log(self.folder() / "log.jsonl").events()
        return [entry for entry in found if kind in (None, entry.kind)]

    def mutations(self) -> list[TapeEntry]:
        return mutations(read_entries(self.folder() / "tape"))

    def close(self) -> None:
        for stage in self._open:
            stage.close()


def _output(card: Any) -> dict[str, Any]:
    data, metadata = card._repr_mimebundle_()
    return {"output_type": "display_data", "data": data, "metadata": metadata}


@pytest.fixture(autouse=True, scope="session")
def unsynced() -> Iterator[None]:
    """No test cuts the power: what was written is read again, also after a kill, without a sync."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def declare(patch: pytest.MonkeyPatch) -> None:
    """The development stage is the small one."""
    patch.setitem(playbook.DECLARED, "development", SMALL)
    patch.setitem(playbook.PLAN_BEFORE, "development", SMALL[4])


@contextmanager
def practising(root: Path, patch: pytest.MonkeyPatch) -> Iterator[Practice]:
    for name in ("HEADLESS", "REPLAY", "REPLAY_OK", "SCRATCH", "PARAMS_FILE", "HANDOFF"):
        patch.delenv(f"RUNBOOK_{name}", raising=False)
    patch.setenv("RUNBOOK_OPERATOR", ALICE)
    patch.setenv("GITHUB_TOKEN", "practice-token-of-no-worth")
    # Its plan's nodes are names: there is nothing to keep for a way back.
    patch.setattr("runbook_lib.changes.kit.write_kit", lambda context, plan: [])
    root.mkdir()
    made = Practice(root, patch)
    patch.setenv("RUNBOOK_SIGNING_KEY", str(made.pem))
    yield made
    made.close()


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch)


@pytest.fixture
def practice(declared: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Practice]:
    with practising(tmp_path / "practice", monkeypatch) as made:
        yield made
