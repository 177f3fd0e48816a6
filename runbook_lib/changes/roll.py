"""Rolling a phase over its nodes: wave by wave, stopping at the first node that is not healthy.

Before each wave: its window, its margin, and that nothing pages. After each: every node read back, and the
chain still committing. What an earlier run did is read back and not repeated; that the chain bore
it is judged again, before anything follows: the run may have ended on just that.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial

from .. import playbook
from ..context import Context
from ..errors import SourceError, tried
from ..evidence.status import item_status
from ..findings import Findings
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..params import RolloutParams
from ..plan import BUILD, Phase, Plan, moves, phase_of
from ..sources.commands import NodeConfig
from ..strict import parse_instant, project_path
from ..wording import utc
from .apply import FORWARD, Applier, all_pass, install, read_back, until, walk
from .operators import VIEWERS, instructed, is_theirs, roll_theirs, seen
from .power import powers
from .targets import keep_target, rendered

WINDOW = "change window"


def window_rows(context: Context, steps: int, *, at: datetime | None = None) -> list[Row]:
    """Whether ``steps`` nodes can be changed now: in plan mode, at the instant that is planned.

    Before the window it is not yet due; after it, or too near its end, it fails.
    """
    params: RolloutParams = context.params
    start, end = params.window
    now = at or context.now
    planned = max(now, start) if params.mode == "plan" else now
    needs = timedelta(minutes=params.minutes_per_node) * steps
    span = f"{utc(start)} to {utc(end)}"
    rows = _freezes(context, start, end)
    if planned < start:
        got = f"it is {utc(planned)}"
        return [*rows, unknown_row("window", WINDOW, span, got, return_at=start)]
    ok = planned + needs <= end
    room = f"{max(end - planned, timedelta(0)) // timedelta(minutes=1)} min left at {utc(planned)}"
    expected = f"{span}, {needs // timedelta(minutes=1)} min before its end"
    return [*rows, check_row("window", WINDOW, expected, room, ok)]


def _freezes(context: Context, start: datetime, end: datetime) -> list[Row]:
    rows = []
    for freeze in context.site.freezes:
        if parse_instant(freeze.start) < end and start < parse_instant(freeze.end):
            got = f"frozen {freeze.start} to {freeze.end}: {freeze.reason}"
            rows.append(check_row("window", "outside every freeze", "no freeze", got, ok=False))
    return rows


Turns = list[Sequence[str]]


def margin(context: Context, phase: Phase, number: int) -> tuple[Row, Turns]:
    """Whether a wave leaves a quorum up, and in which turns: all at once, where that does.

    Else our nodes, which we restart one after the other, one at a time; and one operator at a
    time, as each of them may take down all of theirs.
    """
    what, wave = f"power during {phase.name}, wave {number + 1}", phase.waves[number]
    found = tried(powers, context)
    if isinstance(found, SourceError):
        return check_row(found.source, what, "a quorum stays up", found), [wave]
    down = _down(context)
    up = found.total - sum(found.of.get(name, 0) for name in down)
    theirs = is_theirs(phase, wave)
    parts: dict[str, list[str]] = {}
    for name in wave:
        parts.setdefault(phase.node(name).operator if theirs else name, []).append(name)
    power = [sum(found.of.get(n, 0) for n in part if n not in down) for part in parts.values()]
    at_once = up - sum(power) >= found.quorum
    left = up - sum(power) if at_once else up - max(power, default=0)
    how = "" if at_once else f", one {'operator ' if theirs else ''}at a time"
    got = f"{left} of {found.total} up{how}"
    got += f" ({', '.join(down)} down already)" if down else ""
    row = check_row("quorum", what, f"at least {found.quorum} up", got, left >= found.quorum)
    return row, list(parts.values()) if theirs and not at_once else [wave]


def _down(context: Context) -> list[str]:
    """Nodes that do not answer us; of operators' only those that our nodes do not see either."""
    silent = list(context.fleet.status().failed)
    operators = {node.name for node in context.cluster.nodes if node.control == "operator"}
    asked = [name for name in silent if name in operators]
    sights = seen(context, asked) if asked else {}
    return [name for name in silent if len(sights.get(name, ())) < VIEWERS]


Before = Callable[[], list[Row]]
BEHIND = 2
"""Blocks a node may be behind the others when it is called healthy."""


def roll(context: Context, applier: Applier, phase: Phase, before_wave: Before = list) -> bool:
    """Make a phase. False when it stopped, with the rows that say why.

    Before a wave begins, and at the end, the nodes that were changed are with the chain again.
    """
    changed: list[str] = []
    for number, wave in enumerate(phase.waves):
        turns: Turns = [wave]
        if _left(context, applier, phase, wave):
            if not _all_healthy(context, applier, changed):
                return False
            changed = []
            if not (turns := _begin(context, applier, phase, number, before_wave)):
                return False
        if is_theirs(phase, wave):
            if not all(roll_theirs(context, applier, phase, turn) for turn in turns):
                return False
        else:
            visit = partial(_node, phase=phase)
            found = walk(context, applier, [wave], FORWARD, visit, f" {phase.name}")
            if not all(map(all_pass, found.values())):
                return False
        changed += [name for name in wave if phase.node(name).before != phase.node(name).after]
    return _all_healthy(context, applier, changed)


def _all_healthy(context: Context, applier: Applier, nodes: Sequence[str]) -> bool:
    """Whether the chain bears what was done to some nodes, now or by earlier runs; rows say so."""
    if not nodes or not isinstance(context.params, RolloutParams):
        return True
    rows = healthy(context, nodes)
    applier.rows += rows
    return all_pass(rows)


def has_begun(applier: Applier, phase: Phase) -> bool:
    """Whether the journal shows a step of a phase, on a node of ours or of an operator's."""
    return any(phase_of(step.step) == phase.name for step in applier.steps())


