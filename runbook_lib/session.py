"""Opening a stage: a new attempt, a further try of one, or the replay of a recorded one.

A live session reads the site, finds or creates the attempt in the store and records on its tape. A
replayed one answers from a recorded attempt and writes only to a store of its own that goes away
with it.
"""

from __future__ import annotations

import getpass
import os
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from . import playbook
from .canonical import canonical, digest
from .errors import ParameterError, RecordDamaged, StoreError
from .evidence.incidents import blocking
from .evidence.order import BEFORE, find_earlier
from .evidence.record import Entry, Record
from .evidence.standing import FINAL
from .evidence.store import Attempt, Store
from .evidence.undoing import what_to_undo
from .params import (
    PER_TRY,
    PROJECT,
    STAGE_PARAMS,
    RecoveryParams,
    StageParams,
    project_path,
    promoted,
    stage_params,
)
from .site import Site, parse_site
from .sources.clock import read_clock
from .sources.redact import Redactor
from .sources.scope import Outside, Scope
from .sources.tape import LiveTape, ReplayTape, Tape, read_body, read_entries

VERSION = "0.1.0"
RECORDINGS = PROJECT / "notebooks" / "recordings"
OPEN = "stage.open"
Source = Literal["live", "rehearsal", "replay"]


@dataclass
class Session:
    """One opening of an attempt. ``recorded`` holds a replayed attempt's entries, else nothing."""

    stage: str
    site: Site
    store: Store
    attempt: Attempt
    tape: Tape
    outside: Outside
    number: int
    mode: Literal["plan", "apply"]
    source: Source
    operator: str
    params: StageParams
    recorded: Sequence[Entry] = ()
    scratch: tempfile.TemporaryDirectory[str] | None = None
    _private: tempfile.TemporaryDirectory[str] | None = None

    @property
    def replay(self) -> bool:
        return self.source == "replay"

    @property
    def recovery(self) -> bool:
        """Whether this runbook is the way back of a stage: its items block nothing."""
        return self.stage in playbook.RECOVERY

    @property
    def promoted(self) -> str:
        """The playbook's stage this runbook is about."""
        return promoted(self.stage, self.params)

    @property
    def world(self) -> str:
        """Where the run was made: live or rehearsal, a replay's as it was recorded."""
        return str(self.recorded[0].body["source"]) if self.recorded else self.source

    @property
    def record(self) -> Record:
        return self.attempt.record

    def scope(self, item: str, number: int) -> Scope:
        """The tape scope of one try of ``item``; a guard's try asked under its change."""
        for entry in self.recorded:
            if entry.kind == "result" and (entry.body["item"], entry.body["number"]) == (
                item,
                number,
            ):
                item, number = entry.body.get("under", (item, number))
        return Scope(
            self.tape,
            self.outside,
            item,
            number,
            clock=self.site.clock,
            aliases=[
                (str(self.attempt.folder), "attempt"),
                (str(self.store.root), "store"),
                (str(self.site.kits_path), "kits"),
                (str(self.private), "private"),
            ],
        )

    @cached_property
    def private(self) -> Path:
        """A folder only we can read, for what a command must be handed and nobody may keep."""
        # Below the engine's own where there is one: a kernel that is killed cleans nothing up.
        parent = os.environ.get("RUNBOOK_SCRATCH")
        self._private = tempfile.TemporaryDirectory(prefix="runbook-private-", dir=parent)
        return Path(self._private.name)

    def next_try(self, item: str) -> int:
        """The number of the next try of ``item``; in replay, that of the recorded one."""
        if self.replay:
            return last_tries(self.recorded).get(item, 0)
        numbers = [
            entry.body["number"]
            for entry in self.record.entries()
            if entry.kind == "started" and entry.body["item"] == item
        ]
        return max(numbers, default=0) + 1

    def may_judge_again(self, change: str, item: str, number: int) -> bool:
        """Whether a guard can be judged under a try of ``change``; in replay, if it was."""
        asked = {"change": change, "item": item, "number": number}
        return not self.replay or any(
            entry.kind == "guard" and asked.items() <= entry.body.items() for entry in self.recorded
        )

    def journal(self, item: str, number: int) -> Sequence[Entry]:
        """What a try may know of the past: in replay, the record as it was when the try began."""
        if not self.replay:
            return self.record.entries()
        return self.recorded[: _began(self.recorded, item, number)]

    def aftermath(self, item: str, number: int) -> Sequence[Entry]:
        """What is known when a try ends; in replay, the record as it was then."""
        if not self.replay:
            return self.record.entries()
        for entry in self.recorded:
            if entry.kind in FINAL and (entry.body["item"], entry.body["number"]) == (item, number):
                return self.recorded[: entry.seq]
        return self.recorded

    def params_of(self, item: str, number: int) -> StageParams:
        """The parameters in force for a try: a try may change some of them."""
        if not self.replay:
            return self.params
        seq = _began(self.recorded, item, number)
        sessions = [e for e in self.recorded[:seq] if e.kind == "session"]
        values = {
            **self.recorded[0].body["params"],
            **(sessions[-1].body["params"] if sessions else {}),
        }
        return stage_params(self.stage, values, "recorded parameters")

    def close(self) -> None:
        self.outside.close()
        for folder in (self._private, self.scratch):
            if folder is not None:
                folder.cleanup()


