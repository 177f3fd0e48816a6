"""The dashboards of the four topics: every panel asked, fresh, and in no red step.

A panel that shows no thresholds is held to the limits of the catalogue's metrics that read the same
series; where there are none it must have fresh data, but cannot make its topic's proof.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf, isnan
from typing import get_args

from ..context import Context
from ..errors import ParameterError, SourceError
from ..metrics import catalogue
from ..metrics.catalogue import Catalogue, Metric, Range, resolve
from ..outcomes import Row, check_row, unknown_row, value_text
from ..site import Topic
from ..sources.dashboards import Dashboard, Panel, Query, read_dashboard
from ..sources.grafana import Grafana
from ..sources.vector import Sample, Vector
from ..strict import project_path

EARLIER = "1h"  # where samples are looked for that are too old to count
_SUFFIX = re.compile(r"_(?:bucket|sum|count|total)$")
Answers = Mapping[str, Vector | SourceError]


@dataclass(frozen=True)
class Asked:
    """What Prometheus says of all queries and selectors, and which selectors ended lately."""

    at: datetime
    max_age: timedelta
    values: Answers
    newest: Answers
    earlier: Answers


def judge(context: Context, catalogue: Catalogue) -> list[Row]:
    """A row per panel, or per query of one that is not green, and one per topic."""
    settings = context.site.dashboards
    rows = [
        unknown_row(topic, "dashboards", "named", f"none; set dashboards.topics.{topic}")
        for topic in get_args(Topic)
        if topic not in settings.topics
    ]
    wanted = dict.fromkeys(ref for refs in settings.topics.values() for ref in refs)
    found: dict[str, Dashboard] = {}
    for ref, dashboard in _read(context, list(wanted)).items():
        if isinstance(dashboard, SourceError):
            rows.append(unknown_row(ref, "dashboard", "readable", dashboard.problem))
        elif not dashboard.panels:
            rows.append(unknown_row(ref, "dashboard", "at least one panel", "none"))
        else:
            found[ref] = dashboard
    judged = _panels(context, catalogue, found)
    for topic, refs in settings.topics.items():
        panels = [each for ref in refs for each in judged.get(ref, [])]
        rows.append(_topic(topic, panels))
    return rows + [row for ref in found for _, panel in judged[ref] for row in panel]


def _topic(topic: str, panels: list[tuple[bool, list[Row]]]) -> Row:
    """Whether a topic could be red at all; its panels' own rows say whether it is."""
    armed = sum(can for can, _ in panels)
    what = "panels that can be red"
    if not armed:
        return unknown_row(topic, what, "at least 1", f"0 of {len(panels)}; give one thresholds")
    return check_row(topic, what, "at least 1", f"{armed} of {len(panels)}", ok=True)


def _read(context: Context, refs: list[str]) -> dict[str, Dashboard | SourceError]:
    settings = context.site.dashboards
    found: dict[str, Dashboard | SourceError] = {}
    uids = [ref for ref in refs if not ref.endswith(".json")]
    for ref in (ref for ref in refs if ref.endswith(".json")):
        try:
            text = context.scope.read(project_path(ref))
            found[ref] = read_dashboard(text, ref, settings.variables)
        except SourceError as error:
            found[ref] = error
    if uids:
        try:
            found |= _grafana(context).dashboards(uids, settings.variables)
        except SourceError as error:
            found |= dict.fromkeys(uids, error)
    return found


def _grafana(context: Context) -> Grafana:
    """The site's Grafana, in health. Raises SourceError."""
    if context.site.dashboards.grafana is None:
        raise SourceError("site", "expected dashboards.grafana for a uid, got none; set it")
    grafana = Grafana(context.scope, context.site.dashboards.grafana)
    grafana.health()
    return grafana


def _panels(
    context: Context, catalogue: Catalogue, dashboards: Mapping[str, Dashboard]
) -> dict[str, list[tuple[bool, list[Row]]]]:
    """Per dashboard and panel: whether it can be red, and its rows."""
    narrowed: dict[str, str | ValueError] = {}
    for dashboard in dashboards.values():
        for query in (query for panel in dashboard.panels for query in panel.queries):
            if not query.problem:
                narrowed[query.expr] = _narrow(query.expr, context.matchers)
    asked = _ask(context, [expr for expr in narrowed.values() if isinstance(expr, str)])
    limits = _Limits(context, catalogue)

    def judged(dashboard: Dashboard, panel: Panel) -> tuple[bool, list[Row]]:
        subject = f"{dashboard.title}: {panel.title}"
        if panel.problem:
            return False, [unknown_row(subject, "panel", "one we can judge", panel.problem)]
        rows = [row for q in panel.queries for row in _query(subject, panel, q, narrowed, asked)]
        if not panel.can_be_red:
            own = [narrowed.get(query.expr) for query in panel.queries]
            held = limits.rows(subject, [expr for expr in own if isinstance(expr, str)])
            return bool(held), [*rows, *held]
        return True, rows

    return {ref: [judged(each, panel) for panel in each.panels] for ref, each in dashboards.items()}


def _narrow(expr: str, matchers: Mapping[str, str]) -> str | ValueError:
    try:
        return catalogue.inject(catalogue.check(expr), matchers, beside=True)
    except ValueError as error:
        return error


def _ask(context: Context, exprs: list[str]) -> Asked:
    """Every query and the age of every selector, concurrently."""
    prometheus, at = context.prometheus, context.at
    values = prometheus.instants(exprs, at)
    selectors = list(dict.fromkeys(s for expr in exprs for s in catalogue.selectors(expr)))
    newest = prometheus.newest(selectors, at)
    silent = [s for s, found in newest.items() if isinstance(found, Vector) and not found.samples]
    probes = {s: f"present_over_time({s}[{EARLIER}])" for s in silent}
    answers = prometheus.instants(probes.values(), at)
    earlier = {selector: answers[probe] for selector, probe in probes.items()}
    max_age = timedelta(seconds=context.site.dashboards.max_age_s)
    return Asked(at, max_age, values, newest, earlier)


