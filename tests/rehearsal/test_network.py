"""The network as a whole: start, stop, files, control API, commands, foreground process."""

import errno
import os
import re
import signal
import socket
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from runbook_rehearsal import loopback as module
from runbook_rehearsal.control import called
from runbook_rehearsal.files import digest_of
from runbook_rehearsal.layout import PROJECT
from runbook_rehearsal.loopback import Loopback, Scope, bind, free_addresses
from runbook_rehearsal.network import RehearsalNetwork

from ..checks.conftest import loopback
from ..conftest import path_of, ran, started
from .conftest import Visitor, visit


def tokens(network: RehearsalNetwork) -> set[str]:
    return {network.env["RPP_RPC_TOKEN"], network.env["GITHUB_TOKEN"]}


def test_nothing_runs_or_listens_after_stop(tmp_path: Path, http: httpx.Client) -> None:
    """Every address that answered refuses, every thread has ended."""
    threads = set(threading.enumerate())
    with RehearsalNetwork(tmp_path / "net", telemetry=False) as network:
        visitor = visit(network, http)
        urls = [node.url for cluster in network.world.clusters.values() for node in cluster.nodes]
        urls += [visitor.site["forge"]["url"]]
        assert {http.get(url).status_code for url in urls} <= {401, 404, 405}

    for url in urls:
        with pytest.raises(httpx.ConnectError):
            http.get(url)
    assert set(threading.enumerate()) == threads
    assert not (network.root / "network.json").exists()


def test_secrets_are_readable_by_the_owner_alone(visitor: Visitor) -> None:
    """They stand in one file and nowhere else in the folder."""
    root = visitor.network.root
    assert stat.S_IMODE((root / "env.sh").stat().st_mode) == 0o600
    found = {
        path.name
        for path in root.rglob("*")
        if path.is_file()
        and any(token in path.read_text("latin-1") for token in tokens(visitor.network))
    }

    assert found == {"env.sh"}


def test_same_seed_makes_the_same_release(tmp_path: Path, visitor: Visitor) -> None:
    """Commits, artifacts and tokens depend on the seed alone."""
    with RehearsalNetwork(tmp_path / "net", telemetry=False) as again:
        assert again.release.commit == visitor.network.release.commit
        assert again.release.previous == visitor.network.release.previous
        assert tokens(again) == tokens(visitor.network)
    with RehearsalNetwork(tmp_path / "other", telemetry=False, seed=2) as other:
        assert other.release.commit != visitor.network.release.commit
        assert tokens(other).isdisjoint(tokens(visitor.network))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("restart\0dev-99", 1, "unknown or missing: 'dev-99'\n"),
        ("restart", 2, "usage: restart NODE\n"),
        ("restart\0dev-1\0dev-2", 2, "usage: restart NODE\n"),
        ("dry-run", 2, "usage: dry-run CONFIG STRICT\n"),
        ("suite\0tests/other", 2, "suite: expected one of tests/pipeline, tests/observability,"),
        ("halt", 2, "usage: run.sh ROOT VERB ...; VERB one of version, "),
        ("", 2, "usage: run.sh ROOT VERB ...; VERB one of version, "),
        ("fast-forward\0-1", 1, "clock: the offset only grows: expected >= 0 s, got -1"),
        (
            "provision\0development\0dev-1\0pyproject.toml",
            1,
            "provision dev-1: expected a new name",
        ),
        ("probe\0loki", 1, "unknown or missing: 'loki'\n"),
    ],
)
def test_a_command_refuses_nonsense(visitor: Visitor, words: str, code: int, said: str) -> None:
    """An answer with the reason, never a traceback."""
    ended, printed, complaint = called(visitor.network, words.split("\0"), PROJECT)

    assert (ended, printed) == (code, "")
    assert complaint.startswith(said)


