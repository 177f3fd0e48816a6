"""Colours and dashes of the figures: told apart in grey, and by the colour-blind."""

from __future__ import annotations

from typing import Any

BLUE, RED, GREY, MANY, LIGHT = "#0072b2", "#d55e00", "#595959", "#a6a6a6", "#e8e8e8"
LINES: tuple[tuple[str, Any], ...] = (
    ("#000000", "-"),
    (BLUE, (0, (5, 1.5))),
    ("#e69f00", (0, (6, 1.5, 1, 1.5))),
    ("#009e73", (0, (1, 1))),
    ("#56b4e9", (0, (9, 2))),
    ("#cc79a7", (0, (3, 1, 1, 1, 1, 1))),
)
HATCH = "#bfbfbf"
PALETTE = ("#ffffff", LIGHT, HATCH, MANY, GREY, *(colour for colour, _ in LINES), RED)
