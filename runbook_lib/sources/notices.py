"""What the site's governance commands say: announcements that stand, and proposals."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, model_validator

from ..errors import SourceError
from .commands import SiteCommands
from .wire import Wire


class Announcement(Wire):
    """A window, or the halt of a rollout, that validators were told of; ``at`` is when.

    A halt has no window; its ``reference`` says what was halted.
    """

    kind: Literal["window", "halt"] = "window"
    release: str
    stage: str
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None
    reference: str = ""
    at: AwareDatetime

    @model_validator(mode="after")
    def _whole(self) -> Announcement:
        if self.kind == "window" and (self.start is None or self.end is None):
            raise ValueError("expected start and end of a window")
        return self


class _Announced(Wire):
    announced: list[Announcement]


class Proposal(Wire):
    """An open governance proposal."""

    id: Annotated[str, Field(min_length=1)]
    created_at: AwareDatetime


class Proposals(Wire):
    """Whether new proposals are frozen, since when, and those that are open."""

    frozen: bool
    since: AwareDatetime | None = None
    open: list[Proposal]


class Governance(SiteCommands):
    """Reads by the site's commands. Every method raises SourceError."""

    def announced(self) -> list[Announcement]:
        """Every announcement that stands."""
        return self._answer("announced", "", _Announced).announced

    def halted(self, release: str, stage: str, reference: str) -> bool:
        """Whether the halt of that rollout stands where validators read."""
        wanted = ("halt", release, stage, reference)
        found = self.announced()
        return wanted in [(one.kind, one.release, one.stage, one.reference) for one in found]

    def proposals(self) -> Proposals:
        """The state of governance proposals."""
        found = self._answer("proposals", "", Proposals)
        if found.frozen and found.since is None:
            raise SourceError("proposals", "expected since when they are frozen, got null")
        return found
