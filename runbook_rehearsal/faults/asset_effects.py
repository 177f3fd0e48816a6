"""How faults rewrite files; those of what is staged for a rollback, undone by staging it again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..files import kept, pack, unpack, write_atomically
from ..nodes.assets import key
from .table import Active

if TYPE_CHECKING:
    from ..network import RehearsalNetwork

Undo = Callable[[], object]
Effect = Callable[["RehearsalNetwork", Active], Undo]
Change = Callable[[str], str]
Reload = Callable[["RehearsalNetwork", Active], object]
"""Makes whoever reads a file take it up."""


def rewriting(
    pattern: str, change: Change, reload: Reload = lambda network, active: None
) -> Effect:
    """Rewrite files below the network's root; ``NODE`` and ``CLUSTER`` are the fault's.

    They are put back unless somebody else wrote one meanwhile.
    """

    def effect(network: RehearsalNetwork, active: Active) -> Undo:
        paths = [*network.root.glob(pattern.replace("NODE", active.node))]
        put_back = kept(*paths)
        after = {p: change(p.read_text()).replace("CLUSTER", active.cluster) for p in paths}
        for path, text in after.items():
            write_atomically(path, text, path.stat().st_mode & 0o777)
        reload(network, active)

        def undo() -> None:
            if all(p.exists() and p.read_text() == text for p, text in after.items()):
                put_back()
                reload(network, active)

        return undo

    return effect


def in_yaml(change: Callable[[Any], object]) -> Change:
    """A file's text once ``change`` has been at its document."""

    def changed(text: str) -> str:
        change(document := yaml.safe_load(text))
        return str(yaml.safe_dump(document, sort_keys=False))

    return changed


def _staged(change: Callable[[RehearsalNetwork, str], object]) -> Effect:
    def effect(network: RehearsalNetwork, active: Active) -> Undo:
        change(network, active.cluster)
        return lambda: network.assets.write(active.cluster)

    return effect


def _archive(change: Callable[[RehearsalNetwork, Path], object]) -> Effect:
    return _staged(lambda network, cluster: change(network, network.assets.archive(cluster)))


def _bundle(change: Callable[[RehearsalNetwork, Path], object]) -> Effect:
    return _staged(lambda network, cluster: change(network, network.assets.bundle(cluster)))


def _chunk(change: Callable[[Path], object]) -> Effect:
    return _bundle(lambda network, bundle: change(bundle / "chunks" / "chunk-00001.bin"))


def _backed_up(about: Callable[[RehearsalNetwork], dict[str, Any]]) -> Effect:
    """The backup says otherwise, under its signature."""
    return _staged(lambda network, cluster: network.assets.back_up(cluster, **about(network)))


def _other_build(network: RehearsalNetwork, path: Path) -> None:
    path.write_bytes(pack(unpack(network.assets.candidate) + b"# patched\n"))


def _forge_manifest(network: RehearsalNetwork, bundle: Path) -> None:
    path = bundle / "manifest" / "chunks.json"
    (bundle / "manifest" / "chunks.json.sig").write_text(key(-1).sign(path.read_bytes()).hex())


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


ASSET_EFFECTS: dict[str, Effect] = {
    "archive-missing": _archive(lambda network, path: path.unlink()),
    "archive-damaged": _archive(lambda network, path: _cut(path)),
    "archive-of-candidate": _staged(
        lambda network, cluster: network.assets.write_archive(cluster, network.assets.candidate)
    ),
    "archive-other-build": _archive(_other_build),
    "snapshots-missing": _bundle(lambda network, bundle: shutil.rmtree(bundle)),
    "snapshot-unsigned": _bundle(
        lambda network, bundle: (bundle / "manifest" / "chunks.json.sig").unlink()
    ),
    "snapshot-nameless": _bundle(lambda network, bundle: (bundle / "bundle.json").unlink()),
    "snapshot-forged": _bundle(_forge_manifest),
    "snapshot-chunk-missing": _chunk(lambda path: path.unlink()),
    "snapshot-chunk-corrupt": _chunk(lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?")),
    "snapshot-chunk-short": _chunk(_cut),
    "snapshot-too-old": _backed_up(
        lambda network: {"created_at": int(network.world.clock.now() - 3 * 86400)}
    ),
    "snapshot-behind": _backed_up(lambda network: {"height": 7}),
    "snapshot-other-chain": _backed_up(lambda network: {"chain_id": "rpp-elsewhere"}),
}
