"""Grafana's dashboards: the queries of their panels made askable, and the colours of their values.

Understood are absolute thresholds, and mappings of values and ranges, which win over them. Whatever
else colours a panel is named in its ``problem``: a limit in the site takes its place.
Source: grafana/packages/grafana-data/src/{field,utils/valueMappings}, v11.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import Field, JsonValue

from .. import reach
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
MAX_DASHBOARD = 8_000_000
_QUIET = frozenset({"row", "text", "news", "dashlist", "welcome", "gettingstarted", "pluginlist"})
_GRAPHS = frozenset({"timeseries", "barchart", "trend"})
_LEGACY = frozenset({"singlestat", "table-old"})
_SAME_VALUES = frozenset(
    {"organize", "merge", "sortBy", "renameByRegex", "labelsToFields", "limit"}
)
"""Transformations after which a panel still shows what its queries answered."""
_BY_VALUE = frozenset({"thresholds", "mappings", "custom.cellOptions", "custom.thresholdsStyle"})
_VARIABLE = re.compile(r"\$(\w+)|\[\[(\w+?)(?::\w+)?\]\]|\$\{(\w+)(?:\.[^:}]+)?(?::[^}]+)?\}")
_TINT = re.compile(r"^(?:super-light|light|semi-dark|dark)-")
_FUNCTION = re.compile(r"(rgb|hsl)a?\(([^,]+,[^,]+,[^,)]+)(?:,[^)]*)?\)")
Values = Mapping[str, str | list[str]]
Shade = Literal["red", "orange", ""]


class _Templating(Wire):
    variables: Annotated[list[dict[str, JsonValue]], Field(validation_alias="list")] = []


class _Dashboard(Wire):
    title: str
    panels: list[JsonValue]
    templating: _Templating = _Templating()


class _Answer(Wire):
    dashboard: _Dashboard


class _Health(Wire):
    database: str


@dataclass(frozen=True)
class Query:
    """One query of a panel. ``expr`` is filled in; ``filled`` says by what, ``problem`` what is wrong."""

    ref: str
    expr: str
    filled: str
    problem: str = ""


@dataclass(frozen=True)
class Colour:
    """Values from ``low`` on, of a mapping up to ``high``, are shown in ``color``."""

    low: float
    high: float
    color: str
    shade: Shade


@dataclass(frozen=True)
class Panel:
    """``mappings`` win over ``steps``, ascending; with a ``problem`` its colours are not understood."""

    title: str
    queries: tuple[Query, ...] = ()
    steps: tuple[Colour, ...] = ()
    mappings: tuple[Colour, ...] = ()
    problem: str = ""

    @property
    def can_be_red(self) -> bool:
        return any(each.shade == "red" for each in (*self.mappings, *self.steps))

    def shade(self, value: float) -> Shade:
        """What a value is shown in: the first mapping that holds it, else the last step below it."""
        mapped = [each.shade for each in self.mappings if each.low <= value <= each.high]
        return (mapped or [each.shade for each in self.steps if each.low <= value][-1:] or [""])[0]


@dataclass(frozen=True)
class Dashboard:
    """A dashboard's panels, those of collapsed rows too, without text and headings."""

    title: str
    panels: tuple[Panel, ...]


def read_dashboard(text: bytes, source: str, given: Values) -> Dashboard:
    """A dashboard's JSON, as exported or as the API wraps it. Raises SourceError."""
    if len(text) > MAX_DASHBOARD:
        raise SourceError(source, f"expected at most {MAX_DASHBOARD} bytes, got {len(text)}")
    try:
        found = wire.decode(source, text, _Answer).dashboard
    except SourceError:
        found = wire.decode(source, text, _Dashboard)
    values = dict(map(_value, found.templating.variables))
    values |= {name: _joined(value) for name, value in given.items()}
    panels = list(_panels(found.panels, values))
    titles = [panel.title for panel in panels]
    # Its title is what a row and a waiver name a panel by.
    named = (
        replace(panel, title=f"{panel.title} (no. {number})")
        if titles.count(panel.title) > 1
        else panel
        for number, panel in enumerate(panels, start=1)
    )
    return Dashboard(found.title, tuple(named))


def _at(value: Any, *keys: str, kind: type = dict) -> Any:
    """What nested mappings hold, of that kind; an empty one for nothing. Raises ValueError."""
    for key in keys:
        value = (value or {}).get(key)
        wanted = kind if key == keys[-1] else dict
        if value is not None and not isinstance(value, wanted):
            raise ValueError(f"{key}: expected a {wanted.__name__}, got {value!r:.80}")
    return kind() if value is None else value


