"""The common preflight: what must hold before any stage may change anything."""

from __future__ import annotations

from collections.abc import Callable

from .. import playbook
from ..changes.apply import Change
from ..context import Context, Judge
from ..outcomes import Value
from . import binary, drift, rollback
from . import observability as observing
from . import release_issue as issue
from .binary import binary_verification
from .drift import config_drift
from .observability import observability
from .release_issue import release_issue
from .rollback import rollback_assets

__all__ = [
    "binary_verification",
    "config_drift",
    "observability",
    "release_issue",
    "rollback_assets",
]

RUNS: dict[str, Judge | Change] = {
    "preflight.config-drift": config_drift,
    "preflight.binary-verification": binary_verification,
    "preflight.observability": observability,
    "preflight.rollback-assets": rollback_assets,
    "preflight.release-issue": release_issue,
}
"""The common items that are built, in the playbook's order."""

EXPECTED: dict[str, Callable[[Context], tuple[str, Value]]] = {
    "preflight.config-drift": drift.expected,
    "preflight.binary-verification": binary.expected,
    "preflight.observability": observing.expected,
    "preflight.rollback-assets": rollback.expected,
    "preflight.release-issue": issue.expected,
}


def expectations(context: Context) -> list[tuple[str, str, Value]]:
    """What must hold in the common preflight, before any data is read."""
    declared = playbook.DECLARED[playbook.PREFLIGHT]
    return [(item, *expected(context)) for item, expected in EXPECTED.items() if item in declared]
