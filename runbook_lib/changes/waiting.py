"""Waiting the few minutes that a change needs, with a bar for who watches."""

from __future__ import annotations

import math
import os
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..context import Context
from ..sources.commands import filled, require_well

if TYPE_CHECKING:
    from tqdm import tqdm


def progress(what: str, total: float, *, live: bool) -> tqdm[Any]:
    """A bar for work that takes ``total`` seconds.

    Not ``live`` (a replay), or headless: no output at all. What nobody watches would only stay
    behind in the executed notebook.
    """
    from tqdm import tqdm

    return tqdm(
        desc=what,
        total=total,
        unit="s",
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} {unit}, {remaining} left",
        miniters=total / 200,  # the notebook stores every update
        maxinterval=math.inf,
        leave=False,
        disable=not live or bool(os.environ.get("RUNBOOK_HEADLESS")),
    )


def hold_until(context: Context, due: datetime, what: str) -> None:
    """Wait the few minutes until ``due``, and judge from then on."""
    wind, begun = context.site.clock.wait, context.now
    total = (due - begun).total_seconds()
    with progress(f"waiting for {what}", total, live=context.scope.live) as bar:
        seen = begun
        while context.scope.renew() < due:
            context.require_going_on()
            further = (context.now - seen).total_seconds()
            bar.update(min(further, total - bar.n))  # beyond its end a bar knows no total
            seen, left = context.now, (due - context.now).total_seconds()
            if wind is None:
                context.scope.sleep(min(left, 10.0))
            else:  # a rehearsal's clock is wound forward instead
                asked = filled("clock.wait", wind, seconds=f"{math.ceil(left) + 1}")
                require_well("clock", context.scope.run(asked))
