"""Whole runs, as a person or CI starts them: real processes, real kernels, a network to run against."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from runbook_lib import playbook
from runbook_lib.notebook import NOTEBOOKS
from runbook_rehearsal.telemetry import processes

from .conftest import NOTEBOOK, Operator, entries, left_in, operating, processes_of

DECLARED = list(playbook.DECLARED["development"])
TOKENS = ("RPP_RPC_TOKEN", "GITHUB_TOKEN")

# In a network namespace of its own even loopback is down: bring it up, then become the command.
ONLY_LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket() as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sH14x", b"lo", 0x41))
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with operating(tmp_path_factory.mktemp("runs")) as made:
        yield made


@pytest.fixture
def visitor(tmp_path: Path) -> Operator:
    """Somebody who has just cloned the project: no network, no parameters, no tokens."""
    return Operator(tmp_path, measured=False)


@pytest.fixture(scope="module")
def passed(operator: Operator) -> tuple[Any, Path, Path]:
    """A passing run through papermill: how it ended, its output and its attempt."""
    assert operator.network is not None
    waiting = operator.papermill("waiting.ipynb", "-f", operator.params)
    assert waiting.returncode == 4, waiting.stderr
    operator.network.fast_forward(4000)  # the window of the baseline
    ended = operator.papermill("passed.ipynb", "-f", operator.params, "-p", "attempt", "1")
    return ended, operator.home / "passed.ipynb", operator.attempt("v1.4.0")


def items(document: Any) -> dict[str, str]:
    return {item["id"]: item["outcome"] for item in document["items"]}


# --- papermill with our engine --------------------------------------------------------------------


def test_papermill_carries_the_stage_to_a_pass(passed: tuple[Any, Path, Path]) -> None:
    """Exit 0; what papermill was asked to write is, byte for byte, what was sealed."""
    ended, output, attempt = passed

    assert ended.returncode == 0, ended.stderr
    assert output.read_bytes() == (attempt / NOTEBOOK).read_bytes()


def test_a_pass_verifies(operator: Operator, passed: tuple[Any, Path, Path]) -> None:
    """Every step of the procedure holds, for a copy of the attempt in another place too."""
    copy = shutil.copytree(passed[2], operator.home / "copy")

    ended = operator.run("runbook", "verify", copy, "--json")

    document = json.loads(ended.stdout)
    assert (ended.returncode, document["outcome"], document["verdict"]) == (0, "PASS", "PASS")
    assert {row["outcome"] for row in document["rows"]} == {"PASS"}


def test_a_pass_pins_a_baseline_with_its_load(passed: tuple[Any, Path, Path]) -> None:
    """Without the load a later baseline could be compared with nothing."""
    schema = pq.read_schema(passed[2] / "metrics/baseline.parquet")

    load = json.loads(schema.metadata[b"baseline"])["load"]
    assert load == pytest.approx(0.8 * 18, rel=0.2)  # blocks/s of all nodes, 18 each


def test_a_run_is_published_when_it_is_sealed(
    operator: Operator, passed: tuple[Any, Path, Path]
) -> None:
    """Its notebook is an asset of the release's evidence, and its verdict stands in the issue."""
    assert operator.network is not None
    forge, attempt = operator.network.forge, passed[2]
    told = [c["body"] for c in forge.comments.values() if "release=v1.4.0 " in c["body"]]
    (release,) = (r for r in forge.releases.releases.values() if r["tag_name"] == "evidence-v1.4.0")
    files = [forge.releases.contents[each["id"]] for each in forge.releases.assets[release["id"]]]

    assert len(told) == 1
    assert "### ✓ PASS · development · attempt 1" in told[0]
    assert (attempt / NOTEBOOK).read_bytes() in files
    assert not (attempt / "outbox").exists()


def test_a_run_leaves_nothing_behind(operator: Operator, passed: tuple[Any, Path, Path]) -> None:
    """No temporary file, no connection file, no process."""
    assert left_in(operator) == []
    assert processes_of(operator) == []


