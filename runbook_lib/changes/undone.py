"""What a recovery undoes, and the files that each node had before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..canonical import digest_bytes
from ..context import Context
from ..errors import RecordDamaged, SourceError
from ..evidence.order import plan_of
from ..evidence.record import Entry, recorded
from ..sources.commands import NodeConfig
from ..sources.config import CHANNEL_AT, GATES_AT
from ..strict import load_toml
from .kit import folder_of
from .kit_script import FOLDERS, Variant, target_file
from .plan import Plan, load_plan
from .state import NodeState, states
from .targets import changed, rendered


@dataclass(frozen=True)
class Undone:
    """The apply that a recovery undoes: its plan, who approved that, and its record."""

    name: str
    plan: Plan
    author: str
    approved_by: tuple[str, ...]
    entries: Sequence[Entry]

    def last(self, node: str) -> NodeState | None:
        """The state that the apply last verified on a node."""
        found = [
            known.state for name, known in states(list(self.entries), self.name) if name == node
        ]
        return found[-1] if found else None

    def staged(self) -> frozenset[str]:
        """Nodes on which something may lie in place that their next restart would take up."""
        last = {entry.body["node"]: entry.body for entry in self.entries if entry.kind == "step"}
        return frozenset(
            node
            for node, body in last.items()
            if not (body["step"].startswith("restart") and body["phase"] == "done")
        )

    def half_done(self) -> list[tuple[str, str, str]]:
        """(item, node, step) of every step that began and has no end in its journal."""
        ended: dict[tuple[str, str, str], bool] = {}
        for entry in self.entries:
            if entry.kind == "step":
                body = entry.body
                # An inspected one was found half done, and the apply ended before it was repeated;
                # one that failed without an exit code was still at work.
                done = body["phase"] == "done"
                failed = body["phase"] == "failed" and body.get("code") is not None
                ended[body["item"], body["node"], body["step"]] = done or failed
        return [key for key, is_over in ended.items() if not is_over]


def undone(context: Context) -> Undone | None:
    """The apply that this attempt undoes; None where there is none. Raises SourceError."""
    undoes = context.record.entries()[0].body.get("undoes")
    if not undoes:
        return None
    name = str(undoes["name"])
    try:
        entries = recorded(context.scope, context.store.root, name)
    except RecordDamaged as error:
        raise SourceError(name, f"expected its record whole, got: {error}") from error
    made = plan_of(entries)
    if made is None or made.body["digest"] != undoes["plan"]:
        raise SourceError(name, f"expected its plan {undoes['plan']}, got another")
    plan = load_plan(made.body["plan"], name)
    by = tuple(made.body["approved_by"])
    return Undone(name, plan, str(made.body["author"]), by, entries)


def gates_of(config: NodeConfig, where: str) -> dict[str, Any]:
    """The gates as a TOML holds them. Raises SourceError."""
    try:
        return dict(load_toml(config.text.decode())["rollout"]["feature_gates"])
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(where, f"expected a TOML with {GATES_AT}, got: {error!r}") from error


def turned_back(context: Context, node: str, found: NodeConfig, goal: NodeState) -> NodeConfig:
    """A node's TOML as it lies there with the gates and channel of ``goal``. Raises SourceError."""
    held = gates_of(found, node)
    changes = changed({gate: bool(held.get(gate, False)) for gate in goal.gates}, goal)
    with suppress(KeyError, ValueError):
        if load_toml(found.text.decode())["rollout"]["release_channel"] != goal.channel:
            changes[CHANNEL_AT] = goal.channel
    return rendered(context, node, found, changes)


def file_of(
    context: Context, node: str, found: NodeConfig | None, goal: NodeState
) -> NodeConfig | None:
    """The file that makes a node ``goal``: what lies there, that turned back, or one that was kept.

    Where none has the digest of ``goal``, what lies there turned back (its digest differs); None
    where nothing can be had.
    """
    if found is not None and found.digest == goal.config:
        # As a rendered one: the raw file only where it holds what the evidence may not.
        return found if found.secret else replace(found, raw=None)
    made = None
    if found is not None:
        with suppress(SourceError):
            made = turned_back(context, node, found, goal)
    if made is not None and made.digest == goal.config:
        return made
    undoes = context.record.entries()[0].body.get("undoes") or {}
    if undoes and (kept := kept_in_kit(context, str(undoes["name"]), node, goal.config)):
        return kept
    for path in _kept(context, node, goal.config):
        with suppress(SourceError):
            text = context.scope.read(path)
            if digest_bytes(text) == goal.config:
                return NodeConfig(text, goal.config)
    return made


def _kept(context: Context, node: str, config: str) -> Iterator[Path]:
    """Where the store kept a node's TOML with that digest. What cannot be read is passed over."""
    scope, root = context.scope, context.store.root
    for release in scope.listing(root):
        for stage in (
            scope.listing(root / release) if release[:1] != "." or release == ".adopted" else ()
        ):
            for number in scope.listing(root / release / stage):
                origin = f"{release}/{stage}/{number}"
                with suppress(SourceError, RecordDamaged):
                    for name, known in states(recorded(scope, root, origin), origin):
                        if name == node and known.state.config == config:
                            yield root / known.kept


def kept_in_kit(context: Context, attempt: str, node: str, digest: str) -> NodeConfig | None:
    """A node's file as the kit of ``attempt`` kept it; None where that has none with ``digest``."""
    folder, raw = folder_of(context.site, attempt), dict[Variant, bytes]()

    def look(variant: Variant) -> str:
        # It holds secrets: the tape keeps its digest, and the text without them.
        with suppress(OSError):
            raw[variant] = target_file(folder, node, variant).read_bytes()
        return digest_bytes(raw[variant]) if variant in raw else ""

    for found in FOLDERS:
        if context.scope.derive(f"kit target {node}", partial(look, found)) == digest:
            break
    else:
        return None
    try:
        text = context.scope.read(target_file(folder, node, found))
    except SourceError:
        return None
    # The raw file only where it holds what the evidence may not: a replay has none.
    secret = found in raw and digest_bytes(text) != digest
    return NodeConfig(text, digest, raw[found] if secret else None)
