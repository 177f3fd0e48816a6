"""The verbs of ``run.py``: what an operator's automation does, from outside the network's process.

Standard library only, and what costs time to import is imported by the verb that needs it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

TYPE_CHECKING = False  # importing typing for it costs as much as json
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

SLOW_DEPLOY_S = 3.0
SUITES = {
    "tests/pipeline": ["pipeline::wallet_to_block", "pipeline::proof_to_finality",
                       "pipeline::reward_stage", "pipeline::backpressure"],
    "tests/observability": ["metrics::consensus_round", "metrics::pipeline_stage",
                            "metrics::snapshot_timetoke", "metrics::vrf_selection",
                            "schema::telemetry_schema"],
    "tests/firewood_lifecycle": ["lifecycle::ingest", "lifecycle::rollback",
                                 "lifecycle::schema_bump"],
}  # fmt: skip
EXIT_TESTS_FAILED = 101


def fail(message: str, code: int = 1) -> NoReturn:
    sys.stderr.write(message + "\n")
    raise SystemExit(code)


def show(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")


class Site:
    """The network's folder and its control API; ``by`` is the operator who calls, of nodes of theirs."""

    def __init__(self, root: str) -> None:
        self.root, self.by = Path(root), os.environ.get("REHEARSAL_OPERATOR", "")
        self.network = json.loads((self.root / "network.json").read_text())

    def directory(self, node: str) -> Path:
        found = sorted(self.root.glob(f"clusters/*/{node}/config.toml"))
        if not found:
            fail(f"{node}: expected a node of this network, got an unknown name")
        return found[0].parent

    def require(self, node: str) -> None:
        """A node belongs to who runs it: an operator's refuses everybody else, and ours operators."""
        if self.is_on("node-cut-off", node):
            fail(f"ssh: connect to host {node} port 22: No route to host", 255)
        owner = self.network["operators"].get(node, "")
        if owner != self.by:
            fail(f"{node}: permission denied: it is run by {owner or 'us'}", 13)

    def is_on(self, fault: str, node: str = "") -> bool:
        """Whether it is on: for this node if given."""
        if node:
            return (self.root / "faults" / f"{fault}.{node}").exists()
        return any(name.startswith(f"{fault}.") for name in os.listdir(self.root / "faults"))

    def now(self) -> str:
        """The rehearsal's time, as text."""
        offset = json.loads((self.root / "clock.json").read_text())["offset_s"]
        return iso(time.time() + offset)

    def board(self, name: str, change: Callable[[Any], Any], empty: Any) -> Any:
        """Something the site remembers, after ``change``."""
        from runbook_rehearsal.files import write_atomically

        path = self.root / f"{name}.json"
        before = json.loads(path.read_text()) if path.exists() else empty
        after = change(before)
        if after != before:
            write_atomically(path, json.dumps(after))
        return after

    def hang_while(self, fault: str) -> None:
        # Not for ever: a stand-in must not outlive the network it belongs to.
        while (self.root / "network.json").exists() and self.is_on(fault):
            time.sleep(0.05)

    def ask(self, path: str, **body: str) -> dict[str, Any]:
        """POST to the control API; a refusal ends the command with its message and exit code."""
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.0\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(content)}\r\n"
        address = self.network["control"].removeprefix("http://")
        try:
            status, answered = exchange(address, head, content, timeout=120)
        except OSError as error:
            fail(f"rehearsal network: expected an answer at {path}, got {error}; is it running?")
        answer: dict[str, Any] = json.loads(answered)
        if status != 200:
            fail(str(answer["error"]), int(answer.get("exit_code", 1)))
        return answer


def iso(instant: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(instant, UTC).isoformat()


def exchange(address: str, head: str, content: bytes = b"", *, timeout: float) -> tuple[int, bytes]:
    """Status and body of an answer by HTTP/1.0. OSError.

    By hand: importing the standard client takes longer than everything else here.
    """
    import socket

    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=timeout) as connection:
        connection.sendall(f"{head}Host: {host}\r\n\r\n".encode() + content)
        answered = b"".join(iter(lambda: connection.recv(65536), b""))
    top, _, body = answered.partition(b"\r\n\r\n")
    try:
        return int(top.split()[1]), body
    except (IndexError, ValueError):
        raise OSError(f"no HTTP: {top[:40]!r}") from None


