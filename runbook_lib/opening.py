"""Opening an attempt: a new one, or a further session of one that is there."""

import getpass
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from . import playbook
from .errors import ParameterError, SourceError, StoreError, tried
from .evidence.comment import compare_heads
from .evidence.events import Event, Note, Opened, PolicyAccepted, SessionOpened, of
from .evidence.ledger import BEFORE, Ledger
from .evidence.status import plan_digest, policy_of
from .evidence.store import INCIDENTS, Attempt, Store
from .files import replace_file
from .package import VERSION, package_digest
from .params import PER_RUN, RecoveryParams, StageParams, promoted, stage_params
from .session import OPEN, PARAMETERS, Session, hand_over, run_kind
from .signers import Trust
from .site import Person, Site, parse_site, read_site
from .sources.github import GitHub
from .sources.scope import live_scope, read_clock
from .sources.tape import LiveTape
from .strict import project_path
from .verdicts import Source


def open_live(stage: str, given: Mapping[str, Any]) -> Session:
    """A new attempt, or with ``attempt`` a further session of one. Raises ParameterError."""
    params, site, operator = _given(stage, given, f"{stage} parameters")
    attempt, note = _attempt(stage, params, site, operator)
    number = 1 + len(of(attempt.log.events(), SessionOpened))
    session = live_session(site, attempt, params, operator, number)
    try:
        _begin_session(session)
        if note:
            session.log.append(Note(text=note))
    except BaseException:
        session.close()
        raise
    return session


def live_session(
    site: Site, attempt: Attempt, params: StageParams, operator: str, number: int
) -> Session:
    """A session that asks the world and records its answers."""
    return Session(
        site=site,
        store=Store(site.store_path),
        attempt=attempt,
        tape=LiveTape(attempt.folder / "tape", site.secret_names()),
        number=number,
        source=site.source,
        operator=operator,
        params=params,
    )


def prepare_attempt(stage: str, given: Mapping[str, Any], where: str) -> Attempt:
    """The attempt a person will step through: validated and created, no session begun yet."""
    return _attempt(stage, *_given(stage, given, where))[0]


def _given(stage: str, given: Mapping[str, Any], where: str) -> tuple[StageParams, Site, str]:
    """Parameters, the site that they name, and who runs it. Raises ParameterError."""
    params = stage_params(stage, dict(given), where)
    if not params.site:
        raise ParameterError(f"{where}: site: expected a site file, got none")
    site = read_site(params.site)
    if (about := promoted(stage, params)) not in site.stages:
        raise ParameterError(f"{params.site}: stages: expected a cluster for {about}, got none")
    if isinstance(params, RecoveryParams):
        # Opened with a misspelt node it would count as taking the apply back, and open an incident.
        known = [node.name for node in site.cluster_of(about).nodes]
        if wrong := sorted(set(params.nodes) - set(known)):
            one = f"expected some of {', '.join(known)}, got {', '.join(wrong)}"
            raise ParameterError(f"{where}: nodes: {one}")
    named, excepts = stage in playbook.APPROVERS, params.waivers or getattr(params, "drops", [])
    # What was begun goes on while the forge is down.
    proven = bool(excepts) or (named and not params.attempt)
    return params, site, find_operator(site, params.mode, named=named, proven=proven)


def _attempt(stage: str, params: StageParams, site: Site, operator: str) -> tuple[Attempt, str]:
    """The attempt that is continued, or a new one, and a note. Raises ParameterError, StoreError."""
    store = Store(site.store_path)
    if stage not in playbook.RECOVERY:
        require_shared(store, site)
    require_resolved(store, stage, params, site)
    note = require_heads(stage, params, site)
    if not params.attempt:
        return _create(store, stage, params, site, operator), note
    found = _find(store, stage, params, site)
    if stage not in playbook.RECOVERY and (change := _accepted(found, params, site, operator)):
        found.log.append(change)
    return found, note


