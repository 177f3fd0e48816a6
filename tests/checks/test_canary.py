"""What the checks of gates make of numbers, of who has one, of a plan and of a candidate."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.canonical import digest_bytes
from runbook_lib.checks import activation_proof, canary, testnet
from runbook_lib.checks.activation_proof import Counted, _off, _on, gated, judge_proof
from runbook_lib.checks.canary import PER_BLOCK, _dry, _gain, _hashes, _slashing, votes
from runbook_lib.checks.epochs import Span
from runbook_lib.errors import Answers, SourceError
from runbook_lib.outcomes import Outcome, Row
from runbook_lib.plan import NodeState, Plan
from runbook_lib.sources.commands import NodeConfig, ToolVerdict
from runbook_lib.sources.node import Consensus
from runbook_lib.sources.redact import MARK

from ..changes.plans import node, phase, plan
from .conftest import Bare, Bench

START = datetime(2026, 3, 1, tzinfo=UTC)
EPOCH = Span("epoch 7", START, START + timedelta(hours=1))
GATE = "timetoke_rewards"


DOWN = SourceError("a", "down")


def consensus(height: int, digest: str, slashed: int = 0) -> Consensus:
    return Consensus(
        height=height, block_hash=digest, total_power="9", quorum_threshold="7",
        commit_power="9", quorum_reached=True, slashing_events=slashed,
    )  # fmt: skip


# --- the ledger -----------------------------------------------------------------------------------


@given(gain=st.integers(-1000, 1000), blocks=st.integers(0, 100), off=st.booleans())
def test_no_credit_passes_that_the_formula_does_not_allow(
    gain: int, blocks: int, off: bool
) -> None:
    context: Any = Bare()
    _gain(context, "n", 0, blocks * PER_BLOCK, blocks, off=False, wanted=False)
    _gain(context, "n", gain, blocks * PER_BLOCK, blocks, off=off, wanted=True)
    [row] = context.findings

    if gain < 0:
        assert row.outcome is Outcome.INCONCLUSIVE
    elif off:
        assert row.outcome is (Outcome.FAIL if gain else Outcome.PASS)
    elif gain == 0:
        assert (row.outcome, row.observed) == (Outcome.INCONCLUSIVE, "0: no effect")
    else:
        assert row.outcome is (Outcome.PASS if gain <= blocks * PER_BLOCK else Outcome.FAIL)


# --- blocks and slashing --------------------------------------------------------------------------


def test_the_node_with_another_block_is_named() -> None:
    said = [consensus(9, "x"), consensus(9, "x"), consensus(9, "y"), consensus(8, "w"), DOWN]
    split, alike = _hashes(Answers(Mock(side_effect=said), "abcde"))

    assert split == {"c": ("block 9", "x", "y")}
    assert alike == {"a", "b"}


@pytest.mark.parametrize(
    ("now", "outcome"),
    [(2, Outcome.PASS), (3, Outcome.FAIL), (1, Outcome.INCONCLUSIVE)],
)
def test_slashing_is_counted_since_the_change(now: int, outcome: Outcome) -> None:
    context: Any = Bare()
    said = [consensus(9, "x", now), consensus(9, "x", min(now, 2))]
    _slashing(context, Answers(Mock(side_effect=said), "ab"), 2)
    _slashing(context, Answers(Mock(side_effect=[DOWN]), "a"), 0)
    row, silent = context.findings

    assert (row.outcome, silent.outcome) == (outcome, Outcome.INCONCLUSIVE)


# --- traffic --------------------------------------------------------------------------------------


def rates(values: list[float]) -> pd.DataFrame:
    index = pd.date_range(START, periods=len(values), freq="60s")
    return pd.DataFrame({"n": values}, index=index)


@pytest.mark.parametrize(
    ("values", "counted"),
    [
        ([np.nan] * 61, Counted(0.0, False, False)),
        ([0.2] * 50 + [np.nan] * 11, Counted(720.0, False, True)),
        ([0.0] * 61, Counted(0.0, True, True)),
        ([9.0] * 3 + [0.2] * 58, Counted(720.0, True, True)),  # from before the span, not counted
    ],
)
def test_what_is_missing_is_not_covered(values: list[float], counted: Counted) -> None:
    assert activation_proof.counted(rates(values), "n", EPOCH, 0.02) == counted
    assert activation_proof.counted(rates(values), "other", EPOCH, 0.02) == Counted(
        0.0, False, False
    )


@pytest.mark.parametrize(
    ("seen", "outcome", "observed"),
    [
        (Counted(700.0, True, True), Outcome.PASS, 700.0),
        (Counted(700.0, False, True), Outcome.INCONCLUSIVE, "too many points missing"),
        (Counted(0.0, True, True), Outcome.INCONCLUSIVE, f"0: {GATE} is on without effect"),
        (Counted(0.0, False, False), Outcome.INCONCLUSIVE, f"no series: {GATE} is on without effect"),
    ],
)  # fmt: skip
def test_a_flag_is_not_a_feature(seen: Counted, outcome: Outcome, observed: object) -> None:
    context: Any = Bare()
    _on(context, "n", GATE, EPOCH, seen)
    [row] = context.findings

    assert (row.outcome, row.observed) == (outcome, observed)


@pytest.mark.parametrize(
    ("seen", "told", "outcome"),
    [
        (Counted(0.0, False, False), Counted(720.0, True, True), Outcome.PASS),
        (Counted(0.0, False, False), Counted(720.0, False, True), Outcome.INCONCLUSIVE),
        (Counted(1.0, False, True), Counted(0.0, False, False), Outcome.FAIL),
    ],
)
def test_silence_of_a_gate_that_is_off_needs_a_node_that_tells(
    seen: Counted, told: Counted, outcome: Outcome
) -> None:
    """Absent series prove nothing of a node whose telemetry is absent too; traffic disproves."""
    context: Any = Bare()
    _off(context, "n", GATE, EPOCH, seen, told)
    assert [row.outcome for row in context.findings] == [outcome]


# --- votes ----------------------------------------------------------------------------------------


@pytest.fixture
def voted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Rows of the canaries' votes where validators vote at some rates; one called o* is none."""

    def rows(rates: dict[str, float], *canaries: str) -> list[Row]:
        index = pd.date_range(START, periods=61, freq="60s")
        frame = pd.DataFrame({name: [rate] * 61 for name, rate in rates.items()}, index=index)
        monkeypatch.setattr(canary, "counters", lambda *given: ["votes_count"])
        monkeypatch.setattr(canary, "traffic", lambda *given: frame)
        nodes = [SimpleNamespace(name=n, validator="" if n[0] == "o" else n) for n in rates]
        cluster, params = SimpleNamespace(nodes=nodes), SimpleNamespace(max_missing=0.02)
        context: Any = Bare(cluster=cluster, params=params)
        votes(context, canaries, [EPOCH])
        return list(context.findings)

    return rows


