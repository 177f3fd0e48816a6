"""Judging files: what is read, what is refused and what is printed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from runbook_lib.errors import ParameterError
from runbook_lib.metrics.judge_files import JudgeReport, judge_files
from runbook_lib.outcomes import Outcome
from runbook_lib.verdicts import ExitCode

START = datetime(2026, 3, 1, tzinfo=UTC)


def noise(seed: int, points: int = 240) -> NDArray[np.float64]:
    """White noise around 1."""
    return 1 + 0.15 * np.random.default_rng(seed).standard_normal(points)


def write(path: Path, step: int = 60, **series: NDArray[np.float64]) -> Path:
    """A CSV with a time column, as a spreadsheet or pandas writes it."""
    points = len(next(iter(series.values())))
    lines = [",".join(["time", *series])]
    for row in range(points):
        moment = (START + timedelta(seconds=step * row)).isoformat()
        cells = ("" if np.isnan(each[row]) else repr(float(each[row])) for each in series.values())
        lines.append(",".join([moment, *cells]))
    path.write_text("\n".join(lines) + "\n")
    return path


def judged(baseline: Path, current: Path) -> JudgeReport:
    return judge_files(baseline, current, direction="lower", tolerance=0.1)


def refusal(baseline: Path, current: Path) -> str:
    with pytest.raises(ParameterError) as caught:
        judged(baseline, current)
    return str(caught.value)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write(tmp_path / "good.csv", value=noise(1))


@pytest.mark.parametrize(
    ("factor", "outcome", "code"),
    [(1.0, Outcome.PASS, ExitCode.PASSED), (1.3, Outcome.FAIL, ExitCode.REFUSED)],
)
def test_outcome_and_exit_code(
    tmp_path: Path, good: Path, factor: float, outcome: Outcome, code: ExitCode
) -> None:
    """Unchanged files pass with 0, a regression fails with 1."""
    report = judged(good, write(tmp_path / "now.csv", value=noise(2) * factor))

    assert (report.outcome, report.exit_code) == (outcome, code)


def test_same_file_twice_is_inconclusive(good: Path) -> None:
    """A file judged against itself proves nothing and ends with 2."""
    report = judged(good, good)

    assert report.exit_code is ExitCode.INCONCLUSIVE
    assert report.judgements[0].reason == (
        "location not judged: both windows hold identical samples: was the same data read twice?"
    )


def test_parquet_is_judged_like_csv(tmp_path: Path, good: Path) -> None:
    """The same samples give the same document whatever the format."""
    now = write(tmp_path / "now.csv", value=noise(2))
    times = [START + timedelta(minutes=row) for row in range(240)]
    parquet.write_table(pa.table({"time": times, "value": noise(2)}), tmp_path / "now.parquet")

    expected = judged(good, now).judgements
    assert judged(good, tmp_path / "now.parquet").judgements == expected


def test_absent_rows_are_missing_points(tmp_path: Path, good: Path) -> None:
    """Leaving rows out of a file does not hide that samples are missing."""
    now = write(tmp_path / "now.csv", value=noise(2))
    lines = now.read_text().splitlines()
    now.write_text("\n".join(lines[:50] + lines[53:]))

    report = judged(good, now)

    assert report.judgements[0].reason == (
        "location not judged: current: 3 of 240 points missing "
        "and no bounds declared to stand in for them"
    )


def test_document_tells_all(tmp_path: Path, good: Path) -> None:
    """The JSON document holds estimate, interval, samples of each side and what is needed."""
    now = write(tmp_path / "now.csv", value=noise(2) * 1.07)

    document = judged(good, now).document()

    assert document["outcome"] == "INCONCLUSIVE"
    assert isinstance(document["more_needed"], int)
    assert document["more_needed_seconds"] == document["more_needed"] * 60
    assert isinstance(document["all"], list)
    (series,) = document["all"]
    assert isinstance(series, dict)
    assert list(series) == [
        "series",
        "outcome",
        "reason",
        "estimate",
        "interval",
        "tolerance",
        "direction",
        "relative",
        "looks",
        "look",
        "baseline",
        "current",
        "more_needed",
        "more_needed_seconds",
        "statistics",
    ]
    assert {**document, **series} == document


def test_whole_days_are_judged_without_their_cycle(tmp_path: Path) -> None:
    """A daily cycle that both windows cover wholly does not keep the judge from deciding."""
    wave = 0.3 * np.sin(2 * np.pi * np.arange(7 * 144) / 144)
    before = write(tmp_path / "before.csv", step=600, value=wave + noise(1, 7 * 144))
    after = write(tmp_path / "after.csv", step=600, value=wave + noise(2, 7 * 144))

    report = judged(before, after)

    assert report.judgements[0].rule.cycle == 144
    assert report.outcome is Outcome.PASS


def test_one_column_can_be_chosen(tmp_path: Path) -> None:
    """Only the named column is judged."""
    before = write(tmp_path / "before.csv", a=noise(1), b=noise(2))
    after = write(tmp_path / "after.csv", a=noise(3), b=noise(4) * 2)

    report = judge_files(before, after, direction="lower", tolerance=0.1, column="a")

    assert [each.subject for each in report.judgements] == ["a"]
    assert report.outcome is Outcome.PASS
    assert judged(before, after).outcome is Outcome.FAIL


def test_order_of_columns_does_not_matter(tmp_path: Path) -> None:
    """Series are matched by name."""
    before = write(tmp_path / "before.csv", a=noise(1), b=10 * noise(2))
    after = write(tmp_path / "after.csv", b=10 * noise(4), a=noise(3))

    assert judged(before, after).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("value\n1\n", "{path}: expected a column 'time', got value"),
        ("time\n1\n", "{path}: expected a series beside 'time', got none"),
        ("time,value\n0,1\n", "{path}: expected at least 2 rows, got 1"),
        (
            "time,value\n0,1\n60,abc\n",
            "{path}: value: row 3: expected a number, got 'abc'",
        ),
        (
            "time,value\n0,1\nsoon,1\n",
            "{path}: time: row 3: expected ISO 8601 or seconds since 1970, got 'soon'",
        ),
        (
            "time,value\n0,1\n60,1\n60,1\n",
            "{path}: time: row 4: expected a later time than the row before",
        ),
        (
            "time,value\n0,1\n60,1\n120,1\n200,1\n",
            "{path}: time: row 5: expected a constant step of 60 s, got 80 s",
        ),
        (
            "time,value\n1770000000000,1\n1770000060000,1\n",
            "{path}: time: expected seconds since 1970, not milliseconds, none missing",
        ),
        (
            "time,value\n0,1\n1,1\n2,1\n20000000,1\n",
            "{path}: time: expected at most 10000000 steps of 1 s",
        ),
        ("time,value,value\n0,1,1\n", "{path}: expected each column once, got value twice"),
        (
            "time,other\n0,1\n60,2\n",
            "{path}: columns: expected those of {good}, got 'other' only in {path}, 'value' only in {good}",
        ),
        (
            "time,value\n0,1\n30,2\n",
            "{path}: time: expected a step of 60 s as in {good}, got 30 s",
        ),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, good: Path, text: str, message: str) -> None:
    """A file that is not what it should be is named with its column and row."""
    path = tmp_path / "now.csv"
    path.write_text(text)

    assert refusal(good, path) == message.format(path=path, good=good)


def test_unknown_files_are_refused(tmp_path: Path, good: Path) -> None:
    """Neither an unknown format nor an absent file ends in a traceback."""
    other = tmp_path / "now.txt"

    assert refusal(good, other) == f"{other}: expected a .csv or .parquet file, got '.txt'"
    absent = tmp_path / "absent.csv"
    assert refusal(good, absent) == (
        f"{absent}: cannot be read: [Errno 2] No such file or directory: '{absent}'"
    )


def test_parquet_text_is_refused(tmp_path: Path, good: Path) -> None:
    """A parquet column must hold numbers."""
    path = tmp_path / "now.parquet"
    parquet.write_table(pa.table({"time": [0.0, 60.0], "value": [True, False]}), path)

    assert refusal(good, path) == f"{path}: value: expected numbers, got bool"


def test_wrong_rules_are_refused(tmp_path: Path, good: Path) -> None:
    """A tolerance that tolerates nothing and an unknown direction are the user's mistakes."""
    with pytest.raises(ParameterError) as caught:
        judge_files(good, good, direction="down", tolerance=0.0)  # type: ignore[arg-type]

    assert caught.value.problems == (
        "judge: direction: Input should be 'lower', 'higher' or 'either', got 'down'",
        "judge: tolerance: Input should be greater than 0, got 0.0",
    )


def test_missing_column_is_refused(good: Path) -> None:
    """A column that is not there is named beside those that are."""
    with pytest.raises(ParameterError) as caught:
        judge_files(good, good, direction="lower", tolerance=0.1, column="latency")

    assert str(caught.value) == f"{good}: expected a column 'latency', got value"
