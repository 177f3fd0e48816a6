"""Kinds of text that files of ours hold: a commit, a name, an instant, a digest, severities."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator

from . import playbook


def _hex40(value: str) -> str:
    if value and not re.fullmatch(r"[0-9a-f]{40}", value):
        raise ValueError("expected 40 lowercase hex digits of a commit")
    return value


# It becomes a folder of the store: no separators, no leading dot.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")


def _name(value: str) -> str:
    if value and not NAME.fullmatch(value):
        raise ValueError("expected a name of letters, digits, '.', '_', '+' or '-'")
    return value


def parse_instant(text: str) -> datetime:
    """An ISO 8601 instant with its offset, as UTC. Raises ValueError."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("expected an instant such as 2026-01-31T12:00:00Z") from None
    if instant.tzinfo is None:
        raise ValueError("expected an instant with its offset, such as 2026-01-31T12:00:00Z")
    try:
        return instant.astimezone(UTC)
    except OverflowError:  # of no year that UTC has a number for
        raise ValueError(
            "expected an instant between the years 1 and 9999 in UTC, such as 2026-01-31T12:00:00Z"
        ) from None


def _instant(value: str) -> str:
    if value:
        parse_instant(value)
    return value


def _severities(value: list[str]) -> list[str]:
    missing = sorted(playbook.PAGING_SEVERITIES - set(value))
    if missing:
        raise ValueError(
            f"expected at least {sorted(playbook.PAGING_SEVERITIES)}, got none of {missing}"
        )
    return sorted(set(value))


def _digest(value: str) -> str:
    if value and not re.fullmatch(r"sha256:[0-9a-f]{64}", value):
        raise ValueError("expected sha256: and 64 hex digits of a plan")
    return value


Severities = Annotated[list[str], AfterValidator(_severities)]
Commit = Annotated[str, AfterValidator(_hex40)]
Name = Annotated[str, AfterValidator(_name)]
Instant = Annotated[str, AfterValidator(_instant)]
Digest = Annotated[str, AfterValidator(_digest)]
