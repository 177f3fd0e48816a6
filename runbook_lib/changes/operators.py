"""Nodes that belong to operators: instructed, never touched, and read back.

All operators of a wave are instructed at once where a quorum stands even while all of them are
down together: they need no order among themselves. Otherwise (a node is down already) one operator
is, and the next once those nodes are read back; so is the next wave once this one is.

An instruction is Markdown for people, with one JSON block in it for their automation. Whether a
node became what its operator was told takes two independent witnesses: what at least two of our own
nodes see it advertise, and the report that its operator signed. One without the other proves
nothing. What we can read of the node ourselves must agree.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from ..canonical import canonical
from ..context import Context
from ..errors import SourceError, tried
from ..evidence.comment import LIMIT, MARKDOWN
from ..evidence.ledger import kept_config
from ..evidence.posts import Post
from ..files import keep_file
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..params import RolloutParams
from ..plan import NodePlan, Phase, differences, rollout_keys
from ..sources.node import Peers
from ..sources.redact import MARK
from ..sources.words import NodeReport, Received, Reports, read_reports
from .apply import Applier, all_pass
from .posts import publish
from .targets import artifact_of, no_file

FOLDER = "instructions"


def instruct(
    context: Context, template: str, key: str, document: Mapping[str, Any], **facts: Any
) -> list[Post]:
    """An instruction for the operator of ``document``, which stands in it as JSON: a comment where
    there is an issue, the site's command where there is one. ``key`` names it among the attempt's.
    """
    operator, params = document["operator"], context.params
    name = f"{operator}.{key}"
    marker = f"<!-- rpp-runbook instruct={name} attempt={context.attempt_name} -->"
    given = {"files": [], **document, **facts, "marker": marker, "mark": MARK}
    given["document"] = canonical(document).decode()
    full = comment = MARKDOWN.render(template, **given)
    if len(full.encode("utf-16-le")) // 2 > LIMIT:
        comment = MARKDOWN.render(template, **{**given, "files": []})
    keep_file(context.folder, f"{FOLDER}/{name}.md", full)
    until = params.window[1] if isinstance(params, RolloutParams) else None
    posted = Post(
        step=f"instruct-{key}", subject=operator, text=comment, issue=params.issue, until=until
    )
    told = Post(
        step=f"notify-{key}",
        subject=operator,
        text=full,
        command="instruct",
        values={"operator": operator},
        until=until,
    )
    ways = [posted] if params.issue else []
    return ways if ways and context.site.commands.instruct is None else [*ways, told]


def _rollout(context: Context, phase: Phase, nodes: Sequence[NodePlan]) -> list[Post]:
    """What the operator of ``nodes`` must do in ``phase``. Their targets lie in the attempt."""
    plan, operator = context.plan, nodes[0].operator
    assert plan is not None
    orders = dict[str, dict[str, Any]]()
    for node in nodes:
        changes, after = {key: new for key, _, new in node.changes()}, node.after
        orders[node.node] = {"changes": changes, "config": after.config, "binary": after.binary}
        if after.binary != plan.artifact.binary:  # on the way back nodes may go to several builds
            build = artifact_of(context, after) or no_file(after)
            orders[node.node]["artifact"] = build.model_dump()
    document = {
        "operator": operator,
        "release": context.params.release,
        "stage": context.stage,
        "plan": plan.digest,
        "phase": phase.name,
        "deadline": plan.window[1] if plan.window else "",
        "artifact": plan.artifact.model_dump(mode="json"),
        "nodes": orders,
    }
    rows = [
        (node.node, key, str(old), str(new))
        for node in nodes
        for key, old, new in node.changes() or [("nothing", "", "")]
    ]
    kept = [(one.node, kept_config(context.folder, one.node, phase.name)) for one in nodes]
    files = [(node, path.read_text("utf-8")) for node, path in kept]
    theirs = [node.node for node in phase.nodes if node.operator == operator]
    # Named by its first node where power parts an operator's nodes into several waves.
    key = phase.name if len(nodes) == len(theirs) else f"{phase.name}.{nodes[0].node}"
    return instruct(context, "instruction.md.j2", key, document, rows=rows, files=files)


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
    views = context.fleet.get("/p2p/peers", Peers, ours, retries=1)
    for viewer, view in views.known.items():
        for peer in view.peers:
            if (name := peers.get(peer.peer, "")) in found:
                found[name][viewer] = peer.features
    return found


@dataclass
class Look:
    """One look at what became of instructions: a few questions for all nodes of a wave."""

    context: Context
    phase: Phase
    told: dict[str, datetime]
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
        expected = f"{gates_on(wanted)}, by {VIEWERS} of ours"
        said = self._seen[node.node]
        for viewer, gates in said.items():
            if gates not in (wanted, before):
                got = f"{gates_on(gates)} (by {viewer})"
                return check_row(node.node, ADVERTISED, expected, got, ok=False)
        agree = [viewer for viewer, gates in said.items() if gates == wanted]
        if len(agree) >= VIEWERS and len(agree) == len(said):
            got = f"{gates_on(wanted)}, by {', '.join(agree)}"
            return check_row(node.node, ADVERTISED, expected, got, ok=True)
        few = f"seen by {', '.join(said) or 'none'} of our nodes"
        got = few if len(said) < VIEWERS else gates_on(before)
        return self._waiting(node, ADVERTISED, expected, got)

    def _report(self, node: NodePlan, advertised: bool) -> tuple[list[Row], NodeReport | None]:
        context, plan = self.context, self.context.plan
        assert plan is not None
        expected = f"by {node.operator}, of this plan and phase"
        reports = self._reports
        if isinstance(reports, SourceError):
            return [unknown_row(node.node, REPORT, expected, str(reports))], None
        told = self.told.get(node.operator)
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
        got = "none, though it advertises the target" if advertised else "none"
        got += f" ({lies})" if lies else ""
        return [self._waiting(node, REPORT, expected, got)], None

    @cached_property
    def _seen(self) -> dict[str, dict[str, dict[str, bool]]]:
        names = [each.node for each in self.phase.nodes if each.control == "operator"]
        return seen(self.context, names)

    @cached_property
    def _reports(self) -> Reports | SourceError:
        scope, site, params = self.context.scope, self.context.site, self.context.params
        return tried(read_reports, scope, site, issue=params.issue, release=params.release)

    def _ours(self, node: NodePlan, report: NodeReport) -> list[Row]:
        """What we can read of the node ourselves against its report; silence is no contradiction."""
        context, name = self.context, node.node
        read: dict[str, str | bool] = {}
        if rollout := context.fleet.rollout([name]).known.get(name):
            read = rollout.flat()
        with suppress(SourceError):
            read["binary"] = context.commands.version(name).digest
        with suppress(SourceError):
            read["config"] = context.commands.read_config(name).digest
        return [
            check_row(name, f"{key} (reported, as we read it)", told, found, ok=False)
            for key, told, found in differences(_reported(report), read)
            if key in read
        ]


def _reported(report: NodeReport) -> dict[str, str | bool]:
    rollout = rollout_keys(report.channel, report.gates)
    return {**rollout, "binary": report.binary, "config": report.config}


def _against(node: NodePlan, received: Received, forged: Sequence[str]) -> Iterator[Row]:
    """A report against the plan, key by key; it names what was passed over for it."""
    report, after = received.report, node.after
    wrong = differences(after.flat(), _reported(report))
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


def gates_on(gates: Mapping[str, bool]) -> str:
    return ", ".join(sorted(gate for gate, on in gates.items() if on)) or "none on"


PAUSES_S = (10.0, 20.0, 30.0, 60.0)
"""Between looks at what operators do; whoever needs longer is returned to."""


def tell(
    context: Context, applier: Applier, instructions: Iterable[Post], *, all_ways: bool = False
) -> list[Row]:
    """Instruct operators, each once by a way; rows of what did not go out, which ends it, unless all
    of it is to be tried.
    """
    failed = list[Row]()
    for post in instructions:
        rows, _ = publish(context, applier, post)
        failed += [row for row in rows if row.outcome is not Outcome.PASS]
        if failed and not all_ways:
            break
    return failed


def is_theirs(phase: Phase, wave: Sequence[str]) -> bool:
    """Whether a wave belongs to operators; none is mixed."""
    return phase.node(wave[0]).control == "operator"


def instructed(context: Context, applier: Applier, phase: Phase, wave: Sequence[str]) -> bool:
    """Whether every operator of a wave was told what to do, by an earlier run."""
    posts = instructions(context, phase, wave)
    return all(applier.did(post.subject, post.step) for post in posts)


def roll_theirs(context: Context, applier: Applier, phase: Phase, wave: Sequence[str]) -> bool:
    """Instruct the operators of a wave, once, and read their nodes. False: not all are there."""
    rows = tell(context, applier, instructions(context, phase, wave))
    rows = rows or look(context, applier, phase, wave)
    applier.rows += rows
    return all_pass(rows)


def tell_all(context: Context, applier: Applier, made: Iterable[Post]) -> list[Row]:
    """Instruct operators by every way there is; rows of the ways that failed."""
    failed = tell(context, applier, made, all_ways=True)
    return [row.model_copy(update={"outcome": Outcome.INCONCLUSIVE}) for row in failed]


def look(context: Context, applier: Applier, phase: Phase, wave: Sequence[str]) -> list[Row]:
    """What became of a wave that was told, looked at again for two minutes.

    Rows of what is still missing then say when to return.
    """
    params, told_at = context.params, _told(applier, phase)
    deadline = params.window[1] if isinstance(params, RolloutParams) else None
    names = ", ".join(dict.fromkeys(phase.node(name).operator for name in wave))
    for pause in (*PAUSES_S, None):
        context.require_going_on()
        now = context.scope.reread()
        one = Look(context, phase, told_at, now, deadline)
        rows = [row for name in wave for row in one.node(phase.node(name))]
        for name in wave:
            if all_pass([row for row in rows if row.subject == name]):
                applier.verified(name, phase.node(name).after, phase.name)
        waits = all(row.outcome is not Outcome.FAIL for row in rows) and one.due is not None
        if pause is None or all_pass(rows) or not waits:
            break
        from .waiting import hold_until

        hold_until(context, now + timedelta(seconds=pause), names)
    return rows


def instructions(context: Context, phase: Phase, wave: Sequence[str]) -> list[Post]:
    nodes = [phase.node(name) for name in wave]
    by = {one.operator: [n for n in nodes if n.operator == one.operator] for one in nodes}
    return [post for theirs in by.values() for post in _rollout(context, phase, theirs)]


def _told(applier: Applier, phase: Phase) -> dict[str, datetime]:
    """Operator -> when the first instruction of a phase went out."""
    found = dict[str, datetime]()
    for step in applier.steps():
        key = step.step.partition("-")[2].rpartition(".")[0]
        mine = key == phase.name or key.startswith(f"{phase.name}.")
        if mine and step.phase == "intent":
            found[step.node] = min(step.at, found.get(step.node, step.at))
    return found
