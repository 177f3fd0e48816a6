"""Dashboards as Grafana keeps them, and their queries made askable."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field, JsonValue

from ..errors import SourceError
from . import wire
from .thresholds import Shown, read_steps
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


class _Panel(Shown):
    id: int = 0
    title: str = ""
    datasource: _Datasource | str | None = None
    targets: list[_Target] = []
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


def read_dashboard(text: bytes, source: str, given: Values) -> Dashboard:
    """A dashboard's JSON, as exported or as the API wraps it. Raises SourceError."""
    if len(text) > MAX_DASHBOARD:
        raise SourceError(source, f"expected at most {MAX_DASHBOARD} bytes, got {len(text)}")
    try:
        return read_answer(text, source, given)
    except SourceError:
        return _dashboard(wire.decode(source, text, _Dashboard), given)


def read_answer(body: bytes, source: str, given: Values) -> Dashboard:
    """A dashboard as the API wraps it. Raises SourceError."""
    return _dashboard(wire.decode(source, body, _Answer).dashboard, given)


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
        steps = read_steps(panel)
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
