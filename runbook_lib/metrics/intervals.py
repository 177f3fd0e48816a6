"""Confidence limits of one window's level, and of the change between two windows.

Limits of a level are one-sided, at the rates asked for, and follow what the series is:

* mean of a gauge: Student t on the long-run variance (``longrun``);
* mean of a proportion or a count: Wilson's and the Poisson score interval with the dispersion that
  the long-run variance shows (Korn and Graubard 1998), so that the limits stay inside the range and
  a series in which nothing happened still has an upper limit above zero;
* p95: Woodruff (JASA 1952): limits of the share below it, on the arcsine scale, read off the
  order statistics; no density is estimated.

Limits of the change combine both windows by MOVER, in closed form and without assuming
symmetry (difference: Newcombe 1998; ratio: Donner and Zou, Stat Methods Med Res 2012).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .longrun import Flags, Floats, long_run

Kind = Literal["gauge", "proportion", "count"]

TAIL = 0.95
MIN_BEYOND = 5
MIN_TRIAL = 10
"""Points that an event which was never seen may last at least, also in a short window."""


@dataclass(frozen=True)
class Level:
    """Where S series lie: estimate, one-sided limits and effective samples, each of shape (S,).

    A limit that the data cannot give is infinite; ``effective``, ``sparse`` and ``drifting`` are
    those of ``LongRun``.
    """

    estimate: Floats
    low: Floats
    high: Floats
    effective: Floats
    sparse: Flags
    drifting: Flags


def mean_level(
    series: Floats, kind: Kind, low: float, high: float, cycle: int, largest: Floats
) -> Level:
    """Level of the mean of S series, shape (S, n); ``low`` and ``high`` are error rates.

    ``largest`` is the size of an event that was never seen, shape (S,): the largest value that a
    count can have at one point, 1 for a proportion; a gauge has no use for it.
    """
    run = long_run(series, cycle)
    mean = series.mean(axis=-1)
    t_low, t_high = _quantile(run.freedom, low), _quantile(run.freedom, high)
    sparse, drifting = run.sparse, run.drifting
    if kind == "gauge":
        error = np.sqrt(run.variance)
        low_limit, high_limit = mean - t_low * error, mean + t_high * error
        return Level(mean, low_limit, high_limit, run.effective, sparse, drifting)
    score = _wilson if kind == "proportion" else _poisson
    spread = mean * (1 - mean) if kind == "proportion" else mean
    with np.errstate(divide="ignore", invalid="ignore"):
        dispersion = np.where(spread > 0, run.variance / spread, 0.0)
    # Where too little happened to measure events, one may fill a block, as large as it can be.
    trials = min(run.blocks, series.shape[-1] / MIN_TRIAL)
    dispersion = np.where(sparse, np.maximum(dispersion, largest / trials), dispersion)
    effective = np.where(sparse, trials, run.effective)
    low_limit, high_limit = score(mean, dispersion, t_low)[0], score(mean, dispersion, t_high)[1]
    return Level(mean, low_limit, high_limit, effective, sparse, drifting & ~sparse)


def tail_level(series: Floats, low: float, high: float, cycle: int) -> Level:
    """Level of the 95th percentile of S series, shape (S, n).

    Its limits are known where at least ``MIN_BEYOND`` effective samples lie beyond it.
    """
    ordered = np.sort(series, axis=-1)
    estimate = _read_off(ordered, np.full(len(series), TAIL))
    run = long_run((series <= estimate[:, None]).astype(np.float64), cycle)
    spread = TAIL * (1 - TAIL)
    known = (1 - TAIL) * spread >= MIN_BEYOND * run.variance
    centre, scale = np.arcsin(np.sqrt(1 - TAIL)), np.sqrt(run.variance / (4 * spread))
    above = centre - _quantile(run.freedom, high) * scale
    below = centre + _quantile(run.freedom, low) * scale
    high_limit = _read_off(ordered, 1 - np.sin(np.maximum(above, 0.0)) ** 2)
    low_limit = _read_off(ordered, 1 - np.sin(np.minimum(below, np.pi / 2)) ** 2)
    return Level(
        estimate,
        np.where(known & (below < np.pi / 2), low_limit, -np.inf),
        np.where(known & (above > 0), high_limit, np.inf),
        run.effective,
        run.sparse,
        run.drifting,
    )


def difference(baseline: Level, current: Level) -> tuple[Floats, Floats, Floats]:
    """Estimate and limits of ``current - baseline``, in the unit of the series."""
    change = current.estimate - baseline.estimate
    down = np.hypot(current.estimate - current.low, baseline.high - baseline.estimate)
    up = np.hypot(current.high - current.estimate, baseline.estimate - baseline.low)
    return change, change - down, change + up


def ratio(baseline: Level, current: Level) -> tuple[Floats, Floats, Floats]:
    """Estimate and limits of ``current / baseline - 1``.

    Only where the baseline's estimate is positive. A limit that needs the baseline to be proven
    positive is infinite where it is not.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        product = current.estimate * baseline.estimate
        a, c = _square(baseline.estimate, baseline.high), _square(current.estimate, current.low)
        low = c / (product + np.sqrt(np.maximum(product**2 - a * c, 0.0)))
        a, c = _square(baseline.estimate, baseline.low), _square(current.estimate, current.high)
        high = (product + np.sqrt(np.maximum(product**2 - a * c, 0.0))) / a
        change = current.estimate / baseline.estimate - 1
    usable = baseline.estimate > 0
    low_known = usable & np.isfinite(low) & np.isfinite(current.low) & np.isfinite(baseline.high)
    high_known = usable & np.isfinite(high) & np.isfinite(current.high) & (baseline.low > 0)
    return (
        np.where(usable, change, np.nan),
        np.where(low_known, low - 1, -np.inf),
        np.where(high_known, high - 1, np.inf),
    )


def _square(estimate: Floats, limit: Floats) -> Floats:
    """``estimate**2 - (estimate - limit)**2`` without cancellation."""
    return limit * (2 * estimate - limit)


def _quantile(freedom: Floats, rate: float) -> Floats:
    from scipy.special import stdtrit  # 0.1 s: only who judges pays it

    return np.asarray(stdtrit(freedom, 1 - rate), dtype=np.float64)


def _wilson(mean: Floats, dispersion: Floats, t: Floats) -> tuple[Floats, Floats]:
    weight = dispersion * t**2
    half = t * np.sqrt(dispersion * mean * (1 - mean) + weight * dispersion / 4)
    middle = mean + weight / 2
    return (middle - half) / (1 + weight), (middle + half) / (1 + weight)


def _poisson(mean: Floats, dispersion: Floats, t: Floats) -> tuple[Floats, Floats]:
    weight = dispersion * t**2
    half = t * np.sqrt(dispersion * mean + weight * dispersion / 4)
    return mean + weight / 2 - half, mean + weight / 2 + half


def _read_off(ordered: Floats, share: Floats) -> Floats:
    """The quantile at ``share`` of each sorted row, linear between order statistics.

    The k-th of n stands for (k - 1/2) / n (Hazen), which is the continuity correction of a count.
    """
    last = ordered.shape[-1] - 1
    place = np.clip(share * (last + 1) - 0.5, 0, last)
    index = np.minimum(place.astype(np.intp), last - 1)
    rows = np.arange(len(ordered))
    below, above = ordered[rows, index], ordered[rows, index + 1]
    return np.asarray(below + (above - below) * (place - index), dtype=np.float64)
