"""Parameters: every floor red, every problem named, nothing coerced."""

from datetime import timedelta
from typing import Any

import pytest

from runbook_lib import playbook
from runbook_lib.errors import ParameterError
from runbook_lib.params import STAGE_PARAMS, stage_params
from runbook_lib.sources.config import GATES

LIVE: dict[str, Any] = {"site": "s.yaml", "release": "v1.4.0", "commit": "c" * 40}
WAIVER: dict[str, Any] = {
    "item": "testnet.ready.soak",
    "subjects": ["dev-1"],
    "outcome": "FAIL",
    "reason": "a known flake, fixed in the next release",
    "expires": "2026-02-01T00:00:00Z",
}
WINDOW = {"window_start": "2026-01-31T08:00:00Z", "window_end": "2026-01-31T16:00:00Z"}


def refused(values: dict[str, Any], stage: str = "development") -> str:
    window = WINDOW if "window_start" in STAGE_PARAMS[stage].model_fields else {}
    with pytest.raises(ParameterError) as caught:
        stage_params(stage, {**LIVE, **window, **values}, "p.yaml")
    return str(caught.value)


FLOORS: dict[str, tuple[str, str]] = {
    "SOAK": ("soak_hours", "minimum"),
    "TESTNET_EPOCHS": ("clean_epochs", "minimum"),
    "CANARY_OBSERVE_EPOCHS": ("observe_epochs", "minimum"),
    "CANARY_CLEAN_EPOCHS": ("regression_epochs", "minimum"),
    "CANARY_EPOCHS_AFTER_LAST_CHANGE": ("epochs_after_change", "minimum"),
    "MAINNET_WATCH": ("watch_hours", "minimum"),
    "WATCH_LOOK_EVERY": ("look_minutes", "maximum"),
    "ENGAGE_WITHIN": ("engage_minutes", "maximum"),
    "PAGING_SEVERITIES": ("paging_severities", ""),
    "VALID_FOR": ("valid_for_minutes", "maximum"),
    "MAX_MISSING": ("max_missing", "maximum"),
    "BASELINE_WINDOW": ("baseline_hours", "minimum"),
}
"""The playbook's numbers that parameters may tighten: parameter, and the bound that holds it."""
CONSTANT = {
    **dict.fromkeys(
        ("COUNCIL_WITHIN", "CANARY_POWER_BELOW", "DEVELOPMENT_SUITES", "TESTNET_SUITES",
         "BASELINE_TOPICS", "NOW_SOURCE_LAG"),
        "no parameter touches it",
    ),
    "NOTICE": "ours, a site's own notice counts",
    "MINUTES_PER_NODE": "ours, an estimate",
    "MAX_DOWN": "ours; the chain's quorum bounds it, see BEYOND",
}  # fmt: skip
BOUNDS = {
    "minimum": "greater than or equal to",
    "maximum": "less than or equal to",
    "exclusiveMinimum": "greater than",
    "exclusiveMaximum": "less than",
}
"""How a bound of a schema is said."""
AT_LEAST_0 = {"minimum": (-1, "0")}
DURATION = {"exclusiveMinimum": (0.0, "0"), "maximum": (1440.1, "1440")}
BEYOND: dict[str, dict[str, tuple[float, str]]] = {
    "issue": AT_LEAST_0,
    "attempt": AT_LEAST_0,
    "undoes": AT_LEAST_0,
    "takeover_minutes": DURATION,
    "valid_for_minutes": DURATION | {"maximum": (60.01, "60")},
    "max_missing": {"maximum": (0.0201, "0.02"), "minimum": (-0.01, "0")},
    "baseline_hours": {"minimum": (0.99, "1"), "maximum": (720.1, "720")},
    "notice_hours": {"minimum": (-0.1, "0"), "maximum": (1440.1, "1440")},
    "minutes_per_node": DURATION,
    "max_down": {
        "exclusiveMaximum": (1 / 3, "0.3333333333333333"), "exclusiveMinimum": (0.0, "0"),
    },
    "soak_hours": {"minimum": (47.99, "48"), "maximum": (1440.1, "1440")},
    "gossip_epochs": {"minimum": (0, "1"), "maximum": (101, "100")},
    "clean_epochs": {"minimum": (9, "10"), "maximum": (1001, "1000")},
    "observe_epochs": {"minimum": (2, "3"), "maximum": (1001, "1000")},
    "regression_epochs": {"minimum": (6, "7"), "maximum": (1001, "1000")},
    "epochs_after_change": {"minimum": (2, "3"), "maximum": (1001, "1000")},
    "watch_hours": {"minimum": (23.99, "24"), "maximum": (1440.1, "1440")},
    "look_minutes": {"minimum": (0.99, "1"), "maximum": (15.01, "15")},
    "engage_minutes": DURATION | {"maximum": (5.01, "5")},
}  # fmt: skip
"""A value beyond each bound of each parameter: parameter, bound, value, the bound as it is said."""
BOUNDED = [
    (stage, name, bound)
    for stage, model in STAGE_PARAMS.items()
    for name, schema in model.model_json_schema()["properties"].items()
    for bound in BOUNDS
    if bound in schema
]
"""Every bound that a stage's parameters have, out of their own schema."""


