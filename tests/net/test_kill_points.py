"""Applies and recoveries that are killed at every named point, go on, and end as if nobody had been.

A point is a moment beside a node: ``before STEP NODE`` (the intent is on disk, no command begun),
``during`` (the run is killed, its command goes on), ``after`` (the command ended, its result is not
journalled), ``cut`` (the same, and nobody is left who knows its exit code), ``done`` (the result is on
disk, the next step not begun), and ``at ENTRY`` (any other entry of the log is on disk). Steps and
entries are those of an unkilled run of the same notebook, so that none is left out; of nodes the
first and the last stand for all.

One attempt is killed at each point of a chain in turn. It must come as far each time, and end as
the unkilled run did: exit code, nodes, every changing command once, no two at one instant.
``FLOOR`` is how many points there are at least; where the log names things otherwise, change
``LOG``.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from runbook_rehearsal import layout
from runbook_rehearsal.forge import Forge
from runbook_rehearsal.network import RehearsalNetwork
from runbook_rehearsal.nodes import storage
from runbook_rehearsal.saved import Saved

from ..conftest import unmeasured
from .seam import FIGURE

pytestmark = pytest.mark.timeout(600)  # the first of a stage carries the release there
HERE, RELEASE = Path(__file__).parent, layout.RELEASE
SIZES = {"development": 3, "testnet": 5}

LOG = {
    "step": "step", "stopped": "stopped", "before": "intent", "done": "done", "plan": "plan",
    "named by": ("kind", "item", "node", "step", "phase"),
}  # fmt: skip
"""The kinds of entries that are told apart, and the fields that tell two of a kind apart."""
CHANGING = {
    "deploy": "{node}", "restart": "{node}", "stop": "{node}", "start": "{node}",
    "keep_data": "{node}", "restore_snapshot": "{node}", "replay_proofs": "{node}",
    "provision": "{name}", "deprovision": "{name}", "instruct": "{operator}", "notify": "{role}",
    "announce": "{release}", "announce_halt": "{release}", "freeze_proposals": "{release}",
}  # fmt: skip
"""The site's commands that change something, and what each is about."""
VARYING = re.compile(r" [0-9a-f]{12}$|(-[0-9a-f]{12})?[.]\d+$")
"""The end of a step's name that is another in each run: a text's digest, a further run."""
ASKING = ("verify-snapshot", "prove-stopped", "inspect-wal")
"""Steps without such a command."""
INSPECTED = ("restart", "stop", "announce", "freeze")
"""Steps whose end can be seen where nobody knows an exit code; another is made again then."""
REPEATED = ("PATCH ", "POST ", "provision ", "deprovision ")
"""Ours is brought up to date, and what a forge that was left alone did not take is posted again; a
fresh node whose removal was begun proves nothing more."""

LONG = [r"stage\.check\(mainnet\.watch"]
"""Cells behind the last change that take a day in time that is laid anew for each chain."""
CODES = {"mainnet": 3}
"""How a run of them ends, so that a stage is not sealed."""
RECOVERY = "_recovery"
BEFORE = {"testnet": "development", "canary": "testnet", "mainnet": "canary"}


@dataclass(frozen=True)
class Point:
    """``entry`` is what the log's entry holds; ``arm`` what the gate is to do once it is there."""

    name: str
    node: str
    entry: dict[str, Any]
    arm: str = ""

    @property
    def when(self) -> str:
        return self.name.partition(" ")[0]


@dataclass
class Ended:
    """What an unkilled run came to."""

    entries: list[dict[str, Any]]
    commands: Counter[str]
    posts: tuple[int, int]
    nodes: dict[str, Any]
    kept: list[tuple[str, str]]
    points: list[Point] = field(default_factory=list)


