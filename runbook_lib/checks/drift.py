"""preflight.config-drift: nodes are as last verified, and their targets are the stage's profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from ..canonical import digest_bytes
from ..changes.state import Known, differences, known_map, require_known
from ..changes.targets import Delta, artifact, deltas, kept_toml, read_bundle
from ..changes.under_way import dropped, nearest, under_way
from ..clusters import Node
from ..context import Context, judges
from ..errors import SourceError
from ..outcomes import CheckResult, Row, Value, check_row, unknown_row
from ..sources.commands import NodeConfig
from ..sources.config import (
    BASE_GATES,
    CHANNEL_AT,
    GATES,
    GATES_AT,
    Flat,
    diff,
    flatten,
    parse_toml,
)
from ..sources.node import Peers, Rollout
from ..sources.redact import MARK
from ..sources.reports import NodeReport, Reports, read_reports
from .rendered import bundle_rows, shown, target_rows


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


# --- node reports in place of what we cannot read of an operator's node ---------------------------


T = TypeVar("T")
Read = dict[str, T | SourceError]
WHAT = "node report"


def stand_in(
    context: Context,
    before: Mapping[str, Known | SourceError],
    at_work: Mapping[str, Known],
    rollouts: Mapping[str, Rollout | SourceError],
    builds: Read[str],
    configs: Read[NodeConfig],
) -> list[Row]:
    """Fill ``builds`` (digests) and ``configs`` from fresh reports; rows of what is wrong with one.

    A file is known by its digest alone: that of the one last verified, whose text we kept, or of the
    one that a node of ``at_work`` was to be given.
    """
    unread = [
        node
        for node in context.cluster.nodes
        if node.control == "operator"
        and (
            isinstance(builds[node.name], SourceError)
            or isinstance(configs[node.name], SourceError)
        )
    ]
    if not unread:
        return []
    params = context.params
    try:
        reports = read_reports(
            context.scope, context.site, issue=params.issue, release=params.release
        )
    except SourceError as error:
        return [unknown_row(error.source, WHAT, "readable", error.problem)]
    rows: list[Row] = []
    for node in unread:
        found = _fresh(context, node, reports)
        if isinstance(found, Row):
            rows.append(found)
        elif found is not None:
            rows += _against_rpc(node, found, rollouts[node.name])
            if isinstance(builds[node.name], SourceError):
                builds[node.name] = found.binary
            known = before[node.name]
            after = at_work.get(node.name)
            if after is not None and found.config == after.state.config:
                known = after
            if isinstance(configs[node.name], SourceError) and isinstance(known, Known):
                rows += _reported_file(context, node, found, known, configs)
    return rows


def _fresh(context: Context, node: Node, reports: Reports) -> NodeReport | Row | None:
    """The newest report of a node, when it is young enough; a forged one is a row."""
    mine = reports.of(node.name, context.stage)
    for one in mine:
        if one.fault.startswith("forged"):
            got = f"{one.grounds}: {one.fault}"
            by = f"by {node.operator}"
            return check_row(node.name, WHAT, by, got, ok=False, waivable=False)
    good = [one.report for one in mine if not one.fault]
    if good and context.now - good[-1].at <= context.params.valid_for:
        return good[-1]
    return None


def _against_rpc(node: Node, report: NodeReport, rollout: Rollout | SourceError) -> list[Row]:
    if isinstance(rollout, SourceError):
        return []  # said by its live state already
    said = {"rollout.release_channel": report.channel} | {
        f"rollout.feature_gates.{gate}": on for gate, on in report.gates.items()
    }
    return [
        check_row(node.name, f"{key} (reported, as it runs)", told, runs, ok=False)
        for key, told, runs in differences(said, in_force(rollout))
    ]


def _reported_file(
    context: Context, node: Node, report: NodeReport, known: Known, configs: Read[NodeConfig]
) -> list[Row]:
    if report.config != known.state.config:
        what = "config (reported)"
        return [check_row(node.name, what, known.state.config, report.config, ok=False)]
    try:
        configs[node.name] = kept_toml(context, known)
    except SourceError as error:
        return [unknown_row(node.name, "config", "the text we kept", error.problem)]
    return []


# --- a node's witnesses against one another -------------------------------------------------------


DEFAULTS: Flat = {f"{GATES_AT}.{gate}": gate in BASE_GATES for gate in GATES}
"""What a node takes a gate for that its file does not name."""


def in_force(rollout: Rollout) -> dict[str, str | bool]:
    """Channel and gates by dotted key, as the node says it runs."""
    gates = {f"{GATES_AT}.{gate}": on for gate, on in rollout.feature_gates.items()}
    return {CHANNEL_AT: rollout.release_channel, **gates}


def disk_against_rpc(name: str, config: bytes, rollout: Rollout) -> list[Row]:
    """What a node runs with otherwise than its file says: not restarted, or not from this file."""
    try:
        flat = DEFAULTS | flatten(parse_toml(config, name))
    except SourceError as error:
        return [unknown_row(name, "TOML on disk", "readable", error.problem)]
    running = in_force(rollout)
    on_disk = {key: value for key, value in flat.items() if key in running}
    return [
        check_row(name, f"{key} (running against its file)", file, run, ok=False)
        for key, file, run in differences(on_disk, running)
        if key in on_disk
    ]


def advertised(context: Context, rollouts: Mapping[str, Rollout | SourceError]) -> list[Row]:
    """What peers say of each node against what it says of itself."""
    views = context.fleet.peers()
    rows = []
    for node in context.cluster.nodes:
        rollout = rollouts[node.name]
        if isinstance(rollout, SourceError):
            continue  # said by its live state already
        if not node.peer:
            text = "its peer id is not in the site file: set `peer`"
            rows.append(unknown_row(node.name, "gates its peers see", "its own", text))
            continue
        said = [
            (viewer, peer.features)
            for viewer, view in views.items()
            if isinstance(view, Peers) and viewer != node.name
            for peer in view.peers
            if peer.peer == node.peer
        ]
        unread = [
            f"{viewer}: {view.problem}"
            for viewer, view in views.items()
            if isinstance(view, SourceError) and viewer != node.name
        ]
        rows.append(_advert(node.name, rollout.feature_gates, said, unread, len(views) - 1))
    return rows


def _advert(
    name: str,
    gates: Mapping[str, bool],
    said: Sequence[tuple[str, dict[str, bool]]],
    unread: Sequence[str],
    viewers: int,
) -> Row:
    what = "gates its peers see"
    own = ", ".join(sorted(gate for gate, on in gates.items() if on)) or "none on"
    for viewer, features in said:
        if features != gates:
            theirs = ", ".join(sorted(gate for gate, on in features.items() if on)) or "none on"
            return check_row(name, f"{what} (by {viewer})", own, theirs, ok=False)
    if viewers and len(said) + len(unread) < viewers:
        return unknown_row(name, what, own, f"seen by {len(said)} of {viewers} peers only")
    if viewers and not said:
        return unknown_row(name, what, own, f"no peer could be asked ({unread[0]})")
    return check_row(name, what, own, own, ok=True)
