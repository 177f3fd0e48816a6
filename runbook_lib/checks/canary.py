"""The canary stage: its readiness items, in the playbook's order."""

from __future__ import annotations

from ..context import Context
from ..outcomes import Value
from . import alerts, candidate, clean_epochs
from .alerts import alerts_active
from .candidate import candidate_installed
from .clean_epochs import epochs_clean

__all__ = ["alerts_active", "candidate_installed", "epochs_clean", "expectations"]


def expectations(context: Context) -> list[tuple[str, str, Value]]:
    """What must hold, with its thresholds, before any data is read."""
    return [
        (epochs_clean.item, *clean_epochs.expected(context)),
        (candidate_installed.item, *candidate.expected(context)),
        (alerts_active.item, *alerts.expected(context)),
    ]