def test_every_number_of_the_playbook_is_a_floor_or_out_of_reach() -> None:
    """A new one is put here, with a laxer value that is refused, or why there can be none."""
    limits = {
        name
        for name, value in vars(playbook).items()
        if name.isupper() and not name.startswith("_")
        if isinstance(value, timedelta | int | float | frozenset)
        or name.endswith(("_SUITES", "_TOPICS"))
    }
    assert limits == FLOORS.keys() | CONSTANT.keys()
    assert not FLOORS.keys() & CONSTANT.keys()
    for name, bound in FLOORS.values():
        stages = {stage for stage, model in STAGE_PARAMS.items() if name in model.model_fields}
        held = {stage for stage, *rest in BOUNDED if rest == [name, bound]}
        assert stages and stages == (held if bound else stages)


def test_fewer_paging_severities_than_the_playbooks_are_refused() -> None:
    """In every stage that has the parameter."""
    said = "paging_severities: expected at least ['critical', 'page'], got none of ['critical']"
    for stage in STAGE_PARAMS:
        if "paging_severities" in STAGE_PARAMS[stage].model_fields:
            assert refused({"paging_severities": ["page"]}, stage) == f"p.yaml: {said}"


@pytest.mark.parametrize(("stage", "name", "bound"), BOUNDED)
def test_a_value_beyond_a_bound_is_refused(stage: str, name: str, bound: str) -> None:
    """One red value for each bound of each parameter; one without a value here fails."""
    value, limit = BEYOND[name][bound]
    said = f"p.yaml: {name}: expected {BOUNDS[bound]} {limit}, got {value!r}"

    assert refused({name: value}, stage) == said


@pytest.mark.parametrize(("stage", "name"), sorted({(stage, name) for stage, name, _ in BOUNDED}))
def test_no_bound_is_passed_by_what_is_no_number(stage: str, name: str) -> None:
    """NaN compares with nothing, infinity is beyond each upper bound, and text is not read as one."""
    for value in (float("nan"), float("inf"), "48"):
        assert refused({name: value}, stage).startswith(f"p.yaml: {name}: expected ")


def test_stricter_values_are_accepted() -> None:
    """A shorter validity, fewer missing points, more severities."""
    values = {"max_missing": 0.0, "paging_severities": ["warning", "page", "critical"]}
    params = stage_params("development", {**LIVE, **values, "valid_for_minutes": 5.0}, "p.yaml")
    assert params.valid_for == timedelta(minutes=5)
    assert params.paging_severities == ["critical", "page", "warning"]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"isue": 3}, "isue: expected no such key; remove it or correct its spelling"),
        ({"mode": "go"}, "mode: expected 'plan' or 'apply', got 'go'"),
        ({"issue": "12"}, "issue: expected a whole number, got '12'"),
        ({"release": "../escape"}, "release: expected a name of letters, digits, '.', '_', '+' or '-', got '../escape'"),
        ({"commit": "main"}, "commit: expected 40 lowercase hex digits of a commit, got 'main'"),
        ({"as_of": "2026-01-01"}, "as_of: expected an instant with its offset, such as 2026-01-31T12:00:00Z, got '2026-01-01'"),
        ({"as_of": "soon"}, "as_of: expected an instant such as 2026-01-31T12:00:00Z, got 'soon'"),
    ],
)  # fmt: skip
def test_a_wrong_key_or_value_is_named(values: dict[str, Any], problem: str) -> None:
    assert refused(values) == f"p.yaml: {problem}"


