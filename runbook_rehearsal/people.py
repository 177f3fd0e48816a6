"""The people of a rehearsal: who they are, what they say, and how operators do as they are told.

All behave as the faults that are on when they speak or act tell them to; what they said stays said.
"""

from __future__ import annotations

import base64
import json
import re
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from . import files
from .chain.node_config import ConfigurationError, read_config
from .chain.world import STAGE_CLUSTERS, NodeSpec
from .faults.table import FAULTS
from .files import digest_of, write_atomically
from .layout import COMMANDER, COUNCILLORS, OPERATOR, SECOND

if TYPE_CHECKING:
    from .network import RehearsalNetwork

Verb = Literal["acknowledge", "sign-off"]
_FAULTS = {"acknowledge": "ack", "sign-off": "signoff"}
DECISIONS = {
    "participation-dip": "restart the pool was moved to another zone",
    "proof-slow": "continue a batch of large proofs, it is over",
    "consensus-stall": "recover the chain stands still",
    "replay-stall": "recover replay stands still",
}
SLOW_S, TRIES = 1.0, 3
_DOCUMENT = re.compile(r'^```json\n(\{"(?:artifact|bundle)".*?)\n```$', re.S | re.M)
_TARGET = re.compile(r"^#### (\S+)\.toml\n\n(`{4,})toml\n(.*?)\n\2$", re.S | re.M)
OPERATOR_FAULTS = [fault.name for fault in FAULTS.values() if fault.layer == "operator"]


def private_key(seed: int, name: str) -> Ed25519PrivateKey:
    """A throwaway key of a person (by account) or of a validator (by its node's name)."""
    return files.private_key(f"rehearsal/{seed}/key/{name}")


def public_key(seed: int, name: str) -> str:
    return files.public_key(private_key(seed, name))


def signed(seed: int, name: str, statement: dict[str, Any]) -> str:
    """A statement with the signature of ``name``, as a file or a comment holds it."""
    content = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    signature = base64.b64encode(private_key(seed, name).sign(content)).decode()
    return json.dumps({"statement": statement, "signature": signature})


def people(seed: int) -> list[dict[str, Any]]:
    """The site's people: an engineer, the release commander, a second engineer, the council."""
    listed = (
        ("Rehearsing Engineer", OPERATOR, ["release-engineer", "governance-council"]),
        ("Rehearsing Commander", COMMANDER, ["release-commander"]),
        ("Second Engineer", SECOND, ["release-engineer"]),
        *(("Council Member", account, ["governance-council"]) for account in COUNCILLORS),
    )
    return [
        {"name": name, "account": account, "key": public_key(seed, account), "roles": roles}
        for name, account, roles in listed
    ]


def write_keys(root: Path, seed: int, nodes: Iterable[NodeSpec]) -> None:
    """Everybody's private key as a PEM file: ``keys/NAME.pem``."""
    (root / "keys").mkdir()
    for name in (OPERATOR, COMMANDER, SECOND, *COUNCILLORS, *(node.name for node in nodes)):
        pem = private_key(seed, name).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        write_atomically(root / "keys" / f"{name}.pem", pem, 0o600)


# --- validators -----------------------------------------------------------------------------------


