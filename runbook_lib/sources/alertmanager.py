"""Alertmanager's v2 API: alerts and silences it holds now, its route tree, and a test alert for it.

The tree is walked as ``dispatch.Route.Match`` does: the first child that matches, and on while it
says ``continue``; a node none of whose children match takes the alert itself. Regular expressions
match the whole value. Times of intervals are not computed, and inhibition is the server's to say.
Sources: dispatch/route.go, pkg/labels/parse.go, v0.25. It has no past.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AliasPath, AwareDatetime, Field, model_validator

from ..errors import ParameterError, SourceError
from ..site import Node
from ..strict import parse_yaml
from . import wire
from .http import JSON, make_request
from .wire import T, Wire

CONFIG = "alertmanager: config"
_MATCHER = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(=~|!~|!=|=)"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ROUTE = ("match", "match_re", "continue", "group_by", "group_wait", "group_interval", "name")
_SIDES = ("source", "target")
HOSTS = frozenset({"instance", "node", "host", "hostname", "nodename"})
W = TypeVar("W", bound=Wire)
Labels = Mapping[str, Collection[str]]
"""Labels of an alert with the values that each may have."""


class Matcher(Wire, extra="forbid"):
    """One comparison of a label; of silences and of the configuration alike."""

    name: str
    value: str
    is_regex: Annotated[bool, Field(validation_alias="isRegex")]
    is_equal: Annotated[bool, Field(validation_alias="isEqual")] = True

    def matches(self, value: str) -> bool:
        """Whether a label's value agrees. Raises ValueError for an expression we cannot read."""
        same = matches(self.value, value) if self.is_regex else value == self.value
        return same is self.is_equal

    def __str__(self) -> str:
        operator = ("=" if self.is_equal else "!") + ("~" if self.is_regex else "=")
        return f'{self.name}{"=" if operator == "==" else operator}"{self.value}"'


def matched(matchers: Iterable[Matcher], labels: Labels, *, complete: bool = False) -> bool | None:
    """Whether an alert with these labels matches; None when that cannot be told.

    A label that is missing may have any value, or is empty where ``labels`` are ``complete``.
    """
    sure = True
    for each in matchers:
        values = labels.get(each.name, [""] if complete else None)
        try:
            found = {True, False} if values is None else {each.matches(value) for value in values}
        except ValueError:
            found = {True, False}
        if True not in found:
            return False
        sure = sure and False not in found
    return True if sure else None


def host_labels(label: str, nodes: Iterable[Node], matchers: Collection[Matcher]) -> Labels:
    """What labels that name a host may hold: nothing, a node, or a node with its port or domain.

    ``label`` is the site's; others are known by name where they must equal one value.
    """
    hosts = [(n.name, n.validator, n.peer, urlsplit(n.url or "").hostname) for n in nodes]
    names = {name for each in hosts for name in each if name}
    longer = [m.value for m in matchers if names & {m.value.partition(c)[0] for c in ":."}]
    named = {m.name for m in matchers if m.name in HOSTS and m.is_equal and not m.is_regex}
    return {key: ["", *names, *longer] for key in {label, *named}}


