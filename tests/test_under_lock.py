"""A change is made by one run at a time, and what its command did is not repeated."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import CI, DEPLOY, DRIFT, INCONCLUSIVE, PROVISION, REACHABLE, text


def test_a_step_whose_command_outlived_us_is_found_done(practice: Any) -> None:
    """Its exit code lies beside its output: the journal says that it was found."""
    stage = practice.open()
    with pytest.raises(KeyboardInterrupt):
        practice.walk(stage, provision=KeyboardInterrupt())
    again = practice.open(attempt=1)
    practice.walk(again)
    steps = [e.body for e in practice.entries("step") if e.body["item"] == PROVISION]

    assert [(body["phase"], body.get("found")) for body in steps] == [
        ("intent", None),
        ("done", True),
    ]
    assert practice.made == [PROVISION, DEPLOY]


def test_a_second_run_is_told_who_holds_the_cluster(practice: Any) -> None:
    """A change beside another run is INCONCLUSIVE, and nothing is changed."""
    stage = practice.open()
    for item in (DRIFT, CI, REACHABLE):
        practice.item(stage, item)
    with stage._session.store.cluster_lock("development", "carol (v1/development/0007)"):
        card = practice.item(stage, PROVISION)

    assert "got held by carol (v1/development/0007)" in text(card)
    assert stage.verdict().items[3].outcome is INCONCLUSIVE
    assert practice.made == []