def _query(
    subject: str, panel: Panel, query: Query, narrowed: Mapping[str, str | ValueError], asked: Asked
) -> list[Row]:
    what = f"query {query.ref}" + (f" ({query.filled})" if query.filled else "")
    expr = query.problem or narrowed[query.expr]
    if query.problem or isinstance(expr, ValueError):
        return [unknown_row(subject, what, "a query we can ask", str(expr))]
    try:
        samples, age = _fresh(expr, asked)
    except SourceError as error:
        return [unknown_row(subject, what, "fresh data", error.problem)]
    expected = f"fresh data, {_allowed(panel)}"
    if red := [sample for sample in samples if panel.is_red(sample.value)]:
        return [check_row(subject, what, expected, _shown(sample), ok=False) for sample in red]
    text = f"{len(samples)} series, {age.total_seconds():.0f} s old"
    return [check_row(subject, what, expected, text, ok=True)]


def _fresh(expr: str, asked: Asked) -> tuple[tuple[Sample, ...], timedelta]:
    """The values of a query and the age of its oldest source. Raises SourceError without them.

    A selector without samples counts only when none has any: in ``a or b`` one is enough, in
    ``a / b`` the answer itself is empty.
    """
    newest: list[datetime] = []
    for selector in catalogue.selectors(expr):
        stamps = _whole(asked.newest[selector]).samples
        if stamps:
            newest.append(datetime.fromtimestamp(max(each.value for each in stamps), UTC))
    answer = _whole(asked.values[expr])
    if not newest or not answer.samples:
        raise SourceError("prometheus", _silence(expr, asked, some=bool(newest)))
    age = asked.at - min(newest)
    if age > asked.max_age:
        old, limit = age.total_seconds(), asked.max_age.total_seconds()
        raise SourceError("prometheus", f"stale: {old:.0f} s old, at most {limit:g} s")
    if wrong := [sample for sample in answer.samples if isnan(sample.value)]:
        raise SourceError("prometheus", f"no number: {_shown(wrong[0])}")
    return answer.samples, age


def _whole(found: Vector | SourceError) -> Vector:
    if isinstance(found, SourceError):
        raise found
    if found.partial:
        raise SourceError("prometheus", f"partial answer: {found.warnings[0]}")
    return found


def _silence(expr: str, asked: Asked, *, some: bool) -> str:
    for selector in (each for each in catalogue.selectors(expr) if each in asked.earlier):
        if _whole(asked.earlier[selector]).samples:
            return f"stale: {selector} has samples of the last {EARLIER}, none of the last 5 min"
        return f"no data: nothing emits {selector}"
    return "no data: the query is empty" if some else "no data"


def _allowed(panel: Panel) -> str:
    if not panel.can_be_red:
        return "no thresholds"
    steps = [c + (f" from {start:g}" if start > -inf else "") for start, c, _ in panel.steps]
    return f"not red ({', '.join(steps)})"


def _shown(sample: Sample) -> str:
    labels = ", ".join(f"{k}={v}" for k, v in sorted(sample.labels.items()) if k != "__name__")
    return f"{sample.value:g}" + (f" at {labels}" if labels else "")


class _Limits:
    """The catalogue's limits for panels that show none, each metric asked once."""

    def __init__(self, context: Context, catalogue: Catalogue) -> None:
        self._context = context
        self._metrics = [metric for metric in catalogue.metrics if metric.limit is not None]
        self._found: dict[str, Vector | SourceError] = {}

    def rows(self, subject: str, exprs: Iterable[str]) -> list[Row]:
        """A row per metric with a limit that reads a series of the panel."""
        own = {base for expr in exprs for base in _bases(expr)}
        fits = [m for m in self._metrics if any(own & _bases(query) for query in m.queries)]
        return [_limit_row(subject, metric, self._ask(metric)) for metric in fits]

    def _ask(self, metric: Metric) -> Vector | SourceError:
        if metric.name not in self._found:
            context = self._context
            try:
                found = resolve(context.prometheus, metric, context.matchers, context.at)
                value: Vector | SourceError = context.prometheus.instant(found.query, context.at)
            except SourceError as error:
                value = error
            except ParameterError as error:
                value = SourceError("metrics", str(error))
            self._found[metric.name] = value
        return self._found[metric.name]


def _limit_row(subject: str, metric: Metric, found: Vector | SourceError) -> Row:
    limit = metric.limit
    assert limit is not None
    what, expected = f"{metric.title} (the catalogue's limit)", _limit_text(limit, metric.unit)
    if isinstance(found, SourceError):
        return unknown_row(subject, what, expected, found.problem)
    if not found.samples or any(isnan(sample.value) for sample in found.samples):
        return unknown_row(subject, what, expected, "no number")
    out = [sample for sample in found.samples if not limit.holds(sample.value)]
    shown = _shown((out or list(found.samples))[0])
    return check_row(subject, what, expected, shown, ok=not out)


def _limit_text(limit: Range, unit: str) -> str:
    low = "" if limit.min is None else f"at least {value_text(limit.min, unit)}"
    high = "" if limit.max is None else f"at most {value_text(limit.max, unit)}"
    return " and ".join(filter(None, (low, high)))


def _bases(expr: str) -> set[str]:
    """The series an expression reads, histograms and counters by their common name."""
    names = (selector.partition("{")[0] for selector in catalogue.selectors(expr))
    return {_SUFFIX.sub("", name) for name in names if name}
