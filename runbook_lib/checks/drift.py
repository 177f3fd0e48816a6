"""preflight.config-drift: nodes are as last verified, and their targets are the stage's profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from .. import playbook
from ..canonical import digest_bytes
from ..changes.state import Known, differences, known_map, require_known
from ..changes.targets import (
    Delta,
    Target,
    artifact,
    deltas,
    keep,
    keep_target,
    read_bundle,
    target,
)
from ..clusters import Node
from ..context import Context, judges
from ..errors import SourceError
from ..outcomes import CheckResult, Outcome, Row, Value, check_row, unknown_row
from ..sources.commands import NodeConfig
from ..sources.config import (
    BASE_GATES,
    CHANNEL_AT,
    GATES,
    GATES_AT,
    Bundle,
    Flat,
    diff,
    flatten,
    gates_turned_off,
    misplaced,
    parse_toml,
    rollout_keys,
)
from ..sources.node import Peers, Rollout
from ..sources.redact import MARK

STAGES, WORM = "bundle stages", "bundle worm_export"
WORM_AT = "network.admission.worm_export"
EXPORTING = ("canary", "mainnet")
"""Channels on which a node refuses to start unless it exports its admission audit to S3."""
_WANTED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "enabled": (lambda value: value is True, "true"),
    "retention_days": (lambda value: type(value) is int and value > 0, "more than 0"),
    "target.kind": (lambda value: value == "s3", "s3"),
    "target.endpoint": (bool, "an address"),
    "target.access_key": (bool, "a key"),
    "target.secret_key": (bool, "a key"),
}


def bundle_rows(bundle: Bundle, stage: str) -> list[Row]:
    """Its stages are in order and only turn gates on; the node accepts it on the stage's channel."""
    return [*_stage_rows(bundle), *_worm_rows(bundle, stage)]


def for_nodes(bundle: Bundle, stage: str) -> Flat:
    """The bundle's keys that a node of ``stage`` can have, besides gates and channel.

    Without the table in which the bundle contradicts itself: that is the bundle's finding, and no
    node could obey it.
    """
    if not worm_refusals(bundle, bundle.profile(stage).release_channel):
        return bundle.other
    return {key: value for key, value in bundle.other.items() if not key.startswith(f"{WORM_AT}.")}


def _stage_rows(bundle: Bundle) -> list[Row]:
    order = [name for name in playbook.STAGES if name in bundle.stages]
    rows = []
    if list(bundle.stages) != order:
        got = ", ".join(bundle.stages)
        rows.append(check_row(STAGES, "order", ", ".join(order), got, ok=False))
    for name, profile in bundle.stages.items():
        if profile.release_channel != name:
            what = f"{name}: release_channel"
            rows.append(check_row(STAGES, what, name, profile.release_channel, ok=False))
    for name, gate in gates_turned_off(bundle):
        got = "off, though on in the stage before"
        rows.append(check_row(STAGES, f"{name}: {gate}", "on", got, ok=False))
    if not rows:
        text = "gates only turn on from stage to stage"
        rows.append(check_row(STAGES, ", ".join(order), text, text, ok=True))
    return rows


def worm_refusals(bundle: Bundle, channel: str) -> list[tuple[str, str, Any]]:
    """(dotted key, what the node wants, what the bundle says) of values refused on ``channel``.

    What the bundle leaves out is for each node's own file to say, and for its dry run to judge.
    """
    if channel not in EXPORTING:
        return []
    said = [(key, f"{WORM_AT}.{key}") for key in _WANTED]
    return [
        (dotted, _WANTED[key][1], bundle.other[dotted])
        for key, dotted in said
        if dotted in bundle.other and not _WANTED[key][0](bundle.other[dotted])
    ]


