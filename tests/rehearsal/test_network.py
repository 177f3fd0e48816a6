"""The network as a whole: start, stop, files, control API, foreground process."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from runbook_lib.errors import ParameterError
from runbook_lib.site import parse_site
from runbook_rehearsal.network import RehearsalNetwork, plain_listeners
from runbook_rehearsal.rehearse import _check

from .conftest import Visitor, visit


def tokens(network: RehearsalNetwork) -> set[str]:
    return {network.env["RPP_RPC_TOKEN"], network.env["GITHUB_TOKEN"]}


def test_nothing_runs_or_listens_after_stop(tmp_path: Path, http: httpx.Client) -> None:
    """Every address that answered refuses, every thread has ended."""
    threads = set(threading.enumerate())
    with RehearsalNetwork(tmp_path / "net", telemetry=False) as network:
        visitor = visit(network, http)
        urls = [node.url for cluster in network.world.clusters.values() for node in cluster.nodes]
        urls += [network.control, visitor.site["forge"]["url"]]
        assert {http.get(url).status_code for url in urls} <= {401, 404}

    for url in urls:
        with pytest.raises(httpx.ConnectError):
            http.get(url)
    assert set(threading.enumerate()) == threads
    assert not (network.root / "network.json").exists()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    """Nothing of somebody else's is overwritten."""
    (tmp_path / "mine").write_text("x")
    network = RehearsalNetwork(tmp_path, telemetry=False)

    message = f"{tmp_path}: expected a new or empty folder; choose another"
    with pytest.raises(FileExistsError, match=f"^{re.escape(message)}$"):
        network.start()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_sizes_are_an_option(tmp_path: Path, http: httpx.Client) -> None:
    """Clusters may be smaller or larger; an unknown cluster is refused."""
    sizes = {"development": 1, "testnet": 10}
    with RehearsalNetwork(tmp_path / "net", telemetry=False, sizes=sizes) as network:
        clusters = network.world.clusters
        assert [len(clusters[name].nodes) for name in clusters] == [1, 10, 7]
        network.fault("rpc-500@development")
        assert visit(network, http).rpc("dev-1", "/health").status_code == 500

    with pytest.raises(ValueError, match=r"^sizes: expected some of .*, got 'staging'$"):
        RehearsalNetwork(tmp_path / "other", sizes={"staging": 3})


def test_faults_can_be_there_from_the_start(tmp_path: Path, http: httpx.Client) -> None:
    """A network that cannot be broken as asked does not start, and leaves nothing listening."""
    with RehearsalNetwork(
        tmp_path / "one", telemetry=False, faults=["node-down@development"]
    ) as network:
        assert "dev-2" not in network.state()["up"]

    threads = set(threading.enumerate())
    with pytest.raises(ValueError, match=r"got 'nope'$"):
        RehearsalNetwork(tmp_path / "two", telemetry=False, faults=["nope@testnet"]).start()
    assert set(threading.enumerate()) == threads


def test_site_file_is_a_valid_site(visitor: Visitor) -> None:
    """Read by the strict reader, with the clock in a file and people who approve their own."""
    site = parse_site(visitor.network.site.read_bytes(), "site.yaml")

    assert (site.name, site.clock.source, site.single_operator) == (
        "rehearsal",
        "offset-file",
        True,
    )
    assert [len(cluster.nodes) for cluster in site.clusters.values()] == [4, 7, 7]
    assert site.secret_names() == {"RPP_RPC_TOKEN", "GITHUB_TOKEN", "GRAFANA_TOKEN"}


def test_parameter_file_names_the_release(visitor: Visitor) -> None:
    """The commit is the one that is checked out."""
    network = visitor.network

    assert yaml.safe_load(network.params["development"].read_text()) == {
        "site": str(network.site),
        "release": "v1.4.0",
        "commit": visitor.command("revision").stdout.strip(),
        "mode": "apply",
        "previous_release": "v1.3.0",
        "issue": 42,
        "baseline_hours": 1.0,
    }


def test_secrets_are_readable_by_the_owner_alone(visitor: Visitor) -> None:
    """They stand in two files and nowhere else in the folder."""
    root = visitor.network.root
    for name in ("env.sh", "network.json"):
        assert stat.S_IMODE((root / name).stat().st_mode) == 0o600
    found = {
        path.name
        for path in root.rglob("*")
        if path.is_file()
        and any(token in path.read_text("latin-1") for token in tokens(visitor.network))
    }

    assert found == {"env.sh", "network.json"}


