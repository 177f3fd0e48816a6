"""The digests that preflight.binary-verification proved: what running nodes must name."""

from __future__ import annotations

from collections.abc import Sequence

from .. import playbook
from ..context import Context
from ..errors import SourceError
from ..evidence.record import Entry
from ..evidence.standing import standing
from ..outcomes import Outcome, Row, check_row, unknown_row
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


def digest_rows(context: Context, plan: Plan) -> list[Row]:
    """Whether the plan's artifact is the verified one; nothing where the stage verifies none."""
    if ITEM not in playbook.DECLARED.get(context.stage, ()):
        return []
    what, planned = "digest of the plan", plan.artifact.digest
    try:
        verified = verified_digest(context.journal)
    except SourceError as error:
        return [unknown_row("release artifact", what, "verified", error.problem)]
    return [check_row("release artifact", what, verified, planned, planned == verified)]
