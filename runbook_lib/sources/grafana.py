"""Dashboards as Grafana keeps them: read by its API or from a file, their queries made askable.

A panel shows red by the last threshold step at or below a value. Grafana saves thresholds with
panels that do not show them (``thresholdsStyle: off``, a fixed colour): those do not count.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import Field, JsonValue

from .. import site
from ..errors import SourceError
from . import wire
from .scope import Scope
from .wire import Wire

DURATIONS = {
    "__rate_interval": "5m",
    "__interval": "1m",
    "__interval_ms": "60000",
    "__range": "1h",
    "__range_s": "3600",
    "__range_ms": "3600000",
}
"""What Grafana computes from the screen, as fixed durations."""
ALL = ".+"
SAME_VALUES = frozenset({"organize", "merge", "sortBy", "renameByRegex", "labelsToFields", "limit"})
"""Transformations after which a panel still shows what its queries answered."""
MAX_DASHBOARD = 8_000_000
_QUIET = frozenset({"row", "text", "news", "dashlist", "welcome", "gettingstarted", "pluginlist"})
_VARIABLE = re.compile(r"\$(\w+)|\[\[(\w+?)(?::\w+)?\]\]|\$\{(\w+)(?:\.[^:}]+)?(?::[^}]+)?\}")
Values = Mapping[str, str | list[str]]


class _Datasource(Wire):
    type: str = ""


class _Target(Wire):
    expr: str = ""
    ref: Annotated[str, Field(validation_alias="refId")] = ""
    hide: bool = False
    datasource: _Datasource | str | None = None


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


class _Panel(Wire):
    id: int = 0
    title: str = ""
    type: str
    datasource: _Datasource | str | None = None
    targets: list[_Target] = []
    fields: Annotated[_Fields, Field(validation_alias="fieldConfig")] = _Fields()
    transformations: list[_Transformation] = []
    panels: list[_Panel] = []


class _Current(Wire):
    value: JsonValue = None


class _Variable(Wire):
    name: str
    type: str = ""
    query: JsonValue = None
    all_value: Annotated[str | None, Field(validation_alias="allValue")] = None
    current: _Current = _Current()


class _Templating(Wire):
    variables: Annotated[list[_Variable], Field(validation_alias="list")] = []


class _Dashboard(Wire):
    title: str
    panels: list[_Panel]
    templating: _Templating = _Templating()


class _Answer(Wire):
    dashboard: _Dashboard


class _Health(Wire):
    database: str
    version: str = ""


@dataclass(frozen=True)
class Query:
    """One query of a panel. ``expr`` is filled in; ``filled`` says by what, ``problem`` what is wrong."""

    ref: str
    expr: str
    filled: str
    problem: str = ""


@dataclass(frozen=True)
class Panel:
    """``steps`` are (from this value on, colour, is it red), ascending; none that show: empty.

    With a ``problem`` it cannot be judged.
    """

    title: str
    queries: tuple[Query, ...]
    steps: tuple[tuple[float, str, bool], ...] = ()
    problem: str = ""

    @property
    def can_be_red(self) -> bool:
        return any(red for _, _, red in self.steps)

    def is_red(self, value: float) -> bool:
        """Whether a value lies in a red step."""
        return [red for start, _, red in self.steps if start <= value][-1:] == [True]


@dataclass(frozen=True)
class Dashboard:
    """A dashboard's panels, those of collapsed rows too, without text and headings."""

    title: str
    panels: tuple[Panel, ...]


class Grafana:
    """One Grafana. Every method raises SourceError."""

    def __init__(self, scope: Scope, settings: site.Endpoint) -> None:
        self._scope, self._settings = scope, settings

    def health(self) -> str:
        """Its version, when it says that its database is well."""
        url = f"{self._settings.url}/api/health"
        answer = self._scope.http([wire.request(self._settings, "GET", url)])[0]
        found = wire.decode("grafana: health", wire.content("grafana: health", answer), _Health)
        if found.database != "ok":
            raise SourceError("grafana: health", f"expected database ok, got {found.database!r}")
        return found.version or "version unknown"

    def dashboards(self, uids: Iterable[str], given: Values) -> dict[str, Dashboard | SourceError]:
        """Dashboards by uid, at once; what failed holds its error."""
        asked = list(uids)
        url = f"{self._settings.url}/api/dashboards/uid/"
        requests = [wire.request(self._settings, "GET", url + quote(uid, safe="")) for uid in asked]
        found: dict[str, Dashboard | SourceError] = {}
        for uid, answer in zip(asked, self._scope.http(requests), strict=True):
            source = f"grafana: {uid}"
            try:
                body = wire.content(source, answer)
                found[uid] = _dashboard(wire.decode(source, body, _Answer).dashboard, given)
            except SourceError as error:
                found[uid] = error
        return found


