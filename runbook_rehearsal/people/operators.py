"""Operators who run nodes of their own: they read an instruction, follow it, and report.

One thread takes instructions as they come, from the forge or by the site's ``notify`` command; how
each operator behaves is what the faults that are on say when their turn comes.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from .. import layout
from ..chain.node_config import ConfigurationError, parse
from ..files import digest_of, write_atomically
from .words import private_key

if TYPE_CHECKING:
    from ..network import RehearsalNetwork

SLOW_S, TRIES = 1.0, 3
_DOCUMENT = re.compile(r'^```json\n(\{"(?:artifact|bundle)".*?)\n```$', re.S | re.M)
_TARGET = re.compile(r"^#### (\S+)\.toml\n\n(`{4,})toml\n(.*?)\n\2$", re.S | re.M)
OPERATOR_FAULTS = (
    "operator-silent", "operator-no-report", "operator-slow", "report-forged",
    "report-other-binary",
)  # fmt: skip


class Operators:
    """The operators of a network. ``see`` may be called from any thread."""

    def __init__(self, network: RehearsalNetwork) -> None:
        self._network = network
        self._seen: dict[str, tuple[str, str]] = {}  # what is not done: key -> text, how it came
        self._done: set[str] = set()
        self._queue: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="operators", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End once the instruction at hand is done."""
        self._queue.put(None)
        self._thread.join()

    def see(self, text: str, came_by: str) -> None:
        """An instruction by ``comment`` or ``notify``; any other text is passed over."""
        found = _DOCUMENT.search(text)
        if found is None:
            return
        document = json.loads(found[1])
        key = json.dumps([document[name] for name in ("operator", "plan", "phase")]
                         + sorted(document["nodes"]) + text.splitlines()[:1])  # fmt: skip
        if key not in self._done and key not in self._seen:
            self._seen[key] = (text, came_by)
            self._queue.put(partial(self._act, key))

    def again(self) -> None:
        """Whoever has not done as told thinks better of it."""
        for key in tuple(self._seen):
            self._queue.put(partial(self._act, key))

    def report(self, node: str, stage: str, **lies: Any) -> None:
        """A node's report outside any rollout, as a file, with ``lies`` in place of the truth."""
        release = self._network.release.version
        document = {"release": release, "stage": stage, "plan": "", "phase": ""}
        self._send(document, self._report(document, node) | lies, node, "file")

    def forget(self) -> None:
        """Nobody follows any more what is not done yet."""
        self._seen.clear()
        self.settle()

    def settle(self) -> None:
        """Wait until all that was seen so far was followed, or not."""
        reached = threading.Event()
        self._queue.put(reached.set)
        reached.wait(60)

    def _work(self) -> None:
        while (act := self._queue.get()) is not None:
            act()

    def _act(self, key: str) -> None:
        if (seen := self._seen.get(key)) is None:
            return
        for _ in range(TRIES):
            try:
                if self._follow(*seen):
                    self._seen.pop(key, None)
                    self._done.add(key)
                return
            except (OSError, KeyError, ValueError, subprocess.CalledProcessError) as error:
                self._log(f"failed: {error}")
                time.sleep(SLOW_S)

    def _follow(self, text: str, came_by: str) -> bool:
        """Whether all was done as told."""
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
        """With the site's own automation, as the node's operator."""
        artifact = document["nodes"][node].get("artifact", document["artifact"])
        folder = self._network.world.node_dir(self._network.fleet.spec(node).cluster, node)
        target = _with_own_secrets(target, (folder / "config.toml").read_text())
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(target)
            file.flush()
            for verb in (
                ["deploy", node, artifact["path"], artifact["digest"], file.name],
                ["restart", node],
            ):
                self._run(document, *verb)

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

    def _run(self, document: dict[str, Any], *verb: str) -> bytes:
        script = str(layout.COMMANDS / "run.py")
        argv = [sys.executable, "-S", "-E", script, "--root", str(self._network.root)]
        return subprocess.run(
            [*argv, "--by", document["operator"], *verb],
            check=True, capture_output=True, cwd=layout.PROJECT, timeout=60,
        ).stdout  # fmt: skip

    def _report(self, document: dict[str, Any], node: str) -> dict[str, Any]:
        network = self._network
        running = network.fleet.running[node]
        file = network.world.node_dir(running.spec.cluster, node) / "config.toml"
        try:
            parse(file.read_text(), strict=True)
            accepted = True
        except ConfigurationError:
            accepted = False
        at = datetime.fromtimestamp(network.world.clock.now(), UTC)
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
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }

    def _send(
        self, document: dict[str, Any], statement: dict[str, Any], key: str, came_by: str
    ) -> None:
        """By the way the instruction came: as a comment, or as a file in the site's folder."""
        content = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
        signature = base64.b64encode(private_key(self._network.seed, key).sign(content)).decode()
        signed = json.dumps({"statement": statement, "signature": signature})
        if came_by == "comment":
            self._network.say(document["operator"], f"```node-report\n{signed}\n```\n")
            return
        folder = self._network.root / "words" / document["release"] / "reports"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{statement['node']}.{document['phase']}.{document['plan'][-8:]}.json"
        write_atomically(folder / name, signed)

    def _log(self, text: str) -> None:
        with suppress(OSError), (self._network.root / "operators.log").open("a") as file:
            file.write(text + "\n")


def _with_own_secrets(target: str, own: str) -> str:
    """An instruction holds no secrets: an operator keeps its own, key by key."""
    mine: dict[str, list[str]] = {}
    for line in own.splitlines():
        mine.setdefault(line.partition(" =")[0], []).append(line)
    lines, seen = [], Counter[str]()
    for line in target.splitlines():
        key = line.partition(" =")[0]
        number, seen[key] = seen[key], seen[key] + 1
        hidden = "[redacted]" in line and number < len(mine.get(key, ()))
        lines.append(mine[key][number] if hidden else line)
    return "\n".join(lines) + "\n"
