"""Rule files as they are shipped: what Prometheus must have loaded.

Plain files of groups, and PrometheusRule resources with the groups below ``spec``. Whether a file
loads is for Prometheus to say, which reports the rules it has; what is not understood here is an
error that names file and key. Source: prometheus/model/rulefmt/rulefmt.go.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from ..strict import Strict, parse_yaml, validate


def _milliseconds(text: Any) -> int:
    import promql_parser

    if text in ("0", "0s", "0m"):
        return 0
    try:
        span: timedelta = promql_parser.parse_duration(text)
        return round(span / timedelta(milliseconds=1))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"expected a duration such as 5m or 1h30m, got {text!r}") from error


Duration = Annotated[int, BeforeValidator(_milliseconds)]
"""In milliseconds."""


class Shipped(Strict):
    """A rule of a file, either an alert or a recording rule; ``wait`` is its ``for``."""

    alert: str = ""
    record: str = ""
    expr: str = Field(min_length=1)
    wait: Duration = Field(default=0, alias="for")
    keep_firing_for: Duration = 0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}

    @property
    def name(self) -> str:
        return self.alert or self.record

    @model_validator(mode="after")
    def _is_one(self) -> Shipped:
        if bool(self.alert) == bool(self.record):
            raise ValueError("expected either alert or record, got both or neither")
        return self


class _Group(Strict):
    name: str = Field(min_length=1)
    interval: Duration = 0
    query_offset: Duration = 0
    limit: int = 0
    partial_response_strategy: str = ""
    labels: dict[str, str] = {}
    rules: list[Shipped]


class _File(Strict):
    groups: list[_Group]

    @model_validator(mode="after")
    def _names_once(self) -> _File:
        if len({group.name for group in self.groups}) != len(self.groups):
            raise ValueError("expected every group's name once, got one again")
        if not any(group.rules for group in self.groups):
            raise ValueError("expected at least one rule, got none")
        return self


def read_rules(text: bytes, file: str) -> list[Shipped]:
    """The rules of a file, at least one. Raises ParameterError naming file and key."""
    document = parse_yaml(text, file)
    if document.get("kind") == "PrometheusRule":
        spec = document.get("spec")
        document = spec if isinstance(spec, dict) else {}
    return [
        rule.model_copy(update={"labels": {**group.labels, **rule.labels}})
        for group in validate(_File, document, file).groups
        for rule in group.rules
    ]
