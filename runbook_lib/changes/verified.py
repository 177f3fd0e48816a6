"""The digests that preflight.binary-verification proved: what running nodes must name."""

from __future__ import annotations

from collections.abc import Sequence

from .. import playbook
from ..context import Context
from ..errors import SourceError
from ..evidence.record import Entry
from ..evidence.standing import standing
from ..outcomes import Outcome
from .plan import Plan

ITEM = "preflight.binary-verification"


def verified_digest(journal: Sequence[Entry], name: str = "node") -> str:
    """The proven digest of the artifact that the site calls ``name``.

    Raises SourceError when its last verification did not pass, or was of other artifacts.
    """
    now = standing(journal, ITEM)
    if now.result is None or now.outcome is not Outcome.PASS:
        raise SourceError(name, f"expected it verified by {ITEM}, got: {now.reason}")
    digests = now.result.data.get("digests")
    found = digests.get(name) if isinstance(digests, dict) else None
    if not isinstance(found, str):
        raise SourceError(name, f"expected {ITEM} to name its digest, got none")
    return found


def required_digest(context: Context, plan: Plan) -> str:
    """The digest that nodes must run: the verified one where the stage verifies, else the plan's.

    Raises SourceError as ``verified_digest``.
    """
    if ITEM not in playbook.DECLARED.get(context.stage, ()):
        return plan.artifact.digest
    return verified_digest(context.journal)