def test_same_seed_makes_the_same_release(tmp_path: Path, visitor: Visitor) -> None:
    """Commits, artifacts and tokens depend on the seed alone."""
    with RehearsalNetwork(tmp_path / "net", telemetry=False) as again:
        assert again.release.commit == visitor.network.release.commit
        assert again.release.previous == visitor.network.release.previous
        assert again.env == visitor.network.env
    with RehearsalNetwork(tmp_path / "other", telemetry=False, seed=2) as other:
        assert other.release.commit != visitor.network.release.commit
        assert tokens(other).isdisjoint(tokens(visitor.network))


def test_control_api_breaks_repairs_and_moves_the_clock(visitor: Visitor) -> None:
    """Each answer is the state that it led to."""
    control, http = visitor.network.control, visitor.http
    before = http.get(f"{control}/state").json()
    broken = http.post(f"{control}/fault", json={"fault": "node-down@testnet"}).json()
    ahead = http.post(f"{control}/fast-forward", json={"seconds": 600}).json()
    repaired = http.post(f"{control}/clear", json={"name": "node-down"}).json()

    assert broken["faults"] == ["node-down@testnet"]
    assert set(before["up"]) - set(broken["up"]) == {"test-2"}
    assert ahead["offset_s"] == before["offset_s"] + 600
    assert (repaired["faults"], repaired["up"]) == ([], before["up"])


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/fault", b'{"fault": "x@y"}', 400, "expected one of"),
        ("/restart", b'{"node": "dev-99"}', 404, "unknown or missing: 'dev-99'"),
        ("/restart", b"{}", 404, "unknown or missing: 'node'"),
        ("/restart", b"[]", 400, "list indices"),
        ("/restart", b"{", 400, "Expecting property name"),
        ("/fast-forward", b'{"seconds": -1}', 400, "clock: the offset only grows"),
    ],
)
def test_control_api_refuses_nonsense(
    visitor: Visitor, path: str, body: bytes, status: int, error: str
) -> None:
    """An answer with the reason, never a traceback."""
    answer = visitor.http.post(visitor.network.control + path, content=body)

    assert answer.status_code == status
    assert error in answer.json()["error"]


def test_a_restart_is_seen_in_the_events(visitor: Visitor) -> None:
    """Down, build, config, up: what the chain model and the telemetry stand on."""
    visitor.network.fleet.restart("main-3")
    events = visitor.network.world.events_of("mainnet")[-4:]

    assert [event.kind for event in events] == ["down", "build", "config", "up"]
    assert {event.node for event in events} == {"main-3"}
    assert events[1].data["version"] == "v1.3.0"
    assert events[2].data["channel"] == "mainnet"


@pytest.mark.parametrize("how", ["signal", "control"])
def test_foreground_process_ends_cleanly(tmp_path: Path, http: httpx.Client, how: str) -> None:
    """By SIGTERM or by POST /stop: exit 0, nothing listens, nothing on stderr."""
    code = (
        "import sys; from pathlib import Path; from runbook_rehearsal.network import serve; "
        "serve(Path(sys.argv[1]), lambda n: print(n.control, flush=True), telemetry=False)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "net"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            control = process.stdout.readline().strip()
            if how == "signal":
                process.send_signal(signal.SIGTERM)
            else:
                assert http.post(f"{control}/stop").json() == {"stopping": True}
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()

    assert (process.returncode, out, err) == (0, "", "")
    with pytest.raises(httpx.ConnectError):
        http.get(control)


def test_plain_listeners_answer_after_their_delay(http: httpx.Client) -> None:
    """Each at its own address; none left afterwards."""
    with plain_listeners(40, 0.05) as urls:
        start = time.perf_counter()
        answer = http.get(urls[39] + "/status/rollout")
        took = time.perf_counter() - start
        assert len(set(urls)) == 40
        assert http.get(urls[0] + "/else").status_code == 404

    assert answer.json()["release_channel"] == "testnet"
    assert took >= 0.05
    with pytest.raises(httpx.ConnectError):
        http.get(urls[0])


def test_env_file_exports_the_tokens(visitor: Visitor) -> None:
    """A shell that sources it has them, and the operator's account."""
    names = " ".join(f'"${name}"' for name in visitor.network.env)
    script = f'. {visitor.network.root / "env.sh"}; printf "%s\\n" {names}'
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=True, env={"PATH": os.defpath}
    )

    assert done.stdout.split() == list(visitor.network.env.values())


