"""Files a person writes, read strictly: every problem at once, as ``file: key: expected X, got Y``.

Relative paths in them start at the project root, never the working directory (papermill, nbval and
JupyterLab each have another).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from math import isnan
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from . import playbook
from .errors import ParameterError

PROJECT = Path(__file__).resolve().parent.parent
MAX_FILE = 1_000_000
MAX_DEPTH = 50
MAX_TABLES = 64


class Problems(ValueError):
    """Several problems found by one validator, each ``key: expected X, got Y``."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


M = TypeVar("M", bound=BaseModel)


def refused(model: M, problems: list[str]) -> M:
    """``model``, unless a validator of it found problems: raises all of them."""
    if problems:
        raise Problems(problems)
    return model


class _UniqueKeys(yaml.CSafeLoader):
    """YAML in which a key given twice is an error, not the last one's win."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_yaml(text: bytes, where: str) -> dict[str, Any]:
    """A YAML mapping. Raises ParameterError for anything else, naming ``where`` and the line."""
    if len(text) > MAX_FILE:
        raise ParameterError(f"{where}: expected at most {MAX_FILE} bytes, got {len(text)}")
    try:
        refuse_traps(text)
        value = yaml.load(text, _UniqueKeys)  # noqa: S506 - derives from the safe loader
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, TypeError, ValueError) as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ParameterError(f"{where}:{line} expected YAML, got: {problem}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        got = "an empty file" if value is None else type(value).__name__
        raise ParameterError(f"{where}: expected a mapping of names, got {got}")
    return value


def refuse_traps(text: bytes) -> None:
    """Aliases hide what a file says and expand without bound; the loader crashes on deep nesting."""
    depth = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        deep, mark = depth > MAX_DEPTH, event.start_mark
        if deep or isinstance(event, yaml.AliasEvent):
            trap = f"nesting deeper than {MAX_DEPTH}" if deep else "an alias; write it out"
            # The stubs know the marks of the slow parser alone.
            raise yaml.MarkedYAMLError(problem=trap, problem_mark=mark)  # type: ignore[arg-type]


class TooDeep(ValueError):
    """A document that is nested deeper than anybody writes."""


# Each match consumes what it has looked at: the whole is linear, tomllib in a key's parts is not.
_KEYS = re.compile(
    rf"""((?:(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{MAX_TABLES}}})"""
    r"""|"(?:[^"\\\n]|\\.)*+"?|'[^'\n]*+'?|[\w-]++|[^\w"'-]++"""
)


def load_toml(text: str) -> dict[str, Any]:
    """TOML as a table. Raises TOMLDecodeError, or TooDeep."""
    deep = any(found[1] for found in _KEYS.finditer(text))
    try:
        level: list[Any] = [table := {} if deep else tomllib.loads(text)]
    except RecursionError:
        deep = True
    else:
        for _ in range(MAX_TABLES + 1):
            inner = (each.values() if isinstance(each, dict) else each for each in level)
            level = [one for values in inner for one in values if isinstance(one, dict | list)]
    if deep or level:
        raise TooDeep(f"tables more than {MAX_TABLES} deep")
    return table


def validate(model: type[M], value: dict[str, Any], where: str) -> M:
    """``value`` as ``model``. Raises ParameterError listing every problem."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = list[str]()
        for found in error.errors():
            several, got = found.get("ctx", {}).get("error"), found["input"]
            if isinstance(several, Problems):
                key = "".join(f"{part}." for part in found["loc"])
                problems += [f"{where}: {key}{problem}" for problem in several.problems]
            else:
                scalar = isinstance(got, str | int | float | bool | None)
                shown = repr(got) if scalar else type(got).__name__
                problems.append(f"{where}: {sentence(found, _EXPECTED, shown)}")
        raise ParameterError(problems) from error


_EXPECTED = {
    "missing": "expected a value, got none",
    "extra_forbidden": "expected no such key; remove it or correct its spelling",
    "string_type": "expected text in quotes",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
}


def sentence(error: ErrorDetails, known: Mapping[str, str], shown: str) -> str:
    """``key: expected X, got Y`` of what a model found; what is expected may be ``known`` by its type."""
    key = ".".join(map(str, error["loc"]))
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    expected = message if message.startswith("expected") else f"expected {message}"
    expected = known.get(error["type"], expected)
    if ", got" not in expected and error["type"] != "extra_forbidden":
        expected = f"{expected}, got {shown}"
    return f"{key}: {expected}" if key else expected


def project_path(path: str | Path) -> Path:
    """A path as written in a file of ours, relative ones against the project root."""
    return PROJECT / Path(path).expanduser()


# --- Kinds of text that files of ours hold: a commit, a name, an instant, a digest, severities ---


def matching(pattern: str, expected: str) -> AfterValidator:
    """Text of a pattern, or none."""

    def check(value: str) -> str:
        if value and not re.fullmatch(pattern, value):
            raise ValueError(expected)
        return value

    return AfterValidator(check)


# It becomes a folder of the store or a file of an attempt: no separators, no leading dot.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")
ATTEMPT = re.compile(rf"{NAME.pattern}/{NAME.pattern}/[0-9]{{4,9}}")
"""How logs name an attempt: RELEASE/STAGE/NUMBER."""


def parse_instant(text: str) -> datetime:
    """An ISO 8601 instant with its offset, as UTC. Raises ValueError."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("expected an instant such as 2026-01-31T12:00:00Z") from None
    if instant.tzinfo is None:
        raise ValueError("expected an instant with its offset, such as 2026-01-31T12:00:00Z")
    try:
        return instant.astimezone(UTC)
    except OverflowError:  # of no year that UTC has a number for
        raise ValueError(
            "expected an instant between the years 1 and 9999 in UTC, such as 2026-01-31T12:00:00Z"
        ) from None


def _instant(value: str) -> str:
    if value:
        parse_instant(value)
    return value


def _severities(value: list[str]) -> list[str]:
    missing = sorted(playbook.PAGING_SEVERITIES - set(value))
    if missing:
        raise ValueError(
            f"expected at least {sorted(playbook.PAGING_SEVERITIES)}, got none of {missing}"
        )
    return sorted(set(value))


Severities = Annotated[list[str], AfterValidator(_severities)]
Commit = Annotated[str, matching("[0-9a-f]{40}", "expected 40 lowercase hex digits of a commit")]
_CHARACTERS = "expected a name of letters, digits, '.', '_', '+' or '-'"
Name = Annotated[str, matching(NAME.pattern, _CHARACTERS)]
OwnName = Annotated[Name, Field(min_length=1)]
"""A name that must be there: of a node, a cluster, a site, an artifact, wherever it is read."""
Instant = Annotated[str, AfterValidator(_instant)]
_HASHED = "expected sha256: and 64 hex digits of a plan"
Digest = Annotated[str, matching("sha256:[0-9a-f]{64}", _HASHED)]

Number = Annotated[float, Field(allow_inf_nan=False)]


class Range(Strict):
    """Bounds, both inclusive; one may be absent."""

    min: Number | None = None
    max: Number | None = None

    @model_validator(mode="after")
    def _some(self) -> Range:
        if self.min is None and self.max is None:
            raise ValueError("expected min, max or both")
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError("expected min below max")
        return self

    def holds(self, value: float) -> bool:
        """Whether ``value`` lies inside; NaN never does."""
        above = self.min is None or value >= self.min
        below = self.max is None or value <= self.max
        return above and below and not isnan(value)