def read_dashboard(text: bytes, source: str, given: Values) -> Dashboard:
    """A dashboard's JSON, as exported or as the API wraps it. Raises SourceError."""
    if len(text) > MAX_DASHBOARD:
        raise SourceError(source, f"expected at most {MAX_DASHBOARD} bytes, got {len(text)}")
    try:
        return _dashboard(wire.decode(source, text, _Answer).dashboard, given)
    except SourceError:
        return _dashboard(wire.decode(source, text, _Dashboard), given)


def _dashboard(found: _Dashboard, given: Values) -> Dashboard:
    values = {each.name: _value(each, given) for each in found.templating.variables}
    values |= {name: _joined(value) for name, value in given.items()}
    panels = [_panel(each, values) for each in _flat(found.panels) if each.type not in _QUIET]
    titles = [panel.title for panel in panels]
    # Its title is what a row and a waiver name a panel by.
    named = [
        replace(panel, title=f"{panel.title} (no. {number})")
        if titles.count(panel.title) > 1
        else panel
        for number, panel in enumerate(panels, start=1)
    ]
    return Dashboard(found.title, tuple(named))


def _flat(panels: Iterable[_Panel]) -> Iterator[_Panel]:
    for panel in panels:
        yield panel
        yield from _flat(panel.panels)


def _value(variable: _Variable, given: Values) -> str | None:
    """What stands for a variable; None when nothing does."""
    if variable.name in given:
        return _joined(given[variable.name])
    current: Any = variable.current.value
    if current in (None, "", []) and variable.type in ("constant", "textbox"):
        current = variable.query
    if current in ("$__all", ["$__all"]):
        return variable.all_value or ALL
    if variable.type == "interval" and str(current).startswith("$__auto"):
        return DURATIONS["__interval"]
    texts = [current] if isinstance(current, str) else current
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        return None
    return _joined(texts)


def _joined(value: str | list[str]) -> str:
    texts = [value] if isinstance(value, str) else value
    return texts[0] if len(texts) == 1 else f"({'|'.join(texts)})"


def _panel(panel: _Panel, values: Mapping[str, str | None]) -> Panel:
    title = panel.title or f"panel {panel.id}"
    shown = [target for target in panel.targets if not target.hide]
    queries = tuple(_query(target, panel, values) for target in shown)
    try:
        steps = _steps(panel)
    except ValueError as error:
        return Panel(title, queries, problem=str(error))
    return Panel(title, queries, steps, "" if queries else "expected a query, got none")


def _query(target: _Target, panel: _Panel, values: Mapping[str, str | None]) -> Query:
    used: dict[str, str] = {}
    missing: list[str] = []

    def fill(match: re.Match[str]) -> str:
        name = next(group for group in match.groups() if group)
        value = DURATIONS.get(name) or values.get(name)
        if name.isdigit():  # a group of label_replace
            return match[0]
        if value is None:
            missing.append(name)
            return match[0]
        used[name] = value
        return value

    expr = _VARIABLE.sub(fill, target.expr).strip()
    source = target.datasource or panel.datasource
    kind = source.type if isinstance(source, _Datasource) else ""
    problem = ""
    if kind not in ("", "prometheus", "datasource") or (
        isinstance(source, str) and source[:2] == "--"
    ):
        problem = f"expected a Prometheus query, got one of {kind or source}"
    elif not expr:
        problem = "expected a Prometheus query, got none"
    elif missing:
        problem = (
            f"expected a value of ${missing[0]}, got none; set dashboards.variables.{missing[0]}"
        )
    filled = ", ".join(f"${name} = {value}" for name, value in used.items())
    return Query(target.ref or "?", expr, filled, problem)


def _steps(panel: _Panel) -> tuple[tuple[float, str, bool], ...]:
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