def _each(value: Any, *keys: str) -> list[dict[str, Any]]:
    return [each if isinstance(each, dict) else {} for each in _at(value, *keys, kind=list)]


def _panels(found: Iterable[Any], values: Mapping[str, str | None]) -> Iterator[Panel]:
    """Each panel by itself: one that cannot be read is no other's problem."""
    for panel in found:
        title, queries = "a panel", tuple[Query, ...]()
        try:
            if not isinstance(panel, dict):
                raise TypeError(f"expected an object, got {panel!r:.80}")
            title = _at(panel, "title", kind=str) or f"panel {panel.get('id')}"
            if (kind := _at(panel, "type", kind=str)) not in _QUIET:
                shown = (each for each in _each(panel, "targets") if not each.get("hide"))
                queries = tuple(_query(each, panel, values) for each in shown)
                defaults = _at(panel, "fieldConfig", "defaults")
                yield Panel(title, queries, _steps(panel, kind, defaults), _mappings(defaults))
            yield from _panels(_at(panel, "panels", kind=list), values)
        except (TypeError, ValueError) as error:
            yield Panel(title, queries, problem=str(error))


def _steps(panel: Any, kind: str, defaults: Any) -> tuple[Colour, ...]:
    """The thresholds that a panel shows. Raises ValueError for colours that we cannot apply.

    Grafana saves thresholds with panels that do not show them: those do not count.
    """
    color = _at(defaults, "color", "mode", kind=str)
    if panel.get("thresholds") or kind in _LEGACY:
        raise ValueError("expected thresholds of Grafana 8 or later, got a legacy panel's")
    if color.startswith("continuous-"):
        raise ValueError(f"expected colours by thresholds, got the scheme {color}")
    overrides = _each(panel, "fieldConfig", "overrides")
    for each in (each for override in overrides for each in _each(override, "properties")):
        name, value = each.get("id"), each.get("value")
        fixed = isinstance(value, dict) and value.get("mode") in ("fixed", "palette-classic")
        if name in _BY_VALUE or (name == "color" and not fixed):
            raise ValueError(f"expected colours of the whole panel, got an override of {name}")
    for change in _each(panel, "transformations"):
        if (by := change.get("id")) not in _SAME_VALUES and not change.get("disabled"):
            raise ValueError(f"expected the queries' own values, got them changed by {by}")
    if kind in _GRAPHS:
        style = _at(defaults, "custom", "thresholdsStyle", "mode", kind=str)
        shown = style != "off" or color == "thresholds"
    else:
        shown = color in ("", "thresholds")
    thresholds = _at(defaults, "thresholds") if shown else {}
    calcs = _at(panel, "options", "reduceOptions", "calcs", kind=list)
    others = [each for each in calcs if each not in ("last", "lastNotNull")]
    if others and (thresholds or _each(defaults, "mappings")):
        raise ValueError(f"expected the newest value shown, got {others[0]}")
    if (mode := thresholds.get("mode", "absolute")) != "absolute":
        raise ValueError(f"expected absolute thresholds, got {mode}")
    steps = [
        (_number(each.get("value"), -inf), _at(each, "color", kind=str))
        for each in _each(thresholds, "steps")
    ]
    if any(later[0] <= before[0] for before, later in pairwise(steps)):
        raise ValueError("expected ascending thresholds, got others")
    return tuple(Colour(start, inf, color, _shade(color)) for start, color in steps)


def _mappings(defaults: Any) -> tuple[Colour, ...]:
    """Mappings that colour, in order. Raises ValueError for what we cannot apply."""
    found: list[Colour] = []
    for each in _each(defaults, "mappings"):
        kind, options = each.get("type"), _at(each, "options")
        if kind == "regex" and _at(options, "result", "color", kind=str):
            raise ValueError("expected mappings of values and ranges, got one by an expression")
        spans = [(options.get("from"), options.get("to"), options)] if kind == "range" else []
        if kind == "value":
            spans = [(text, text, {"result": options[text]}) for text in options]
        for low, high, held in spans:
            if color := _at(held, "result", "color", kind=str):
                shade = _shade(color)
                with suppress(ValueError):  # a text: no number is shown by it
                    bounds = _number(low, -inf), _number(high, inf)
                    found.append(Colour(*bounds, color, shade))
    return tuple(found)


