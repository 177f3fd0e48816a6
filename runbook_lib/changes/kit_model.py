"""What a recovery kit is: ``plan.json``, typed, and where its files lie."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import ValidationError

from ..canonical import digest_bytes
from ..context import Context
from ..errors import SourceError
from ..outcomes import Model
from ..site import Site
from ..sources.commands import NodeConfig
from .plan import Artifact, Plan
from .state import NodeState

Variant = Literal["back", "stall"]
FOLDERS: dict[Variant, str] = {"back": "targets", "stall": "targets-stall"}
JOURNAL = "journal.tsv"


class KitNode(Model):
    """A node's way back. ``states`` are what it must be then, by variant."""

    node: str
    key: str
    control: Literal["ours", "operator"]
    operator: str
    states: dict[Variant, NodeState]
    artifact: Artifact | None


class Kit(Model):
    """``plan.json``: what an attempt was about to do, and how each node is put back."""

    version: Literal[1] = 1
    name: str
    release: str
    stage: str
    cluster: str
    made: str
    author: str
    approved_by: tuple[str, ...]
    digest: str
    plan: Plan
    nodes: tuple[KitNode, ...]

    @property
    def ours(self) -> tuple[KitNode, ...]:
        """The nodes that the script puts back, in its order."""
        return tuple(node for node in self.nodes if node.control == "ours")

    @property
    def variants(self) -> tuple[Variant, ...]:
        return tuple(name for name in FOLDERS if all(name in n.states for n in self.nodes))

    @property
    def operators(self) -> dict[str, list[KitNode]]:
        """Operator -> their nodes."""
        found: dict[str, list[KitNode]] = {}
        for node in self.nodes:
            if node.control == "operator":
                found.setdefault(node.operator, []).append(node)
        return found


def key_of(node: str) -> str:
    """A node's name as file names and the script's journal spell it."""
    return quote(node, safe="")


def folder_of(site: Site, attempt: str) -> Path:
    """Where the kit of an attempt (``release/stage/number``) lies."""
    return site.kits_path / attempt.replace("/", "-")


def read_kit(folder: Path, text: bytes) -> Kit:
    """The kit of ``folder`` out of its ``plan.json``. Raises SourceError."""
    try:
        kit = Kit.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SourceError(
            f"{folder.name}/plan.json", f"expected a recovery kit, got: {where}: {first['msg']}"
        ) from error
    if kit.digest != kit.plan.digest:
        raise SourceError(
            f"{folder.name}/plan.json", f"expected plan {kit.digest}, got {kit.plan.digest}"
        )
    return kit


def target_file(folder: Path, node: str, variant: Variant = "back") -> Path:
    """Where a kit keeps a node's TOML."""
    return folder / FOLDERS[variant] / f"{key_of(node)}.toml"


def kept_in_kit(context: Context, attempt: str, node: str, digest: str) -> NodeConfig | None:
    """A node's file as the kit of ``attempt`` kept it; None where that has none with ``digest``."""
    folder, raw = folder_of(context.site, attempt), dict[Variant, bytes]()

    def look(variant: Variant) -> str:
        # It holds secrets: the tape keeps its digest, and the text without them.
        with suppress(OSError):
            raw[variant] = target_file(folder, node, variant).read_bytes()
        return digest_bytes(raw[variant]) if variant in raw else ""

    found: Variant = "back"
    if context.scope.derive(f"kit target {key_of(node)}", partial(look, found)) != digest:
        found = "stall"
        # Tapes from before this was asked hold no answer: there it was no file of the kit.
        if context.scope.notice(f"kit target {key_of(node)}", partial(look, found)) != digest:
            return None
    try:
        text = context.scope.read(target_file(folder, node, found))
    except SourceError:
        return None
    # The raw file only where it holds what the evidence may not: a replay has none.
    secret = found in raw and digest_bytes(text) != digest
    return NodeConfig(text, digest, raw[found] if secret else None)
