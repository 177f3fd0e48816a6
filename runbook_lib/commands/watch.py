"""``runbook watch``: one look of mainnet's watch, from cron or CI, without running the notebook.

It adds looks to the newest applied attempt and judges nothing: that is the notebook's, with
``--continue``. Several at once, beside an open notebook, are safe: its questions lie on the attempt's
tape under a name of their own.
"""

import argparse
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from time import sleep

from ..checks.watch import ITEM, SHOWN, Watch
from ..errors import ParameterError, StoreError
from ..evidence.events import Event, WatchBegun, of
from ..evidence.log import opened_by
from ..evidence.status import item_status, waived_rows
from ..evidence.store import Attempt, Store
from ..opening import find_operator, live_session, require_shared
from ..outcomes import Outcome
from ..params import stage_params
from ..runs import context_of
from ..session import Session, params_in, run_kind
from ..site import read_site
from ..sources.scope import read_clock
from ..verdicts import ExitCode, ItemStatus
from ..wording import progress, utc
from .printing import exit_code, print_json
from .running import read_parameters

STAGE = "mainnet"


@dataclass(frozen=True)
class Looked:
    """What a look came to; ``line`` is the status line, ``due`` when to look again, if ever."""

    attempt: Attempt
    standing: ItemStatus
    line: str
    due: datetime | None = None

    @property
    def exit_code(self) -> ExitCode:
        if self.standing.return_at is not None:
            return ExitCode.WAITING
        return exit_code(self.standing.outcome)


def watch(args: argparse.Namespace) -> int:
    """One look of mainnet's watch; 4 when nothing is wrong and it is not over."""
    site, release = args.site, args.what
    if args.parameters_file:
        if args.what != STAGE or args.site:
            raise ParameterError("watch: expected `mainnet -f PARAMS` or `--site SITE RELEASE`")
        args.parameter, args.raw = [], []
        params = stage_params(STAGE, *read_parameters(args))
        site, release = params.site, params.release
    if not site:
        raise ParameterError("watch: expected --site or a parameter file that names one, got none")
    found = look(site, release)
    while args.loop and found.due is not None:
        _tell(found, as_json=args.json)
        now, _ = read_clock(read_site(site).clock)
        sleep(max(0.0, (found.due - now).total_seconds()))
        found = look(site, release)
    return _tell(found, as_json=args.json)


def _tell(found: Looked, *, as_json: bool) -> int:
    """Print what a look came to; its exit code."""
    result, due = found.standing.result, found.due or found.standing.return_at
    if as_json:
        document = {
            "attempt": found.attempt.name,
            "outcome": found.standing.outcome.value,
            "exit_code": int(found.exit_code),
            "return_at": due.isoformat() if due else None,
            "status": found.line,
            "rows": [row.model_dump(mode="json") for row in (result.rows if result else ())],
        }
        print_json(document)
    else:
        again = [f"look again at {utc(due)}"] if due else []
        print(found.line, progress(found.standing), *again, sep="\n", flush=True)
    return int(found.exit_code)


def look(site_path: str, release: str) -> Looked:
    """Look once at the newest applied mainnet attempt of a release.

    Raises StoreError when there is no such attempt, or nothing in it to watch yet.
    """
    site = read_site(site_path)
    store = Store(site.store_path)
    require_shared(store, site)
    attempt = _newest(store, release)
    entries = attempt.log.events()
    done = item_status(entries, ITEM)
    if done.state == "judged" and done.outcome is Outcome.PASS:
        return Looked(attempt, done, "the watch is over, and passed")
    _require_reached(attempt, entries)
    values = {**params_in(entries), "as_of": ""}
    params = stage_params(STAGE, values, "recorded parameters")
    operator = find_operator(site, "plan")
    with closing(live_session(site, attempt, params, operator, number=0)) as session:
        return _look(session)


def _newest(store: Store, release: str) -> Attempt:
    attempts = store.attempts(release)
    applied = [one for one in attempts if (one.stage, one.opened.mode) == (STAGE, "apply")]
    if not applied:
        raise StoreError(f"{release}/{STAGE}: expected an attempt that applied, got none yet")
    return applied[-1]


def _require_reached(attempt: Attempt, entries: list[Event]) -> None:
    declared = opened_by(entries, attempt.name).declared
    before = declared[: declared.index(ITEM)] if ITEM in declared else ()
    for item in before:
        found = item_status(entries, item)
        if found.outcome is not Outcome.PASS:
            raise StoreError(
                f"{attempt.name}: expected every item before the watch passed, got {item}:"
                f" {found.reason or found.outcome}; go on with runbook run {STAGE} --continue"
            )


def _look(session: Session) -> Looked:
    context = replace(context_of(session, f"{ITEM}/look", _claim(session)), item=ITEM)
    said, due = "no look yet", None
    with context.reading("readable", "an answer"):
        watch = Watch(context)
        watch.look(judge=False)
        said, due = line(watch), watch.due()
    session.tape.sync()
    result = context.conclude(empty="no look")
    waived = waived_rows(session.log.events(), ITEM)
    reached = ItemStatus(
        item=ITEM, kind="check", state="judged", reason=result.reason, result=result, waived=waived
    )
    return Looked(session.attempt, reached, said, due)


def _claim(session: Session) -> int:
    """A number on the tape that no other look has."""

    def make(known: list[Event]) -> WatchBegun:
        number = 1 + max((one.number for one in of(known, WatchBegun)), default=0)
        return WatchBegun(number=number, operator=session.operator, run=run_kind())

    begun = session.log.append_if(make)
    assert begun is not None
    return begun.number


def line(watch: Watch) -> str:
    """The worst participation and proof latency of the window, and open anomalies."""
    levels = [seen for seen in watch.seen if seen.subject in SHOWN]
    shown = [f"{each.subject} {each.observed or 'unknown'}" for each in levels]
    undecided = [each.id for each in watch.anomalies if each.decided is None]
    said = ", ".join([*shown, f"open anomalies: {', '.join(undecided) or 'none'}"])
    return f"{utc(watch.looks[-1])}: {said}" if watch.looks else f"no look yet: {said}"