def _number(value: Any, otherwise: float) -> float:
    """A number, also as text; ``otherwise`` for none. Raises ValueError."""
    try:
        return otherwise if value is None else float(value)
    except TypeError as error:
        raise ValueError(f"expected a number, got {value!r:.80}") from error


def _shade(color: str) -> Shade:
    """Red, orange or another, by hue: Grafana's names and those of CSS. Raises ValueError."""
    from PIL import ImageColor

    name = _TINT.sub("", color.strip().lower())
    if found := _FUNCTION.fullmatch(name):
        name = f"{found[1]}({found[2]})"
    if name in ("text", "transparent"):
        return ""
    try:
        rgb = ImageColor.getrgb(name)[:3]
    except ValueError as error:
        raise ValueError(f"expected a colour, got {color!r}") from error
    hue, lightness, saturation = colorsys.rgb_to_hls(*(part / 255 for part in rgb))
    if saturation <= 0.3 or not 0.1 < lightness < 0.9:
        return ""
    return "red" if hue < 0.04 or hue > 0.94 else "orange" if hue < 0.12 else ""


# --- variables and queries ----------------------------------------------------------------------


def _value(variable: Any) -> tuple[str, str | None]:
    """A variable's name, and what a dashboard was saved with for it; None for nothing."""
    name, kind = str(variable.get("name")), variable.get("type")
    current = held.get("value") if isinstance(held := variable.get("current"), dict) else None
    if current in (None, "", []) and kind in ("constant", "textbox"):
        current = variable.get("query")
    if current in ("$__all", ["$__all"]):
        current = variable.get("allValue") or ".+"
    elif kind == "interval" and str(current).startswith("$__auto"):
        current = DURATIONS["__interval"]
    texts = [current] if isinstance(current, str) else current
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        return name, None
    return name, _joined(texts)


def _joined(value: str | list[str]) -> str:
    texts = [value] if isinstance(value, str) else value
    return texts[0] if len(texts) == 1 else f"({'|'.join(texts)})"


def _query(target: Any, panel: Any, values: Mapping[str, str | None]) -> Query:
    used: dict[str, str] = {}
    missing: list[str] = []

    def fill(match: re.Match[str]) -> str:
        name = next(filter(None, match.groups()))
        value = DURATIONS.get(name) or values.get(name)
        if name.isdigit():  # a group of label_replace
            return match[0]
        if value is None:
            missing.append(name)
            return match[0]
        used[name] = value
        return value

    expr = _VARIABLE.sub(fill, _at(target, "expr", kind=str)).strip()
    source = target.get("datasource") or panel.get("datasource")
    kind = source.get("type", "") if isinstance(source, dict) else ""
    problem = "" if expr else "expected a Prometheus query, got none"
    if kind not in ("", "prometheus", "datasource") or str(source).startswith("--"):
        problem = f"expected a Prometheus query, got one of {kind or source}"
    elif missing:
        cure = f"set dashboards.variables.{missing[0]}"
        problem = f"expected a value of ${missing[0]}, got none; {cure}"
    filled = ", ".join(f"${name} = {value}" for name, value in used.items())
    return Query(_at(target, "refId", kind=str) or "?", expr, filled, problem)


class Grafana:
    """One Grafana. Every method raises SourceError."""

    def __init__(self, scope: Scope, settings: reach.Endpoint) -> None:
        self._scope, self._settings = scope, settings

    def dashboards(self, uids: Iterable[str], given: Values) -> dict[str, Dashboard | SourceError]:
        """Dashboards by uid, at once; what failed holds its error. Its database must be well."""
        url, source = f"{self._settings.url}/api", "grafana: health"
        [answer] = self._scope.http([wire.request(self._settings, "GET", f"{url}/health")])
        health = wire.decode(source, wire.content(source, answer), _Health)
        if health.database != "ok":
            raise SourceError(source, f"expected database ok, got {health.database!r}")
        asked = [f"{url}/dashboards/uid/{quote(uid, safe='')}" for uid in uids]
        answers = self._scope.http([wire.request(self._settings, "GET", each) for each in asked])
        found: dict[str, Dashboard | SourceError] = {}
        for uid, answer in zip(uids, answers, strict=True):
            source = f"grafana: {uid}"
            try:
                found[uid] = read_dashboard(wire.content(source, answer), source, given)
            except SourceError as error:
                found[uid] = error
        return found
