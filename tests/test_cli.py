"""The commands print one document, name what is wrong, and end with the verdict's exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
import yaml

from runbook_lib import cli, launch
from runbook_lib.commands import evidence, running
from runbook_lib.errors import ParameterError, StageRefused
from runbook_lib.outcomes import ExitCode, Outcome
from runbook_lib.params import stage_params
from runbook_lib.strict import PROJECT

DEVELOPMENT = "development"


class Terminal:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def run(self, *argv: str | Path) -> int:
        """A command's exit code."""
        try:
            return cli.main([str(word) for word in argv])
        except SystemExit as left:
            return int(left.code or 0)
        finally:
            self.out, self.err = self._capsys.readouterr()

    def json(self, *argv: str | Path) -> Any:
        """The one document that a command prints with --json."""
        self.code = self.run(*argv, "--json")
        return json.loads(self.out)


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys)


@pytest.fixture
def params(practice: Any, tmp_path: Path) -> Path:
    """A parameter file for the practice site."""
    path = tmp_path / "development.yaml"
    keys = ("site", "release", "commit", "mode")
    path.write_text(yaml.safe_dump({key: practice.params[key] for key in keys}))
    return path


# --- usage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["holiday"],
        ["run"],
        ["run", "moon"],
        ["run", DEVELOPMENT, "-p", "release"],
        ["verify"],
        ["adopt", "--site", "x"],
        ["schema", "metrics"],
        ["status", "v1"],
    ],
)
def test_wrong_usage_ends_with_3(terminal: Terminal, argv: list[str]) -> None:
    """2 means inconclusive here; what is wrong goes to stderr."""
    assert terminal.run(*argv) == 3
    assert terminal.out == ""
    assert "usage: runbook" in terminal.err
    assert "error: " in terminal.err


