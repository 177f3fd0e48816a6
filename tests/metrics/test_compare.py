"""Comparing two windows: what is comparable, and by which rule."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from runbook_lib.errors import SourceError
from runbook_lib.metrics import baseline
from runbook_lib.metrics.baseline import About, Measured
from runbook_lib.metrics.catalogue import LOAD, Catalogue, Metric, parse_catalogue
from runbook_lib.metrics.compare import Compared, compare, rule_of
from runbook_lib.metrics.frames import STEP, cut
from runbook_lib.outcomes import Outcome
from runbook_lib.strict import PROJECT

from .samples import judge

START = datetime(2026, 3, 1, tzinfo=UTC)
WEEK = 10_080
NAME, LOADED = "round_duration", "transaction_load"
CATALOGUE = parse_catalogue((PROJECT / "params/metrics.yaml").read_bytes(), "params/metrics.yaml")
METRICS = {metric.name: metric for metric in CATALOGUE.metrics}
# A healthy cluster's levels, in each metric's unit.
LEVELS = {
    "round_duration": 400.0, "quorum_latency": 160.0, "vote_latency": 97.0,
    "block_production": 0.97, "missed_slots": 6.0, "finality_lag": 2.0, "proof_latency": 200.0,
    "proof_queue_depth": 4.0, "vrf_participation": 0.95, "witness_gossip": 3.0,
    "reward_distribution": 0.2, "timetoke_replay": 0.02, "peers": 0.95,
    "validator_set_changes": 1.0, "telemetry_freshness": 8.0, "gossip_drops": 2.0,
    "validator_gossip": 30.0,
}  # fmt: skip


ABOUT: Any = {"release": "v1", "cluster": "development", "epoch_length": 720}


def noise(seed: int, level: float = 400.0, points: int = 481) -> NDArray[np.float64]:
    """White noise with a sd of 5 % of ``level``."""
    return level * (1 + 0.05 * np.random.default_rng(seed).standard_normal(points))


def measured(seed: int, level: float = 400.0, *, series: str = "{}", **about: object) -> Measured:
    values = noise(seed, level)
    grid = pd.date_range(START, periods=len(values), freq=STEP, unit="ms")
    window = {"start": START, "end": START + STEP * (len(values) - 1)}
    facts = About(digest="sha256:0", validators=4, load=18.0, **window, **ABOUT)
    frame = pd.DataFrame({series: values}, index=grid)
    return Measured(facts.model_copy(update=about), {NAME: "up", LOADED: "asked"}, {NAME: frame})


def compared(
    baseline: Measured, current: Measured, catalogue: Catalogue = CATALOGUE, **more: Any
) -> Compared:
    metrics = [metric for metric in catalogue.metrics if metric.name in baseline.frames]
    given = {"max_missing": 0.02, "names": {}, "load": catalogue.load, **more}
    [found] = compare(metrics, baseline, current, **given)
    return found


def outcome(found: Compared) -> Outcome:
    """Of the one series."""
    [row] = found.rows("no worse")
    return row.outcome


# --- judged ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (measured(2, validators=5), "validators: 4 in the baseline, 5 now"),
        (measured(2, epoch_length=360), "epoch length: 720 in the baseline, 360 now"),
        (measured(2, cluster="testnet"), "cluster: development in the baseline, testnet now"),
        (measured(2, load=None), "load: 18 tx/s in the baseline, unknown now"),
        *((measured(2, load=load), f"load: 18 tx/s in the baseline, {load:g} tx/s now, more than 25 % apart")
          for load in (23.0, 13.0)),
        # The chain exports the same thing under several names, which need not agree.
        (replace(measured(2), queries={NAME: "old"}), "query: up in the baseline, old now"),
        (replace(measured(2), queries={}, frames={}), "query: up in the baseline, none now"),
        (measured(2, series='{node="a"}'), 'series: {} only in the baseline, {node="a"} only now'),
        (replace(measured(2), queries={NAME: "up", LOADED: "counted"}), "load: measured by asked in the baseline, by counted now"),
    ],
)  # fmt: skip
def test_another_world_is_not_judged(now: Measured, why: str) -> None:
    found = compared(measured(1), now)

    [row] = found.rows("no regression", lambda points: None)
    assert (row.outcome, row.observed) == (Outcome.INCONCLUSIVE, f"not comparable: {why}")


def test_without_a_load_in_the_catalogue_nothing_is_judged() -> None:
    found = compared(measured(1), measured(2), Catalogue(metrics=[METRICS[NAME]]))

    said = "load: expected a metric of topic load in the catalogue, got none"
    assert found.incomparable == said


def test_a_load_within_its_tolerance_is_alike() -> None:
    assert outcome(compared(measured(1), measured(2, load=22.0))) is Outcome.PASS


def test_what_was_not_pinned_is_not_judged() -> None:
    [found] = compare([METRICS["peers"]], measured(1), measured(2), load=METRICS[LOADED], names={})

    assert found.incomparable == "none of it was pinned"


def test_what_only_time_would_decide_says_how_much() -> None:
    short = measured(2)
    short.frames[NAME] = short.frames[NAME].iloc[:60]  # type: ignore[index]

    due = START + timedelta(hours=1)
    [row] = compared(measured(1), short).rows("no worse", lambda points: START + points * STEP)
    assert str(row.observed).endswith("about 60 more points would decide it")
    assert row.return_at == due


def test_planned_restarts_are_cut_out() -> None:
    frame = measured(1).frames[NAME]
    stretch = (START + 10 * STEP, START + 15 * STEP)

    assert len(cut(frame, [stretch])) == len(frame) - 5
    spoiled = measured(2)
    spoiled.frames[NAME].iloc[10:15] = 9999.0
    assert outcome(compared(measured(1), spoiled, restarts=[stretch])) is Outcome.PASS


# --- canaries -------------------------------------------------------------------------------------


def votes(seed: int, changed: float = 1.0, weather: float = 1.0) -> Measured:
    """Vote latencies of five validators, the first's ``changed``, in the same weather."""
    values = [noise(seed + number, 97.0) * weather for number in range(5)]
    values[0] = values[0] * changed
    grid = pd.date_range(START, periods=len(values[0]), freq=STEP, unit="ms")
    named = {f'{{validator="v{number}"}}': each for number, each in enumerate(values)}
    frame = pd.DataFrame(named, index=grid)
    return Measured(measured(1).about, {"vote_latency": "up"}, {"vote_latency": frame})


