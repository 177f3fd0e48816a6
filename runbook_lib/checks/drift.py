"""preflight.config-drift: nodes are as last verified, and their targets are the stage's profile."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ..canonical import digest_bytes
from ..changes.state import Known, differences, known_map, require_known
from ..changes.targets import Delta, artifact, deltas, read_bundle
from ..changes.under_way import dropped, nearest, under_way
from ..clusters import Node
from ..context import Context, judges
from ..errors import SourceError
from ..outcomes import CheckResult, Row, Value, check_row, unknown_row
from ..sources.commands import NodeConfig
from ..sources.config import (
    Flat,
    diff,
    flatten,
    parse_toml,
)
from ..sources.node import Rollout
from ..sources.redact import MARK
from .bundles import bundle_rows
from .rendered import shown, target_rows
from .standins import stand_in
from .witnesses import advertised, disk_against_rpc, in_force


@dataclass(frozen=True)
class Seen:
    """What the witnesses say of one node; a silent one holds its error."""

    rollout: Rollout | SourceError
    build: str | SourceError
    config: NodeConfig | SourceError


def expected(context: Context) -> tuple[str, Value]:
    """What must hold, and its threshold."""
    return "every node equals its last verified state, its target the profile", "0 differences"


@judges("preflight.config-drift")
def config_drift(context: Context) -> CheckResult:
    """Live nodes equal the map before the stage, the rendered target the map after, and no more.

    Three witnesses per node: its RPC, the TOML on its disk, and what its peers say it advertises.
    Any two that disagree are a FAIL; one that is silent is INCONCLUSIVE. An operator's node is no
    exception: where the site cannot read its file or build, what it advertises alone proves
    nothing, and a fresh node report stands in for them. A node on which this attempt was at work
    when it was left is as before or as planned; one that it dropped is drift to whatever comes next.
    Playbook: common preflight, 1.
    """
    bundle = read_bundle(context)
    rows = bundle_rows(bundle, context.stage)
    wanted: dict[str, Delta] | SourceError
    try:
        wanted = deltas(context, bundle, artifact(context))
    except SourceError as error:
        wanted = error
        rows.append(unknown_row(error.source, "the stage's delta", "per node", error.problem))
    before = _before(context)
    rollouts, builds = context.fleet.rollout(), context.each(partial(_binary, context))
    configs = context.each(context.commands.read_config)
    at_work = under_way(context)
    rows += stand_in(context, before, at_work, rollouts, builds, configs)
    for name, after in at_work.items():
        before[name] = _between(before[name], after, rollouts[name], builds[name], configs[name])
    left_out = dropped(context)
    for node in context.cluster.nodes:
        name, known = node.name, before[node.name]
        if name in left_out:
            text = "dropped from this attempt's plan, with an approval"
            rows.append(check_row(name, "live state", text, "not judged here", ok=True))
            before[name] = SourceError(name, text)  # nor its target
            continue
        if isinstance(known, SourceError):
            rows.append(unknown_row(name, "known state", "in the store", known.problem))
            continue
        seen = Seen(rollouts[name], builds[name], configs[name])
        delta = wanted if isinstance(wanted, SourceError) else wanted[name]
        rows += _node(context, node, known, seen, delta, at_work=name in at_work)
    rows += advertised(context, rollouts)
    if not isinstance(wanted, SourceError):
        rows += target_rows(context, bundle, before, configs, wanted)
    return context.conclude(
        rows,
        passed=f"{len(before)} nodes are as last verified; the target is the stage's profile",
        empty="the cluster has no nodes",
        data={"nodes": len(before)},
    )


def _binary(context: Context, name: str) -> str:
    return context.commands.version(name).digest


def _before(context: Context) -> dict[str, Known | SourceError]:
    known = known_map(context.scope, context.store, context.cluster_name)

    def one(name: str) -> Known:
        return require_known(known, name, context.cluster_name)

    return context.each(one)


def _between(
    known: Known | SourceError,
    after: Known,
    rollout: Rollout | SourceError,
    build: str | SourceError,
    config: NodeConfig | SourceError,
) -> Known | SourceError:
    """What is expected of a node that this attempt has begun to change."""
    if isinstance(known, SourceError):
        return known
    running = {} if isinstance(rollout, SourceError) else in_force(rollout)
    digest = "" if isinstance(config, SourceError) else config.digest
    return nearest(known, after, running, "" if isinstance(build, SourceError) else build, digest)


def _node(
    context: Context,
    node: Node,
    known: Known,
    seen: Seen,
    delta: Delta | SourceError,
    *,
    at_work: bool,
) -> list[Row]:
    rows = [
        *_running(node.name, known, seen.rollout),
        *_build(node, known, seen.build, delta),
        *_file(context, node, known, seen.config),
    ]
    # One at work may have its new file, and not be restarted yet.
    if not (
        at_work or isinstance(seen.config, SourceError) or isinstance(seen.rollout, SourceError)
    ):
        rows += disk_against_rpc(node.name, seen.config.text, seen.rollout)
    if not rows:
        text = f"{len(known.state.flat())} keys as last verified"
        if at_work:
            text += " or as planned: this attempt was at work on it"
        rows.append(check_row(node.name, "live state", text, text, ok=True))
    return rows


def _running(name: str, known: Known, rollout: Rollout | SourceError) -> list[Row]:
    if isinstance(rollout, SourceError):
        return [unknown_row(name, "/status/rollout", "an answer", rollout.problem)]
    wanted = {k: v for k, v in known.state.flat().items() if k.startswith("rollout.")}
    found = differences(wanted, in_force(rollout))
    return [check_row(name, *difference, ok=False) for difference in found]


def _build(
    node: Node, known: Known, build: str | SourceError, delta: Delta | SourceError
) -> list[Row]:
    """The verified build runs, or the release's, where the stage has operators install it first."""
    before = known.state.binary
    if isinstance(build, SourceError):
        return [unknown_row(node.name, "binary", before, _whose(node, "binary", build))]
    if build == before:
        return []
    if isinstance(delta, SourceError):
        text = f"{build}, and what the stage installs is not known"
        return [unknown_row(node.name, "binary", before, text)]
    if delta.installed and build == delta.binary:
        text = f"the release's, installed ahead of the stage: {build}"
        return [check_row(node.name, "binary", "the verified or the release's", text, ok=True)]
    return [check_row(node.name, "binary", before, build, ok=False, waivable=False)]


