"""Opening an attempt on a live site: a new one, or a further session of one that is there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import yaml

from . import playbook
from .admission import (
    find_operator,
    require_order,
    require_resolved,
    require_same_chain,
    require_shared,
)
from .canonical import digest
from .errors import ParameterError
from .evidence.order import what_to_undo
from .evidence.store import Attempt, Store
from .files import replace_file
from .params import PER_TRY, STAGE_PARAMS, RecoveryParams, StageParams, promoted, stage_params
from .session import OPEN, PARAMETERS, VERSION, Session, hand_over, run_kind
from .site import Site, parse_site, read_site
from .sources.clock import read_clock
from .sources.redact import Redactor
from .sources.scope import Outside
from .sources.tape import LiveTape
from .strict import project_path


def taken(stage: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of ``stage`` out of a notebook's names. Raises ParameterError listing problems.

    A name that differs from a parameter's by a letter or two was meant to be it.
    """
    known = STAGE_PARAMS[stage].model_fields
    problems = [
        f"parameters cell: {name}: expected a value, got none; run the cell first"
        for name in known
        if name not in namespace
    ]
    for name in namespace:
        if name not in known and (near := get_close_matches(name, known, n=1, cutoff=0.85)):
            problems.append(f"parameters cell: {name}: expected no such name; write {near[0]}")
    if problems:
        raise ParameterError(problems)
    return {name: namespace[name] for name in known}


def open_live(stage: str, given: Mapping[str, Any]) -> Session:
    """A new attempt, or with ``attempt`` a further session of one. Raises ParameterError."""
    where = os.environ.get("RUNBOOK_PARAMS_FILE") or f"{stage} parameters"
    params, site, operator = _given(stage, given, where)
    redactor = Redactor(site.secret_names())
    attempt = _attempt(stage, params, site, operator)
    session = Session(
        stage=stage,
        site=site,
        store=Store(site.store_path),
        attempt=attempt,
        tape=LiveTape(attempt.folder / "tape", redactor),
        outside=Outside(redactor),
        number=1 + sum(entry.kind == "session" for entry in attempt.record.entries()),
        mode=params.mode,
        source=site.source,
        operator=operator,
        params=params,
    )
    try:
        _begin_session(session, params)
    except BaseException:
        session.close()
        raise
    return session


def prepare_attempt(stage: str, given: Mapping[str, Any], where: str) -> Attempt:
    """The attempt a person will step through: validated and created, no session begun yet."""
    return _attempt(stage, *_given(stage, given, where))


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
    return params, site, find_operator(site, params.mode)


def _attempt(stage: str, params: StageParams, site: Site, operator: str) -> Attempt:
    """The attempt that is continued, or a new one. Raises ParameterError, StoreError."""
    store = Store(site.store_path)
    if stage not in playbook.RECOVERY:
        require_shared(store, site)
    require_resolved(store, stage, params, site)
    return _find(store, stage, params, site) or _create(store, stage, params, site, operator)


def _find(store: Store, stage: str, params: StageParams, site: Site) -> Attempt | None:
    if not params.attempt:
        return None
    attempt = store.attempt(params.release, stage, params.attempt)
    if stage not in playbook.RECOVERY:
        store.check_heads(store.attempts(params.release))
    opened = store.opened(attempt)
    fixed, world = opened["params"], _world(stage, params, site)
    differs = [
        f"{key}: expected {fixed.get(key)!r} as attempt {params.attempt} was opened with, got {value!r}"
        for key, value in params.fixed().items()
        if fixed.get(key) != value
    ]
    # A site file that was edited since must not carry an attempt into another world.
    differs += [
        f"{params.site}: {key}: expected {opened[key]!r} as attempt {params.attempt} was opened on,"
        f" got {value!r}; put the site file back, or open a new attempt"
        for key, value in world.items()
        if opened[key] != value
    ]
    if differs:
        raise ParameterError(differs)
    return attempt


def _world(stage: str, params: StageParams, site: Site) -> dict[str, str]:
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
    require_order(store, stage, params, source)
    require_same_chain(store, stage, params, site)
    now, _ = read_clock(site.clock)
    about = promoted(stage, params)
    undoes = {}
    if isinstance(params, RecoveryParams):
        undoes = {"undoes": _undoes(store, about, params, source)}
    attempt = store.create(
        params.release,
        stage,
        {
            **undoes,
            "stage": stage,
            "release": params.release,
            "commit": params.commit,
            **_world(stage, params, site),
            "mode": params.mode,
            "params": params.fixed(),
            "policy": digest(params.policy()),
            "declared": list(playbook.DECLARED[stage]),
            "run": run_kind(),
            "operator": operator,
            "single_operator": site.single_operator,
            "now": now.isoformat(),
            "version": VERSION,
        },
        whatever=bool(undoes),
    )
    text = yaml.safe_dump(params.fixed(), sort_keys=False, allow_unicode=True)
    replace_file(attempt.folder / PARAMETERS, text)
    return attempt


def _undoes(store: Store, about: str, params: RecoveryParams, source: str) -> dict[str, Any] | None:
    """What a recovery undoes. Raises ParameterError for what nobody approved, without a reason."""
    found, why = what_to_undo(store, params.release, about, source, params.undoes)
    if why and params.mode == "apply" and not params.break_glass:
        raise ParameterError(
            f"break_glass: {why}; to go on without an approval, which the governance council must"
            " ratify within 24 h, give the reason: --reason 'WHY'"
        )
    return found


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