def planned_rows(context: Context, item: str) -> list[Row]:
    """What a change item would do, for a card in plan mode."""
    return [
        check_row(node.node, key, before, after, Outcome.INCONCLUSIVE)
        for phase in (context.plan.of(item) if context.plan else ())
        for node in phase.nodes
        for key, before, after in node.changes()
    ]


def _left(context: Context, applier: Applier, phase: Phase, wave: Sequence[str]) -> list[str]:
    """The nodes of a wave that are still to be changed: operators', until they were instructed."""
    if is_theirs(phase, wave):
        return [] if instructed(context, applier, phase, wave) else list(wave)
    step, nodes = _step("restart", phase), {name: phase.node(name) for name in wave}
    left = [name for name, node in nodes.items() if node.before != node.after]
    return [name for name in left if not applier.done(name, step)]


def _begin(
    context: Context, applier: Applier, phase: Phase, number: int, before_wave: Before
) -> Turns:
    """The turns in which a wave may begin; none when it may not, as it could not be ended."""
    assert context.plan is not None
    context.require_going_on()
    rows = [*before_wave(), *digest_rows(context, context.plan)]
    turns: Turns = [phase.waves[number]]
    if isinstance(context.params, RolloutParams):
        rows += window_rows(
            context, _to_come(context.plan, phase, number), at=context.scope.reread()
        )
        row, turns = margin(context, phase, number)
        rows.append(row)
    bad = [row for row in rows if row.outcome is not Outcome.PASS]
    if not bad and (why := applier.unfit()):
        bad.append(
            unknown_row(f"wave {number + 1}", "no page, and every waiver in force", "so", why)
        )
    applier.rows += bad
    return [] if bad else turns


def _to_come(plan: Plan, phase: Phase, number: int) -> int:
    """How many nodes a change has before it, from a wave on: later phases of it belong to it too."""
    phases = plan.of(phase.item)
    later = phases[[one.name for one in phases].index(phase.name) + 1 :]
    waves = [*phase.waves[number:], *(wave for one in later for wave in one.waves)]
    return sum(len(wave) for wave in waves)


def _step(what: str, phase: Phase) -> str:
    """A step's name in the journal: a change may take a node through several phases."""
    return what if phase.name == BUILD else f"{what}-{phase.name}"


def _node(context: Context, applier: Applier, name: str, phase: Phase) -> list[Row]:
    """Change one node of ours and read it back."""
    node = phase.node(name)
    if node.before == node.after:
        return read_back(context, applier, node, phase.name)
    assert context.plan is not None
    build, wanted, found = context.plan.artifact, node.after.config, Findings()
    if context.scope.file_digest(project_path(build.path)) != build.digest:
        found.judge(name, "artifact", build.digest, "another content than was planned", ok=False)
        return found.findings
    made = NodeConfig(b"", "")
    with found.reading("target TOML", wanted, name):
        # Out of its TOML as it lies there now, before the phase or after it.
        config, changes = context.commands.read_config(name), moves(node.before, node.after)
        made = rendered(context, name, config, changes)
        if made.digest != wanted:
            got = f"{made.digest}: the node's file moved since the plan"
            found.judge(name, "target TOML", wanted, got, ok=False)
    if found.findings:
        return found.findings
    file = keep_target(context, f"{name}.{phase.name}", made)
    return install(context, applier, node, phase.name, build, file, partial(_step, phase=phase))


def healthy(context: Context, nodes: Sequence[str]) -> list[Row]:
    """Whether the nodes of a wave are with the chain again: caught up, and it commits."""
    return until(context, lambda: _healthy(context, nodes), all_pass)


def _healthy(context: Context, nodes: Sequence[str]) -> list[Row]:
    answers = context.fleet.consensus()
    rows = []
    theirs = {node.name for node in context.cluster.nodes if node.control == "operator"}
    silent = theirs & set(answers.failed)
    # An operator's node may not answer us at all: then ours tell how the chain does.
    names = [name for name in nodes if name not in silent] or [
        n for n in answers if n not in theirs
    ]
    for name in names:
        if failed := answers.failed.get(name):
            rows.append(check_row(failed.source, "healthy after its wave", "an answer", failed))
            continue
        answer = answers[name]
        behind = max(each.height for each in answers.known.values()) - answer.height
        rows.append(check_row(name, "blocks behind", f"at most {BEHIND}", behind, behind <= BEHIND))
        power = f"{answer.commit_power} of {answer.quorum_threshold} committed"
        ok = answer.quorum_reached and int(answer.commit_power) >= int(answer.quorum_threshold)
        rows.append(check_row(name, "its last round", "reached the quorum", power, ok))
    return rows or [unknown_row("wave", "nodes", "at least one", "none")]


# --- the digests that preflight.binary-verification proved ----------------------------------------


VERIFICATION = "preflight.binary-verification"


def digest_rows(context: Context, plan: Plan) -> list[Row]:
    """Whether the plan's artifact is the verified one; nothing where the stage verifies none."""
    if VERIFICATION not in playbook.DECLARED.get(context.stage, ()):
        return []
    subject, what, planned = "release artifact", "digest of the plan", plan.artifact.digest
    now = item_status(context.journal, VERIFICATION)
    if now.result is None or now.outcome is not Outcome.PASS:
        got = f"expected it verified by {VERIFICATION}, got: {now.reason}"
        return [unknown_row(subject, what, "verified", got)]
    match now.result.data.get("digests"):
        case {"node": str(verified)}:
            return [check_row(subject, what, verified, planned)]
    got = f"expected {VERIFICATION} to name its digest, got none"
    return [unknown_row(subject, what, "verified", got)]