def _find(store: Store, stage: str, params: StageParams, site: Site) -> Attempt:
    attempt = store.attempt(params.release, stage, params.attempt)
    if stage not in playbook.RECOVERY:
        store.attempts(params.release)
    opened = attempt.opened
    fixed, world = opened.params, _world(stage, params, site)
    differs = [
        f"{key}: expected {fixed.get(key)!r} as attempt {params.attempt} was opened with, got {value!r}"
        for key, value in params.fixed().items()
        if fixed.get(key) != value
    ]
    # A site file that was edited since must not carry an attempt into another world.
    differs += [
        f"{params.site}: {key}: expected {getattr(opened, key)!r} as attempt {params.attempt} was opened on,"
        f" got {value!r}; put the site file back, or open a new attempt"
        for key, value in world.items()
        if getattr(opened, key) != value
    ]
    if differs:
        raise ParameterError(differs)
    if isinstance(params, RecoveryParams) and (undoes := opened.undoes):
        from .taking_back import require_signed

        require_signed(store, undoes.name, site.trust, params.break_glass)
    return attempt


def _accepted(
    attempt: Attempt, params: StageParams, site: Site, operator: str
) -> PolicyAccepted | None:
    """What accepts the site's policy after that of an attempt; None where it is the same."""
    policy = policy_of(attempt.log.events())
    if policy == site.policy_digest:
        return None
    from .evidence.policy import accepted_policy

    return accepted_policy(attempt.folder, policy, site, params.issue, params.release, operator)


def _built_on(store: Store, stage: str, params: StageParams, source: str) -> list[Attempt]:
    """The attempts whose policy an apply must share: the stage before's, and the approved plan's."""

    def counts(one: Attempt) -> bool:
        opened, plan = one.opened, plan_digest(one.log.events())
        if (one.stage, opened.mode) == (stage, "plan"):
            approved = bool(plan) and plan == getattr(params, "approved_plan", "")
        else:
            approved = (one.stage, opened.mode) == (BEFORE.get(stage), "apply")
        return approved and opened.source == source

    if params.mode != "apply" or stage not in playbook.STAGES:
        return []
    return list({one.stage: one for one in store.attempts(params.release) if counts(one)}.values())


def _world(stage: str, params: StageParams, site: Site) -> dict[str, Any]:
    """Where an attempt is made, which no session of it may change."""
    about = promoted(stage, params)
    return {
        "site": site.name,
        "cluster": site.cluster_name(about),
        "chain_id": site.cluster_of(about).chain_id,
        "source": site.source,
    }


def _create(store: Store, stage: str, params: StageParams, site: Site, operator: str) -> Attempt:
    source = site.source
    built_on = _built_on(store, stage, params, source)
    changes = [_accepted(one, params, site, operator) for one in built_on]
    require_order(store, stage, params, source, site.trust)
    now, _ = read_clock(site.clock)
    about = promoted(stage, params)
    undoes = None
    if isinstance(params, RecoveryParams):
        from .taking_back import undoes_of

        undoes = undoes_of(store, about, params, source, site.trust)
    opened = Opened(
        undoes=undoes,
        stage=stage,
        release=params.release,
        commit=params.commit,
        **_world(stage, params, site),
        mode=params.mode,
        params=params.fixed(),
        policy=site.policy_digest,
        declared=playbook.DECLARED[stage],
        run=run_kind(),
        operator=operator,
        single_operator=site.single_operator,
        now=now,
        version=VERSION,
    )
    attempt = store.create(opened, whatever=isinstance(params, RecoveryParams))
    text = yaml.safe_dump(params.fixed(), sort_keys=False, allow_unicode=True)
    replace_file(attempt.folder / PARAMETERS, text)
    for change in filter(None, changes):
        attempt.log.append(change)
    return attempt


