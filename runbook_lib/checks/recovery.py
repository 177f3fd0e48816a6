"""The recovery of each stage, in the playbook's order: three changes a stage, none blocks another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from .. import playbook
from ..canonical import digest_bytes
from ..changes import incident as reporting
from ..changes.apply import Applier, Change, all_pass
from ..changes.back import go_back, undone
from ..changes.back import make_back_plan as plan
from ..changes.posts import publish
from ..changes.roll import planned_rows
from ..changes.storage import FOLLOWS, Need, diagnose, follow, plan_storage, restore_nodes
from ..context import Context
from ..errors import SourceError, tried
from ..evidence.events import FigureDrawn, NodeVerified, Restoring, StepTaken, of
from ..evidence.log import opened_by
from ..evidence.posts import Post
from ..outcomes import CheckResult, Row, Value, unknown_row
from ..params import RecoveryParams
from ..wording import count
from .baselines import read_catalogue

if TYPE_CHECKING:
    from ..metrics.plots import Drawn


AGAIN = "mainnet.recover.restore"


def _always(context: Context) -> Need:
    return Need([], tuple(node.name for node in context.cluster.nodes))


def _rows(
    context: Context,
    applier: Applier,
    need: Callable[[Context], Need],
    *,
    rest: Callable[[Context], Need] | None = None,
    log: bool = False,
) -> tuple[list[Row], int]:
    """Rows, and how many nodes were to be restored.

    What an earlier run began is finished first. Then ``rest`` judges the nodes that it did not set
    out to restore: what it saw of them is old by now.
    """
    mine = [e.nodes for e in of(context.journal, Restoring) if e.item == context.item]
    begun = mine[-1] if mine else ()
    rows = restore_nodes(context, applier, begun, log=log) if begun else []
    look = rest if begun else need
    if look is None or {node.name for node in context.cluster.nodes} <= set(begun):
        return rows, len(begun)
    found = look(context)
    rows += [row for row in found.rows if row.subject not in begun]
    asked = context.params.nodes or found.nodes
    if more := [name for name in found.nodes if name in asked and name not in begun]:
        if begun:  # how the others follow tells nothing: these may have been what they waited for
            rows = [row for row in rows if row.what != FOLLOWS]
        context.log.append(Restoring(item=context.item, nodes=(*begun, *more)))
        rows += restore_nodes(context, applier, more, log=log)
        if begun:
            rows += [row for name, (row, _) in follow(context).items() if name not in more]
    return list(dict.fromkeys(rows)), len(begun) + len(more)


def storage_rows(context: Context, applier: Applier) -> list[Row]:
    """The storage part of mainnet.recover.stall: journalled as of the item that completes it."""
    mine = replace(context, item=AGAIN)
    rows, _ = _rows(mine, replace(applier, context=mine), diagnose)
    return rows


def _restoration(
    item: str,
    need: Callable[[Context], Need],
    unneeded: str,
    *,
    rest: Callable[[Context], Need] | None = None,
    log: bool = False,
) -> Change:
    def apply(context: Context, applier: Applier) -> CheckResult:
        rows, nodes = _rows(context, applier, need, rest=rest, log=log)
        if not nodes and all_pass(rows):
            return context.conclude(rows, passed=f"not needed: {unneeded}", empty="")
        passed = f"{nodes} nodes restored, state roots equal, following the chain"
        return context.conclude(rows, passed=passed, empty="the cluster has no such node")

    return Change(item, plan_storage, apply)


_GOES_ON = "every node follows the chain, every snapshot verifies"
restore_state = _restoration("development.recover.restore-state", _always, "", log=True)
storage = _restoration(
    "testnet.recover.storage",
    partial(diagnose, logs=True),
    f"{_GOES_ON}, everywhere",
    rest=partial(diagnose, logs=True, halts=False),
)
halt_fallback = _restoration("canary.recover.halt-fallback", diagnose, _GOES_ON)
restore = _restoration(AGAIN, diagnose, _GOES_ON)


FILE = "figures/incident.png"
TOPICS = ("block_production", "finality_lag", "vrf_participation")
BEFORE, LONGEST = timedelta(minutes=30), timedelta(hours=6)


def what_happened(context: Context) -> Drawn:
    """The figure, kept in the attempt as well. Raises SourceError when no metric can be read.

    Of what took longer the last six hours are drawn. A metric without data is named under the panels.
    """
    from ..metrics.plots import Mark
    from .figures import draw

    end = context.at
    found = tried(undone, context)
    made, problem = (None, str(found)) if isinstance(found, SourceError) else (found, "")
    # What had happened by then: a replay has the log to its end.
    known = [*(made.entries if made is not None else ()), *context.journal]
    entries = [e for e in known if not isinstance(e, NodeVerified | StepTaken) or e.at <= end]
    start = max(opened_by(entries, context.attempt_name).now - BEFORE, end - LONGEST)
    mark = Mark(context.opened.now, f"recovery opened by {context.opened.operator}")
    drawn = draw(
        replace(context, journal=entries),
        FILE,
        read_catalogue(context).of_topic(*TOPICS),
        (start, end),
        marks=[mark],
        note="".join(problem.splitlines()[:1]),
    )
    digest = digest_bytes(drawn.png)
    context.log.append(FigureDrawn(file=FILE, digest=digest, text=drawn.text, start=start, end=end))
    return drawn


CHANNEL = "channel"


def halted_attempt(context: Context) -> str:
    """What was halted: the attempt that is undone, else this recovery's own name."""
    undoes = context.opened.undoes
    return undoes.name if undoes else context.attempt_name


