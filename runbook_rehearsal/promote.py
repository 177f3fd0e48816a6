"""A release carried through the stages of a rehearsal as a team would, and back.

Development in one run; then for each stage the operators' words, a plan run, the approval of
another person, and the apply run. Time passes where the playbook wants it to.
"""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from runbook_lib.commands.running import attach_journal
from runbook_lib.errors import RunbookError
from runbook_lib.evidence.log import Log
from runbook_lib.evidence.status import plan_digest
from runbook_lib.launch import Shown, run_stage
from runbook_lib.outcomes import Outcome
from runbook_lib.playbook import DECLARED, STAGES
from runbook_lib.strict import parse_yaml
from runbook_lib.verdicts import ExitCode

from . import layout
from .chain.timeline import HALTS
from .faults.table import FAULTS
from .network import RehearsalNetwork

PEOPLE_TAKE = timedelta(minutes=30)
"""How long people take to do what a recovery asked of them."""
OPEN = (ExitCode.WAITING, ExitCode.INCONCLUSIVE)
TRIES = 3
"""How often a recovery is run while something is open: operators and the council need time."""
RETURNS = 8
"""How often somebody comes back to a stage that is merely not yet due."""
LEAST = {
    "testnet.activate.gate": 6 * 3600.0,
    "canary.activate.witness-clients": 3600.0,
    "mainnet.activate.watch": 24 * 3600.0,
}
"""Seconds that somebody stays away at least: samples that decide, or every look of the watch."""

Moment = Literal["first", "passed", "late"]
"""Before anything of a stage, once the time before it has passed, and behind its change."""


def turn(fault: str) -> tuple[str, Moment]:
    """The stage that must notice a fault (``NAME@STAGE/NODE``), and when in its turn it begins;
    one that comes behind the change ends in the stage's recovery."""
    name, _, place = fault.partition("@")
    at = place.partition("/")[0]
    if name in HALTS or ".recover." in FAULTS[name].item:
        return at, "late"
    stage = FAULTS[name].turn(at)
    return stage, "first" if stage == at else "passed"


@dataclass(frozen=True)
class Carried:
    stage: str
    mode: str
    report: Any

    @property
    def passed(self) -> bool:
        return bool(self.report.exit_code == ExitCode.PASSED)


@dataclass(frozen=True)
class Comparison:
    """What was declared of a fault, and what its stage's runs came to."""

    fault: str
    declared: str
    seen: str
    as_declared: bool

    def __str__(self) -> str:
        so = "came out as declared" if self.as_declared else "did not come out as declared"
        return f"fault {self.fault} {so}: expected {self.declared}, got {self.seen}"


def compare(fault: str, runs: Sequence[Carried]) -> Comparison:
    """A fault (``NAME@STAGE``) against the results of its turn's runs and of their recovery.

    Of an item the last result counts; one that only waits for time is none. At a stage without an
    item of the fault some item must come to its outcome, and after a halt the recovery must pass.
    """
    name = fault.partition("@")[0]
    stage, outcome = turn(fault)[0], FAULTS[name].outcome
    results: dict[str, str] = {}
    ended = f"no run of {stage}"
    for run in runs:
        if run.stage.removesuffix("_recovery") == stage and run.report.verdict is not None:
            items = run.report.verdict.items
            judged = [one for one in items if one.state == "judged" and one.return_at is None]
            results |= {one.item: one.outcome.value for one in judged}
            wrong = [item for item in judged if item.outcome is not Outcome.PASS]
            ended = ", ".join(f"{one.outcome.value} at {one.item}" for one in wrong)
            ended = ended or "nothing but PASS"
    wanted = [item for item in FAULTS[name].items if item in _items(stage)]
    expected, enough = f"{outcome} at {' and '.join(wanted)}", all
    if not wanted and name in HALTS:
        expected, outcome = "PASS of its recovery", "PASS"
        wanted = [item for item in results if ".recover." in item]
    elif not wanted:
        expected, enough, wanted = f"{outcome} at some item of {stage}", any, list(results)
    found = {item: results[item] for item in wanted if item in results}
    seen = ", ".join(f"{got} at {item}" for item, got in found.items()) if enough is all else ""
    right = bool(found) and enough(got == outcome for got in found.values())
    return Comparison(fault, expected, seen or ended, right)


def _items(stage: str) -> tuple[str, ...]:
    return DECLARED[stage] + DECLARED[f"{stage}_recovery"]