def test_help_is_no_error(terminal: Terminal) -> None:
    """It lists every command."""
    assert terminal.run("--help") == 0
    for verb in ("run", "lab", "rehearse", "adopt", "verify", "replay", "seal", "render"):
        assert f"\n    {verb} " in terminal.out


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["run", DEVELOPMENT, "-f", "none.yaml"], "none.yaml: expected a parameter file, got: No"),
        (["run", DEVELOPMENT, "-f", "."], ".: expected a parameter file, got: Is a directory"),
        (["lab", DEVELOPMENT, "-f", "none.yaml"], "none.yaml: expected a parameter file, got: No"),
        (["lab", DEVELOPMENT], "command line: site: expected a site file, got none"),
        (
            ["run", DEVELOPMENT, "--continue", "-p", "site", "none.yaml"],
            "release: expected a value",
        ),
        (["status", "v1", "--site", "none.yaml"], "none.yaml: expected a site file, got: No such"),
        (["adopt", "--site", "none.yaml", "--cluster", "x"], "none.yaml: expected a site file"),
        (["verify", "none"], "none: expected the folder of an attempt, got none"),
        (["replay", "none"], "none: expected the folder of an attempt, got none"),
        (["seal", "none"], "none: expected the folder of an attempt, got none"),
        (["render", "none.ipynb"], "none.ipynb: expected a notebook, got: "),
        (["render", "."], "expected one executed notebook, got 0"),
        (["rehearse", "--fault", "holiday"], "fault: expected one of "),
    ],
)
def test_what_is_missing_is_named(
    terminal: Terminal, argv: list[str], problem: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """On stderr; with --json the one document says it, too. Exit 3."""
    monkeypatch.chdir(tmp_path)
    assert terminal.run(*argv) == 3
    assert problem in terminal.err
    assert "Traceback" not in terminal.err

    document = terminal.json(*argv)

    assert terminal.code == 3
    assert problem in document["error"]
    assert (document["outcome"], document["exit_code"]) == ("INCONCLUSIVE", 3)


def test_a_cancelled_command_says_so(terminal: Terminal, monkeypatch: Any) -> None:
    """Ctrl-C is exit 3 without a traceback; a reader that went away is exit 3 in silence."""

    def cancelled(args: Any) -> int:
        raise KeyboardInterrupt

    def gone(args: Any) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(evidence, "verify", cancelled)
    assert terminal.run("verify", "x") == 3
    assert terminal.err == "runbook: cancelled\n"
    monkeypatch.setattr(evidence, "verify", gone)
    assert terminal.run("verify", "x") == 3
    assert terminal.err == ""


# --- run --------------------------------------------------------------------------------------------


def test_run_prints_the_verdict_and_where_the_evidence_is(
    terminal: Terminal, practice: Any, params: Path, monkeypatch: Any
) -> None:
    """Progress item by item, the card, the folder; with --json one document. The exit code fits."""

    def run_stage(stage: str, values: Any, *, shown: Any, **given: Any) -> Any:
        opened = practice.open(**values)
        practice.walk(opened, ci_green=Outcome.FAIL)
        with pytest.raises(StageRefused):
            opened.enforce()
        verdict = opened.verdict()
        if shown is not None:
            shown(verdict.items[1])
        return SimpleNamespace(
            exit_code=verdict.exit_code, verdict=verdict, folder=opened.folder, problems=["odd"]
        )

    monkeypatch.setattr(launch, "run_stage", run_stage)

    assert terminal.run("run", DEVELOPMENT, "-f", params) == 1
    assert terminal.out.startswith("✗ FAIL         development.ready.ci-green: dev-1: height:")
    plan = practice.entries("plan")[-1].body["digest"]
    assert f"\nplan      {plan}\nevidence  {practice.folder(1)}\n" in terminal.out
    assert "-p retry_reason 'WHY'" in terminal.out

    document = terminal.json("run", DEVELOPMENT, "-f", params)

    assert terminal.code == 1
    assert document["outcome"] == "FAIL"
    assert document["evidence"] == str(practice.folder(2))
    assert document["problems"] == ["odd"]
    plan = practice.entries("plan")[-1].body["digest"]
    assert document["plan"] == plan
    assert [item["state"] for item in document["items"]] == ["judged"] * 3 + ["not-reached"] * 4
    assert document["items"][1] == {
        "id": "development.ready.ci-green",
        "outcome": "FAIL",
        "state": "judged",
        "waived": False,
        "reason": document["items"][1]["reason"],
    }

    terminal.run("run", DEVELOPMENT, "-f", params, "--continue", "-p", "retry_reason", "mended")

    assert practice.folder() == practice.folder(2)
    assert practice.entries("session")[-1].body["params"]["retry_reason"] == "mended"


def test_a_run_that_never_opened_is_a_document_too(terminal: Terminal, monkeypatch: Any) -> None:
    """Without verdict and evidence, with its problems."""
    report = SimpleNamespace(exit_code=ExitCode.BROKEN, verdict=None, folder=None, problems=["x"])
    monkeypatch.setattr(launch, "run_stage", lambda *words, **more: report)

    assert terminal.json("run", DEVELOPMENT) == {
        "outcome": "INCONCLUSIVE",
        "exit_code": 3,
        "return_at": None,
        "items": [],
        "plan": None,
        "evidence": None,
        "problems": ["x"],
    }
    assert terminal.run("run", DEVELOPMENT) == 3


def test_an_output_in_no_folder_is_refused(terminal: Terminal, params: Path) -> None:
    """Before anything runs."""
    argv = ["run", DEVELOPMENT, "-f", params, "-o", params.parent / "none" / "out.ipynb"]

    assert terminal.run(*argv) == 3
    assert "none/out.ipynb: expected a folder that exists, got " in terminal.err


def test_nothing_to_continue_is_said(terminal: Terminal, params: Path) -> None:
    """A release without an attempt cannot be continued."""
    assert terminal.run("run", DEVELOPMENT, "-f", params, "--continue") == 3
    assert terminal.err == (
        "v1.4.0/development: expected an attempt with mode: apply to continue, got none yet\n"
    )


def test_a_plan_made_meanwhile_does_not_hide_the_apply_that_waits(
    practice: Any, params: Path
) -> None:
    """Each mode goes on with its own newest attempt."""
    for mode in ("apply", "plan", "apply", "plan"):
        practice.open(mode=mode)
    given = {key: practice.params[key] for key in ("site", "release", "commit")}

    newest = {
        mode: running.newest_attempt(
            DEVELOPMENT, stage_params(DEVELOPMENT, {**given, "mode": mode}, "p")
        )
        for mode in ("plan", "apply")
    }

    assert newest == {"plan": 4, "apply": 3}


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("False", False), ("3", 3), ("0.5", 0.5), ("v1", "v1"), ("", "")],
)
def test_parameters_are_typed_as_papermill_does(text: str, value: Any) -> None:
    """-p reads numbers and truth values, -r takes text as it is."""
    args = SimpleNamespace(parameters_file=None, parameter=[("x", text)], raw=[("y", text)])

    assert running.read_parameters(args) == ({"x": value, "y": text}, "command line")


