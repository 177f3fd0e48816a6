"""Waiting the few minutes that a change needs, with a bar for who watches."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from ..context import Context
from ..errors import SourceError
from ..reach import Command
from ..sources.running import filled, reason


@contextmanager
def progress(
    what: str, total: float, *, unit: str = "s", live: bool
) -> Iterator[Callable[[float], None]]:
    """A bar for long work; yields a function to be told how much further the work is.

    Not ``live`` (a replay), or headless: no output at all. What nobody watches would only stay
    behind in the executed notebook.
    """
    if not live or os.environ.get("RUNBOOK_HEADLESS"):
        yield lambda amount: None
        return
    from tqdm import tqdm

    layout = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} {unit}, {remaining} left"
    # At most some 200 updates: the notebook stores every one of them.
    with tqdm(
        desc=what,
        total=total,
        unit=unit,
        bar_format=layout,
        miniters=total / 200,
        maxinterval=math.inf,
        leave=False,
    ) as bar:
        left = total

        def advance(amount: float) -> None:
            nonlocal left
            bar.update(min(amount, left))  # beyond its end a bar knows no total
            left -= min(amount, left)

        yield advance


def hold_until(context: Context, due: datetime, what: str) -> None:
    """Wait the few minutes until ``due``, and judge from then on."""
    clock, begun = context.site.clock, context.now
    total = (due - begun).total_seconds()
    with progress(f"waiting for {what}", total, live=context.scope.live) as advance:
        seen = begun
        while context.scope.renew() < due:
            context.require_going_on()
            advance((context.now - seen).total_seconds())
            seen, left = context.now, (due - context.now).total_seconds()
            if clock.wait is None:
                context.scope.sleep(min(left, 10.0))
            else:  # a rehearsal's clock is wound forward instead
                _wind(context, clock.wait, left)


def _wind(context: Context, command: Command, seconds: float) -> None:
    asked = filled("clock.wait", command, seconds=f"{math.ceil(seconds) + 1}")
    ended = context.scope.run(asked)
    if ended.code != 0:
        raise SourceError("clock", f"expected it wound forward, got: {reason(ended)}")
