"""The testnet stage: its readiness and activation items, in the playbook's order."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from ..changes.targets import make_plan as plan
from ..context import Context, judges
from ..errors import SourceError
from ..evidence.events import NodeVerified, StepTaken, of
from ..evidence.ledger import states
from ..evidence.status import effect
from ..metrics.baseline import SETTLE
from ..metrics.catalogue import resolve
from ..outcomes import CheckResult, Outcome, Value
from ..plan import GATES_AT, NodeState
from ..playbook import TESTNET_SUITES
from ..wording import utc
from . import gossip, preflight, quiet
from .baselines import pin_before, read_catalogue
from .figures import stage_figure
from .quiet import IDLE, Break, Seen, Window
from .rollouts import rollout
from .suites import run_suites
from .validators import validators_acknowledged

if TYPE_CHECKING:
    from ..metrics.plots import Drawn

STAGE, DEPLOY = "development", "development.activate.deploy"


@judges("testnet.ready.soak")
def soak(context: Context) -> CheckResult:
    """The development cluster since the deploy, judged so far; until 48 h are over, not yet due.

    Anchored where the journal says that the last node took the build. Playbook: testnet
    readiness, 1.
    """
    before = context.earlier_stage
    entries = context.ledger.events(before.name, NodeVerified)
    anchor = effect(entries, DEPLOY)
    due = anchor + timedelta(hours=context.params.soak_hours)
    over = min(context.now, context.at) >= due
    development = context.on(STAGE)
    development.require_now("running builds")
    if not over:
        context.unknown("soak", "window", f"over at {utc(due)}", "still open", due)
    _job(development, anchor, due)
    _others(development, before.name, anchor)
    wanted = {n: k.state for n, k in states(entries, before.name)}
    start = anchor + SETTLE
    if context.at - start > SETTLE:
        _window(development, wanted, quiet.window(development, start, context.at))
    return context.conclude(
        passed=f"{(context.at - anchor) // timedelta(hours=1)} h of soak without a page or a hole",
        data={"anchor": anchor.isoformat(), "attempt": before.name, "seal": before.seal},
    )


def _window(context: Context, wanted: dict[str, NodeState], over: quiet.Window) -> None:
    quiet.judge(
        over, quiet.watchdog, quiet.telemetry, quiet.pages, quiet.silences, quiet.halts, load
    )
    with context.reading("restarts", "known"):
        restarted = quiet.restarts(over)
        builds = context.each(context.commands.version)
        for node in context.cluster.nodes:
            name, state = node.name, wanted.get(node.name)
            if state is None:
                expected, got = "one that the deploy verified", "none in its journal"
                context.unknown(name, "binary", expected, got)
                continue
            with context.reading("binary", state.binary, name):
                context.judge(name, "binary", state.binary, builds[name].digest, waivable=False)
                events = "; ".join(quiet.told(each) for each in restarted.get(name, []))
                # A digest cannot be seen in the past: only a process that never restarted kept its own.
                got = f"{events}; what ran before cannot be known" if events else "never"
                outcome = Outcome.INCONCLUSIVE if events else Outcome.PASS
                context.judge(name, "restarted since the deploy", "never", got, outcome)


def _job(context: Context, anchor: datetime, due: datetime) -> None:
    """The site's own soak job: at this commit, passed, and as long as the soak."""
    what, needs = "soak job", due - anchor
    with context.reading(what, "the newest job"):
        job = context.commands.soak()
        ours = context.judge(what, "commit", context.params.commit, job.commit)
        if not (context.judge(what, "passed", True, job.passed) and ours):
            return
        covered = max(min(job.ended, context.at) - max(job.started, anchor), timedelta(0))
        expected, left = f"{needs} since {utc(anchor)}", due if context.at < due else None
        if covered >= needs:
            context.judge(what, "time on this build", expected, str(covered), ok=True)
        else:
            context.unknown(what, "time on this build", expected, str(covered), left)


