"""The development stage: its readiness and activation items, in the playbook's order."""

from __future__ import annotations

from .. import playbook
from ..changes.apply import Applier, Change
from ..changes.phases import make_plan as plan
from ..changes.provisioning import provision_and_remove
from ..changes.roll import planned_rows, roll
from ..changes.targets import read_bundle
from ..context import Context, judges
from ..errors import SourceError
from ..outcomes import CheckResult, Outcome, Row, Value, check_row, unknown_row
from . import preflight
from .baselines import baseline, baseline_figure
from .ci import ci_rows
from .suites import run_suites

__all__ = [
    "baseline",
    "baseline_figure",
    "ci_green",
    "deploy",
    "expectations",
    "plan",
    "provision",
    "smoke_suites",
    "telemetry_reachable",
]

DEPLOY = "development.activate.deploy"


def expectations(context: Context) -> list[tuple[str, str, Value]]:
    """What must hold, with its thresholds, before any data is read."""
    site, params = context.site, context.params
    required = ", ".join(site.forge.ci.required)
    suites = ", ".join(playbook.DEVELOPMENT_SUITES)
    backends = ", ".join(site.telemetry.backends)
    return [
        *preflight.expectations(context),
        ("development.ready.ci-green", f"green for {params.commit[:12]}", required),
        ("development.ready.telemetry-reachable", "answers inside the VPC", backends),
        (
            "development.ready.provision",
            "a fresh node with the stage's gates, then removed",
            "1 node",
        ),
        (
            "development.activate.deploy",
            "the release's binary runs, read back",
            f"{len(context.cluster.nodes)} nodes",
        ),
        ("development.activate.smoke-suites", "0 failed, 0 skipped, more than 0 passed", suites),
        (
            "development.activate.baseline",
            f"{params.baseline_hours:g} h after the deploy, inside the limits",
            f"at most {params.max_missing:.0%} missing",
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
    rows = ci_rows(ci, runs, statuses)
    reported = {status.context for status in statuses}
    return context.conclude(
        rows,
        passed=f"{len(ci.required)} required checks are green for {commit[:12]}",
        empty="the site requires no checks",
        data={"check_runs": len(runs), "statuses": len(reported)},
    )


@judges("development.ready.telemetry-reachable")
def telemetry_reachable(context: Context) -> CheckResult:
    """Every telemetry backend answers from inside the VPC. Playbook: readiness, 3."""
    rows = []
    for backend in context.site.telemetry.backends:
        what, expected = "answers inside the VPC", "status 200"
        try:
            probe = context.commands.probe(backend)
        except SourceError as error:
            rows.append(unknown_row(backend, what, expected, error.problem))
            continue
        latency = f" in {probe.latency_ms:.1f} ms" if probe.latency_ms is not None else ""
        got = f"status {probe.status}{latency}" if probe.reachable else "unreachable"
        ok = probe.reachable and probe.status is not None and 200 <= probe.status < 300
        rows.append(check_row(backend, what, expected, got, ok))
    return context.conclude(
        rows,
        passed=f"{len(rows)} telemetry backends answer from inside the VPC",
        empty="the site names no telemetry backends",
    )


def _plan_provision(context: Context) -> list[Row]:
    profile = read_bundle(context).profile(context.stage)
    off = [gate for gate, on in profile.feature_gates.items() if not on]
    what = "would be provisioned, read back and removed"
    return [check_row("a fresh node", what, "", f"off: {', '.join(off)}", Outcome.INCONCLUSIVE)]


def _provision(context: Context, applier: Applier) -> CheckResult:
    profile = read_bundle(context).profile(context.stage)
    rows = provision_and_remove(context, applier, profile)
    return context.conclude(
        rows,
        passed="a fresh node came up with the development gates and was removed again",
        empty="nothing was provisioned",
    )


provision = Change("development.ready.provision", _plan_provision, _provision)


# --- activation ---------------------------------------------------------------------------------


def _plan_deploy(context: Context) -> list[Row]:
    return planned_rows(context, DEPLOY)


def _deploy(context: Context, applier: Applier) -> CheckResult:
    assert context.plan is not None
    for phase in context.plan.of(DEPLOY):
        roll(context, applier, phase)
    digest = context.plan.artifact.digest
    return context.conclude(
        applier.rows,
        passed=f"{len(context.plan.nodes)} nodes run {digest[:19]}, read back",
        empty="the plan has no nodes",
        data={"artifact": digest, "plan": context.plan.digest},
    )


deploy = Change(DEPLOY, _plan_deploy, _deploy)


@judges("development.activate.smoke-suites")
def smoke_suites(context: Context) -> CheckResult:
    """The smoke suites pass on a clean tree of the very commit. Playbook: activation, 2."""
    return run_suites(context, playbook.DEVELOPMENT_SUITES)
