"""preflight.config-drift: nodes are as last verified, and their targets are the stage's profile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .. import playbook
from ..canonical import digest_bytes
from ..changes import targets
from ..changes.state import Known, differences, known_map, require_known
from ..changes.targets import Delta, Target
from ..clusters import Node
from ..context import Context, judges
from ..errors import SourceError
from ..outcomes import CheckResult, Outcome, Row, Value, check_row, unknown_row
from ..sources import config as toml
from ..sources.commands import NodeConfig
from ..sources.config import CHANNEL_AT, GATES, GATES_AT, Bundle, Flat, diff, flatten
from ..sources.node import Peers, Rollout
from ..sources.redact import MARK

STAGES, WORM = "bundle stages", "bundle worm_export"
WORM_AT = "network.admission.worm_export"
EXPORTING = ("canary", "mainnet")
"""Channels on which a node refuses to start unless it exports its admission audit to S3."""
_WANTED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    f"{WORM_AT}.enabled": (lambda value: value is True, "true"),
    f"{WORM_AT}.retention_days": (lambda value: type(value) is int and value > 0, "more than 0"),
    f"{WORM_AT}.target.kind": (lambda value: value == "s3", "s3"),
    f"{WORM_AT}.target.endpoint": (bool, "an address"),
    f"{WORM_AT}.target.access_key": (bool, "a key"),
    f"{WORM_AT}.target.secret_key": (bool, "a key"),
}


def bundle_rows(bundle: Bundle, stage: str) -> list[Row]:
    """Its stages are in order and only turn gates on; the node accepts it on the stage's channel."""
    order = ", ".join(name for name in playbook.STAGES if name in bundle.stages)
    text = "gates only turn on from stage to stage"
    bad = list(_stage_rows(bundle, order))
    return [*(bad or [check_row(STAGES, order, text, text)]), *_worm_rows(bundle, stage)]


def for_nodes(bundle: Bundle, stage: str) -> Flat:
    """The bundle's keys that a node of ``stage`` can have, besides gates and channel.

    Without the table in which the bundle contradicts itself: that is the bundle's finding, and no
    node could obey it.
    """
    if not worm_refusals(bundle, bundle.profile(stage).release_channel):
        return bundle.other
    return {key: value for key, value in bundle.other.items() if not key.startswith(f"{WORM_AT}.")}


def _stage_rows(bundle: Bundle, order: str) -> Iterator[Row]:
    if (got := ", ".join(bundle.stages)) != order:
        yield check_row(STAGES, "order", order, got)
    for name, profile in bundle.stages.items():
        if profile.release_channel != name:
            yield check_row(STAGES, f"{name}: release_channel", name, profile.release_channel)
    for name, gate in toml.gates_turned_off(bundle):
        got = "off, though on in the stage before"
        yield check_row(STAGES, f"{name}: {gate}", "on", got, ok=False)


def worm_refusals(bundle: Bundle, channel: str) -> list[tuple[str, str, Any]]:
    """(dotted key, what the node wants, what the bundle says) of values refused on ``channel``.

    What the bundle leaves out is for each node's own file to say, and for its dry run to judge.
    """
    if channel not in EXPORTING:
        return []
    return [
        (key, wanted, bundle.other[key])
        for key, (good, wanted) in _WANTED.items()
        if key in bundle.other and not good(bundle.other[key])
    ]


def _worm_rows(bundle: Bundle, stage: str) -> list[Row]:
    if not any(key.startswith(f"{WORM_AT}.") for key in bundle.other):
        return []
    channel = bundle.profile(stage).release_channel
    on = f"channel {channel}"
    later = [n for n, each in bundle.stages.items() if worm_refusals(bundle, each.release_channel)]
    text = "a node may start on it" + (f"; not in {', '.join(later)}" if later else "")
    return [
        check_row(WORM, f"{key} on {on}", f"{want} (or no node starts)", got, ok=False)
        for key, want, got in worm_refusals(bundle, channel)
    ] or [check_row(WORM, on, text, text)]


DEFAULTS: Flat = {f"{GATES_AT}.{gate}": gate in toml.BASE_GATES for gate in GATES}
"""What a node takes a gate for that its file does not name."""


