"""How precisely the mean of an autocorrelated series is known.

Neighbouring samples of a metric resemble each other, so ``sd / sqrt(n)`` is far too small. What
counts is the long-run variance: the spectral density at frequency zero. It is estimated here as

1. means of about 240 blocks (long series only), after taking out a declared cycle's profile;
2. the average of the periodogram's first ``m`` ordinates, skipping those of the cycle
   (equal-weighted periodogram: Student t with 2m degrees of freedom, Lazarus, Lewis, Stock and
   Watson, "HAR inference: recommendations for practice", JBES 2018: fixed-b critical values);
3. each ordinate prewhitened and recoloured by an AR(1) (Andrews and Monahan, Econometrica 1992)
   whose coefficient is bias-corrected (Kendall 1954), which undoes the bias of step 2 under strong
   autocorrelation; its own sampling error is taken off the degrees of freedom.

All of it assumes a level that stays. Where it drifts or shifts, the mean of a window says little
about the next one, and no variance within the window can tell how little; so that is tested.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

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
