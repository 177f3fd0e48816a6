"""An attempt opens on parameters, a site and an operator that hold, or not at all."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from runbook_lib.errors import ParameterError, StoreError
from runbook_lib.opening import prepare_attempt
from runbook_lib.params import TestnetParams
from runbook_lib.strict import project_path

from .conftest import stages_of


@pytest.mark.parametrize(
    ("site", "undo"),
    [
        ("nowhere.yaml", "copy params/sites/example.yaml and name yours in `site`"),
        (".rehearsal/no/site.yaml", "`runbook rehearse --serve` brings the practice network up"),
    ],
)
def test_a_missing_site_file_is_named(practice: Any, site: str, undo: str) -> None:
    with pytest.raises(ParameterError) as caught:
        practice.open(site=site)

    said = f"{project_path(site)}: expected a site file, got: No such file or directory; {undo}"
    assert str(caught.value) == said


def test_a_stage_the_site_lacks_is_refused(practice: Any) -> None:
    practice.write_site(stages={})
    with pytest.raises(ParameterError) as caught:
        practice.open()

    assert str(caught.value).endswith("stages: expected a cluster for development, got none")


def test_a_misspelt_node_takes_nothing_back(practice: Any) -> None:
    """Neither an attempt that would count as one, nor an incident that would block the release."""
    keys = ("site", "release", "commit")
    given = {key: practice.params[key] for key in keys} | {"nodes": ["dev-1", "dve-2", "nope"]}
    with pytest.raises(ParameterError) as caught:
        prepare_attempt("development_recovery", given, "params.yaml")

    assert str(caught.value) == ("params.yaml: nodes: expected some of dev-1, got dve-2, nope")
    assert list((practice.root / "store").iterdir()) == []


def test_an_unknown_operator_cannot_apply(practice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one of a container without user names: a person's mistake, not a traceback."""
    said = "operator: expected one of the site's people (alice, bob), got {!r};"
    said += " export RUNBOOK_OPERATOR"
    monkeypatch.setenv("RUNBOOK_OPERATOR", "mallory")
    with pytest.raises(ParameterError) as caught:
        practice.open()
    assert str(caught.value) == said.format("mallory")
    assert practice.open(mode="plan").verdict().operator == "mallory"

    for name in ("RUNBOOK_OPERATOR", "GITHUB_ACTOR", "GITLAB_USER_LOGIN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("getpass.getuser", Mock(side_effect=KeyError("uid not found: 4711")))
    with pytest.raises(ParameterError) as caught:
        practice.open()
    assert str(caught.value) == said.format("unknown")


def test_a_store_for_its_owner_alone_or_none_opens_nothing(practice: Any) -> None:
    """Unless the site says that it has a single operator."""
    store = practice.root / "store"
    store.chmod(0o755)
    with pytest.raises(ParameterError, match="can write to, got one for its owner alone;"):
        practice.open()
    store.rmdir()
    with pytest.raises(ParameterError, match="can write to, got none;"):
        practice.open()

    practice.write_site(single_operator=True)
    assert practice.open()


def test_an_attempt_fixes_its_parameters(practice: Any) -> None:
    """Every one that differs is named; those of a try may change."""
    practice.open()
    with pytest.raises(ParameterError) as caught:
        practice.open(attempt=1, mode="plan", baseline_hours=2.0, retry_reason="more")

    assert caught.value.problems == (
        "mode: expected 'apply' as attempt 1 was opened with, got 'plan'",
        "baseline_hours: expected 1 as attempt 1 was opened with, got 2.0",
    )
    assert (
        practice.open(attempt=1, retry_reason="x", as_of="2026-01-01T00:00:00Z").verdict().number
        == 2
    )


def test_a_site_file_edited_since_carries_no_attempt_into_another_world(practice: Any) -> None:
    """Opened live and carried on in a rehearsal, it would promote as live evidence."""
    practice.write_site(clock={"source": "utc"})
    practice.open()
    practice.write_site(name="elsewhere")
    with pytest.raises(ParameterError) as caught:
        practice.open(attempt=1)

    site, undo = practice.site, "put the site file back, or open a new attempt"
    assert caught.value.problems == (
        f"{site}: site: expected 'practice' as attempt 1 was opened on, got 'elsewhere'; {undo}",
        f"{site}: source: expected 'live' as attempt 1 was opened on, got 'rehearsal'; {undo}",
    )
    practice.write_site(clock={"source": "utc"})
    assert practice.open(attempt=1).verdict().number == 2


def test_an_apply_does_not_open_before_its_turn(practice: Any) -> None:
    """Nothing is created for it either."""
    practice.write_site(**stages_of("development", "testnet"))
    given = {key: practice.params[key] for key in ("site", "release", "commit")}
    given |= {"mode": "apply", "approved_plan": f"sha256:{'0' * 64}"}
    given |= {"window_start": "2026-01-01T00:00:00Z", "window_end": "2026-01-01T08:00:00Z"}
    with pytest.raises(StoreError, match="expected an attempt that applied and passed, got none"):
        prepare_attempt("testnet", {**TestnetParams().model_dump(), **given}, "params.yaml")

    assert not (practice.root / "store" / "v1.4.0" / "testnet").exists()
