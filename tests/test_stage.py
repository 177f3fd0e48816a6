"""The facade of a notebook: its keywords, its banner, and a whole run of its cells."""

from __future__ import annotations

from typing import Any

import pytest

from runbook_lib.errors import Defect, ParameterError
from runbook_lib.session import Session
from runbook_lib.verdicts import ExitCode

from .conftest import DEPLOY, PROVISION, text


def test_everything_passes_in_order(practice: Any) -> None:
    """Both changes are made once, and enforce shows the verdict."""
    stage = practice.open()
    practice.walk(stage)

    assert "✓ PASS" in text(stage.enforce())
    assert stage.verdict().exit_code is ExitCode.PASSED
    assert practice.made == [PROVISION, DEPLOY]
    assert [entry.item for entry in practice.mutations()] == [PROVISION, DEPLOY]


def test_a_misspelt_parameter_is_refused(practice: Any) -> None:
    """So is one without a value; other names of a notebook are its own."""
    values = {**practice.params, "relase": "v1", "In": [], "practice": practice}
    del values["as_of"]
    practice.params = values
    with pytest.raises(ParameterError) as caught:
        practice.open()

    assert caught.value.problems == (
        "parameters cell: as_of: expected a value, got none; run the cell first",
        "parameters cell: relase: expected no such name; write release",
    )


def test_the_banner_says_where_one_stands(practice: Any) -> None:
    practice.walk(practice.open(), deploy=1)
    banner = practice.open(attempt=1)._repr_mimebundle_()[0]["text/plain"]

    assert "attempt 1" in banner
    assert "4 of 7" in banner


def test_an_attempt_that_cannot_be_shown_is_closed(practice: Any, monkeypatch: Any) -> None:
    """Nothing of it stays open behind the error."""
    closed, close = list[Session](), Session.close

    def noted(session: Session) -> None:
        closed.append(session)
        close(session)

    monkeypatch.setattr(Session, "close", noted)
    monkeypatch.setattr("tempfile.tempdir", str(practice.root))
    monkeypatch.setattr("runbook_lib.stage.Stage.__init__", lambda self, session: 1 / 0)
    with pytest.raises(Defect, match="bug of runbook: ZeroDivisionError"):
        practice.open()

    assert len(closed) == 1
