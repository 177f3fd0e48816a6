"""The site's commands, run as a stage runs them: as processes."""

import sys
from pathlib import Path

import pytest

from runbook_lib.strict import PROJECT
from runbook_rehearsal.files import digest_of

from ..conftest import path_of, ran
from .conftest import Visitor


@pytest.fixture
def artifact(visitor: Visitor) -> Path:
    return visitor.network.release.artifact


@pytest.fixture
def config(visitor: Visitor, tmp_path: Path) -> Path:
    """The configuration that dev-1 has, as a file of our own."""
    path = tmp_path / "config.toml"
    path.write_text(visitor.command("read_config", node="dev-1").stdout)
    return path


def test_deploy_refuses_another_digest(visitor: Visitor, artifact: Path, config: Path) -> None:
    """Nothing is put in place when the artifact is not the one that was meant."""
    place = visitor.network.world.node_dir("development", "dev-4") / "bin" / "rpp-node"
    before = digest_of(place)
    done = visitor.command(
        "deploy", node="dev-4", artifact=artifact, digest="sha256:00", config=config
    )

    assert done.returncode == 1
    assert done.stderr == f"{artifact}: expected sha256:00, got {digest_of(artifact)}\n"
    assert digest_of(place) == before


@pytest.mark.parametrize(
    ("binary", "config", "code", "said"),
    [
        (b"\x7fELF\xff", None, 3, "startup error: rpp-node: exec format error\n"),
        (
            None,
            b"\xff",
            2,
            "configuration error: unable to read config: 'utf-8' codec can't decode",
        ),
    ],
)
def test_what_cannot_be_started_stays_down(
    visitor: Visitor, binary: bytes | None, config: bytes | None, code: int, said: str
) -> None:
    """A binary that is none of ours and a file that is no text end a restart with a reason."""
    directory = visitor.network.world.node_dir("testnet", "test-4")
    place = directory / ("bin/rpp-node" if binary else "config.toml")
    good = place.read_bytes()
    place.write_bytes(binary or config or b"")

    done = visitor.command("restart", node="test-4")
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(said)
    assert "test-4" not in visitor.network.fleet.running
    place.write_bytes(good)
    assert visitor.command("restart", node="test-4").returncode == 0


def test_rules_are_tested_where_promtool_is_missing_too(
    visitor: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in answers for it, and says so; the fault takes both away."""
    (tmp_path / "rules.yaml").write_text(
        "groups: [{name: g, rules: [{alert: A, expr: x == 0, labels: {severity: page}}]}]\n"
    )
    tests = tmp_path / "test.yaml"
    tests.write_text(
        "{rule_files: [rules.yaml], tests: [{interval: 1m,"
        " input_series: [{series: 'x{a=\"b\"}', values: 1 0x5}], promql_expr_test:"
        " [{expr: 'count(ALERTS{alertstate=\"firing\"})', eval_time: 3m,"
        " exp_samples: [{labels: '{}', value: 1}]}]}]}\n"
    )
    programs = tmp_path / "bin"
    monkeypatch.setenv("PATH", path_of(programs, "sh", "ls", "mkfifo", "cat", "rm"))
    (programs / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python3").chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))

    answer = visitor.command("test_rules", file=tests)
    assert (answer.returncode, answer.stdout) == (0, "  SUCCESS (without promtool)\n")
    tests.write_text(tests.read_text().replace("1 0x5", "1x5"))
    answer = visitor.command("test_rules", file=tests)
    assert (answer.returncode, "got: nil" in answer.stdout) == (1, True)
    tests.write_text(tests.read_text().replace("1x5", "1e5"))
    assert visitor.command("test_rules", file=tests).returncode == 2
    visitor.network.fault("promtool-missing@canary")
    assert visitor.command("test_rules", file=tests).returncode == 127


def test_a_wait_that_is_refused_says_why(visitor: Visitor, tmp_path: Path) -> None:
    """Time does not go back; and without a network nothing winds its clock."""
    refused = visitor.wait("soon")  # type: ignore[arg-type]
    script = PROJECT / "runbook_rehearsal" / "run.sh"
    alone = ran("sh", script, tmp_path, "fast-forward", "90")

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "could not convert string to float: 'soon'\n"
    assert alone.returncode == 1
    assert alone.stderr.startswith("rehearsal network: expected one at work in ")
