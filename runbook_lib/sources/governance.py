"""What the site's governance commands say: announcements that stand, and proposals.

The chain has no API for either; a site reads them where its people do (a channel, a contract), and
from elsewhere than where it wrote them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, model_validator

from .. import reach, site
from ..errors import SourceError
from . import wire
from .running import execute, fill
from .scope import Scope
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


class Governance:
    """Reads by the site's commands. Every method raises SourceError."""

    def __init__(self, scope: Scope, commands: site.Commands) -> None:
        self._scope, self._commands = scope, commands

    def announced(self) -> list[Announcement]:
        """Every announcement that stands."""
        return wire.decode("announced", self._read("announced"), _Announced).announced

    def proposals(self) -> Proposals:
        """The state of governance proposals."""
        found = wire.decode("proposals", self._read("proposals"), Proposals)
        if found.frozen and found.since is None:
            raise SourceError("proposals", "expected since when they are frozen, got null")
        return found

    def _read(self, purpose: str) -> bytes:
        command: reach.Command | None = getattr(self._commands, purpose)
        if command is None:
            raise SourceError(purpose, f"expected commands.{purpose} in the site file, got none")
        argv = fill(f"commands.{purpose}", command.argv)
        return execute(self._scope, purpose, command.model_copy(update={"argv": argv})).stdout
