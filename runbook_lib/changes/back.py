"""The way back: every node to the state before the apply that is undone."""

from __future__ import annotations

from ..context import Context
from ..errors import SourceError
from .plan import Plan


def make_back_plan(context: Context) -> Plan:
    """The plan of the way back. Raises SourceError."""
    raise SourceError("plan", "expected the way back to be built, got none yet")
