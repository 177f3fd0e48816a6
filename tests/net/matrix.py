"""Every fault at every item that must notice it, and where the release stands when it comes."""

import fcntl
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from runbook_rehearsal.chain.timeline import HALTS
from runbook_rehearsal.chain.world import STAGE_CLUSTERS
from runbook_rehearsal.faults.table import FAULTS, Fault

from . import seam
from .practice import STAGES, Practice

OUTCOMES = Path(__file__).with_name("outcomes.json")
GROUPS = ("preflight", *STAGES)
SEEN_AFTER_S = 900.0  # a chain stands still that long before anybody must notice
POINTS = {
    "preflight.release-issue": "development.apply",
    "development.activate.baseline": "development.baseline",
    "testnet.ready.validators-acknowledged": "testnet.silent",
    "testnet.activate.deploy": "testnet.apply",
    "testnet.activate.gate": "testnet.gate",
    "testnet.activate.regression-suites": "testnet.gate",
    "canary.activate.rewards-gate": "canary.apply",
    "canary.activate.observe": "canary.observe",
    "canary.activate.witness-clients": "canary.witness_clients",
    "mainnet.ready.validators-signed-off": "mainnet.unsigned",
    "mainnet.activate.announce": "mainnet.apply",
    "mainnet.activate.witness-gate": "mainnet.witness_gate",
    "mainnet.activate.watch": "mainnet.watch",
}
"""Where an item is met; what is not named here is met by a plan, or in development by its one run."""


@dataclass(frozen=True)
class Case:
    """A fault at an item that must notice it."""

    item: str
    fault: Fault

    @property
    def stage(self) -> str:
        """The stage at which it comes."""
        first = self.item.partition(".")[0]
        return first if first in STAGES else self.fault.stage

    @property
    def group(self) -> str:
        if self.item.startswith("preflight.") and self.item not in POINTS:
            return "preflight"
        return self.stage

    @property
    def key(self) -> str:
        return f"{self.item} {self.fault.name}"

    @property
    def point(self) -> str:
        if ".recover" in self.item:
            return f"{self.stage}.recover"
        if self.item == "mainnet.activate.witness-gate" and self.fault.layer == "chain":
            return "mainnet.witness_gate+"
        early = self.group in ("preflight", "development")
        return POINTS.get(self.item, "development.apply" if early else f"{self.stage}.plan")

    @property
    def runbook(self) -> str:
        if self.group == "preflight":
            return "preflight"
        return f"{self.stage}_recovery" if ".recover" in self.item else self.stage


def cases(group: str) -> list[Case]:
    """Those of a group, in the order in which the walk comes by."""
    found = [Case(item, fault) for fault in FAULTS.values() for item in fault.items]
    mine = [case for case in found if case.group == group]
    order = [case.point for case in mine]
    return sorted(mine, key=lambda case: order.index(case.point))


def healthy(group: str) -> list[str]:
    """The notebooks that are frozen as they come out without a fault."""
    if group == "preflight":
        return ["preflight"]
    plan = [f"{group} plan"] if group != "development" else []
    return [*plan, group, f"{group}_recovery"]


def meet(practice: Practice, case: Case) -> seam.Run:
    """The notebook of ``case``, its fault switched on just before the item's cell."""
    practice.at(case.point)
    network, given = practice.network, dict[str, Any]()
    name = f"{case.fault.name}@{case.fault.place(case.item)}"
    storage = case.fault.layer in ("command", "chain") and case.item in STORAGE
    if storage:
        nodes = network.world.clusters[STAGE_CLUSTERS[case.stage]].nodes
        given = {"nodes": [node.name for node in nodes], "break_glass": "the storage is rehearsed"}
    if case.item in WITH_HALT and not case.fault.name.startswith("chain-halt"):
        network.fault(f"chain-halt@{case.stage}")
    if case.item == "mainnet.recover.restore":
        name += "/main-2"

    def begin() -> None:
        network.fault(name)
        if case.fault.name in HALTS and not storage:
            network.fast_forward(SEEN_AFTER_S)

    if case.fault.name in BEFORE_OPEN:
        begin()
        return practice.run(case.runbook, item=case.item)
    if case.fault.name in ENDLESS:
        hasten(network.site, ENDLESS[case.fault.name])
    if case.point in SPOKEN:
        begin()
        return _spoken(practice, case)
    if case.runbook == "preflight":
        practice.given["preflight"]["stage"] = case.stage
    item = "mainnet.recover.stall" if case.item == STORAGE[-1] else case.item  # restores as well
    run = practice.run(case.runbook, item=item, begin=begin, **given)
    if case.item == "mainnet.recover.council" and run.exit_code != 1:  # once the nodes are back
        run = practice.session(case.runbook, attempt=run.attempt, item=item)
    if case.fault.layer == "operator":
        for _ in range(3):
            network.operators.settle()
            run = practice.run(case.stage, attempt=run.attempt, item=item)
    return run


