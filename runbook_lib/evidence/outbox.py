"""What a recovery could not send: kept in its folder, sent once by ``runbook publish``.

    <attempt>/outbox/01-incident.json     one document each, in the order of their numbers

No part of a seal, as it goes away; the log names each with its digest, and nothing else is sent.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..canonical import canonical, digest_bytes
from ..files import keep_file
from ..sources.local import recorded
from .events import Event, Queued, of

FOLDER = "outbox"
_NAME = re.compile(r"\d\d+-([a-z][a-z0-9-]*)\.json")


def keep(folder: Path, kind: str, number: int, document: Mapping[str, Any]) -> Queued:
    """Write a document in place of an older one of its kind; what the log is to say of it."""
    data = canonical(document) + b"\n"
    path = keep_file(folder, f"{FOLDER}/{number:02d}-{kind}.json", data)
    # The older one last: while nothing lies there, it counts as sent.
    drop(folder, kind, but=path.name)
    return Queued(name=path.name, what=kind, digest=digest_bytes(data))


def drop(folder: Path, kind: str, *, but: str = "") -> None:
    """Nothing of that kind is to be sent any more, ``but`` that one."""
    for path in pending(folder):
        if kind_of(path) == kind and path.name != but:
            path.unlink(missing_ok=True)
    with suppress(OSError):  # something else lies there, or nothing
        (folder / FOLDER).rmdir()


def pending(folder: Path) -> list[Path]:
    """What is to be sent, in order."""
    found = [path for path in (folder / FOLDER).glob("*.json") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.partition("-")[0]))


def kind_of(path: Path) -> str:
    found = _NAME.fullmatch(path.name)
    return found[1] if found else ""


def is_ours(name: str) -> bool:
    """Whether a path of an attempt is one of these."""
    folder, _, rest = name.partition("/")
    return folder == FOLDER and _NAME.fullmatch(rest) is not None


def read(path: Path, events: Sequence[Event]) -> dict[str, Any]:
    """A document as the log names it. Raises ValueError for any other, OSError."""
    data = recorded(path)
    named = [event.digest for event in of(events, Queued) if event.name == path.name]
    if digest_bytes(data) not in named[-1:]:
        raise ValueError(f"expected what the log names, {named[-1:] or 'nothing'}, got another")
    return dict(json.loads(data))
