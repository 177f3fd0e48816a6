"""Alertmanager's configuration read as it reads it: routes, receivers, inhibition, intervals.

The tree is walked as ``dispatch.Route.Match`` does: the first child that matches, and on while it
says ``continue``; a node none of whose children match takes the alert itself. A missing label is
the empty string, a regular expression must match the whole value. Intervals of a route are its
own, not its children's. Sources: dispatch/route.go, pkg/labels/parse.go, timeinterval.go, v0.25.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, ValidationError

from ..errors import ParameterError, SourceError
from ..strict import parse_yaml
from . import patterns
from .wire import Wire, complaint

SOURCE = "alertmanager: config"
MINUTE = timedelta(minutes=1)
_MATCHER = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(=~|!~|!=|=)(.*)", re.DOTALL)
_PARTS = re.compile(r'(?:[^,"\\]|\\.|"(?:[^"\\]|\\.)*"?)+', re.DOTALL)
_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip
Labels = Mapping[str, str]


class Matcher(Wire):
    """One comparison of a label; of silences and of the configuration alike."""

    name: str
    value: str
    is_regex: Annotated[bool, Field(validation_alias="isRegex")]
    is_equal: Annotated[bool, Field(validation_alias="isEqual")] = True

    def matches(self, labels: Labels) -> bool:
        """Whether ``labels`` agree. Raises SourceError for an expression we cannot read."""
        got = labels.get(self.name, "")
        return (self._like(got) if self.is_regex else got == self.value) is self.is_equal

    def _like(self, got: str) -> bool:
        try:
            return patterns.matches(self.value, got)
        except ValueError as error:
            problem = (
                f"expected a regular expression we can read, got {self.value[:200]!r}: {error}"
            )
            raise SourceError(SOURCE, problem) from error

    def __str__(self) -> str:
        operator = ("=" if self.is_equal else "!") + (
            "~" if self.is_regex else "" if self.is_equal else "="
        )
        return f'{self.name}{operator}"{self.value}"'


def _matchers(value: object) -> object:
    """``[a="b", c=~"d"]``, each element possibly several in braces, as matchers."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError("expected a list of matchers")
    return [_matcher(part) for text in value for part in _parts(text)]


def _parts(text: str) -> list[str]:
    inner = text.strip().removeprefix("{").removesuffix("}")
    return [part for part in _PARTS.findall(inner) if part.strip()]


def _matcher(text: str) -> Matcher:
    found = _MATCHER.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"expected a matcher, got {text!r}")
    name, operator, raw = found[1], found[2], found[3].strip()
    quoted = re.fullmatch(r'"((?:[^"\\]|\\.)*)"', raw, re.DOTALL)
    if quoted is None and '"' in raw:
        raise ValueError(f"expected a matcher with its quotes closed, got {text!r}")
    unescaped = re.sub(
        r'\\([n"\\])', lambda m: "\n" if m[1] == "n" else m[1], quoted[1] if quoted else raw
    )
    return matcher(name, unescaped, is_regex="~" in operator, is_equal="!" not in operator)


def matcher(name: str, value: str, *, is_regex: bool = False, is_equal: bool = True) -> Matcher:
    """A matcher as our code makes one."""
    parts = {"name": name, "value": value, "isRegex": is_regex, "isEqual": is_equal}
    return Matcher.model_validate(parts)


Matchers = Annotated[list[Matcher], BeforeValidator(_matchers)]
# YAML reads a bare 2026 as a number, and a bare 17:30 as one in base 60.
Texts = Annotated[
    dict[str, str],
    BeforeValidator(lambda v: {k: str(x) for k, x in v.items()} if isinstance(v, dict) else v),
]
Ranges = Annotated[
    list[str], BeforeValidator(lambda v: [str(x) for x in v] if isinstance(v, list) else v)
]
Time = Annotated[
    str, BeforeValidator(lambda v: f"{v // 60:02}:{v % 60:02}" if isinstance(v, int) else v)
]


def _legacy(equal: Labels, regex: Labels) -> list[Matcher]:
    return [
        matcher(name, value, is_regex=is_regex)
        for is_regex, texts in ((False, equal), (True, regex))
        for name, value in texts.items()
    ]


class Route(Wire):
    """A node of the tree; ``receiver`` may be the parent's."""

    receiver: str = ""
    match: Texts = {}
    match_re: Texts = {}
    matchers: Matchers = []
    goes_on: Annotated[bool, Field(validation_alias="continue")] = False
    routes: list[Route] = []
    mute_time_intervals: list[str] = []
    active_time_intervals: list[str] = []

    def takes(self, labels: Labels) -> bool:
        wanted = [*self.matchers, *_legacy(self.match, self.match_re)]
        return all(each.matches(labels) for each in wanted)

    def leaves(self, labels: Labels, above: str = "") -> Iterator[Route]:
        """The nodes that take an alert, each with the receiver in force there."""
        here = self.receiver or above
        taken = False
        for child in self.routes:
            if child.takes(labels):
                yield from child.leaves(labels, here)
                taken = True
                if not child.goes_on:
                    return
        if not taken:
            yield self.model_copy(update={"receiver": here})


