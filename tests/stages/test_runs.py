"""Whole runs, as a person or CI starts them: real processes, real kernels, a network to run against."""

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from runbook_lib import playbook
from runbook_lib.notebook import NOTEBOOKS
from runbook_rehearsal.telemetry import processes

from .conftest import NOTEBOOK, Operator, entries, held, left_in, operating, processes_of

DECLARED = list(playbook.DECLARED["development"])
TOKENS = ("RPP_RPC_TOKEN", "GITHUB_TOKEN")

# In a network namespace of its own even loopback is down: bring it up, then become the command.
ONLY_LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket() as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sH14x", b"lo", 0x41))
os.execvp(sys.argv[1], sys.argv[1:])
"""


operator = held(operating)


@pytest.fixture
def visitor(tmp_path: Path) -> Operator:
    """Somebody who has just cloned the project: no network, no parameters, no tokens."""
    return Operator(tmp_path, measured=False)


@dataclass
class Passed:
    """A stage that waited, and the command it named, which went on to its pass."""

    attempt: Path
    steps: list[dict[str, Any]]
    waiting: subprocess.CompletedProcess[str]
    passing: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def passed(operator: Operator) -> Passed:
    assert operator.network is not None
    waiting = operator.run("runbook", "run", "development", "--json", "-f", operator.params)
    assert waiting.returncode == 4, waiting.stderr
    attempt = operator.attempt("v1.4.0")
    steps = [e for e in entries(attempt) if e["kind"] == "step"]
    [told] = json.loads(waiting.stdout)["next"]
    command = shlex.split(told.removeprefix("Come back then: `").removesuffix("`"))
    operator.network.fast_forward(4000)  # the window of the baseline
    return Passed(attempt, steps, waiting, operator.run(*command, "--json"))


def items(document: Any) -> dict[str, str]:
    return {item["id"]: item["outcome"] for item in document["items"]}


# --- our own commands -----------------------------------------------------------------------------


def test_a_stage_that_waits_is_continued_to_its_pass(passed: Passed) -> None:
    """Too early is exit 4 with the time to return; the command it names goes on with the attempt.

    No change is repeated.
    Each run prints one JSON document and nothing else.
    """
    first, second = (json.loads(ended.stdout) for ended in (passed.waiting, passed.passing))

    assert (first["exit_code"], first["outcome"]) == (4, "INCONCLUSIVE")
    assert first["return_at"] is not None
    assert items(first) == dict.fromkeys(DECLARED, "PASS") | {DECLARED[-1]: "INCONCLUSIVE"}
    ended = (passed.passing.returncode, second["outcome"], second["return_at"])
    assert ended == (0, "PASS", None), passed.passing.stderr
    assert set(second["items"][0]) == {"id", "outcome", "state", "waived", "reason"}
    assert items(second) == dict.fromkeys(DECLARED, "PASS")
    assert first["evidence"] == second["evidence"] == str(passed.attempt)
    again = [e for e in entries(passed.attempt) if e["kind"] == "step"]
    assert (len(passed.steps) > 0, again) == (True, passed.steps)


def test_a_pass_verifies(operator: Operator, passed: Passed) -> None:
    """Every step of the procedure holds, for a copy of the attempt in another place too."""
    copy = shutil.copytree(passed.attempt, operator.home / "copy")

    ended = operator.run("runbook", "verify", copy, "--json", "--trust", operator.site)

    document = json.loads(ended.stdout)
    assert (ended.returncode, document["outcome"], document["verdict"]) == (0, "PASS", "PASS")
    assert {row["outcome"] for row in document["rows"]} == {"PASS"}


def test_a_pass_pins_a_baseline_with_its_load(passed: Passed) -> None:
    """Without the load a later baseline could be compared with nothing."""
    schema = pq.read_schema(passed.attempt / "metrics/baseline.parquet")

    load = json.loads(schema.metadata[b"baseline"])["load"]
    assert load == pytest.approx(0.8 * 18, rel=0.2)  # blocks/s of all nodes, 18 each


def test_a_run_leaves_nothing_behind(operator: Operator, passed: Passed) -> None:
    assert left_in(operator) == []
    assert processes_of(operator) == []


def test_no_secret_stands_in_what_a_run_leaves(operator: Operator, passed: Passed) -> None:
    """Neither token is in any file of the attempt, nor on the terminal."""
    files = [path for path in passed.attempt.rglob("*") if path.is_file()]
    texts = [path.read_bytes() for path in files]
    texts += [text.encode() for text in (passed.passing.stdout, passed.passing.stderr)]

    assert len(files) > 20
    assert [s for s in operator.secrets if any(s.encode() in text for text in texts)] == []


def test_a_refused_run_keeps_its_evidence(operator: Operator) -> None:
    """By papermill: the exit code says why; executed notebook and log are kept, and verify.

    What could not be told in the release issue is left to be done.
    """
    release = operator.release()
    with operator.fault("forge-down"):
        ended = operator.papermill("red.ipynb", "-f", operator.params, "-r", "release", release)
    attempt = operator.attempt(release)
    verified = json.loads(
        operator.run("runbook", "verify", attempt, "--json", "--trust", operator.site).stdout
    )

    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False)
    assert (operator.home / "red.ipynb").read_bytes() == (attempt / NOTEBOOK).read_bytes()
    assert (verified["outcome"], verified["verdict"], verified["exit_code_of_run"]) == (
        "PASS",
        "INCONCLUSIVE",
        2,
    )
    judged = [e for e in entries(attempt) if e["kind"] == "result"]
    ci = ("development.ready.ci-green", "INCONCLUSIVE")
    assert {(b["item"], b["result"]["outcome"]) for b in judged} >= {ci}
    assert (attempt / "outbox" / "release-issue.json").exists()
    assert "runbook publish" in ended.stderr
    assert operator.run("runbook", "publish", attempt).returncode == 0
    assert not (attempt / "outbox").exists()


def test_a_stage_is_stepped_through_by_hand_and_sealed(operator: Operator) -> None:
    """``lab`` prepares a copy with the parameters in it; run there, it is sealed as what it came to."""
    more = ("-f", operator.params, "-r", "release", operator.release())
    lab = operator.run("runbook", "lab", "development", "--no-browser", "--json", *more)
    path = Path(json.loads(lab.stdout)["notebook"])
    operator.run("jupyter", "execute", "--inplace", path)
    sealed = operator.run("runbook", "seal", path.parent)
    verified = operator.run("runbook", "verify", path.parent, "--trust", operator.site)

    assert sealed.returncode == 4, sealed.stderr
    assert "apply, rehearsal, interactive" in sealed.stdout
    assert verified.returncode == 0, verified.stdout


def test_an_attempt_replays_without_any_network(operator: Operator, passed: Passed) -> None:
    """In a network namespace with nothing but its own loopback: every result is the same."""
    copy = shutil.copytree(passed.attempt, operator.home / "replayed")
    argv = (sys.executable, "-c", ONLY_LOOPBACK, "runbook", "replay", copy, "--json")

    ended = operator.run(*namespace(operator), *argv, **dict.fromkeys(TOKENS, ""))

    document = json.loads(ended.stdout)
    assert (ended.returncode, document["outcome"]) == (0, "PASS"), document
    assert [row["subject"] for row in document["rows"]] == DECLARED
    assert {row["observed"] for row in document["rows"]} == {"the same"}


def namespace(operator: Operator) -> tuple[str, ...]:
    for argv in (("unshare", "-n"), ("unshare", "-rn")):
        if shutil.which("unshare") and operator.run(*argv, "true").returncode == 0:
            return argv
    pytest.skip("no network namespace can be made here")


# --- out of the box -------------------------------------------------------------------------------


def test_nbval_notices_a_changed_result(visitor: Operator) -> None:
    """One number changed in the committed outputs: its result and the verdict both mismatch."""
    text = (NOTEBOOKS / NOTEBOOK).read_text()
    changed = text.replace("9 tests of 2 suites passed", "8 tests of 2 suites passed")
    (visitor.home / NOTEBOOK).write_text(changed)

    pytest_ = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "nbval")
    ended = visitor.run(*pytest_, "--nbval", "--nbval-current-env", visitor.home / NOTEBOOK)

    assert changed != text
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1].startswith("2 failed, ")


def test_a_rehearsal_with_a_fault_says_whether_it_came_out_as_declared(visitor: Operator) -> None:
    root = visitor.home / "network"
    ended = visitor.run("runbook", "rehearse", "--json", "--until", "development",
                        "--fault", "gate-flipped", "--root", root)  # fmt: skip

    document = json.loads(ended.stdout)
    assert (ended.returncode, document["exit_code"]) == (1, 1), ended.stderr
    [fault] = document["faults"]
    assert (fault["as_declared"], fault["seen"]) == (True, "FAIL at preflight.config-drift")
    assert not (root / "prometheus" / "data").exists()  # embedded, whatever is on PATH


@pytest.mark.servers
@pytest.mark.parametrize("kind", ["real", pytest.param("embedded", marks=pytest.mark.torture)])
def test_a_rehearsal_comes_to_a_pass_on_either_servers(visitor: Operator, kind: str) -> None:
    """``rehearse --json`` prints one document; the runs above have the embedded servers under them."""
    for name in ("prometheus", "alertmanager"):
        if processes.binary(name) is None:
            pytest.skip(f"{name} is not installed")
    visitor.measured = True
    root = visitor.home / "network"

    ended = visitor.run("runbook", "rehearse", "--json", "--until", "development",
                        "--servers", kind, "--root", root)  # fmt: skip

    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert Path(document["evidence"]).is_relative_to(root)
    assert items(document) == dict.fromkeys(DECLARED, "PASS")
    assert left_in(visitor) == []
