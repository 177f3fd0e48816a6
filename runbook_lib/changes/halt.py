"""The halt of a rollout, announced where validators read: what testnet's recovery begins with."""

from __future__ import annotations

from pathlib import Path

from ..context import Context
from ..errors import SourceError
from ..evidence import outbox
from ..files import replace_file
from ..outcomes import Outcome, Row, check_row
from ..params import RecoveryParams
from ..sources.governance import Governance
from ..sources.process import Ended
from .apply import Applier, Step
from .incident_facts import Facts
from .incident_text import render
from .unsent import keep, later

CHANNEL = "channel"


def halted(context: Context) -> str:
    """What was halted: the attempt that is undone, else this recovery's own name."""
    undoes = context.journal[0].body.get("undoes")
    return str(undoes["name"]) if undoes else context.attempt_name


def halt_text(context: Context) -> str:
    """The announcement. Raises SourceError for a template that cannot be filled."""
    params: RecoveryParams = context.params
    values = {
        "chain": context.cluster.chain_id,
        "cluster": context.cluster_name,
        "release": params.release,
        "commit": params.commit,
        "halted": halted(context),
    }
    return render(context, "halt.txt", Facts(), values)


def plan_halt(context: Context) -> list[Row]:
    """What would be announced. Only reads."""
    return [check_row("halt", "would say", "", halt_text(context), Outcome.INCONCLUSIVE)]


def announce_halt(context: Context, applier: Applier) -> list[Row]:
    """Tell the validators that the rollout is halted, and read it back. Playbook: testnet."""
    try:
        text, reference = halt_text(context), halted(context)
    except SourceError as error:
        return [context.unreadable("halt announced", "the template filled", error)]
    path = context.folder / "halt.txt"
    replace_file(path, text)
    values = {"release": context.params.release, "stage": context.stage, "reference": reference}
    document = {"kind": "halt", "values": values, "text": text}

    def run(lock: int, outputs: Path) -> Ended:
        try:
            ended = context.commands.announce_halt(
                context.params.release, context.stage, reference, path, lock=lock, outputs=outputs
            )
        except SourceError as error:
            return Ended(None, b"", b"", f"{error.problem}; {later(context)}")
        if ended.code == 0:
            return ended
        last = ended.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"]
        why = ended.problem or f"exit {ended.code}: {last[-1]}"
        return Ended(None, ended.stdout, ended.stderr, f"{why}; {later(context)}")

    try:
        there = announced(context)
    except SourceError as error:
        if _was_sent(applier):
            return [context.unreadable("halt stands in the channel", reference, error)]
        there = False  # the read-back says so
    if there:
        outbox.drop(context.folder, "halt")
        return [check_row("halt", "stands in the channel", reference, reference, ok=True)]
    # By its try: one that was sent, and does not stand there, is sent anew.
    name = f"announce-halt-{context.scope.number}"
    if not applier.step(Step(CHANNEL, name, run, expected="sent")):
        keep(context, "halt", document, None)
        return [applier.rows.pop()]  # the step's own
    outbox.drop(context.folder, "halt")
    try:
        got = reference if announced(context) else "not among those that stand"
    except SourceError as error:
        return [context.unreadable("halt stands in the channel", reference, error)]
    return [check_row("halt", "stands in the channel", reference, got, got == reference)]


def _was_sent(applier: Applier) -> bool:
    """Whether an earlier try announced it: what cannot be looked for is not announced once more."""
    mine = [body["phase"] for body in applier.steps() if body["node"] == CHANNEL]
    return "done" in mine


def announced(context: Context) -> bool:
    """Whether the halt stands where validators read. Raises SourceError."""
    wanted = ("halt", context.params.release, context.stage, halted(context))
    found = Governance(context.scope, context.site.commands).announced()
    return wanted in [(one.kind, one.release, one.stage, one.reference) for one in found]
