"""A recovery's parameters are those of the log: who can write the store can edit what lies ready."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from runbook_lib import launch
from runbook_lib.errors import ParameterError
from runbook_lib.evidence.store import Store
from runbook_lib.opening import prepare_attempt
from runbook_lib.params import way_back

from ..commands.conftest import Terminal

REASON = "the forge is down, called ada"


@pytest.fixture(name="terminal")
def _terminal(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys)


@pytest.fixture
def ready(practice: Any) -> Path:
    """The parameters that lie ready in an attempt."""
    folder: Path = practice.sealed()
    path = folder / "recovery" / "params.yaml"
    path.parent.mkdir(exist_ok=True)
    opened = Store.opened(Store(practice.root / "store").attempts("v1.4.0")[-1])
    path.write_text(yaml.safe_dump(way_back(opened)))
    return path


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The parameters of every stage that is run."""
    found: list[dict[str, Any]] = []

    def run_stage(stage: str, params: dict[str, Any], **more: Any) -> Any:
        found.append(dict(params))
        return SimpleNamespace(exit_code=0, verdict=None, folder=None, problems=[])

    monkeypatch.setattr(launch, "run_stage", run_stage)
    return found


def edit(path: Path, **changes: Any) -> None:
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("site", "/tmp/another/site.yaml"),
        ("release", "v6.6.6"),
        ("commit", "d" * 40),
        ("nodes", ["main-1"]),
        ("takeover_minutes", 0.01),
        ("break_glass", "as good as any other reason"),
        ("undoes", 7),
    ],
)
def test_a_parameter_that_is_not_the_logs_is_refused(
    ready: Path,
    terminal: Terminal,
    runs: list[Any],
    name: str,
    value: Any,
) -> None:
    """Whatever names another site, release or node, or lets an edited file pass; a reason lets it."""
    logged = yaml.safe_load(ready.read_text()).get(name)
    edit(ready, **{name: value})

    assert terminal.run("recover", "development", "-f", ready) == 3
    assert terminal.err == (
        f"{ready}: {name}: expected {logged!r} as the log has it, got {value!r}\n"
        f"{ready}: to go on with others than the log's give the reason: --reason 'WHY'\n"
    )
    assert runs == []


def test_a_reason_lets_it_pass_and_is_recorded(
    practice: Any,
    ready: Path,
    terminal: Terminal,
    runs: list[Any],
) -> None:
    """As break-glass, which the recovery's log opens with."""
    edit(ready, nodes=["dev-1"])

    assert terminal.run("recover", "development", "-f", ready, "--reason", REASON) == 0
    assert (runs[0]["nodes"], runs[0]["break_glass"]) == (["dev-1"], REASON)


def test_what_the_file_leaves_out_is_the_logs(
    practice: Any,
    ready: Path,
    terminal: Terminal,
    runs: list[Any],
) -> None:
    """Site and release, too; what people are told may be written into it, and typed parameters count."""
    ready.write_text("summary: rewards were paid twice\n")

    assert terminal.run("recover", "development", "-f", ready, "-p", "mode", "plan") == 0
    assert runs[0]["site"] == str(practice.site)
    assert (runs[0]["release"], runs[0]["undoes"], runs[0]["mode"]) == ("v1.4.0", 1, "plan")
    assert runs[0]["summary"] == "rewards were paid twice"


@pytest.mark.parametrize("how", ["gone", "empty", "a link"])
def test_without_its_log_a_file_that_lies_ready_is_refused(
    ready: Path,
    terminal: Terminal,
    runs: list[Any],
    how: str,
) -> None:
    """Deleting the log must not be the way around it."""
    log = ready.parents[1] / "record.jsonl"
    other = log.rename(log.with_name("other"))
    if how == "empty":
        log.write_text("")
    elif how == "a link":
        log.symlink_to(other)

    assert terminal.run("recover", "development", "-f", ready) == 3
    assert runs == []
    assert "Traceback" not in terminal.err


def test_the_parameters_in_an_attempts_folder_are_held_to_its_log(
    practice: Any,
    terminal: Terminal,
    runs: list[Any],
) -> None:
    """``run --continue -f <attempt>/params.yaml`` is as easily led elsewhere."""
    path = practice.sealed() / "params.yaml"
    edit(path, site="/tmp/another/site.yaml")

    assert terminal.run("run", "development", "--continue", "-f", path) == 3
    assert terminal.err.startswith(
        f"{path}: site: expected {str(practice.site)!r} as the log has it, got '/tmp/another/site.yaml'\n"
    )


@pytest.mark.parametrize("name", ["commit", "issue", "previous_release"])
def test_a_recovery_opened_by_hand_is_held_to_the_log_it_undoes(practice: Any, name: str) -> None:
    """In JupyterLab, where no command reads the file."""
    folder = practice.sealed()
    value: Any = {"commit": "d" * 40, "issue": 7, "previous_release": "v0"}[name]
    given = {key: practice.params[key] for key in ("site", "release", "commit")} | {"mode": "apply"}
    with pytest.raises(ParameterError) as caught:
        prepare_attempt("development_recovery", {**given, name: value}, "by hand")

    where = "v1.4.0/development/0001"
    assert str(caught.value) == (
        f"{where}: {name}: expected {practice.params[name]!r} as the log has it, got {value!r}\n"
        f"{where}: to go on with others than the log's give the reason: --reason 'WHY'"
    )
    made = prepare_attempt(
        "development_recovery", {**given, name: value, "break_glass": REASON}, "by hand"
    )
    assert Store.opened(made)["params"]["break_glass"] == REASON
    assert folder.is_dir()
