"""The metric catalogue: what is watched, under which names, and how much worse is too much.

``params/metrics.yaml`` explains every key. The chain exports the same thing under several names,
so each metric lists candidate queries in order of preference; ``resolve`` picks the first that has
fresh data on a cluster, and no candidate is an error, never an empty success.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from ..errors import ParameterError, SourceError
from ..sources.prometheus import Prometheus
from ..strict import Problems, Range, Strict, parse_yaml, validate

# --- PromQL as a tree: label matchers injected, selectors listed ---
#
# promql-parser prints what it parsed with small losses (escapes, milliseconds); every expression is
# therefore parsed again after printing and compared, and one that does not survive is refused.

MAX_LENGTH = 8_000  # the parser recurses without a limit of its own: more may end the process
_INNER = {
    "VectorSelector": (),
    "MatrixSelector": ("vector_selector",),
    "AggregateExpr": ("param", "expr"),
    "UnaryExpr": ("expr",),
    "ParenExpr": ("expr",),
    "SubqueryExpr": ("expr",),
    "BinaryExpr": ("rhs", "lhs"),
    "Call": ("args",),
    "NumberLiteral": (),
    "StringLiteral": (),
}
"""By kind of node, where others lie below it, the last of them first."""


def selected(expr: str) -> list[Any]:
    """Every vector selector of an expression of others, for reading; none of one we cannot parse."""
    import promql_parser as promql

    with suppress(ValueError):
        return list(_selectors(promql.parse(expr))) if len(expr) <= MAX_LENGTH else []
    return []


def pretty(expr: str) -> str:
    """An expression of others without what printing changes; one we cannot parse in plain spaces."""
    import promql_parser as promql

    with suppress(ValueError, RecursionError):
        return str(promql.parse(expr).prettify())
    return " ".join(expr.split())


def check(query: str) -> str:
    """``query`` itself. Raises ValueError unless it parses and has a selector we can narrow."""
    if not list(_selectors(_parsed(query))):
        raise ValueError(f"expected a query with a selector, got {query!r}")
    return query


def inject(query: str, matchers: Mapping[str, str], *, beside: bool = False) -> str:
    """``query`` with ``label="value"`` in every selector.

    Raises ValueError when a selector already matches one of the labels in another way; with
    ``beside`` only when it wants another value, as a dashboard's ``label=~"$variable"`` may stay.
    """
    import promql_parser as promql

    tree = _parsed(query)
    printed, before = str(tree), [selector.matchers for selector in _selectors(tree)]
    for selector in _selectors(tree):
        own = list(selector.matchers.matchers)
        for label, value in matchers.items():
            if any(character in value for character in '"\\\n'):
                raise ValueError(f"expected a plain value of {label}, got {value!r}")
            there = [each for each in own if each.name == label]
            equal = [each for each in there if each.op == promql.MatchOp.Equal]
            if any(each.value != value for each in equal) or (there != equal and not beside):
                raise ValueError(f'expected {label}="{value}", got the selector {selector}')
            if not equal:
                own.append(promql.Matcher(promql.MatchOp.Equal, label, value))
        selector.matchers = promql.Matchers(own)
    injected = str(tree)
    again = promql.parse(injected)
    for selector, matchers_before in zip(_selectors(again), before, strict=True):
        narrowed = {(each.name, each.value) for each in selector.matchers.matchers}
        if not narrowed >= set(matchers.items()):
            raise ValueError(f"expected every selector narrowed, got {injected!r}")
        selector.matchers = matchers_before
    if str(again) != printed:
        raise ValueError(f"expected nothing changed but matchers, got {injected!r}")
    return injected


def selectors(query: str) -> list[str]:
    """The plain selectors of a query, without range, offset and ``@``; each once."""
    found = []
    for selector in _selectors(_parsed(query)):
        selector.offset = selector.at = None
        found.append(str(selector))
    return list(dict.fromkeys(found))


def _parsed(query: str) -> Any:
    import promql_parser as promql

    if len(query) > MAX_LENGTH:
        raise ValueError(f"expected at most {MAX_LENGTH} characters of PromQL, got {len(query)}")
    try:
        tree = promql.parse(query)
        survives = promql.parse(str(tree)).prettify() == tree.prettify()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected PromQL, got {query!r}: {error}") from error
    if not survives:
        raise ValueError(f"expected PromQL without escapes and milliseconds, got {query!r}")
    if any(selector.matchers.or_matchers for selector in _selectors(tree)):
        raise ValueError(f"expected selectors without 'or', got {query!r}")
    return tree


def _selectors(tree: Any) -> Iterator[Any]:
    """Every vector selector of ``tree``, from left to right: the objects in it, not copies."""
    pending = [tree]
    while pending:
        node = pending.pop()
        kind = type(node).__name__
        if kind not in _INNER:
            raise ValueError(f"expected a known kind of expression, got {kind}")
        if kind == "VectorSelector":
            yield node
        for name in _INNER[kind]:
            value = getattr(node, name)
            every = value[::-1] if isinstance(value, list) else [value]
            pending += [each for each in every if each is not None]


MAX_AGE = timedelta(minutes=3)
"""The newest sample may be this old; older is no data."""
LOAD = "load"
"""The topic of what a cluster was asked to do: it makes windows comparable, and is not judged."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Query = Annotated[str, AfterValidator(check)]