def _others(context: Context, ours: str, anchor: datetime) -> None:
    """Nobody else changed the cluster meanwhile, by every journal of the store."""
    name = context.cluster_name
    what = f"changes of {name} by others"
    with context.reading(what, "none", name, clean="none"):
        for origin, entries in context.ledger.changes(name, StepTaken):
            steps = [step for step in of(entries, StepTaken) if origin != ours]
            if steps := [s for s in steps if s.phase == "intent" and s.at >= anchor]:
                first = steps[0]
                at = first.at.isoformat()
                got = f"{first.node}: {first.step} at {at} (of {len(steps)})"
                context.judge(origin, what, "none", got, ok=False)


__all__ = ["plan", "validators_acknowledged"]

ONLY = "malachite_consensus"
STAY_OFF = ("timetoke_rewards", "witness_network")


def expectations(context: Context) -> list[tuple[str, str, Value]]:
    """What must hold, with its thresholds, before any data is read."""
    nodes, suites = f"{len(context.cluster.nodes)} nodes", ", ".join(TESTNET_SUITES)
    soaked, everybody = f"{context.params.soak_hours:g} h", "all, by stake and count"
    epochs = f"at least {context.params.gossip_epochs} whole epoch(s)"
    return [
        *preflight.expectations(context),
        (soak.item, "development ran this build alone, quiet and covered", soaked),
        (validators_acknowledged.item, "every validator knows the window", everybody),
        (gates.item, f"gates that change: {ONLY}, or none", nodes),
        (deploy.item, "the release's binary runs, read back", nodes),
        (gate.item, f"{ONLY} on, then gossip no worse than before", epochs),
        (regression_suites.item, "0 failed, 0 skipped, more than 0 passed", suites),
    ]


@judges("testnet.ready.gates")
def gates(context: Context) -> CheckResult:
    """The planned delta is exactly malachite_consensus on, or empty when it is; the others stay off.

    Playbook: testnet readiness, 3.
    """
    made = plan(context, keep=False)
    for name, before in made.recovery().items():
        after = [node.after for _, node in made.changes() if node.node == name][-1]
        moved = sorted(g for g, on in after.gates.items() if before.gates.get(g, False) != on)
        expected, got = f"{ONLY}, or nothing", ", ".join(moved) or "nothing"
        context.judge(name, "gates that change", expected, got, set(moved) <= {ONLY})
        for gate in (ONLY, *STAY_OFF):
            if (on := after.gates.get(gate, False)) is not (gate == ONLY):
                context.judge(name, f"{GATES_AT}.{gate}", gate == ONLY, on, ok=False)
    return context.conclude(
        passed=f"{len(made.nodes)} nodes: {ONLY} only; rewards and witness networking stay off",
        empty="the plan changes no node",
    )


deploy = rollout(
    "testnet.activate.deploy", "{nodes} run the release, read back", capture=pin_before
)
gate = rollout("testnet.activate.gate", f"{{nodes}} have {ONLY} on", after=gossip.after_gate)


def metrics_figure(context: Context) -> Drawn:
    """Since the gate took effect, at most a day, beside what was before. Raises SourceError."""
    start = effect(context.journal, gate.item) + SETTLE
    window = start, min(context.at, start + timedelta(days=1))
    return stage_figure(context, gate.item, window, *gossip.TOPICS, change=deploy.item)


@judges("testnet.activate.regression-suites")
def regression_suites(context: Context) -> CheckResult:
    """The witness and proof suites pass at the commit. Playbook: testnet activation, 3."""
    return run_suites(context, TESTNET_SUITES)


def load(over: Window) -> Iterator[Seen]:
    """Transactions were submitted in every ten minutes: an idle cluster soaks nothing."""
    context = over.context
    metric = read_catalogue(context).load
    if metric is None:
        raise SourceError("metrics", "expected a metric of topic load in the catalogue, got none")
    query = resolve(context.prometheus, metric, context.matchers, over.end)
    watched = over.read(query, narrow=False)
    values = watched.only()
    idle, unknown = values <= 0, np.isnan(values)
    lost = watched.runs(unknown)
    breaks = [
        Break(start, end, "no transaction", proven=all(e <= start or s >= end for s, e in lost))
        for start, end in watched.runs(idle | unknown, IDLE)
    ]
    expected = f"some in every {IDLE // timedelta(minutes=1)} min"
    seen = float(f"{np.nanmean(values[watched.kept]):.3g}") if not breaks else 0.0
    yield Seen(context.cluster_name, "transactions", expected, f"{seen:g} tx/s", tuple(breaks))
