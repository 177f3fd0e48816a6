"""Where a release stands, what a site lacks, and the schemas of what we read."""

from typing import Any

import jsonschema
import pytest
import yaml

from runbook_lib.errors import StageRefused
from runbook_lib.outcomes import Outcome
from runbook_lib.strict import PROJECT

from ..conftest import Terminal, example_site

DEVELOPMENT = "development"


def test_status_is_computed_from_the_attempts(terminal: Terminal, practice: Any) -> None:
    """2 until the release passed its stages, which a plan does not; 0 then."""
    argv = ["status", "v1.4.0", "--site", practice.site]

    assert terminal.run(*argv) == 2
    assert "no attempt yet" in terminal.out

    planned = practice.open(mode="plan")
    practice.walk(planned)
    planned.enforce()
    assert terminal.run(*argv) == 2
    stage = practice.open()
    practice.walk(stage, ci_green=Outcome.FAIL)
    with pytest.raises(StageRefused):
        stage.enforce()
    document = terminal.json(*argv)

    assert terminal.code == 2
    assert document["attempts"][1]["outcome"] == "FAIL"
    assert document["attempts"][1]["blocks"].startswith("development.ready.ci-green: dev-1")

    practice.sealed()
    document = terminal.json(*argv)

    assert terminal.code == 0
    assert [(row["attempt"], row["exit_code"], row["sealed"]) for row in document["attempts"]] == [
        (1, 0, False),
        (2, 1, False),
        (3, 0, True),
    ]
    assert terminal.run(*argv) == 0


def test_status_without_a_token_shows_what_the_store_holds(
    terminal: Terminal, practice: Any
) -> None:
    """Who only looks may have none; what was not compared with the issue is no 0."""
    practice.params["issue"] = 42
    practice.patch.setattr("runbook_lib.opening.compare_heads", lambda *given: ([], ""))
    practice.sealed()
    practice.patch.delenv("GITHUB_TOKEN", raising=False)
    document = terminal.json("status", "v1.4.0", "--site", practice.site)

    assert terminal.code == 2
    assert [row["outcome"] for row in document["attempts"]] == ["PASS"]
    assert document["heads"] == [
        "heads not compared with the release issue: environment: GITHUB_TOKEN: expected a secret,"
        " got nothing; export it"
    ]


def test_doctor_says_what_is_missing(terminal: Terminal, practice: Any, monkeypatch: Any) -> None:
    """The machine alone, then a site with its secrets, people, commands and endpoints."""
    assert terminal.run("doctor") == 0
    monkeypatch.setenv("GITHUB_TOKEN", "short")
    monkeypatch.setenv("RUNBOOK_OPERATOR", "mallory")
    commands_of_site = {
        "version": {"argv": ["no-such-program-anywhere"]},
        "suites": {"tests/pipeline": {"argv": ["true"]}},
    }
    grafana = {"grafana": {"url": "http://127.0.0.1:9"}}
    practice.write_site(commands=commands_of_site, dashboards=grafana)
    document = terminal.json("doctor", "--site", practice.site)
    rows = {row["subject"]: row for row in document["rows"]}

    outcomes = {
        **dict.fromkeys(("python", "papermill", "store", "tests/pipeline"), "PASS"),
        **dict.fromkeys(("GITHUB_TOKEN", "operator", "forge", "grafana"), "FAIL"),
        "deploy": "INCONCLUSIVE",
    }
    assert terminal.code == 1
    assert {subject: rows[subject]["outcome"] for subject in outcomes} == outcomes
    assert rows["GITHUB_TOKEN"]["observed"] == "5 characters"
    assert rows["version"]["observed"] == "no-such-program-anywhere: not on PATH"
    assert rows["prometheus"]["observed"].startswith("ConnectError")


def test_doctor_names_every_problem_of_a_site(terminal: Terminal, practice: Any) -> None:
    practice.write_site(store=7, people=[])
    document = terminal.json("doctor", "--site", practice.site)
    wrong = [row["observed"] for row in document["rows"] if row["subject"] == str(practice.site)]

    assert terminal.code == 1
    assert len(wrong) == 2
    assert wrong[0] == f"{practice.site}: store: expected text in quotes, got 7"


def test_schemas_accept_what_we_ship(terminal: Terminal) -> None:
    """The example site and the development parameters, and nothing misspelt."""
    site = terminal.json("schema", "site")
    jsonschema.validate(example_site(), site)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**example_site(), "stor": "x"}, site)

    stage = terminal.json("schema", DEVELOPMENT)
    jsonschema.validate(yaml.safe_load((PROJECT / "params/development.yaml").read_text()), stage)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"relase": "v1"}, stage)
