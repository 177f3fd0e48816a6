"""The commands of a storage recovery, and what they print, typed.

``replay_proofs`` prints the report of the chain's ``firewood_recovery``, whose exit code is 0
whatever it says, and the height that was reached.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from ..errors import SourceError
from .commands import OfNode, SiteCommands, answer
from .process import Ended
from .snapshots import MOST

Height = Annotated[int, Field(ge=0, le=MOST)]
Root = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Stopped(OfNode):
    """Whether the node's process is gone; that its RPC is silent proves nothing."""

    stopped: bool


class Wal(OfNode):
    """The write-ahead log of a stopped node: its whole records, and the height of the last one."""

    records: Annotated[int, Field(ge=0)]
    corrupt: bool
    height: Height | None
    problem: str = ""


class Kept(OfNode):
    """The name under which the old data were put aside."""

    kept: Annotated[str, Field(min_length=1, max_length=1000)]


class Replayed(OfNode):
    """``restored_root`` is the snapshot's, ``commitment_root`` that at ``height``, after the log."""

    wal_corruption_detected: bool
    pruning_proof_verified: bool
    restored_root: Root
    expected_state_root: Root
    commitment_root: Root
    restored_matches_expected: bool
    height: Height


def wal_of(node: str, ended: Ended) -> Wal:
    """What ``inspect_wal`` printed. Raises SourceError when it failed, or printed something else."""
    if ended.code != 0:
        said = ended.stderr.decode("utf-8", "replace").strip().splitlines()
        got = ended.problem or f"exit {ended.code}: {said[-1] if said else 'no message'}"
        raise SourceError(f"inspect_wal {node}", f"expected its log, got {got}")
    return answer("inspect_wal", node, ended.stdout, Wal)


class StorageCommands(SiteCommands):
    """What only a storage recovery asks."""

    def stopped(self, node: str) -> bool:
        """Whether a node's process is gone."""
        printed = self._read("stopped", node, node=node).stdout
        return answer("stopped", node, printed, Stopped).stopped

    def inspect_wal(self, node: str, *, outputs: Path | None = None) -> Ended:
        """Look at a stopped node's write-ahead log; what it prints is kept as well."""
        return self._look("inspect_wal", node, outputs, node=node)

    def verify_snapshot(self, node: str, bundle: Path, *, outputs: Path | None = None) -> Ended:
        """snapshot-verify on a bundle as the node fetches it: 0, 1 fatal, 2 signature, 3 chunks."""
        return self._look("verify_snapshot", node, outputs, node=node, bundle=str(bundle))

    def _look(self, purpose: str, subject: str, outputs: Path | None, /, **values: str) -> Ended:
        command = self._command(purpose, f"{purpose} {subject}", **values)
        return self._scope.run(command, outputs=outputs)
