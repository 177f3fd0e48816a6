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
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BLOCKS = 240
MIN_POINTS = 20


@dataclass(frozen=True)
class LongRun:
    """Precision of the means of S series; every array has shape (S,).

    ``variance`` is that of the mean (unit squared); ``freedom`` the degrees of freedom of that
    variance; ``effective`` how many independent samples would give it, at most ``blocks``.
    """

    variance: Floats
    freedom: Floats
    effective: Floats
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
    ordinates = max(4, count // 20)
    bins = np.arange(1, 2 * ordinates + 2)
    bins = bins[bins % cycles != 0] if cycles else bins
    bins = bins[bins <= count // 2][:ordinates]
    power = np.abs(np.fft.rfft(blocks)[..., bins]) ** 2 / count

    variance = np.mean(blocks * blocks, axis=-1)
    safe = np.where(variance > 0, variance, 1.0)
    phi = np.sum(blocks[..., 1:] * blocks[..., :-1], axis=-1) / count / safe
    # No sharpening by negative autocorrelation: a lucky anti-correlated stretch proves nothing.
    phi = np.clip(phi + (1 + 3 * phi) / count, 0.0, 1 - 1 / count)
    bend = 2 - 2 * np.cos(2 * np.pi * bins / count)
    density = np.mean(power * (1 + bend * (phi / (1 - phi) ** 2)[..., None]), axis=-1)
    known = np.where(density > 0, density, 1.0)

    slope = np.mean(power * bend, axis=-1) * (1 + phi) / (1 - phi) ** 3 / known
    freedom = 2 / (1 / len(bins) + slope**2 * (1 - phi**2) / count)
    effective = np.where(density > 0, np.minimum(count * variance / known, count), 0.0)
    return LongRun(density / count, freedom, effective, count)


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
