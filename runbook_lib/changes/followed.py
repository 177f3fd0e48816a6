"""Whether an operator's node became what its operator was told: two independent witnesses.

What at least two of our own nodes see it advertise, and the report that its operator signed. One
without the other proves nothing. What we can read of the node ourselves must agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from ..context import Context
from ..errors import SourceError
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..sources.config import rollout_keys
from ..sources.node import Peers
from ..sources.reports import NodeReport, Received, Reports, read_reports
from .plan import NodePlan, Phase
from .state import differences

VIEWERS = 2
"""How many of our nodes must see what an operator's node advertises."""
LOOK_AGAIN = timedelta(minutes=5)
ADVERTISED = "gates that our nodes see it advertise"
REPORT = "node report"


def seen(context: Context, names: Sequence[str]) -> dict[str, dict[str, dict[str, bool]]]:
    """Node -> the node of ours that sees it -> the gates it advertises to that one."""
    ours = [node.name for node in context.cluster.nodes if node.control == "ours"]
    peers = {node.peer: node.name for node in context.cluster.nodes if node.peer}
    found: dict[str, dict[str, dict[str, bool]]] = {name: {} for name in names}
    # Once each: who is silent is asked again at the next look.
    for viewer, view in context.fleet.get("/p2p/peers", Peers, ours, retries=1).items():
        for peer in view.peers if isinstance(view, Peers) else ():
            if (name := peers.get(peer.peer, "")) in found:
                found[name][viewer] = peer.features
    return found


@dataclass
class Look:
    """One look at what became of instructions: a few questions for all nodes of a wave."""

    context: Context
    phase: Phase
    told: dict[tuple[str, str], datetime]
    now: datetime
    deadline: datetime | None

    @property
    def due(self) -> datetime | None:
        """When to look again; None once the deadline has passed."""
        again = self.now + LOOK_AGAIN
        if self.deadline is None:
            return again
        return min(again, self.deadline) if self.now < self.deadline else None

    def node(self, node: NodePlan) -> list[Row]:
        """What both witnesses say of a node against its plan."""
        advert = self._advert(node)
        moved = node.before.gates != node.after.gates
        reported, report = self._report(node, moved and advert.outcome is Outcome.PASS)
        if report is None:
            return [advert, *reported]
        return [advert, *reported, *self._ours(node, report)]

    def _waiting(self, node: NodePlan, what: str, expected: str, got: str) -> Row:
        late = "" if self.due else ", and the deadline has passed"
        got = f"{got}: waiting for {node.operator}{late}"
        return unknown_row(node.node, what, expected, got, return_at=self.due)

    def _advert(self, node: NodePlan) -> Row:
        wanted, before = node.after.gates, node.before.gates
        expected = f"{_on(wanted)}, by {VIEWERS} of ours"
        said = self._seen[node.node]
        for viewer, gates in said.items():
            if gates not in (wanted, before):
                got = f"{_on(gates)} (by {viewer})"
                return check_row(node.node, ADVERTISED, expected, got, ok=False)
        agree = [viewer for viewer, gates in said.items() if gates == wanted]
        if len(agree) >= VIEWERS and len(agree) == len(said):
            got = f"{_on(wanted)}, by {', '.join(agree)}"
            return check_row(node.node, ADVERTISED, expected, got, ok=True)
        if len(said) < VIEWERS:
            got = f"seen by {', '.join(said) or 'none'} of our nodes"
            return self._waiting(node, ADVERTISED, expected, got)
        return self._waiting(node, ADVERTISED, expected, _on(before))

    def _report(self, node: NodePlan, advertised: bool) -> tuple[list[Row], NodeReport | None]:
        context, plan = self.context, self.context.plan
        assert plan is not None
        expected = f"by {node.operator}, of this plan and phase"
        reports = self._reports
        if isinstance(reports, SourceError):
            return [unknown_row(node.node, REPORT, expected, str(reports))], None
        told = self._told(node)
        mine = [
            one
            for one in reports.of(node.node, context.stage)
            if (one.report.plan, one.report.phase) == (plan.digest, self.phase.name)
        ]
        good = [one for one in mine if not one.fault and told and one.report.at >= told]
        if good:
            forged = [f"{one.grounds}: {one.fault}" for one in mine if one.fault]
            return list(_against(node, good[-1], forged)), good[-1].report
        if mine:
            last = mine[-1]
            why = last.fault or f"of {last.report.at.isoformat()}, older than the instruction"
            return [self._waiting(node, REPORT, expected, f"{last.grounds}: {why}")], None
        lies = "; ".join(f"{where}: {why}" for where, why in reports.unreadable[:2])
        missing = "none" if not advertised else "none, though it advertises the target"
        got = f"{missing} ({lies})" if lies else missing
        return [self._waiting(node, REPORT, expected, got)], None

    @cached_property
    def _seen(self) -> dict[str, dict[str, dict[str, bool]]]:
        names = [each.node for each in self.phase.nodes if each.control == "operator"]
        return seen(self.context, names)

    @cached_property
    def _reports(self) -> Reports | SourceError:
        context, params = self.context, self.context.params
        try:
            return read_reports(
                context.scope, context.site, issue=params.issue, release=params.release
            )
        except SourceError as error:
            return error

    def _told(self, node: NodePlan) -> datetime | None:
        parted = f"{self.phase.name}."
        instants = [
            at
            for (operator, key), at in self.told.items()
            if operator == node.operator and (key == self.phase.name or key.startswith(parted))
        ]
        return min(instants, default=None)

    def _ours(self, node: NodePlan, report: NodeReport) -> list[Row]:
        """What we can read of the node ourselves against its report; silence is no contradiction."""
        context, name = self.context, node.node
        read: dict[str, str | bool] = {}
        rollout = context.fleet.rollout([name])[name]
        if not isinstance(rollout, SourceError):
            read = rollout_keys(rollout.release_channel, rollout.feature_gates)
        with suppress(SourceError):
            read["binary"] = context.commands.version(name).digest
        with suppress(SourceError):
            read["config"] = context.commands.read_config(name).digest
        said = {**rollout_keys(report.channel, report.gates), "binary": report.binary}
        said["config"] = report.config
        wrong = [one for one in differences(said, read) if one[0] in read]
        return [
            check_row(name, f"{key} (reported, as we read it)", told, found, ok=False)
            for key, told, found in wrong
        ]


def _against(node: NodePlan, received: Received, forged: Sequence[str]) -> Iterator[Row]:
    """A report against the plan, key by key; it names what was passed over for it."""
    report, after = received.report, node.after
    said = {**rollout_keys(report.channel, report.gates), "binary": report.binary}
    wanted = {**after.flat()}
    wrong = differences(wanted, {**said, "config": report.config})
    for key, expected, got in wrong:
        yield check_row(node.node, f"{key} (reported)", expected, got, ok=False)
    if report.target != after.config:
        what = "file of the dry run (reported)"
        yield check_row(node.node, what, after.config, report.target, ok=False)
    if report.dry_run is None:
        got = f"not run: {node.operator} must report anew with --dry-run"
        yield unknown_row(node.node, "strict dry run (reported)", "accepted", got)
    elif not report.dry_run:
        yield check_row(node.node, "strict dry run (reported)", "accepted", "refused", ok=False)
    elif not wrong and report.target == after.config:
        got = "; passed over: ".join([f"{report.at.isoformat()}: {received.grounds}", *forged])
        yield check_row(node.node, REPORT, "channel, gates, binary, config as planned", got, True)


def _on(gates: dict[str, bool]) -> str:
    return ", ".join(sorted(gate for gate, on in gates.items() if on)) or "none on"