class Inhibition(Wire):
    """While an alert matches the source, those that match the target and are equal are kept back."""

    source_matchers: Matchers = []
    target_matchers: Matchers = []
    source_match: Texts = {}
    source_match_re: Texts = {}
    target_match: Texts = {}
    target_match_re: Texts = {}
    equal: list[str] = []

    @property
    def source(self) -> list[Matcher]:
        return [*self.source_matchers, *_legacy(self.source_match, self.source_match_re)]

    @property
    def target(self) -> list[Matcher]:
        return [*self.target_matchers, *_legacy(self.target_match, self.target_match_re)]

    def touches(self, labels: Labels, unique: Iterable[str]) -> bool:
        """Whether an alert could inhibit or be inhibited: no ``unique`` label must be equal."""
        either = any(all(m.matches(labels) for m in side) for side in (self.source, self.target))
        return either and not set(unique) & set(self.equal)

    def __str__(self) -> str:
        return f"{_shown(self.source)} inhibits {_shown(self.target)}"


class _Times(Wire):
    start_time: Time
    end_time: Time


class Span(Wire):
    """One stretch of a time interval; what is not named is always."""

    times: list[_Times] = []
    weekdays: Ranges = []
    days_of_month: Ranges = []
    months: Ranges = []
    years: Ranges = []
    location: str = "UTC"

    def holds(self, instant: datetime) -> bool:
        """Whether ``instant`` lies inside. Raises ValueError for what cannot be read."""
        at = instant.astimezone(_zone(self.location))
        last = ((at.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)).day
        minute = at.hour * 60 + at.minute
        return (
            _within(self.times, lambda t: _minute(t.start_time) <= minute < _minute(t.end_time))
            and _within(self.weekdays, lambda r: _between(r, at.isoweekday() % 7, _DAYS, 0))
            and _within(self.days_of_month, lambda r: _on_day(r, at.day, last))
            and _within(self.months, lambda r: _between(r, at.month, _MONTHS, 1))
            and _within(self.years, lambda r: _between(r, at.year, (), 0))
        )


def _within(ranges: list[Any], holds: Any) -> bool:
    return not ranges or any(holds(each) for each in ranges)


def _zone(name: str) -> tzinfo:
    return UTC if name in ("", "UTC") else ZoneInfo(name)


def _minute(text: str) -> int:
    found = re.fullmatch(r"([01][0-9]|2[0-4]):([0-5][0-9])", text)
    if found is None:
        raise ValueError(f"expected HH:MM, got {text!r}")
    return int(found[1]) * 60 + int(found[2])


def _between(text: str, value: int, names: tuple[str, ...], first: int) -> bool:
    def number(word: str) -> int:
        word = word.strip().lower()
        return names.index(word) + first if word in names else int(word)

    begin, _, end = text.partition(":")
    return number(begin) <= value <= number(end or begin)


def _on_day(text: str, day: int, last: int) -> bool:
    """Negative days count from the month's end."""
    begin, _, end = text.partition(":")
    low, high = (n if n > 0 else last + 1 + n for n in (int(begin), int(end or begin)))
    return low <= day <= min(high, last)


class _Interval(Wire):
    name: str
    time_intervals: list[Span]


class Receiver(Wire, extra="allow"):
    """Where notifications go: by every non-empty list of ``*_configs``."""

    name: str

    @property
    def notifiers(self) -> list[str]:
        extra = self.model_extra or {}
        return sorted(
            k.removesuffix("_configs") for k, v in extra.items() if k.endswith("_configs") and v
        )


class Config(Wire):
    """What decides whom an alert reaches, and when it does not."""

    route: Route
    receivers: list[Receiver]
    inhibit_rules: list[Inhibition] = []
    time_intervals: list[_Interval] = []
    mute_time_intervals: list[_Interval] = []

    def leaves(self, labels: Labels) -> list[Route]:
        """The nodes an alert ends at, in order."""
        return list(self.route.leaves(labels))

    def notifiers(self, receiver: str) -> list[str]:
        """The kinds of notification of a receiver; none for one that is not there."""
        return next((each.notifiers for each in self.receivers if each.name == receiver), [])

    def muted(self, route: Route, instant: datetime) -> str:
        """The interval that keeps this node quiet at an instant, else empty. SourceError."""
        named = {each.name: each for each in (*self.time_intervals, *self.mute_time_intervals)}

        def holds(name: str) -> bool:
            if name not in named:
                raise SourceError(SOURCE, f"expected the time interval {name!r}, got none")
            try:
                return any(span.holds(instant) for span in named[name].time_intervals)
            except (ValueError, KeyError, OSError) as error:
                problem = f"time interval {name!r}: expected a readable one, got: {error}"
                raise SourceError(SOURCE, problem) from error

        for name in route.mute_time_intervals:
            if holds(name):
                return name
        active = route.active_time_intervals
        return "" if not active or any(map(holds, active)) else f"outside {', '.join(active)}"


def read_config(text: str) -> Config:
    """The configuration as Alertmanager shows it. Raises SourceError."""
    try:
        return Config.model_validate(parse_yaml(text.encode(), SOURCE))
    except ParameterError as error:
        raise SourceError(SOURCE, str(error).removeprefix(f"{SOURCE}: ")) from error
    except ValidationError as error:
        raise SourceError(SOURCE, complaint(error)) from error


def _shown(matchers: Iterable[Matcher]) -> str:
    return "{" + ", ".join(map(str, matchers)) + "}"


def may_match(matchers: Iterable[Matcher], labels: Labels) -> bool | None:
    """Whether an alert of which only ``labels`` are known matches; None when that decides it not."""
    sure = True
    for each in matchers:
        if each.name not in labels:
            sure = False
        elif not each.matches(labels):
            return False
    return True if sure else None
