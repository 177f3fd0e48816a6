"""preflight.rollback-assets: what a rollback needs is staged, whole, signed, fresh and fetchable.

Where a rollback leads is the good state: what the last attempt that passed left on each node, or an
adoption. What is staged must be the artifact that this state's binary was delivered in, by digest. A
node whose good build is the candidate's very own has nothing older to go back to: there the release
artifact is its asset. The newest bundles are
judged whole, as many as the site wants; so is each that does not say how new it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..changes.state import good_map
from ..changes.targets import artifact, missing
from ..clusters import Rollback
from ..context import Context, judges
from ..errors import SourceError
from ..outcomes import CheckResult, Row, Value, check_row, unknown_row
from ..sources import snapshots
from ..sources.snapshots import Bundle
from ..strict import project_path
from ..wording import count

AHEAD_S = 300


@dataclass(frozen=True)
class Asset:
    """Something to fetch: by what digest, how large, and for which nodes (none: for all)."""

    name: str
    digest: str
    size: int
    nodes: frozenset[str] = frozenset()


@dataclass
class Found:
    """The assets seen so far."""

    releases: list[Asset] = field(default_factory=list)
    bundles: list[Asset] = field(default_factory=list)


def expected(context: Context) -> tuple[str, Value]:
    """What must hold, and its threshold."""
    limits = context.cluster.rollback
    what = "previous release and snapshots are staged, whole, signed and fetchable by every node"
    if limits is None:
        return what, f"clusters.{context.cluster_name}.rollback in the site file: missing"
    age, lag = limits.max_age_hours, limits.max_lag_blocks
    return what, f"{limits.at_least} of at most {age:g} h and {lag:,} blocks"


@judges("preflight.rollback-assets")
def rollback_assets(context: Context) -> CheckResult:
    """The last good build and enough snapshots of this chain could be restored without a rebuild.

    Playbook: common preflight, 4.
    """
    settings, found = context.cluster.rollback, Found()
    if settings is None:
        got = f"none; set clusters.{context.cluster_name}.rollback"
        rows = [unknown_row("rollback assets", "settings", "in the site file", got)]
    else:
        rows = [*_releases(context, settings, found), *_bundles(context, settings, found)]
        rows += _fetchable(context, found)
    return context.conclude(
        rows,
        passed=f"{count(len(found.releases), 'build')} and {count(len(found.bundles), 'snapshot')}"
        f" staged whole, signed, and fetchable by {count(len(context.cluster.nodes), 'node')}",
        empty="nothing is staged",
        data={
            "releases": [asset.digest for asset in found.releases],
            "snapshots": [asset.digest for asset in found.bundles],
        },
    )


# --- the previous release ---------------------------------------------------------------------------


def _releases(context: Context, settings: Rollback, found: Found) -> Iterator[Row]:
    """One artifact for each build of the good state: a file, or an image that nodes can fetch."""
    good = good_map(context.scope, context.store, context.cluster_name)
    wanted: dict[str, list[str]] = {}
    for node in context.cluster.nodes:
        if node.name not in good:
            text = f"none; take {context.cluster_name} over with `runbook adopt`"
            yield unknown_row(node.name, "last good state", "in the store", text)
        elif digest := good[node.name].state.artifact:
            wanted.setdefault(digest, []).append(node.name)
        else:
            text = missing(good[node.name].state)
            yield unknown_row(node.name, "artifact of the last good state", "known", text)
    try:
        candidate = artifact(context)
    except SourceError as error:
        yield context.unreadable("digest of the candidate", "readable", error)
        return
    for digest, nodes in wanted.items():
        own = digest == candidate.digest
        # An image: what each node can fetch says whether it is there.
        if not (own or settings.release):
            found.releases.append(Asset(f"image {digest[:19]}", digest, 0, frozenset(nodes)))
            continue
        template = candidate.path if own else settings.release
        path = template.replace("{cluster}", context.cluster_name)
        path = path.replace("{digest}", digest.removeprefix("sha256:"))
        what, name = f"artifact of the last good state of {', '.join(nodes)}", Path(path).name
        (seen,) = context.scope.file_digests([project_path(path)])
        if isinstance(seen, SourceError):
            yield check_row(name, what, digest, seen)
            continue
        same, theirs = seen.digest == digest, seen.digest == candidate.digest and not own
        got = f"{seen.digest}: the candidate's own" if theirs else seen.digest
        yield check_row(name, what, digest, got, ok=same, waivable=same)
        found.releases.append(Asset(name, seen.digest, seen.size, frozenset(nodes)))


# --- snapshots --------------------------------------------------------------------------------------


def _bundles(context: Context, settings: Rollback, found: Found) -> Iterator[Row]:
    keys = {key.version: key.key for key in settings.keys}
    bundles: list[Bundle] = []
    for folder in settings.snapshots:
        try:
            bundles += snapshots.find_bundles(context.scope, project_path(folder), keys)
        except SourceError as error:
            yield context.unreadable("snapshot bundles", "a folder of them", error)
    least = settings.at_least
    places = ", ".join(Path(folder).name for folder in settings.snapshots)
    if not bundles:
        yield unknown_row(places, "snapshot bundles", f"at least {least}", "none")
    elif len(bundles) < least:
        text = f"at least {least}"
        yield check_row(places, "snapshot bundles", text, len(bundles), ok=False)
    ordered = sorted(bundles, key=lambda bundle: bundle.newness, reverse=True)
    silent = [bundle for bundle in bundles if isinstance(bundle.about, SourceError)]
    statuses = context.fleet.status()
    heights = [each.height for each in statuses.values() if not isinstance(each, SourceError)]
    for name, status in statuses.items():
        if isinstance(status, SourceError):
            yield check_row(name, "height", "an answer", status)
    # The highest that any node tells; unknown when one does not answer.
    tip = max(heights) if len(heights) == len(context.cluster.nodes) else None
    for bundle in [*silent, *[b for b in ordered if b not in silent][:least]]:
        seen = snapshots.whole(context.scope, bundle, keys)
        yield from _about(context, settings, bundle, tip)
        yield from seen.rows
        if seen.digest:
            found.bundles.append(Asset(bundle.name, seen.digest, seen.size))


def _about(context: Context, limits: Rollback, bundle: Bundle, tip: int | None) -> Iterator[Row]:
    """Whose the bundle is, and how old."""
    name, about, chain = bundle.name, bundle.about, context.cluster.chain_id
    if isinstance(about, SourceError):
        yield check_row(name, "chain, height and instant (bundle.json)", chain, about)
        return
    yield bundle.signed
    yield check_row(name, "chain", chain, about.chain_id)
    age_s = context.now.timestamp() - about.created_at
    oldest = limits.max_age_hours
    if age_s < -AHEAD_S:
        text = f"expected an instant of the past, got one {-age_s / 3600:.1f} h ahead"
        yield unknown_row(name, "age", oldest, text)
    else:
        age = round(max(age_s, 0.0) / 3600, 2)
        yield check_row(name, "age", f"at most {oldest:g} h", age, age <= oldest, unit="h")
    most = f"0 to {limits.max_lag_blocks:,} blocks"
    if tip is None:
        yield unknown_row(name, "behind the chain", most, "the chain's height is unknown")
    else:
        lag = tip - about.height
        ok = 0 <= lag <= limits.max_lag_blocks
        yield check_row(name, "behind the chain", most, lag, ok, unit="blocks")
    yield from _pruning(context, bundle, about.height)


def _pruning(context: Context, bundle: Bundle, height: int) -> Iterator[Row]:
    """The chain's own word on the height, and its pruning proofs, where the bundle has them."""
    name = bundle.name
    try:
        beside = snapshots.checkpoint_height(context.scope, bundle)
        proofs = snapshots.proofs(context.scope, bundle)
    except SourceError as error:
        yield check_row(name, f"pruning data ({error.source})", height, error)
        return
    if beside is not None:
        yield check_row(name, "pruning checkpoint", height, beside)
    if not proofs:
        return
    newest = proofs[-1].height
    yield check_row(name, "newest pruning proof", f"at most {height:,}", newest, newest <= height)
    seen = context.scope.file_digests([proof.path for proof in proofs])
    for proof, got in zip(proofs, seen, strict=True):
        what = f"pruning proof {proof.path.name}"
        if isinstance(got, SourceError):
            yield check_row(name, what, proof.digest, got)
        elif got.digest != proof.digest:
            yield check_row(name, what, proof.digest, got.digest, ok=False, waivable=False)


# --- from where each node is ------------------------------------------------------------------------


def _fetchable(context: Context, found: Found) -> Iterator[Row]:
    """Every node can fetch its build and every judged bundle, and has room for them."""
    largest = max((bundle.size for bundle in found.bundles), default=0)
    for name, probed in context.each(context.commands.assets).items():
        mine = [asset for asset in found.releases if name in asset.nodes]
        needed: Sequence[Asset] = [*mine, *found.bundles]
        if isinstance(probed, SourceError):
            yield check_row(name, "fetchable", "an answer", probed)
            continue
        if not mine or not found.bundles:
            yield unknown_row(name, "fetchable", "a build and a snapshot", "no asset")
            continue
        lacking = [asset.name for asset in needed if asset.digest not in probed.fetchable]
        wanted = f"{len(needed)} assets"
        got = f"not {', '.join(lacking)}" if lacking else wanted
        yield check_row(name, "fetchable", wanted, got, ok=not lacking)
        # The old data is kept while a snapshot is restored: both must fit beside it.
        room = largest + sum(asset.size for asset in mine)
        free, least = probed.free_bytes, f"at least {room:,} bytes"
        yield check_row(name, "free space", least, free, free >= room, unit="bytes")
