"""Windows of samples, confidence limits of one's level, and of the change between two.

Limits of a level are one-sided, at the rates asked for, and follow what the series is:

* mean of a gauge: Student t on the long-run variance (``long_run``);
* mean of a proportion or a count: Wilson's and the Poisson score interval with the dispersion that
  the long-run variance shows (Korn and Graubard 1998), so that the limits stay inside the range and
  a series in which nothing happened still has an upper limit above zero;
* p95: Woodruff (JASA 1952): limits of the share below it, on the arcsine scale, read off the
  order statistics; no density is estimated.

Limits of the change combine both windows by MOVER, in closed form and without assuming
symmetry (difference: Newcombe 1998; ratio: Donner and Zou, Stat Methods Med Res 2012).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# --- Windows of samples, and what stands in for missing points ---
#
# A missing point (NaN) is not left out, which would let a dying exporter look healthy. It is kept as
# the two values it could have had at worst, by the metric's declared bounds, so that a verdict must
# hold whichever it was. Without bounds nothing can be said about it, and the judge says so.

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
        problem
        or _rest_problem(rest, relative)
        or ("a ratio needs values of zero or above" if relative and row.min() < 0 else "")
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


def _interpolated(seen: Floats, gaps: Flags) -> Floats:
    filled = seen.copy()
    place = np.arange(seen.shape[-1])
    for row in np.flatnonzero(gaps.any(axis=-1)):
        gap = gaps[row]
        filled[row, gap] = np.interp(place[gap], place[~gap], seen[row, ~gap])
    return filled


# --- How precisely the mean of an autocorrelated series is known ---
#
# Neighbouring samples of a metric resemble each other, so ``sd / sqrt(n)`` is far too small. What
# counts is the long-run variance: the spectral density at frequency zero. It is estimated here as
#
# 1. means of about 240 blocks (long series only), after taking out a declared cycle's profile;
# 2. the average of the periodogram's first ``m`` ordinates, skipping those of the cycle
#    (equal-weighted periodogram: Student t with 2m degrees of freedom, Lazarus, Lewis, Stock and
#    Watson, "HAR inference: recommendations for practice", JBES 2018: fixed-b critical values);
# 3. each ordinate prewhitened and recoloured by an AR(1) (Andrews and Monahan, Econometrica 1992)
#    whose coefficient is bias-corrected (Kendall 1954), which undoes the bias of step 2 under strong
#    autocorrelation; its own sampling error is taken off the degrees of freedom.
#
# All of it assumes a level that stays. Where it drifts or shifts, the mean of a window says little
# about the next one, and no variance within the window can tell how little; so that is tested.

BLOCKS = 240
MIN_POINTS = 30
MIN_MOVES = 20
"""Ten events, each of which begins and ends."""
DRIFT_RATE = 1e-5
"""Chance that a steady series is called drifting: small, as a stage judges hundreds of series."""


@dataclass(frozen=True)
class LongRun:
    """Precision of the means of S series; every array has shape (S,).

    ``variance`` is that of the mean (unit squared); ``freedom`` the degrees of freedom of that
    variance; ``effective`` how many independent samples would give it, at most ``blocks``;
    ``drifting`` marks series whose level does not stay, ``sparse`` those that change in fewer than
    ``MIN_MOVES`` blocks, whose variance is not an estimate of anything.
    """

    variance: Floats
    freedom: Floats
    effective: Floats
    drifting: Flags
    sparse: Flags
    blocks: int


def long_run(series: Floats, cycle: int = 0) -> LongRun:
    """Judge S series of n points, shape (S, n), n >= ``MIN_POINTS``, all finite.

    ``cycle`` is the length in points of a known cycle; n must be a multiple of it. With fewer than
    two cycles there is nothing to tell it from noise, and it counts as noise.
    """
    points = series.shape[-1]
    cycles = points // cycle if cycle and points >= 2 * cycle else 0
    blocks = block_means(_deseasonalised(series, cycles))
    count = blocks.shape[-1]
    bins = np.arange(1, count // 2)
    bins = bins[bins % cycles != 0] if cycles else bins
    power = np.abs(np.fft.rfft(blocks)[..., bins]) ** 2 / count
    bend = 2 - 2 * np.cos(2 * np.pi * bins / count)
    drifting = _drifting(blocks, power, bend)

    ordinates = max(4, count // 20)
    power, bend = power[..., :ordinates], bend[:ordinates]
    # No sharpening by negative autocorrelation: a lucky anti-correlated stretch proves nothing.
    phi = _autocorrelation(blocks)
    phi = np.clip(phi + (1 + 3 * phi) / count, 0.0, 1 - 1 / count)
    density = np.mean(_recoloured(power, bend, phi), axis=-1)
    known = np.where(density > 0, density, 1.0)
    slope = np.mean(power * bend, axis=-1) * (1 + phi) / (1 - phi) ** 3 / known
    freedom = 2 / (1 / len(bend) + slope**2 * (1 - phi**2) / count)
    effective = count * np.mean(blocks * blocks, axis=-1) / known
    return LongRun(
        variance=density / count,
        freedom=freedom,
        effective=np.minimum(effective, count),
        drifting=drifting,
        sparse=_moves(series) < MIN_MOVES,
        blocks=count,
    )


def block_means(series: Floats) -> Floats:
    """Means of blocks of equal length, shape (S, B): B = n below 480 points, else 240 to 479.

    A first few points that fill no block are left out.
    """
    points = series.shape[-1]
    length = max(1, points // BLOCKS)
    count = points // length
    used = series[..., points - count * length :]
    means: Floats = used.reshape(*series.shape[:-1], count, length).mean(axis=-1)
    return means


def _deseasonalised(series: Floats, cycles: int) -> Floats:
    centred: Floats = series - series.mean(axis=-1, keepdims=True)
    if not cycles:
        return centred
    folded = centred.reshape(*series.shape[:-1], cycles, -1)
    profile = folded.mean(axis=-2, keepdims=True)
    return np.reshape(folded - profile, series.shape)


def _moves(series: Floats) -> Floats:
    """In how many blocks a series changes at all."""
    changes = np.diff(series, axis=-1) != 0
    moves: Floats = np.sum(block_means(changes.astype(np.float64)) > 0, axis=-1)
    return moves


def _drifting(blocks: Floats, power: Floats, bend: Floats) -> Flags:
    """Whether the two lowest ordinates stick out of their neighbours, by an F test.

    The neighbours are prewhitened by an AR(1) whose coefficient comes from the differences, where a
    shift is one outlier and a drift is nothing, so that neither can pass itself off as
    autocorrelation. (A pure random walk can; it has too few effective samples.)
    """
    from scipy.special import fdtri  # 0.1 s: only who judges pays it

    reach = max(6, blocks.shape[-1] // 10)
    phi = np.clip(1 + 2 * _autocorrelation(np.diff(blocks)), 0.0, 1 - 1 / blocks.shape[-1])
    flat = _recoloured(power[..., :reach], bend[:reach], phi)
    limit = fdtri(4, 2 * flat.shape[-1] - 4, 1 - DRIFT_RATE)
    return np.asarray(flat[..., :2].mean(axis=-1) > limit * flat[..., 2:].mean(axis=-1))


def _recoloured(power: Floats, bend: Floats, phi: Floats) -> Floats:
    """Ordinates as they would be at frequency zero if an AR(1) shaped the spectrum."""
    flat: Floats = power * (1 + bend * (phi / (1 - phi) ** 2)[..., None])
    return flat


def _autocorrelation(series: Floats) -> Floats:
    """At lag one, of centred rows; zero for a constant row."""
    total = np.sum(series * series, axis=-1)
    lagged: Floats = np.sum(series[..., 1:] * series[..., :-1], axis=-1)
    return lagged / np.where(total > 0, total, 1.0)


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