def _whose(node: Node, what: str, error: SourceError) -> str:
    if node.control == "ours":
        return error.problem
    return f"{what} not readable by us, {node.operator} must report it: {error.problem}"


def _file(context: Context, node: Node, known: Known, found: NodeConfig | SourceError) -> list[Row]:
    digest = known.state.config
    if isinstance(found, SourceError):
        return [unknown_row(node.name, "config", digest, _whose(node, "config", found))]
    if found.digest == digest:
        return []
    try:
        kept = context.scope.read(context.store.root / known.kept)
        if MARK.encode() in kept or digest_bytes(kept) == digest:
            return file_rows(node.name, kept, found)
    except SourceError:
        pass  # nothing was kept, or it is no TOML: the digests differ all the same
    return [check_row(node.name, "config", digest, found.digest, ok=False)]


def file_rows(name: str, kept: bytes, found: NodeConfig) -> list[Row]:
    """Which keys of a node's file differ from the ``kept`` one, of another digest than ``found``.

    Raises SourceError when either is no TOML.
    """
    rows = difference_rows(
        name, flatten(parse_toml(kept, name)), flatten(parse_toml(found.text, name))
    )
    what, text = "config", "the same keys and values; a secret, a comment or the order differs"
    return rows or [check_row(name, what, "the file last verified", text, ok=False)]


def difference_rows(name: str, expected: Flat, observed: Flat) -> list[Row]:
    """One FAIL row per dotted key: missing, extra, different or of the wrong type."""
    found = diff(expected, observed)
    keys = [one.key for one in found]
    # A table whose last key went, or which got its first, shows as that key alone.
    tables = {
        one.key
        for one in found
        if {} in (one.expected, one.observed)
        and any(key.startswith((f"{one.key}.", f"{one.key}[")) for key in keys)
    }
    return [
        check_row(name, f"{d.key} ({d.kind})", shown(d.expected), shown(d.observed), ok=False)
        for d in found
        if d.key not in tables
    ]