def test_network_file_describes_the_network(visitor: Visitor) -> None:
    """Where everything is, for whoever finds the folder."""
    document = json.loads((visitor.network.root / "network.json").read_text())

    assert document["control"] == visitor.network.control
    assert document["pid"] == os.getpid()
    assert document["nodes"]["dev-1"] == visitor.network.world.node("dev-1").url
    assert document["env"] == visitor.network.env


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, http: httpx.Client) -> Iterator[Visitor]:
    root = tmp_path_factory.mktemp("measured") / "network"
    with RehearsalNetwork(root, servers="embedded", history_s=3 * 3600.0) as network:
        yield visit(network, http)


def round_ms(visitor: Visitor, cluster: str) -> list[float]:
    """The cluster's mean round duration of the last five minutes; empty without data."""
    name = "rpp_runtime_consensus_round_duration_milliseconds"
    sums = [f'sum(rate({name}_{part}{{cluster="{cluster}"}}[5m]))' for part in ("sum", "count")]
    url = visitor.site["telemetry"]["prometheus"]["url"] + "/api/v1/query"
    answer = visitor.http.get(url, params={"query": " / ".join(sums)}).json()
    return [float(row["value"][1]) for row in answer["data"]["result"]]


def test_probe_reaches_the_backends(measured: Visitor) -> None:
    """Both answer 200 with a latency; a fault makes them unreachable."""
    for backend in ("prometheus", "alertmanager"):
        answer = json.loads(measured.command("probe", backend=backend).stdout)
        assert (answer["reachable"], answer["status"]) == (True, 200)
        assert answer["latency_ms"] > 0
    measured.network.fault("backend-unreachable@development")
    answer = json.loads(measured.command("probe", backend="prometheus").stdout)
    measured.network.clear("backend-unreachable")

    assert answer["reachable"] is False


def test_faults_of_the_chain_show_in_the_metrics_of_their_cluster(measured: Visitor) -> None:
    """At once, as if they had lasted, and not at all after they are cleared."""
    before = round_ms(measured, "development")
    measured.network.fault("consensus-slow@development")
    slow, other = round_ms(measured, "development"), round_ms(measured, "testnet")
    measured.network.clear("consensus-slow")

    assert slow[0] > 2 * before[0]
    assert other[0] < 1.5 * before[0]
    assert round_ms(measured, "development")[0] < 1.5 * before[0]


def test_prometheus_can_go_and_come_back(measured: Visitor) -> None:
    """Refused in between, at the same address with its data afterwards."""
    measured.network.fault("prometheus-down@development")
    with pytest.raises(httpx.ConnectError):
        round_ms(measured, "development")
    measured.network.clear("prometheus-down")

    assert round_ms(measured, "development")


def test_metrics_follow_the_clock(measured: Visitor) -> None:
    """Two hours skipped are two hours of history at the wall's now."""
    height = measured.rpc("dev-1", "/status/node").json()["height"]
    measured.network.fast_forward(7200)

    assert measured.rpc("dev-1", "/status/node").json()["height"] - height in range(1440, 1450)
    assert round_ms(measured, "development")


def test_a_fault_that_a_real_server_cannot_have_is_refused(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rehearsal that nothing breaks would pass as if the fault had gone unnoticed."""
    monkeypatch.setattr(RehearsalNetwork, "servers", "real")

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


def test_a_fault_of_a_node_that_is_not_there_is_refused_before_the_first_stage(
    visitor: Visitor,
) -> None:
    """By its message, as a person's mistake."""
    with pytest.raises(ParameterError) as caught:
        _check(visitor.network, ["rpc-500@development", "rpc-500@development/dev-9"])

    assert str(caught.value) == (
        "fault 'rpc-500@development/dev-9': expected one of dev-1, dev-2, dev-3, dev-4, got 'dev-9'"
    )
    assert list(visitor.network.faults) == []