def canary(baseline: Measured, current: Measured, *canaries: str, paired: bool = False) -> Compared:
    names = {f"v{number}": f"node-{number}" for number in range(5)}
    return compared(baseline, current, names=names, canaries=canaries, paired=paired)


def test_canaries_that_are_nowhere_are_no_pass() -> None:
    everyone = [f"node-{number}" for number in range(5)]

    for canaries, said in (
        (["node-9"], "canaries: none of the series is of one"),
        (["node-0", "node-9"],
         "canaries: expected a series of each, got none of node-9"),
    ):  # fmt: skip
        assert canary(votes(1), votes(20), *canaries).incomparable == said
    judged = canary(votes(1), votes(20), *everyone, paired=True).judgements
    alone = "location not judged: baseline: rest of the set: nobody to compare with"
    assert {each.reason for each in judged} == {alone}


# --- the shipped catalogue ------------------------------------------------------------------------


def autocorrelated(seed: int, metric: Metric) -> NDArray[np.float64]:
    """A week of AR(1), phi 0.9, sd 15 %, inside the metric's bounds."""
    from scipy.signal import lfilter

    shocks = np.random.default_rng(seed).standard_normal(WEEK) * np.sqrt(1 - 0.9**2)
    values = LEVELS[metric.name] * (1 + 0.15 * lfilter([1.0], [1.0, -0.9], shocks))
    bounds = (metric.bounds.min, metric.bounds.max) if metric.bounds else (None, None)
    return np.asarray(np.clip(values, *bounds) if metric.bounds else values)