def speak(
    network: RehearsalNetwork,
    verb: Verb,
    stage: str,
    start: datetime,
    end: datetime,
    plan: str = "",
) -> None:
    """Every operator of the stage's cluster says its word, as a comment; ours by one comment."""
    at, day = network.now.replace(microsecond=0), timedelta(days=1)

    def line(since: datetime, until: datetime, plan: str) -> str:
        window = f"{_text(since)}/{_text(until)}"
        return f"{verb} {network.release.version} {stage} {window} {plan}".rstrip()

    said = line(start, end, plan)
    otherwise = {
        "late": (said, start + timedelta(minutes=1)),
        "other-window": (line(start + day, end + day, plan), at),
        "quoted": (f"As they write:\n\n    {said}\n\n> {said}\n\n<!-- {said} -->", at),
        "other-plan": (line(start, end, "sha256:" + "0" * 64), at),
    }
    nodes = network.world.clusters[STAGE_CLUSTERS[stage]].nodes
    for account in dict.fromkeys(node.operator or OPERATOR for node in nodes):
        mine = {node.name: node for node in nodes if (node.operator or OPERATOR) == account}
        on = {
            active.name.removeprefix(f"{_FAULTS[verb]}-"): active.node
            for active in network.faults
            if active.name.startswith(f"{_FAULTS[verb]}-") and active.node in mine
        }
        if "forged" in on:  # a file in the validator's name, signed by somebody else
            node = mine[on["forged"]]
            statement = {
                "kind": verb, "release": network.release.version, "stage": stage,
                "window": f"{_text(start)}/{_text(end)}", "plan": plan,
                "validator": node.validator, "at": _text(at),
            }  # fmt: skip
            text = signed(network.seed, "mallory", statement)
            write_atomically(forged_file(network, verb, node.name), text)
        elif "missing" not in on:
            text, when = next((otherwise[name] for name in on if name in otherwise), (said, at))
            network.say(account, text, at=when)
        if "withdrawn" in on:
            network.say(account, f"withdraw {said}", at=at)


