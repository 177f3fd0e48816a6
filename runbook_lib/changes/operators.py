"""Nodes that belong to operators: instructed, never touched; read back by two independent witnesses.

What at least two of our own nodes see the node advertise, and the node report that its operator
signed. One without the other proves nothing. What we can read of the node ourselves must agree.

All operators of a wave are instructed at once where a quorum stands even while all of them are
down together: they need no order among themselves. Otherwise (a node is down already) one operator
is, and the next once those nodes are read back; so is the next wave once this one is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ..canonical import digest_bytes
from ..context import Context
from ..errors import SourceError, SourceRefused
from ..evidence import outbox
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..params import RolloutParams
from ..progress import progress
from ..sources.node import Peers
from ..sources.process import Ended
from ..sources.reports import NodeReport, Received, Reports, read_reports
from .apply import POLL_S, Applier, Step, all_pass
from .instruction import Instruction, instruction
from .plan import NodePlan, Phase
from .state import differences
from .unsent import keep

VIEWERS = 2
"""How many of our nodes must see what an operator's node advertises."""
SLOWEST_POLL_S = 60.0
LOOK_AGAIN = timedelta(minutes=5)
ADVERTISED = "gates that our nodes see it advertise"
REPORT = "node report"


def is_theirs(phase: Phase, wave: Sequence[str]) -> bool:
    """Whether a wave belongs to operators; none is mixed."""
    return phase.node(wave[0]).control == "operator"


def instructed(context: Context, applier: Applier, phase: Phase, wave: Sequence[str]) -> bool:
    """Whether every operator of a wave was told what to do, by an earlier try."""
    return all(
        applier.done(made.operator, step.name)
        for made in _instructions(context, phase, wave)
        for step in _steps(context, made)
    )


def roll_theirs(context: Context, applier: Applier, phase: Phase, wave: Sequence[str]) -> bool:
    """Instruct the operators of a wave, once, and wait for their nodes. False: not all are there."""
    for made in _instructions(context, phase, wave):
        if not tell_all(context, applier, made):
            return False
    rows = _await(context, applier, phase, wave)
    applier.rows += rows
    return all_pass(rows)


def tell(context: Context, applier: Applier, phase: Phase, wave: Sequence[str]) -> list[Row]:
    """Instruct the operators of a wave by every way there is; rows of the ways that failed.

    A comment that could not be posted lies in the outbox; the site's command is run again by the
    next try.
    """
    mine, rows = replace(applier, rows=[]), list[Row]()
    for made in _instructions(context, phase, wave):
        tell_all(context, mine, made, all_ways=True)
        rows += _kept(context, mine, made)
    return [*(row.model_copy(update={"outcome": Outcome.INCONCLUSIVE}) for row in mine.rows), *rows]


def _kept(context: Context, applier: Applier, made: Instruction) -> list[Row]:
    """A row for a comment that was kept for ``runbook publish``; nothing once it is posted."""
    if not context.params.issue:
        return []
    name = f"instruct-{digest_bytes(made.marker.encode()).removeprefix('sha256:')[:12]}"
    if applier.done(made.operator, f"instruct-{made.key}"):
        outbox.drop(context.folder, name)
        return []
    document: dict[str, Any] = {
        "kind": "comment",
        "issue": context.params.issue,
        "operator": made.operator,
    }
    document |= {"marker": made.marker, "text": made.comment}
    return [keep(context, name, document, None)]


def look(context: Context, applier: Applier, phase: Phase, wave: Sequence[str]) -> list[Row]:
    """What became of a wave that was told; waits for it as long as a takeover would."""
    until = context.scope.reread() + timedelta(minutes=context.params.takeover_minutes)
    return _await(context, applier, phase, wave, until)


def tell_all(
    context: Context, applier: Applier, made: Instruction, *, all_ways: bool = False
) -> bool:
    steps = _steps(context, made)
    made.file.parent.mkdir(exist_ok=True)
    made.file.write_text(made.text, "utf-8")
    if not steps:
        problem = "neither: set `issue` in the parameters or commands.instruct in the site file"
        row = unknown_row(made.operator, "told", "by an issue or commands.instruct", problem)
        applier.rows.append(row)
        return False
    told = (applier.step(step) for step in steps)
    return all(list(told)) if all_ways else all(told)


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


# --- instructing --------------------------------------------------------------------------------


def _instructions(context: Context, phase: Phase, wave: Sequence[str]) -> list[Instruction]:
    by: dict[str, list[NodePlan]] = {}
    for name in wave:
        by.setdefault(phase.node(name).operator, []).append(phase.node(name))
    return [instruction(context, phase, nodes) for nodes in by.values()]


def _steps(context: Context, made: Instruction) -> list[Step]:
    """A comment where there is an issue, the site's command where there is one."""
    steps = []
    if context.params.issue:
        steps.append(_comment(context, made))
    if context.site.commands.instruct is not None:

        def notify(lock: int, outputs: Path) -> Ended:
            return context.commands.instruct(made.operator, made.file, lock=lock, outputs=outputs)

        steps.append(Step(made.operator, f"notify-{made.key}", notify))
    return steps


def _comment(context: Context, made: Instruction) -> Step:
    number = context.params.issue

    def post(lock: int, outputs: Path) -> Ended:
        try:
            context.forge.create_comment(number, made.comment)
        except SourceRefused as refused:
            return Ended(1, b"", b"", refused.problem)
        except SourceError as error:  # it may stand there all the same: the next try looks
            return Ended(None, b"", b"", error.problem)
        return Ended(0, b"", b"")

    def posted() -> bool:
        me = context.forge.me().casefold()
        return any(
            one.author.casefold() == me and one.body.partition("\n")[0].strip() == made.marker
            for one in context.forge.comments(number)
        )

    return Step(made.operator, f"instruct-{made.key}", post, posted, expected="posted")


