"""Expected state: per node its gates, channel, binary and configuration, derived from journals.

*Known* is what our journals last verified on each node: every live apply, drop, recovery and
adoption in the store. Nothing else says what a cluster should be like before a stage. *Good* is
what an attempt that passed, or an adoption, left on each node: where a rollback leads.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from ..errors import SourceError
from ..evidence.events import Adopting, Event, NodeVerified, Opened, of
from ..evidence.log import recorded
from ..evidence.standing import JUDGED, passed
from ..evidence.store import Store
from ..outcomes import Model
from ..plan import NodeState
from ..sources.scope import Scope


class Known(Model):
    """A node's last verified state, when it was verified and by which attempt.

    ``kept`` is where in the store its TOML lies, without secrets; older attempts have none.
    """

    state: NodeState
    at: datetime
    origin: str
    kept: str


def kept_config(folder: Path, node: str, phase: str = "") -> Path:
    """Where an attempt keeps the TOML it made or found of a node, without its secrets."""
    return folder / "targets" / (f"{node}.{phase}.toml" if phase else f"{node}.toml")


def known_map(scope: Scope, store: Store, cluster: str) -> dict[str, Known]:
    """The last verified state of every node of ``cluster``; a node never seen is not in it.

    Raises LogDamaged when a log of the store contradicts itself.
    """
    return _latest(journals(scope, store, cluster, NodeVerified))


def good_map(scope: Scope, store: Store, cluster: str) -> dict[str, Known]:
    """The last good state of every node of ``cluster``, of whatever release.

    Good is what the last attempt that passed (complete, applied, live) left, or an approved
    adoption took over; a node of neither is not in it. Raises LogDamaged, SourceError.
    """
    return _latest(
        (origin, entries)
        for origin, entries in journals(scope, store, cluster, NodeVerified, *JUDGED)
        if isinstance(entries[0], Adopting) or passed(entries)
    )


def _latest(logs: Iterable[tuple[str, list[Event]]]) -> dict[str, Known]:
    found: dict[str, Known] = {}
    for origin, entries in logs:
        for node, known in states(entries, origin):
            if node not in found or known.at >= found[node].at:
                found[node] = known
    return found


def journals(
    scope: Scope, store: Store, cluster: str, *kinds: type[Event]
) -> Iterator[tuple[str, list[Event]]]:
    """(attempt, events of ``kinds``) of everything that really changed or looked at ``cluster``.

    Raises LogDamaged.
    """
    for name in store.everything(scope):
        events = recorded(scope, store, name, *kinds)
        # Only what really changed or looked at this cluster: never a plan, never a replay.
        match events[:1]:
            case [Adopting() | Opened(mode="apply") as opened]:
                if opened.cluster == cluster and opened.source != "replay":
                    yield name, events


def states(events: Iterable[Event], origin: str) -> Iterator[tuple[str, Known]]:
    """(node, state) as a log says they were verified."""
    for one in of(events, NodeVerified):
        kept = str(kept_config(Path(origin), one.node, one.phase))
        yield one.node, Known(state=one.state, at=one.at, origin=origin, kept=kept)


def require_known(known: Mapping[str, Known], node: str, cluster: str) -> Known:
    """A node's known state. Raises SourceError telling how to take the cluster over."""
    if node not in known:
        raise SourceError(
            node,
            f"expected a known state in the store, got none; take {cluster} over as it is with"
            " `runbook adopt`",
        )
    return known[node]