class Tolerance(Strict):
    """How much worse than the baseline is still fine: a share of it, or in the metric's unit."""

    relative: Positive | None = None
    absolute: Positive | None = None

    @model_validator(mode="after")
    def _one(self) -> Tolerance:
        if (self.relative is None) == (self.absolute is None):
            raise ValueError("expected either relative or absolute")
        return self

    @property
    def amount(self) -> float:
        amount = self.absolute if self.relative is None else self.relative
        assert amount is not None
        return amount


class Metric(Strict):
    """One metric. ``name`` is its key in the file.

    ``limit`` is the absolute healthy range, baseline or not. ``bounds`` are values the metric
    cannot leave: they stand in for missing points, the worst of them in a judged window and the
    best in a baseline; without them no point may be missing. ``cycle_hours`` declares a cycle:
    judged windows must then cover whole ones.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str = Field(min_length=1)
    topic: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    unit: str
    queries: list[Query] = Field(min_length=1)
    direction: Literal["lower", "higher", "either"]
    kind: Literal["gauge", "proportion", "count"] = "gauge"
    tolerance: Tolerance
    limit: Range | None = None
    bounds: Range | None = None
    critical: bool
    per: Literal["aggregate", "validator"] = "aggregate"
    label: str = ""
    cycle_hours: Positive | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Metric:
        problems = []
        if (self.per == "validator") != bool(self.label):
            problems.append("label: expected the validator's label with per: validator only")
        wrong = {"lower": "min", "higher": "max"}.get(self.direction, "")
        if self.limit is not None and wrong and getattr(self.limit, wrong) is not None:
            problems.append(f"limit.{wrong}: expected none, as {self.direction} is better")
        if len(set(self.queries)) != len(self.queries):
            problems.append("queries: expected every candidate once")
        if problems:
            raise Problems(problems)
        return self


class Catalogue(Strict):
    """All metrics, in the file's order."""

    metrics: list[Metric] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> Catalogue:
        names = [metric.name for metric in self.metrics]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"expected every name once, got {', '.join(twice)} twice")
        if len(self.loads) > 1 or any(each.per == "validator" for each in self.loads):
            raise ValueError(f"expected one aggregate metric of topic {LOAD} at most")
        return self

    @property
    def loads(self) -> list[Metric]:
        """The metric of what a cluster was asked to do, where one is declared."""
        return [metric for metric in self.metrics if metric.topic == LOAD]

    @property
    def load(self) -> Metric | None:
        return next(iter(self.loads), None)

    def of_topic(self, *topics: str) -> list[Metric]:
        """The metrics of topics, in their order. Raises ParameterError when one has none."""
        found = {topic: [m for m in self.metrics if m.topic == topic] for topic in topics}
        if lacking := [topic for topic, metrics in found.items() if not metrics]:
            raise ParameterError(f"metrics: expected a metric of topic {lacking[0]}, got none")
        return [metric for metrics in found.values() for metric in metrics]


def limit_words(limit: Range | None, unit: str = "") -> str:
    """``at least 0.5 and at most 1 s``; ``any`` without a limit."""
    if limit is None:
        return "any"
    low = [] if limit.min is None else [f"at least {limit.min:g}"]
    high = [] if limit.max is None else [f"at most {limit.max:g}"]
    return f"{' and '.join(low + high)} {unit}".rstrip()


def parse_catalogue(text: bytes, where: str) -> Catalogue:
    """A catalogue file. Raises ParameterError listing every problem."""
    return validate(Catalogue, parse_yaml(text, where), where)


def narrow(metric: Metric, matchers: Mapping[str, str]) -> list[str]:
    """The metric's candidates with a cluster's matchers in every selector. ParameterError."""
    try:
        return [inject(query, matchers) for query in metric.queries]
    except ValueError as error:
        raise ParameterError(f"metrics: {metric.name}: {error}") from error


def resolve(
    prometheus: Prometheus, metric: Metric, matchers: Mapping[str, str], at: datetime
) -> str:
    """The first candidate that has fresh data at an instant: every window must be asked with it.

    Fresh: each of its selectors has a sample not older than ``MAX_AGE``; a bare query would
    look five minutes back in silence. Raises SourceError naming what is wrong with each.
    """
    wrong = []
    for query in narrow(metric, matchers):
        problem = _problem(prometheus, query, at)
        if not problem:
            return query
        wrong.append(f"{query}: {problem}")
    raise SourceError("prometheus", f"{metric.name}: no candidate has data: {'; '.join(wrong)}")


def _problem(prometheus: Prometheus, query: str, at: datetime) -> str:
    """What is wrong with a candidate, or ""; the selector whose newest sample is oldest decides."""
    if not prometheus.instant(query, at):
        return "no series"
    ages = [timedelta(0)]
    for selector in selectors(query):
        stamps = prometheus.newest([selector], at)[selector]
        if not stamps:
            return f"{selector} has no samples"
        newest = max(sample.value for sample in stamps)
        ages.append(at - datetime.fromtimestamp(newest, UTC))
    age, most = max(ages), MAX_AGE.total_seconds()
    old = f"newest sample is {age.total_seconds():.0f} s old, at most {most:g} s"
    return old if age > MAX_AGE else ""