@pytest.mark.parametrize(
    ("rates", "canaries"),
    [
        ({"a": 0.4, "b": 1.0, "c": 1.0}, "a"),
        ({"a": 0.4, "b": 1.0, "c": 1.0, "o1": np.nan, "o2": np.nan, "o3": np.nan}, "a"),
        ({"a": 0.4, "b": 0.4, "c": 0.4, "d": 1.0, "e": 1.0}, "abc"),
        ({"a": 0.4, "b": 1.0, "c": 1.0, "d": np.nan, "e": np.nan}, "a"),
    ],
    ids=["alone", "beside nodes that do not vote", "among many", "beside unknown ones"],
)
def test_a_canary_is_held_to_the_validators_that_are_none(
    voted: Any, rates: dict[str, float], canaries: str
) -> None:
    found = [
        (row.subject, row.expected, row.observed, row.outcome) for row in voted(rates, *canaries)
    ]

    expected = "at least 3240, 90% of the median validator's"
    assert found == [(name, expected, 1440.0, Outcome.FAIL) for name in canaries]
    [row] = voted({"a": 1.0, "b": 1.0, "c": np.nan, "d": np.nan}, "a")
    got = "votes are counted of 1 of 3 other validators"
    assert (row.outcome, row.observed) == (Outcome.INCONCLUSIVE, got)


# --- who has the gate -----------------------------------------------------------------------------


def test_who_has_a_gate_is_the_plans_to_say() -> None:
    nodes = (
        node(name, with_gates(**{GATE: False}), with_gates(**{GATE: name != "c"}))
        for name in ("a", "b", "c")
    )
    untouched = {"d": with_gates(**{GATE: True}), "e": with_gates(**{GATE: False})}
    made = plan(phase("x", "gates", nodes, (("a", "b", "c"),)), untouched=untouched)

    assert gated(made, "x", GATE) == (["a", "b"], ["d"], ["e", "c"])


# --- the candidate on a canary --------------------------------------------------------------------

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
TOML = b"block_time_ms = 5000\n"
PLAIN = NodeConfig(TOML, digest_bytes(TOML), TOML)