def _text(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


def forged_file(network: RehearsalNetwork, verb: Verb, node: str) -> Path:
    return network.root / "words" / network.release.version / f"{verb}-{node}.json"


# --- commander and council ------------------------------------------------------------------------


def notified(network: RehearsalNetwork, role: str, subject: str, text: str) -> None:
    """Act as the commander or the council would as the fault has it: two of the council approve at
    once, after 25 hours, or never."""
    on = {active.name for active in network.faults}
    asked = re.search(r"approve sha256:[0-9a-f]{64}", text)
    if role == "governance-council" and subject.startswith("council convened") and asked:
        at = network.now + timedelta(hours=25 if "council-late" in on else 0)
        for account in COUNCILLORS if "council-silent" not in on else ():
            network.say(account, asked[0], at=at)
    found = re.search(r"\bA[0-9a-f]{8}\b", subject)
    if role == "release-commander" and found and "commander-silent" not in on:
        network.say(COMMANDER, f"acknowledge-anomaly {found[0]}")
        for name in (name for name in DECISIONS if name in on):
            network.say(COMMANDER, f"decide {found[0]} {DECISIONS[name]}")


# --- operators ------------------------------------------------------------------------------------


class Operators:
    """Operators who run nodes of their own: one thread takes instructions as they come, follows
    them and reports. ``see`` may be called from any thread; ``done``: keys of those done."""

    def __init__(self, network: RehearsalNetwork) -> None:
        self._network = network
        self._seen: dict[str, tuple[str, str]] = {}  # what is not done: key -> text, how it came
        self.done: set[str] = set()
        self._work = ThreadPoolExecutor(1, "operators")
        self.stop = self._work.shutdown

    def see(self, text: str, came_by: str) -> None:
        """An instruction by ``comment`` or ``notify``; any other text is passed over."""
        found = _DOCUMENT.search(text)
        if found is None:
            return
        document = json.loads(found[1])
        key = json.dumps([document[name] for name in ("operator", "plan", "phase")]
                         + sorted(document["nodes"]) + text.splitlines()[:1])  # fmt: skip
        if key not in self.done and key not in self._seen:
            self._seen[key] = (text, came_by)
            self._work.submit(self._act, key)

    def again(self) -> None:
        for key in tuple(self._seen):
            self._work.submit(self._act, key)

    def report(self, node: str, stage: str, **lies: Any) -> None:
        """A node's report outside any rollout, as a file, with ``lies`` in place of the truth."""
        release = self._network.release.version
        document = {"release": release, "stage": stage, "plan": "", "phase": ""}
        self._send(document, self._report(document, node) | lies, node, "file")

    def forget(self) -> None:
        self._seen.clear()
        self.settle()

    def settle(self) -> None:
        """Wait until all that was seen so far was followed, or not."""
        wait([self._work.submit(int)], timeout=60)

    def _act(self, key: str) -> None:
        if (seen := self._seen.get(key)) is None:
            return
        for _ in range(TRIES):
            try:
                if self._follow(*seen):
                    self._seen.pop(key, None)
                    self.done.add(key)
                return
            except (OSError, KeyError, ValueError, RuntimeError) as error:
                with suppress(OSError), (self._network.root / "operators.log").open("a") as file:
                    file.write(f"failed: {error}\n")
                time.sleep(SLOW_S)

    def _follow(self, text: str, came_by: str) -> bool:
        found = _DOCUMENT.search(text)
        assert found is not None
        document = json.loads(found[1])
        targets = {name: toml + "\n" for name, _, toml in _TARGET.findall(text)}
        whole = True
        for node, wanted in document["nodes"].items():
            on = {name for name in OPERATOR_FAULTS if self._network.faults.is_on(name, node=node)}
            if "operator-silent" in on:
                whole = False
                continue
            if "operator-slow" in on:
                time.sleep(SLOW_S)
            if "bundle" in document:
                self._restore(document, node)
                continue
            if wanted["changes"]:
                self._change(document, node, targets[node])
            if "operator-no-report" in on:
                whole = False
                continue
            report = self._report(document, node)
            if "report-other-binary" in on:
                report["binary"] = "sha256:" + "0" * 64
            key = "mallory" if "report-forged" in on else node
            self._send(document, report, key, came_by)
            whole = whole and not {"report-other-binary", "report-forged"} & on
        return whole

    def _change(self, document: dict[str, Any], node: str, target: str) -> None:
        artifact = document["nodes"][node].get("artifact", document["artifact"])
        folder = self._network.world.node_dir(self._network.fleet.spec(node).cluster, node)
        target = _with_own_secrets(target, (folder / "config.toml").read_text())
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(target)
            file.flush()
            self._run(document, "deploy", node, artifact["path"], artifact["digest"], file.name)
            self._run(document, "restart", node)

    def _restore(self, document: dict[str, Any], node: str) -> None:
        """Back to a snapshot; a node that comes to another state root stays down."""
        label = document["label"]
        self._run(document, "stop", node)
        self._run(document, "keep-data", node, label)
        self._run(document, "restore-snapshot", node, document["bundle"], label)
        report = json.loads(self._run(document, "replay-proofs", node, str(document["height"])))
        if report["commitment_root"] != document["state_root"]:
            raise ValueError(f"{node}: another state root: {report['commitment_root']}")
        self._run(document, "start", node)

    def _run(self, document: dict[str, Any], *words: str) -> str:
        return self._network.command(*words, by=document["operator"])

    def _report(self, document: dict[str, Any], node: str) -> dict[str, Any]:
        network = self._network
        running = network.fleet.running[node]
        file = network.world.node_dir(running.spec.cluster, node) / "config.toml"
        try:
            read_config(file)
            accepted = True
        except ConfigurationError:
            accepted = False
        return {
            "kind": "node-report",
            **{key: document[key] for key in ("release", "stage", "plan", "phase")},
            "node": node,
            "channel": running.config.channel,
            "gates": dict(running.config.gates),
            "config": digest_of(file),
            "binary": running.build.digest,
            "target": digest_of(file),
            "dry_run": accepted,
            "at": network.now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }

    def _send(
        self, document: dict[str, Any], statement: dict[str, Any], key: str, came_by: str
    ) -> None:
        """By the way the instruction came: as a comment, or as a file in the site's folder."""
        text = signed(self._network.seed, key, statement)
        if came_by == "comment":
            self._network.say(document["operator"], f"```node-report\n{text}\n```\n")
            return
        folder = self._network.root / "words" / document["release"] / "reports"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{statement['node']}.{document['phase']}.{document['plan'][-8:]}.json"
        write_atomically(folder / name, text)


def _with_own_secrets(target: str, own: str) -> str:
    """An instruction holds no secrets: an operator keeps its own, key by key."""
    mine: dict[str, deque[str]] = defaultdict(deque)
    for line in own.splitlines():
        mine[line.partition(" =")[0]].append(line)
    text = ""
    for line in target.splitlines():
        left = mine[line.partition(" =")[0]]
        kept = left.popleft() if left else line
        text += (kept if "[redacted]" in line else line) + "\n"
    return text