def test_no_secret_stands_in_what_a_run_leaves(
    operator: Operator, passed: tuple[Any, Path, Path]
) -> None:
    """Neither token is in any file of the attempt, in the output, nor on the terminal."""
    ended, output, attempt = passed
    files = [output, *(path for path in attempt.rglob("*") if path.is_file())]
    texts = [path.read_bytes() for path in files]
    texts += [ended.stdout.encode(), ended.stderr.encode()]

    assert len(files) > 20
    assert [s for s in operator.secrets if any(s.encode() in text for text in texts)] == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("-p", "relase", "v1"), "relase: expected no such key; remove it or correct its spelling"),
        (("-p", "release", "3"), "release: expected text in quotes, got 3"),
    ],
)
def test_a_wrong_parameter_is_refused_before_any_cell(
    operator: Operator, given: tuple[str, ...], said: str
) -> None:
    """Misspelt or mistyped: exit 3, no attempt, no output cell ran, and no traceback."""
    before = sorted((operator.attempt("x").parents[2]).rglob("record.jsonl"))

    ended = operator.papermill("refused.ipynb", "-f", operator.params, *given)

    assert (ended.returncode, ended.stdout) == (3, "")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert sorted((operator.attempt("x").parents[2]).rglob("record.jsonl")) == before


@pytest.mark.parametrize(
    ("fault", "item", "code", "outcome"),
    [
        ("ci-red", "development.ready.ci-green", 1, "FAIL"),
        ("forge-down", "development.ready.ci-green", 2, "INCONCLUSIVE"),
    ],
)
def test_a_refused_run_keeps_its_evidence(
    operator: Operator, fault: str, item: str, code: int, outcome: str
) -> None:
    """The exit code says why; executed notebook and record are kept and verify as that outcome."""
    release = operator.release()
    with operator.fault(fault):
        ended = operator.papermill("red.ipynb", "-f", operator.params, "-r", "release", release)
    attempt = operator.attempt(release)
    verified = json.loads(operator.run("runbook", "verify", attempt, "--json").stdout)

    assert (ended.returncode, "Traceback" in ended.stderr) == (code, False)
    assert (operator.home / "red.ipynb").read_bytes() == (attempt / NOTEBOOK).read_bytes()
    assert (verified["outcome"], verified["verdict"], verified["exit_code_of_run"]) == (
        "PASS",
        outcome,
        code,
    )
    judged = [e["body"] for e in entries(attempt) if e["kind"] == "result"]
    assert {(b["item"], b["result"]["outcome"]) for b in judged} >= {(item, outcome)}
    # It is told in the release issue, too; with the forge down that is left to be done.
    unsent = (attempt / "outbox" / "release-issue.json").exists()
    assert (unsent, "runbook publish" in ended.stderr) == ((fault == "forge-down"),) * 2
    assert operator.run("runbook", "publish", attempt).returncode == 0
    assert not (attempt / "outbox").exists()


# --- our own commands -----------------------------------------------------------------------------


