"""Node reports that stand in for what the site cannot read of an operator's node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from ..changes.state import Known, differences
from ..changes.targets import kept_toml
from ..clusters import Node
from ..context import Context
from ..errors import SourceError
from ..outcomes import Row, check_row
from ..sources.commands import NodeConfig
from ..sources.config import rollout_keys
from ..sources.node import Rollout
from ..sources.words import NodeReport, Reports, read_reports

T = TypeVar("T")
Read = dict[str, T | SourceError]
WHAT = "node report"


def stand_in(
    context: Context,
    unread: Sequence[Node],
    before: Mapping[str, Known | SourceError],
    at_work: Mapping[str, Known],
    rollouts: Mapping[str, Rollout | SourceError],
    builds: Read[str],
    configs: Read[NodeConfig],
) -> list[Row]:
    """Fill ``builds`` (digests) and ``configs`` from fresh reports; rows of what is wrong with one.

    A file is known by its digest alone: that of the one last verified, whose text we kept, or of the
    one that a node of ``at_work`` was to be given.
    """
    params = context.params
    try:
        reports = read_reports(
            context.scope, context.site, issue=params.issue, release=params.release
        )
    except SourceError as error:
        return [context.unreadable(WHAT, "readable", error)]
    rows: list[Row] = []
    for node in unread:
        found = _fresh(context, node, reports)
        if isinstance(found, Row):
            rows.append(found)
        elif found is not None:
            rollout = rollouts[node.name]
            if not isinstance(rollout, SourceError):  # else said by its live state already
                said = rollout_keys(found.channel, found.gates)
                rows += [
                    check_row(node.name, f"{key} (reported, as it runs)", told, runs, ok=False)
                    for key, told, runs in differences(said, rollout.flat())
                ]
            if isinstance(builds[node.name], SourceError):
                builds[node.name] = found.binary
            known, after = before[node.name], at_work.get(node.name)
            if after is not None and found.config == after.state.config:
                known = after
            if isinstance(configs[node.name], SourceError) and isinstance(known, Known):
                rows += _reported_file(context, node, found, known, configs)
    return rows


def _fresh(context: Context, node: Node, reports: Reports) -> NodeReport | Row | None:
    """The newest report of a node, when it is young enough; a forged one is a row."""
    mine = reports.of(node.name, context.stage)
    if forged := [one for one in mine if one.fault.startswith("forged")]:
        got = f"{forged[0].grounds}: {forged[0].fault}"
        return check_row(node.name, WHAT, f"by {node.operator}", got, ok=False, waivable=False)
    good = [one.report for one in mine if not one.fault]
    if good and context.now - good[-1].at <= context.params.valid_for:
        return good[-1]
    return None


def _reported_file(
    context: Context, node: Node, report: NodeReport, known: Known, configs: Read[NodeConfig]
) -> list[Row]:
    if report.config != known.state.config:
        what = "config (reported)"
        return [check_row(node.name, what, known.state.config, report.config, ok=False)]
    try:
        configs[node.name] = kept_toml(context, known)
    except SourceError as error:
        return [check_row(node.name, "config", "the text we kept", error)]
    return []
