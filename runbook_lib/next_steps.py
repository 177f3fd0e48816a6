"""What a verdict means for a person: its card, one line of refusal, and what to do next."""

import shlex
from pathlib import Path

from . import display, playbook
from .evidence.log import Log, opened_by
from .evidence.status import plan_digest
from .evidence.store import WAY_BACK
from .outcomes import Outcome
from .params import STAGE_PARAMS
from .session import PARAMETERS
from .signers import Signing, signed_text
from .verdicts import ExitCode, Verdict

BACK = f"{WAY_BACK}/params.yaml"
"""The parameter file of an attempt's way back, where there is one."""
TEXTS = dict.fromkeys(("summary", "impact"), '"TEXT"')
TEXTS |= dict.fromkeys(("mitigations", "next_steps"), '["TEXT"]')
"""What a recovery's report cannot be without, as its parameter file says it."""


def verdict_card(
    verdict: Verdict, folder: Path | None, signing: Signing | None = None
) -> display.Card:
    """The card of an attempt in ``folder``; of a replay, which has none that lasts, without links.

    ``signing``: with whose key it is about to be sealed.
    """
    ready = folder is not None and (folder / BACK).is_file()
    link = f"{WAY_BACK}/{playbook.NOTEBOOKS[f'{verdict.stage}_recovery']}" if ready else ""
    steps = next_steps(verdict, folder)
    signed = signed_text(signing) if folder is not None and signing is not None else ""
    return display.verdict_card(verdict, next_steps=steps, recovery_link=link, signed=signed)


def refusal(verdict: Verdict) -> str:
    """One line a person can act on."""
    blocking = verdict.blocking
    first = f"; first: {blocking[0].item}: {blocking[0].reason}" if blocking else ""
    broken = f"; {verdict.broken[0]}" if verdict.broken else ""
    return f"{verdict.stage}: {verdict.outcome} (exit {int(verdict.exit_code)}){broken}{first}"


def next_steps(verdict: Verdict, folder: Path | None = None) -> list[str]:
    """What to do next, as commands; ``folder`` is the attempt's, where it lasts."""
    back = _ways_back(verdict, folder)
    if verdict.stage in playbook.RECOVERY and back:
        return back
    if verdict.stage == playbook.PREFLIGHT and verdict.exit_code is ExitCode.PASSED:
        return ["Nothing of the preflight stands in the way of opening the stage."]
    # A replay has no file of parameters, nor has an old attempt: a word for it.
    path = folder / PARAMETERS if folder is not None else None
    there = path is not None and path.is_file()
    given = f"-f {shlex.quote(str(path)) if there else 'PARAMS'}"
    again = f"runbook run {verdict.stage} {given} -p attempt {verdict.attempt}"
    match verdict.exit_code:
        case ExitCode.PASSED if verdict.mode == "plan":
            return [_apply(verdict, given, folder)]
        case ExitCode.PASSED:
            return []
        case ExitCode.WAITING:
            return [f"Come back then: `{again}`"]
        case ExitCode.REFUSED:
            return [
                f"Mend it, then: `{again} -p retry_reason 'WHY'`",
                *_drops(verdict, given),
                *back,
            ]
        case _:
            return [f"Mend what could not be read, then: `{again}`", *back]


def _ways_back(verdict: Verdict, folder: Path | None) -> list[str]:
    """The commands that undo an apply which began a change, or go on with that."""
    if folder is None or verdict.exit_code in (ExitCode.PASSED, ExitCode.WAITING):
        return []
    stage = playbook.RECOVERY.get(verdict.stage, verdict.stage)
    if stage != verdict.stage:
        undoes = opened_by(Log(folder / "log.jsonl").events(), folder.name).undoes
        folder = folder.parents[2] / (undoes.name if undoes else "")
    if not (path := folder / BACK).is_file():
        return []
    command = f"runbook recover {stage} -f {shlex.quote(str(path))}"
    if stage == verdict.stage:
        some = f"Or some nodes only: `{command} --nodes NODE`"
        return [f"Or take all of it back: `{command}`", some]
    rows = [row for item in verdict.blocking for row in item.open_rows if row.what == "text"]
    if unsaid := [f"`{r.subject}: {TEXTS[r.subject]}`" for r in rows if r.subject in TEXTS]:
        return [f"Say in {path} what people are told ({', '.join(unsaid)}), then: `{command}`"]
    return [f"Once what is named can be reached: `{command}`"]


def _apply(verdict: Verdict, given: str, folder: Path | None) -> str:
    """How a plan is applied; only a rollout's needs the approval of others."""
    if folder is None or verdict.stage not in playbook.STAGES:
        return "Have the plan approved, then run with mode: apply."
    command = f"runbook run {verdict.stage} {given} -p mode apply"
    if "approved_plan" not in STAGE_PARAMS[verdict.stage].model_fields:
        return f"Make what is planned: `{command}`"
    digest = plan_digest(Log(folder / "log.jsonl").events())
    return f"Have the plan approved, then: `{command} -p approved_plan {digest}`"


def _drops(verdict: Verdict, given: str) -> list[str]:
    """Leaving out a node that stops a rollout; only a plan that others approved can shrink."""
    first = verdict.blocking[0]
    if first.kind != "change" or verdict.stage == "development" or first.result is None:
        return []
    nodes = {row.subject for row in first.open_rows if row.outcome is Outcome.FAIL}
    again = f"runbook run {verdict.stage} --continue {given}"
    return [
        f"Or leave {node} out, with an approval: `{again} --drop {node} --reason 'WHY'`"
        for node in sorted(nodes)[:3]
    ]
