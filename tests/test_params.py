"""Parameters: every floor red, every problem named, nothing coerced."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.errors import ParameterError
from runbook_lib.outcomes import Outcome
from runbook_lib.params import PROJECT, parse_instant, parse_yaml, project_path, stage_params

LIVE: dict[str, Any] = {"site": "s.yaml", "release": "v1.4.0", "commit": "c" * 40}
WAIVER: dict[str, Any] = {
    "item": "testnet.ready.soak",
    "subjects": ["dev-1"],
    "outcome": "FAIL",
    "reason": "a known flake, fixed in the next release",
    "expires": "2026-02-01T00:00:00Z",
}


def refused(values: dict[str, Any]) -> str:
    with pytest.raises(ParameterError) as caught:
        stage_params("development", {**LIVE, **values}, "p.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"valid_for_minutes": 61.0}, "valid_for_minutes: expected less than or equal to 60, got 61.0"),
        ({"valid_for_minutes": 0.0}, "valid_for_minutes: expected greater than 0, got 0.0"),
        ({"max_missing": 0.021}, "max_missing: expected less than or equal to 0.02, got 0.021"),
        ({"max_missing": float("nan")}, "max_missing: expected less than or equal to 0.02, got nan"),
        ({"baseline_hours": 0.99}, "baseline_hours: expected greater than or equal to 1, got 0.99"),
        ({"baseline_hours": float("inf")}, "baseline_hours: expected less than or equal to 720, got inf"),
        ({"paging_severities": ["page"]}, "paging_severities: expected at least ['critical', 'page'], got none of ['critical']"),
    ],
)  # fmt: skip
def test_a_value_laxer_than_the_playbooks_floor_is_refused(
    values: dict[str, Any], problem: str
) -> None:
    """Parameters tighten, they never loosen."""
    assert refused(values) == f"p.yaml: {problem}"


def test_stricter_values_are_accepted() -> None:
    """A shorter validity, fewer missing points, more severities."""
    values = {
        "valid_for_minutes": 5.0,
        "max_missing": 0.0,
        "paging_severities": ["warning", "page", "critical"],
    }
    params = stage_params("development", {**LIVE, **values}, "p.yaml")
    assert params.valid_for == timedelta(minutes=5)
    assert params.paging_severities == ["critical", "page", "warning"]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"isue": 3}, "isue: expected no such key; remove it or correct its spelling"),
        ({"mode": "go"}, "mode: expected 'plan' or 'apply', got 'go'"),
        ({"wait": "yes"}, "wait: expected true or false, got 'yes'"),
        ({"issue": "12"}, "issue: expected a whole number, got '12'"),
        ({"release": "../escape"}, "release: expected a name of letters, digits, '.', '_', '+' or '-', got '../escape'"),
        ({"commit": "main"}, "commit: expected 40 lowercase hex digits of a commit, got 'main'"),
        ({"as_of": "2026-01-01"}, "as_of: expected an instant with its offset, such as 2026-01-31T12:00:00Z, got '2026-01-01'"),
        ({"as_of": "soon"}, "as_of: expected an instant such as 2026-01-31T12:00:00Z, got 'soon'"),
    ],
)  # fmt: skip
def test_a_wrong_key_or_value_is_named(values: dict[str, Any], problem: str) -> None:
    """No coercion and no spelling mistakes passed over."""
    assert refused(values) == f"p.yaml: {problem}"


def test_all_problems_are_reported_at_once() -> None:
    """Nobody corrects a file one line at a time."""
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
    """The defaults replay the recording that ships with us."""
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
    """Rows, reason and expiry are not optional."""
    waiver = {name: value for name, value in WAIVER.items() if name != key}
    assert refused({"waivers": [waiver]}) == f"p.yaml: waivers.0.{key}: expected a value, got none"


def test_a_waivers_digest_covers_all_of_it_but_who_approved() -> None:
    """What an approval quotes is bound to one release and stage."""
    [waiver] = stage_params("development", {**LIVE, "waivers": [WAIVER]}, "p").waivers
    digest = waiver.digest("v1", "testnet")
    assert waiver.waived_outcome is Outcome.FAIL
    assert waiver.model_copy(update={"approval": "file"}).digest("v1", "testnet") == digest
    others = {
        waiver.digest("v2", "testnet"),
        waiver.digest("v1", "canary"),
        *(
            waiver.model_copy(update={key: value}).digest("v1", "testnet")
            for key, value in (
                ("reason", "another good reason"),
                ("subjects", ["dev-2"]),
                ("expires", "2027-01-01T00:00:00Z"),
            )
        ),
    }
    assert len(others) == 5
    assert digest not in others


def test_what_an_attempt_fixes_and_what_a_plan_covers() -> None:
    """A try changes how to wait, not what is judged; mode is no part of intent."""
    one = stage_params("development", LIVE, "p")
    waiting = one.model_copy(update={"wait": True, "retry_reason": "again", "attempt": 3})
    applying = one.model_copy(update={"mode": "apply"})
    assert waiting.fixed() == one.fixed()
    assert applying.fixed() != one.fixed()
    assert applying.policy() == waiting.policy() == one.policy()
    assert one.model_copy(update={"max_missing": 0.01}).policy() != one.policy()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"a: 1\na: 2\n", " line 2: expected YAML, got: key 'a' is given twice"),
        (b"a: &x 1\nb: *x\n", " line 2: expected YAML, got: an alias; write it out"),
        (b"a: [\n", " line 2: expected YAML, got: did not find expected node content"),
        (b"- 1\n", " expected a mapping of names, got list"),
        (b"", " expected a mapping of names, got NoneType"),
        (b"1: 2\n", " expected a mapping of names, got dict"),
        (b"a: " + b"x" * 1_000_000, " expected at most 1000000 bytes, got 1000003"),
    ],
)
def test_what_is_no_yaml_mapping_is_refused(text: bytes, problem: str) -> None:
    """File and line are named; the last of two equal keys does not silently win."""
    with pytest.raises(ParameterError) as caught:
        parse_yaml(text, "p.yaml")
    assert str(caught.value) == f"p.yaml:{problem}"


@given(st.binary(max_size=60))
def test_no_bytes_end_in_a_traceback(text: bytes) -> None:
    """A mapping, or a ParameterError."""
    try:
        assert isinstance(parse_yaml(text, "p.yaml"), dict)
    except ParameterError as error:
        assert str(error).startswith("p.yaml:")


@given(
    st.dictionaries(
        st.text("abc_", min_size=1, max_size=5).map(lambda text: f"k{text}"),
        st.one_of(st.integers(), st.booleans(), st.text("ab c'\"\n#:", max_size=9)),
    )
)
def test_what_is_written_is_read_again(values: dict[str, Any]) -> None:
    """Types and text survive."""
    assert parse_yaml(yaml.safe_dump(values).encode(), "p.yaml") == values


def test_instants_are_utc_and_paths_start_at_the_project() -> None:
    """Whatever the offset written, and whatever the working directory."""
    expected = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert parse_instant("2026-01-31T14:00:00+02:00") == expected
    assert project_path("params") == PROJECT / "params"
    assert str(project_path("/srv/store")) == "/srv/store"


def test_yaml_nested_without_end_is_refused_and_crashes_nothing() -> None:
    """The loader's own recursion would end the process."""
    with pytest.raises(ParameterError) as caught:
        parse_yaml(b"a: " + b"[" * 100_000, "p.yaml")

    assert str(caught.value) == "p.yaml: line 1: expected YAML, got: nesting deeper than 50"
