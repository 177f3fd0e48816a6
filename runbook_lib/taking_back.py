"""What a recovery takes back, and that it is held to the log of that: to its plan, signature, parameters."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import LogDamaged, ParameterError, RunbookError
from .evidence.events import Event, Sealed, StepTaken, Undoes, of
from .evidence.ledger import Ledger
from .evidence.log import Log, opened_by
from .evidence.seal import FOLDER
from .evidence.status import plan_of
from .evidence.store import Store
from .evidence.verify import verify_log
from .outcomes import Outcome
from .params import PER_RUN, STAGE_PARAMS, TOLD, RecoveryParams, way_back
from .playbook import APPROVERS
from .signers import Trust


def what_to_undo(
    store: Store, release: str, stage: str, source: str, number: int = 0
) -> tuple[Undoes | None, str]:
    """The apply that a recovery of ``stage`` undoes, and why that was not approved (or is none).

    ``number`` 0 is the newest that began a change, else the newest that has a plan. One that was
    undone before a newer one was opened is over: it is that one that must be stopped.
    """
    found = []
    for attempt in store.readable(release, stage)[0]:
        opened, entries = attempt.opened, list[Event]()
        with suppress(RunbookError, OSError):
            entries = attempt.log.events()
        if opened.mode != "apply" or opened.source != source:
            continue
        if number in (0, attempt.number) and (plan := plan_of(entries)) is not None:
            found.append((bool(of(entries, StepTaken)), attempt, plan))
    if not found:
        which = f"apply attempt {number}" if number else "apply attempt"
        return None, f"expected an {which} of {release}/{stage} with a plan, got none"
    newest = max(found, key=lambda one: (one[0], one[1].number))
    if (by := Ledger(store).undoing(release, stage, newest[1].number)) is not None:
        later = [one for one in found if one[1].number > newest[1].number]
        for one in later:
            if one[1].opened.now > by.at:
                newest = one
    _, attempt, plan = newest
    undoes = Undoes(attempt=attempt.number, plan=plan.digest, name=attempt.name)
    if stage in APPROVERS and not plan.approved_by:
        return undoes, f"expected the plan of {attempt.name} approved, got nobody's approval"
    return undoes, ""


def undoes_of(
    store: Store, about: str, params: RecoveryParams, source: str, trust: Trust
) -> Undoes | None:
    """What a recovery undoes. Raises ParameterError for what nobody approved, without a reason."""
    found, why = what_to_undo(store, params.release, about, source, params.undoes)
    if found:
        require_signed(store, found.name, trust, params.break_glass)
    if why and params.mode == "apply" and not params.break_glass:
        raise ParameterError(
            f"break_glass: {why}; to go on without an approval, which the governance council must"
            " ratify within 24 h, give the reason: --reason 'WHY'"
        )
    if not found:
        return None
    logged = way_back(store.named(found.name).opened)
    given = {k: v for k, v in params if v and logged.get(k) and k != "mode"}
    require_logged(given, logged, found.name, params.break_glass)
    return found


def require_signed(store: Store, name: str, trust: Trust, reason: str) -> None:
    """Raises LogDamaged for a sealed apply whose log is not as it was signed, without a ``reason``.

    One that was killed has no seal: its plan is what counts.
    """
    apply = store.named(name)
    opened = apply.opened
    sealed = bool(of(apply.log.events(), Sealed)) or (apply.folder / FOLDER).exists()
    rows = verify_log(apply.folder, trust) if sealed else []
    wrong = [f"{row.what}: {row.observed}" for row in rows if row.outcome is not Outcome.PASS]
    if opened.name != apply.name:
        wrong = [f"the log of {opened.name}", *wrong]
    if wrong and not reason:
        more = "to take it back all the same give the reason: --reason 'WHY'"
        raise LogDamaged(f"{name}: expected its log as it was signed, got {wrong[0]}; {more}")


def require_logged(
    given: Mapping[str, Any], logged: Mapping[str, Any], where: object, reason: str
) -> None:
    """Raises ParameterError for parameters that are not the log's, unless there is a ``reason``."""
    differs = [
        f"{where}: {name}: expected {logged.get(name)!r} as the log has it, got {value!r}"
        for name, value in given.items()
        if value != logged.get(name)
    ]
    if differs and not reason:
        more = "to go on with others than the log's give the reason: --reason 'WHY'"
        raise ParameterError([*differs, f"{where}: {more}"])


def as_logged(path: Path, values: dict[str, Any], reason: str = "") -> dict[str, Any]:
    """The parameters of a file: where it lies in an attempt, those of that attempt's log.

    Who can write the store can edit the file. Raises ParameterError, LogDamaged without a log.
    """
    folder = path.absolute().parent
    if back := folder.name == "recovery":
        folder = folder.parent
    is_ours = re.fullmatch("[0-9]{4,9}", folder.name) and folder.parent.name in STAGE_PARAMS
    if not is_ours and not (folder / "log.jsonl").exists():
        return values
    opened = opened_by(Log(folder / "log.jsonl").events(), str(path))
    logged = way_back(opened) if back else dict(opened.params)
    free = TOLD if back else PER_RUN | {"attempt"}
    require_logged({k: v for k, v in values.items() if k not in free}, logged, path, reason)
    return {**logged, **values}
