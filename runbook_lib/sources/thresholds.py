"""The colours by which a panel says that something is wrong.

A panel shows red by the last threshold step at or below a value. Grafana saves thresholds with
panels that do not show them (``thresholdsStyle: off``, a fixed colour): those do not count.
"""

from __future__ import annotations

import colorsys
import re
from itertools import pairwise
from math import inf
from typing import Annotated, Literal

from pydantic import Field

from .wire import Wire

SAME_VALUES = frozenset({"organize", "merge", "sortBy", "renameByRegex", "labelsToFields", "limit"})
"""Transformations after which a panel still shows what its queries answered."""


class _Step(Wire):
    color: str
    value: float | None = None


class _Thresholds(Wire):
    mode: Literal["absolute", "percentage"] = "absolute"
    steps: list[_Step] = []


class _Mode(Wire):
    mode: str = ""


class _Custom(Wire):
    style: Annotated[_Mode | None, Field(validation_alias="thresholdsStyle")] = None


class _Defaults(Wire):
    thresholds: _Thresholds | None = None
    min: float | None = None
    max: float | None = None
    color: _Mode | None = None
    custom: _Custom | None = None


class _Property(Wire):
    id: str


class _Override(Wire):
    properties: list[_Property] = []


class _Transformation(Wire):
    id: str
    disabled: bool = False


class _Fields(Wire):
    defaults: _Defaults = _Defaults()
    overrides: list[_Override] = []


class Shown(Wire):
    """What of a panel decides how its values are shown."""

    type: str
    fields: Annotated[_Fields, Field(validation_alias="fieldConfig")] = _Fields()
    transformations: list[_Transformation] = []


def read_steps(panel: Shown) -> tuple[tuple[float, str, bool], ...]:
    """The thresholds a panel shows. Raises ValueError for what we cannot apply."""
    defaults = panel.fields.defaults
    if any(each.id == "thresholds" for o in panel.fields.overrides for each in o.properties):
        raise ValueError("expected thresholds of the whole panel, got an override of a field's")
    for each in panel.transformations:
        if each.id not in SAME_VALUES and not each.disabled:
            raise ValueError(f"expected the queries' own values, got them changed by {each.id}")
    style = defaults.custom.style.mode if defaults.custom and defaults.custom.style else ""
    color = defaults.color.mode if defaults.color else ""
    graph = panel.type in ("timeseries", "barchart", "trend")
    shows = style != "off" if graph else color in ("", "thresholds")
    if defaults.thresholds is None or not shows:
        return ()
    scale, offset = 1.0, 0.0
    if defaults.thresholds.mode == "percentage":
        if defaults.min is None or defaults.max is None:
            raise ValueError("expected min and max with thresholds in percent, got none")
        scale, offset = (defaults.max - defaults.min) / 100, defaults.min
    steps = [
        (
            -inf if step.value is None else step.value * scale + offset,
            step.color,
            _is_red(step.color),
        )
        for step in defaults.thresholds.steps
    ]
    if any(later[0] <= before[0] for before, later in pairwise(steps)):
        raise ValueError("expected ascending thresholds, got others")
    return tuple(steps)


def _is_red(color: str) -> bool:
    """Grafana's names, ``#rrggbb`` and ``rgb(...)``; orange is no red."""
    if color.endswith("red"):
        return True
    if (
        found := re.fullmatch(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})\w*", color)
    ) is not None:
        parts = [int(part, 16) for part in found.groups()]
    elif (found := re.match(r"rgba?\((\d+), *(\d+), *(\d+)", color)) is not None:
        parts = [int(part) for part in found.groups()]
    else:
        return False
    hue, lightness, saturation = colorsys.rgb_to_hls(*(part / 255 for part in parts))
    return (hue < 0.04 or hue > 0.94) and saturation > 0.3 and 0.1 < lightness < 0.9
