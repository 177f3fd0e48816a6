"""What an attempt has gained since its seal: it is no damage, and proves nothing until it is sealed.

``runbook watch`` and the beginning of a further try append to a record and to a tape that are sealed
already. The sealed part must stand unchanged before it; the rest is named, and never passes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from ..sources.local import recorded
from ..wording import utc
from .record import Entry, parse

GROWING = ("record.jsonl", "tape/index.jsonl")
"""What is appended to, line by line."""
BEGINNINGS = {"watching": "runbook watch", "session": "a further try"}
"""What begins with an entry of that kind. Nothing else may add to a sealed attempt."""


@dataclass(frozen=True)
class Unsealed:
    """Entries since the seal of ``at``, oldest first; none for an attempt that is sealed to its end."""

    entries: tuple[Entry, ...] = ()
    at: str = ""

    def __str__(self) -> str:
        begun = [entry.kind for entry in self.entries if entry.kind in BEGINNINGS]
        by = " and ".join(what for kind, what in BEGINNINGS.items() if kind in begun)
        many = "1 entry" if len(self.entries) == 1 else f"{len(self.entries):,} entries"
        since = utc(datetime.fromisoformat(self.at))
        return f"not yet sealed: {many} since {since} by {by}; the next --continue seals it"


def unsealed(folder: Path, manifest: Mapping[str, Any]) -> Unsealed:
    """What the record has gained since ``manifest``. Nothing where it does not go on as it should."""
    try:
        entries, _ = parse(recorded(folder / "record.jsonl"), "record.jsonl")
        number, head = manifest["record"]["entries"], manifest["record"]["head"]
        sealed, later = entries[number - 1], tuple(entries[number:])
        datetime.fromisoformat(sealed.at)
        goes_on = (sealed.kind, sealed.hash) == ("sealed", head) and number > 0
        begun = [entry.kind for entry in later if entry.kind != "torn"][:1]
        if goes_on and begun and begun[0] in BEGINNINGS:
            return Unsealed(later, sealed.at)
    except Exception:  # files are hostile; the procedure's own steps say what is wrong with them
        return Unsealed()
    return Unsealed()


def sealed_lines(path: Path, digest: str) -> int | None:
    """How many lines from its beginning a file had when it had that digest; None when it never had."""
    hashed = hashlib.sha256()
    for number, line in enumerate(BytesIO(recorded(path)), start=1):
        hashed.update(line)
        if f"sha256:{hashed.hexdigest()}" == digest:
            return number
    return None