# --- reading back -------------------------------------------------------------------------------


def _await(
    context: Context,
    applier: Applier,
    phase: Phase,
    wave: Sequence[str],
    until: datetime | None = None,
) -> list[Row]:
    """Look until every node of the wave is there; only with ``wait``, and until the deadline.

    ``until``: no longer than that, though nodes may well be there later.
    """
    deadline = _deadline(context)
    since = _told(applier, context)
    pause, begun = POLL_S, context.scope.reread()
    end = deadline or until
    total = max((end - begun).total_seconds(), 1.0) if end else 1.0
    waiting = f"waiting for {', '.join(_operators(phase, wave))}"
    with progress(waiting, total, live=context.scope.live and context.params.wait) as advance:
        while True:
            context.require_going_on()
            now = context.scope.reread()
            look = Look(context, phase, since, now, deadline)
            rows = [row for name in wave for row in look.node(phase.node(name))]
            _journal(applier, phase, wave, rows)
            open_ = [row for row in rows if row.outcome is not Outcome.PASS]
            over = any(end is not None and now >= end for end in (deadline, until))
            failed = any(row.outcome is Outcome.FAIL for row in open_)
            if not open_ or failed or over or not context.params.wait:
                return rows
            context.scope.sleep(pause)
            advance(pause)
            pause = min(SLOWEST_POLL_S, pause * 1.5)


def _operators(phase: Phase, wave: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(phase.node(name).operator for name in wave))


def _journal(applier: Applier, phase: Phase, wave: Sequence[str], rows: Sequence[Row]) -> None:
    for name in wave:
        if all_pass([row for row in rows if row.subject == name]):
            applier.verified(name, phase.node(name).after, phase.name)


def _deadline(context: Context) -> datetime | None:
    params = context.params
    return params.window[1] if isinstance(params, RolloutParams) else None


def _told(applier: Applier, context: Context) -> dict[tuple[str, str], datetime]:
    """(operator, step) -> when its instruction first went out."""
    found: dict[tuple[str, str], datetime] = {}
    for entry in applier.steps():
        if entry["phase"] == "intent":
            at = datetime.fromisoformat(entry["at"])
            found.setdefault((entry["node"], entry["step"].partition("-")[2]), at)
    return found


@dataclass
class Look:
    """One look at what became of instructions: a few questions for all nodes of a wave."""

    context: Context
    phase: Phase
    told: dict[tuple[str, str], datetime]
    now: datetime
    deadline: datetime | None
    _reports: Reports | SourceError | None = field(default=None, init=False)
    _seen: dict[str, dict[str, dict[str, bool]]] = field(default_factory=dict, init=False)

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
        names = [each.node for each in self.phase.nodes if each.control == "operator"]
        self._seen = self._seen or seen(self.context, names)
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
        reports = self._all()
        if isinstance(reports, SourceError):
            return [unknown_row(node.node, REPORT, expected, str(reports))], None
        told = self._told(node)
        mine = [
            one
            for one in reports.of(node.node, context.stage)
            if (one.report.plan, one.report.phase) == (plan.digest, self.phase.name)
        ]
        for one in mine:
            if one.fault.startswith("forged"):
                got = f"{one.grounds}: {one.fault}"
                return [check_row(node.node, REPORT, expected, got, ok=False)], None
        good = [one for one in mine if not one.fault and told and one.report.at >= told]
        if good:
            return list(_against(node, good[-1])), good[-1].report
        if mine:
            last = mine[-1]
            why = last.fault or f"of {last.report.at.isoformat()}, older than the instruction"
            return [self._waiting(node, REPORT, expected, f"{last.grounds}: {why}")], None
        lies = "; ".join(f"{where}: {why}" for where, why in reports.unreadable[:2])
        missing = "none" if not advertised else "none, though it advertises the target"
        got = f"{missing} ({lies})" if lies else missing
        return [self._waiting(node, REPORT, expected, got)], None

    def _all(self) -> Reports | SourceError:
        if self._reports is None:
            context = self.context
            try:
                self._reports = read_reports(
                    context.scope,
                    context.site,
                    issue=context.params.issue,
                    release=context.params.release,
                )
            except SourceError as error:
                self._reports = error
        return self._reports

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
            read = _flat(rollout.release_channel, rollout.feature_gates)
        with suppress(SourceError):
            read["binary"] = context.commands.version(name).digest
        with suppress(SourceError):
            read["config"] = context.commands.read_config(name).digest
        said = {**_flat(report.channel, report.gates), "binary": report.binary}
        said["config"] = report.config
        wrong = [one for one in differences(said, read) if one[0] in read]
        return [
            check_row(name, f"{key} (reported, as we read it)", told, found, ok=False)
            for key, told, found in wrong
        ]


def _against(node: NodePlan, received: Received) -> Iterator[Row]:
    """A report against the plan, key by key."""
    report, after = received.report, node.after
    said = {**_flat(report.channel, report.gates), "binary": report.binary}
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
        got = f"{report.at.isoformat()}: {received.grounds}"
        yield check_row(node.node, REPORT, "channel, gates, binary, config as planned", got, True)


def _flat(channel: str, gates: dict[str, bool]) -> dict[str, str | bool]:
    return {
        "rollout.release_channel": channel,
        **{f"rollout.feature_gates.{gate}": on for gate, on in sorted(gates.items())},
    }


def _on(gates: dict[str, bool]) -> str:
    return ", ".join(sorted(gate for gate, on in gates.items() if on)) or "none on"
