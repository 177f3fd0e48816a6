"""``runbook judge``: outcome as exit code, one document with ``--json``, wrong files by name."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyarrow import parquet

from runbook_lib.errors import ParameterError
from runbook_lib.metrics.judge_files import judge_files
from runbook_lib.outcomes import Outcome

from .conftest import Terminal

START = datetime(2026, 3, 1, tzinfo=UTC)


def noise(seed: int, points: int = 240) -> NDArray[np.float64]:
    """White noise around 1."""
    made: NDArray[np.float64] = 1 + 0.15 * np.random.default_rng(seed).standard_normal(points)
    return made


def write(path: Path, step: int = 60, **series: NDArray[np.float64]) -> Path:
    """A CSV with a time column, as a spreadsheet or pandas writes it."""
    lines = [",".join(["time", *series])]
    for row in range(len(next(iter(series.values())))):
        moment = (START + timedelta(seconds=step * row)).isoformat()
        lines.append(",".join([moment, *(repr(float(each[row])) for each in series.values())]))
    path.write_text("\n".join(lines) + "\n")
    return path


def asked(folder: Path, level: float = 1.0, points: int = 240) -> list[str]:
    before = write(folder / "before.csv", value=noise(1, points), other=noise(3, points))
    after = write(folder / "now.csv", other=noise(4, points), value=noise(2, points) * level)
    files = ["--baseline", str(before), "--current", str(after)]
    return ["judge", *files, "--direction", "lower", "--tolerance", "0.1"]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write(tmp_path / "good.csv", value=noise(1))


@pytest.mark.parametrize(
    ("level", "points", "outcome", "code"),
    [(1.0, 240, "PASS", 0), (1.3, 240, "FAIL", 1), (1.0, 4, "INCONCLUSIVE", 2)],
)
def test_the_outcome_is_the_exit_code(
    terminal: Terminal, tmp_path: Path, level: float, points: int, outcome: str, code: int
) -> None:
    assert terminal.run(*asked(tmp_path, level, points)) == code
    assert terminal.out.startswith(f"judge: {outcome}\n")


def test_json_is_one_document_and_options_reach_the_judge(
    terminal: Terminal, tmp_path: Path
) -> None:
    """Every series with both sides; column, looks, tail and an absolute tolerance as asked for."""
    document = terminal.json(*asked(tmp_path, 1.3))
    assert terminal.code == 1
    more = ["--column", "other", "--absolute", "--looks", "12", "--look", "3", "--tail"]
    (other,) = terminal.json(*asked(tmp_path), *more)["series"]

    assert (document["outcome"], document["exit_code"]) == ("FAIL", 1)
    worse, _ = document["series"]
    assert (worse["subject"], worse["outcome"]) == ("value", "FAIL")
    assert worse["comparisons"][0]["baseline"]["samples"] == 240
    rule = other["rule"]
    asked_for = (rule["relative"], rule["looks"], rule["look"])
    assert (other["subject"], *asked_for) == ("other", False, 12, 3)
    assert [each["statistic"] for each in other["comparisons"]] == ["location", "tail"]


def rows_at(*seconds: int, begin: int = 1_770_000_000) -> str:
    return "\n".join(["time,value", *(f"{begin + each},1" for each in seconds), ""])


@given(st.text(alphabet="0123456789-:TZ+. /", max_size=20))
def test_a_time_is_an_instant_or_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text(f"time,value\n2026-01-01,1\n{text},2\n")
    try:
        judge_files(path, path, direction="lower", tolerance=0.1)
    except ParameterError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        assert "2026-01-01" < str(pd.to_datetime(text, utc=True, format="ISO8601")) < "9"


@pytest.mark.parametrize("form", ["polars", "index", "rows", "bom"])
def test_files_are_read_as_their_writers_leave_them(tmp_path: Path, good: Path, form: str) -> None:
    frame = pd.read_csv(good)
    path = tmp_path / f"now.{'csv' if form in ('rows', 'bom') else 'parquet'}"
    if form == "polars":
        columns = {"time": pa.array(frame.time, pa.large_string()), "value": pa.array(frame.value)}
        parquet.write_table(pa.table(columns), path)
    elif form == "index":
        frame.assign(time=pd.to_datetime(frame.time)).set_index("time").to_parquet(path)
    else:
        frame.index += 7
        frame.to_csv(path, index=form == "rows", encoding="utf-8-sig" if form == "bom" else "utf-8")
    found, same = (judge_files(good, p, direction="lower", tolerance=0.1) for p in (path, good))
    assert found == same


def test_absent_rows_are_missing_points(tmp_path: Path, good: Path) -> None:
    """Leaving rows out of a file does not hide that samples are missing."""
    now = write(tmp_path / "now.csv", value=noise(2))
    lines = now.read_text().splitlines()
    now.write_text("\n".join(lines[:50] + lines[53:]))

    (found,) = judge_files(good, now, direction="lower", tolerance=0.1)

    assert found.outcome is Outcome.INCONCLUSIVE
    assert "3 of 240 points missing" in found.reason


def test_whole_days_are_judged_without_their_cycle(tmp_path: Path) -> None:
    """A daily cycle that both windows cover wholly does not keep the judge from deciding."""
    wave = 0.3 * np.sin(2 * np.pi * np.arange(7 * 144) / 144)
    before = write(tmp_path / "before.csv", step=600, value=wave + noise(1, 7 * 144))
    after = write(tmp_path / "after.csv", step=600, value=wave + noise(2, 7 * 144))

    (found,) = judge_files(before, after, direction="lower", tolerance=0.1)

    assert (found.rule.cycle, found.outcome) == (144, Outcome.PASS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read"),
        ("value\n1\n", "expected the columns time"),
        ("time\n1\n", "no series of numbers"),
        ("time,value\n0,True\n60,False\n", "no series of numbers"),
        ("time,value\n0,1\n60,abc\n", "cannot be read"),
        ("time,value\n0,1\nsoon,1\n", "cannot be read"),
        ("time,value\n0,1\n", "two rising instants"),
        ("time,value\n0,1\n60,1\n60,1\n", "two rising instants"),
        ("time,value\n1770000000000,1\n1770000060000,1\n", "two rising instants"),
        (rows_at(0, 60, 120, 200), "a constant step of 60 s, got row 5"),
        (rows_at(0, 1, 2, 20_000_000), "a constant step of 1 s"),
        ("time,value,value\n1770000000,1,1\n1770000060,1,1\n", "as in"),
        (rows_at(0, 60).replace("value", "other"), "as in"),
        (rows_at(0, 30), "every 30 s"),
        *((rows_at(first, first + 1, begin=0), "or seconds since 1970, from 2001 on, got others")
          for first in (20260101, 2026010100, 202601, 2026, 0, 46023)),
        (None, "No such file"),
    ],
)  # fmt: skip
def test_wrong_files_are_refused(tmp_path: Path, good: Path, text: str | None, said: str) -> None:
    """A file that is not what it should be is named; nothing ends in a traceback."""
    path = tmp_path / "now.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ParameterError) as caught:
        judge_files(good, path, direction="lower", tolerance=0.1)

    assert str(caught.value).startswith(f"{path}: ") and said in str(caught.value)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--column", "third"], "before.csv: expected the columns time and third, got no "),
        (["--tolerance", "0"], "judge: tolerance: expected greater than 0, got 0.0"),
        (["--baseline", "none.csv"], "none.csv: cannot be read: "),
    ],
)
def test_a_wrong_option_is_the_users_mistake(
    terminal: Terminal, tmp_path: Path, more: list[str], problem: str
) -> None:
    """Exit 3, one line on stderr, nothing on stdout. The direction is not guessed."""
    given = asked(tmp_path)
    assert terminal.run(*given, *more) == 3
    assert (terminal.out, problem in terminal.err) == ("", True)

    assert terminal.run(*(word for word in given if word not in ("--direction", "lower"))) == 3
    assert "the following arguments are required: --direction" in terminal.err
