"""What the commands of a storage recovery print, typed.

``replay_proofs`` prints the report of the chain's ``firewood_recovery``, whose exit code is 0
whatever it says, and the height that was reached.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import Field

from ..errors import SourceError
from .process import Ended
from .snapshots import MOST
from .wire import Wire, decode

Height = Annotated[int, Field(ge=0, le=MOST)]
Root = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class OfNode(Wire):
    """An answer names the node that it is about: a mix-up is an error."""

    node: str


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


T = TypeVar("T", bound=OfNode)


def answer(purpose: str, node: str, printed: bytes, model: type[T]) -> T:
    """What ``purpose`` printed about ``node``. Raises SourceError."""
    source = f"{purpose} {node}"
    found = decode(source, printed, model)
    if found.node != node:
        raise SourceError(source, f"expected {node!r}, got {found.node!r}")
    return found


def wal_of(node: str, ended: Ended) -> Wal:
    """What ``inspect_wal`` printed. Raises SourceError when it failed, or printed something else."""
    if ended.code != 0:
        said = ended.stderr.decode("utf-8", "replace").strip().splitlines()
        got = ended.problem or f"exit {ended.code}: {said[-1] if said else 'no message'}"
        raise SourceError(f"inspect_wal {node}", f"expected its log, got {got}")
    return answer("inspect_wal", node, ended.stdout, Wal)
