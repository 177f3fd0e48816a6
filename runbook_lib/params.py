"""What a person configures: stage parameters, read strictly and held to the playbook's floors.

Every problem is reported at once as ``file: dotted.key: expected X, got Y``. The site file's model
is in ``site.py``; relative paths there and here start at the project root, never the working
directory (papermill, nbval and JupyterLab each have another).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from . import playbook
from .canonical import digest
from .errors import ParameterError
from .outcomes import Outcome

PROJECT = Path(__file__).resolve().parent.parent
MAX_FILE = 1_000_000
MAX_DEPTH = 50
VOLATILE = frozenset(
    {
        "mode",
        "approved_plan",
        "approvals",
        "attempt",
        "wait",
        "waivers",
        "drops",
        "retry_reason",
        "as_of",
        "site",
        "takeover_minutes",
        "summary",
        "impact",
        "mitigations",
        "next_steps",
    }
)
"""Parameters that are not intent: left out of the policy digest."""

PER_TRY = frozenset(
    {"wait", "waivers", "drops", "retry_reason", "as_of"}
    | {"takeover_minutes", "summary", "impact", "mitigations", "next_steps"}
)
"""Parameters a try may change; an attempt fixes all others."""


class Problems(ValueError):
    """Several problems found by one validator, each ``key: expected X, got Y``."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


