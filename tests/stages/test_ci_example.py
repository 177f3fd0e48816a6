"""The CI example of the documentation: its shape, and its very commands on a rehearsal network."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from runbook_lib import playbook
from runbook_lib.changes.adopt import adopt
from runbook_lib.strict import PROJECT

from ..conftest import ran
from .conftest import Operator, operating

EXAMPLE = PROJECT / "docs" / "github-actions.yml"
JOBS: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())["jobs"]
READS = {"contents": "read", "checks": "read", "issues": "read", "statuses": "read"}
BOTH = pytest.mark.parametrize("job", JOBS)


def steps(job: str) -> list[dict[str, Any]]:
    return list(JOBS[job]["steps"])


def step(job: str, name: str) -> dict[str, Any]:
    (found,) = [one for one in steps(job) if one.get("name") == name or one.get("id") == name]
    return found


# --- its shape --------------------------------------------------------------------------------------


def test_it_has_the_least_permissions() -> None:
    """None but those a job names; a plan only reads."""
    document = yaml.safe_load(EXAMPLE.read_text())

    assert (document["permissions"], JOBS.keys()) == ({}, {"plan", "apply"})
    assert JOBS["plan"]["permissions"] == READS
    assert JOBS["apply"]["permissions"] == READS | {"contents": "write", "issues": "write"}


@BOTH
def test_what_runs_is_pinned_and_ours(job: str) -> None:
    """A tag of an action can be moved; credentials do not stay in the checkout; nothing that others
    typed reaches a shell; what is installed is a target of ours, from the lock file.
    """
    used = [one["uses"] for one in steps(job) if "uses" in one]

    assert used
    assert [name for name in used if not re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", name)] == []
    assert all(f"{name} # v" in EXAMPLE.read_text() for name in used)
    assert steps(job)[0]["with"]["persist-credentials"] is False
    assert [one["run"] for one in steps(job) if "${{" in one.get("run", "")] == []
    target = step(job, "Install")["run"].removeprefix("make ")
    assert f"\n{target}: requirements.lock" in (PROJECT / "Makefile").read_text()


def test_a_plan_never_runs_for_a_fork_and_covers_every_stage() -> None:
    plan = JOBS["plan"]

    assert "head.repo.full_name == github.repository" in plan["if"]
    assert plan["strategy"]["matrix"]["stage"] == list(playbook.STAGES)
    assert "environment" not in plan
    assert "RPP_RPC_READ_TOKEN" in plan["env"]["RPP_RPC_TOKEN"]


def test_an_apply_stands_behind_the_environment_of_its_stage() -> None:
    """Started by hand on main, one at a time, never cut off by the next."""
    apply, text = JOBS["apply"], EXAMPLE.read_text()
    triggers = yaml.safe_load(text.replace("\non:\n", "\ntriggers:\n"))["triggers"]

    assert "github.ref == 'refs/heads/main'" in apply["if"]
    assert "pull_request" not in apply["if"]
    assert apply["environment"].endswith("|| inputs.stage }}")
    assert apply["concurrency"]["cancel-in-progress"] is False
    assert triggers["workflow_dispatch"]["inputs"]["stage"]["options"] == list(playbook.STAGES)
    assert len(triggers["schedule"]) == 1


@BOTH
def test_the_executed_notebook_is_kept_whatever_happened(job: str) -> None:
    """Right after the run, before the verdict can end the job."""
    names = [one.get("name") for one in steps(job)]
    kept = step(job, "Keep the executed notebook")

    assert names[-3:] == [step(job, "run")["name"], "Keep the executed notebook", "Verdict"]
    assert kept["if"].startswith("always()")
    assert step(job, "Verdict")["if"].startswith("always()")
    assert "${{ runner.temp }}/*.ipynb" in kept["with"]["path"].split("\n")


def test_both_jobs_end_alike() -> None:
    """One reading of the exit codes, and the documents name them all."""
    assert step("plan", "Verdict")["run"] == step("apply", "Verdict")["run"]
    table = (PROJECT / "docs" / "ci.md").read_text()
    assert all(f"| {codes} |" in table for codes in ("0", "4", "1, 2, 3", "none"))


# --- its commands -----------------------------------------------------------------------------------


class Runner:
    """A checkout with its environment installed, and a temporary folder for each job."""

    def __init__(self, operator: Operator, home: Path) -> None:
        assert operator.network is not None
        self.operator, self.home = operator, home
        (home / ".venv").symlink_to(Path(sys.executable).parent.parent)
        (home / "params").symlink_to(operator.network.root / "params")

    def run(self, job: str, name: str, temporary: Path, **env: str) -> Any:
        """A step as Actions runs it: the shell, the files for its output and summary."""
        names = {"GITHUB_OUTPUT": "output", "GITHUB_STEP_SUMMARY": "summary"}
        files = {name: temporary / file for name, file in names.items()}
        for path in files.values():
            path.touch()
        said = {"RUNNER_TEMP": temporary, **files, **env}
        shell = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step(job, name)["run"])
        given = self.operator.environment | {key: str(value) for key, value in said.items()}
        return ran(*shell, cwd=self.home, env=given)

    def carry(self, job: str, temporary: Path, **env: str) -> tuple[str, int, str]:
        """The job's run and verdict: the code handed on, how the job ends, what it says of it."""
        temporary.mkdir()
        empty = {"PLAN": "", "WHY": "", "GITHUB_EVENT_NAME": "workflow_dispatch"}
        ran = self.run(job, "run", temporary, **(empty | env))
        assert ran.returncode == 0, ran.stderr
        code = (temporary / "output").read_text().strip().removeprefix("code=")
        ended = self.run(job, "Verdict", temporary, CODE=code, **env)
        return code, ended.returncode, ended.stdout.strip()


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    root = tmp_path_factory.mktemp("ci-example")
    with operating(root, measured=False) as operator:
        adopt(str(operator.site), "testnet", artifacts=operator.before)
        (root / "checkout").mkdir()
        yield Runner(operator, root / "checkout")