def _worm_rows(bundle: Bundle, stage: str) -> list[Row]:
    if not any(key.startswith(f"{WORM_AT}.") for key in bundle.other):
        return []
    channel = bundle.profile(stage).release_channel
    rows = [
        check_row(
            WORM, f"{key} on channel {channel}", f"{wanted} (or no node starts)", got, ok=False
        )
        for key, wanted, got in worm_refusals(bundle, channel)
    ]
    if not rows:
        later = [
            name
            for name, profile in bundle.stages.items()
            if worm_refusals(bundle, profile.release_channel)
        ]
        text = "a node may start on it" + (f"; not in {', '.join(later)}" if later else "")
        rows.append(check_row(WORM, f"channel {channel}", text, text, ok=True))
    return rows


DEFAULTS: Flat = {f"{GATES_AT}.{gate}": gate in BASE_GATES for gate in GATES}
"""What a node takes a gate for that its file does not name."""


def disk_against_rpc(name: str, config: bytes, rollout: Rollout) -> list[Row]:
    """What a node runs with otherwise than its file says: not restarted, or not from this file."""
    try:
        flat = DEFAULTS | flatten(parse_toml(config, name))
    except SourceError as error:
        return [unknown_row(name, "TOML on disk", "readable", error.problem)]
    running = rollout.flat()
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


CONTROL, _CONTROL = "runbook_unknown_key", "unknown-key-control"
"""A key that no chain knows: a dry run that accepts it finds no unknown keys at all."""


def target_rows(
    context: Context,
    bundle: Bundle,
    before: Mapping[str, Known | SourceError],
    configs: Mapping[str, NodeConfig | SourceError],
    wanted: Mapping[str, Delta],
) -> list[Row]:
    """The rows of every node whose state and file are known; the others are said elsewhere."""

    def render(name: str) -> Target | None:
        known, found = before[name], configs[name]
        if isinstance(known, SourceError) or isinstance(found, SourceError):
            return None
        return target(context, name, found, known.state, wanted[name])

    made = context.each(render)

    def judge(name: str) -> list[Row]:
        known, rendered = before[name], made[name]
        if isinstance(rendered, SourceError):
            raise rendered
        if rendered is None or isinstance(known, SourceError):
            return []
        return _target(context, name, rendered, bundle, known, wanted[name])

    rows: list[Row] = []
    for name, judged in context.each(judge).items():
        if isinstance(judged, SourceError):
            rows.append(unknown_row(name, "target", "rendered and valid", judged.problem))
        else:
            rows += judged
    if context.commands.can_dry_run:
        rows += _control(context, [one for one in made.values() if isinstance(one, Target)])
    return rows


def _target(
    context: Context, name: str, made: Target, bundle: Bundle, known: Known, delta: Delta
) -> list[Row]:
    table = parse_toml(made.text, name)
    after, found = flatten(table), flatten(parse_toml(made.found, name))
    if context.commands.can_dry_run:
        rows = _dry_run(context, name, made)
    else:
        keep_target(context, name, made.text, made.raw)
        # The chain refuses unknown keys only in a strict dry run; nothing else knows them all.
        got = "not checked; set the site's commands.dry_run, strict"
        rows = [unknown_row(name, "unknown keys", "none", got)]
    rows += [
        check_row(
            name, f"{key} (misplaced)", f"set as {home}", "fell into the table above", ok=False
        )
        for key, home in misplaced(table)
    ]
    rows += _as_wanted(context, name, made, after, bundle, delta)
    allowed = delta.changes(known.state)
    changed = diff(found, after)
    for difference in changed:
        if difference.key not in allowed:
            from .differences import shown

            moved = shown(difference.observed)
            rows.append(check_row(name, difference.key, "unchanged", moved, ok=False))
    if not any(row.outcome is not Outcome.PASS for row in rows):
        text = _said(context, bundle, made, known, delta, [d.key for d in changed])
        rows.append(check_row(name, "target", text, text, ok=True))
    return rows