class Driven:
    """A practice network whose changing commands pass a gate, and the driver of its runs."""

    def __init__(self, network: RehearsalNetwork, gate: Path) -> None:
        self.network, self.gate, self.store = network, gate, network.root / "store"
        self.journal, self.armed = gate / "journal", gate / "armed"
        self.params: dict[str, dict[str, Any]] = {}
        self._ended: dict[str, Ended] = {}
        self._saved: dict[str, Saved] = {}
        site = yaml.safe_load(network.site.read_text())
        for purpose, about in CHANGING.items():
            command = site["commands"][purpose]
            script = ["sh", str(HERE / "gate.sh"), str(gate), purpose, about]
            command["argv"] = [*script, *command["argv"]]
        network.site.write_text(yaml.safe_dump(site, sort_keys=False))
        self._driver = subprocess.Popen(
            [sys.executable, "-m", "tests.net.killed"],
            cwd=layout.PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **unmeasured(),
                **network.env,
                "RUNBOOK_HEADLESS": "1",
                "OPENBLAS_NUM_THREADS": "1",
            },
        )
        for cluster in network.world.clusters:
            before = network.release.previous_artifact
            self.runbook(
                "adopt", "--site", network.site, "--cluster", cluster, "--artifact", before
            )
        self._keep("development")

    def close(self) -> None:
        self._driver.communicate()
        self.network.operators.stop()

    # --- runs -----------------------------------------------------------------------------------

    def ask(self, *runs: dict[str, Any]) -> list[dict[str, Any]]:
        assert self._driver.stdin is not None and self._driver.stdout is not None
        self.network.rpc.refill()  # who comes back forty times within a minute is no reader
        self._driver.stdin.write(json.dumps(runs) + "\n")
        self._driver.stdin.flush()
        ends: list[dict[str, Any]] = json.loads(self._driver.stdout.readline())
        return ends

    def runbook(self, *argv: object) -> None:
        command = [str(Path(sys.executable).with_name("runbook")), *map(str, argv)]
        [end] = self.ask({"argv": command})
        assert end["code"] == 0, end["said"]

    def run(self, runbook: str, *kills: dict[str, Any] | None, **more: Any) -> list[dict[str, Any]]:
        """Runs that begin at once, one for each of ``kills``; the ends of all.

        They go on with the attempt that is there.
        """
        number = self.attempt(runbook) if self.folder(runbook).exists() else 0
        run = {
            "runbook": runbook,
            "params": {**self.params[runbook], "attempt": number, **more},
            "armed": str(self.armed),
        }
        asked = [
            {
                **run,
                "kill": kill,
                "without": [*LONG, *([FIGURE] if draws_none(kill) else ())],
            }
            for kill in kills or (None,)
        ]
        return self.ask(*asked)

    def kill(self, runbook: str, point: Point) -> None:
        [end] = self.run(runbook, kill := {**point.entry, "arm": point.arm})
        while self.waits(runbook, end["code"]):  # the point lies behind a window
            self.pass_window(runbook)
            [end] = self.run(runbook, kill)
        assert end["code"] == -signal.SIGKILL, f"{runbook}: {point.name}: {end['said']}"
        assert not self.armed.exists(), f"{runbook}: {point.name}: no command came"

    def go_on(self, runbook: str) -> None:
        """To its end."""
        [end] = self.run(runbook)
        while self.waits(runbook, end["code"]):
            self.pass_window(runbook)
            [end] = self.run(runbook)
        assert end["code"] == CODES.get(runbook, 0), f"{runbook}: {end['said']}"

    def due(self, runbook: str) -> float:
        """When the last of what its results wait for is over; 0 where they wait for nothing."""
        results = {e["item"]: e["result"] for e in self.entries(runbook) if e["kind"] == "result"}
        dues = [row["return_at"] for one in results.values() for row in one["rows"]]
        return max((datetime.fromisoformat(at).timestamp() for at in dues if at), default=0.0)

    def waits(self, runbook: str, code: int) -> bool:
        """Whether only time is missing; a run without its last cells cannot say so by its code."""
        return code == 4 or (code == CODES.get(runbook) and self.due(runbook) > 0)

    def pass_window(self, runbook: str) -> None:
        """What a run waits for is over, or the two hours that give enough samples."""
        left = self.due(runbook) - self.network.world.clock.now()
        self.network.operators.settle()
        self.network.fast_forward(max(left + 61.0, 7200.0 if left < 0 else 0.0))

    def attempt(self, runbook: str) -> int:
        return 2 if runbook in BEFORE else 1  # behind a plan

    def folder(self, runbook: str, attempt: int = 0) -> Path:
        return self.store / RELEASE / runbook / f"{attempt or self.attempt(runbook):04d}"

    def entries(self, runbook: str, attempt: int = 0) -> list[dict[str, Any]]:
        lines = (self.folder(runbook, attempt) / "log.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def commands(self, *, several: bool) -> Counter[str]:
        """What changed something, and how often; at one instant one, or ``several`` but not of one node."""
        begun, open_ = Counter[str](), list[str]()
        for line in self.journal.read_text().splitlines():
            what, about = line.partition(" ")[0], line.split(" ")[2]
            if what == "begin":
                assert about not in open_ if several else not open_, line
                open_.append(about)
                begun[line.removeprefix("begin ")] += 1
            else:
                open_.remove(about)
        assert not open_
        return begun

    # --- a release on its way -------------------------------------------------------------------

    def end(self, runbook: str) -> Ended:
        """What an unkilled run of it comes to; before the first, all that it needs is prepared."""
        if runbook in self._ended:
            return self._ended[runbook]
        stage = runbook.removesuffix("_recovery")
        if stage != runbook:
            self.end(stage)
            network = self.network
            given = layout.recovery(network.world, network.release)
            self.params[runbook] = given
        elif stage in BEFORE:
            self.end(BEFORE[stage])
            self.reset(f"{BEFORE[stage]}_recovery")
            self.runbook("seal", self.folder(BEFORE[stage]))
            self._plan(stage)
            self._keep(stage)
        else:
            self.params[stage] = yaml.safe_load(self.network.params[stage].read_text())
        self.reset(runbook)
        self.go_on(runbook)
        found = Ended(
            self.entries(runbook),
            self.commands(several=stage != runbook),
            self.posts(),
            self.nodes(),
            self.kept(),
        )
        found.points = points(found.entries, list(found.nodes))
        self._ended[runbook] = found
        self._keep(f"{runbook}_recovery")
        return found

    def _plan(self, stage: str) -> None:
        """Time passes, people speak, and the plan is made that a single operator approves."""
        network = self.network
        due, start, end = layout.schedule(network.world, stage)
        more = {"gossip_epochs": 3} if stage == "testnet" else {}
        params = layout.rollout(network.world, network.release, start, end, **more)
        if stage == "canary":
            network.install_candidate()
        if stage == "testnet":
            network.speak("acknowledge", stage, start, end)
        network.fast_forward((due - network.now).total_seconds())
        self.params[stage] = {**params, "mode": "plan"}
        [planned] = self.ask({"runbook": stage, "params": self.params[stage]})
        assert planned["code"] in (0, 4), planned["said"]
        [plan] = [entry for entry in self.entries(stage, 1) if entry["kind"] == LOG["plan"]]
        if stage == "mainnet":
            network.speak("sign-off", stage, start, end, plan["digest"])
        self.params[stage] |= {"mode": "apply", "approved_plan": plan["digest"]}

    # --- states ---------------------------------------------------------------------------------

    def nodes(self) -> dict[str, Any]:
        """Node -> what it runs, and with which gates."""
        return {
            name: (made.build.digest, made.config.channel, dict(made.config.gates))
            for name, made in sorted(self.network.fleet.running.items())
        }

    def kept(self) -> list[tuple[str, str]]:
        """The data that were kept aside, by node and label; all of them whole."""
        found = sorted(self.network.root.glob("clusters/*/*/kept/*"))
        for data in found:
            assert storage.read_wal(data / storage.WAL)[1] == ""
        return [(data.parents[1].name, data.name) for data in found]

    def posts(self) -> tuple[int, int]:
        """How many comments and issues the forge has."""
        return len(self.network.forge.comments), len(self.network.forge.issues)

    def _keep(self, name: str) -> None:
        """What the network and the store are now, for ``reset`` to put back."""
        self._saved[name] = self.network.save(self.gate / name)

    def reset(self, name: str) -> None:
        """All as it was when it was kept, the time as well; whoever followed an instruction forgot it."""
        self._saved[name].restore()
        for cluster in self.network.world.clusters:
            self.network.assets.back_up(cluster)
        self.journal.write_text("")


def gated(app: Any, gate: Path) -> Any:
    """The forge behind the same gate as the site's commands: what is written there is journalled."""

    async def passing(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] == "GET":
            await app(scope, receive, send)
            return
        when, whom, pid = "", "", 0
        if (gate / "armed").exists():
            when, whom, number = (gate / "armed").read_text().split()
            pid = int(number)
        if whom != "any":
            when = ""
        if when:
            (gate / "armed").unlink()
        if when == "during":
            os.kill(pid, signal.SIGKILL)
        what = f"{scope['method']} {scope['path']}"
        with (gate / "journal").open("a") as journal:
            journal.write(f"begin {what}\n")
        answer: list[Any] = []

        async def keep(message: Any) -> None:
            answer.append(message)

        try:
            await app(scope, receive, keep)
        finally:  # before anybody hears of it
            with (gate / "journal").open("a") as journal:
                journal.write(f"end {what}\n")
            if when == "after":
                os.kill(pid, signal.SIGKILL)
        for message in answer if when != "after" else ():
            await send(message)

    return passing


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    root = tmp_path_factory.mktemp("kills")
    gate = root / "gate"
    gate.mkdir()
    (gate / "journal").touch()
    app = Forge.app
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Forge, "app", lambda forge, *asked: gated(partial(app, forge), gate)(*asked))
        with RehearsalNetwork(
            root / "network", servers="embedded", sizes=SIZES, history_s=36 * 3600.0
        ) as network:
            made = Driven(network, gate)
            yield made
            made.close()