@dataclass
class Promotion:
    """Carries one release through the stages of ``network``; ``tell`` hears what is going on."""

    network: RehearsalNetwork
    tell: Callable[[str], None]
    shown: Shown | None = None
    faults: Sequence[str] = ()
    _begun: set[str] = field(default_factory=set)

    def carry(self, stages: tuple[str, ...] = STAGES) -> list[Carried]:
        """Every run up to the last stage, or up to the first that did not pass or was taken back."""
        runs: list[Carried] = []
        for stage in stages:
            self._break(stage, "first")
            runs += self._development() if stage == STAGES[0] else self._rollout(stage)
            if runs[-1].mode == "apply" and self._faults(stage, "late"):
                self._break(stage, "late")
                runs += self.recover(stage)
                break
            if not runs[-1].passed:
                break
        return runs

    def recover(self, stage: str) -> list[Carried]:
        """The stage taken back: the recovery, and again once people acted on what it asked for."""
        params = layout.recovery(self.network.world, self.network.release)
        if not (self.network.root / "store").exists():
            kit = self._by_kit(stage)
            params["attempt"] = attach_journal(kit, f"{stage}_recovery", params, "rehearsal")
        self.tell(f"{stage}: recovering")
        runs = [self._run(f"{stage}_recovery", params)]
        while runs[-1].report.exit_code in OPEN and len(runs) < TRIES:
            self.network.fast_forward(PEOPLE_TAKE.total_seconds())
            self.tell(f"{stage}: people had {PEOPLE_TAKE}; the recovery goes on")
            attempt = runs[-1].report.verdict.attempt
            runs.append(self._run(f"{stage}_recovery", {**params, "attempt": attempt}))
        return runs

    def _by_kit(self, stage: str) -> Path:
        """The kit's script takes the nodes back; then the store comes back. Returns the kit.
        Raises RunbookError where the script leaves a node behind."""
        kit = max(self.network.root.glob(f"kits/{self.network.release.version}-{stage}-*"))
        self.tell(f"{stage}: the store is gone; {kit.name}/recover.sh takes the nodes back")
        ended = subprocess.run(
            ["/bin/sh", kit / "recover.sh"], capture_output=True, text=True, check=False
        )
        if ended.returncode != 0:
            raise RunbookError(f"{kit}/recover.sh: expected exit 0, got {ended.stdout[-500:]}")
        self.network.clear("store-gone")
        self.tell(f"{stage}: the store is back")
        return kit

    def _faults(self, stage: str, moment: Moment) -> list[str]:
        return [fault for fault in self.faults if turn(fault) == (stage, moment)]

    def _break(self, stage: str, moment: Moment) -> None:
        for fault in self._faults(stage, moment):
            if fault not in self._begun:
                begun = self.network.fault_in_time(fault)
                self.tell(f"{stage}: {fault} begins{'' if begun else ' with the change'}")
                self._begun.add(fault)

    def _development(self) -> list[Carried]:
        file = self.network.params["development"]
        params = parse_yaml(file.read_bytes(), file.name)
        self.tell("development: running the notebook headless")
        return self._apply("development", params, str(file))

    def _rollout(self, stage: str) -> list[Carried]:
        world, release = self.network.world, self.network.release
        due, start, end = layout.schedule(world, stage)
        params = layout.rollout(world, release, start, end)
        if stage == "canary":
            self.network.install_candidate()
        if stage == "testnet":
            self.network.speak("acknowledge", stage, start, end)
        self._let_pass(stage, due)
        self._break(stage, "passed")
        self.tell(f"{stage}: planning")
        planned = self._run(stage, {**params, "mode": "plan"})
        if planned.report.exit_code not in (ExitCode.PASSED, ExitCode.WAITING):
            return [planned]
        digest = _digest_of(planned.report.folder)
        if stage == "mainnet":
            self.network.speak("sign-off", stage, start, end, digest)
        self._approve(stage, digest)
        self.tell(f"{stage}: applying the plan that was approved")
        apply = {**params, "mode": "apply", "approved_plan": digest}
        return [planned, *self._apply(stage, apply)]

    def _apply(self, stage: str, params: Mapping[str, Any], file: str = "") -> list[Carried]:
        """The apply run, and where only time was missing, the runs that go on with it."""
        runs = [self._run(stage, params, file)]
        while runs[-1].report.exit_code == ExitCode.WAITING and len(runs) < RETURNS:
            verdict = runs[-1].report.verdict
            left = (verdict.return_at - self._now()).total_seconds()
            self.tell(f"{stage}: only time is missing; {timedelta(seconds=round(left))} pass")
            if len(runs) == 1:
                self._break(stage, "late")
                late = self._faults(stage, "late")
                if late and not any(fault.partition("@")[0] in HALTS for fault in late):
                    return runs  # what is rehearsed is the way back, whatever becomes of the stage
            waits = verdict.blocking[0].item if verdict.blocking else ""
            self.network.fast_forward(max(left + 1.0, LEAST.get(waits, 0.0)))
            runs.append(self._run(stage, {**params, "attempt": verdict.attempt}, file))
        return runs

    def _let_pass(self, stage: str, due: datetime) -> None:
        left = (due - self._now()).total_seconds()
        if left > 0:
            self.tell(f"{stage}: {timedelta(seconds=round(left))} pass")
            self.network.fast_forward(left)

    def _approve(self, stage: str, digest: str) -> None:
        people = [layout.COMMANDER, *([layout.SECOND] if stage == "mainnet" else [])]
        for account in people:
            self.tell(f"{stage}: {account} approves {digest[:19]}")
            self.network.say(account, f"approve {digest}")

    def report(self) -> Any:
        params = layout.common(self.network.world, self.network.release)
        del params["issue"]
        return self._run("report", {**params, "mode": "plan"}).report

    def _run(self, stage: str, params: Mapping[str, Any], file: str = "") -> Carried:
        report = run_stage(stage, params, params_file=file, shown=self.shown)
        return Carried(stage, str(params["mode"]), report)

    def _now(self) -> datetime:
        return self.network.now.replace(microsecond=0)


def _digest_of(folder: Path) -> str:
    """The digest of the plan an attempt made. Raises RunbookError where it could make none."""
    digest = plan_digest(Log(folder / "log.jsonl").events())
    if not digest:
        raise RunbookError(f"{folder}: expected a plan, got none")
    return digest