def disk_against_rpc(name: str, config: bytes, rollout: Rollout) -> list[Row]:
    """What a node runs with otherwise than its file says: not restarted, or not from this file."""
    try:
        flat = DEFAULTS | flatten(toml.parse_toml(config, name))
    except SourceError as error:
        return [check_row(name, "TOML on disk", "readable", error)]
    running = rollout.flat()
    on_disk = {key: value for key, value in flat.items() if key in running}
    return [
        check_row(name, f"{key} (running against its file)", file, run, ok=False)
        for key, file, run in differences(on_disk, running)
        if key in on_disk
    ]


def advertised(context: Context, rollouts: Mapping[str, Rollout | SourceError]) -> Iterator[Row]:
    """What peers say of each node against what it says of itself."""
    views, what = context.fleet.peers(), "gates its peers see"
    for node in context.cluster.nodes:
        name, rollout = node.name, rollouts[node.name]
        others = {viewer: view for viewer, view in views.items() if viewer != name}
        if isinstance(rollout, SourceError):
            continue  # said by its live state already
        if not node.peer:
            text = "its peer id is not in the site file: set `peer`"
            yield unknown_row(name, what, "its own", text)
            continue
        unread = [
            f"{viewer}: {v.problem}" for viewer, v in others.items() if not isinstance(v, Peers)
        ]
        said = [
            (viewer, peer.features)
            for viewer, view in others.items()
            if isinstance(view, Peers)
            for peer in view.peers
            if peer.peer == node.peer
        ]
        own = _gates_on(rollout.feature_gates)
        if differ := [each for each in said if each[1] != rollout.feature_gates]:
            viewer, features = differ[0]
            yield check_row(name, f"{what} (by {viewer})", own, _gates_on(features), ok=False)
        elif len(said) + len(unread) < len(others):
            text = f"seen by {len(said)} of {len(others)} peers only"
            yield unknown_row(name, what, own, text)
        elif others and not said:
            yield unknown_row(name, what, own, f"no peer could be asked ({unread[0]})")
        else:
            yield check_row(name, what, own, own)


def _gates_on(gates: Mapping[str, bool]) -> str:
    return ", ".join(sorted(gate for gate, on in gates.items() if on)) or "none on"


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

    made: dict[str, Target] = {}

    def judge(name: str) -> list[Row]:
        known, found = before[name], configs[name]
        if isinstance(known, SourceError) or isinstance(found, SourceError):
            return []
        made[name] = targets.target(context, name, found, known.state, wanted[name])
        return _target(context, name, made[name], bundle, known, wanted[name])

    rows: list[Row] = []
    for name, judged in context.each(judge).items():
        if isinstance(judged, SourceError):
            rows.append(check_row(name, "target", "rendered and valid", judged))
        else:
            rows += judged
    if context.commands.can_dry_run and made:
        rows.append(_control(context, next(made[name] for name in before if name in made)))
    return rows


def _target(
    context: Context, name: str, made: Target, bundle: Bundle, known: Known, delta: Delta
) -> list[Row]:
    table = toml.parse_toml(made.text, name)
    after, found = flatten(table), flatten(toml.parse_toml(made.found, name))
    kept = targets.keep_target(context, name, made.text, made.raw)
    rows: list[Row] = []
    if not context.commands.can_dry_run:
        # The chain refuses unknown keys only in a strict dry run; nothing else knows them all.
        got = "not checked; set the site's commands.dry_run, strict"
        rows.append(unknown_row(name, "unknown keys", "none", got))
    elif unknown := (verdict := context.commands.dry_run(kept)).unknown_keys:
        rows.append(check_row(name, "unknown keys", "none", ", ".join(unknown), ok=False))
    elif not verdict.ok:
        got = verdict.text[:300]
        rows.append(check_row(name, "dry run of the target", "valid", got, ok=False))
    got = "fell into the table above"
    rows += [
        check_row(name, f"{key} (misplaced)", f"set as {home}", got, ok=False)
        for key, home in toml.misplaced(table)
    ]
    rows += _as_wanted(context, name, made, after, bundle, delta)
    allowed = delta.changes(known.state)
    changed = diff(found, after)
    if beyond := [each for each in changed if each.key not in allowed]:
        from .differences import shown

        rows += [check_row(name, d.key, "unchanged", shown(d.observed), ok=False) for d in beyond]
    if not any(row.outcome is not Outcome.PASS for row in rows):
        text = _said(context, bundle, made, known, delta, [d.key for d in changed])
        rows.append(check_row(name, "target", text, text))
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
        in_force = {**toml.rollout_keys(made.after.channel, made.after.gates), **after}
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
    on = [gate for gate, on in made.after.gates.items() if on and gate not in turned]
    notes = {
        "beyond the profile, in the last step": [g for g in turned if g not in profile.on],
        "ahead of the profile": [gate for gate in on if gate not in profile.on],
        "by the bundle alone, no step of the playbook": [g for g in turned if g not in steps],
    }
    said = [f"profile {profile.name}", f"changes: {', '.join(keys) or 'the build only'}"]
    return "; ".join([*said, *(f"{what}: {', '.join(g)}" for what, g in notes.items() if g)])