def test_development_waits_and_the_scheduled_run_carries_it_on(
    runner: Runner, tmp_path: Path
) -> None:
    """Exit 4 is green with a notice; the same attempt passes once time has. Then testnet is planned."""
    network = runner.operator.network
    assert network is not None
    first = runner.carry("apply", tmp_path / "first", STAGE="development")
    network.fast_forward(4000)
    timed = {"STAGE": "development", "GITHUB_EVENT_NAME": "schedule"}
    again = runner.carry("apply", tmp_path / "again", **timed)
    planned = runner.carry("plan", tmp_path / "planned", STAGE="testnet")

    waits = "::notice::development: waiting; nothing is wrong, the card says when to return"
    assert first == ("4", 0, waits)
    assert again == ("0", 0, "::notice::development: passed"), (
        tmp_path / "again" / "development.txt"
    ).read_text()
    assert planned[:2] == ("4", 0), (tmp_path / "planned" / "testnet.txt").read_text()
    attempts = sorted((network.root / "store" / "v1.4.0").glob("*/*/log.jsonl"))
    assert [path.parent.parent.name for path in attempts] == ["development", "testnet"]
    for folder in ("first", "again", "planned"):
        stage = "testnet" if folder == "planned" else "development"
        book = nbformat.read(tmp_path / folder / f"{stage}.ipynb", as_version=4)
        assert stage in book.cells[0].outputs[0].data["text/plain"]
        summary = (tmp_path / folder / "summary").read_text()
        assert (tmp_path / folder / f"{stage}.txt").read_text() in summary
    assert "\nplan      sha256:" in (tmp_path / "planned" / "summary").read_text()


def test_an_apply_without_an_approved_plan_is_broken(runner: Runner, tmp_path: Path) -> None:
    """Before anything ran: red, with the reason in the summary, and no notebook to keep."""
    assert runner.carry("apply", tmp_path / "none", STAGE="testnet")[:2] == ("3", 3)
    summary = (tmp_path / "none" / "summary").read_text()
    assert "approved_plan: expected the digest of an approved plan" in summary


@pytest.mark.parametrize(
    ("code", "ends"), [("0", 0), ("4", 0), ("1", 1), ("2", 2), ("3", 3), ("", 3), ("137", 3)]
)
def test_each_exit_code_ends_the_job_as_documented(
    runner: Runner, tmp_path: Path, code: str, ends: int
) -> None:
    """What ends otherwise, or never ended, is broken: even without a text to show."""
    ended = runner.run("apply", "Verdict", tmp_path, CODE=code, STAGE="canary")

    assert ended.returncode == ends
    assert ended.stdout.startswith(f"::{'error' if ends else 'notice'}::canary: ")


def test_only_a_stage_that_is_touched_is_planned(tmp_path: Path, runner: Runner) -> None:
    """By its parameter file; when git cannot tell, it is planned."""

    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.invalid")
        return ran("git", *who, *words, cwd=home, check=True).stdout.strip()

    home = tmp_path / "clone"
    (home / "params").mkdir(parents=True)
    git("init", "-q")
    for stage in ("testnet", "canary"):
        (home / "params" / f"{stage}.yaml").write_text("a: 1\n")
    git("add", ".")
    git("commit", "-qm", "before")
    base = git("rev-parse", "HEAD")
    (home / "params" / "testnet.yaml").write_text("a: 2\n")
    git("commit", "-qam", "after")

    said = {}
    for stage, before in (("testnet", base), ("canary", base), ("mainnet", "0" * 40)):
        output = tmp_path / stage
        script = step("plan", "touched")["run"]
        env = {"PATH": runner.operator.environment["PATH"], "GITHUB_OUTPUT": str(output)}
        given = env | {"STAGE": stage, "BASE": before}
        ran("bash", "-eo", "pipefail", "-c", script, cwd=home, check=True, env=given)
        said[stage] = output.read_text()

    assert said == {"testnet": "yes=true\n", "canary": "yes=false\n", "mainnet": "yes=true\n"}
