"""The site's commands, as an operator's automation would offer them.

Each prints one JSON object unless it stands in for a tool with another output; a failure goes to
stderr with an exit code other than 0.
"""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from .chain import node_config
from .chain.node_config import EXIT_CONFIGURATION, ConfigurationError
from .files import digest_of, unpack, write_atomically
from .layout import PROJECT, shown, spoil_checkout
from .nodes import storage
from .nodes.fleet import StartupError
from .people import notified

if TYPE_CHECKING:
    from .network import RehearsalNetwork

Json = dict[str, Any]
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
EXIT_USAGE, EXIT_TESTS_FAILED = 2, 101
TIMEOUTS_S = {"deploy": 30.0, "restart": 30.0, "test-rules": 30.0, "fast-forward": 120.0,
              "probe": 5.0}  # fmt: skip
UNAVAILABLE = "channel: 503 Service Unavailable"
RESET = "{}: ssh: connection reset by peer"
READS = ("version", "read-config", "stopped", "assets")
"""Of a node, by anybody."""
FAILS = {
    "dry-run": ("dry-run-broken", "thread 'main' panicked at main.rs: out of memory", 1),
    "version": ("candidate-unreadable", RESET, 255),
    "read-config": ("config-unreadable", RESET, 255),
    "stopped": ("stopped-unreadable", RESET, 255),
    "assets": ("assets-probe-broken", "{}: fetch: permission denied", 13),
    "test-rules": ("promtool-missing", "promtool: not found", 127),
    "stop": ("stop-fails", "{}: systemctl: job timed out", 5),
    "deploy": ("deploy-fails", "{}: rsync: write failed: no space left on device (28)", 11),
    "provision": ("provision-fails", "{1}: quota exceeded for instance type", 1),
    "inspect-wal": ("wal-unreadable", "{}: firewood.wal: input/output error", 5),
    "restore-snapshot": ("restore-command-fails", "{}: no space left on device (28)", 11),
    "announce": ("announce-fails", UNAVAILABLE, 22),
    "announce-halt": ("halt-announce-fails", UNAVAILABLE, 22),
    "freeze-proposals": ("freeze-fails", "governance: multisig refused", 4),
    "proposals": ("proposals-unreadable", "explorer: 502 Bad Gateway", 22),
    "notify": ("notify-down", "pager: 503 Service Unavailable", 22),
    "soak": ("soak-job-missing", "soak: no job has run on this cluster", 1),
    "probe": ("probe-broken", "bastion: permission denied (publickey)", 255),
}
"""The fault that makes a command fail, what it says then (of its operands), and its exit code."""


class Failed(RuntimeError):
    """A command that ends with a message and an exit code other than 0, after it has printed."""

    def __init__(self, message: str, code: int = 1, printed: object = "") -> None:
        super().__init__(message)
        self.code, self.printed = code, printed


@dataclass
class Call:
    """A command of this network, by us or by the operator ``by``; paths are relative to ``cwd``."""

    network: RehearsalNetwork
    by: str
    cwd: Path

    def is_on(self, fault: str, node: str = "") -> bool:
        return self.network.faults.is_on(fault, node=node)

    def read(self, path: str) -> str:
        return (self.cwd / path).read_text()

    def directory(self, node: str) -> Path:
        return self.network.world.node_dir(self.network.fleet.spec(node).cluster, node)

    def require(self, node: str, verb: str) -> None:
        """A node belongs to who runs it: an operator's refuses everybody else, and ours operators."""
        if self.is_on("node-cut-off", node):
            raise Failed(f"{node}: ssh: no route to host", 255)
        owner = self.network.fleet.spec(node).operator
        if owner != self.by and verb not in READS:
            raise Failed(f"{node}: permission denied: it is run by {owner or 'us'}", 13)

    def now(self) -> str:
        return self.network.now.isoformat()

    def board(self, name: str, change: Callable[[Any], Any], empty: Any) -> Any:
        path = self.network.root / f"{name}.json"
        before = json.loads(path.read_text()) if path.exists() else empty
        after = change(before)
        if after != before:
            write_atomically(path, json.dumps(after))
        return after

    def hang_while(self, fault: str) -> None:
        # Not for ever: a stand-in must not outlive the network it belongs to.
        while (self.network.root / "network.json").exists() and self.is_on(fault):
            time.sleep(0.05)


