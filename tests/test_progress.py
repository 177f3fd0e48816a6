"""Long work shows a bar when it is live, and nothing at all otherwise."""

from __future__ import annotations

import re

import pytest

from runbook_lib.changes.waiting import progress


def test_a_replay_shows_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with progress("waiting for epoch 12", 10, live=False) as bar:
        bar.update(10)

    assert capfd.readouterr() == ("", "")


def test_a_live_bar_says_what_it_waits_for_and_how_far_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The bar names its work, counts it, and is gone when the work is done."""
    with progress("waiting for epoch 12", 10, live=True) as bar:
        bar.update(5)
    shown = capsys.readouterr().err.split("\r")

    assert any(re.match(r"waiting for epoch 12: +0%\|.*\| 0/10 s, ", part) for part in shown)
    assert shown[-1] == ""
