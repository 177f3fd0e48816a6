"""What is frozen is whole, and agrees with the table of faults."""

from runbook_rehearsal.faults.table import FAULTS

from .matrix import GROUPS, cases, frozen, healthy

EVERY = [case for group in GROUPS for case in cases(group)]
KIT_ALONE = ("store-gone",)
"""PASS is what the recovery kit comes to, not the notebook: it needs the store."""


def test_what_is_frozen_is_what_is_declared() -> None:
    """Every fault at every item it names, with the outcome that the table declares, and no more."""
    known = frozen()
    expected = {case.key: case.fault.outcome for case in EVERY}
    found = {key: value["outcome"] for key, value in known.items() if "outcome" in value}
    other = {key.partition(" ")[2]: found[key] for key in expected if found[key] != expected[key]}

    assert found.keys() == expected.keys()
    assert {case.fault.name for case in EVERY} == FAULTS.keys()
    assert other.keys() == set(KIT_ALONE)
    assert known.keys() - found.keys() == {name for group in GROUPS for name in healthy(group)}
