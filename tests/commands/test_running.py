"""A run prints one document and ends with the verdict's exit code; JupyterLab gets a copy."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml

from runbook_lib import launch
from runbook_lib.commands import running
from runbook_lib.errors import StageRefused, StoreError
from runbook_lib.outcomes import Outcome
from runbook_lib.params import stage_params
from runbook_lib.verdicts import ExitCode
from runbook_lib.wording import progress

from ..conftest import Terminal
from ..jupyter import address, places

DEVELOPMENT = "development"


@pytest.fixture
def params(practice: Any, tmp_path: Path) -> Path:
    """A parameter file for the practice site."""
    path = tmp_path / "development.yaml"
    keys = ("site", "release", "commit", "mode")
    path.write_text(yaml.safe_dump({key: practice.params[key] for key in keys}))
    return path


def test_run_prints_the_verdict_and_where_the_evidence_is(
    terminal: Terminal, practice: Any, params: Path
) -> None:
    """Progress item by item, the card, the folder; with --json one document. The exit code fits."""

    def run_stage(stage: str, values: Any, *, shown: Any, **given: Any) -> Any:
        opened = practice.open(**values)
        practice.walk(opened, ci_green=Outcome.FAIL)
        with pytest.raises(StageRefused):
            opened.enforce()
        verdict = opened.verdict()
        if shown is not None:
            shown(progress(verdict.items[1]))
        return SimpleNamespace(
            exit_code=verdict.exit_code, verdict=verdict, folder=opened.folder, problems=["odd"]
        )

    practice.patch.setattr(launch, "run_stage", run_stage)

    assert terminal.run("run", DEVELOPMENT, "-f", params) == 1
    assert terminal.out.startswith("✗ FAIL         development.ready.ci-green: dev-1: height:")
    plan = practice.events("plan")[-1].digest
    assert f"\nplan      {plan}\nevidence  {practice.folder(1)}\n" in terminal.out
    assert "-p retry_reason 'WHY'" in terminal.out

    document = terminal.json("run", DEVELOPMENT, "-f", params)

    assert terminal.code == 1
    assert (document["outcome"], document["evidence"]) == ("FAIL", str(practice.folder(2)))
    assert document["problems"] == ["odd"]
    plan = practice.events("plan")[-1].digest
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
    assert practice.events("session")[-1].params["retry_reason"] == "mended"


def test_a_run_that_never_opened_is_a_document_too(terminal: Terminal, monkeypatch: Any) -> None:
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
        "next": [],
    }
    assert terminal.run("run", DEVELOPMENT) == 3


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["-o", "none/out.ipynb"],
         "none/out.ipynb: expected NAME.ipynb in a folder that exists, got "),
        (["--continue"],
         "v1.4.0/development: expected an attempt with mode: apply to continue, got none yet\n"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_begin_says_why(
    terminal: Terminal, params: Path, monkeypatch: Any, more: list[str], said: str
) -> None:
    monkeypatch.chdir(params.parent)
    assert terminal.run("run", DEVELOPMENT, "-f", params, *more) == 3
    assert said in terminal.err


def test_a_plan_made_meanwhile_does_not_hide_the_apply_that_waits(
    practice: Any, params: Path
) -> None:
    for mode in ("apply", "plan", "apply", "plan"):
        practice.open(mode=mode)
    given = {key: practice.params[key] for key in ("site", "release", "commit")}

    for mode, newest in (("plan", 4), ("apply", 3)):
        asked = stage_params(DEVELOPMENT, {**given, "mode": mode}, "p")
        assert running.newest_attempt(DEVELOPMENT, asked) == newest
    practice.open(mode="apply").folder.joinpath("log.jsonl").write_text("{}\n")
    with pytest.raises(StoreError, match=r"0005: .*log\.jsonl: line 1: expected an event"):
        running.newest_attempt(DEVELOPMENT, asked)


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("False", False), ("3", 3), ("0.5", 0.5), ("v1", "v1"), ("", "")],
)
def test_parameters_are_typed_as_papermill_does(text: str, value: Any) -> None:
    """-p reads numbers and truth values, -r takes text as it is."""
    args = SimpleNamespace(parameters_file=None, parameter=[("x", text)], raw=[("y", text)])

    assert running.read_parameters(args) == ({"x": value, "y": text}, "command line")


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

    assert terminal.json("lab", DEVELOPMENT, "-f", params, "--continue") == document
    assert path.read_text().endswith(" ")


def test_lab_serves_the_copy(practice: Any, params: Path, tmp_path: Path) -> None:
    """JupyterLab itself is what was started, from whatever folder; Jupyter's own configuration holds."""
    runbook = Path(sys.executable).with_name("runbook")
    config = tmp_path / "config" / "jupyter_server_config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"ServerApp": {"allow_root": True, "port": 0}}))
    environment = {**os.environ, **places(tmp_path), "JUPYTER_TOKEN": "only-for-this-test"}
    assert environment["RUNBOOK_SIGNING_KEY"]
    with (tmp_path / "lab.log").open("w") as log:
        lab = subprocess.Popen(
            [runbook, "lab", DEVELOPMENT, "-f", params, "--no-browser"],
            cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        api = f"{address(tmp_path)}api/contents/10_development.ipynb"
        token = {"Authorization": "token only-for-this-test"}
        with httpx.Client(trust_env=False, timeout=30) as client:
            refused, served = client.get(api), client.get(api, headers=token)
        environ = Path(f"/proc/{lab.pid}/environ").read_text().split("\0")
    finally:
        lab.send_signal(signal.SIGTERM)
        ended = lab.wait(30)

    # A kernel signs nothing.
    assert not [name for name in environ if name.startswith("RUNBOOK_SIGNING_")]
    sources = [cell["source"] for cell in served.json()["content"]["cells"]]
    assert (refused.status_code, served.status_code) == (403, 200)
    assert any(f"release = {practice.params['release']!r}\n" in source for source in sources)
    assert any("attempt = 1" in source for source in sources)
    assert "/lab/tree/10_development.ipynb?token=" in (tmp_path / "lab.log").read_text()
    assert ended in (0, -signal.SIGTERM)