STORAGE = (
    "development.recover.restore-state", "testnet.recover.storage",
    "canary.recover.halt-fallback", "mainnet.recover.restore",
)  # fmt: skip
WITH_HALT = STORAGE[2:]
BEFORE_OPEN = ("no-dry-run", "rules-nowhere")
"""What a stage reads once, when it is opened: its site."""
SPOKEN = ("testnet.silent", "mainnet.unsigned")
ENDLESS = {"probe-hangs": "probe", "suite-hangs": "suites", "provision-no-answer": "restart"}
"""Faults that are waited out, and the site's command whose time limit says for how long."""


def hasten(site: Path, purpose: str) -> None:
    """A second stands for the time that the site gives its commands of one purpose."""
    document = yaml.safe_load(site.read_text())
    command = document["commands"][purpose]
    for one in command.values() if purpose == "suites" else [command]:
        one["timeout_s"] = 1.0
    site.write_text(yaml.safe_dump(document, sort_keys=False))


def _spoken(practice: Practice, case: Case) -> seam.Run:
    """Validators say their words while the fault is on."""
    given, network = practice.given[case.stage], practice.network
    start, end = (datetime.fromisoformat(given[f"window_{side}"]) for side in ("start", "end"))
    if case.stage == "testnet":
        network.speak("acknowledge", case.stage, start, end)
        practice.pass_until(start)
    else:
        network.speak("sign-off", case.stage, start, end, given["approved_plan"])
    return practice.run(case.stage, item=case.item)


def frozen() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(OUTCOMES.read_text())
    return found


def came_to(run: seam.Run, item: str) -> dict[str, Any]:
    """What is frozen of a fault: outcome, exit code, and the subject of the deciding finding."""
    if "refused" in run.verdict:
        return {"outcome": "refused", "exit_code": run.exit_code, "subject": ""}
    return {
        "outcome": run.outcome(item),
        "exit_code": run.exit_code,
        "subject": run.subject(item),
    }


def came_out(run: seam.Run) -> dict[str, Any]:
    """What is frozen of a notebook without a fault: each item's outcome."""
    items = {item: run.outcome(item) for item in run.items}
    return {"exit_code": run.exit_code, "items": items}


def without_fault(practice: Practice, name: str) -> seam.Run:
    """The notebook ``name`` of the release on which every fault is noticed."""
    if name == "preflight":
        practice.at("development.apply")
        return practice.run("preflight")
    stage = name.partition(" ")[0].removesuffix("_recovery")
    practice.at(f"{stage}.recover")
    if name.endswith("_recovery"):
        return practice.session(name)
    return practice.healthy[name]


def freeze(practice: Practice, wanted: list[str], tell: Callable[[str], None]) -> None:
    """Write what the ``wanted`` groups, items, faults and notebooks come to now; others stay."""
    for key, run, item in _all(practice, wanted):
        found = came_to(run, item) if item else came_out(run)
        why = run.verdict.get("refused") or (run.reason(item) if item else "")
        _write(key, found)
        tell(f"{key}: {found} {why[:160]}")


def _write(key: str, value: Any) -> None:
    """Others may write their groups meanwhile."""
    with OUTCOMES.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        known = json.loads(file.read() or "{}") | {key: value}
        file.truncate(0)
        file.write(json.dumps(known, indent=1, sort_keys=True) + "\n")


def _all(practice: Practice, wanted: list[str]) -> Iterator[tuple[str, seam.Run, str]]:
    for group in GROUPS:
        for case in cases(group):
            if {group, case.item, case.fault.name} & {*wanted}:
                yield case.key, meet(practice, case), case.item
        for name in healthy(group):
            if group in wanted or name in wanted:
                yield name, without_fault(practice, name), ""