def draws_none(kill: dict[str, Any] | None) -> bool:
    """Nobody looks at the figures of a run that is killed, but at the point where it draws one."""
    return kill is not None and kill.get("kind") != "figure"


def points(entries: Sequence[dict[str, Any]], nodes: Sequence[str]) -> list[Point]:
    """Every point of such a run, in its order."""
    found = []
    for entry in entries:
        named = {key: entry[key] for key in LOG["named by"] if key in entry}
        node, step = entry.get("node", ""), entry.get("step", "")
        if entry["kind"] != LOG["step"]:
            about = [entry["kind"], *(entry[key] for key in ("item", "node") if key in entry)]
            found.append(Point(f"at {' '.join(about)}", node, named))
            continue
        if varies := VARYING.search(step):
            del named["step"]
        about = f"{step[: varies.start()] if varies else step} {node}"
        whom = node if node in nodes or step in ("provision", "deprovision") else "any"
        if entry["phase"] == LOG["done"]:
            found.append(Point(f"done {about}", node, named))
        else:
            found.append(Point(f"before {about}", node, named))
            whens = [] if step in ASKING else ["during", "after"]
            whens += ["cut"] if step.split("-")[0] in INSPECTED and step not in ASKING else []
            found += [Point(f"{when} {about}", node, named, f"{when} {whom}") for when in whens]
    return found


