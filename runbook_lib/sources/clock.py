"""The clock that a site names: UTC, or ahead of it by what a rehearsal's file says."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from math import isfinite

from ..errors import SourceError
from ..reach import Clock
from ..strict import PROJECT


def read_clock(clock: Clock) -> tuple[datetime, float]:
    """The instant now and how many seconds it runs ahead of UTC. Raises SourceError."""
    offset = 0.0
    if clock.source == "offset-file":
        try:
            offset = json.loads((PROJECT / clock.path).read_bytes())["offset_s"]
            if isinstance(offset, bool) or not isfinite(offset):
                raise ValueError(offset)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SourceError(
                "clock", f"{clock.path}: expected {{offset_s: SECONDS}}, got: {error!r}"
            ) from error
    return datetime.now(UTC) + timedelta(seconds=offset), offset