def called(network: RehearsalNetwork, words: list[str], cwd: Path) -> tuple[int, str, str]:
    """Exit code of a command, what it prints and what it complains of."""
    try:
        return 0, run(network, words, "", cwd), ""
    except Failed as failed:
        return failed.code, _shown(failed.printed), f"{failed}\n"


def run(network: RehearsalNetwork, words: list[str], by: str = "", cwd: Path = PROJECT) -> str:
    verb, *operands = words or [""]
    if verb not in VERBS:
        message = f"usage: run.sh ROOT VERB ...; VERB one of {', '.join(VERBS)}"
        raise Failed(message, EXIT_USAGE)
    wanted = _operands(VERBS[verb])
    least = len(wanted) - len(VERBS[verb].__defaults__ or ())
    if not least <= len(operands) <= len(wanted):
        raise Failed(f"usage: {verb} {' '.join(wanted).upper()}", EXIT_USAGE)
    call, node = Call(network, by, cwd), ""
    fault, message, code = FAILS.get(verb, ("", "", 0))
    try:
        if wanted[:1] == ["node"]:
            node = operands[0]
            call.require(node, verb)
        if call.is_on(fault, node):
            raise Failed(message.format(*operands), code)
        return _shown(VERBS[verb](call, *operands))
    except (StartupError, ConfigurationError) as error:
        raise Failed(str(error), getattr(error, "exit_code", EXIT_CONFIGURATION)) from error
    except KeyError as error:
        raise Failed(f"unknown or missing: {error}") from error
    except (OSError, ValueError, storage.StorageError) as error:
        raise Failed(f"{node}: {error}" if node else str(error)) from error


def commands(root: Path) -> dict[str, Any]:
    """The site's commands, as they act on the network in ``root``."""
    script = ["sh", shown(Path(__file__).with_name("run.sh")), shown(root)]
    made: dict[str, Any] = {}
    for name, verb in VERBS.items():
        words = [f"{{{operand}}}" for operand in _operands(verb)]
        timeout_s = TIMEOUTS_S.get(name, 10.0)
        made[verb.__name__] = {"argv": [*script, name, *words], "timeout_s": timeout_s}
    made["dry_run"]["argv"][-1] = "--strict-config-validation"
    argv = made.pop("suite")["argv"]
    made["suites"] = {name: {"argv": [*argv[:-1], name], "timeout_s": 10.0} for name in SUITES}
    checkout = ["git", "-C", shown(root / "checkout")]
    made["revision"] = {"argv": [*checkout, "rev-parse", "HEAD"], "timeout_s": 10.0}
    made["tree_status"] = {"argv": [*checkout, "status", "--porcelain"], "timeout_s": 10.0}
    return made


def _operands(verb: Callable[..., object]) -> list[str]:
    return [*inspect.signature(verb).parameters][1:]


def _shown(printed: object) -> str:
    return printed if isinstance(printed, str) else json.dumps(printed) + "\n"


# --- what is read of nodes ------------------------------------------------------------------------


def version(call: Call, node: str) -> str:
    running = call.directory(node) / "running.json"
    if not running.exists():
        raise Failed(f"{node}: the node is not running")
    for active in call.network.faults:
        # Only once the node was restarted: the checks before a deploy read versions as well.
        late = running.stat().st_mtime > active.since
        if (active.name, active.node) == ("version-unreadable", node) and late:
            raise Failed(RESET.format(node), 255)
    return running.read_text()