def last_tries(entries: Sequence[Entry]) -> dict[str, int]:
    """Item -> number of its last try that ended."""
    return {e.body["item"]: e.body["number"] for e in entries if e.kind in FINAL}


def _began(entries: Sequence[Entry], item: str, number: int) -> int:
    for entry in entries:
        if entry.kind == "started" and (entry.body["item"], entry.body["number"]) == (item, number):
            return entry.seq
    return len(entries)


# --- live ---------------------------------------------------------------------------------------


def open_live(stage: str, given: Mapping[str, Any]) -> Session:
    """A new attempt, or with ``attempt`` a further session of one. Raises ParameterError."""
    where = os.environ.get("RUNBOOK_PARAMS_FILE") or f"{stage} parameters"
    params = stage_params(stage, dict(given), where)
    site = read_site(params.site)
    if (about := promoted(stage, params)) not in site.stages:
        raise ParameterError(f"{params.site}: stages: expected a cluster for {about}, got none")
    operator = find_operator(site, params.mode)
    store = Store(site.store_path)
    redactor = Redactor(site.secret_names())
    outside = Outside(redactor)
    source: Source = "rehearsal" if site.clock.source == "offset-file" else "live"
    if stage not in playbook.RECOVERY:
        require_shared(store, site)
    require_resolved(store, stage, params, site)
    attempt = _find(store, stage, params) or _create(store, stage, params, site, source, operator)
    session = Session(
        stage=stage,
        site=site,
        store=store,
        attempt=attempt,
        tape=LiveTape(attempt.folder / "tape", redactor),
        outside=outside,
        number=1 + sum(entry.kind == "session" for entry in attempt.record.entries()),
        mode=params.mode,
        source=source,
        operator=operator,
        params=params,
    )
    try:
        _begin_session(session, params)
    except BaseException:
        session.close()
        raise
    return session


def require_order(store: Store, stage: str, params: StageParams, source: Source) -> None:
    """An apply opens only on the stage before it, passed and proven. Raises StoreError."""
    if params.mode != "apply" or stage not in BEFORE:
        return
    found = find_earlier(store, params.release, params.commit, stage, source)
    if found.problem:
        raise StoreError(f"{params.release}/{found.stage}: {found.problem}; {stage} cannot open")


def require_resolved(store: Store, stage: str, params: StageParams, site: Site) -> None:
    """An apply goes on only while no incident of the release is open. Raises StoreError.

    An attempt of the incident's own stage may be continued: what was stopped is still to be read
    back and sealed, and its recovery keeps it from changing anything.
    """
    if params.mode != "apply" or stage not in playbook.STAGES:
        return
    for block in blocking(store, params.release, single_operator=site.single_operator):
        if not (params.attempt and block.stage == stage):
            raise StoreError(
                f"{block.name}: {block.problem}; {stage} cannot open:"
                f" runbook incident {params.release} --site {params.site}"
            )