def _as_wanted(
    context: Context, name: str, made: Target, after: Flat, bundle: Bundle, delta: Delta
) -> list[Row]:
    """The target against the profile (of nodes the stage touches) and the bundle's other keys."""
    wanted = for_nodes(bundle, context.stage)
    seen = {key: after[key] for key in wanted if key in after}
    if delta:
        profile = bundle.profile(context.stage)
        gates = profile.on | set(delta.gates)
        wanted = {**wanted, CHANNEL_AT: profile.release_channel}
        wanted |= {f"{GATES_AT}.{gate}": True for gate in GATES if gate in gates}
        # What the file leaves to the node's defaults is as the node itself says it is.
        in_force = {**rollout_keys(made.after.channel, made.after.gates), **after}
        seen |= {key: in_force[key] for key in wanted if key in in_force}
    text = "a secret, which is compared nowhere; leave it to the node's file"
    secret = [key for key, value in wanted.items() if MARK in str(value)]
    rows = [unknown_row(name, key, "as in the bundle", text) for key in secret]
    if not diff(wanted, seen):
        return rows
    from .differences import difference_rows

    return rows + difference_rows(name, wanted, seen, " in the target")


def _said(
    context: Context, bundle: Bundle, made: Target, known: Known, delta: Delta, keys: list[str]
) -> str:
    """What becomes of a node, for who reads it before anything changes."""
    if not delta:
        return "left as it is"
    steps, profile = playbook.GATE_STEPS[context.stage], bundle.profile(context.stage)
    turned = [gate for gate in delta.gates if not known.state.gates.get(gate)]
    notes = {
        "beyond the profile, in the last step": [g for g in turned if g not in profile.on],
        "ahead of the profile": [
            gate
            for gate, on in made.after.gates.items()
            if on and gate not in profile.on and gate not in turned
        ],
        "by the bundle alone, no step of the playbook": [
            gate for gate in turned if gate not in steps
        ],
    }
    said = [f"profile {profile.name}", f"changes: {', '.join(keys) or 'the build only'}"]
    return "; ".join([*said, *(f"{what}: {', '.join(g)}" for what, g in notes.items() if g)])


# --- keys the node does not know ----------------------------------------------------------------


def _dry_run(context: Context, name: str, made: Target) -> list[Row]:
    verdict = context.commands.dry_run(keep_target(context, name, made.text, made.raw))
    if verdict.unknown_keys:
        unknown = ", ".join(verdict.unknown_keys)
        return [check_row(name, "unknown keys", "none", unknown, ok=False)]
    if not verdict.ok:
        return [check_row(name, "dry run of the target", "valid", verdict.text[:300], ok=False)]
    return []


def _control(context: Context, made: Sequence[Target]) -> list[Row]:
    """A dry run refuses a key that cannot be known: else its silence says nothing of others."""
    if not made:
        return []
    what, expected = "refuses an unknown key", CONTROL
    line = f"{CONTROL} = true\n".encode()
    raw = made[0].raw and line + made[0].raw
    try:
        path = keep(context, _CONTROL, "controls", line + made[0].text, raw)
        verdict = context.commands.dry_run(path)
    except SourceError as error:
        return [unknown_row("dry run", what, expected, error.problem)]
    if CONTROL in verdict.unknown_keys:
        return [check_row("dry run", what, expected, CONTROL, ok=True)]
    said = "accepted" if verdict.ok else verdict.text[:200]
    return [unknown_row("dry run", what, expected, said)]


def dropped(context: Context) -> frozenset[str]:
    """The nodes that this attempt leaves out from here on, with an approval."""
    return frozenset(entry.body["node"] for entry in context.so_far if entry.kind == "dropped")


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
    at_work: dict[str, Known] = {}
    if any(entry.kind == "step" for entry in context.so_far):
        from .in_flight import between, in_flight

        at_work = in_flight(context)
    silent = [
        node
        for node in context.cluster.nodes
        if node.control == "operator"
        and any(isinstance(read[node.name], SourceError) for read in (builds, configs))
    ]
    if silent:
        from .node_reports import stand_in

        rows += stand_in(context, silent, before, at_work, rollouts, builds, configs)
    for name, after in at_work.items():
        before[name] = between(before[name], after, rollouts[name], builds[name], configs[name])
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
    found = differences(wanted, rollout.flat())
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
            from .differences import file_rows

            return file_rows(node.name, kept, found)
    except SourceError:
        pass  # nothing was kept, or it is no TOML: the digests differ all the same
    return [check_row(node.name, "config", digest, found.digest, ok=False)]
