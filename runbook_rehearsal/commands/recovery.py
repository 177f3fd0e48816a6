"""On a node's data: what a storage recovery inspects, keeps, restores and replays."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .site import TYPE_CHECKING, Site, fail, show

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def stored(site: Site, verb: str, node: str, what: Callable[..., Any], *given: Any) -> Any:
    """A command on a node's data, logged with whether the node ran meanwhile."""
    from runbook_rehearsal.nodes.storage import StorageError

    home = site.directory(node)
    site.require(node)
    line = {"verb": verb, "node": node, "running": (home / "running.json").exists()}
    with (site.root / "storage.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    try:
        return what(home, *given)
    except (StorageError, OSError) as error:
        fail(f"{node}: {error}")


def verify_snapshot(site: Site, node: str, bundle: str) -> None:
    """As the chain's snapshot-verify: 0 whole, 1 fatal, 2 signature, 3 chunks."""
    report = site.ask("/verify-snapshot", {"node": node, "bundle": bundle})
    show(report)
    if report["exit_code"]:
        fail("; ".join(report["errors"]), report["exit_code"])


def inspect_wal(site: Site, node: str) -> None:
    from runbook_rehearsal.nodes import storage

    if site.is_on("wal-unreadable", node):
        fail(f"{node}: {storage.WAL}: input/output error", 5)
    show({"node": node, **stored(site, "inspect-wal", node, storage.inspect_wal)})


def keep_data(site: Site, node: str, label: str) -> None:
    from runbook_rehearsal.nodes import storage

    show({"node": node, "kept": stored(site, "keep-data", node, storage.keep, label)})


def restore_snapshot(site: Site, node: str, bundle: str, label: str) -> None:
    from runbook_rehearsal.nodes import storage

    if site.is_on("restore-command-fails", node):
        fail(f"{node}: no space left on device (28)", 11)
    done = stored(site, "restore-snapshot", node, storage.restore, Path(bundle), label)
    show({"node": node, "height": done["height"]})


def replay_proofs(site: Site, node: str, height: str) -> None:
    """The chain's firewood_recovery report, and the height that was reached."""
    from runbook_rehearsal.nodes import storage

    report = stored(site, "replay-proofs", node, storage.replay, int(height))
    if site.is_on("replay-unreadable", node):
        sys.stdout.write("thread 'main' panicked\n")
        return
    if site.is_on("proof-replay-fails", node):
        report["pruning_proof_verified"] = False
    if site.is_on("wrong-state-root", node):  # and it does not know it
        report |= {"restored_root": "0" * 64, "commitment_root": "0" * 64}
    show({"node": node, **report})