# --- on nodes -------------------------------------------------------------------------------------


def dry_run(site: Site, config: str, strict: str = "") -> None:
    """As the node's own binary judges a file; ``strict`` is its option, or none."""
    from runbook_rehearsal.chain.node_config import (
        EXIT_CONFIGURATION,
        ConfigurationError,
        parse,
    )

    if site.is_on("dry-run-broken"):
        fail("thread 'main' panicked at rpp/node/src/main.rs: out of memory")
    try:
        lenient = not strict or site.is_on("dry-run-lenient")
        parse(Path(config).read_text(), strict=not lenient)
    except ConfigurationError as error:
        fail(str(error), EXIT_CONFIGURATION)
    except (OSError, UnicodeDecodeError) as error:
        fail(f"configuration error: unable to read config: {error}", EXIT_CONFIGURATION)
    show({"level": "INFO", "fields": {"message": "dry run completed"}})


def restart(site: Site, node: str) -> None:
    site.require(node)
    show(site.ask("/restart", node=node))


def stop(site: Site, node: str) -> None:
    """End a node's process; nothing when it has ended already."""
    site.require(node)
    if site.is_on("stop-fails", node):
        fail(f"{node}: systemctl: job timed out", 5)
    show(site.ask("/stop-node", node=node))


def start(site: Site, node: str) -> None:
    """Start a node on what is in place; nothing when it runs."""
    site.require(node)
    show(site.ask("/start-node", node=node))


def deploy(site: Site, node: str, artifact: str, digest: str, config: str) -> None:
    """Binary, then configuration, each put in place in one step; the node goes on as it runs."""
    from runbook_rehearsal.files import digest_of, unpack, write_atomically

    directory = site.directory(node)
    site.require(node)
    if site.is_on("deploy-fails", node):
        fail(f"{node}: rsync: write failed: no space left on device (28)", 11)
    try:
        actual = digest_of(Path(artifact))
        target = Path(config).read_bytes()
    except OSError as error:
        fail(f"{node}: {error}")
    if actual != digest:
        fail(f"{artifact}: expected {digest}, got {actual}")
    binary = unpack(Path(artifact))
    if site.is_on("wrong-binary", node):
        binary += b"# patched\n"
    if not site.is_on("build-sticks", node):
        write_atomically(directory / "bin" / "rpp-node", binary, 0o755)
    if site.is_on("slow-deploy"):
        time.sleep(SLOW_DEPLOY_S)
    if not site.is_on("gate-sticks", node):
        write_atomically(directory / "config.toml", target)
    in_place = digest_of(directory / "config.toml")
    show({"node": node, "digest": digest, "config": in_place})


def provision(site: Site, cluster: str, name: str, config: str) -> None:
    if site.is_on("provision-fails"):
        fail(f"{name}: quota exceeded for instance type", 1)
    try:
        text = Path(config).read_text()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{name}: {error}")
    show(site.ask("/provision", cluster=cluster, name=name, config=text))


def deprovision(site: Site, cluster: str, name: str) -> None:
    show(site.ask("/deprovision", cluster=cluster, name=name))


def instruct(site: Site, operator: str, file: str) -> None:
    """Hand an operator the instruction in a file."""
    show(site.ask("/instruct", operator=operator, file=str(Path(file).absolute())))


# --- on a node's data -----------------------------------------------------------------------------


