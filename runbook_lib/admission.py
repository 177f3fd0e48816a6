"""Who may open what: an operator the site knows, a store that all reach, and a release in order."""

from __future__ import annotations

import getpass
import os
import stat

from . import playbook
from .errors import ParameterError, StoreError
from .evidence.incidents import blocking
from .evidence.order import BEFORE, find_earlier
from .evidence.store import Store
from .params import StageParams
from .session import Source
from .site import Site


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


def require_order(store: Store, stage: str, params: StageParams, source: Source) -> None:
    """An apply opens only on the stage before it, passed and proven. Raises StoreError."""
    if params.mode != "apply" or stage not in BEFORE:
        return
    found = find_earlier(store, params.release, params.commit, stage, source)
    if found.problem:
        raise StoreError(f"{params.release}/{found.stage}: {found.problem}; {stage} cannot open")


def require_same_chain(store: Store, stage: str, params: StageParams, site: Site) -> None:
    """What permits an apply was made on the chain that this site names for it. Raises StoreError.

    Another site file may share the store, and call another cluster by the stage's name.
    """
    before = BEFORE.get(stage)
    if params.mode != "apply" or before is None:
        return
    if before not in site.stages:
        raise StoreError(
            f"{site.name}: stages: expected the cluster of {before}, got none; {stage} cannot open"
        )
    made = [store.opened(one) for one in store.attempts(params.release, before)]
    applied = [opened for opened in made if opened["mode"] == "apply"]
    wanted = (site.cluster_name(before), site.cluster_of(before).chain_id)
    if applied and (got := (applied[-1]["cluster"], applied[-1]["chain_id"])) != wanted:
        number = applied[-1]["attempt"]
        raise StoreError(
            f"{params.release}/{before}: expected attempt {number} made on {wanted[0]} of chain"
            f" {wanted[1]}, got {got[0]} of chain {got[1]}; {stage} cannot open"
        )


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
