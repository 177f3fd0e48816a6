"""``runbook judge``: outcome as exit code, one document with ``--json``, usage errors by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from runbook_lib import cli


def write(path: Path, seed: int, level: float = 1.0, points: int = 240) -> str:
    """White noise around ``level`` at a step of 60 s, two series."""
    noise = 0.1 * np.random.default_rng(seed).standard_normal((points, 2)) + level
    lines = [f"{60 * row},{a!r},{b!r}" for row, (a, b) in enumerate(noise.tolist())]
    path.write_text("\n".join(["time,value,other", *lines]) + "\n")
    return str(path)


def asked(folder: Path, level: float = 1.0, points: int = 240) -> list[str]:
    baseline, current = folder / "before.csv", folder / "now.csv"
    files = [
        *("--baseline", write(baseline, 1)),
        *("--current", write(current, 2, level, points)),
    ]
    return ["judge", *files, "--direction", "lower", "--tolerance", "0.1"]


@pytest.mark.parametrize(
    ("level", "points", "outcome", "code"),
    [(1.0, 240, "PASS", 0), (1.3, 240, "FAIL", 1), (1.0, 4, "INCONCLUSIVE", 2)],
)
def test_the_outcome_is_the_exit_code(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    level: float,
    points: int,
    outcome: str,
    code: int,
) -> None:
    """No change passes, a regression is refused, four points prove nothing."""
    assert cli.main(asked(tmp_path, level, points)) == code
    assert capsys.readouterr().out.startswith(f"judge: {outcome}\n")


def test_json_is_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The deciding series, both sides with samples and effective samples, and every series."""
    assert cli.main([*asked(tmp_path, 1.3), "--json"]) == 1

    document = json.loads(capsys.readouterr().out)
    assert (document["outcome"], document["tolerance"], document["relative"]) == ("FAIL", 0.1, True)
    low, high = document["interval"]
    assert 0.1 < low < document["estimate"] < high < 0.4
    assert document["reason"].endswith("proven more than 10.0% higher")
    assert document["more_needed"] is None
    for side in ("baseline", "current"):
        assert document[side]["samples"] == 240
        assert document[side]["effective"] > 100
    assert [each["series"] for each in document["all"]] == ["value", "other"]


def test_options_reach_the_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Column, looks, tail and an absolute tolerance are those that were asked for."""
    more = ["--column", "other", "--absolute", "--looks", "12", "--look", "3", "--tail", "--json"]

    cli.main([*asked(tmp_path), *more])

    document = json.loads(capsys.readouterr().out)
    assert [each["series"] for each in document["all"]] == ["other"]
    assert (document["relative"], document["looks"], document["look"]) == (False, 12, 3)
    assert [each["statistic"] for each in document["statistics"]] == ["location", "tail"]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--column", "third"], "before.csv: expected a column 'third', got value, other"),
        (["--tolerance", "0"], "judge: tolerance: Input should be greater than 0, got 0.0"),
        (["--baseline", "none.csv"], "none.csv: cannot be read: "),
    ],
)
def test_a_wrong_option_is_the_users_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], problem: str
) -> None:
    """Exit 3, one line on stderr, nothing on stdout."""
    assert cli.main([*asked(tmp_path), *more]) == 3

    said = capsys.readouterr()
    assert said.out == ""
    assert problem in said.err


def test_the_direction_is_not_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which way is better must be said."""
    arguments = asked(tmp_path)
    without = [a for a in arguments if a not in ("--direction", "lower")]

    with pytest.raises(SystemExit) as caught:
        cli.main(without)

    assert caught.value.code == 3
    assert "the following arguments are required: --direction" in capsys.readouterr().err