M = TypeVar("M", bound=BaseModel)


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
        _refuse_traps(text)
        value = yaml.load(text, _UniqueKeys)  # noqa: S506 - derives from the safe loader
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, TypeError, ValueError) as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ParameterError(f"{where}:{line} expected YAML, got: {problem}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ParameterError(f"{where}: expected a mapping of names, got {type(value).__name__}")
    return value


def _refuse_traps(text: bytes) -> None:
    """Aliases hide what a file says and expand without bound; the loader crashes on deep nesting."""
    depth = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > MAX_DEPTH:
            trap = (
                f"nesting deeper than {MAX_DEPTH}"
                if depth > MAX_DEPTH
                else "an alias; write it out"
            )
            mark = event.start_mark
            raise yaml.MarkedYAMLError(problem=trap, problem_mark=mark)  # type: ignore[arg-type]


def validate(model: type[M], value: dict[str, Any], where: str) -> M:
    """``value`` as ``model``. Raises ParameterError listing every problem."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = [line for found in error.errors() for line in _problems(where, found)]
        raise ParameterError(problems) from error


_EXPECTED = {
    "missing": "expected a value, got none",
    "string_type": "expected text in quotes",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
}


def _problems(where: str, error: ErrorDetails) -> list[str]:
    several = error.get("ctx", {}).get("error")
    if isinstance(several, Problems):
        key = "".join(f"{part}." for part in error["loc"])
        return [f"{where}: {key}{problem}" for problem in several.problems]
    return [_problem(where, error)]


def _problem(where: str, error: ErrorDetails) -> str:
    key = ".".join(str(part) for part in error["loc"])
    kind, got = error["type"], error["input"]
    prefix = f"{where}: {key}" if key else where
    if kind == "extra_forbidden":
        return f"{prefix}: expected no such key; remove it or correct its spelling"
    if kind == "missing":
        return f"{prefix}: {_EXPECTED[kind]}"
    expected = _EXPECTED.get(kind)
    if expected is None:
        message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        expected = message if message.startswith("expected") else f"expected {message}"
    shown = repr(got) if isinstance(got, str | int | float | bool | None) else type(got).__name__
    return (
        f"{prefix}: {expected}, got {shown}" if ", got" not in expected else f"{prefix}: {expected}"
    )


def project_path(path: str | Path) -> Path:
    """A path as written in a file of ours, relative ones against the project root."""
    return PROJECT / Path(path).expanduser()


def _hex40(value: str) -> str:
    if value and not re.fullmatch(r"[0-9a-f]{40}", value):
        raise ValueError("expected 40 lowercase hex digits of a commit")
    return value


# It becomes a folder of the store: no separators, no leading dot.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")


def _name(value: str) -> str:
    if value and not NAME.fullmatch(value):
        raise ValueError("expected a name of letters, digits, '.', '_', '+' or '-'")
    return value


def parse_instant(text: str) -> datetime:
    """An ISO 8601 instant with its offset, as UTC. Raises ValueError."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("expected an instant such as 2026-01-31T12:00:00Z") from None
    if instant.tzinfo is None:
        raise ValueError("expected an instant with its offset, such as 2026-01-31T12:00:00Z")
    return instant.astimezone(UTC)


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


def _digest(value: str) -> str:
    if value and not re.fullmatch(r"sha256:[0-9a-f]{64}", value):
        raise ValueError("expected sha256: and 64 hex digits of a plan")
    return value


_HOUR = timedelta(hours=1)
_VALID_FOR = playbook.VALID_FOR / timedelta(minutes=1)
_BASELINE_HOURS = playbook.BASELINE_WINDOW / _HOUR
_SOAK_HOURS = playbook.SOAK / _HOUR
_WATCH_HOURS = playbook.MAINNET_WATCH / _HOUR
_LOOK_MINUTES = playbook.WATCH_LOOK_EVERY / timedelta(minutes=1)
_ENGAGE_MINUTES = playbook.ENGAGE_WITHIN / timedelta(minutes=1)
Severities = Annotated[list[str], AfterValidator(_severities)]
Commit = Annotated[str, AfterValidator(_hex40)]
Name = Annotated[str, AfterValidator(_name)]
Instant = Annotated[str, AfterValidator(_instant)]
Digest = Annotated[str, AfterValidator(_digest)]


class Waiver(Strict):
    """A recorded acceptance of named rows of one item, until it expires.

    Its digest is what an approval must quote (``approval``: a file signed by a listed person, else
    a comment in the release issue is looked for).
    """

    item: str
    subjects: list[str] = Field(min_length=1)
    outcome: Literal["FAIL", "INCONCLUSIVE"]
    reason: str = Field(min_length=10)
    expires: Instant = Field(min_length=1)
    approval: str = ""

    @model_validator(mode="after")
    def _waivable(self) -> Waiver:
        item = playbook.ITEMS.get(self.item)
        if item is None:
            raise ValueError(f"expected an item of the playbook, got {self.item!r}")
        if not item.waivable:
            raise ValueError(f"expected an item that may be waived; {self.item} never is")
        if any(not subject.strip() for subject in self.subjects):
            raise ValueError("expected the subject of every row it covers, got an empty one")
        return self

    def digest(self, release: str, stage: str) -> str:
        """What an approval quotes: the whole waiver, bound to one release and stage."""
        body = self.model_dump(exclude={"approval"})
        return digest({"waiver": body, "release": release, "stage": stage})

    @property
    def waived_outcome(self) -> Outcome:
        return Outcome(self.outcome)


class Drop(Strict):
    """A node left out of a plan under way, for a reason, on somebody else's word.

    Its digest is what the approval must quote, as a waiver's.
    """

    node: str = Field(min_length=1)
    reason: str = Field(min_length=10)
    approval: str = ""

    def digest(self, plan: str, release: str, stage: str) -> str:
        """What an approval quotes: the node and the reason, bound to one plan."""
        body = self.model_dump(exclude={"approval"})
        return digest({"drop": body, "plan": plan, "release": release, "stage": stage})


class StageParams(Strict):
    """Parameters every stage has. Empty ``site`` replays the recording that ships with us."""

    site: str = ""
    release: Name = ""
    commit: Commit = ""
    mode: Literal["plan", "apply"] = "plan"
    issue: int = Field(default=0, ge=0)
    attempt: int = Field(default=0, ge=0)
    as_of: Instant = ""
    wait: bool = False
    retry_reason: str = ""
    waivers: list[Waiver] = []
    valid_for_minutes: float = Field(default=_VALID_FOR, gt=0, le=_VALID_FOR)
    max_missing: float = Field(default=playbook.MAX_MISSING, ge=0, le=playbook.MAX_MISSING)
    paging_severities: Severities = sorted(playbook.PAGING_SEVERITIES)

    @model_validator(mode="after")
    def _complete(self) -> StageParams:
        if self.site:
            missing = [key for key in ("release", "commit") if not getattr(self, key)]
            if missing:
                raise Problems(
                    [f"{key}: expected a value with a site, got none" for key in missing]
                )
        return self

    @property
    def valid_for(self) -> timedelta:
        return timedelta(minutes=self.valid_for_minutes)

    def fixed(self) -> dict[str, Any]:
        """What an attempt fixes for all its tries."""
        return self.model_dump(mode="json", exclude=set(PER_TRY) | {"attempt"})

    def policy(self) -> dict[str, Any]:
        """What a plan's digest covers: intent, without mode and what only steers a run."""
        return self.model_dump(mode="json", exclude=set(VOLATILE))


class DevelopmentParams(StageParams):
    """Development: which build was there before, and how long a baseline to pin."""

    previous_release: Name = ""
    baseline_hours: float = Field(default=_BASELINE_HOURS, ge=_BASELINE_HOURS, le=30 * 24)


class RolloutParams(StageParams):
    """Stages on clusters that others rely on: inside a window, by a plan that others approved."""

    previous_release: Name = ""
    approved_plan: Digest = ""
    approvals: list[str] = []
    window_start: Instant = ""
    window_end: Instant = ""
    notice_hours: float = Field(default=playbook.NOTICE / _HOUR, ge=0, le=60 * 24)
    minutes_per_node: float = Field(default=playbook.MINUTES_PER_NODE, gt=0, le=24 * 60)
    max_down: float = Field(default=playbook.MAX_DOWN, gt=0, lt=1 / 3)
    # An hour is a floor: how bad a bad minute usually is (p95) takes several to tell.
    baseline_hours: float = Field(default=8.0, ge=_BASELINE_HOURS, le=30 * 24)
    drops: list[Drop] = []

    @model_validator(mode="after")
    def _rollout(self) -> RolloutParams:
        if not self.site:
            return self
        problems = [
            f"{key}: expected an instant with a site, got none"
            for key in ("window_start", "window_end")
            if not getattr(self, key)
        ]
        if not problems and parse_instant(self.window_end) <= parse_instant(self.window_start):
            problems.append(f"window_end: expected it after the start, got {self.window_end}")
        if self.mode == "apply" and not self.approved_plan:
            problems.append(
                "approved_plan: expected the digest of an approved plan with mode: apply, got none;"
                " run with mode: plan first and have its digest approved"
            )
        if problems:
            raise Problems(problems)
        return self

    @property
    def window(self) -> tuple[datetime, datetime]:
        """The change window, in UTC."""
        return parse_instant(self.window_start), parse_instant(self.window_end)


class TestnetParams(RolloutParams):
    """Testnet: how long development must have soaked, and the epochs gossip is watched for."""

    __test__ = False  # its name is no test's

    soak_hours: float = Field(default=_SOAK_HOURS, ge=_SOAK_HOURS, le=60 * 24)
    gossip_epochs: int = Field(default=1, ge=1, le=100)


class CanaryParams(RolloutParams):
    """Canary: the epochs testnet must have finalized, and those rewards are observed for."""

    clean_epochs: int = Field(default=playbook.TESTNET_EPOCHS, ge=playbook.TESTNET_EPOCHS, le=1000)
    observe_epochs: int = Field(
        default=playbook.CANARY_OBSERVE_EPOCHS, ge=playbook.CANARY_OBSERVE_EPOCHS, le=1000
    )


class MainnetParams(RolloutParams):
    """Mainnet: the canary epochs without a regression, and the watch that follows."""

    regression_epochs: int = Field(
        default=playbook.CANARY_CLEAN_EPOCHS, ge=playbook.CANARY_CLEAN_EPOCHS, le=1000
    )
    epochs_after_change: int = Field(
        default=playbook.CANARY_EPOCHS_AFTER_LAST_CHANGE,
        ge=playbook.CANARY_EPOCHS_AFTER_LAST_CHANGE,
        le=1000,
    )
    watch_hours: float = Field(default=_WATCH_HOURS, ge=_WATCH_HOURS, le=60 * 24)
    look_minutes: float = Field(default=_LOOK_MINUTES, gt=0, le=_LOOK_MINUTES)
    engage_minutes: float = Field(default=_ENGAGE_MINUTES, gt=0, le=_ENGAGE_MINUTES)


class RecoveryParams(StageParams):
    """The way back from an apply: which one, which nodes, and what people are told.

    ``nodes`` empty are all that the plan changed, ``undoes`` 0 the newest apply; ``break_glass`` is
    the reason for what nobody approved beforehand. No item of a recovery can be waived.
    """

    previous_release: Name = ""
    nodes: list[str] = []
    undoes: int = Field(default=0, ge=0)
    break_glass: str = ""
    takeover_minutes: float = Field(default=10.0, gt=0, le=24 * 60)
    summary: str = ""
    impact: str = ""
    mitigations: list[str] = []
    next_steps: list[str] = []

    @model_validator(mode="after")
    def _recovery(self) -> RecoveryParams:
        problems = []
        if self.break_glass and len(self.break_glass.strip()) < 10:
            problems.append("break_glass: expected a reason of at least 10 characters, got less")
        if len(set(self.nodes)) != len(self.nodes):
            problems.append("nodes: expected every node once, got one twice")
        if problems:
            raise Problems(problems)
        return self


class PreflightParams(StageParams):
    """The common preflight of ``stage``, run on its own: always a plan."""

    stage: Literal["development", "testnet", "canary", "mainnet"] = "development"
    mode: Literal["plan"] = "plan"


class ReportParams(StageParams):
    """The report of a release: always a plan, as it changes nothing."""

    mode: Literal["plan"] = "plan"


STAGE_PARAMS: dict[str, type[StageParams]] = {
    playbook.REPORT: ReportParams,
    playbook.PREFLIGHT: PreflightParams,
    "development": DevelopmentParams,
    "testnet": TestnetParams,
    "canary": CanaryParams,
    "mainnet": MainnetParams,
    **dict.fromkeys(playbook.RECOVERY, RecoveryParams),
}


def promoted(runbook: str, params: StageParams) -> str:
    """The playbook's stage that a runbook is about: the preflight's is a parameter."""
    if isinstance(params, ReportParams):
        return playbook.STAGES[-1]
    if isinstance(params, PreflightParams):
        return params.stage
    return playbook.RECOVERY.get(runbook, runbook)


def stage_params(stage: str, values: dict[str, Any], where: str) -> StageParams:
    """The parameters of a stage. Raises ParameterError listing every problem."""
    return validate(STAGE_PARAMS[stage], values, where)
