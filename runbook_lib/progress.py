"""A bar for long work that somebody watches. Its output is never the same twice."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
