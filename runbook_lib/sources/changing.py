"""The commands of a site that change the world.

Each needs the cluster's lock and returns how the command ended, for the journal, whatever its exit
code.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from .. import reach
from ..errors import SourceError
from . import wire
from .process import Ended
from .running import Purposes, reason
from .wire import Wire


class Provisioned(Wire):
    """A fresh node: its name, and the URL of its RPC."""

    node: str
    url: reach.Url


class Changes(Purposes):
    """Steps by purpose. Each raises SourceError only where the site names no such command."""

    def deploy(
        self, node: str, artifact: Path, digest: str, config: Path, *, lock: int, outputs: Path
    ) -> Ended:
        """Put artifact and configuration in place on a node, without a restart."""
        values = {"artifact": str(artifact), "digest": digest, "config": str(config)}
        return self._change("deploy", node, lock, outputs, node=node, **values)

    def restart(self, node: str, *, lock: int, outputs: Path) -> Ended:
        """Restart a node on what is in place."""
        return self._change("restart", node, lock, outputs, node=node)

    def stop(self, node: str, *, lock: int, outputs: Path) -> Ended:
        """End a node's process; a good end as well when it has ended already."""
        return self._change("stop", node, lock, outputs, node=node)

    def keep_data(self, node: str, label: str, *, lock: int, outputs: Path) -> Ended:
        """Put a stopped node's data aside under a name with ``label`` in it, never over another."""
        return self._change("keep_data", node, lock, outputs, node=node, label=label)

    def restore_snapshot(
        self, node: str, bundle: Path, label: str, *, lock: int, outputs: Path
    ) -> Ended:
        """Put a snapshot in place; a good end as well when it was, under this label."""
        values = {"bundle": str(bundle), "label": label}
        return self._change("restore_snapshot", node, lock, outputs, node=node, **values)

    def replay_proofs(self, node: str, height: int, *, lock: int, outputs: Path) -> Ended:
        """Verify the restored proofs and replay the kept log up to ``height``."""
        return self._change("replay_proofs", node, lock, outputs, node=node, height=str(height))

    def start(self, node: str, *, lock: int, outputs: Path) -> Ended:
        """Start a node on what is in place; a good end as well when it runs."""
        return self._change("start", node, lock, outputs, node=node)

    def announce(
        self,
        release: str,
        stage: str,
        start: datetime,
        end: datetime,
        text: Path,
        *,
        lock: int,
        outputs: Path,
    ) -> Ended:
        """Tell the validators of a window, in the words of a file."""
        span = {"start": start.isoformat(), "end": end.isoformat(), "text": str(text)}
        return self._change("announce", "", lock, outputs, release=release, stage=stage, **span)

    def announce_halt(
        self, release: str, stage: str, reference: str, text: Path, *, lock: int, outputs: Path
    ) -> Ended:
        """Tell the validators, in the words of a file, that a rollout is halted."""
        values = {"reference": reference, "text": str(text)}
        return self._change(
            "announce_halt", "", lock, outputs, release=release, stage=stage, **values
        )

    def instruct(self, operator: str, file: Path, *, lock: int, outputs: Path) -> Ended:
        """Hand an operator the instruction in a file."""
        values = {"operator": operator, "file": str(file)}
        return self._change("instruct", operator, lock, outputs, **values)

    def freeze_proposals(self, release: str, *, lock: int, outputs: Path) -> Ended:
        """Take no new governance proposals from now on."""
        return self._change("freeze_proposals", "", lock, outputs, release=release)

    def provision(
        self, cluster: str, name: str, config: Path, *, lock: int, outputs: Path
    ) -> Ended:
        """Make a fresh node; ``provisioned`` reads what it printed."""
        return self._change(
            "provision", name, lock, outputs, cluster=cluster, name=name, config=str(config)
        )

    def deprovision(self, cluster: str, name: str, *, lock: int, outputs: Path) -> Ended:
        """Remove a node that ``provision`` made."""
        return self._change("deprovision", name, lock, outputs, cluster=cluster, name=name)

    def _change(
        self, purpose: str, subject: str, lock: int, outputs: Path, /, **values: str
    ) -> Ended:
        command = self._command(purpose, f"{purpose} {subject}", **values)
        return self._scope.run(command, purpose="change", lock=lock, outputs=outputs)


def provisioned(name: str, ended: Ended) -> Provisioned:
    """What ``provision`` printed. Raises SourceError when it failed or printed something else."""
    source = f"provision {name}"
    if ended.code != 0:
        got = ended.problem or f"{ended.code}: {reason(ended)}"
        raise SourceError(source, f"expected exit code 0, got {got}")
    return wire.decode(source, ended.stdout, Provisioned)