def stored(site: Site, node: str, verb: str, *given: Any) -> Any:
    """A command on a node's data, logged with whether the node ran meanwhile."""
    from runbook_rehearsal.nodes import storage

    home = site.directory(node)
    site.require(node)
    line = {"verb": verb, "node": node, "running": (home / "running.json").exists()}
    with (site.root / "storage.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    try:
        return getattr(storage, verb.replace("-", "_"))(home, *given)
    except (storage.StorageError, OSError) as error:
        fail(f"{node}: {error}")


def verify_snapshot(site: Site, node: str, bundle: str) -> None:
    """As the chain's snapshot-verify: 0 whole, 1 fatal, 2 signature, 3 chunks."""
    report = site.ask("/verify-snapshot", node=node, bundle=bundle)
    show(report)
    if report["exit_code"]:
        fail("; ".join(report["errors"]), report["exit_code"])


def inspect_wal(site: Site, node: str) -> None:
    if site.is_on("wal-unreadable", node):
        fail(f"{node}: firewood.wal: input/output error", 5)
    show({"node": node, **stored(site, node, "inspect-wal")})


def keep_data(site: Site, node: str, label: str) -> None:
    show({"node": node, "kept": stored(site, node, "keep-data", label)})


def restore_snapshot(site: Site, node: str, bundle: str, label: str) -> None:
    if site.is_on("restore-command-fails", node):
        fail(f"{node}: no space left on device (28)", 11)
    done = stored(site, node, "restore-snapshot", Path(bundle), label)
    show({"node": node, "height": done["height"]})


def replay_proofs(site: Site, node: str, height: str) -> None:
    """The chain's firewood_recovery report, and the height that was reached."""
    report = stored(site, node, "replay-proofs", int(height))
    if site.is_on("replay-unreadable", node):
        sys.stdout.write("thread 'main' panicked\n")
        return
    if site.is_on("proof-replay-fails", node):
        report["pruning_proof_verified"] = False
    if site.is_on("wrong-state-root", node):  # and it does not know it
        report |= {"restored_root": "0" * 64, "commitment_root": "0" * 64}
    show({"node": node, **report})


# --- to people: the board that validators read, the freeze of proposals, the pager -----------------


def announce(site: Site, release: str, stage: str, start: str, end: str, text: str) -> None:
    """Put a window on the board that validators read."""
    if site.is_on("announce-fails"):
        fail("channel: 503 Service Unavailable", 22)
    entry = {"release": release, "stage": stage, "start": start, "end": end, "at": site.now()}
    entry["text"] = Path(text).read_text()
    if not site.is_on("announce-lost"):
        site.board("announced", lambda board: [*board, entry], [])


def announce_halt(site: Site, release: str, stage: str, reference: str, text: str) -> None:
    """Put the halt of a rollout on the same board."""
    if site.is_on("halt-announce-fails"):
        fail("channel: 503 Service Unavailable", 22)
    entry = {"kind": "halt", "at": site.now(), "release": release, "stage": stage}
    entry |= {"reference": reference, "text": Path(text).read_text()}
    if not site.is_on("halt-announce-lost"):
        site.board("announced", lambda board: [*board, entry], [])


def announced(site: Site) -> None:
    show({"announced": site.board("announced", lambda board: board, [])})


def freeze(site: Site, release: str) -> None:
    if site.is_on("freeze-fails"):
        fail("governance: multisig refused", 4)
    if not site.is_on("freeze-lost"):
        site.board("frozen", lambda since: since or site.now(), "")


def unfreeze(site: Site, release: str) -> None:
    site.board("frozen", lambda since: "", "")


def proposals(site: Site) -> None:
    if site.is_on("proposals-unreadable"):
        fail("explorer: 502 Bad Gateway", 22)
    since = site.board("frozen", lambda known: known, "")
    found = [{"id": "rpp-41", "created_at": "2026-01-01T00:00:00+00:00"}]
    if since and site.is_on("proposal-slips-in"):
        found.append({"id": "rpp-42", "created_at": site.now()})
    show({"frozen": bool(since), "since": since or None, "open": found})


def notify(site: Site, role: str, subject: str, text: str) -> None:
    """Page somebody."""
    if site.is_on("notify-down"):
        fail("pager: 503 Service Unavailable", 22)
    show(site.ask("/notify", role=role, subject=subject, text=Path(text).read_text()))


# --- on the release and the telemetry -------------------------------------------------------------


def suite(site: Site, name: str) -> None:
    """What ``cargo test`` prints for the suite, at the commit that is checked out."""
    if name not in SUITES:
        fail(f"suite: expected one of {', '.join(SUITES)}, got {name!r}", 2)
    site.hang_while("suite-hangs")
    checkout = site.root / "checkout"
    if site.is_on("suite-dirty-tree"):
        (checkout / "local-change.patch").write_text("not committed\n")
    if site.is_on("suite-other-commit"):
        import subprocess

        argv = ["git", "-C", str(checkout), "checkout", "-q", "--detach", "main~1"]
        subprocess.run(argv, check=True)
    tests = [] if site.is_on("suite-empty") else SUITES[name]
    failing = tests[-1:] if site.is_on("suite-fails") else []
    lines = [f"running {len(tests)} tests" if len(tests) != 1 else "running 1 test"]
    if site.is_on("suite-skips"):
        lines.append("skipping: cluster could not be started on this machine")
    lines += [f"test {test} ... {'FAILED' if test in failing else 'ok'}" for test in tests]
    if failing:
        lines += ["", "failures:", "", *(f"    {test}" for test in failing)]
    word = "FAILED" if failing else "ok"
    counts = f"{len(tests) - len(failing)} passed; {len(failing)} failed"
    summary = f"test result: {word}. {counts}; 0 ignored; 0 measured; 0 filtered out;"
    if not site.is_on("suite-no-summary"):
        lines += ["", f"{summary} finished in 0.41s", ""]
    sys.stdout.write("\n".join(["", *lines]) + "\n")
    if failing:
        fail("error: test failed, to rerun pass `--test`", EXIT_TESTS_FAILED)


def soak(site: Site) -> None:
    """The newest soak job: it began when the development cluster last took a build."""
    if site.is_on("soak-job-missing"):
        fail("soak: no job has run on this cluster")
    lines = (site.root / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    builds = [e for e in events if (e["cluster"], e["kind"]) == ("development", "build")]
    newest = max(builds, key=lambda event: float(event["at"]))
    commit = "0" * 40 if site.is_on("soak-job-other-commit") else newest["data"]["commit"]
    passed = not site.is_on("soak-job-failed")
    shown = {"commit": commit, "passed": passed, "started": iso(newest["at"]), "ended": site.now()}
    show(shown)


def probe(site: Site, backend: str) -> None:
    """Whether a backend's readiness page answers, and how fast (ms)."""
    site.hang_while("probe-hangs")
    if site.is_on("probe-broken"):
        fail("bastion: permission denied (publickey)", 255)
    if site.is_on("probe-garbage"):
        sys.stdout.write("<html><body>502 Bad Gateway</body></html>\n")
        return
    url = site.network["backends"].get(backend)
    if url is None:
        fail(f"probe: expected one of {sorted(site.network['backends'])}, got {backend!r}")
    answer: dict[str, Any] = {"backend": backend, "reachable": False, "status": None}
    answer["latency_ms"] = None
    began = time.perf_counter()
    try:
        if site.is_on("backend-unreachable"):
            raise ConnectionRefusedError(111, "Connection refused")
        address, _, prefix = url.removeprefix("http://").partition("/")
        path = f"/{prefix}/-/ready" if prefix else "/-/ready"
        status, _ = exchange(address, f"GET {path} HTTP/1.0\r\n", timeout=3)
        latency = round((time.perf_counter() - began) * 1000, 3)
        answer |= {"reachable": status == 200, "status": status, "latency_ms": latency}
    except OSError as error:
        answer["error"] = str(error)
    show(answer)


VERBS = {
    verb.__name__.replace("_", "-"): verb
    for verb in (
        dry_run, deploy, restart, stop, start, provision, deprovision, instruct, verify_snapshot,
        inspect_wal, keep_data, restore_snapshot, replay_proofs, announce, announce_halt, announced,
        freeze, unfreeze, proposals, notify, suite, soak, probe,
    )
}  # fmt: skip