def halt_text(context: Context) -> str:
    """The announcement. Raises SourceError for a template that cannot be filled."""
    params: RecoveryParams = context.params
    values = {
        "chain": context.cluster.chain_id,
        "cluster": context.cluster_name,
        "release": params.release,
        "commit": params.commit,
        "halted": halted_attempt(context),
    }
    return reporting.render(context, "halt.txt", values)


def plan_halt(context: Context) -> list[Row]:
    """What would be announced. Only reads."""
    return [unknown_row("halt", "would say", "", halt_text(context))]


def announce_halt(context: Context, applier: Applier) -> None:
    """Tell the validators that the rollout is halted, and read it back. Playbook: testnet."""
    text = tried(halt_text, context)
    if isinstance(text, SourceError):  # going back waits for no text
        context.judge(text.source, "halt announced", "the template filled", text)
        return
    release, reference = context.params.release, halted_attempt(context)
    post = Post(
        step="announce-halt",
        subject=CHANNEL,
        text=text,
        command="announce_halt",
        values={"release": release, "stage": context.stage, "reference": reference},
    )
    context.findings += publish(context, applier, post)[0]


Tell = Callable[[Context, Applier], None]


def _change(item: str, plan: Callable[[Context], list[Row]], tell: Tell, passed: str) -> Change:
    def apply(context: Context, applier: Applier) -> CheckResult:
        tell(context, applier)
        return context.conclude(passed=passed, empty="nothing was told")

    return Change(item, plan, apply, exclusive=False)


def _filed(item: str, audience: reporting.Audience, passed: str) -> Change:
    plan = partial(reporting.plan_incident, audience=audience)
    return _change(item, plan, partial(reporting.file_incident, audience=audience), passed)


incident = _filed(
    "development.recover.incident",
    "internal",
    "an incident is open with its metrics, filed and read back; it blocks promotion",
)
governance_incident = _filed(
    "testnet.recover.governance-incident",
    "governance",
    "filed with its impact and the gates of every node, read back",
)
public_report = _filed(
    "canary.recover.public-report",
    "public",
    "the report is out with mitigations and next steps, read back",
)
council = _change(
    "mainnet.recover.council",
    reporting.plan_council,
    reporting.convene,
    "the council was convened, its decision is recorded",
)

__all__ = ["plan"]


def _back(
    item: str,
    passed: str,
    *,
    would: Callable[[Context], list[Row]] = lambda context: [],
    first: Tell = lambda context, applier: None,
    then: Callable[[Context, Applier], list[Row]] = lambda context, applier: [],
) -> Change:
    """A change that takes the plan's nodes back; ``first`` and ``then`` are what else it does.

    ``would`` plans what comes first.
    """

    def plan_it(context: Context) -> list[Row]:
        return [*would(context), *planned_rows(context, item)]

    def apply(context: Context, applier: Applier) -> CheckResult:
        first(context, applier)
        rows = [*context.findings]
        rows += [*go_back(context, applier), *then(context, applier)]
        nodes = len(context.plan.nodes) if context.plan is not None else 0
        return context.conclude(
            rows,
            passed=passed.format(nodes=count(nodes, "node")),
            empty="the plan has no node",
            data={"plan": context.plan.digest if context.plan is not None else ""},
        )

    return Change(item, plan_it, apply)


revert_build = _back(
    "development.recover.revert-build", "{nodes} run the previous build again, read back"
)
halt = _back(
    "testnet.recover.halt",
    "the halt is announced, {nodes} run the previous release again, read back",
    would=plan_halt,
    first=announce_halt,
)
disable_gates = _back(
    "canary.recover.disable-gates",
    "{nodes} have rewards and witness off again, on their previous configuration",
)
stall = _back(
    "mainnet.recover.stall",
    "{nodes} have rewards and witness off, on the canary configuration; that deviation is named",
    then=storage_rows,
)

_ALL: Sequence[tuple[Change, str, Value]] = (
    (revert_build, "the previous build runs, read back", "every node"),
    (restore_state, "snapshot restored, WAL replayed, roots equal", "all"),
    (incident, "an incident is open and blocks promotion", "1"),
    (halt, "halt announced, previous release redeployed, read back", "every node"),
    (storage, "corrupted snapshots restored, roots equal", "all, or none corrupt"),
    (governance_incident, "incident filed with impact and gates, read back", "1"),
    (disable_gates, "rewards and witness off, previous bundle", "affected nodes"),
    (halt_fallback, "prior snapshot, proofs replayed", "all, or no halt"),
    (public_report, "mitigations and next steps, filed, read back", "none empty"),
    (stall, "rewards and witness off, canary configuration", "every node"),
    (restore, "snapshot restored, proofs verified before blocks", "all"),
    (council, "convened, its decision recorded", "within 24 h"),
)
"""Each change, what must hold after it, and its threshold."""
RUNS: dict[str, tuple[Change, ...]] = {
    runbook: tuple(change for change, *_ in _ALL if change.item in playbook.DECLARED[runbook])
    for runbook in playbook.RECOVERY
}
"""The changes of each recovery, in the playbook's order."""


def expectations(context: Context) -> list[tuple[str, str, Value]]:
    """What must hold after this stage's recovery, before any data is read."""
    prefix = f"{context.stage}.recover."
    return [
        (change.item, what, least) for change, what, least in _ALL if change.item.startswith(prefix)
    ]
