"""The ledger: what the logs of a store say of a release, of a cluster and of its nodes.

It answers which recovery undoes an apply, whether a stage may open, who holds a cluster, and per node
the state that was last verified (*known*) or that the last pass or adoption left (*good*): that is
where a rollback leads. Nothing else says what a cluster should be like before a stage. With a scope
every question goes through its tape.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ..canonical import canonical
from ..errors import RunbookError, SourceError, StoreError
from ..outcomes import Model, Outcome, explain
from ..plan import NodeState
from ..playbook import RECOVERY, STAGES
from ..signers import Trust
from ..sources import local
from .events import Adopting, Event, LockReleased, LockTaken, NodeVerified, Opened, of
from .log import parse_line
from .status import JUDGED, passed, policy_of, verdict
from .store import Attempt, Store

if TYPE_CHECKING:
    from ..sources.scope import Scope

BEFORE = dict(zip(STAGES[1:], STAGES, strict=False))
"""Stage -> the stage that must have passed before it."""


class Known(Model):
    """A node's last verified state, when it was verified and by which attempt.

    ``kept`` is where in the store its TOML lies, without secrets; older attempts have none.
    """

    state: NodeState
    at: datetime
    origin: str
    kept: str


class States(dict[str, Known]):
    """Node -> its state. Raises SourceError for a node without, telling how to take it over."""

    def __init__(self, cluster: str) -> None:
        super().__init__()
        self.cluster = cluster

    def __missing__(self, node: str) -> Known:
        raise SourceError(
            node,
            f"expected a known state in the store, got none; take {self.cluster} over as it is with"
            " `runbook adopt`",
        )


def kept_config(folder: Path, node: str, phase: str = "") -> Path:
    """Where an attempt keeps the TOML it made or found of a node, without its secrets."""
    return folder / "targets" / (f"{node}.{phase}.toml" if phase else f"{node}.toml")


def states(events: Iterable[Event], origin: str) -> Iterator[tuple[str, Known]]:
    """(node, state) as a log says they were verified."""
    for one in of(events, NodeVerified):
        kept = str(kept_config(Path(origin), one.node, one.phase))
        yield one.node, Known(state=one.state, at=one.at, origin=origin, kept=kept)


@dataclass(frozen=True)
class Undoing:
    """A recovery that undoes an apply: its attempt, who opened it and when; no ``nodes`` are all."""

    name: str
    operator: str
    at: datetime
    nodes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} by {self.operator}"


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


@dataclass(frozen=True)
class Ledger:
    """The logs of ``store``, through the tape of ``scope`` where there is one."""

    store: Store
    scope: Scope | None = None

    # --- logs -----------------------------------------------------------------------------------

    def events(self, attempt: str, *kinds: type[Event]) -> list[Event]:
        """The first event and those of ``kinds`` (without any, all) of an attempt's log.

        The tape keeps what is asked for, and not a growing log whole each time somebody looks into
        it. Raises SourceError, LogDamaged.
        """
        log = self.store.log(attempt)

        def taken() -> bytes:
            try:
                lines = local.recorded(log.path).split(b"\n")
            except OSError as error:
                raise SourceError(attempt, f"expected a log, got: {error.strerror}") from error
            both = zip(log.events(), lines, strict=False)
            return b"\n".join(x for e, x in both if not kinds or e.seq == 0 or isinstance(e, kinds))

        asked = " ".join(["LOG", *(str(kind.model_fields["kind"].default) for kind in kinds), "OF"])
        text = self.scope.extract(asked, log.path, taken) if self.scope else taken()
        return [parse_line(line, attempt) for line in text.split(b"\n") if line]

    def attempts(
        self, release: str, stage: str, *kinds: type[Event]
    ) -> Iterator[tuple[str, list[Event]]]:
        """(name, log) of each attempt at a stage, oldest first, each read when it is asked for.

        Raises SourceError, LogDamaged.
        """
        for number in self.store.numbers(release, stage, self.scope):
            yield (name := f"{release}/{stage}/{number:04d}"), self.events(name, *kinds)

    def changes(self, cluster: str, *kinds: type[Event]) -> Iterator[tuple[str, list[Event]]]:
        """(attempt, events of ``kinds``) of every apply, recovery and adoption of ``cluster``.

        Never a plan, never a replay. Raises LogDamaged.
        """
        for name in self.store.everything(self.scope):
            events = self.events(name, *kinds)
            match events[:1]:
                case [Adopting() | Opened(mode="apply") as opened]:
                    if opened.cluster == cluster and opened.source != "replay":
                        yield name, events

    # --- nodes ----------------------------------------------------------------------------------

    def known(self, cluster: str) -> States:
        """The last verified state of every node of ``cluster``; a node never seen is not in it.

        Raises LogDamaged when a log of the store contradicts itself.
        """
        return _latest(cluster, self.changes(cluster, NodeVerified))

    def good(self, cluster: str) -> States:
        """The last good state of every node of ``cluster``, of whatever release.

        Good is what the last attempt that passed (complete, applied, live) left, or an approved
        adoption took over; a node of neither is not in it. Raises LogDamaged, SourceError.
        """
        logs = self.changes(cluster, NodeVerified, *JUDGED)
        return _latest(
            cluster, ((n, es) for n, es in logs if isinstance(es[0], Adopting) or passed(es))
        )

    def took_lock(self, cluster: str) -> Iterator[Attempt]:
        """The attempts that took a cluster's lock and have not given it back, by their logs.

        Raises StoreError for a log that cannot be read: it may be that of one of them.
        """
        for name in self.store.everything():
            try:
                events = self.store.log(name).events()
            except (StoreError, OSError) as error:
                raise StoreError(f"{name}: {error}") from error
            locks = [e for e in events if isinstance(e, LockTaken | LockReleased)]
            if [type(e) for e in locks if e.cluster == cluster][-1:] == [LockTaken]:
                yield self.store.named(name)

    # --- the order of the stages ----------------------------------------------------------------

    def undoing(self, release: str, stage: str, attempt: int) -> Undoing | None:
        """The first recovery that undoes an apply."""
        for runbook in (name for name, about in RECOVERY.items() if about == stage):
            for one in self.store.readable(release, runbook)[0]:
                opened = one.opened
                if opened.mode == "apply" and opened.undoes and opened.undoes.attempt == attempt:
                    named = opened.params.get("nodes")
                    nodes = tuple(map(str, named)) if isinstance(named, list) else ()
                    return Undoing(one.name, opened.operator, opened.now, nodes)
        return None

    def earlier(self, release: str, commit: str, stage: str, source: str, trust: Trust) -> Earlier:
        """The attempt that must permit ``stage``: a stage opens only on the one before it.

        What permits is the newest *applied* attempt of that, of the same release and commit and
        made in the same world (live, or the same rehearsal): complete, sealed, PASS, still in force,
        its chain and digests verified. A plan, a replay, or an older pass behind a newer failure
        permits nothing. KeyError for the first stage.
        """

        def compute() -> str:
            found = self._earlier(release, commit, BEFORE[stage], source, trust)
            return canonical(found.model_dump(mode="json")).decode()

        told = self.scope.derive(f"stage before {stage}", compute) if self.scope else compute()
        return Earlier.model_validate_json(told)

    def _earlier(self, release: str, commit: str, stage: str, source: str, trust: Trust) -> Earlier:
        from .seal import seals

        worlds = (source, "live", "rehearsal")
        try:
            made = [
                one
                for one in self.store.attempts(release)
                if (one.stage, one.opened.mode) == (stage, "apply") and one.opened.source in worlds
            ]
            if not made:
                got = "expected an attempt that applied and passed, got none yet"
                return Earlier(stage=stage, problem=got)
            attempt = made[-1]
            return Earlier(
                stage=stage,
                attempt=attempt.number,
                name=attempt.name,
                seal="".join(one.digest for one in seals(attempt.folder)[-1:]),
                policy=policy_of(attempt.log.events()),
                problem=self._refuses(attempt, commit, source, trust),
            )
        except RunbookError as error:
            return Earlier(stage=stage, problem=str(error))

    def _refuses(self, attempt: Attempt, commit: str, source: str, trust: Trust) -> str:
        opened, found = attempt.opened, verdict(attempt.log.events())
        which = f"attempt {attempt.number}"
        if opened.source != source:
            return f"expected {which} made {source}, got it made {opened.source}"
        if opened.commit != commit:
            return f"expected commit {commit}, got {opened.commit} in {which}"
        if found.outcome is not Outcome.PASS:
            return f"expected {which} PASS, got {found.outcome}: {found.why}"
        if by := self.undoing(attempt.release, attempt.stage, attempt.number):
            return f"expected {which} still in force, got it undone: {by}"
        from .verify import verify

        rows, _ = verify(attempt.folder, trust)
        if any(row.outcome is not Outcome.PASS for row in rows):
            return f"expected {which} to verify, got: {explain(rows, '', '')}"
        return ""


def _latest(cluster: str, logs: Iterable[tuple[str, list[Event]]]) -> States:
    found = States(cluster)
    for origin, events in logs:
        for node, known in states(events, origin):
            if node not in found or known.at >= found[node].at:
                found[node] = known
    return found
