"""What the site's commands of the rehearsal network do, as an operator's automation would.

Standard library only, and little of it: a stage runs dozens of them, and importing costs more than
all the rest. What costs time to import is imported by the verb that needs it. Each prints one JSON
object unless it stands in for a tool with another output; a failure goes to stderr with an exit
code other than 0.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

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
STRICT = "--strict-config-validation"
SLOW_DEPLOY_S = 3.0


def fail(message: str, code: int = 1) -> NoReturn:
    sys.stderr.write(message + "\n")
    raise SystemExit(code)


def show(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")


class Site:
    """The network's folder, as the commands see it from outside its process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.network = json.loads((root / "network.json").read_text())

    def directory(self, node: str) -> Path:
        found = sorted(self.root.glob(f"clusters/*/{node}/config.toml"))
        if not found:
            fail(f"{node}: expected a node of this network, got an unknown name")
        return found[0].parent

    def require(self, node: str, by: str) -> None:
        """A node belongs to who runs it: an operator's refuses everybody else, and ours operators."""
        if self.is_on("node-cut-off", node):
            fail(f"ssh: connect to host {node} port 22: No route to host", 255)
        owner = self.network["operators"].get(node, "")
        if owner != by:
            fail(f"{node}: permission denied: it is run by {owner or 'us'}", 13)

    def is_on(self, fault: str, node: str = "") -> bool:
        """Whether it is on: for this node if given."""
        return any((self.root / "faults").glob(f"{fault}.{node or '*'}"))

    def now(self) -> str:
        """The rehearsal's time, as text."""
        from datetime import UTC, datetime

        offset = json.loads((self.root / "clock.json").read_text())["offset_s"]
        return datetime.fromtimestamp(time.time() + offset, UTC).isoformat()

    def board(self, name: str, change: Callable[[Any], Any], empty: Any) -> Any:
        """Something the site remembers, after ``change``."""
        from runbook_lib.rehearsal.files import write_atomically

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

    def ask(self, path: str, body: dict[str, str]) -> dict[str, Any]:
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


def fast_forward(site: Site, args: SimpleNamespace) -> None:
    show(site.ask("/fast-forward", {"seconds": args.seconds}))


def dry_run(site: Site, args: SimpleNamespace) -> None:
    from runbook_lib.rehearsal.node_config import EXIT_CONFIGURATION, ConfigurationError, parse

    if site.is_on("dry-run-broken"):
        fail("thread 'main' panicked at rpp/node/src/main.rs: out of memory")
    try:
        strict = args.strict and not site.is_on("dry-run-lenient")
        parse(args.config.read_text(), strict=strict)
    except ConfigurationError as error:
        fail(str(error), EXIT_CONFIGURATION)
    except (OSError, UnicodeDecodeError) as error:
        fail(f"configuration error: unable to read config: {error}", EXIT_CONFIGURATION)
    show({"level": "INFO", "fields": {"message": "dry run completed"}})


def deploy(site: Site, args: SimpleNamespace) -> None:
    """Binary, then configuration, each put in place in one step; the node goes on as it runs."""
    from runbook_lib.rehearsal.files import digest_of, write_atomically

    directory = site.directory(args.node)
    site.require(args.node, args.by)
    if site.is_on("deploy-fails", args.node):
        fail(f"{args.node}: rsync: write failed: no space left on device (28)", 11)
    try:
        actual, binary = digest_of(args.artifact), args.artifact.read_bytes()
        config = args.config.read_bytes()
    except OSError as error:
        fail(f"{args.node}: {error}")
    if actual != args.digest:
        fail(f"{args.artifact}: expected {args.digest}, got {actual}")
    if site.is_on("wrong-binary", args.node):
        binary += b"# patched\n"
    if not site.is_on("build-sticks", args.node):
        write_atomically(directory / "bin" / "rpp-node", binary, 0o755)
    if site.is_on("slow-deploy"):
        time.sleep(SLOW_DEPLOY_S)
    if not site.is_on("gate-sticks", args.node):
        write_atomically(directory / "config.toml", config)
    in_place = digest_of(directory / "config.toml")
    show({"node": args.node, "digest": args.digest, "config": in_place})