# --- keys the node does not know ----------------------------------------------------------------


def _control(context: Context, made: Target) -> Row:
    """A dry run refuses a key that cannot be known: else its silence says nothing of others."""
    what, line = "refuses an unknown key", f"{CONTROL} = true\n".encode()
    try:
        raw = made.raw and line + made.raw
        verdict = context.commands.dry_run(
            targets.keep(context, _CONTROL, "controls", line + made.text, raw)
        )
    except SourceError as error:
        return check_row("dry run", what, CONTROL, error)
    if CONTROL in verdict.unknown_keys:
        return check_row("dry run", what, CONTROL, CONTROL)
    said = "accepted" if verdict.ok else verdict.text[:200]
    return unknown_row("dry run", what, CONTROL, said)


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
    bundle = targets.read_bundle(context)
    rows = bundle_rows(bundle, context.stage)
    wanted: dict[str, Delta] | SourceError
    try:
        wanted = targets.deltas(context, bundle, targets.artifact(context))
    except SourceError as error:
        wanted = error
        rows.append(context.unreadable("the stage's delta", "per node", error))
    last = known_map(context.scope, context.store, context.cluster_name)
    before = context.each(lambda name: require_known(last, name, context.cluster_name))
    rollouts = context.fleet.rollout()
    builds = context.each(lambda name: context.commands.version(name).digest)
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
    # The nodes that this attempt leaves out from here on, with an approval.
    left_out = {entry.body["node"] for entry in context.so_far if entry.kind == "dropped"}
    for node in context.cluster.nodes:
        name, known = node.name, before[node.name]
        if name in left_out:
            text = "dropped from this attempt's plan, with an approval"
            rows.append(check_row(name, "live state", text, "not judged here", ok=True))
            before[name] = SourceError(name, text)  # nor its target
            continue
        if isinstance(known, SourceError):
            rows.append(check_row(name, "known state", "in the store", known))
            continue
        rollout, config = rollouts[name], configs[name]
        if isinstance(rollout, SourceError):
            found = [check_row(name, "/status/rollout", "an answer", rollout)]
        else:
            verified = {k: v for k, v in known.state.flat().items() if k.startswith("rollout.")}
            differ = differences(verified, rollout.flat())
            found = [check_row(name, *each, ok=False) for each in differ]
        delta = wanted if isinstance(wanted, SourceError) else wanted[name]
        found += _build(node, known, builds[name], delta) + _file(context, node, known, config)
        # One at work may have its new file, and not be restarted yet.
        if not (
            name in at_work or isinstance(config, SourceError) or isinstance(rollout, SourceError)
        ):
            found += disk_against_rpc(name, config.text, rollout)
        text = f"{len(known.state.flat())} keys as last verified"
        text += " or as planned: this attempt was at work on it" if name in at_work else ""
        rows += found or [check_row(name, "live state", text, text)]
    rows += advertised(context, rollouts)
    if not isinstance(wanted, SourceError):
        rows += target_rows(context, bundle, before, configs, wanted)
    return context.conclude(
        rows,
        passed=f"{len(before)} nodes are as last verified; the target is the stage's profile",
        empty="the cluster has no nodes",
        data={"nodes": len(before)},
    )


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