def test_foreground_process_ends_cleanly(tmp_path: Path, http: httpx.Client) -> None:
    """By SIGTERM: exit 0, nothing listens, nothing on stderr."""
    code = (
        "import sys; from pathlib import Path; from runbook_rehearsal.network import serve; "
        "serve(Path(sys.argv[1]), lambda n: print(n.listeners['forge'].url, flush=True), telemetry=False)"
    )
    with started(sys.executable, "-c", code, tmp_path / "net") as process:
        try:
            assert process.stdout is not None
            forge = process.stdout.readline().strip()
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()

    assert (process.returncode, out, err) == (0, "", "")
    with pytest.raises(httpx.ConnectError):
        http.get(forge)


def test_env_file_exports_the_tokens(visitor: Visitor) -> None:
    """A shell that sources it has them, and the operator's account."""
    names = " ".join(f'"${name}"' for name in visitor.network.env)
    script = f'. {visitor.network.root / "env.sh"}; printf "%s\\n" {names}'
    done = ran("sh", "-c", script, check=True, env={"PATH": os.defpath})

    assert done.stdout.split() == list(visitor.network.env.values())


def test_a_fault_that_a_real_server_cannot_have_is_refused(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rehearsal that nothing breaks would pass as if the fault had gone unnoticed."""
    monkeypatch.setattr(visitor.network, "servers", "real")

    with pytest.raises(ValueError, match="expected embedded servers, got real ones"):
        visitor.network.fault("watchdog-stale@development")

    assert list(visitor.network.faults) == []


def test_a_fault_that_comes_with_a_change_begins_with_its_last_restart(visitor: Visitor) -> None:
    """The release alone is not yet what the stage brings; told afterwards the fault begins at once."""
    network, begun = visitor.network, list[list[str]]()
    assert not network.fault_in_time("hash-split@canary")
    for name in network.install_candidate():
        config = network.world.node_dir("mainnet", name) / "config.toml"
        on = re.sub(
            r"^(malachite_consensus|timetoke_rewards) = false", r"\1 = true", config.read_text(),
            flags=re.MULTILINE,
        )  # fmt: skip
        begun.append([active.name for active in network.faults])
        config.write_text(on)
        network.restart(name)
        begun.append([active.name for active in network.faults])

    assert begun == [[], [], [], ["hash-split"]]
    assert network.fault_in_time("slashing@canary")


# --- listeners on loopback: opened, closed alone, all gone at the end -----------------------------


async def hello(scope: Scope, receive: Any, send: Any) -> None:
    body = str(scope["server"][1]).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


__all__ = ["loopback"]


def test_closing_drops_kept_connections_too(loopback: Loopback) -> None:
    """As when a process dies; the other listeners go on, and the address can be taken again."""
    closed, other = loopback.listen(hello), loopback.listen(hello)
    with httpx.Client(trust_env=False) as client:
        url = f"http://127.0.0.1:{closed[1]}"
        assert client.get(url).status_code == 200
        loopback.close(closed)
        with pytest.raises(httpx.TransportError):
            client.get(url)
        assert client.get(f"http://127.0.0.1:{other[1]}").status_code == 200
        loopback.close(closed)
        assert loopback.listen(hello, *closed) == closed
        assert client.get(url).status_code == 200


def test_systems_without_127_8_get_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node its own port on 127.0.0.1."""

    def only_localhost(host: str, port: int) -> socket.socket:
        if host != "127.0.0.1":
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return bind(host, port)

    monkeypatch.setattr(module, "bind", only_localhost)
    groups = free_addresses([["127.1.1.1", "127.1.1.2"], ["127.1.2.1"]])

    assert [[host for host, _ in group] for group in groups] == [["127.0.0.1"] * 2, ["127.0.0.1"]]
    assert len({port for group in groups for _, port in group}) == 3


# --- The site's commands, run as a stage runs them: as processes ----------------------------------


@pytest.fixture
def config(visitor: Visitor, tmp_path: Path) -> Path:
    """The configuration that dev-1 has, as a file of our own."""
    path = tmp_path / "config.toml"
    path.write_text(visitor.command("read_config", node="dev-1").stdout)
    return path


def test_deploy_refuses_another_digest(visitor: Visitor, config: Path) -> None:
    """Nothing is put in place when the artifact is not the one that was meant."""
    artifact = visitor.network.release.artifact
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
