"""Where a release stands: its attempts, what blocks each and since when, and when the next can open.

Computed from the attempts in the store. The earliest opening is a bound, not a promise: the
playbook's windows from the instants the journals say, epochs at the chain's nominal pace.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from .. import playbook
from ..errors import RunbookError, SourceError, tried
from ..outcomes import Row, check_row, unknown_row
from ..signers import Trust
from ..site import Site
from ..sources.local import recorded
from ..verdicts import ExitCode, ItemStatus, Verdict
from .events import Event, Sealed, SessionOpened, last, of
from .incidents import Incidents
from .ledger import BEFORE, Ledger, Undoing
from .log import Log, opened_by, parse
from .status import effect, plan_digest, statuses, verdict
from .store import Attempt, Store


@dataclass(frozen=True)
class AttemptStatus:
    """One attempt; ``since`` is when what blocks it was last judged, ``undone`` what took it back."""

    attempt: Attempt
    verdict: Verdict
    sealed: bool
    since: datetime | None
    undone: Undoing | None = None

    @property
    def passed(self) -> bool:
        """Whether it applied and passed."""
        return self.verdict.exit_code is ExitCode.PASSED and self.verdict.mode == "apply"


@dataclass(frozen=True)
class Opening:
    """The next stage: the earliest instant it can open, the item that sets it, and what is missing."""

    stage: str
    at: datetime | None
    item: str
    why: str
    missing: tuple[str, ...] = ()


def attempts_of(store: Store, release: str) -> list[AttemptStatus]:
    """Every attempt of a release in the playbook's order. Raises LogDamaged."""
    found = []
    for one in store.attempts(release):
        events = one.log.events()
        now = verdict(events)
        since = next((item.result.started for item in now.blocking[:1] if item.result), None)
        undone = Ledger(store).undoing(one.release, one.stage, one.number)
        found.append(AttemptStatus(one, now, bool(of(events, Sealed)), since, undone))
    return found


def next_opening(store: Store, site: Site, release: str) -> Opening | None:
    """The stage after the last one that passed; None when all have, or the first has not begun."""
    newest = {
        one.attempt.stage: one
        for one in attempts_of(store, release)
        if one.verdict.mode == "apply" and one.verdict.source != "replay"
    }
    passed = [stage for stage in playbook.STAGES if stage in newest and newest[stage].passed]
    if not passed or passed[-1] == playbook.STAGES[-1]:
        return None
    last = newest[passed[-1]]
    stage = playbook.STAGES[playbook.STAGES.index(passed[-1]) + 1]
    found = last.verdict
    for block in Incidents(store).blocking(release, single_operator=site.single_operator):
        return Opening(stage, None, block.name, block.problem)
    before = Ledger(store).earlier(release, found.commit, stage, found.source, site.trust)
    if problem := before.refused({site.policy_digest}):
        return Opening(stage, None, "the stage before", problem)
    item, at, why = _earliest(last.attempt.log.events(), site, stage)
    return Opening(stage, at, item, why, _missing(store, release, stage))


def _earliest(before: Sequence[Event], site: Site, stage: str) -> tuple[str, datetime | None, str]:
    """(item, instant, why) of the window that the playbook demands before a stage."""
    cluster = site.cluster_of(BEFORE[stage])
    epoch = timedelta(milliseconds=cluster.epoch_length * cluster.block_time_ms)
    item, change, span, why = {
        "testnet": (
            "testnet.ready.soak",
            "development.activate.deploy",
            playbook.SOAK,
            "development must have soaked for 48 h",
        ),
        "canary": (
            "canary.ready.epochs-clean",
            "testnet.activate.gate",
            epoch * (playbook.TESTNET_EPOCHS + 1),
            f"{playbook.TESTNET_EPOCHS} whole epochs after the testnet gate",
        ),
        "mainnet": (
            "mainnet.ready.no-regression",
            "canary.activate.rewards-gate",
            epoch * (playbook.CANARY_CLEAN_EPOCHS + 1),
            f"{playbook.CANARY_CLEAN_EPOCHS} whole epochs with rewards on the canaries",
        ),
    }[stage]
    at = tried(effect, before, change)
    return (item, None, at.problem) if isinstance(at, SourceError) else (item, at + span, why)


