"""The parameters of each stage, held to the playbook's floors: they may only tighten them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from . import playbook
from .canonical import digest
from .errors import ParameterError
from .strict import (
    Commit,
    Digest,
    Instant,
    Name,
    Severities,
    Strict,
    parse_instant,
    refused,
    validate,
)

if TYPE_CHECKING:
    from .evidence.events import Opened

# --- What a person may except, approved by another ---


class Excepted(Strict):
    """What a person may except; its digest is what an approval must quote.

    ``approval``: a file signed by a listed person, else a comment in the release issue is looked for.
    """

    reason: str = Field(min_length=10)
    approval: str = ""

    def digest(self, **about: str) -> str:
        """The whole of it, bound to what it is about."""
        body = self.model_dump(exclude={"approval"})
        return digest({type(self).__name__.lower(): body, **about})


class Waiver(Excepted):
    """A recorded acceptance of named rows of one item, until it expires: of a release and stage."""

    item: str
    subjects: list[str] = Field(min_length=1)
    outcome: Literal["FAIL", "INCONCLUSIVE"]
    expires: Instant = Field(min_length=1)

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


class Drop(Excepted):
    """A node left out of a plan under way: of that plan, its release and stage."""

    node: str = Field(min_length=1)


TOLD = frozenset({"summary", "impact", "mitigations", "next_steps"})
"""What people are told of an incident: written into the parameters that lie ready."""

PER_RUN = TOLD | {"waivers", "drops", "retry_reason", "as_of", "takeover_minutes"}
"""Parameters a run may change; an attempt fixes all others."""

VOLATILE = PER_RUN | {"mode", "approved_plan", "approvals", "attempt", "site"}
"""Parameters that are not intent: left out of the policy digest."""

_HOUR, _MINUTE = timedelta(hours=1), timedelta(minutes=1)
_BASELINE_HOURS = playbook.BASELINE_WINDOW / _HOUR


def _at_least(floor: float, most: float) -> Any:
    """A number of the playbook: the default, which may only rise."""
    return Field(default=floor, ge=floor, le=most)


def _at_most(limit: float, **least: Any) -> Any:
    """The same, which may only fall."""
    return Field(default=limit, le=limit, **least or {"gt": 0})


class StageParams(Strict):
    """Parameters every stage has. Empty ``site`` replays the recording that ships with us."""

    site: str = ""
    release: Name = ""
    commit: Commit = ""
    mode: Literal["plan", "apply"] = "plan"
    issue: int = Field(default=0, ge=0)
    attempt: int = Field(default=0, ge=0)
    as_of: Instant = ""
    retry_reason: str = ""
    waivers: list[Waiver] = []
    valid_for_minutes: float = _at_most(playbook.VALID_FOR / _MINUTE)
    max_missing: float = Field(default=playbook.MAX_MISSING, ge=0, le=playbook.MAX_MISSING)
    paging_severities: Severities = sorted(playbook.PAGING_SEVERITIES)

    @model_validator(mode="after")
    def _complete(self) -> StageParams:
        missing = [key for key in ("release", "commit") if self.site and not getattr(self, key)]
        return refused(self, [f"{key}: expected a value with a site, got none" for key in missing])

    @property
    def valid_for(self) -> timedelta:
        return timedelta(minutes=self.valid_for_minutes)

    def fixed(self) -> dict[str, Any]:
        """What an attempt fixes for all its runs."""
        return self.model_dump(mode="json", exclude=set(PER_RUN) | {"attempt"})

    def policy(self) -> dict[str, Any]:
        """What a plan's digest covers: intent, without mode and what only steers a run."""
        return self.model_dump(mode="json", exclude=set(VOLATILE))


class DevelopmentParams(StageParams):
    """Development: which build was there before, and how long a baseline to pin."""

    previous_release: Name = ""
    baseline_hours: float = _at_least(_BASELINE_HOURS, 30 * 24)


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
        return refused(self, problems)

    @property
    def window(self) -> tuple[datetime, datetime]:
        """The change window, in UTC."""
        return parse_instant(self.window_start), parse_instant(self.window_end)


class TestnetParams(RolloutParams):
    """Testnet: how long development must have soaked, and the epochs gossip is watched for."""

    __test__ = False  # its name is no test's

    soak_hours: float = _at_least(playbook.SOAK / _HOUR, 60 * 24)
    gossip_epochs: int = Field(default=1, ge=1, le=100)


class CanaryParams(RolloutParams):
    """Canary: the epochs testnet must have finalized, and those rewards are observed for."""

    clean_epochs: int = _at_least(playbook.TESTNET_EPOCHS, 1000)
    observe_epochs: int = _at_least(playbook.CANARY_OBSERVE_EPOCHS, 1000)


class MainnetParams(RolloutParams):
    """Mainnet: the canary epochs without a regression, and the watch that follows."""

    regression_epochs: int = _at_least(playbook.CANARY_CLEAN_EPOCHS, 1000)
    epochs_after_change: int = _at_least(playbook.CANARY_EPOCHS_AFTER_LAST_CHANGE, 1000)
    watch_hours: float = _at_least(playbook.MAINNET_WATCH / _HOUR, 60 * 24)
    look_minutes: float = _at_most(playbook.WATCH_LOOK_EVERY / _MINUTE, ge=1)
    engage_minutes: float = _at_most(playbook.ENGAGE_WITHIN / _MINUTE)


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
        problems = list[str]()
        if self.break_glass and len(self.break_glass.strip()) < 10:
            problems.append("break_glass: expected a reason of at least 10 characters, got less")
        if len(set(self.nodes)) != len(self.nodes):
            problems.append("nodes: expected every node once, got one twice")
        return refused(self, problems)


def way_back(opened: Opened) -> dict[str, Any]:
    """The parameters of the recovery that undoes an attempt, by what its log was opened with."""
    fixed, kept = opened.params, ("site", "release", "commit", "issue", "previous_release")
    logged = {key: fixed[key] for key in kept if key in fixed}
    return {**logged, "mode": "apply", "undoes": opened.attempt}


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


def taken(stage: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of ``stage`` out of a notebook's names. Raises ParameterError listing problems.

    A name that differs from a parameter's by a letter or two was meant to be it.
    """
    known = STAGE_PARAMS[stage].model_fields
    problems = [
        f"parameters cell: {name}: expected a value, got none; run the cell first"
        for name in known
        if name not in namespace
    ]
    for name in namespace:
        if name not in known and (near := get_close_matches(name, known, n=1, cutoff=0.85)):
            problems.append(f"parameters cell: {name}: expected no such name; write {near[0]}")
    if problems:
        raise ParameterError(problems)
    return {name: namespace[name] for name in known}
