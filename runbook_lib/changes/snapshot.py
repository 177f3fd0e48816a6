"""Which snapshot a cluster goes back to: the newest whole one of before the apply that is undone.

It is chosen once an attempt and journalled: nodes restored by different tries must agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..context import Context
from ..errors import SourceError
from ..evidence.events import SnapshotChosen, StepTaken, last, of
from ..findings import Findings
from ..outcomes import Outcome, Row, check_row
from ..sources import snapshots
from ..sources.snapshots import About, Bundle
from ..strict import project_path
from .back import undone


@dataclass(frozen=True)
class Staged:
    """A bundle, and what was seen of it."""

    path: str
    bundle: Bundle
    rows: list[Row]

    @property
    def whole(self) -> bool:
        return all(row.outcome is Outcome.PASS for row in self.rows)

    @property
    def name(self) -> str:
        return self.bundle.name

    @property
    def folder(self) -> Path:
        return project_path(self.path)


def staged(context: Context) -> list[Staged]:
    """Every bundle of the cluster, the newest first, judged; no bundle is one that is missing."""
    limits = context.cluster.rollback
    if limits is None:
        key = f"clusters.{context.cluster_name}.rollback"
        raise SourceError("snapshots", f"expected settings in the site file, got none; set {key}")
    keys = {key.version: key.key for key in limits.keys}
    found = []
    for folder in limits.snapshots:
        for bundle in snapshots.find_bundles(context.scope, project_path(folder), keys):
            inside = bundle.path == project_path(folder)
            path = folder if inside else f"{folder.rstrip('/')}/{bundle.path.name}"
            found.append(Staged(path, bundle, _rows(context, bundle, keys)))
    if not found:
        raise SourceError("snapshots", "expected at least one bundle, got none")
    return sorted(found, key=lambda one: one.bundle.newness, reverse=True)


def _rows(context: Context, bundle: Bundle, keys: snapshots.Keys) -> list[Row]:
    """One row for a bundle that is whole; else what is wrong with it."""
    about, chain = bundle.about, context.cluster.chain_id
    if isinstance(about, SourceError):
        return [check_row(bundle.name, "bundle.json", "readable", about)]
    found = Findings(findings=[bundle.signed])
    found.judge(bundle.name, "chain", chain, about.chain_id)
    snapshots.whole(context.scope, found, bundle, keys)
    got = f"whole, signed, of height {about.height:,}"
    good = check_row(bundle.name, "snapshot", "whole, signed, of this chain", got, ok=True)
    return [row for row in found.findings if row.outcome is not Outcome.PASS] or [good]


def choose(context: Context) -> tuple[SnapshotChosen | None, list[Row]]:
    """The attempt's snapshot, and the rows that say why that one, or why none."""
    if before := last(context.so_far, SnapshotChosen):
        return before, [_row(before, "chosen by this attempt before")]
    bundles = staged(context)
    good = [one for one in bundles if one.whole]
    if not good:
        return None, [row for one in bundles for row in one.rows]
    # Before the apply that is undone began its first step.
    back = undone(context)
    steps = of(back.entries, StepTaken) if back is not None else []
    since = steps[0].at.timestamp() if steps else None
    older = [one for one in good if since is not None and one.bundle.newness[1] < since]
    taken = (older or good)[0]
    about = taken.bundle.about
    assert isinstance(about, About)
    made = SnapshotChosen(
        item=context.item,
        path=taken.path,
        name=taken.name,
        height=about.height,
        root=about.state_root,
        label=f"{context.params.release}-{context.stage}-{about.height}",
    )
    context.record.append(made)
    passed = [one.name for one in bundles if not one.whole]
    why = "of before the apply" if older or since is None else "none is of before the apply"
    return made, [_row(made, f"{why}; not whole: {', '.join(passed)}" if passed else why)]


def _row(chosen: SnapshotChosen, why: str) -> Row:
    got = f"{chosen.name}, height {chosen.height:,} ({why})"
    return check_row("snapshot", "to go back to", "whole, signed, of this chain", got, ok=True)
