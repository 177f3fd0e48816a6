"""Seeded noise that depends on the instant alone, so that windows that overlap agree."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from ..arrays import Floats

NOISE_STEP_S = 60.0


def noise(seed: int, key: str, at: Floats, memory: float = 0.6) -> Floats:
    """A stationary AR(1) series of unit variance on a minute grid, read off at any instants.

    The value depends on seed, key and instant alone. Times in seconds.
    """
    grid = np.floor(at / NOISE_STEP_S).astype(np.int64)
    first, last = int(grid.min()), int(grid.max())
    weights = memory ** np.arange(32) * np.sqrt(1.0 - memory**2)
    series = np.convolve(_normals(seed, key, first - 31, last), weights, mode="valid")
    return series[grid - first]


def _normals(seed: int, key: str, first: int, last: int) -> Floats:
    """Independent standard normals for the integers first..last (counter based)."""
    salt = int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:8], "big")
    index = np.arange(first, last + 1, dtype=np.int64).astype(np.uint64)
    halves = [_uniforms(index * np.uint64(2) + np.uint64(half), salt) for half in (0, 1)]
    radius = np.sqrt(-2.0 * np.log(halves[0]))
    normals: Floats = radius * np.cos(2.0 * np.pi * halves[1])
    return normals


def _uniforms(counter: npt.NDArray[np.uint64], salt: int) -> Floats:
    """The splitmix64 hash of each counter as a float in (0, 1)."""
    value = counter * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    uniform: Floats = ((value >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    return uniform
