"""``runbook status`` and ``adopt``: where a release stands, and a cluster taken over as it is."""

import argparse
from collections.abc import Sequence
from typing import Any

from .. import display
from ..changes import adopt as adopting
from ..errors import ParameterError, StoreError
from ..evidence.comment import compare_heads
from ..evidence.incidents import Block, Incidents
from ..evidence.release import AttemptStatus, Opening, attempts_of, next_opening
from ..evidence.store import Store
from ..outcomes import Value
from ..playbook import NOTEBOOKS, STAGES
from ..site import read_site
from ..verdicts import ExitCode
from ..wording import utc
from .printing import print_json

COLUMNS = ("stage", "attempt", "mode", "source", "outcome", "sealed", "blocks", "since")


def status(args: argparse.Namespace) -> int:
    """Where a release stands, computed from its attempts, and when the next stage can open."""
    site = read_site(args.site)
    store = Store(site.store_path)
    if not store.root.is_dir():
        raise StoreError(f"{store.root}: expected the folder of {site.name}'s store, got none")
    found = attempts_of(store, args.release)
    issues = [one.attempt.opened.issue for one in found]
    try:
        missing, unknown = compare_heads(site, args.release, max(issues, default=0))
    except ParameterError as error:  # who only looks may have no token
        missing, unknown = [], f"heads not compared with the release issue: {error}"
    blocks = Incidents(store).blocking(args.release, single_operator=site.single_operator)
    document = {
        "release": args.release,
        "attempts": [_attempt(one) for one in found],
        "incidents": _incidents(store, args.release, blocks),
        "heads": [*missing, *filter(None, [unknown])],
        "next": _next(next_opening(store, site, args.release)),
    }
    if args.json:
        print_json(document)
    else:
        _print(document, found)
    newest = {one.attempt.stage: one for one in found if one.verdict.mode == "apply"}
    stand = {stage for stage, one in newest.items() if one.passed and one.undone is None}
    built = {stage for stage in STAGES if stage in NOTEBOOKS and stage in site.stages}
    whole = stand.issuperset(built) and not blocks and not document["heads"]
    return 0 if whole else int(ExitCode.INCONCLUSIVE)


def _attempt(one: AttemptStatus) -> dict[str, Any]:
    undone = one.undone
    return {
        "stage": one.attempt.stage,
        "attempt": one.attempt.number,
        "mode": one.verdict.mode,
        "source": one.verdict.source,
        "outcome": one.verdict.outcome.value,
        "exit_code": int(one.verdict.exit_code),
        "sealed": one.sealed,
        "blocks": one.verdict.why,
        "since": one.since.isoformat(timespec="seconds") if one.since else "",
        "undone": {
            "by": undone.name,
            "operator": undone.operator,
            "at": undone.at.isoformat(timespec="seconds"),
            "nodes": list(undone.nodes),
        }
        if undone is not None
        else None,
    }


def _incidents(store: Store, release: str, blocks: Sequence[Block]) -> list[dict[str, str]]:
    problems = {one.name: one.problem for one in blocks}
    known = {one.id: one.status for one in Incidents(store).of(release)}
    return [
        {"id": name, "status": known.get(name, "missing"), "blocks": problems.get(name, "")}
        for name in dict.fromkeys([*known, *problems])
    ]


def _next(opening: Opening | None) -> dict[str, Any] | None:
    if opening is None:
        return None
    return {
        "stage": opening.stage,
        "earliest": opening.at.isoformat(timespec="seconds") if opening.at else None,
        "item": opening.item,
        "why": opening.why,
        "missing": list(opening.missing),
    }


def _print(document: dict[str, Any], found: Sequence[AttemptStatus]) -> None:
    table: list[Sequence[Value]] = [
        [row[column] if column != "blocks" else _stands(one) for column in COLUMNS]
        for row, one in zip(document["attempts"], found, strict=True)
    ]
    title = document["release"]
    print(display.table_card(title, COLUMNS, table or [("no attempt yet",)]).text)
    for one in document["incidents"]:
        print(f"incident  {one['id']}: {one['blocks'] or one['status']}")
    for problem in document["heads"]:
        print(f"heads     {problem}")
    if following := document["next"]:
        when = following["earliest"] or "not before that is mended"
        stage, item, why = following["stage"], following["item"], following["why"]
        print(f"next: {stage}, at the earliest {when}: {item}: {why}")
        for line in following["missing"][: display.SHOWN]:
            print(f"  missing  {line}")


def _stands(one: AttemptStatus) -> str:
    """What stands in its way; of what was taken back, first by which recovery and when."""
    if one.undone is None:
        return one.verdict.why
    where = f" on {', '.join(one.undone.nodes)}" if one.undone.nodes else ""
    undone = f"undone{where}: {one.undone}, {utc(one.undone.at)}"
    return f"{undone}; {one.verdict.why}" if one.verdict.why else undone


def adopt(args: argparse.Namespace) -> int:
    """Take a cluster over as it is; 4 while the approval is missing."""
    done = adopting.adopt(
        args.site,
        args.cluster,
        issue=args.issue,
        approval=args.approval,
        artifacts=[path.resolve() for path in args.artifact],
    )
    document = {
        "cluster": args.cluster,
        "digest": done.digest,
        "nodes": {name: state.model_dump(mode="json") for name, state in done.states.items()},
        "approved_by": list(done.approved_by),
        "self_approved": done.self_approved,
    }
    if args.json:
        print_json(document)
    else:
        rows: list[Sequence[Value]] = []
        for name, state in done.states.items():
            gates = ", ".join(gate for gate, on in state.gates.items() if on)
            files = (state.binary[:19], state.artifact[:19] or "not known")
            rows.append((name, state.channel, gates, *files))
        columns = ("node", "channel", "gates on", "binary", "artifact")
        print(display.table_card(f"{args.cluster}: {done.digest}", columns, rows).text)
        by = ", ".join(done.approved_by) + (" (self-approved)" if done.self_approved else "")
        print(
            f"adopted, approved by {by}" if by else f"not adopted: comment `approve {done.digest}`"
        )
    return 0 if done.approved_by else int(ExitCode.WAITING)