def read_config(call: Call, node: str) -> str:
    return (call.directory(node) / "config.toml").read_text()


def stopped(call: Call, node: str) -> Json:
    return {"node": node, "stopped": not (call.directory(node) / "running.json").exists()}


def assets(call: Call, node: str) -> Json:
    network, fetchable, free = call.network, list[str](), 64_000_000_000
    if not call.is_on("assets-not-fetchable", node):
        fetchable = network.assets.fetchable(network.fleet.spec(node).cluster)
    if call.is_on("assets-no-space", node):
        free = 8192
    return {"node": node, "fetchable": fetchable, "free_bytes": free}


# --- on nodes -------------------------------------------------------------------------------------


def dry_run(call: Call, config: str, strict: str = "") -> Json:
    """As the node's own binary judges a file; ``strict`` is its option, or none."""
    lenient = not strict or call.is_on("dry-run-lenient")
    node_config.read_config(call.cwd / config, strict=not lenient)
    return {"level": "INFO", "fields": {"message": "dry run completed"}}


def restart(call: Call, node: str) -> Json:
    if call.is_on("restart-returns-at-once"):
        Timer(3.0, call.network.restart, [node]).start()
        return {"node": node}
    return {"node": node, "digest": call.network.restart(node).build.digest}


def stop(call: Call, node: str) -> Json:
    call.network.fleet.stop(node)
    return {"node": node}


def start(call: Call, node: str) -> Json:
    call.network.start_node(node)
    return {"node": node}


def deploy(call: Call, node: str, artifact: str, digest: str, config: str) -> Json:
    """Binary, then configuration, each put in place in one step; the node goes on as it runs."""
    directory, target = call.directory(node), (call.cwd / config).read_bytes()
    actual = digest_of(call.cwd / artifact)
    if actual != digest:
        raise Failed(f"{artifact}: expected {digest}, got {actual}")
    binary = unpack(call.cwd / artifact)
    if call.is_on("wrong-binary", node):
        binary += b"# patched\n"
    if not call.is_on("build-sticks", node):
        write_atomically(directory / "bin" / "rpp-node", binary, 0o755)
    if call.is_on("slow-deploy"):
        time.sleep(SLOW_DEPLOY_S)
    if not call.is_on("gate-sticks", node):
        write_atomically(directory / "config.toml", target)
    return {"node": node, "digest": digest, "config": digest_of(directory / "config.toml")}


def provision(call: Call, cluster: str, name: str, config: str) -> Json:
    spec = call.network.provision(cluster, name, call.read(config))
    return {"node": spec.name, "url": spec.url}


def deprovision(call: Call, cluster: str, name: str) -> Json:
    call.network.fleet.deprovision(cluster, name)
    return {"node": name, "removed": True}


def instruct(call: Call, operator: str, file: str) -> Json:
    call.network.operators.see(call.read(file), "notify")
    return {"operator": operator}


def fast_forward(call: Call, seconds: str) -> Json:
    call.network.fast_forward(float(seconds))
    return {"offset_s": call.network.world.clock.offset}


# --- on a node's data -----------------------------------------------------------------------------


