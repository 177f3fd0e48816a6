"""The playbook: its items, its numbers, and what a stage declares of them."""

from __future__ import annotations

from runbook_lib import playbook
from runbook_lib.sources.config import GATES


def test_the_playbook_has_its_41_items() -> None:
    """Each once, named by where it stands; changes are never waived."""
    assert len(playbook.ITEMS) == 41
    for item in playbook.ITEMS.values():
        group = item.id.split(".")[0]
        assert group in ("preflight", *playbook.STAGES)
        assert not (item.kind == "change" and item.waivable)
    assert not playbook.ITEMS["preflight.binary-verification"].waivable


NUMBERS = {
    "CANARY_POWER_BELOW": 1 / 3,
    "DEVELOPMENT_SUITES": ("tests/pipeline", "tests/observability"),
    "TESTNET_SUITES": ("tests/firewood_lifecycle",),
}
"""Those that no parameter tightens; ``test_params`` refuses what is laxer than the others."""


def test_the_playbooks_numbers() -> None:
    assert {name: getattr(playbook, name) for name in NUMBERS} == NUMBERS


def test_stages_declare_items_in_order_with_checks_before_changes() -> None:
    """Each item once, known, its own stage's or common; preflight stands first."""
    for stage, items in playbook.DECLARED.items():
        assert stage in playbook.NOTEBOOKS
        assert len(set(items)) == len(items)
        assert set(items) <= set(playbook.ITEMS)
        about = playbook.RECOVERY.get(stage, stage)
        assert {item.split(".")[0] for item in items} <= {"preflight", about}
        groups = [item.split(".")[0] for item in items if item != playbook.DOCUMENT]
        assert groups == sorted(groups, key=lambda group: group != "preflight")
        if stage in playbook.STAGES:
            place = items.index(playbook.DOCUMENT)
            assert all(".activate." in item for item in items[place + 1 :])
            assert not any(".activate." in item for item in items[:place])


def test_gates_of_the_playbooks_sentences_are_the_chains() -> None:
    assert tuple(playbook.GATE_STEPS) == playbook.STAGES
    assert {gate for steps in playbook.GATE_STEPS.values() for gate in steps} == set(GATES[4:])


def test_a_recovery_declares_its_stages_three_items_and_nothing_of_the_normal_path() -> None:
    """In the playbook's order; they are changes all, and no plan stands before them."""
    assert set(playbook.RECOVERY.values()) == set(playbook.STAGES)
    for runbook, stage in playbook.RECOVERY.items():
        items = playbook.DECLARED[runbook]
        assert [item.split(".")[:2] for item in items] == [[stage, "recover"]] * 3
        assert {playbook.ITEMS[item].kind for item in items} == {"change"}
        assert runbook not in playbook.PLAN_BEFORE
