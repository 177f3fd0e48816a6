"""Grafana's dashboards: the queries of their panels made askable, and the colours of their values.

Understood are absolute thresholds, and mappings of values and ranges, which win over them. Whatever
else colours a panel is named in its ``problem``: a limit in the site takes its place.
Source: grafana/packages/grafana-data/src/{field,utils/valueMappings}, v11.
"""

import colorsys
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import AliasPath, Field, JsonValue, model_validator

from ..errors import Answers, SourceError
from . import wire
from .wire import Wire

DURATIONS = {
    "__rate_interval": "5m", "__interval": "1m", "__interval_ms": "60000",
    "__range": "1h", "__range_s": "3600", "__range_ms": "3600000",
}  # fmt: skip
"""What Grafana computes from the screen, as fixed durations."""
MAX_DASHBOARD = 8_000_000
_WORDS = (
    "row text news dashlist welcome gettingstarted pluginlist",
    "stat gauge bargauge state-timeline status-history table",
    "graph timeseries barchart trend heatmap histogram piechart candlestick xychart",
    "organize merge sortBy renameByRegex labelsToFields limit",
    """unit decimals min max noValue links displayName displayNameFromDS description actions path
    nullValueMode filterable writeable fieldMinMax unitScale""",
    """align inspect width minWidth hidden hideFrom wrapText wrapHeaderText tooltip footer drawStyle
    show lineInterpolation lineWidth lineStyle pointShape pointStrokeWidth pointSize showValues
    showPoints barAlignment barWidthFactor barMaxWidth fillOpacity fillBelowTo spanNulls insertNulls
    stacking transform scaleDistribution axisPlacement axisLabel axisWidth axisGridShow
    axisColorMode axisBorderShow axisCenteredZero axisSoftMin axisSoftMax neutral""",
    """id title type description datasource targets gridPos options fieldConfig pluginVersion links key
    transformations transparent repeat repeatDirection repeatPanelId repeatedByRow maxPerRow interval
    timeFrom hideTimeOverride maxDataPoints cacheTimeout queryCachingTTL libraryPanel panels collapsed
    editable error scopedVars iteration height span isNew""",
    "value matcher seriesBy fixedColor type id op text index",
    """defaults overrides color thresholds mappings custom mode steps options from to result match icon
    pattern properties __systemRef calcs fields values limit gradientMode thresholdsStyle cellOptions
    displayMode""",
)
_QUIET, _VALUES, _GRAPHS, _SAME, _FIELD, _STYLE, _PANEL, _SAID, _KNOWN = map(str.split, _WORDS)
"""Panels without data, of coloured values, of graphs; transformations that change no value; keys of a
field and of its style that colour nothing, of a panel, of leaves, and of what colours. Another may.
"""
_PLAIN = {*_FIELD, *(f"custom.{name}" for name in _STYLE)}
_OPAQUE = {*_FIELD, *_SAID}
_OLD = ("graph", "heatmap")  # of these, panels of Grafana 7 hold what is never drawn now
_SCHEMES = ("", "thresholds", "fixed", "shades", "palette-classic", "palette-classic-by-name")
_VARIABLE = re.compile(r"\$(\w+)|\[\[(\w+?)(?::\w+)?\]\]|\$\{(\w+)(?:\.[^:}]+)?(?::[^}]+)?\}")
_TINT = re.compile(r"^(?:super-light|light|semi-dark|dark)-")
_FUNCTION = re.compile(r"(rgb|hsl)a?\(([^,]+,[^,]+,[^,)]+)(?:,[^)]*)?\)")
_STEPLESS = re.compile(r"(\[(?:[0-9]+[smhdwy])+):\]")
"""A subquery at the server's own step, which the parser of PromQL cannot print."""
Values = Mapping[str, str | list[str]]
Shade = Literal["red", "orange", ""]