def _missing(store: Store, release: str, stage: str) -> tuple[str, ...]:
    """Who or what the newest run at the stage still misses, row by row."""
    return tuple(
        f"{row.subject}: {row.what}"
        for attempt in store.readable(release, stage)[0][-1:]
        for item in statuses(attempt.log.events())
        for row in item.open_rows
    )


def stages_before(folder: Path, trust: Trust) -> list[Row]:
    """A row for each stage back to development, of an apply that lies in its own store.

    The same release and commit, made in the same world, each signed and still in force; and one for
    each incident that was removed from the store, or replaced.
    """
    rows = list[Row]()
    try:
        opened = opened_by(Log(folder / "log.jsonl").events(), folder.name)
        release, stage, store = opened.release, opened.stage, Store(folder.resolve().parents[2])
        if opened.mode != "apply" or folder.resolve() != store.root / opened.name:
            return rows
        while stage in BEFORE:
            found = Ledger(store).earlier(release, opened.commit, stage, opened.source, trust)
            stage = found.stage
            said = found.problem or f"attempt {found.attempt} passed, {found.seal}"
            rows.append(check_row(stage, "permits", "passed and proven", said, not found.problem))
        for block in Incidents(store).blocking(release, single_operator=True):
            if block.lost:
                expected = "as its recovery opened it"
                rows.append(check_row(block.name, "incident", expected, block.problem, ok=False))
    except (RunbookError, LookupError, TypeError, ValueError) as error:
        rows.append(unknown_row("order", "stages before", "readable", f"{error}"))
    return rows


# --- what two attempts differ in ------------------------------------------------------------------

ENVIRONMENT = ("release", "commit", "stage", "site", "cluster", "mode", "source", "policy")
SESSION = ("operator", "run", "version", "package")
Difference = tuple[str, str, Any, Any]
"""Where, what, and what either attempt has there; None for what it has not."""


def diff(first: Path, second: Path) -> list[Difference]:
    """Every difference between two attempts, in the playbook's order. Raises LogDamaged, OSError."""
    before, after = _said(first), _said(second)
    found = []
    for where in dict.fromkeys([*before, *after]):
        was, now = before.get(where, {}), after.get(where, {})
        both = ((what, was.get(what), now.get(what)) for what in dict.fromkeys([*was, *now]))
        found += [(where, what, one, other) for what, one, other in both if one != other]
    return found


def _said(folder: Path) -> dict[str, dict[str, Any]]:
    """What an attempt's log says: of its environment, of each item, and its plan."""
    events, _ = parse(recorded(folder / "log.jsonl"), folder.name)
    opened, session = opened_by(events, folder.name), last(events, SessionOpened)
    environment = {key: getattr(opened, key) for key in ENVIRONMENT}
    environment |= {key: getattr(session, key, None) for key in SESSION}
    environment |= {f"params.{key}": value for key, value in opened.params.items()}
    items = {one.item: _facts(one) for one in statuses(events)}
    return {"environment": environment, **items, "plan": {"digest": plan_digest(events) or None}}


def _facts(standing: ItemStatus) -> dict[str, Any]:
    """Outcome, state, waivers, and each row's numbers by subject and what was looked at."""
    facts: dict[str, Any] = {"outcome": standing.outcome.value, "state": standing.state}
    if standing.waived:
        facts["waived"] = [f"{one.subject}: {one.reason}" for one in standing.waived]
    for row in standing.result.rows if standing.result else ():
        about = f"{row.subject}: {row.what}"
        facts |= {about: row.observed, f"{about}, expected": row.expected}
    return facts
