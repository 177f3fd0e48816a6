"""Two windows beside each other on a stage: a table and figures, shown and in nobody's way."""

from __future__ import annotations

from typing import Any

import pytest

from runbook_lib.context import Context
from runbook_lib.errors import ParameterError, SourceError
from runbook_lib.metrics.compare import Windows
from runbook_lib.outcomes import Outcome
from runbook_lib.stage import Compare

from ..metrics.test_compare import compared, measured


def against(level: float) -> Compare:
    def windows(context: Context) -> Windows:
        return Windows([compared(measured(1), measured(2, level))], note="alerts: none fired")

    return windows


@pytest.mark.parametrize(("level", "outcome"), [(400.0, "PASS"), (600.0, "FAIL")])
def test_the_table_says_what_moved_and_the_figure_shows_it(
    practice: Any, level: float, outcome: str
) -> None:
    """One row a metric; each figure is one image, kept in the attempt too. It blocks nothing."""
    stage = practice.open()
    practice.walk(stage)
    comparison = stage.compare(against(level))

    [row] = comparison.card.data["rows"]
    assert (row[0], row[4]) == ("Duration of a consensus round", outcome)
    bundle, _ = comparison.plot()._repr_mimebundle_()
    assert [kind for kind in bundle if kind.startswith("image/")] == ["image/png"]
    kept = practice.folder() / "figures"
    assert (kept / "comparison.png").read_bytes() == comparison.plot().png
    assert comparison.plot().text.splitlines()[-1] == "alerts: none fired"
    assert comparison.plot("consensus").png == comparison.plot().png
    with pytest.raises(ParameterError, match="expected one of consensus, got weather"):
        comparison.plot("weather")
    overview = comparison.overview()
    assert (kept / "overview.png").read_bytes() == overview.png
    assert overview.text.startswith(f"Duration of a consensus round: {outcome}: ")
    stage.enforce()
    assert stage.verdict().outcome is Outcome.PASS


def test_without_a_window_it_says_why(practice: Any) -> None:
    """The table's place holds the reason, and so do the figures'."""

    def nothing(context: Context) -> Windows:
        raise SourceError("this attempt", "expected a captured baseline, got none")

    comparison = practice.open().compare(nothing)

    assert comparison.card.data["title"] == "Nothing to compare with"
    assert comparison.card.data["rows"] == [
        ["this attempt: expected a captured baseline, got none"]
    ]
    assert comparison.plot() is comparison.overview() is comparison.card