def test_a_parameter_file_must_be_a_mapping(tmp_path: Path) -> None:
    """It is named with its line."""
    path = tmp_path / "x.yaml"
    path.write_text("a: 1\na: 2\n")
    args = SimpleNamespace(parameters_file=str(path), parameter=[], raw=[])
    with pytest.raises(ParameterError) as caught:
        running.read_parameters(args)

    assert str(caught.value) == f"{path}: line 2: expected YAML, got: key 'a' is given twice"


# --- lab, evidence ----------------------------------------------------------------------------------


def test_lab_prepares_a_copy_in_a_new_attempt(
    terminal: Terminal, practice: Any, params: Path
) -> None:
    """Parameters filled in, outputs gone; continued, the stepped-through copy is kept."""
    document = terminal.json("lab", DEVELOPMENT, "-f", params)
    path = Path(document["notebook"])
    book = json.loads(path.read_bytes())
    injected = [c for c in book["cells"] if "injected-parameters" in c["metadata"].get("tags", [])]

    assert terminal.code == 0
    assert document["attempt"] == 1
    assert path == practice.folder() / "10_development.ipynb"
    assert "attempt = 1" in "".join(injected[0]["source"])
    assert all(not cell.get("outputs") for cell in book["cells"])

    path.write_text(path.read_text() + " ")
    argv = ["lab", DEVELOPMENT, "-f", params, "--continue", "--no-browser"]

    assert terminal.run(*argv) == 0
    assert f"attempt 1: {path}" in terminal.out
    assert "jupyterlab" in terminal.out
    assert path.read_text().endswith(" ")


def test_lab_opens_jupyterlab_on_the_copy(
    terminal: Terminal, practice: Any, params: Path, monkeypatch: Any
) -> None:
    """With the interpreter that we run on."""
    called: list[list[str]] = []

    def call(command: list[str]) -> int:
        called.append(command)
        return 0

    monkeypatch.setattr(subprocess, "call", call)

    assert terminal.run("lab", DEVELOPMENT, "-f", params) == 0
    assert called[0][:3] == [sys.executable, "-m", "jupyterlab"]
    assert called[0][-1] == "10_development.ipynb"


def test_verify_seal_and_render_an_attempt(terminal: Terminal, practice: Any) -> None:
    """Each as a table and as one document."""
    folder = practice.sealed()

    assert terminal.run("verify", folder) == 0
    assert "verify: PASS" in terminal.out
    document = terminal.json("verify", folder)
    assert (document["outcome"], document["verdict"], document["exit_code_of_run"]) == (
        "PASS",
        "PASS",
        0,
    )
    assert len(document["rows"]) == 9

    assert terminal.json("seal", folder) == {"outcome": "PASS", "exit_code": 0}
    assert terminal.run("seal", folder) == 0
    assert "✓ PASS" in terminal.out

    page = folder.parent / "page.html"
    assert terminal.json("render", folder, "-o", page) == {"page": str(page)}
    assert terminal.run("render", folder / "10_development.ipynb", "-o", page) == 0
    assert terminal.out == f"{page}\n"
    assert page.read_text().startswith("<!doctype html>")

    (folder / "record.jsonl").write_text("")
    assert terminal.run("verify", folder) == 1


def test_rendering_into_no_folder_is_named(terminal: Terminal, practice: Any) -> None:
    """A path that cannot be written is a person's mistake."""
    folder = practice.sealed()

    assert terminal.run("render", folder, "-o", folder / "none" / "page.html") == 3
    assert "page.html: expected a file that can be written, got: No such file" in terminal.err