def _begin_session(session: Session) -> None:
    scope, params = session.scope(OPEN, session.number), session.params
    if parse_site(scope.read(project_path(params.site)), params.site) != session.site:
        raise ParameterError(f"{params.site}: expected one site, got it changed while opening")
    session.tape.sync()
    opened = SessionOpened(
        number=session.number,
        params=params.model_dump(mode="json", include=set(PER_RUN)),
        operator=session.operator,
        policy=session.site.policy_digest,
        run=run_kind(),
        source=session.source,
        now=scope.now(),
        version=VERSION,
        package=package_digest(),
    )

    def alone(events: Sequence[Event]) -> SessionOpened:
        if any(one.number >= session.number for one in of(events, SessionOpened)):
            raise StoreError(
                f"{session.attempt.name}: somebody else continued it just now; try again"
            )
        return opened

    session.log.append_if(alone)
    session.log.refuses = session.passed_on
    hand_over(session)


# --- Who may open what ---


def find_operator(site: Site, mode: str, *, named: bool = False, proven: bool = False) -> str:
    """Who runs this: the person whose token the forge knows, else the one that CI or the shell names.

    Raises ParameterError for nobody of the site's people, in apply and where they must be ``named``;
    and where it must be ``proven``, for a forge that does not say whose token it is.
    """
    names = ("RUNBOOK_OPERATOR", "GITHUB_ACTOR", "GITLAB_USER_LOGIN")
    account = next((os.environ[name] for name in names if os.environ.get(name)), _user())
    person = _token_owner(site, proven) or site.person(account)
    if person is None and (mode == "apply" or named):
        known = ", ".join(person.account for person in site.people)
        raise ParameterError(
            f"operator: expected one of the site's people ({known}), got {account!r};"
            " export RUNBOOK_OPERATOR"
        )
    return person.account if person is not None else account


def _token_owner(site: Site, proven: bool) -> Person | None:
    """The person whose token is exported; None for an app's, or where there is none."""
    if not (site.forge.token_env and os.environ.get(site.forge.token_env)):
        return None
    with live_scope("operator", site) as scope:
        me = tried(GitHub(scope, site.forge).me)
    if isinstance(me, SourceError) and proven:
        raise ParameterError(f"operator: {me}; who runs this must be known") from me
    return None if isinstance(me, SourceError) else site.person(me)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for its user
        return "unknown"


def require_order(
    store: Store, stage: str, params: StageParams, source: Source, trust: Trust
) -> None:
    """An apply opens only on the stage before it, passed and proven. Raises StoreError."""
    if params.mode != "apply" or stage not in BEFORE:
        return
    found = Ledger(store).earlier(params.release, params.commit, stage, source, trust)
    if found.problem:
        raise StoreError(f"{params.release}/{found.stage}: {found.problem}; {stage} cannot open")


def require_heads(stage: str, params: StageParams, site: Site) -> str:
    """The store holds every head that the release issue tells of; why that was not compared.

    A recovery goes on whatever is missing, and waits for no forge. Raises StoreError.
    """
    if stage in playbook.RECOVERY:
        return ""
    problems, unknown = compare_heads(site, params.release, getattr(params, "issue", 0))
    if problems:
        raise StoreError("; ".join(problems))
    return unknown


def require_resolved(store: Store, stage: str, params: StageParams, site: Site) -> None:
    """An apply goes on only while no incident of the release is open. Raises StoreError.

    An attempt of the incident's own stage may be continued: what was stopped is still to be read
    back and sealed, and its recovery keeps it from changing anything.
    """
    if params.mode != "apply" or stage not in playbook.STAGES:
        return
    recovered = any(store.numbers(params.release, name) for name in playbook.RECOVERY)
    if not recovered and not store.names(INCIDENTS):
        return  # nothing of the kind was ever recorded here
    from .evidence.incidents import Block, Incidents, unsaid

    incidents = Incidents(store)
    blocks = incidents.blocking(params.release, single_operator=site.single_operator)
    for one in incidents.of(params.release) if not blocks else ():
        if problem := unsaid(one, site):
            blocks.append(Block(one.id, one.opened.stage, problem))
    for block in blocks:
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
