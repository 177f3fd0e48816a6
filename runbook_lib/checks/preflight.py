"""The common preflight: what must hold before any stage may change anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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

Expected = Callable[[Context], tuple[str, Value]]
EXPECTED: Sequence[tuple[Judge | Change, Expected]] = (
    (config_drift, drift.expected),
    (binary_verification, binary.expected),
    (observability, observing.expected),
    (rollback_assets, rollback.expected),
    (release_issue, issue.expected),
)
"""The common items, in the playbook's order, and what must hold."""


def expectations(context: Context) -> list[tuple[str, str, Value]]:
    """What must hold in the common preflight, before any data is read."""
    declared = playbook.DECLARED[playbook.PREFLIGHT]
    return [(run.item, *told(context)) for run, told in EXPECTED if run.item in declared]
