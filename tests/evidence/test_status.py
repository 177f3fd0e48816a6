"""Where a release stands, and the earliest instant the next stage can open."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runbook_lib.evidence.record import Entry
from runbook_lib.evidence.status import _earliest, attempts_of, next_opening
from runbook_lib.evidence.store import Store
from runbook_lib.outcomes import Outcome
from runbook_lib.session import read_site

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def site(practice: Any) -> Any:
    def cluster() -> dict[str, Any]:
        return {"chain_id": "rpp", "nodes": [{"name": "n-1", "url": "http://127.0.0.1:9"}]}

    names = ("development", "testnet", "mainnet")
    practice.write_site(
        stages={"development": "development", "testnet": "testnet", "canary": "mainnet",
                "mainnet": "mainnet"},
        clusters={name: cluster() for name in names},
    )  # fmt: skip
    return read_site(str(practice.site))


def took_effect(item: str, *minutes: int) -> list[Entry]:
    return [
        Entry(n, "", "", "state", {"item": item, "node": f"n-{n}",
              "at": (AT + timedelta(minutes=minute)).isoformat()}, "")
        for n, minute in enumerate(minutes)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "change", "item", "after"),
    [
        ("testnet", "development.activate.deploy", "testnet.ready.soak", timedelta(hours=48)),
        ("canary", "testnet.activate.gate", "canary.ready.epochs-clean", timedelta(hours=11)),
        ("mainnet", "canary.activate.rewards-gate", "mainnet.ready.no-regression",
         timedelta(hours=8)),
    ],
)  # fmt: skip
def test_a_stage_can_open_once_the_playbooks_window_is_over(
    site: Any, stage: str, change: str, item: str, after: timedelta
) -> None:
    """Counted from the last node; epochs of an hour, the one under way at the start not counted."""
    found = _earliest(took_effect(change, 0, 7), site, stage)

    assert found[:2] == (item, AT + timedelta(minutes=7) + after)


def test_without_a_change_in_the_journal_nothing_is_promised(site: Any) -> None:
    """The reason stands in place of the instant."""
    assert _earliest([], site, "canary") == (
        "canary.ready.epochs-clean",
        None,
        "expected a node that testnet.activate.gate verified, got none",
    )


def test_what_blocks_is_said_with_when_it_was_judged(practice: Any) -> None:
    """The first item in the way."""
    stage = practice.open()
    practice.walk(stage, ci_green=Outcome.FAIL)

    (found,) = attempts_of(Store(practice.root / "store"), "v1.4.0")

    assert found.blocks.startswith("enforce: expected it to run last")
    assert (found.passed, found.since is not None) == (False, True)


def test_after_the_last_pass_the_next_stage_is_named(practice: Any) -> None:
    """With what it must wait for; before anything passed there is none."""
    store, site = Store(practice.root / "store"), read_site(str(practice.site))
    assert next_opening(store, site, "v1.4.0") is None

    practice.sealed()
    opening = next_opening(store, site, "v1.4.0")

    assert opening is not None
    assert (opening.stage, opening.item) == ("testnet", "testnet.ready.soak")
