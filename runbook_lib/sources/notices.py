"""Telling people what was found: by the site's command, a webhook, a comment in the release issue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import reach, site
from ..canonical import canonical
from ..errors import SourceError
from . import wire
from .forge import Forge
from .github import GitHub
from .running import fill, reason
from .scope import Scope


def by_command(scope: Scope, command: reach.Command, role: str, subject: str, text: Path) -> None:
    """Tell a role by the site's command. Raises SourceError when it does not end well."""
    values = {"role": role, "subject": subject, "text": str(text)}
    argv = fill("commands.notify", command.argv, **values)
    ended = scope.run(argv, timeout_s=command.timeout_s, purpose="notify")
    if ended.code != 0:
        got = ended.problem or f"{ended.code}: {reason(ended)}"
        raise SourceError("commands.notify", f"expected exit code 0, got {got}")


def by_webhook(scope: Scope, webhook: reach.Webhook, document: Mapping[str, Any]) -> None:
    """Post a document as JSON. Raises SourceError for a status that takes nothing."""
    request = wire.request(
        webhook,
        "POST",
        webhook.url or f"{{{webhook.url_env}}}",
        body=canonical(document),
        headers=(("content-type", "application/json"),),
        purpose="notify",
    )
    request = replace(request, url_env=webhook.url_env)
    wire.content("telemetry.notify", scope.http([request])[0], expected=(200, 201, 202, 204))


def by_comment(scope: Scope, forge: site.Forge, issue: int, text: str) -> None:
    """A comment in the release issue. Raises SourceError when it is not taken."""
    GitHub(scope, forge, writes="notify").create_comment(issue, text)


def stands(forge: Forge, issue: int, marker: str) -> bool:
    """Whether our own account said so in an issue, by a comment's first line. Raises SourceError."""
    me = forge.me().casefold()
    return any(
        one.author.casefold() == me and one.body.partition("\n")[0].strip() == marker
        for one in forge.comments(issue)
    )