def require_shared(store: Store, site: Site) -> None:
    """A store that only its owner can write to must say so. Raises ParameterError."""
    if site.single_operator:
        return
    there = store.root.is_dir()
    if not there or not store.root.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        got = "one for its owner alone" if there else "none"
        raise ParameterError(
            f"{site.name}: store: expected a directory that all operators can write to, got {got};"
            " make one that is shared (chmod g+ws), or say single_operator: true"
        )


def prepare_attempt(stage: str, given: Mapping[str, Any], where: str) -> Attempt:
    """The attempt a person will step through: validated and created, no session begun yet."""
    params = stage_params(stage, dict(given), where)
    if not params.site:
        raise ParameterError(f"{where}: site: expected a site file, got none")
    site = read_site(params.site)
    operator = find_operator(site, params.mode)
    store = Store(site.store_path)
    if stage not in playbook.RECOVERY:
        require_shared(store, site)
    source: Source = "rehearsal" if site.clock.source == "offset-file" else "live"
    require_resolved(store, stage, params, site)
    return _find(store, stage, params) or _create(store, stage, params, site, source, operator)


def _begin_session(session: Session, params: StageParams) -> None:
    scope = session.scope(OPEN, session.number)
    site_file = project_path(params.site)
    if parse_site(scope.read(site_file), params.site) != session.site:
        raise ParameterError(f"{params.site}: expected one site, got it changed while opening")
    session.tape.sync()
    session.record.append(
        "session",
        {
            "number": session.number,
            "params": params.model_dump(mode="json", include=set(PER_TRY)),
            "operator": session.operator,
            "run": run_kind(),
            "source": session.source,
            "now": scope.now().isoformat(),
            "version": VERSION,
        },
    )
    hand_over(session)


def read_site(path: str) -> Site:
    """The site file at ``path``. Raises ParameterError, naming every problem."""
    try:
        text = project_path(path).read_bytes()
    except OSError as error:
        raise ParameterError(
            f"{path}: expected a site file, got: {error.strerror};"
            " copy params/sites/example.yaml and name yours in `site`"
        ) from error
    return parse_site(text, path)


def find_operator(site: Site, mode: str) -> str:
    """Who runs this: in CI the triggering actor. Raises ParameterError when unknown in apply."""
    names = ("RUNBOOK_OPERATOR", "GITHUB_ACTOR", "GITLAB_USER_LOGIN")
    account = next((os.environ[name] for name in names if os.environ.get(name)), _user())
    if mode == "apply" and site.person(account) is None:
        known = ", ".join(person.account for person in site.people)
        raise ParameterError(
            f"operator: expected one of the site's people ({known}), got {account!r};"
            " export RUNBOOK_OPERATOR"
        )
    return account


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for its user
        return "unknown"


def run_kind() -> Literal["headless", "interactive"]:
    return "headless" if os.environ.get("RUNBOOK_HEADLESS") else "interactive"


def _find(store: Store, stage: str, params: StageParams) -> Attempt | None:
    if not params.attempt:
        return None
    attempt = store.attempt(params.release, stage, params.attempt)
    if stage not in playbook.RECOVERY:
        store.check_heads(store.attempts(params.release))
    fixed = store.opened(attempt)["params"]
    differs = [
        f"{key}: expected {fixed.get(key)!r} as attempt {params.attempt} was opened with, got {value!r}"
        for key, value in params.fixed().items()
        if fixed.get(key) != value
    ]
    if differs:
        raise ParameterError(differs)
    return attempt


def _create(
    store: Store, stage: str, params: StageParams, site: Site, source: Source, operator: str
) -> Attempt:
    require_order(store, stage, params, source)
    now, _ = read_clock(site.clock)
    about = promoted(stage, params)
    undoes = {}
    if isinstance(params, RecoveryParams):
        undoes = {"undoes": _undoes(store, about, params, source)}
    return store.create(
        params.release,
        stage,
        {
            **undoes,
            "stage": stage,
            "release": params.release,
            "commit": params.commit,
            "site": site.name,
            "cluster": site.stages[about],  # type: ignore[index]
            "chain_id": site.cluster_of(about).chain_id,
            "mode": params.mode,
            "params": params.fixed(),
            "policy": digest(params.policy()),
            "declared": list(playbook.DECLARED[stage]),
            "source": source,
            "run": run_kind(),
            "operator": operator,
            "single_operator": site.single_operator,
            "now": now.isoformat(),
            "version": VERSION,
        },
        whatever=bool(undoes),
    )