class _Matching(Wire):
    """Part of the configuration: ``matchers``, and the older ``match`` and ``match_re``, as one list."""

    @model_validator(mode="before")
    @classmethod
    def _one_list(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        made: dict[str, Any] = dict(value)
        known = {*cls.model_fields, *_ROUTE, "repeat_interval"} | {
            f"{s}_match{e}" for s in _SIDES for e in ("", "_re")
        }
        if strange := sorted(map(str, made.keys() - known)):
            raise ValueError(f"expected a key we know, got {strange[0]}")
        for name in cls.model_fields:
            if (prefix := name.removesuffix("matchers")) == name:
                continue
            texts, *older = (made.get(prefix + key) for key in ("matchers", "match", "match_re"))
            try:
                made[name] = [_read(text) for text in texts or []]
                for pairs, regex in zip(older, (False, True), strict=True):
                    for key, text in (pairs or {}).items():
                        made[name].append({"name": key, "value": str(text), "isRegex": regex})
            except (TypeError, AttributeError) as error:
                raise ValueError(f"expected {name} as a list, got {texts!r}") from error
        return made


def _read(text: str) -> dict[str, Any]:
    """A matcher as Alertmanager prints it: its value in quotes. Raises ValueError."""
    if (found := _MATCHER.fullmatch(text.strip())) is None:
        raise ValueError(f'expected a matcher such as a="b", got {text!r}')
    name, operator, quoted = found.groups()
    value = re.sub(r'\\([n"\\])', lambda m: "\n" if m[1] == "n" else m[1], quoted)
    parts = {"isRegex": "~" in operator, "isEqual": "!" not in operator}
    return {"name": name, "value": value, **parts}


@dataclass(frozen=True)
class Leaf:
    """A node of the tree that takes an alert, for ``sure`` or perhaps.

    ``intervals`` are the names of those that keep it quiet at times.
    """

    receiver: str
    intervals: tuple[str, ...]
    sure: bool


class Route(_Matching):
    """A node of the tree; ``receiver`` may be the parent's."""

    receiver: str = ""
    matchers: list[Matcher]
    goes_on: Annotated[bool, Field(validation_alias="continue")] = False
    routes: list[Route] = []
    mute_time_intervals: list[str] = []
    active_time_intervals: list[str] = []

    def leaves(
        self, labels: Labels, *, complete: bool = False, above: str = "", sure: bool = True
    ) -> Iterator[Leaf]:
        """The nodes that take an alert, or may take it where a label that decides is not known."""
        here, taken, alone = self.receiver or above, False, sure
        for child in self.routes:
            hit = matched(child.matchers, labels, complete=complete)
            if hit is False:
                continue
            certain = sure and hit is True
            yield from child.leaves(labels, complete=complete, above=here, sure=certain)
            if hit and not child.goes_on:
                return
            taken, alone = taken or hit is True, False
            sure = sure and child.goes_on
        if not taken:
            intervals = (*self.mute_time_intervals, *self.active_time_intervals)
            yield Leaf(here, intervals, alone)


class Inhibition(_Matching):
    """While an alert matches the source, those that match the target and are equal are kept back."""

    source_matchers: list[Matcher]
    target_matchers: list[Matcher]
    equal: list[str] = []

    def __str__(self) -> str:
        sides = (", ".join(map(str, each)) for each in (self.source_matchers, self.target_matchers))
        return " inhibits ".join(f"{{{side}}}" for side in sides)


class _Receiver(Wire, extra="allow"):
    name: str


class Config(Wire):
    """What decides whom an alert reaches."""

    route: Route
    receivers: list[_Receiver]
    inhibit_rules: list[Inhibition] = []

    def notifiers(self, receiver: str) -> list[str]:
        """The kinds of notification of a receiver: its non-empty lists of ``*_configs``."""
        extra = next((r.model_extra or {} for r in self.receivers if r.name == receiver), {})
        end = "_configs"
        return sorted(k.removesuffix(end) for k, v in extra.items() if k.endswith(end) and v)


def read_config(text: str) -> Config:
    """The configuration as Alertmanager shows it. Raises SourceError."""
    try:
        return Config.model_validate(parse_yaml(text.encode(), CONFIG))
    except (ParameterError, ValueError) as error:
        said = wire.complaint(error).removeprefix(f"{CONFIG}: ")
        raise SourceError(CONFIG, said) from error


class AlertState(Wire, extra="forbid"):
    """A suppressed alert says by which silences, by which other alerts, or by which interval."""

    state: Literal["unprocessed", "active", "suppressed"]
    silenced_by: Annotated[list[str], Field(validation_alias="silencedBy")]
    inhibited_by: Annotated[list[str], Field(validation_alias="inhibitedBy")]
    muted_by: Annotated[list[str], Field(validation_alias="mutedBy")] = []


class Alert(Wire):
    """An alert and whom it goes to: the routing is already done."""

    labels: dict[str, str]
    ends_at: Annotated[AwareDatetime, Field(validation_alias="endsAt")]
    updated_at: Annotated[AwareDatetime, Field(validation_alias="updatedAt")]
    status: AlertState
    receivers: list[_Receiver]


class SilenceState(Wire):
    state: Literal["expired", "active", "pending"]


class Silence(Wire):
    """A silence; while active it keeps matching alerts from anybody."""

    id: str
    status: SilenceState
    matchers: list[Matcher]
    starts_at: Annotated[AwareDatetime, Field(validation_alias="startsAt")]
    ends_at: Annotated[AwareDatetime, Field(validation_alias="endsAt")]
    created_by: Annotated[str, Field(validation_alias="createdBy")]
    comment: str


class _Status(Wire):
    config: Annotated[str, Field(validation_alias=AliasPath("config", "original"))]


class Alertmanager(wire.Service):
    """One Alertmanager. Instants are in the clock's time; every method raises SourceError."""

    def config(self) -> Config:
        """Its configuration; the server masks its credentials."""
        return read_config(self._asked("status", _Status).config)

    def alerts(self) -> list[Alert]:
        """All alerts it holds, suppressed ones too."""
        found = self._asked("alerts", list[Alert])
        return [self._translated(alert, "ends_at", "updated_at") for alert in found]

    def silences(self) -> list[Silence]:
        """All silences it remembers, expired ones too."""
        found = self._asked("silences", list[Silence])
        return [self._translated(silence, "starts_at", "ends_at") for silence in found]

    def post(
        self, labels: Mapping[str, str], annotations: Mapping[str, str], ends: datetime
    ) -> None:
        """Post an alert that begins now and is over at ``ends``: a notification, never a change."""
        starts = self._scope.now()
        alert = {
            "labels": dict(labels),
            "annotations": dict(annotations),
            "startsAt": (starts - self._scope.offset).isoformat(),
            "endsAt": (ends - self._scope.offset).isoformat(),
        }
        url, body = f"{self._settings.url}/api/v2/alerts", json.dumps([alert]).encode()
        request = make_request(
            "POST", url, self._settings, body=body, headers=JSON, purpose="notify"
        )
        wire.ask(self._scope, "alertmanager: post", request)  # it answers 200 with an empty body

    def _translated(self, found: W, *names: str) -> W:
        self._scope.now()
        instants = {name: getattr(found, name) + self._scope.offset for name in names}
        return found.model_copy(update=instants)

    def _asked(self, kind: str, model: type[T]) -> T:
        source = f"alertmanager: {kind}"
        body = wire.ask(self._scope, source, self._get(f"api/v2/{kind}"))
        return wire.decode(source, body, model)


# --- Regular expressions that others wrote, matched in time linear in what is read ---

LONGEST = 4_000
"""Characters of an expression and of a text; with RE2's own bound on memory a match ends soon."""


@lru_cache(maxsize=4096)
def matches(pattern: str, text: str) -> bool:
    """Whether the whole of ``text`` matches. Raises ValueError, naming what cannot be judged."""
    import pyarrow as pa
    from pyarrow import compute

    for what, given in (("an expression", pattern), ("a text", text)):
        if len(given) > LONGEST:
            raise ValueError(f"{what} of {len(given)} characters, at most {LONGEST} are tried")
    try:
        found = compute.match_substring_regex(pa.scalar(text), f"^(?s:{pattern})$")
    except ValueError as error:  # arrow's own is one, and so is text that is no UTF-8
        raise ValueError(str(error).partition(": (?s")[0].partition(": ^(?s")[0]) from error
    return bool(found.as_py())