def ends(found: Sequence[Point], nodes: Sequence[str], lane: str = "") -> list[Point]:
    """The points of the first and last node alone, and of the first and last operator.

    With ``lane`` those of one of the two nodes: what several at a time are taken through has no
    order among them. What is of no node is in the first lane.
    """
    ours = [*dict.fromkeys(p.node for p in found if p.when == "before" and p.node in nodes)]
    theirs = [*dict.fromkeys(p.node for p in found if "instruct-" in p.name)]
    if lane:
        kept = {ours[0] if lane == "first" else ours[-1]}
        return [p for p in found if p.node in kept or (p.node not in nodes and lane == "first")]
    kept = {*ours[:1], *ours[-1:], *theirs[:1], *theirs[-1:]}
    return [p for p in found if p.node in kept or p.node not in (*nodes, *theirs)]


CHAINS = {
    "before, during, done": ("before", "during", "done"), "before, done": ("before", "done"),
    "during": ("during",), "after": ("after",), "cut": ("cut",), "at": ("at",),
}  # fmt: skip
FORWARD = ("development", "testnet", "mainnet")
CASES = [
    (stage, chain, "")
    for stage in FORWARD
    for chain in ("before, during, done", "after", "cut", "at")
]
CASES += [
    (f"{stage}_recovery", chain, lane)
    for stage, chains in {
        "development": ("before, done", "during", "after", "cut", "at"),
        "testnet": ("before, done", "during", "after", "at"),
        "canary": ("before, done", "during", "at"),
        "mainnet": ("before, done", "after"),
    }.items()
    for chain in chains
    for lane in ("first", "last")
    if lane == "first" or (stage == "development" and chain in ("before, done", "after"))
]


FLOOR = {
    "development": 59, "testnet": 104, "mainnet": 105, "development_recovery": 82,
    "testnet_recovery": 53, "canary_recovery": 22, "mainnet_recovery": 27,
}  # fmt: skip


def require_same(driven: Driven, runbook: str) -> None:
    """It goes on, and nothing tells that it was killed."""
    ended = driven.end(runbook)
    driven.go_on(runbook)
    assert driven.nodes() == ended.nodes
    ran = driven.commands(several=runbook.endswith(RECOVERY))
    lost, more = ended.commands - ran, ran - ended.commands
    assert [*lost] == []
    repeated = (*REPEATED, "deploy ") if runbook.endswith(RECOVERY) else REPEATED
    assert [line for line in more if not line.startswith(repeated)] == []
    assert driven.posts() == ended.posts
    assert [node for node, _ in driven.kept()] == [node for node, _ in ended.kept]
    if runbook not in CODES:
        driven.runbook("seal", driven.folder(runbook))
        driven.runbook("verify", driven.folder(runbook), "--trust", driven.network.site)


