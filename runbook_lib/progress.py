"""A bar for long work in a live run. Its output is never the same twice, so a replay shows none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(
    what: str, total: float, *, unit: str = "s", live: bool
) -> Iterator[Callable[[float], None]]:
    """A bar for long work; yields a function to be told how much further the work is.

    Not ``live`` (a replay): no output at all, as a bar's output is never the same twice.
    """
    if not live:
        yield lambda amount: None
        return
    from tqdm import tqdm

    layout = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} {unit}, {remaining} left"
    # At most some 200 updates: a headless run stores every one of them in its notebook.
    with tqdm(
        desc=what,
        total=total,
        unit=unit,
        bar_format=layout,
        miniters=total / 200,
        maxinterval=math.inf,
        leave=False,
    ) as bar:

        def advance(amount: float) -> None:
            bar.update(amount)

        yield advance
