"""preflight.rollback-assets: what a rollback needs is staged, whole, signed, fresh and fetchable.

Where a rollback leads is the good state: what the last attempt that passed left on each node, or an
adoption. What is staged must be the artifact that this state's binary was delivered in, by digest. A
node whose good build is the candidate's very own has nothing older to go back to: there the release
artifact is its asset. The newest bundles are
judged whole, as many as the site wants; so is each that does not say how new it is.
"""

from dataclasses import dataclass
from pathlib import Path

from ..changes.targets import artifact, missing
from ..context import Context, judges
from ..outcomes import CheckResult, Outcome, Value
from ..plan import Artifact
from ..site import Rollback
from ..sources import snapshots
from ..sources.snapshots import About, Bundle
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
    settings, releases, bundles = context.cluster.rollback, list[Asset](), list[Asset]()
    if settings is None:
        got = f"none; set clusters.{context.cluster_name}.rollback"
        context.unknown("rollback assets", "settings", "in the site file", got)
    else:
        releases, bundles = _releases(context, settings), _bundles(context, settings)
        _fetchable(context, releases, bundles)
    return context.conclude(
        passed=f"{count(len(releases), 'build')} and {count(len(bundles), 'snapshot')}"
        f" staged whole, signed, and fetchable by {count(len(context.cluster.nodes), 'node')}",
        data={
            "releases": [asset.digest for asset in releases],
            "snapshots": [asset.digest for asset in bundles],
        },
    )


# --- the previous release ---------------------------------------------------------------------------


def _releases(context: Context, settings: Rollback) -> list[Asset]:
    """One artifact for each build of the good state: a file, or an image that nodes can fetch."""
    good = context.ledger.good(context.cluster_name)
    wanted: dict[str, list[str]] = {}
    for node in context.cluster.nodes:
        if node.name not in good:
            text = f"none; take {context.cluster_name} over with `runbook adopt`"
            context.unknown(node.name, "last good state", "in the store", text)
        elif digest := good[node.name].state.artifact:
            wanted.setdefault(digest, []).append(node.name)
        else:
            text = missing(good[node.name].state)
            context.unknown(node.name, "artifact of the last good state", "known", text)
    found: list[Asset | None] = []
    with context.reading("digest of the candidate", "readable"):
        candidate = artifact(context)
        found = [_release(context, settings, candidate, *each) for each in wanted.items()]
    return [asset for asset in found if asset is not None]


def _release(
    context: Context, settings: Rollback, candidate: Artifact, digest: str, nodes: list[str]
) -> Asset | None:
    own = digest == candidate.digest
    # An image: what each node can fetch says whether it is there.
    if not (own or settings.release):
        return Asset(f"image {digest[:19]}", digest, 0, frozenset(nodes))
    template = candidate.path if own else settings.release
    path = template.replace("{cluster}", context.cluster_name)
    path = path.replace("{digest}", digest.removeprefix("sha256:"))
    what, name = f"artifact of the last good state of {', '.join(nodes)}", Path(path).name
    with context.reading(what, digest, name):
        (seen,) = context.scope.file_digests([project_path(path)]).values()
        same, theirs = seen.digest == digest, seen.digest == candidate.digest and not own
        got = f"{seen.digest}: the candidate's own" if theirs else seen.digest
        context.judge(name, what, digest, got, ok=same, waivable=same)
        return Asset(name, seen.digest, seen.size, frozenset(nodes))
    return None


# --- snapshots --------------------------------------------------------------------------------------


def _bundles(context: Context, settings: Rollback) -> list[Asset]:
    keys, scope = settings.by_version, context.scope
    bundles: list[Bundle] = []
    for folder in settings.snapshots:
        with context.reading("snapshot bundles", "a folder of them"):
            bundles += snapshots.find_bundles(scope, folder, keys)
    least, places = settings.at_least, ", ".join(Path(each).name for each in settings.snapshots)
    if len(bundles) < least:
        got, ok = (len(bundles), False) if bundles else ("none", Outcome.INCONCLUSIVE)
        context.judge(places, "snapshot bundles", f"at least {least}", got, ok)
    ordered = sorted(bundles, key=lambda bundle: bundle.newness, reverse=True)
    silent = [bundle for bundle in bundles if bundle.about is None]
    told = dict(context.answers("height", "an answer", context.fleet.status()))
    # The highest that any node tells; unknown when one does not answer.
    whole = len(told) == len(context.cluster.nodes)
    tip = max((status.height for status in told.values()), default=None) if whole else None
    found: list[Asset] = []
    for bundle in [*silent, *[b for b in ordered if b not in silent][:least]]:
        if bundle.about is not None:
            _age(context, settings, bundle.name, bundle.about, tip)
        chain = context.cluster.chain_id
        if seen := snapshots.judge_bundle(scope, context, bundle, keys, chain):
            found.append(Asset(bundle.name, *seen))
    return found


def _age(context: Context, limits: Rollback, name: str, about: About, tip: int | None) -> None:
    """How old a bundle is, and how far behind the chain."""
    age_s = context.now.timestamp() - about.created_at
    oldest = limits.max_age_hours
    if age_s < -AHEAD_S:
        text = f"expected an instant of the past, got one {-age_s / 3600:.1f} h ahead"
        context.unknown(name, "age", oldest, text)
    else:
        age = round(max(age_s, 0.0) / 3600, 2)
        context.judge(name, "age", f"at most {oldest:g} h", age, age <= oldest, unit="h")
    most = f"0 to {limits.max_lag_blocks:,} blocks"
    if tip is None:
        context.unknown(name, "behind the chain", most, "the chain's height is unknown")
    else:
        lag = tip - about.height
        ok = 0 <= lag <= limits.max_lag_blocks
        context.judge(name, "behind the chain", most, lag, ok, unit="blocks")


# --- from where each node is ------------------------------------------------------------------------


def _fetchable(context: Context, releases: list[Asset], bundles: list[Asset]) -> None:
    """Every node can fetch its build and every judged bundle, and has room for them."""
    largest, probes = max((b.size for b in bundles), default=0), context.commands.assets
    for name, probed in context.answers("fetchable", "an answer", context.each(probes)):
        mine = [asset for asset in releases if name in asset.nodes]
        if not mine or not bundles:
            context.unknown(name, "fetchable", "a build and a snapshot", "no asset")
            continue
        needed = [*mine, *bundles]
        lacking = [asset.name for asset in needed if asset.digest not in probed.fetchable]
        wanted = f"{len(needed)} assets"
        got = f"not {', '.join(lacking)}" if lacking else wanted
        context.judge(name, "fetchable", wanted, got, ok=not lacking)
        # The old data is kept while a snapshot is restored: both must fit beside it.
        room = largest + sum(asset.size for asset in mine)
        free, least = probed.free_bytes, f"at least {room:,} bytes"
        context.judge(name, "free space", least, free, free >= room, unit="bytes")
