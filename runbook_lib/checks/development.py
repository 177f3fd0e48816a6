"""The development stage: its readiness and activation items, in the playbook's order."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from .. import playbook
from ..changes.apply import Applier, Change, Step, until
from ..changes.roll import planned_rows, roll
from ..changes.targets import keep_target, read_bundle, rendered
from ..changes.targets import make_plan as plan
from ..context import Context, judges
from ..errors import SourceError, tried
from ..evidence.status import effect
from ..metrics import baseline as capturing
from ..outcomes import CheckResult, Row, Value, unknown_row
from ..plan import CHANNEL_AT, GATES_AT
from ..site import Node
from ..sources import wire
from ..sources.commands import NodeConfig, Provisioned
from ..sources.config import Flat, Profile, flatten, parse_toml
from ..sources.node import Fleet, Rollout
from ..sources.process import Ended
from ..strict import parse_instant
from . import preflight
from .baselines import capture, data_of, names_of, pin, read_catalogue
from .ci import ci_rows
from .figures import BASELINE, stage_figure
from .suites import run_suites

if TYPE_CHECKING:
    from ..metrics.plots import Drawn

REMOVE = "deprovision"
PROVISION, DEPLOY = "development.ready.provision", "development.activate.deploy"


def provision_and_remove(context: Context, applier: Applier, profile: Profile) -> None:
    """One provisioning; the node is removed also when it came up wrong.

    A further run takes a node of another name where an earlier one began to remove its own.
    """
    cluster, change = context.cluster_name, context.commands.change
    base = "rehearsal-" + re.sub(r"[^a-z0-9]+", "-", context.attempt_name.lower()).strip("-")
    name, number = base, 1

    def remove_it(lock: int, outputs: Path) -> Ended:
        return change("deprovision", name, cluster=cluster, name=name)(lock, outputs)

    removed = {step.node for step in applier.steps() if step.step == REMOVE}
    while name in removed:  # of an earlier run: there is nothing left of it to be read back
        if not applier.step(Step(name, REMOVE, remove_it)):
            return
        number += 1
        name = f"{base}-{number}"
    config = keep_target(context, name, _config(context, profile))
    values = {"cluster": cluster, "name": name, "config": str(config)}
    make = Step(name, "provision", change("provision", name, **values))
    remove = Step(name, REMOVE, remove_it)
    if applier.step(make):
        _read_back(context, applier, make, profile)
    if applier.step(remove):
        _gone(context, applier, make)


def _config(context: Context, profile: Profile) -> NodeConfig:
    """The first node's TOML with exactly the profile's gates and channel."""
    model = context.cluster.nodes[0].name
    found = context.commands.read_config(model)
    flat = flatten(parse_toml(found.text, model))
    wanted: Flat = {f"{GATES_AT}.{gate}": on for gate, on in profile.feature_gates.items()}
    wanted[CHANNEL_AT] = profile.release_channel
    changes = {key: value for key, value in wanted.items() if flat.get(key) != value}
    return rendered(context, model, found, changes)


def _made(context: Context, applier: Applier, make: Step) -> Provisioned:
    stem = applier.done(make.node, make.name)
    out = context.scope.read(context.folder / "steps" / f"{stem}.out")
    return wire.decode(f"provision {make.node}", out, Provisioned)


def _fleet(context: Context, made: Provisioned) -> Fleet:
    node = Node(name=made.node, url=made.url)
    return Fleet(context.scope, context.cluster.model_copy(update={"nodes": [node]}))


def _read_back(context: Context, applier: Applier, make: Step, profile: Profile) -> None:
    with context.reading("provisioned", "its name and URL", make.node):
        made = _made(context, applier, make)
        name, fleet = made.node, _fleet(context, made)
        found = until(context, fleet.rollout, lambda got: not got.failed)[name]
        context.judge(name, CHANNEL_AT, profile.release_channel, found.release_channel)
        for gate, on in profile.feature_gates.items():
            seen = found.feature_gates.get(gate, "absent")
            context.judge(name, f"{GATES_AT}.{gate}", on, seen)


def _gone(context: Context, applier: Applier, make: Step) -> None:
    made = tried(_made, context, applier, make)
    if isinstance(made, Provisioned):  # else said when it was read back
        # Asked once: a refusal is what is hoped for, not a passing fault.
        left = _fleet(context, made).get("/status/rollout", Rollout, retries=1).failed
        gone = made.node in left and "ConnectError" in left[made.node].problem
        got = "gone" if gone else "answers"
        context.judge(made.node, "removed again", "refuses connections", got, gone)


__all__ = ["plan"]


def expectations(context: Context) -> list[tuple[str, str, Value]]:
    """What must hold, with its thresholds, before any data is read."""
    site, params, nodes = context.site, context.params, f"{len(context.cluster.nodes)} nodes"
    required, missing = (
        ", ".join(site.forge.ci.required),
        f"at most {params.max_missing:.0%} missing",
    )
    suites = ", ".join(playbook.DEVELOPMENT_SUITES)
    backends = ", ".join(site.telemetry.backends)
    return [
        *preflight.expectations(context),
        ("development.ready.ci-green", f"green for {params.commit[:12]}", required),
        ("development.ready.telemetry-reachable", "answers inside the VPC", backends),
        (PROVISION, "a fresh node with the stage's gates, then removed", "1 node"),
        (DEPLOY, "the release's binary runs, read back", nodes),
        ("development.activate.smoke-suites", "0 failed, 0 skipped, more than 0 passed", suites),
        (
            baseline.item,
            f"{params.baseline_hours:g} h after the deploy, inside the limits",
            missing,
        ),
    ]


# --- readiness ----------------------------------------------------------------------------------


@judges("development.ready.ci-green")
def ci_green(context: Context) -> CheckResult:
    """CI's required checks are green for the commit, by the expected app. Playbook: readiness, 1.

    Pending, missing, skipped, neutral and cancelled are not green; a red status is red whoever
    reported it.
    """
    commit = context.params.commit
    ci = context.site.forge.ci
    runs, statuses = context.forge.check_runs(commit), context.forge.statuses(commit)
    reported = {status.context for status in statuses}
    return context.conclude(
        ci_rows(ci, runs, statuses),
        passed=f"{len(ci.required)} required checks are green for {commit[:12]}",
        empty="the site requires no checks",
        data={"check_runs": len(runs), "statuses": len(reported)},
    )


@judges("development.ready.telemetry-reachable")
def telemetry_reachable(context: Context) -> CheckResult:
    """Every telemetry backend answers from inside the VPC. Playbook: readiness, 3."""
    backends = context.site.telemetry.backends
    for backend in backends:
        with context.finding(backend, "answers inside the VPC", "status 200") as judge:
            probe = context.commands.probe(backend)
            latency = f" in {probe.latency_ms:.1f} ms" if probe.latency_ms is not None else ""
            got = f"status {probe.status}{latency}" if probe.reachable else "unreachable"
            ok = probe.reachable and probe.status is not None and 200 <= probe.status < 300
            judge(got, ok)
    return context.conclude(
        passed=f"{len(backends)} telemetry backends answer from inside the VPC",
        empty="the site names no telemetry backends",
    )


def _plan_provision(context: Context) -> list[Row]:
    profile = read_bundle(context).profile(context.stage)
    off = [gate for gate, on in profile.feature_gates.items() if not on]
    what = "would be provisioned, read back and removed"
    return [unknown_row("a fresh node", what, "", f"off: {', '.join(off)}")]


def _provision(context: Context, applier: Applier) -> CheckResult:
    provision_and_remove(context, applier, read_bundle(context).profile(context.stage))
    return context.conclude(
        passed="a fresh node came up with the development gates and was removed again",
        empty="nothing was provisioned",
    )


provision = Change(PROVISION, _plan_provision, _provision)


# --- activation ---------------------------------------------------------------------------------


def _deploy(context: Context, applier: Applier) -> CheckResult:
    assert context.plan is not None
    for phase in context.plan.of(DEPLOY):
        roll(context, applier, phase)
    build = context.plan.artifact
    return context.conclude(
        passed=f"{len(context.plan.nodes)} nodes run {build.binary[:19]}, read back",
        empty="the plan has no nodes",
        data={"artifact": build.digest, "plan": context.plan.digest},
    )


deploy = Change(DEPLOY, lambda context: planned_rows(context, DEPLOY), _deploy)


@judges("development.activate.smoke-suites")
def smoke_suites(context: Context) -> CheckResult:
    """The smoke suites pass on a clean tree of the very commit. Playbook: activation, 2."""
    return run_suites(context, playbook.DEVELOPMENT_SUITES)


@judges("development.activate.baseline")
def baseline(context: Context) -> CheckResult:
    """Consensus latency, proof queue depth and VRF participation of the new build.

    The window is anchored at the instant the journal says the last node took the build, past its
    restart, so that a later return judges the same window. Playbook: activation, 3.
    """
    start = effect(context.journal, DEPLOY) + capturing.SETTLE
    end = start + timedelta(hours=context.params.baseline_hours)
    if context.now < end:
        expected = f"over at {end:%Y-%m-%d %H:%M:%S} UTC"
        context.unknown("baseline", "window", expected, "still open", end)
        return context.conclude()
    if context.params.as_of and parse_instant(context.params.as_of) < end:
        raise SourceError(
            "as_of", f"expected an instant after {end.isoformat()}, got an earlier one"
        )
    catalogue = read_catalogue(context)
    metrics = catalogue.of_topic(*playbook.BASELINE_TOPICS)
    made, missing = capture(context, [*metrics, *catalogue.loads], start, end)
    rows = [row for row in missing if row.subject in [metric.name for metric in metrics]]
    for metric in metrics:
        if metric.name in made.frames:
            frame, names = made.frames[metric.name], names_of(context)
            rows += capturing.judge(metric, frame, context.params.max_missing, names)
    kept = pin(context, made, rows)
    told = "load" in kept or not catalogue.loads
    unknown = "" if told else "; its load is unknown, so that it compares with none"
    count, digest = len(kept["metrics"]), kept["digest"][:19]
    return context.conclude(
        rows,
        passed=f"{count} metrics captured over {end - start}, pinned as {digest}{unknown}",
        empty="the catalogue names no metric of the playbook's topics",
        data=kept,
    )


def metrics_figure(context: Context) -> Drawn:
    """What was captured, and what happened meanwhile. Raises SourceError."""
    told = data_of(context.journal, BASELINE)
    if not told or "start" not in told[-1]:
        raise SourceError(BASELINE, "expected a captured baseline, got none")
    start, end = (datetime.fromisoformat(told[-1][which]) for which in ("start", "end"))
    return stage_figure(context, BASELINE, (start, end))
