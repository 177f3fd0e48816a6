"""A release's baseline beside that of the release before it: shown, and in nobody's way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from runbook_lib import playbook
from runbook_lib.checks import development
from runbook_lib.checks.marks import restarts
from runbook_lib.comparison import Comparison
from runbook_lib.context import Context, Judge, judges
from runbook_lib.errors import ParameterError
from runbook_lib.evidence.record import Entry
from runbook_lib.metrics import baseline as capturing
from runbook_lib.metrics.catalogue import parse_catalogue
from runbook_lib.metrics.frames import Frame, Tally
from runbook_lib.outcomes import CheckResult, Outcome
from runbook_lib.stage import Stage
from runbook_lib.strict import PROJECT

ITEM = "development.activate.baseline"
START = datetime(2026, 3, 1, tzinfo=UTC)
POINTS = 481
BEFORE = "v1.3.0"
CATALOGUE = parse_catalogue((PROJECT / "params/metrics.yaml").read_bytes(), "params/metrics.yaml")
[METRIC] = [metric for metric in CATALOGUE.metrics if metric.name == "round_duration"]


def capture(seed: int, level: float, validators: int = 1, load: float = 18.0) -> Judge:
    """A baseline check that finds noise around ``level``, keeps and pins it as the real one does."""

    @judges(ITEM)
    def check(context: Context) -> CheckResult:
        values = level * (1 + 0.05 * np.random.default_rng(seed).standard_normal(POINTS))
        grid = pd.date_range(START, periods=POINTS, freq="60s", unit="ms", name="time")
        frame = Frame(
            pd.DataFrame({"{}": values}, index=grid), ({},), (Tally(POINTS, 0, 0, 0),), ()
        )
        captured = [capturing.Captured(METRIC, "up", frame)]
        end = START + timedelta(minutes=POINTS - 1)
        digest = capturing.content_digest(captured, START, end)
        about: dict[str, Any] = {
            "release": context.params.release,
            "cluster": context.cluster_name,
            "start": START.isoformat(),
            "end": end.isoformat(),
            "digest": digest,
            "epoch_length": 720,
            "validators": validators,
            "load": load,
        }
        path = context.folder / "metrics" / "baseline.parquet"
        capturing.write(captured, path, about)
        context.store.pin(context.cluster_name, digest, path)
        rows = capturing.judge(captured[0], 0.02)
        data = {**about, "metrics": {METRIC.name: "up"}}
        return context.conclude(rows, passed="captured", empty="", data=data)

    return check


def carried(practice: Any, release: str, check: Judge | None, **params: Any) -> Stage:
    """A stage in which everything passed, its baseline by ``check``; none: broken off before it."""
    stage: Stage = practice.open(release=release, **params)
    for item in playbook.DECLARED["development"]:
        if item != ITEM:
            practice.item(stage, item)
        elif check is not None:
            stage.check(check)
    return stage


def compared(practice: Any, check: Judge | None = None, before: str = BEFORE) -> Comparison:
    stage = carried(practice, "v1.4.0", check or capture(2, 400.0), previous_release=before)
    return stage.compare(development.previous_release)


def rows(comparison: Comparison) -> Any:
    return comparison.card.data["rows"]


@pytest.mark.parametrize(("level", "outcome"), [(400.0, "PASS"), (600.0, "FAIL")])
def test_the_table_says_what_moved_and_the_figure_shows_it(
    practice: Any, level: float, outcome: str
) -> None:
    """One row a metric; each figure is one image, kept in the attempt too."""
    carried(practice, BEFORE, capture(1, 400.0))

    comparison = compared(practice, capture(2, level))

    assert [(row[0], row[3], row[4]) for row in rows(comparison)] == [
        ("Duration of a consensus round", "+10 %", outcome)
    ]
    bundle, _ = comparison.plot()._repr_mimebundle_()
    assert [kind for kind in bundle if kind.startswith("image/")] == ["image/png"]
    kept = practice.folder() / "figures"
    assert (kept / "comparison.png").read_bytes() == comparison.plot().png
    assert (
        comparison.plot()
        .text.splitlines()[-1]
        .startswith("load: 18 tx/s in the baseline, 18 tx/s now; alerts: unknown: ")
    )
    assert comparison.plot("consensus").png == comparison.plot().png
    with pytest.raises(ParameterError, match="expected one of consensus, got weather"):
        comparison.plot("weather")
    overview = comparison.overview()
    assert (kept / "overview.png").read_bytes() == overview.png
    assert overview.text.startswith(f"Duration of a consensus round: {outcome}: ")


def test_a_comparison_that_fails_blocks_nothing(practice: Any) -> None:
    """It is shown; the playbook declares no such item for development."""
    carried(practice, BEFORE, capture(1, 400.0))
    stage = carried(practice, "v1.4.0", capture(2, 600.0), previous_release=BEFORE)

    comparison = stage.compare(development.previous_release)

    assert rows(comparison)[0][4] == "FAIL"
    stage.enforce()
    assert stage.verdict().outcome is Outcome.PASS


def test_another_validator_set_is_inconclusive(practice: Any) -> None:
    """Drawn, and said to be incomparable."""
    carried(practice, BEFORE, capture(1, 400.0, validators=4))

    comparison = compared(practice)

    assert rows(comparison)[0][4:] == [
        "INCONCLUSIVE",
        "not comparable: validators: 4 in the baseline, 1 now",
    ]
    assert comparison.plot().png


def test_another_load_is_inconclusive(practice: Any) -> None:
    """A cluster that is asked for more may well be slower, or a faster release hide behind less."""
    carried(practice, BEFORE, capture(1, 400.0, load=60.0))

    assert rows(compared(practice))[0][4:] == [
        "INCONCLUSIVE",
        "not comparable: load: 60 tx/s in the baseline, 18 tx/s now, more than 25 % apart",
    ]


def nothing(practice: Any, why: str, comparison: Comparison) -> None:
    assert (comparison.card.data["title"], rows(comparison)) == ("Nothing to compare with", [[why]])
    assert comparison.plot() is comparison.overview() is comparison.card


def test_without_a_previous_release_it_says_so(practice: Any) -> None:
    """No name was given."""
    nothing(
        practice,
        "previous_release: expected a release to compare with, got none",
        compared(practice, before=""),
    )


def test_without_an_earlier_baseline_it_says_so(practice: Any) -> None:
    """A release that never ran here, and one that broke off before its baseline."""
    why = f"{BEFORE}: expected a baseline pinned for development, got none"
    nothing(practice, why, compared(practice))

    carried(practice, BEFORE, None)
    nothing(practice, why, compared(practice))


def test_without_a_baseline_of_its_own_it_says_so(practice: Any) -> None:
    """The item was not reached, or did not pass."""
    stage = carried(practice, "v1.4.0", None, previous_release=BEFORE)

    nothing(
        practice,
        "this attempt: expected a captured baseline, got none",
        stage.compare(development.previous_release),
    )


def test_the_newest_attempt_with_a_baseline_counts(practice: Any) -> None:
    """A later attempt that broke off does not hide the one before it."""
    carried(practice, BEFORE, capture(1, 400.0))
    carried(practice, BEFORE, None)

    assert rows(compared(practice))[0][4] == "PASS"


def test_an_altered_pinned_file_is_refused(practice: Any) -> None:
    """Another file under the same name is not what was pinned."""
    first = carried(practice, BEFORE, capture(1, 400.0))
    carried(practice, "v1.2.0", capture(3, 500.0))
    [old, other] = sorted(
        (practice.root / "store" / ".baselines" / "development").iterdir(),
        key=lambda path: path.read_bytes() != own(first).read_bytes(),
    )
    old.write_bytes(other.read_bytes())

    comparison = compared(practice)

    [[why]] = rows(comparison)
    assert why.startswith(f"{BEFORE}/development/0001: baseline: expected content sha256:")


def own(stage: Stage) -> Path:
    return stage.folder / "metrics" / "baseline.parquet"


def test_what_was_asked_of_the_store_is_on_the_tape(practice: Any) -> None:
    """The previous record and the pinned file are inputs like any other."""
    carried(practice, BEFORE, capture(1, 400.0))
    compared(practice)

    index = (practice.folder() / "tape" / "index.jsonl").read_text()
    assert "READ {store}/v1.3.0/development/0001/record.jsonl" in index
    assert "READ {store}/.baselines/development/" in index


def test_planned_restarts_are_read_from_the_journal() -> None:
    """From the intent until the rates have settled; what was not a restart is left alone."""

    def entry(step: str, phase: str, minute: int) -> Entry:
        at = (START + timedelta(minutes=minute)).isoformat()
        body = {"item": "x", "node": "dev-1", "step": step, "phase": phase, "at": at}
        return Entry(0, "", "", "step", body, "")

    journal = [entry("deliver", "done", 0), entry("restart", "intent", 1)]

    assert restarts([*journal, entry("restart", "done", 3)]) == [
        (START + timedelta(minutes=1), START + timedelta(minutes=3) + capturing.SETTLE)
    ]