def test_replay_compares_with_our_notebook(
    terminal: Terminal, practice: Any, monkeypatch: Any
) -> None:
    """The rows, and who recorded."""
    folder = practice.sealed()

    def run_stage(stage: str, values: Any) -> Any:
        opened = practice.open()
        practice.walk(opened)
        kept = Path(os.environ["RUNBOOK_REPLAY_KEEP"])
        (kept / "record.jsonl").write_bytes((opened.folder / "record.jsonl").read_bytes())
        return SimpleNamespace(problems=[])

    monkeypatch.setattr(launch, "run_stage", run_stage)
    document = terminal.json("replay", folder)

    assert terminal.code == 0
    assert (document["recorded_by"], document["replayed_by"]) == ("0.1.0", "0.1.0")
    assert [row["observed"] for row in document["rows"]] == ["the same"] * 7


# --- the site ---------------------------------------------------------------------------------------


def test_status_is_computed_from_the_attempts(terminal: Terminal, practice: Any) -> None:
    """2 until the release passed its stages, 0 then."""
    argv = ["status", "v1.4.0", "--site", practice.site]

    assert terminal.run(*argv) == 2
    assert "no attempt yet" in terminal.out

    stage = practice.open()
    practice.walk(stage, ci_green=Outcome.FAIL)
    with pytest.raises(StageRefused):
        stage.enforce()
    document = terminal.json(*argv)

    assert terminal.code == 2
    assert document["attempts"][0]["outcome"] == "FAIL"
    assert document["attempts"][0]["blocks"].startswith("development.ready.ci-green: dev-1")

    practice.sealed()
    document = terminal.json(*argv)

    assert terminal.code == 0
    assert [(row["attempt"], row["exit_code"], row["sealed"]) for row in document["attempts"]] == [
        (1, 1, False),
        (2, 0, True),
    ]
    assert terminal.run(*argv) == 0


def test_status_of_a_plan_is_no_pass(terminal: Terminal, practice: Any) -> None:
    """A plan that is ready has promoted nothing."""
    stage = practice.open(mode="plan")
    practice.walk(stage)
    stage.enforce()

    assert terminal.run("status", "v1.4.0", "--site", practice.site) == 2


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

    assert terminal.code == 1
    assert rows["python"]["outcome"] == rows["papermill"]["outcome"] == "PASS"
    assert rows["store"]["outcome"] == "PASS"
    assert (rows["GITHUB_TOKEN"]["outcome"], rows["GITHUB_TOKEN"]["observed"]) == (
        "FAIL",
        "5 characters",
    )
    assert rows["operator"]["outcome"] == "FAIL"
    assert rows["version"]["observed"] == "no-such-program-anywhere: not on PATH"
    assert rows["tests/pipeline"]["outcome"] == "PASS"
    assert rows["deploy"]["outcome"] == "INCONCLUSIVE"
    assert rows["prometheus"]["observed"].startswith("ConnectError")
    assert rows["forge"]["outcome"] == rows["grafana"]["outcome"] == "FAIL"


def test_doctor_names_every_problem_of_a_site(terminal: Terminal, practice: Any) -> None:
    """One row each."""
    practice.write_site(store=7, people=[])
    document = terminal.json("doctor", "--site", practice.site)
    wrong = [row["observed"] for row in document["rows"] if row["subject"] == str(practice.site)]

    assert terminal.code == 1
    assert len(wrong) == 2
    assert wrong[0] == f"{practice.site}: store: expected text in quotes, got 7"


def test_schemas_accept_what_we_ship(terminal: Terminal) -> None:
    """The example site and the development parameters, and nothing misspelt."""
    site = terminal.json("schema", "site")
    example = yaml.safe_load((PROJECT / "params/sites/example.yaml").read_text())
    jsonschema.validate(example, site)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**example, "stor": "x"}, site)

    stage = terminal.json("schema", DEVELOPMENT)
    jsonschema.validate(yaml.safe_load((PROJECT / "params/development.yaml").read_text()), stage)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"relase": "v1"}, stage)


def test_faults_are_listed(terminal: Terminal) -> None:
    """With the item that must notice each, and its outcome."""
    document = terminal.json("rehearse", "--list-faults")
    found = {row["name"]: row for row in document}

    assert terminal.code == 0
    assert found["ci-red"]["item"] == "development.ready.ci-green"
    assert found["ci-red"]["outcome"] == "FAIL"
    assert terminal.run("rehearse", "--list-faults") == 0
    assert "gate-flipped" in terminal.out