def test_a_stage_that_waits_is_continued_to_its_pass(operator: Operator) -> None:
    """Too early is exit 4 with the time to return; the command it names goes on with the attempt.

    No change is repeated.
    Each run prints one JSON document and nothing else.
    """
    run = ("runbook", "run", "development", "--json", "-f", operator.params)
    named = ("-r", "release", operator.release())
    waiting = operator.run(*run, *named)
    steps = [e for e in entries(operator.attempt(named[2])) if e["kind"] == "step"]
    first = json.loads(waiting.stdout)
    [told] = first["next"]
    command = shlex.split(told.removeprefix("Come back then: `").removesuffix("`"))
    assert operator.network is not None
    operator.network.fast_forward(4000)
    passing = operator.run(*command, "--json")

    second = json.loads(passing.stdout)
    assert (waiting.returncode, first["exit_code"], first["outcome"]) == (4, 4, "INCONCLUSIVE")
    assert first["return_at"] is not None
    assert items(first) == dict.fromkeys(DECLARED, "PASS") | {DECLARED[-1]: "INCONCLUSIVE"}
    assert (passing.returncode, second["outcome"], second["return_at"]) == (0, "PASS", None)
    assert set(second["items"][0]) == {"id", "outcome", "state", "waived", "reason"}
    assert items(second) == dict.fromkeys(DECLARED, "PASS")
    assert first["evidence"] == second["evidence"] == str(operator.attempt(named[2]))
    again = [e for e in entries(operator.attempt(named[2])) if e["kind"] == "step"]
    assert (len(steps) > 0, again) == (True, steps)
    assert operator.run("runbook", "verify", first["evidence"]).returncode == 0


def test_a_stage_is_stepped_through_by_hand_and_sealed(operator: Operator) -> None:
    """``lab`` prepares a copy with the parameters in it; run there and sealed, it is a pass."""
    more = ("-f", operator.params, "-r", "release", operator.release())
    lab = operator.run("runbook", "lab", "development", "--no-browser", "--json", *more)
    path = Path(json.loads(lab.stdout)["notebook"])
    operator.run("jupyter", "execute", "--inplace", path)
    assert operator.network is not None
    operator.network.fast_forward(4000)  # the window of the baseline
    operator.run("jupyter", "execute", "--inplace", path)
    sealed = operator.run("runbook", "seal", path.parent)
    verified = operator.run("runbook", "verify", path.parent)

    assert sealed.returncode == 0, sealed.stderr
    assert "apply, rehearsal, interactive" in sealed.stdout
    assert verified.returncode == 0, verified.stdout


def test_an_attempt_replays_without_any_network(
    operator: Operator, passed: tuple[Any, Path, Path]
) -> None:
    """In a network namespace with nothing but its own loopback: every result is the same."""
    copy = shutil.copytree(passed[2], operator.home / "replayed")
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


def test_a_replay_that_nobody_asked_for_is_refused(visitor: Operator) -> None:
    """CI that forgot its parameters must not be green on the shipped recording."""
    ended = visitor.papermill("out.ipynb")

    assert ended.returncode == 3
    assert ended.stderr.splitlines()[-1] == (
        "development parameters: site: expected a site file, got none; pass -f PARAMS, or export"
        " RUNBOOK_REPLAY_OK=1 to replay a recording on purpose"
    )


def test_a_replay_on_purpose_passes(visitor: Operator) -> None:
    """It says that it is a replay, on the card and in the banner."""
    ended = visitor.papermill("out.ipynb", RUNBOOK_REPLAY_OK="1")

    text = (visitor.home / "out.ipynb").read_text()
    assert ended.returncode == 0, ended.stderr
    assert text.count("REPLAY OF A RECORDING: nothing was asked or changed") >= 2
    assert left_in(visitor) == []


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


@pytest.mark.parametrize(
    ("fault", "code", "seen"),
    [
        ("gate-flipped", 1, "FAIL at preflight.config-drift"),
        ("operator-silent@development", 3, "nothing but PASS"),
    ],
)
def test_a_rehearsal_with_a_fault_ends_by_whether_it_came_out_as_declared(
    visitor: Operator, fault: str, code: int, seen: str
) -> None:
    """Nobody operates a node of development for us: what is not there breaks unnoticed."""
    root = visitor.home / "network"
    ended = visitor.run("runbook", "rehearse", "--json", "--until", "development",
                        "--fault", fault, "--root", root)  # fmt: skip

    document = json.loads(ended.stdout)
    assert (ended.returncode, document["exit_code"]) == (code, code), ended.stderr
    assert [(one["as_declared"], one["seen"]) for one in document["faults"]] == [(code != 3, seen)]
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
