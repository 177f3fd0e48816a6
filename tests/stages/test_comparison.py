"""Two windows beside each other on a stage: a table and a figure, shown and in nobody's way."""

from __future__ import annotations

from typing import Any

import pytest

from runbook_lib.context import Context
from runbook_lib.errors import SourceError
from runbook_lib.metrics.compare import Compared
from runbook_lib.outcomes import Outcome

from ..metrics.test_compare import compared, measured


@pytest.mark.parametrize(("level", "outcome"), [(400.0, "PASS"), (600.0, "FAIL")])
def test_the_table_says_what_moved_and_the_figure_shows_it(
    practice: Any, level: float, outcome: str
) -> None:
    """One row a metric; the figure is one image, kept in the attempt too. It blocks nothing."""

    def windows(context: Context) -> list[Compared]:
        return [compared(measured(1), measured(2, level))]

    stage = practice.open()
    practice.walk(stage)
    comparison = stage.compare(windows)

    [row] = comparison.card.data["rows"]
    assert (row[0], row[3], row[4]) == ("Duration of a consensus round", "+10 %", outcome)
    assert " to " in row[2] and row[5].endswith(" than 10.0% higher")
    overview = comparison.overview()
    bundle, _ = overview._repr_mimebundle_()
    assert [kind for kind in bundle if kind.startswith("image/")] == ["image/png"]
    kept = practice.folder() / "figures"
    assert (kept / "overview.png").read_bytes() == overview.png
    assert overview.text.startswith(f"Duration of a consensus round: {outcome}: ")
    stage.enforce()
    assert stage.verdict().outcome is Outcome.PASS


def test_without_a_window_it_says_why(practice: Any) -> None:
    def nothing(context: Context) -> list[Compared]:
        raise SourceError("this attempt", "expected a captured baseline, got none")

    comparison = practice.open().compare(nothing)

    assert comparison.card.data["title"] == "Nothing to compare with"
    assert comparison.card.data["rows"] == [
        ["this attempt: expected a captured baseline, got none"]
    ]
    assert comparison.overview() is comparison.card