def _undoes(
    store: Store, about: str, params: RecoveryParams, source: Source
) -> dict[str, Any] | None:
    """What a recovery undoes. Raises ParameterError for what nobody approved, without a reason."""
    found, why = what_to_undo(store, params.release, about, source, params.undoes)
    if why and params.mode == "apply" and not params.break_glass:
        raise ParameterError(
            f"break_glass: {why}; to go on without an approval, which the governance council must"
            " ratify within 24 h, give the reason: --reason 'WHY'"
        )
    return found


# --- replay -------------------------------------------------------------------------------------


def open_replay(stage: str, folder: Path) -> Session:
    """Replay a recorded attempt into a store that goes away with the session."""
    recorded = Record(folder / "record.jsonl").entries()
    if not recorded or recorded[0].kind != "opened" or recorded[0].body.get("stage") != stage:
        raise RecordDamaged(f"{folder.name}: expected the record of a {stage} attempt, got none")
    opened = recorded[0].body
    sessions = [entry for entry in recorded if entry.kind == "session"]
    if not sessions:
        raise RecordDamaged(f"{folder.name}: expected a session in the record, got none")
    tape = ReplayTape(folder / "tape", last_tries(recorded))
    params = stage_params(stage, {**opened["params"], **sessions[-1].body["params"]}, "recording")
    site = recorded_site(folder, params.site)
    given = os.environ.get("RUNBOOK_SCRATCH")
    scratch = None if given else tempfile.TemporaryDirectory(prefix="runbook-replay-")
    store = Store(Path(scratch.name) if scratch else Path(str(given)))
    fresh = {key: value for key, value in opened.items() if key not in ("heads", "attempt")}
    # Under its own number: cards show it, and paths on the tape are told apart by it.
    attempt = store.recreate(
        params.release, stage, opened["attempt"], {**fresh, "source": "replay"}
    )
    session = Session(
        stage=stage,
        site=site,
        store=store,
        attempt=attempt,
        tape=tape,
        outside=Outside(Redactor()),
        number=len(sessions),
        mode=opened["mode"],
        source="replay",
        operator=sessions[-1].body["operator"],
        params=params,
        recorded=recorded,
        scratch=scratch,
    )
    session.record.append(
        "session", {**sessions[-1].body, "source": "replay", "run": run_kind(), "version": VERSION}
    )
    hand_over(session)
    return session


def recorded_site(folder: Path, path: str) -> Site:
    """The site file as an attempt's tape holds it. Raises RecordDamaged."""
    for entry in read_entries(folder / "tape"):
        if entry.item == OPEN and entry.key.startswith("READ "):
            return parse_site(read_body(folder / "tape", entry.body), path)
    raise RecordDamaged(f"{folder.name}: tape: expected the site file, got none")


def recording(stage: str) -> Path:
    """The recording that ships with us. Raises StoreError when it is not there."""
    folder = RECORDINGS / stage
    if not (folder / "record.jsonl").exists():
        raise StoreError(f"{stage}: expected a shipped recording, got none; run `make notebooks`")
    return folder


# --- both ---------------------------------------------------------------------------------------


def hand_over(session: Session) -> None:
    """Tell whoever started this kernel, or follows it, where the attempt is."""
    entries = len(session.record.entries())
    note = {"folder": str(session.attempt.folder), "entries": entries}
    for name in ("RUNBOOK_HANDOFF", "RUNBOOK_FOLLOW"):
        if target := os.environ.get(name):
            scratch = Path(f"{target}.new")
            scratch.write_bytes(canonical(note))
            scratch.rename(target)


def check_names(stage: str, given: Mapping[str, Any]) -> None:
    """Every parameter passed, none misspelt. Raises ParameterError listing all that are not."""
    known = set(STAGE_PARAMS[stage].model_fields)
    problems = [
        f"open_stage: {name}: expected no such keyword; {stage} has {', '.join(sorted(known))}"
        for name in sorted(set(given) - known)
    ]
    problems += [
        f"open_stage: {name}: expected it passed as {name}={name}, got nothing"
        for name in sorted(known - set(given))
    ]
    if problems:
        raise ParameterError(problems)