class _Dashboard(Wire):
    title: str
    panels: list[JsonValue]
    variables: Annotated[
        list[dict[str, JsonValue]] | None, Field(validation_alias=AliasPath("templating", "list"))
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return value.get("dashboard", value) if isinstance(value, dict) else value


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
    """Values from ``low`` on, of a mapping up to ``high``, are shown in ``color``, if in any."""

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
        mapped = [each for each in self.mappings if each.low <= value <= each.high]
        below = [each for each in self.steps if each.low <= value]
        coloured = (each.shade for each in (*mapped[:1], *below[-1:]) if each.color)
        return next(coloured, "")


@dataclass(frozen=True)
class Dashboard:
    """A dashboard's panels, those of collapsed rows too, without text and headings."""

    title: str
    panels: tuple[Panel, ...]


def read_dashboard(text: bytes, source: str, given: Values) -> Dashboard:
    """A dashboard's JSON, as exported or as the API wraps it. Raises SourceError."""
    if len(text) > MAX_DASHBOARD:
        raise SourceError(source, f"expected at most {MAX_DASHBOARD} bytes, got {len(text)}")
    found = wire.decode(source, text, _Dashboard)
    values = dict(map(_value, found.variables or []))
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
    found: list[Any] = _at(value, *keys, kind=list)
    if odd := [each for each in found if not isinstance(each, dict)]:
        raise ValueError(f"{keys[-1]}: expected objects, got {odd[0]!r:.80}")
    return found


def _strange(value: Any, inside: str = "") -> Iterator[str]:
    """Keys that say something and are not understood there."""
    for each in value if isinstance(value, list) else [value] if isinstance(value, dict) else ():
        for key, held in each.items() if isinstance(each, dict) else ():
            if inside == "options" and isinstance(held, dict):  # of a mapping: its key is a value
                yield from _strange(held)
            elif held in (None, "", False, [], {}) or key in _OPAQUE:
                continue
            elif key not in _KNOWN and not (inside == "custom" and key in _STYLE):
                yield key
            elif inside != "custom":
                yield from _strange(held, key)


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
                yield Panel(title, queries, *_colours(panel, kind))
            yield from _panels(_at(panel, "panels", kind=list), values)
        except (TypeError, ValueError) as error:
            yield Panel(title, queries, problem=str(error))


def _colours(panel: Any, kind: str) -> tuple[tuple[Colour, ...], tuple[Colour, ...]]:
    """The thresholds and mappings that a panel shows. Raises ValueError for what we cannot apply.

    Grafana saves thresholds with panels that do not show them: those do not count.
    """
    fields, options = _at(panel, "fieldConfig"), _at(panel, "options")
    defaults, reduced = _at(fields, "defaults"), _at(options, "reduceOptions")
    if panel.get("thresholds"):
        raise ValueError("expected thresholds of Grafana 8 or later, got a legacy panel's")
    if kind not in ["", *_VALUES, *_GRAPHS]:
        raise ValueError(f"expected a panel whose colours we know, got {kind}")
    if kind == "stat" and options.get("colorMode") == "none":
        return (), ()
    strange = [key for key in panel if panel[key] and key not in _PANEL and kind not in _OLD]
    if strange := [*strange, *_strange(fields), *_strange(reduced)]:
        raise ValueError(f"expected a key we know, got {strange[0]}")
    custom = _at(defaults, "custom")
    if (scheme := _at(defaults, "color", "mode", kind=str)) not in _SCHEMES:
        raise ValueError(f"expected colours by thresholds, got the scheme {scheme}")
    overrides = (_each(each, "properties") for each in _each(fields, "overrides"))
    for each in (each for override in overrides for each in override):
        name, value = each.get("id"), each.get("value")
        fixed = isinstance(value, dict) and value.get("mode") in ("fixed", *_SCHEMES[3:])
        if name not in _PLAIN and not (name == "color" and fixed):
            raise ValueError(f"expected colours of the whole panel, got an override of {name}")
    for change in _each(panel, "transformations"):
        if (by := change.get("id")) not in _SAME and not change.get("disabled"):
            raise ValueError(f"expected the queries' own values, got them changed by {by}")
    if kind == "table":
        cell = _at(custom, "cellOptions", "type", kind=str) or _at(custom, "displayMode", kind=str)
        shown = cell not in ("", "auto", "json-view", "image")
    elif kind in _GRAPHS:
        drawn = _at(custom, "thresholdsStyle", "mode", kind=str) not in ("", "off")
        graded = custom.get("gradientMode") == "scheme" and scheme != "fixed"
        shown = drawn or graded or scheme == "thresholds"
    else:
        shown = scheme in ("", "thresholds")
    steps = _steps(_at(defaults, "thresholds")) if shown else ()
    mappings = _mappings(defaults) if shown or kind != "table" else ()
    calcs = _at(reduced, "calcs", kind=list)
    others = [each for each in calcs if each not in ("last", "lastNotNull")]
    if (others or reduced.get("values")) and (steps or mappings):
        got = others[0] if others else "all values"
        raise ValueError(f"expected the newest value shown, got {got}")
    return steps, mappings


def _steps(thresholds: dict[str, Any]) -> tuple[Colour, ...]:
    """Thresholds in order; what is below the first is shown as it is. Raises ValueError."""
    found = _each(thresholds, "steps")
    if (mode := thresholds.get("mode") or "absolute") != "absolute":
        raise ValueError(f"expected absolute thresholds, got {mode}")
    starts = [_number(each.get("value"), -inf) for each in found]
    if not all(later > before for before, later in pairwise(starts)):
        raise ValueError("expected ascending thresholds, got others")
    colors = [_at(each, "color", kind=str) for each in found]
    lows = [-inf, *starts[1:]]
    return tuple(Colour(low, inf, c, _shade(c)) for low, c in zip(lows, colors, strict=False))


def _mappings(defaults: Any) -> tuple[Colour, ...]:
    """Mappings in order, those without a colour too. Raises ValueError for what we cannot apply."""
    found: list[Colour] = []
    for each in (mappings := _each(defaults, "mappings")):
        kind, options = each.get("type"), _at(each, "options")
        spans = [(text, text, options[text]) for text in options] if kind == "value" else []
        if kind in ("range", "special", "regex"):
            spans = [(options.get("from"), options.get("to"), options.get("result"))]
        elif kind not in ("value", 1, 2):  # by number Grafana 7 wrote them, without colours
            raise ValueError(f"expected a mapping we know, got {kind!r:.80}")
        for low, high, result in spans:
            color = _at({"result": result}, "result", "color", kind=str)
            if kind == "regex" and (color or len(mappings) > 1):
                raise ValueError("expected mappings of values and ranges, got one by an expression")
            shade = _shade(color) if color else ""
            if kind in ("value", "range"):
                with suppress(ValueError):  # a text: no number is shown by it
                    found.append(Colour(_number(low, -inf), _number(high, inf), color, shade))
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
    text = _at(target, "expr", kind=str)
    names = [next(filter(None, found)) for found in _VARIABLE.findall(text)]
    wanted = [name for name in names if not name.isdigit()]  # else a group of label_replace
    used = {n: value for n in wanted if (value := DURATIONS.get(n) or values.get(n)) is not None}
    missing = [name for name in wanted if name not in used]
    expr = _VARIABLE.sub(lambda m: used.get(next(filter(None, m.groups())), m[0]), text).strip()
    expr = _STEPLESS.sub(rf"\1:{DURATIONS['__interval']}]", expr)
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


class Grafana(wire.Service):
    """One Grafana. Every method raises SourceError."""

    def dashboards(self, uids: Iterable[str], given: Values) -> Answers[str, Dashboard]:
        """Dashboards by uid, at once. Its database must be well."""
        source = "grafana: health"
        body = wire.ask(self._scope, source, self._get("api/health"))
        health = wire.decode(source, body, _Health)
        if health.database != "ok":
            raise SourceError(source, f"expected database ok, got {health.database!r}")

        def read(uid: str) -> Dashboard:
            source = f"grafana: {uid}"
            return read_dashboard(wire.content(source, got[uid]), source, given)

        asked = [self._get(f"api/dashboards/uid/{quote(uid, safe='')}") for uid in uids]
        got = dict(zip(uids, self._scope.http(asked), strict=True))
        return Answers(read, uids)
