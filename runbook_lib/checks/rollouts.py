"""What the changes of testnet, canary and mainnet have in common: roll a plan's phases, then look."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..changes.apply import Applier, Change, all_pass
from ..changes.roll import has_begun, planned_rows, roll, window_rows
from ..context import Context
from ..evidence.events import Captured, Event, of
from ..outcomes import CheckResult, Row
from ..plan import Phase

Look = Callable[[Context], object]
"""Judges findings of the context."""
Capture = Callable[[Context], Mapping[str, Any]]


def nothing(context: Context) -> None:
    """Nothing more to look at."""


def rollout(
    item: str,
    passed: str,
    *,
    before: Look = nothing,
    each_wave: Look = nothing,
    after: Look | None = None,
    capture: Capture | None = None,
) -> Change:
    """A change that rolls the plan's phases of ``item`` inside the window.

    ``before`` and ``each_wave`` must hold for a wave to begin; ``after`` is judged once everything
    is rolled and the cluster's lock is free again. ``capture`` keeps what was before the first step,
    once an attempt, in the result's data. ``passed`` may name ``{nodes}``.
    """

    def plan(context: Context) -> list[Row]:
        steps = sum(len(phase.nodes) for phase in _phases(context, item))
        before(context)
        return [*context.findings, *window_rows(context, steps), *planned_rows(context, item)]

    def wave(context: Context) -> list[Row]:
        with context.apart() as rows:
            each_wave(context)
        return rows

    def apply(context: Context, applier: Applier) -> CheckResult:
        before(context)
        kept = _once(context, item, capture) if capture is not None and context.holds else {}
        if context.holds:
            phases = _phases(context, item)
            # From the last that began, when every node was as the one before it had to make it: one
            # on which that is at work is no more so.
            begun = [number for number, phase in enumerate(phases) if has_begun(applier, phase)]
            for phase in phases[max(begun, default=0) :]:
                if not roll(context, applier, phase, lambda: wave(context)):
                    break
        nodes = {node.node for phase in _phases(context, item) for node in phase.nodes}
        return context.conclude(
            passed=passed.format(nodes=f"{len(nodes)} nodes"),
            empty="the plan has no node for it",
            data={"plan": context.plan.digest if context.plan else "", **kept},
        )

    def observe(context: Context, rolled: CheckResult) -> CheckResult:
        (after or nothing)(context)
        return context.conclude(passed=rolled.reason or passed, data=rolled.data)

    return Change(item, plan, apply, observe if after is not None else None)


def _once(context: Context, item: str, capture: Capture) -> dict[str, Any]:
    """What ``capture`` found before the first step; a later run must not look again."""
    if (kept := captured(context.journal, item)) is not None:
        return kept
    with context.apart() as rows:
        found = dict(capture(context))
    context.findings += rows
    if all_pass(rows):
        context.log.append(Captured(item=item, data=found))
    return found


def captured(journal: Sequence[Event], item: str) -> dict[str, Any] | None:
    """What an attempt kept before the first step of a change; None when it kept nothing."""
    kept = [event.data for event in of(journal, Captured) if event.item == item]
    return dict(kept[-1]) if kept else None


def _phases(context: Context, item: str) -> tuple[Phase, ...]:
    return context.plan.of(item) if context.plan is not None else ()
