"""The order of the stages: one opens only on the stage before it, passed and proven from its files.

What permits is the newest *applied* attempt of the stage before, of the same release and commit and
made in the same world (live, or the same rehearsal): complete, sealed, PASS, its chain and digests
verified. A plan, a replay, or an older pass behind a newer failure permits nothing.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..canonical import canonical
from ..errors import RunbookError, SourceError
from ..outcomes import Model, Outcome, explain
from ..playbook import RECOVERY, STAGES
from ..signers import Trust
from ..sources.scope import Scope
from ..verdicts import Verdict
from . import events as kinds
from .log import recorded
from .standing import verdict
from .store import Attempt, Store

# --- Which apply a recovery undoes, and by which recovery an apply was undone ---


@dataclass(frozen=True)
class Undoing:
    """A recovery that undoes an apply: its attempt, who opened it and when; no ``nodes`` are all."""

    name: str
    operator: str
    at: datetime
    nodes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} by {self.operator}"


def undone_by(store: Store, release: str, stage: str, attempt: int) -> str:
    """``RECOVERY by OPERATOR`` of the first recovery that undoes an apply; empty for none."""
    return str(undoing(store, release, stage, attempt) or "")


def undoing(store: Store, release: str, stage: str, attempt: int) -> Undoing | None:
    """The first recovery that undoes an apply."""
    for runbook in (name for name, about in RECOVERY.items() if about == stage):
        for one in store.readable(release, runbook)[0]:
            opened = store.opened(one)
            if opened.mode == "apply" and opened.undoes and opened.undoes.attempt == attempt:
                named = opened.params.get("nodes")
                nodes = tuple(map(str, named)) if isinstance(named, list) else ()
                return Undoing(one.name, opened.operator, opened.now, nodes)
    return None


def plan_of(events: Sequence[kinds.Event]) -> kinds.PlanMade | None:
    """The plan that an attempt has."""
    return kinds.last(events, kinds.PlanMade)


def policy_of(events: Sequence[kinds.Event]) -> str:
    """The policy digest of an attempt's newest session; empty where none is named."""
    named = [
        e.policy
        for e in events
        if isinstance(e, kinds.Opened | kinds.SessionOpened | kinds.PolicyAccepted)
    ]
    return named[-1] if named else ""


BEFORE = dict(zip(STAGES[1:], STAGES, strict=False))
"""Stage -> the stage that must have passed before it."""


class Earlier(Model):
    """The attempt of the stage before; ``problem`` is empty when it permits the next stage.

    It does so to a site of its ``policy``, or one that was accepted after it (``refused``).
    ``attempt`` is 0 and the rest empty when there is none. ``seal`` is its newest seal's head.
    """

    stage: str
    attempt: int = 0
    name: str = ""
    seal: str = ""
    policy: str = ""
    problem: str = ""

    def refused(self, policies: Collection[str]) -> str:
        """The same, for a site of which these are the policy and those that it was accepted after."""
        if self.problem or self.policy in policies:
            return self.problem
        return f"expected attempt {self.attempt} made under this site's policy, got {self.policy}"


def find_earlier(
    store: Store, release: str, commit: str, stage: str, source: str, trust: Trust
) -> Earlier:
    """The attempt that must permit ``stage``, from the store itself. KeyError for the first."""
    before = BEFORE[stage]
    try:
        attempts = store.attempts(release)
        store.check_heads(attempts)
        applied = [
            attempt
            for attempt in attempts
            if attempt.stage == before
            and store.opened(attempt).mode == "apply"
            and store.opened(attempt).source in (source, "live", "rehearsal")
        ]
        if not applied:
            got = "expected an attempt that applied and passed, got none yet"
            return Earlier(stage=before, problem=got)
        from .seal import seals

        attempt, sealed = applied[-1], seals(applied[-1].folder)
        entries = attempt.log.events()
        found = verdict(entries)
        return Earlier(
            stage=before,
            attempt=attempt.number,
            name=attempt.name,
            seal=sealed[-1].digest if sealed else "",
            policy=policy_of(entries),
            problem=_problem(store, attempt, found, commit, source, trust),
        )
    except RunbookError as error:
        return Earlier(stage=before, problem=str(error))


def permitted(
    scope: Scope, store: Store, release: str, commit: str, stage: str, source: str, trust: Trust
) -> Earlier:
    """The same through the tape, once it permits. Raises SourceError saying what stands in the way."""

    def compute() -> str:
        found = find_earlier(store, release, commit, stage, source, trust)
        return canonical(found.model_dump(mode="json")).decode()

    found = Earlier.model_validate_json(scope.derive(f"stage before {stage}", compute))
    if found.problem:
        raise SourceError(f"{release}/{found.stage}", found.problem)
    return found


def entries_of(
    scope: Scope, store: Store, found: Earlier, *kinds: type[kinds.Event]
) -> list[kinds.Event]:
    """Its log, or only events of ``kinds``. Raises SourceError, LogDamaged."""
    return recorded(scope, store, found.name, *kinds)


def effect(events: Sequence[kinds.Event], item: str) -> datetime:
    """The instant a change took effect: when the last of its nodes was first read back.

    Raises SourceError when the log says of none.
    """
    instants = [event.at for event in kinds.of(events, kinds.NodeVerified) if event.item == item]
    if not instants:
        raise SourceError("journal", f"expected a node that {item} verified, got none")
    return max(instants)


def _problem(
    store: Store, attempt: Attempt, found: Verdict, commit: str, source: str, trust: Trust
) -> str:
    opened = store.opened(attempt)
    if opened.source != source:
        return f"expected attempt {attempt.number} made {source}, got it made {opened.source}"
    if opened.commit != commit:
        return f"expected commit {commit}, got {opened.commit} in attempt {attempt.number}"
    if found.outcome is not Outcome.PASS:
        why = found.broken[0] if found.broken else ""
        if found.blocking:
            why = f"{found.blocking[0].item}: {found.blocking[0].reason}"
        return f"expected attempt {attempt.number} PASS, got {found.outcome}: {why}"
    if by := undone_by(store, attempt.release, attempt.stage, attempt.number):
        return f"expected attempt {attempt.number} still in force, got it undone: {by}"
    from .verify import verify

    rows, _ = verify(attempt.folder, trust)
    if any(row.outcome is not Outcome.PASS for row in rows):
        return f"expected attempt {attempt.number} to verify, got: {explain(rows, '', '')}"
    return ""