def context(tmp_path: Path, **answers: Any) -> Any:
    """A context whose commands give these answers; an error is raised."""

    def answer(purpose: str) -> Any:
        def given(subject: Any) -> Any:
            answered.append((purpose, subject))
            if isinstance(answers[purpose], SourceError):
                raise answers[purpose]
            return answers[purpose]

        return given

    answered: list[tuple[str, Any]] = []
    for folder in ("attempt", "private"):
        (tmp_path / folder).mkdir(exist_ok=True)
    commands = SimpleNamespace(**{purpose: answer(purpose) for purpose in answers})
    return Bare(
        commands=commands,
        folder=tmp_path / "attempt",
        private=tmp_path / "private",
        answered=answered,
    )


@pytest.mark.parametrize(
    ("config", "verdict", "observed"),
    [
        (SourceError("read_config main-1", "no answer"), ToolVerdict(True, ""), "no answer"),
        (PLAIN, SourceError("dry_run main-1", "it broke"), "it broke"),
    ],
)
def test_a_configuration_nobody_judged_is_no_proof(
    tmp_path: Path, config: Any, verdict: Any, observed: str
) -> None:
    made = context(tmp_path, read_config=config, dry_run=verdict)
    _dry(made, "main-1")
    [row] = made.findings

    assert (row.subject, row.outcome, row.observed) == ("main-1", INCONCLUSIVE, observed)


def test_a_configuration_with_secrets_is_judged_outside_the_evidence(tmp_path: Path) -> None:
    raw, text = b'secret_key = "hunter22"\n', f'secret_key = "{MARK}"\n'.encode()
    config = NodeConfig(text, digest_bytes(raw), raw)
    made = context(tmp_path, read_config=config, dry_run=ToolVerdict(True, ""))

    _dry(made, "main-1")
    assert made.findings[0].outcome is PASS
    file = made.answered[-1][1]
    assert file.parent == tmp_path / "private"
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (raw, 0o600)
    assert (tmp_path / "attempt" / "candidates" / "candidate-main-1.toml").read_bytes() == text


# --- gates by the plan: what a stage turns on is on afterwards, whatever the bundle says ----------


MALACHITE, REWARDS, TURNED = "malachite_consensus", "timetoke_rewards", "testnet.activate.gate"


def with_gates(**gates: bool) -> NodeState:
    return NodeState(gates=gates, channel="testnet", binary="sha256:b", config="sha256:c")


def turning(before: dict[str, bool], after: dict[str, bool]) -> Plan:
    return plan(phase(TURNED, "gates", [node("n", with_gates(**before), with_gates(**after))]))


@pytest.mark.parametrize(
    ("before", "after", "outcome", "reason"),
    [
        ({MALACHITE: False}, {MALACHITE: True}, PASS, f"1 nodes: {MALACHITE} only; rewards and witness networking stay off"),
        ({MALACHITE: True}, {MALACHITE: True}, PASS, f"1 nodes: {MALACHITE} only; rewards and witness networking stay off"),
        ({MALACHITE: False}, {MALACHITE: False}, FAIL, f"n: rollout.feature_gates.{MALACHITE}: expected true, got false"),
        ({MALACHITE: True}, {MALACHITE: False}, FAIL, f"n: rollout.feature_gates.{MALACHITE}: expected true, got false"),
        ({}, {}, FAIL, f"n: rollout.feature_gates.{MALACHITE}: expected true, got false"),
        ({MALACHITE: True, REWARDS: True}, {MALACHITE: True, REWARDS: True}, FAIL, f"n: rollout.feature_gates.{REWARDS}: expected false, got true"),
    ],
)  # fmt: skip
def test_testnet_ends_with_its_gate_on_and_the_others_off(
    bench: Bench, before: Any, after: Any, outcome: Outcome, reason: str
) -> None:
    bench.patch.setattr(testnet, "plan", lambda context, keep: turning(before, after))

    found = bench.judge(testnet.gates, "testnet")

    assert (found.outcome, found.reason) == (outcome, reason)


def test_a_gate_that_the_change_turns_on_nowhere_has_no_effect_to_prove() -> None:
    at = datetime(2026, 12, 1, 12, tzinfo=UTC)
    context: Any = Bare(plan=turning({}, {}), now=at)

    judge_proof(context, TURNED, REWARDS, at - timedelta(hours=1))
    [found] = context.findings

    assert (found.subject, found.what, found.observed) == (REWARDS, "effect", "none by the plan")
    assert found.outcome is INCONCLUSIVE