def _stored(call: Call, node: str, command: Callable[..., Any], *given: Any) -> Any:
    """A command on a node's data, logged with whether the node ran meanwhile."""
    home, verb = call.directory(node), command.__name__.replace("_", "-")
    line = {"verb": verb, "node": node, "running": (home / "running.json").exists()}
    with (call.network.root / "storage.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    return command(home, *given)


def verify_snapshot(call: Call, node: str, bundle: str) -> Json:
    """As the chain's snapshot-verify: 0 whole, 1 fatal, 2 signature, 3 chunks."""
    report = call.network.assets.verified(call.cwd / bundle, call.network.faults, node)
    if report["exit_code"]:
        raise Failed("; ".join(report["errors"]), report["exit_code"], report)
    return report


def inspect_wal(call: Call, node: str) -> Json:
    return {"node": node, **_stored(call, node, storage.inspect_wal)}


def keep_data(call: Call, node: str, label: str) -> Json:
    return {"node": node, "kept": _stored(call, node, storage.keep_data, label)}


def restore_snapshot(call: Call, node: str, bundle: str, label: str) -> Json:
    done = _stored(call, node, storage.restore_snapshot, call.cwd / bundle, label)
    return {"node": node, "height": done["height"]}


def replay_proofs(call: Call, node: str, height: str) -> Json | str:
    """The chain's firewood_recovery report, and the height that was reached."""
    report = _stored(call, node, storage.replay_proofs, int(height))
    if call.is_on("replay-unreadable", node):
        return "thread 'main' panicked\n"
    if call.is_on("proof-replay-fails", node):
        report["pruning_proof_verified"] = False
    if call.is_on("wrong-state-root", node):  # and it does not know it
        report |= {"restored_root": "0" * 64, "commitment_root": "0" * 64}
    return {"node": node, **report}


# --- to people: the board that validators read, the freeze of proposals, the pager -----------------


def announce(call: Call, release: str, stage: str, start: str, end: str, text: str) -> str:
    """Put a window on the board that validators read."""
    window = {"release": release, "stage": stage, "start": start, "end": end}
    return _announced(call, "announce-lost", text, window)


def announce_halt(call: Call, release: str, stage: str, reference: str, text: str) -> str:
    halt = {"kind": "halt", "release": release, "stage": stage, "reference": reference}
    return _announced(call, "halt-announce-lost", text, halt)


def _announced(call: Call, lost: str, text: str, about: Json) -> str:
    entry = {**about, "at": call.now(), "text": call.read(text)}
    if not call.is_on(lost):
        call.board("announced", lambda board: [*board, entry], [])
    return ""


def announced(call: Call) -> Json:
    return {"announced": call.board("announced", lambda board: board, [])}


def freeze_proposals(call: Call, release: str) -> str:
    if not call.is_on("freeze-lost"):
        call.board("frozen", lambda since: since or call.now(), "")
    return ""


def unfreeze_proposals(call: Call, release: str) -> str:
    call.board("frozen", lambda since: "", "")
    return ""


def proposals(call: Call) -> Json:
    since = call.board("frozen", lambda known: known, "")
    found = [{"id": "rpp-41", "created_at": "2026-01-01T00:00:00+00:00"}]
    if since and call.is_on("proposal-slips-in"):
        found.append({"id": "rpp-42", "created_at": call.now()})
    return {"frozen": bool(since), "since": since or None, "open": found}


def notify(call: Call, role: str, subject: str, text: str) -> Json:
    said = {"role": role, "subject": subject, "text": call.read(text)}
    call.board("notifications", lambda before: [*before, said], [])
    notified(call.network, **said)
    return {"told": role}


# --- on the release and the telemetry -------------------------------------------------------------


def suite(call: Call, name: str) -> str:
    """What ``cargo test`` prints for the suite, at the commit that is checked out."""
    if name not in SUITES:
        raise Failed(f"suite: expected one of {', '.join(SUITES)}, got {name!r}", EXIT_USAGE)
    call.hang_while("suite-hangs")
    for fault in filter(call.is_on, ("suite-dirty-tree", "suite-other-commit")):
        spoil_checkout(call.network.root, fault)
    tests = [] if call.is_on("suite-empty") else SUITES[name]
    failing = tests[-1:] if call.is_on("suite-fails") else []
    lines = [f"running {len(tests)} tests" if len(tests) != 1 else "running 1 test"]
    if call.is_on("suite-by-nextest"):
        lines = [f"    Starting {len(tests)} tests across 1 binary",
                 *(f"        PASS [   0.011s] rpp {test}" for test in tests),
                 f"     Summary [   0.412s] {len(tests)} tests run: {len(tests)} passed, 0 skipped"]  # fmt: skip
        return "\n".join([*lines, ""])
    if call.is_on("suite-warns"):
        lines = ["\x1b[33mwarning\x1b[0m: skipping unused crate `mockall`", *lines]
    if call.is_on("suite-skips"):
        lines.append("skipping: cluster could not be started on this machine")
    lines += [f"test {test} ... {'FAILED' if test in failing else 'ok'}" for test in tests]
    if failing:
        lines += ["", "failures:", "", *(f"    {test}" for test in failing)]
    word = "FAILED" if failing else "ok"
    counts = f"{len(tests) - len(failing)} passed; {len(failing)} failed"
    summary = f"test result: {word}. {counts}; 0 ignored; 0 measured; 0 filtered out;"
    if not call.is_on("suite-no-summary"):
        lines += ["", f"{summary} finished in 0.41s", ""]
    printed = "\n".join(["", *lines]) + "\n"
    if failing:
        raise Failed("error: test failed, to rerun pass `--test`", EXIT_TESTS_FAILED, printed)
    return printed


def test_rules(call: Call, file: str) -> str:
    """By promtool, or where it is missing by its stand-in."""
    if (promtool := shutil.which("promtool")) is None:
        return _without_promtool(call.cwd / file)
    argv = [promtool, "test", "rules", file]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=call.cwd, check=False)
    if done.returncode:
        raise Failed(done.stderr, done.returncode, done.stdout)
    return done.stdout


