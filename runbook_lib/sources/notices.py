"""Telling people what was found: by a webhook, a comment in the release issue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, model_validator

from .. import reach
from ..canonical import canonical
from ..errors import SourceError
from . import wire
from .commands import SiteCommands
from .http import JSON, Request
from .scope import Scope
from .wire import Wire


def by_webhook(scope: Scope, webhook: reach.Webhook, document: Mapping[str, Any]) -> None:
    """Post a document as JSON. Raises SourceError for a status that takes nothing."""
    notice = Request(
        "POST",
        webhook.url or f"{{{webhook.url_env}}}",
        webhook,
        body=canonical(document),
        headers=JSON,
        purpose="notify",
    )
    wire.ask(scope, "telemetry.notify", notice, expected=(200, 201, 202, 204))


# --- What the site's governance commands say: announcements that stand, and proposals ---


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

    def proposals(self) -> Proposals:
        """The state of governance proposals."""
        found = self._answer("proposals", "", Proposals)
        if found.frozen and found.since is None:
            raise SourceError("proposals", "expected since when they are frozen, got null")
        return found
