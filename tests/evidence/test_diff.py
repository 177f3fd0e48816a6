"""Two attempts compared: items, numbers, waivers, environment."""

from typing import Any

import pytest

from runbook_lib.errors import LogDamaged
from runbook_lib.evidence.release import diff
from runbook_lib.outcomes import Outcome

SUITES = "development.activate.smoke-suites"


def test_what_two_attempts_differ_in_is_listed_by_item(practice: Any) -> None:
    """An outcome, its rows' numbers and what was not reached; what is the same is not."""
    practice.walk(practice.open())
    practice.walk(practice.open(), smoke_suites=Outcome.FAIL)
    found = diff(practice.folder(1), practice.folder(2))

    assert (SUITES, "outcome", "PASS", "FAIL") in found
    assert {where for where, *_ in found} >= {SUITES, "development.activate.baseline"}
    assert "preflight.config-drift" not in {where for where, *_ in found}
    assert diff(practice.folder(), practice.folder()) == []

    practice.folder().joinpath("log.jsonl").write_text("")
    with pytest.raises(LogDamaged, match="0002: expected an opening event, got none"):
        diff(practice.folder(), practice.folder())
