"""Node reports that stand in for what the site cannot read of an operator's node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..changes.targets import kept_toml
from ..context import Context
from ..plan import differences, rollout_keys
from ..site import Node
from ..sources.words import NodeReport, read_reports

if TYPE_CHECKING:
    from .drift import Live

WHAT = "node report"


def stand_in(context: Context, unread: Sequence[Node], live: Live) -> None:
    """Fill builds and configurations that cannot be read from fresh reports.

    A file is known by its digest alone: that of the one last verified, whose text we kept, or of the
    one that a node at work was to be given.
    """
    params = context.params
    with context.reading(WHAT, "readable"):
        reports = read_reports(
            context.scope, context.site, issue=params.issue, release=params.release
        )
        for node in unread:
            mine = reports.of(node.name, context.stage)
            good = [one.report for one in mine if not one.fault]
            if forged := [one for one in mine if one.fault.startswith("forged")]:
                got = f"{forged[0].grounds}: {forged[0].fault}"
                by = f"by {node.operator}"
                context.judge(node.name, WHAT, by, got, ok=False, waivable=False)
            elif good and context.now - good[-1].at <= params.valid_for:
                _take(context, node.name, good[-1], live)


def _take(context: Context, name: str, report: NodeReport, live: Live) -> None:
    known = live.known.get(name)
    if rollout := live.rollouts.known.get(name):  # else said by its live state already
        said = rollout_keys(report.channel, report.gates)
        for key, told, runs in differences(said, rollout.flat()):
            context.judge(name, f"{key} (reported, as it runs)", told, runs, ok=False)
    if name in live.builds.failed:
        live.builds.fill(name, report.binary)
    after = live.at_work.get(name)
    if after is not None and report.config == after.state.config:
        known = after
    if known is None or name in live.configs.known:
        return
    if report.config != known.state.config:
        what, digest = "config (reported)", known.state.config
        context.judge(name, what, digest, report.config, ok=False)
        return
    with context.reading("config", "the text we kept", name):
        live.configs.fill(name, kept_toml(context, known))