@pytest.mark.parametrize(
    "metric",
    [metric for metric in CATALOGUE.metrics if metric.topic != LOAD],
    ids=lambda metric: metric.name,
)
def test_a_healthy_week_passes(metric: Metric) -> None:
    rule = rule_of(metric, max_missing=0.02, looks=12, look=12)

    found = judge(autocorrelated(1, metric), autocorrelated(2, metric), rule, metric.name)

    assert found.outcome is Outcome.PASS, found.reason


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("block_production", 1.0), ("missed_slots", 0.0), ("finality_lag", 0.0),
        ("proof_queue_depth", 0.0), ("vrf_participation", 1.0), ("peers", 1.0),
        ("validator_set_changes", 0.0), ("telemetry_freshness", 15.0), ("gossip_drops", 0.0),
    ],
)  # fmt: skip
def test_what_stands_still_when_healthy_passes_in_a_week(name: str, value: float) -> None:
    rule = rule_of(METRICS[name], max_missing=0.02, looks=12, look=12)
    week, hour = np.full(WEEK, value), np.full(61, value)

    assert judge(week, week, rule, name).outcome is Outcome.PASS
    assert judge(hour, hour, rule, name).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("name", ["round_duration", "proof_latency", "witness_gossip"])
@pytest.mark.parametrize("value", [0.0, 5.0])
def test_what_should_move_and_does_not_never_passes(name: str, value: float) -> None:
    """A dead exporter and a gate without effect look constant."""
    still = np.full(WEEK, value)

    found = judge(still, still, rule_of(METRICS[name], max_missing=0.02), name)

    assert found.outcome is Outcome.INCONCLUSIVE


def test_a_declared_cycle_is_judged_in_whole_ones() -> None:
    """A capture holds both ends of its window: the last point begins the next cycle."""
    metric = METRICS[NAME].model_copy(update={"cycle_hours": 4.0})
    assert rule_of(metric, max_missing=0.02).cycle == 240

    found = compared(measured(1), measured(2), Catalogue(metrics=[metric, METRICS[LOADED]]))

    assert found.judgements[0].comparisons[0].current.samples == 480


# --- a pinned file --------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A baseline of two series as a capture writes it."""
    grid = pd.date_range(START, periods=61, freq=STEP, unit="ms", name="time")
    values = pd.DataFrame({"{b}": noise(1, points=61), "{a}": noise(2, points=61)}, index=grid)
    about = About(start=START, end=START + timedelta(hours=1), validators=2, **ABOUT)
    path = tmp_path / "baseline.parquet"
    path.write_bytes(Measured(about, {NAME: "up"}, {NAME: values}).sealed.file())
    return path


def told(file: Path, **changes: object) -> About:
    """What the file says of itself, and the log of it."""
    import pyarrow.parquet as pq

    about = About.model_validate_json(pq.read_schema(file).metadata[b"baseline"])
    return about.model_copy(update=changes)


def test_a_pinned_baseline_reads_back(file: Path) -> None:
    found = baseline.read(file.read_bytes(), told(file), {NAME: "up"}, "v1: baseline")

    assert list(found.frames[NAME].columns) == ["{b}", "{a}"]
    assert (found.frames[NAME]["{a}"].to_numpy() == noise(2, points=61)).all()
    assert found.about.validators == 2


@pytest.mark.parametrize(
    ("queries", "changes", "problem"),
    [
        ({NAME: "down"}, {}, "expected content sha256:"),
        ({}, {}, "expected metrics , got round_duration"),
        ({NAME: "up"}, {"digest": "sha256:0"}, "expected content sha256:0, got sha256:"),
        ({NAME: "up"}, {"validators": 3}, "expected .*validators=3"),
    ],
    ids=["another query", "no query", "another digest", "another world"],
)
def test_another_record_is_not_its_baseline(
    file: Path, queries: dict[str, str], changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SourceError, match=f"^v1: baseline: {problem}"):
        baseline.read(file.read_bytes(), told(file, **changes), queries, "v1: baseline")


@pytest.mark.parametrize("body", [b"", b"PAR1", b"time,value\n"])
def test_what_is_no_baseline_is_refused(body: bytes) -> None:
    with pytest.raises(SourceError, match="v1: baseline: expected a pinned baseline, got: "):
        baseline.read(body, measured(1).about, {NAME: "up"}, "v1: baseline")


def test_an_altered_sample_is_refused(file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    about, table = told(file), pq.read_table(file)
    frame = table.to_pandas()
    frame.loc[7, f"{NAME} {{a}}"] += 1e-9
    altered = pa.Table.from_pandas(frame, schema=table.schema, preserve_index=False)
    pq.write_table(altered, file)
    with pytest.raises(SourceError, match="v1: baseline: expected content sha256:"):
        baseline.read(file.read_bytes(), about, {NAME: "up"}, "v1: baseline")
