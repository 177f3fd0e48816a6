"""Expected state: per node its gates, channel, binary and configuration, derived from journals.

*Known* is what our journals last verified on each node: every live apply, drop, recovery and
adoption in the store. Nothing else says what a cluster should be like before a stage. *Good* is
what an attempt that passed, or an adoption, left on each node: where a rollback leads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from ..canonical import canonical
from ..errors import RecordDamaged, SourceError
from ..evidence.record import Entry, recorded
from ..evidence.standing import JUDGED, passed
from ..evidence.store import Store
from ..outcomes import Model
from ..sources.config import rollout_keys
from ..sources.scope import Scope


class NodeState(Model):
    """What one node is: gates by name; digests are ``sha256:HEX``.

    ``artifact`` is the file that ``binary`` was delivered in, empty where that is not known. No node
    tells it, so that it is not among what is compared.
    """

    gates: dict[str, bool]
    channel: str
    binary: str
    config: str
    artifact: str = ""

    def flat(self) -> dict[str, str | bool]:
        """As key -> value, gates by their dotted key."""
        rollout = rollout_keys(self.channel, self.gates)
        return {**rollout, "binary": self.binary, "config": self.config}


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

    Raises RecordDamaged when a record of the store contradicts itself.
    """
    return _latest(journals(scope, store, cluster, "state"))


def good_map(scope: Scope, store: Store, cluster: str) -> dict[str, Known]:
    """The last good state of every node of ``cluster``, of whatever release.

    Good is what the last attempt that passed (complete, applied, live) left, or an approved
    adoption took over; a node of neither is not in it. Raises RecordDamaged, SourceError.
    """
    return _latest(
        (origin, entries)
        for origin, entries in journals(scope, store, cluster, "state", *JUDGED)
        if entries[0].body["mode"] == "adopt" or passed(entries)
    )


def _latest(records: Iterable[tuple[str, list[Entry]]]) -> dict[str, Known]:
    found: dict[str, Known] = {}
    for origin, entries in records:
        for node, known in states(entries, origin):
            if node not in found or known.at >= found[node].at:
                found[node] = known
    return found


def journals(
    scope: Scope, store: Store, cluster: str, *kinds: str
) -> Iterator[tuple[str, list[Entry]]]:
    """(attempt, entries of ``kinds``) of everything that really changed or looked at ``cluster``.

    Raises RecordDamaged.
    """
    for name in store.everything(scope):
        entries = recorded(scope, store, name, *kinds)
        opened = entries[0].body if entries and entries[0].kind == "opened" else {}
        # Only what really changed or looked at this cluster: never a plan, never a replay.
        real = opened.get("source") in ("live", "rehearsal")
        kept = real and opened.get("mode") in ("apply", "adopt")
        if kept and opened.get("cluster") == cluster:
            yield name, entries


def states(entries: list[Entry], origin: str) -> Iterator[tuple[str, Known]]:
    """(node, state) as a record says they were verified. Raises RecordDamaged."""
    for entry in entries:
        if entry.kind == "state":
            try:
                state = NodeState.model_validate_json(canonical(entry.body["state"]))
                at = datetime.fromisoformat(entry.body["at"])
                node, phase = entry.body["node"], entry.body.get("phase", "")
                kept = str(kept_config(Path(origin), node, phase))
                yield node, Known(state=state, at=at, origin=origin, kept=kept)
            except (ValidationError, KeyError, ValueError) as error:
                raise RecordDamaged(
                    f"{origin}: entry {entry.seq}: expected a node's state, got: {error}"
                ) from error


def differences(
    expected: Mapping[str, str | bool], observed: Mapping[str, str | bool]
) -> list[tuple[str, str | bool, str | bool]]:
    """(key, expected, observed) of every key that differs; an absent side reads ``absent``."""
    keys = [*expected, *sorted(set(observed) - set(expected))]
    return [
        (key, expected.get(key, "absent"), observed.get(key, "absent"))
        for key in keys
        if expected.get(key) != observed.get(key)
    ]


def require_known(known: Mapping[str, Known], node: str, cluster: str) -> Known:
    """A node's known state. Raises SourceError telling how to take the cluster over."""
    if node not in known:
        raise SourceError(
            node,
            f"expected a known state in the store, got none; take {cluster} over as it is with"
            " `runbook adopt`",
        )
    return known[node]
