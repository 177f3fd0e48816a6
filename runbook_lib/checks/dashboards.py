"""The dashboards of the four topics: every panel asked, fresh, and not red.

A panel is held to its limit in the site, else to its colours. One that shows none is held to the
limits of the catalogue's metrics that read the same series; where there are none it must have fresh
data, but cannot make its topic's proof.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from math import inf, isnan
from typing import get_args

from ..context import Context
from ..errors import ParameterError, SourceError
from ..metrics.catalogue import Catalogue, Metric, Range, check, inject, resolve
from ..metrics.catalogue import selectors as selectors_of
from ..outcomes import Outcome, Row, check_row, unknown_row, value_text
from ..site import Limit, Topic
from ..sources.dashboards import Dashboard, Grafana, Panel, Query, read_dashboard
from ..sources.prometheus import Sample, Vector
from ..strict import project_path

SHADES = ("red", "orange")
_SUFFIX = re.compile(r"_(?:bucket|sum|count|total)$")


def judge(context: Context, catalogue: Catalogue) -> list[Row]:
    """A row per query, per limit, and per panel that cannot be judged; one per topic."""
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
    look = _Look(context, catalogue, found)
    judged = {
        ref: [look.panel(each, panel) for panel in each.panels] for ref, each in found.items()
    }
    what = "panels that can be red"
    for topic, refs in settings.topics.items():
        panels = [each for ref in refs for each in judged.get(ref, [])]
        armed = sum(can for can, _ in panels)
        observed = f"{armed} of {len(panels)}" + ("" if armed else "; give one thresholds")
        outcome = Outcome.PASS if armed else Outcome.INCONCLUSIVE
        rows.append(check_row(topic, what, "at least 1", observed, outcome))
    titles = {f"{each.title}: {panel.title}" for each in found.values() for panel in each.panels}
    rows += [
        unknown_row(name, "limit of the site", "of a panel", "no such panel; see dashboards.limits")
        for name in settings.limits
        if name not in titles and len(found) == len(wanted)
    ]
    return rows + [row for ref in found for _, panel in judged[ref] for row in panel]


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
            if settings.grafana is None:
                raise SourceError("site", "expected dashboards.grafana for a uid, got none; set it")
            grafana = Grafana(context.scope, settings.grafana)
            found |= grafana.dashboards(uids, settings.variables)
        except SourceError as error:
            found |= dict.fromkeys(uids, error)
    return found


class _Look:
    """Every query and the age of every selector asked at once, each limit of the catalogue once."""

    def __init__(
        self, context: Context, catalogue: Catalogue, dashboards: Mapping[str, Dashboard]
    ) -> None:
        self.context, self.at = context, context.at
        self.max_age = timedelta(seconds=context.site.dashboards.max_age_s)
        self.metrics = [metric for metric in catalogue.metrics if metric.limit is not None]
        self.rows_of: dict[str, tuple[str, str, Outcome]] = {}
        panels = [panel for each in dashboards.values() for panel in each.panels]
        self.narrowed = {
            query.expr: _narrow(query.expr, context.matchers)
            for panel in panels
            for query in panel.queries
            if not query.problem
        }
        exprs = [expr for expr in self.narrowed.values() if isinstance(expr, str)]
        self.values = context.prometheus.instants(exprs, self.at)
        selectors = dict.fromkeys(s for expr in exprs for s in selectors_of(expr))
        self.newest = context.prometheus.newest(selectors, self.at)

    def panel(self, dashboard: Dashboard, panel: Panel) -> tuple[bool, list[Row]]:
        """Whether a panel can be red, and its rows."""
        subject = f"{dashboard.title}: {panel.title}"
        limit = self.context.site.dashboards.limits.get(subject)
        problem = "" if panel.queries else "expected a query, got none"
        if panel.problem and limit is None:
            problem = f"{panel.problem}; state a limit for this panel: dashboards.limits"
        if problem:
            return False, [unknown_row(subject, "panel", "one we can judge", problem)]
        rows = [self._query(subject, panel, query, limit) for query in panel.queries]
        if limit is not None or panel.can_be_red:
            return True, rows
        own = {
            base
            for query in panel.queries
            if isinstance(expr := self.narrowed.get(query.expr), str)
            for base in _bases(expr)
        }
        fits = [m for m in self.metrics if any(own & _bases(query) for query in m.queries)]
        return bool(fits), [*rows, *(self._limit(subject, metric) for metric in fits)]

    def _query(self, subject: str, panel: Panel, query: Query, limit: Limit | None) -> Row:
        what = f"query {query.ref}" + (f" ({query.filled})" if query.filled else "")
        expr = query.problem or self.narrowed[query.expr]
        if query.problem or isinstance(expr, ValueError):
            return unknown_row(subject, what, "a query we can ask", str(expr))
        try:
            samples, age = self._fresh(expr)
        except SourceError as error:
            return unknown_row(subject, what, "fresh data", error.problem)
        if limit is None:
            allowed = _allowed(panel)
            red, orange = ([s for s in samples if panel.shade(s.value) == c] for c in SHADES)
        else:
            allowed, orange = _limit_text(limit), []
            red = [sample for sample in samples if not _holds(limit, sample.value)]
        outcome = Outcome.FAIL if red else Outcome.INCONCLUSIVE if orange else Outcome.PASS
        shown = "; ".join(map(_shown, red or orange))
        text = f"{len(samples)} series, {age.total_seconds():.0f} s old"
        return check_row(subject, what, f"fresh data, {allowed}", shown or text, outcome)

    def _fresh(self, expr: str) -> tuple[tuple[Sample, ...], timedelta]:
        """The values of a query and the age of its oldest source. Raises SourceError without them.

        A selector without samples counts only when none has any: in ``a or b`` one is enough, in
        ``a / b`` the answer itself is empty.
        """
        stamps = {s: _whole(self.newest[s]).samples for s in selectors_of(expr)}
        newest = [max(each.value for each in found) for found in stamps.values() if found]
        samples = _whole(self.values[expr]).samples
        if not newest or not samples:
            silent = next((s for s, found in stamps.items() if not found), "")
            problem = f"nothing emits {silent} now" if silent else "the query is empty"
            raise SourceError("prometheus", f"no data: {problem}")
        age = self.at - datetime.fromtimestamp(min(newest), UTC)
        if age > self.max_age:
            limit = self.max_age.total_seconds()
            problem = f"stale: {age.total_seconds():.0f} s old, at most {limit:g} s"
            raise SourceError("prometheus", problem)
        if wrong := [sample for sample in samples if isnan(sample.value)]:
            raise SourceError("prometheus", f"no number: {_shown(wrong[0])}")
        return samples, age

    def _limit(self, subject: str, metric: Metric) -> Row:
        """The row of a catalogue's limit for a panel that reads the metric's series."""
        limit = metric.limit
        assert limit is not None
        if metric.name not in self.rows_of:
            expected = _limit_text(limit, metric.unit)
            self.rows_of[metric.name] = expected, *self._held(metric, limit)
        expected, shown, outcome = self.rows_of[metric.name]
        return check_row(
            subject, f"{metric.title} (the catalogue's limit)", expected, shown, outcome
        )

    def _held(self, metric: Metric, limit: Range) -> tuple[str, Outcome]:
        prometheus = self.context.prometheus
        try:
            found = resolve(prometheus, metric, self.context.matchers, self.at)
            samples = prometheus.instant(found.query, self.at).samples
        except SourceError as error:
            return error.problem, Outcome.INCONCLUSIVE
        except ParameterError as error:
            return str(error), Outcome.INCONCLUSIVE
        if not samples or any(isnan(sample.value) for sample in samples):
            return "no number", Outcome.INCONCLUSIVE
        out = [sample for sample in samples if not _holds(limit, sample.value)]
        return _shown((out or samples)[0]), Outcome.FAIL if out else Outcome.PASS


def _narrow(expr: str, matchers: Mapping[str, str]) -> str | ValueError:
    try:
        return inject(check(expr), matchers, beside=True)
    except ValueError as error:
        return error


def _whole(found: Vector | SourceError) -> Vector:
    if isinstance(found, SourceError):
        raise found
    if found.partial:
        raise SourceError("prometheus", f"partial answer: {found.warnings[0]}")
    return found


def _allowed(panel: Panel) -> str:
    if not panel.can_be_red:
        return "no thresholds"
    steps = [x.color + (f" from {x.low:g}" if x.low > -inf else "") for x in panel.steps]
    return f"not red ({', '.join([*steps, *(f'{x.color} at {x.low:g}' for x in panel.mappings)])})"


def _shown(sample: Sample) -> str:
    labels = ", ".join(f"{k}={v}" for k, v in sorted(sample.labels.items()) if k != "__name__")
    return f"{sample.value:g}" + (f" at {labels}" if labels else "")


def _holds(limit: Limit | Range, value: float) -> bool:
    low = -inf if limit.min is None else limit.min
    return low <= value <= (inf if limit.max is None else limit.max)


def _limit_text(limit: Limit | Range, unit: str = "") -> str:
    low = "" if limit.min is None else f"at least {value_text(limit.min, unit)}"
    high = "" if limit.max is None else f"at most {value_text(limit.max, unit)}"
    return " and ".join(filter(None, (low, high)))


def _bases(expr: str) -> set[str]:
    """The series an expression reads, histograms and counters by their common name."""
    names = (selector.partition("{")[0] for selector in selectors_of(expr))
    return {_SUFFIX.sub("", name) for name in names if name}
