"""Where a release stands: its attempts, what blocks each and since when, and when the next can open.

Computed from the attempts in the store. The earliest opening is a bound, not a promise: the
playbook's windows from the instants the journals say, epochs at the chain's nominal pace.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from .. import playbook
from ..errors import LogDamaged, RunbookError, SourceError, tried
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..signers import Trust
from ..site import Site
from ..sources.local import recorded
from ..verdicts import ExitCode, Standing, Verdict
from .events import Event, Sealed, SessionOpened, last, of
from .incidents import blocking
from .log import Log, opened_by, parse
from .order import BEFORE, Undoing, effect, find_earlier, plan_of, undoing
from .standing import standings, verdict
from .store import Attempt, Store


@dataclass(frozen=True)
class AttemptStatus:
    """One attempt; ``since`` is when what blocks it was last judged, ``undone`` what took it back."""

    attempt: Attempt
    verdict: Verdict
    sealed: bool
    blocks: str
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
    """Every attempt of a release in the playbook's order. Raises StoreError."""
    try:
        attempts = store.attempts(release)
        store.check_heads(attempts)
        return [_status(store, attempt) for attempt in attempts]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise LogDamaged(f"{release}: expected logs of ours, got: {error!r}"[:300]) from error


def _status(store: Store, attempt: Attempt) -> AttemptStatus:
    entries = attempt.log.events()
    found = verdict(entries)
    first = found.blocking[0] if found.blocking else None
    blocks = found.broken[0] if found.broken else ""
    since = None
    if first is not None:
        blocks = blocks or f"{first.item}: {first.reason}"
        since = first.result.started if first.result is not None else None
    sealed = bool(of(entries, Sealed))
    undone = undoing(store, attempt.release, attempt.stage, attempt.number)
    return AttemptStatus(attempt, found, sealed, blocks, since, undone)


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
    for block in blocking(store, release, single_operator=site.single_operator):
        return Opening(stage, None, block.name, block.problem)
    before = find_earlier(store, release, found.commit, stage, found.source, site.trust)
    problem = before.refused({site.policy_digest})
    if problem:
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
    """Who or what the newest try at the stage still misses, row by row."""
    attempts = store.attempts(release, stage)
    if not attempts:
        return ()
    rows = [
        f"{row.subject}: {row.what}"
        for item in verdict(attempts[-1].log.events()).items
        if item.result is not None and item.outcome is not Outcome.PASS
        for row in item.open_rows
    ]
    return tuple(rows)


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
            found = find_earlier(store, release, opened.commit, stage, opened.source, trust)
            stage = found.stage
            said = found.problem or f"attempt {found.attempt} passed, {found.seal}"
            rows.append(check_row(stage, "permits", "passed and proven", said, not found.problem))
        for block in blocking(store, release, single_operator=True):
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
    before, after = _read(first), _read(second)
    try:
        return [
            *_differ("environment", _environment(before), _environment(after)),
            *_items({s.item: s for s in standings(before)}, {s.item: s for s in standings(after)}),
            *_differ("plan", _plan(before), _plan(after)),
        ]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise LogDamaged(f"expected the logs of two attempts, got: {error!r}") from error


def _read(folder: Path) -> list[Event]:
    events, _ = parse(recorded(folder / "log.jsonl"), folder.name)
    opened_by(events, folder.name)
    return events


def _environment(events: Sequence[Event]) -> dict[str, Any]:
    opened, session = opened_by(events, "log"), last(events, SessionOpened)
    parameters = {f"params.{key}": value for key, value in opened.params.items()}
    named = {key: getattr(opened, key) for key in ENVIRONMENT}
    return named | {key: getattr(session, key, None) for key in SESSION} | parameters


def _plan(events: Sequence[Event]) -> dict[str, Any]:
    plan = plan_of(events)
    return {"digest": plan.digest} if plan else {}


def _items(before: Mapping[str, Standing], after: Mapping[str, Standing]) -> Iterator[Difference]:
    for item in dict.fromkeys([*before, *after]):
        yield from _differ(item, _facts(before.get(item)), _facts(after.get(item)))


def _facts(standing: Standing | None) -> dict[str, Any]:
    """Outcome, state, waivers, and each row's numbers by subject and what was looked at."""
    if standing is None:
        return {}
    facts: dict[str, Any] = {"outcome": standing.outcome.value, "state": standing.state}
    if standing.waived:
        facts["waived"] = [f"{one.subject}: {one.reason}" for one in standing.waived]
    for row in standing.result.rows if standing.result else ():
        about = f"{row.subject}: {row.what}"
        facts |= {about: row.observed, f"{about}, expected": row.expected}
    return facts


def _differ(
    where: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[Difference]:
    for what in dict.fromkeys([*before, *after]):
        if before.get(what) != after.get(what):
            yield where, what, before.get(what), after.get(what)
