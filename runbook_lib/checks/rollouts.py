"""What the changes of testnet, canary and mainnet have in common: roll a plan's phases, then look."""

from __future__ import annotations

from collections.abc import Callable

from ..changes.apply import Applier, Change, all_pass
from ..changes.plan import Phase
from ..changes.roll import planned_rows, roll
from ..changes.windows import await_window, window_rows
from ..context import Context
from ..outcomes import CheckResult, Row, check_row

Look = Callable[[Context], list[Row]]


def nothing(context: Context) -> list[Row]:
    """Nothing more to look at."""
    return []


def rollout(
    item: str,
    passed: str,
    *,
    before: Look = nothing,
    each_wave: Look = nothing,
    after: Look | None = None,
) -> Change:
    """A change that rolls the plan's phases of ``item`` inside the window.

    ``before`` and ``each_wave`` must hold for a wave to begin; ``after`` is judged once everything
    is rolled and the cluster's lock is free again. ``passed`` may name ``{nodes}``.
    """

    def plan(context: Context) -> list[Row]:
        steps = sum(len(phase.nodes) for phase in _phases(context, item))
        return [*before(context), *window_rows(context, steps), *planned_rows(context, item)]

    def apply(context: Context, applier: Applier) -> CheckResult:
        await_window(context)
        rows = before(context)
        applier.rows += rows
        if not rows or all_pass(rows):
            for phase in _phases(context, item):
                if not roll(context, applier, phase, lambda: each_wave(context)):
                    break
        nodes = {node.node for phase in _phases(context, item) for node in phase.nodes}
        return context.conclude(
            applier.rows,
            passed=passed.format(nodes=f"{len(nodes)} nodes"),
            empty="the plan has no node for it",
            data={"plan": context.plan.digest if context.plan else ""},
        )

    return Change(item, plan, apply, _observing(passed, after) if after is not None else None)


def _observing(passed: str, after: Look) -> Callable[[Context, CheckResult], CheckResult]:
    def observe(context: Context, rolled: CheckResult) -> CheckResult:
        rows = [*rolled.rows, *after(context)]
        text = rolled.reason or passed
        return context.conclude(rows, passed=text, empty="", data=rolled.data)

    return observe


def _phases(context: Context, item: str) -> tuple[Phase, ...]:
    return context.plan.of(item) if context.plan is not None else ()


def canary_selection(context: Context) -> list[Row]:
    """The canaries stay under a third of the voting power, and there is at least one."""
    from ..changes.power import powers
    from ..errors import SourceError
    from ..playbook import CANARY_POWER_BELOW

    names = [node.name for node in context.cluster.nodes if node.canary]
    what, expected = "share of the voting power", f"above 0, under {CANARY_POWER_BELOW:.1%}"
    try:
        share = powers(context).share(names)
    except SourceError as error:
        return [context.unreadable(what, expected, error)]
    ok = 0 < share < CANARY_POWER_BELOW
    return [check_row("canaries", what, expected, f"{share:.1%} ({', '.join(names)})", ok)]