def test_all_problems_are_reported_at_once() -> None:
    assert refused({"mode": "go", "isue": 3, "issue": -1}).splitlines() == [
        "p.yaml: mode: expected 'plan' or 'apply', got 'go'",
        "p.yaml: issue: expected greater than or equal to 0, got -1",
        "p.yaml: isue: expected no such key; remove it or correct its spelling",
    ]
    assert refused({"release": "", "commit": ""}).splitlines() == [
        "p.yaml: release: expected a value with a site, got none",
        "p.yaml: commit: expected a value with a site, got none",
    ]


def test_without_a_site_nothing_is_needed() -> None:
    assert stage_params("development", {}, "p.yaml").site == ""


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"item": "soak"}, ": expected an item of the playbook, got 'soak'"),
        ({"item": "preflight.binary-verification"}, ": expected an item that may be waived; preflight.binary-verification never is, got dict"),
        ({"item": "development.activate.deploy"}, ": expected an item that may be waived; development.activate.deploy never is, got dict"),
        ({"subjects": [" "]}, ": expected the subject of every row it covers, got an empty one"),
        ({"outcome": "PASS"}, ".outcome: expected 'FAIL' or 'INCONCLUSIVE', got 'PASS'"),
        ({"expires": "2026-02-01"}, ".expires: expected an instant with its offset, such as 2026-01-31T12:00:00Z, got '2026-02-01'"),
    ],
)  # fmt: skip
def test_a_waiver_that_cannot_be_one_is_refused(changes: dict[str, Any], problem: str) -> None:
    """Changes, signatures and rows without a name are never waived."""
    assert refused({"waivers": [WAIVER | changes]}) == f"p.yaml: waivers.0{problem}"


@pytest.mark.parametrize("key", ["subjects", "reason", "expires"])
def test_a_waiver_must_be_whole(key: str) -> None:
    waiver = {name: value for name, value in WAIVER.items() if name != key}
    assert refused({"waivers": [waiver]}) == f"p.yaml: waivers.0.{key}: expected a value, got none"


def test_a_waivers_digest_covers_all_of_it_but_who_approved() -> None:
    """What an approval quotes is bound to one release and stage."""
    [waiver] = stage_params("development", {**LIVE, "waivers": [WAIVER]}, "p").waivers
    digest = waiver.digest(release="v1", stage="testnet")
    assert (
        waiver.model_copy(update={"approval": "file"}).digest(release="v1", stage="testnet")
        == digest
    )
    others = {
        waiver.digest(release="v2", stage="testnet"),
        waiver.digest(release="v1", stage="canary"),
    }
    for key, value in (
        ("reason", "another good reason"),
        ("subjects", ["dev-2"]),
        ("expires", "2027-01-01T00:00:00Z"),
    ):
        others.add(waiver.model_copy(update={key: value}).digest(release="v1", stage="testnet"))
    assert len(others) == 5
    assert digest not in others


def test_what_an_attempt_fixes_and_what_a_plan_covers() -> None:
    """A run may say why it retries, not what is judged; mode is no part of intent."""
    one = stage_params("development", LIVE, "p")
    retried = one.model_copy(update={"retry_reason": "again", "attempt": 3})
    applying = one.model_copy(update={"mode": "apply"})
    assert retried.fixed() == one.fixed()
    assert applying.fixed() != one.fixed()
    assert applying.policy() == retried.policy() == one.policy()
    assert one.model_copy(update={"max_missing": 0.01}).policy() != one.policy()


# --- the playbook: its items, its numbers, and what a stage declares of them ----------------------


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