def restart(site: Site, args: SimpleNamespace) -> None:
    site.require(args.node, args.by)
    show(site.ask("/restart", {"node": args.node}))


def stop(site: Site, args: SimpleNamespace) -> None:
    """End a node's process; nothing when it has ended already."""
    site.require(args.node, args.by)
    if site.is_on("stop-fails", args.node):
        fail(f"{args.node}: systemctl: job timed out", 5)
    show(site.ask("/stop-node", {"node": args.node}))


def start(site: Site, args: SimpleNamespace) -> None:
    """Start a node on what is in place; nothing when it runs."""
    site.require(args.node, args.by)
    show(site.ask("/start-node", {"node": args.node}))


def verify_snapshot(site: Site, args: SimpleNamespace) -> None:
    """As the chain's snapshot-verify: 0 whole, 1 fatal, 2 signature, 3 chunks."""
    report = site.ask("/verify-snapshot", {"node": args.node, "bundle": str(args.bundle)})
    show(report)
    if report["exit_code"]:
        fail("; ".join(report["errors"]), report["exit_code"])


def stored(what: Callable[..., object], site: Site, args: SimpleNamespace, *given: Any) -> Any:
    """A command on a node's data, logged with whether the node ran meanwhile."""
    from runbook_lib.rehearsal.storage import StorageError

    home = site.directory(args.node)
    site.require(args.node, args.by)
    line = {"verb": args.verb, "node": args.node, "running": (home / "running.json").exists()}
    with (site.root / "storage.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    try:
        return what(home, *given)
    except (StorageError, OSError) as error:
        fail(f"{args.node}: {error}")


def inspect_wal(site: Site, args: SimpleNamespace) -> None:
    from runbook_lib.rehearsal import storage

    if site.is_on("wal-unreadable", args.node):
        fail(f"{args.node}: {storage.WAL}: input/output error", 5)
    show({"node": args.node, **stored(storage.inspect_wal, site, args)})


def keep_data(site: Site, args: SimpleNamespace) -> None:
    from runbook_lib.rehearsal import storage

    show({"node": args.node, "kept": stored(storage.keep, site, args, args.label)})


def restore_snapshot(site: Site, args: SimpleNamespace) -> None:
    from runbook_lib.rehearsal import storage

    if site.is_on("restore-command-fails", args.node):
        fail(f"{args.node}: no space left on device (28)", 11)
    done = stored(storage.restore, site, args, args.bundle, args.label)
    show({"node": args.node, "height": done["height"]})


def replay_proofs(site: Site, args: SimpleNamespace) -> None:
    """The chain's firewood_recovery report, and the height that was reached."""
    from runbook_lib.rehearsal import storage

    report = stored(storage.replay, site, args, int(args.height))
    if site.is_on("replay-unreadable", args.node):
        sys.stdout.write("thread 'main' panicked\n")
        return
    if site.is_on("proof-replay-fails", args.node):
        report["pruning_proof_verified"] = False
    if site.is_on("wrong-state-root", args.node):  # and it does not know it
        report |= {"restored_root": "0" * 64, "commitment_root": "0" * 64}
    show({"node": args.node, **report})


def instruct(site: Site, args: SimpleNamespace) -> None:
    """Hand an operator the instruction in a file."""
    file = str(args.file.absolute())
    show(site.ask("/instruct", {"operator": args.operator, "file": file}))


def provision(site: Site, args: SimpleNamespace) -> None:
    if site.is_on("provision-fails"):
        fail(f"{args.name}: quota exceeded for instance type", 1)
    try:
        config = args.config.read_text()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{args.name}: {error}")
    show(site.ask("/provision", {"cluster": args.cluster, "name": args.name, "config": config}))


def deprovision(site: Site, args: SimpleNamespace) -> None:
    show(site.ask("/deprovision", {"cluster": args.cluster, "name": args.name}))


def announce(site: Site, args: SimpleNamespace) -> None:
    """Put a window on the board that validators read."""
    if site.is_on("announce-fails"):
        fail("channel: 503 Service Unavailable", 22)
    keys = ("release", "stage", "start", "end")
    entry = {key: getattr(args, key) for key in keys} | {"at": site.now()}
    text = Path(args.text).read_text()
    if not site.is_on("announce-lost"):
        site.board("announced", lambda board: [*board, entry | {"text": text}], [])


def announce_halt(site: Site, args: SimpleNamespace) -> None:
    """Put the halt of a rollout on the same board."""
    if site.is_on("halt-announce-fails"):
        fail("channel: 503 Service Unavailable", 22)
    keys = ("release", "stage", "reference")
    entry = {"kind": "halt", "at": site.now()} | {key: getattr(args, key) for key in keys}
    text = Path(args.text).read_text()
    if not site.is_on("halt-announce-lost"):
        site.board("announced", lambda board: [*board, entry | {"text": text}], [])


def announced(site: Site, args: SimpleNamespace) -> None:
    show({"announced": site.board("announced", lambda board: board, [])})


def freeze(site: Site, args: SimpleNamespace) -> None:
    if site.is_on("freeze-fails"):
        fail("governance: multisig refused", 4)
    if not site.is_on("freeze-lost"):
        site.board("frozen", lambda since: since or site.now(), "")


def unfreeze(site: Site, args: SimpleNamespace) -> None:
    site.board("frozen", lambda since: "", "")


def proposals(site: Site, args: SimpleNamespace) -> None:
    if site.is_on("proposals-unreadable"):
        fail("explorer: 502 Bad Gateway", 22)
    since = site.board("frozen", lambda known: known, "")
    found = [{"id": "rpp-41", "created_at": "2026-01-01T00:00:00+00:00"}]
    if since and site.is_on("proposal-slips-in"):
        found.append({"id": "rpp-42", "created_at": site.now()})
    show({"frozen": bool(since), "since": since or None, "open": found})


def notify(site: Site, args: SimpleNamespace) -> None:
    """Page somebody."""
    if site.is_on("notify-down"):
        fail("pager: 503 Service Unavailable", 22)
    text = Path(args.text).read_text()
    show(site.ask("/notify", {"role": args.role, "subject": args.subject, "text": text}))


def probe(site: Site, args: SimpleNamespace) -> None:
    """Whether a backend's readiness page answers, and how fast (ms)."""
    site.hang_while("probe-hangs")
    if site.is_on("probe-broken"):
        fail("bastion: permission denied (publickey)", 255)
    if site.is_on("probe-garbage"):
        sys.stdout.write("<html><body>502 Bad Gateway</body></html>\n")
        return
    url = site.network["backends"].get(args.backend)
    if url is None:
        fail(f"probe: expected one of {sorted(site.network['backends'])}, got {args.backend!r}")
    answer: dict[str, Any] = {"backend": args.backend, "reachable": False, "status": None}
    answer["latency_ms"] = None
    start = time.perf_counter()
    try:
        if site.is_on("backend-unreachable"):
            raise ConnectionRefusedError(111, "Connection refused")
        address, _, prefix = url.removeprefix("http://").partition("/")
        path = f"/{prefix}/-/ready" if prefix else "/-/ready"
        status, _ = exchange(address, f"GET {path} HTTP/1.0\r\n", timeout=3)
        latency = round((time.perf_counter() - start) * 1000, 3)
        answer |= {"reachable": status == 200, "status": status, "latency_ms": latency}
    except OSError as error:
        answer["error"] = str(error)
    show(answer)


def suite(site: Site, args: SimpleNamespace) -> None:
    """What ``cargo test`` prints for the suite, at the commit that is checked out."""
    site.hang_while("suite-hangs")
    checkout = site.root / "checkout"
    if site.is_on("suite-dirty-tree"):
        (checkout / "local-change.patch").write_text("not committed\n")
    if site.is_on("suite-other-commit"):
        import subprocess

        argv = ["git", "-C", str(checkout), "checkout", "-q", "--detach", "main~1"]
        subprocess.run(argv, check=True)
    tests = [] if site.is_on("suite-empty") else SUITES[args.name]
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


def soak(site: Site, args: SimpleNamespace) -> None:
    """The newest soak job: it began when the development cluster last took a build."""
    from datetime import UTC, datetime

    if site.is_on("soak-job-missing"):
        fail("soak: no job has run on this cluster")
    lines = (site.root / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    builds = [e for e in events if (e["cluster"], e["kind"]) == ("development", "build")]
    newest = max(builds, key=lambda event: float(event["at"]))
    offset = json.loads((site.root / "clock.json").read_text())["offset_s"]
    commit = "0" * 40 if site.is_on("soak-job-other-commit") else newest["data"]["commit"]
    times = {"started": newest["at"], "ended": time.time() + offset}
    shown = {key: datetime.fromtimestamp(at, UTC).isoformat() for key, at in times.items()}
    show({"commit": commit, "passed": not site.is_on("soak-job-failed"), **shown})


VERBS: dict[str, tuple[Callable[[Site, SimpleNamespace], None], Sequence[str]]] = {
    "restart": (restart, ("node",)),
    "provision": (provision, ("cluster", "name", "config")),
    "deprovision": (deprovision, ("cluster", "name")),
    "deploy": (deploy, ("node", "artifact", "digest", "config")),
    "stop": (stop, ("node",)),
    "start": (start, ("node",)),
    "verify-snapshot": (verify_snapshot, ("node", "bundle")),
    "inspect-wal": (inspect_wal, ("node",)),
    "keep-data": (keep_data, ("node", "label")),
    "restore-snapshot": (restore_snapshot, ("node", "bundle", "label")),
    "replay-proofs": (replay_proofs, ("node", "height")),
    "instruct": (instruct, ("operator", "file")),
    "probe": (probe, ("backend",)),
    "fast-forward": (fast_forward, ("seconds",)),
    "announce": (announce, ("release", "stage", "start", "end", "text")),
    "announce-halt": (announce_halt, ("release", "stage", "reference", "text")),
    "announced": (announced, ()),
    "notify": (notify, ("role", "subject", "text")),
    "freeze": (freeze, ("release",)),
    "unfreeze": (unfreeze, ("release",)),
    "proposals": (proposals, ()),
    "soak": (soak, ()),
    "suite": (suite, ("name",)),
    "dry-run": (dry_run, ("config",)),
}
"""Each with its operands."""
FLAGS = ("--config", STRICT)
"""Words of the chain's own tool."""
PATHS = ("config", "artifact", "file", "bundle")


def parsed(argv: Sequence[str]) -> SimpleNamespace:
    """``--root ROOT [--by OPERATOR] VERB OPERAND...``; argparse takes longer than most verbs."""
    words, options = list(argv), {"root": "", "by": ""}
    while len(words) > 1 and (name := words[0].removeprefix("--")) in options:
        options[name], words = words[1], words[2:]
    verb, given = "".join(words[:1]), [word for word in words[1:] if word not in FLAGS]
    if verb not in VERBS or not options["root"]:
        fail(f"commands: expected --root ROOT [--by OPERATOR] and one of {', '.join(VERBS)}", 2)
    names = VERBS[verb][1]
    if len(given) != len(names):
        fail(f"{verb}: expected {' '.join(names) or 'nothing more'}, got {' '.join(given)!r}", 2)
    operands: dict[str, Any] = {
        name: Path(word) if name in PATHS else word for name, word in zip(names, given, strict=True)
    }
    return SimpleNamespace(verb=verb, strict=STRICT in words, **options, **operands)


def main(argv: Sequence[str]) -> None:
    args = parsed(argv)
    VERBS[args.verb][0](Site(Path(args.root)), args)