@pytest.mark.parametrize(("runbook", "chain", "lane"), CASES)
def test_killed_at_each_point_of_a_chain_it_ends_as_if_nobody_had(
    driven: Driven, runbook: str, chain: str, lane: str
) -> None:
    ended = driven.end(runbook)
    found = ends(ended.points, list(ended.nodes), lane)
    chosen = [point for point in found if point.when in CHAINS[chain]]
    driven.reset(runbook)

    for point in chosen:
        driven.kill(runbook, point)

    require_same(driven, runbook)


def test_no_point_is_lost(driven: Driven) -> None:
    """How many each runbook is killed at; what a rewritten one loses is to be explained."""
    found = Counter[str]()
    for runbook, chain, lane in CASES:
        ended = driven.end(runbook)
        there = ends(ended.points, list(ended.nodes), lane)
        found[runbook] += sum(point.when in CHAINS[chain] for point in there)
    assert {runbook: found[runbook] for runbook in FLOOR if found[runbook] < FLOOR[runbook]} == {}


TAKEN_OVER = ("before deliver dev-1", "after deliver dev-1", "done deliver dev-1", "during restart dev-1",
              "cut restart dev-1", "done restart dev-1", "before deliver dev-3", "after restart dev-3")  # fmt: skip


@pytest.mark.parametrize("name", TAKEN_OVER)
def test_an_apply_that_was_killed_is_taken_back(driven: Driven, name: str) -> None:
    """Whatever step it was in: every node is what it was before, each restarted once at most."""
    driven.end("development_recovery")
    [point] = [one for one in driven.end("development").points if one.name == name]
    driven.reset("development")
    was = driven.nodes()
    driven.kill("development", point)
    driven.journal.write_text("")
    driven.go_on("development_recovery")

    assert driven.nodes() == was
    ran = driven.commands(several=True)
    assert all(n == 1 for line, n in ran.items() if line.startswith("restart "))


@pytest.mark.parametrize("stage", ["development", "testnet"])
def test_of_two_applies_at_once_one_changes_the_cluster(driven: Driven, stage: str) -> None:
    """Of whichever comes second nothing is begun: two attempts, and each node is changed once."""
    ended = driven.end(stage)
    driven.reset(stage)
    codes = [end["code"] for end in driven.run(stage, None, None)]

    assert sorted(codes) in ([0, 2], [2, 4]), codes
    assert driven.nodes() == ended.nodes
    ran = driven.commands(several=False)
    assert [line for line in ran - ended.commands if not line.startswith(REPEATED)] == []


@pytest.mark.parametrize("name", ["at plan", "before restart", "during restart", "done restart"])
@pytest.mark.parametrize("stage", ["development", "testnet"])
def test_of_two_that_go_on_at_once_one_does(driven: Driven, stage: str, name: str) -> None:
    """Behind a kill: no command is run twice, and no two at one instant."""
    point = next(one for one in driven.end(stage).points if one.name.startswith(name))
    driven.reset(stage)
    driven.kill(stage, point)
    driven.run(stage, None, None)

    require_same(driven, stage)


def test_stopped_by_hand_it_goes_on(driven: Driven) -> None:
    """Ctrl-C inside a wave, then between two: recorded as stopped, and resumed like any other end."""
    found = driven.end("testnet").points
    driven.reset("testnet")
    for name in ("done deliver test-1", "at state testnet.activate.deploy test-1"):
        [point] = [one for one in found if one.name == name]
        [end] = driven.run("testnet", {**point.entry, "signal": signal.SIGINT})
        assert (end["code"], "KeyboardInterrupt" in end["said"]) == (3, True)
        assert driven.entries("testnet")[-1]["kind"] == LOG["stopped"]

    require_same(driven, "testnet")


def test_a_recovery_of_another_attempt_loses_nothing(driven: Driven) -> None:
    """It knows nothing of the one that was killed, and finds what it left behind."""
    found = driven.end(book := "development_recovery").points
    driven.reset(book)
    driven.kill(book, next(one for one in found if one.name.startswith("done keep-aside")))
    kept = driven.kept()
    codes = [driven.run(book, attempt=number)[0]["code"] for number in (0, 2)]

    assert codes == [2, 0]  # a node without data starts no build: once they are back, it is read
    assert kept and set(kept) <= set(driven.kept())
    assert driven.nodes() == driven.end(book).nodes


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(100))
def test_killed_at_any_time_it_ends_as_if_nobody_had(driven: Driven, seed: int) -> None:
    """Up to five times, wherever it is: in a command, between two, in the middle of a write."""
    chance, stage = random.Random(seed), ("development", "testnet")[seed % 2]
    driven.end(stage)
    driven.reset(stage)
    for _ in range(5):
        driven.run(stage, {"within_s": chance.uniform(0.05, 3.0)})

    require_same(driven, stage)
