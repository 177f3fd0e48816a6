"""``runbook status``: where a release stands."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from .. import display
from ..outcomes import ExitCode, Value
from ..playbook import NOTEBOOKS, STAGES
from .printing import print_json


def status(args: argparse.Namespace) -> int:
    """Where a release stands, computed from its attempts, and when the next stage can open."""
    from ..evidence.incidents import blocking, incidents_of
    from ..evidence.status import attempts_of, next_opening
    from ..evidence.store import Store
    from ..site import read_site

    site = read_site(args.site)
    store = Store(site.store_path)
    found = attempts_of(store, args.release)
    rows: list[dict[str, Value]] = [
        {
            "stage": one.attempt.stage,
            "attempt": one.attempt.number,
            "mode": one.verdict.mode,
            "source": one.verdict.source,
            "outcome": one.verdict.outcome.value,
            "exit_code": int(one.verdict.exit_code),
            "sealed": one.sealed,
            "blocks": one.blocks,
            "since": one.since.isoformat(timespec="seconds") if one.since else "",
        }
        for one in found
    ]
    opening = next_opening(store, site, args.release)
    following: dict[str, Any] | None = None
    if opening is not None:
        at = opening.at.isoformat(timespec="seconds") if opening.at else None
        following = {
            "stage": opening.stage,
            "earliest": at,
            "item": opening.item,
            "why": opening.why,
            "missing": list(opening.missing),
        }
    open_ones = blocking(store, args.release, single_operator=site.single_operator)
    problems = {one.name: one.problem for one in open_ones}
    known = {one.id: one.standing for one in incidents_of(store, args.release)}
    incidents = [
        {"id": name, "standing": known.get(name, "missing"), "blocks": problems.get(name, "")}
        for name in dict.fromkeys([*known, *problems])
    ]
    if args.json:
        print_json(
            {
                "release": args.release,
                "attempts": rows,
                "incidents": incidents,
                "next": following,
            }
        )
    else:
        columns = ("stage", "attempt", "mode", "source", "outcome", "sealed", "blocks", "since")
        table: list[Sequence[Value]] = [[row[column] for column in columns] for row in rows]
        print(display.table_card(args.release, columns, table or [("no attempt yet",)]).text)
        for one in incidents:
            print(f"incident  {one['id']}: {one['blocks'] or one['standing']}")
        if opening is not None and following is not None:
            when = following["earliest"] or "not before that is mended"
            print(f"next: {opening.stage}, at the earliest {when}: {opening.item}: {opening.why}")
            for line in opening.missing[: display.SHOWN]:
                print(f"  missing  {line}")
    newest = {one.attempt.stage: one for one in found if one.verdict.mode == "apply"}
    passed = {stage for stage, one in newest.items() if one.passed}
    built = {stage for stage in STAGES if stage in NOTEBOOKS and stage in site.stages}
    whole = passed.issuperset(built) and not problems
    return 0 if whole else int(ExitCode.INCONCLUSIVE)
