"""The events of an incident's own log."""

from pydantic import AwareDatetime

from ..canonical import digest
from ..outcomes import Model
from .events import Event, Torn, Undoes, reader


class Told(Event):
    by: str
    at: AwareDatetime


class BreakGlass(Model):
    by: str
    reason: str


class IncidentOpened(Told, kind="incident-opened"):
    """``attempt`` is the recovery that opened it; ``undoes`` is None where there was no apply."""

    id: str = ""
    release: str
    commit: str
    stage: str
    cluster: str
    attempt: str
    undoes: Undoes | None
    author: str
    issue: int
    break_glass: BreakGlass | None = None


class IncidentAcknowledged(Told, kind="incident-acknowledged"):
    """Somebody takes care of it."""


class IncidentMitigated(Told, kind="incident-mitigated"):
    """It does no more harm."""


class IncidentClosed(Told, kind="incident-closed"):
    """Of the incident ``closes`` as it was at ``head``; its digest is what a sign-off approves."""

    closes: str
    opened: str
    head: str
    reason: str
    decided_late: tuple[str, ...]

    @property
    def digest(self) -> str:
        return digest(self.content)


class Spoken(Told):
    """``in_issue`` and ``signed_file``: where else than in the incident's issues it was said."""

    digest: str
    in_issue: int = 0
    signed_file: str = ""


class IncidentSignedOff(Spoken, kind="incident-signed-off"):
    account: str
    recorded_by: str
    grounds: str = ""
    self_approved: bool = False


class CouncilDecided(Spoken, kind="decision"):
    """``late``: after the time within which a break-glass must be ratified."""

    grounds: tuple[str, ...]
    ratifies: bool
    late: bool


class IncidentFiled(Told, kind="filed"):
    """In the forge's issue ``number``, for an audience."""

    audience: str
    number: int


read_line = reader(Told, Torn)
"""Reads a line of an incident's log."""