def _without_promtool(file: Path) -> str:
    from .telemetry.rules import failures  # the parser of PromQL: only when wanted

    try:
        failed = failures(file)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise Failed(f"{file}: {error}", EXIT_USAGE) from error
    if failed:
        raise Failed("", 1, "  FAILED:\n" + "".join(f"    {line}\n" for line in failed))
    return "  SUCCESS (without promtool)\n"


def soak(call: Call) -> Json:
    events = call.network.world.events_of("development")
    newest = max((e for e in events if e.kind == "build"), key=lambda event: event.at)
    commit = "0" * 40 if call.is_on("soak-job-other-commit") else newest.data["commit"]
    started = datetime.fromtimestamp(newest.at, UTC).isoformat()
    passed = not call.is_on("soak-job-failed")
    return {"commit": commit, "passed": passed, "started": started, "ended": call.now()}


def probe(call: Call, backend: str) -> Json | str:
    """Whether a backend's readiness page answers, and how fast (ms)."""
    call.hang_while("probe-hangs")
    if call.is_on("probe-garbage"):
        return "<html><body>502 Bad Gateway</body></html>\n"
    url = urlsplit(call.network.backends[backend])
    answer: Json = {"backend": backend, "reachable": False, "status": None, "latency_ms": None}
    began = time.perf_counter()
    try:
        if call.is_on("backend-unreachable"):
            raise ConnectionRefusedError(111, "Connection refused")
        with closing(HTTPConnection(url.netloc, timeout=3)) as connection:
            connection.request("GET", f"{url.path}/-/ready")
            status = connection.getresponse().status
        latency = round((time.perf_counter() - began) * 1000, 3)
        answer |= {"reachable": status == 200, "status": status, "latency_ms": latency}
    except (OSError, HTTPException) as error:
        answer["error"] = str(error)
    return answer


VERBS: dict[str, Callable[..., Json | str]] = {
    verb.__name__.replace("_", "-"): verb
    for verb in (
        version, read_config, stopped, assets, test_rules, dry_run, deploy, restart, stop, start,
        provision, deprovision, instruct, verify_snapshot, inspect_wal, keep_data, restore_snapshot,
        replay_proofs, announce, announce_halt, announced, freeze_proposals, unfreeze_proposals,
        proposals, notify, suite, soak, probe, fast_forward,
    )
}  # fmt: skip
