"""Windows of samples: what was seen, and what the missing points could have been.

A missing point (NaN) is not left out, which would let a dying exporter look healthy. It is kept as
the two values it could have had at worst, by the metric's declared bounds, so that a verdict must
hold whichever it was. Without bounds nothing can be said about it, and the judge says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .longrun import Floats

Bounds = tuple[float | None, float | None]

LARGEST = 1e100
"""No metric is larger, and the square of what is smaller can be computed with."""


@dataclass(frozen=True)
class Window:
    """S series of n points: ``low`` <= truth <= ``high``, each of shape (S, n).

    ``middle`` has missing points interpolated in time, for judging how the series moves. Nothing
    missing: all three are the same array. ``missing`` counts points, shape (S,); ``problems``
    says for each series why it cannot be judged, or "".
    """

    low: Floats
    middle: Floats
    high: Floats
    missing: NDArray[np.int64]
    problems: tuple[str, ...]

    @property
    def points(self) -> int:
        return int(self.middle.shape[-1])


def observe(values: ArrayLike, bounds: Bounds = (None, None)) -> Window:
    """A window from samples in time order, shape (n,) or (S, n), NaN where one is missing.

    ``bounds`` are the lowest and highest value the metric can have, in its unit.
    """
    # Contiguous, so that sums come out the same to the last digit whatever the memory layout.
    seen = np.ascontiguousarray(np.atleast_2d(np.asarray(values, dtype=np.float64)))
    gaps = np.isnan(seen)
    missing = gaps.sum(axis=-1)
    problems = tuple(
        _problem(row, int(count), bounds) for row, count in zip(seen, missing, strict=True)
    )
    # Series with a problem are never judged; zeros keep the arithmetic of the others vectorised.
    bad = np.array([bool(problem) for problem in problems], dtype=np.bool_)
    if bad.any():
        seen = np.where(bad[:, None], 0.0, seen)
        gaps &= ~bad[:, None]
    if not gaps.any():
        return Window(seen, seen, seen, missing, problems)
    low, high = (float(bound) for bound in bounds if bound is not None)
    return Window(
        np.where(gaps, low, seen),
        _interpolated(seen, gaps),
        np.where(gaps, high, seen),
        missing,
        problems,
    )


def pair(own: Window, rest: Window, *, relative: bool) -> Window:
    """Each own series against the rest of the set at the same time: ratio or difference.

    What moves all members alike (weather, load) cancels. ``rest`` holds one row a member; the
    median over members is taken, so that one broken member cannot hide a regression. Comparing
    the result of two windows is a difference in differences. The windows must cover the same
    instants; a missing point of either side stays as wide as both could make it.
    """
    if own.points != rest.points:
        raise ValueError(f"pair: points: expected {rest.points} as in the rest, got {own.points}")
    problems = tuple(
        problem or _rest_problem(rest, relative) or _own_problem(row, relative)
        for problem, row in zip(own.problems, own.low, strict=True)
    )
    usable = np.array([not problem for problem in problems], dtype=np.bool_)[:, None]

    def against(mine: Floats, others: Floats) -> Floats:
        if not usable.any():
            return np.zeros_like(mine)
        other = np.median(others, axis=0)
        return np.where(usable, mine / other if relative else mine - other, 0.0)

    middle = against(own.middle, rest.middle)
    if own.low is own.middle and rest.low is rest.middle:
        return Window(middle, middle, middle, own.missing, problems)
    low, high = against(own.low, rest.high), against(own.high, rest.low)
    missing = own.missing + int(np.ceil(rest.missing.sum() / max(1, len(rest.missing))))
    return Window(low, middle, high, missing, problems)


def _rest_problem(rest: Window, relative: bool) -> str:
    if not len(rest.low):
        return "rest of the set: nobody to compare with"
    for problem in rest.problems:
        if problem:
            return f"rest of the set: {problem}"
    if relative and not np.median(rest.low, axis=0).min() > 0:
        return "rest of the set: a ratio needs values above zero"
    return ""


def _own_problem(row: Floats, relative: bool) -> str:
    return "a ratio needs values of zero or above" if relative and row.min() < 0 else ""


def _problem(row: Floats, missing: int, bounds: Bounds) -> str:
    low, high = bounds
    if missing == len(row):
        return "no data"
    infinite = int(np.sum(np.abs(row) > LARGEST))
    if infinite:
        return f"{infinite} of {len(row)} points are infinite"
    if missing and (low is None or high is None):
        return f"{missing} of {len(row)} points missing and no bounds declared to stand in for them"
    if low is not None and np.nanmin(row) < low:
        return f"a value below its declared bound {low:g}: {np.nanmin(row):g} (wrong unit?)"
    if high is not None and np.nanmax(row) > high:
        return f"a value above its declared bound {high:g}: {np.nanmax(row):g} (wrong unit?)"
    return ""


def _interpolated(seen: Floats, gaps: NDArray[np.bool_]) -> Floats:
    filled = seen.copy()
    place = np.arange(seen.shape[-1])
    for row in np.flatnonzero(gaps.any(axis=-1)):
        gap = gaps[row]
        filled[row, gap] = np.interp(place[gap], place[~gap], seen[row, ~gap])
    return filled
