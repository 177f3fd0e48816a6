"""preflight.config-drift: nodes are as last verified, and their targets are the stage's profile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import playbook
from ..canonical import digest_bytes
from ..changes import targets
from ..changes.operators import gates_on
from ..changes.targets import Delta
from ..context import Context, judges
from ..errors import Answers, SourceError, tried
from ..evidence.events import NodeDropped, NodeVerified, StepTaken, of
from ..evidence.ledger import Known, kept_config
from ..evidence.status import plan_of
from ..findings import Findings
from ..outcomes import CheckResult, Outcome, Value
from ..plan import CHANNEL_AT, GATES_AT, NodeState, differences, moves, phase_of, rollout_keys
from ..site import Node
from ..sources import config as toml
from ..sources.commands import NodeConfig, ToolVerdict
from ..sources.config import GATES, Bundle, Flat, Profile, diff, flatten
from ..sources.node import Rollout
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


def judge_bundle(context: Findings, bundle: Bundle, stage: str) -> None:
    """Its stages are in order and only turn gates on; the node accepts it on the stage's channel."""
    order = ", ".join(name for name in playbook.STAGES if name in bundle.stages)
    upward = "gates only turn on from stage to stage"
    with context.reading(order, upward, STAGES, clean=upward):
        wrong = [("order", order, ", ".join(bundle.stages))]
        wrong += [(f"{n}: release_channel", n, p.release_channel) for n, p in bundle.stages.items()]
        turned = "off, though on in the stage before"
        wrong += [(f"{n}: {gate}", "on", turned) for n, gate in toml.gates_turned_off(bundle)]
        _wrong(context, STAGES, (each for each in wrong if each[1] != each[2]))
    later = [n for n, each in bundle.stages.items() if worm_refusals(bundle, each.release_channel)]
    text = "a node may start on it" + (f"; not in {', '.join(later)}" if later else "")
    if any(key.startswith(f"{WORM_AT}.") for key in bundle.other):
        channel = bundle.profile(stage).release_channel
        with context.reading(f"channel {channel}", text, WORM, clean=text):
            for key, want, got in worm_refusals(bundle, channel):
                what, expected = f"{key} on channel {channel}", f"{want} (or no node starts)"
                context.judge(WORM, what, expected, got, ok=False)


def _wrong(
    context: Findings, subject: str, found: Iterable[tuple[str, Value, Value]], more: str = ""
) -> None:
    """Each (key, expected, observed) is a FAIL; ``more`` says of what."""
    for key, expected, observed in found:
        context.judge(subject, f"{key}{more}", expected, observed, ok=False)


def for_nodes(bundle: Bundle, stage: str) -> Flat:
    """The bundle's keys that a node of ``stage`` can have, besides gates and channel.

    Without the table in which the bundle contradicts itself: that is the bundle's finding, and no
    node could obey it.
    """
    if not worm_refusals(bundle, bundle.profile(stage).release_channel):
        return bundle.other
    return {key: value for key, value in bundle.other.items() if not key.startswith(f"{WORM_AT}.")}


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


DEFAULTS: Flat = {f"{GATES_AT}.{gate}": gate in toml.BASE_GATES for gate in GATES}
"""What a node takes a gate for that its file does not name."""


def disk_against_rpc(context: Context, name: str, config: bytes, rollout: Rollout) -> None:
    """What a node runs with otherwise than its file says: not restarted, or not from this file."""
    with context.reading("TOML on disk", "readable", name):
        flat, running = DEFAULTS | flatten(toml.parse_toml(config, name)), rollout.flat()
        on_disk = {key: value for key, value in flat.items() if key in running}
        found = [each for each in differences(on_disk, running) if each[0] in on_disk]
        _wrong(context, name, found, " (running against its file)")


def advertised(context: Context, rollouts: Answers[str, Rollout]) -> None:
    """What peers say of each node against what it says of itself."""
    views, what = context.fleet.peers(), "gates its peers see"
    for node in context.cluster.nodes:
        name, rollout = node.name, rollouts.known.get(node.name)
        if rollout is None:
            continue  # said by its live state already
        others = [viewer for viewer in views if viewer != name]
        unread = [f"{n}: {error.problem}" for n, error in views.failed.items() if n != name]
        said = [
            (viewer, peer.features)
            for viewer, view in views.known.items()
            if viewer != name
            for peer in view.peers
            if peer.peer == node.peer
        ]
        own = gates_on(rollout.feature_gates)
        differ = [each for each in said if each[1] != rollout.feature_gates]
        if not node.peer:
            text = "its peer id is not in the site file: set `peer`"
            context.unknown(name, what, "its own", text)
        elif differ:
            viewer, features = differ[0]
            context.judge(name, f"{what} (by {viewer})", own, gates_on(features), ok=False)
        elif len(said) + len(unread) < len(others):
            text = f"seen by {len(said)} of {len(others)} peers only"
            context.unknown(name, what, own, text)
        elif others and not said:
            context.unknown(name, what, own, f"no peer could be asked ({unread[0]})")
        else:
            context.judge(name, what, own, own)


# --- what becomes of each node ------------------------------------------------------------------


CONTROL, _CONTROL = "runbook_unknown_key", "unknown-key-control"
"""A key that no chain knows: a dry run that accepts it finds no unknown keys at all."""


def judge_targets(context: Context, bundle: Bundle, live: Live, delta: Delta) -> None:
    """The targets of every node whose state and file are known; the others are said elsewhere."""
    made: dict[str, NodeConfig] = {}

    def render(name: str) -> tuple[Any, Flat, ToolVerdict | None]:
        """The table and what it was, once the chain has judged it; from a thread of its own."""
        known, config = live.known[name], live.configs[name]
        after = delta.after(known.state, delta.turns[name])
        changes = moves(known.state, after)
        target = made[name] = targets.rendered(context, name, config, changes)
        table = toml.parse_toml(target.text, name)
        found = flatten(toml.parse_toml(config.text, name))
        kept = targets.keep_target(context, name, target)
        can = context.site.commands.dry_run is not None
        return table, found, context.commands.dry_run(kept) if can else None

    names = [name for name in live.known if name in live.configs.known]
    for name, done in context.answers("target", "rendered and valid", context.each(render, names)):
        known, (table, found, verdict) = live.known[name], done
        after = delta.after(known.state, delta.turns[name])
        changed, text = diff(found, flatten(table)), "left as it is"
        if touched := bool(delta.turns[name]):
            keys = [each.key for each in changed]
            text = _said(context, delta.profile, after, known.state, keys)
        with context.reading("target", text, name, clean=text):
            _dry(context, name, verdict)
            fell = "fell into the table above"
            misplaced = [
                (f"{k} (misplaced)", f"set as {v}", fell) for k, v in toml.misplaced(table)
            ]
            _wrong(context, name, misplaced)
            _as_wanted(context, name, after, flatten(table), bundle, touched)
            beyond = [d for d in changed if d.key not in moves(known.state, after)]
            _wrong(context, name, ((d.key, "unchanged", shown(d.observed)) for d in beyond))
    if context.site.commands.dry_run is not None and made:
        _control(context, next(made[name] for name in live.known if name in made))


def _dry(context: Context, name: str, verdict: ToolVerdict | None) -> None:
    """The chain refuses unknown keys only in a strict dry run; nothing else knows them all."""
    if verdict is None:
        got = "not checked; set the site's commands.dry_run, strict"
        context.unknown(name, "unknown keys", "none", got)
    elif verdict.unknown_keys:
        context.judge(name, "unknown keys", "none", ", ".join(verdict.unknown_keys), ok=False)
    elif not verdict.ok:
        context.judge(name, "dry run of the target", "valid", verdict.text[:300], ok=False)


def _as_wanted(
    context: Context, name: str, state: NodeState, after: Flat, bundle: Bundle, touched: bool
) -> None:
    """The target against the profile (of nodes the stage touches) and the bundle's other keys."""
    wanted = for_nodes(bundle, context.stage)
    seen = {key: after[key] for key in wanted if key in after}
    if touched:
        profile = bundle.profile(context.stage)
        gates = profile.on | {gate for gate, on in state.gates.items() if on}
        wanted = {**wanted, CHANNEL_AT: profile.release_channel}
        wanted |= {f"{GATES_AT}.{gate}": True for gate in GATES if gate in gates}
        # What the file leaves to the node's defaults is as the node itself says it is.
        in_force = {**rollout_keys(state.channel, state.gates), **after}
        seen |= {key: in_force[key] for key in wanted if key in in_force}
    for key, value in wanted.items():
        if MARK in str(value):
            text = "a secret, which is compared nowhere; leave it to the node's file"
            context.unknown(name, key, "as in the bundle", text)
    _wrong(context, name, key_by_key(wanted, seen, " in the target"))


def _said(
    context: Context, profile: Profile, after: NodeState, before: NodeState, keys: list[str]
) -> str:
    """What becomes of a node, for who reads it before anything changes."""
    steps = playbook.GATE_STEPS[context.stage]
    now = [gate for gate, on in after.gates.items() if on]
    turned = [gate for gate in GATES if gate in now and not before.gates.get(gate)]
    on = [gate for gate in now if gate not in turned]
    notes = {
        "beyond the profile, in the last step": [g for g in turned if g not in profile.on],
        "ahead of the profile": [gate for gate in on if gate not in profile.on],
        "by the bundle alone, no step of the playbook": [g for g in turned if g not in steps],
    }
    said = [f"profile {profile.name}", f"changes: {', '.join(keys) or 'the build only'}"]
    return "; ".join([*said, *(f"{what}: {', '.join(g)}" for what, g in notes.items() if g)])


def _control(context: Context, made: NodeConfig) -> None:
    """A dry run refuses a key that cannot be known: else its silence says nothing of others."""
    line = f"{CONTROL} = true\n".encode()
    with context.finding("dry run", "refuses an unknown key", CONTROL) as judge:
        told = NodeConfig(line + made.text, made.digest, made.raw and line + made.raw)
        file = targets.keep(context, _CONTROL, "controls", told)
        verdict = context.commands.dry_run(file)
        said = "accepted" if verdict.ok else verdict.text[:200]
        known = CONTROL in verdict.unknown_keys
        judge(CONTROL if known else said, known or Outcome.INCONCLUSIVE)


# --- how two TOML files differ, key by key ------------------------------------------------------

_LONGEST = 200


def shown(value: object) -> Value:
    """A value of a TOML file as a row can hold it."""
    if value is None:
        return "absent"
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**53):
        return value
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


def judge_file(context: Findings, name: str, kept: Flat, found: Flat) -> None:
    """Which keys of a node's file differ from the ``kept`` one, of another digest."""
    if not diff(kept, found):
        text = "the same keys and values; a secret, a comment or the order differs"
        context.judge(name, "config", "the file last verified", text, ok=False)
    _wrong(context, name, key_by_key(kept, found))


def key_by_key(
    expected: Flat, observed: Flat, where: str = ""
) -> Iterator[tuple[str, Value, Value]]:
    """Each dotted key that is missing, extra, different or of the wrong type, ``where``; both sides."""
    found = diff(expected, observed)
    keys = [one.key for one in found]
    for one in found:
        # A table whose last key went, or which got its first, shows as that key alone.
        inside = any(key.startswith((f"{one.key}.", f"{one.key}[")) for key in keys)
        if not (inside and {} in (one.expected, one.observed)):
            yield f"{one.key} ({one.kind}{where})", shown(one.expected), shown(one.observed)


# --- what each node is --------------------------------------------------------------------------


def expected(context: Context) -> tuple[str, Value]:
    """What must hold, and its threshold."""
    return "every node equals its last verified state, its target the profile", "0 differences"


@dataclass
class Live:
    """By node, what is known of it and what it is.

    ``at_work``: what this attempt makes of the nodes on which it was at work when it was left.
    """

    known: dict[str, Known]
    rollouts: Answers[str, Rollout]
    builds: Answers[str, str]
    configs: Answers[str, NodeConfig]
    at_work: dict[str, Known] = field(default_factory=dict)


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
    judge_bundle(context, bundle, context.stage)
    delta: Delta | None = None
    with context.reading("the stage's delta", "per node"):
        delta = targets.delta(context, bundle, targets.artifact(context))
    names = [node.name for node in context.cluster.nodes]
    known = Answers(context.ledger.known(context.cluster_name).__getitem__, names)
    live = Live(
        known.known,
        context.fleet.rollout(),
        context.each(lambda name: context.commands.version(name).digest),
        context.each(context.commands.read_config),
    )
    _in_flight(context, live)
    # The nodes that this attempt leaves out from here on, with an approval.
    left_out = {event.node for event in of(context.so_far, NodeDropped)}
    for node in context.cluster.nodes:
        if node.name in left_out:
            text = "dropped from this attempt's plan, with an approval"
            context.judge(node.name, "live state", text, "not judged here", ok=True)
            live.known.pop(node.name, None)  # nor its target
        elif node.name in live.known:
            _judge_live(context, node, live, delta)
        else:
            context.judge(node.name, "known state", "in the store", known.failed[node.name])
    advertised(context, live.rollouts)
    if delta is not None:
        judge_targets(context, bundle, live, delta)
    return context.conclude(
        passed=f"{len(names)} nodes are as last verified; the target is the stage's profile",
        data={"nodes": len(names)},
    )


def _in_flight(context: Context, live: Live) -> None:
    """What reports and this attempt's own steps say of nodes goes into ``live``."""
    live.at_work = in_flight(context)
    unread = [
        node
        for node in context.cluster.nodes
        if node.control == "operator"
        and (node.name in live.builds.failed or node.name in live.configs.failed)
    ]
    if unread:
        from .node_reports import stand_in

        stand_in(context, unread, live)
    for name, after in live.at_work.items():
        if name in live.known:
            live.known[name] = between(name, after, live)


def in_flight(context: Context) -> dict[str, Known]:
    """Node -> what this attempt makes of it, of each on which a step began since its last read-back."""
    entries = context.so_far
    made = plan_of(entries)
    if made is None:
        return {}
    found: dict[str, Known] = {}
    for event in entries:
        if isinstance(event, NodeVerified | NodeDropped):
            found.pop(event.node, None)
        elif isinstance(event, StepTaken) and event.phase == "intent":
            for phase in made.plan.of(event.item):
                for node in phase.nodes if phase.name == phase_of(event.step) else ():
                    # Its own, or those of the operator that it instructs.
                    whose = node.operator if node.control == "operator" else node.node
                    if event.node == whose:
                        name = context.attempt_name
                        kept = str(kept_config(Path(name), node.node, phase.name))
                        after = Known(state=node.after, at=event.at, origin=name, kept=kept)
                        found[node.node] = after
    return found


def between(name: str, after: Known, live: Live) -> Known:
    """What a node at work must be: each part as planned where it is so already, else as before."""
    known, rollout = live.known[name], live.rollouts.known.get(name)
    config = live.configs.known.get(name)
    running = rollout.flat() if rollout else {}
    digest = config.digest if config else ""
    planned = {k: value for k, value in after.state.flat().items() if k.startswith("rollout.")}
    gates = after.state if running == planned else known.state
    binary = after.state if live.builds.known.get(name) == after.state.binary else known.state
    delivered = after if digest == after.state.config else known
    state = NodeState(
        gates=gates.gates,
        channel=gates.channel,
        binary=binary.binary,
        artifact=binary.artifact,
        config=delivered.state.config,
    )
    return known.model_copy(update={"state": state, "kept": delivered.kept})


def _judge_live(context: Context, node: Node, live: Live, delta: Delta | None) -> None:
    """A node as it is against what is known of it: gates and channel, build, file."""
    name, known, rollout = node.name, live.known[node.name], live.rollouts.known.get(node.name)
    text = f"{len(known.state.flat())} keys as last verified"
    text += " or as planned: this attempt was at work on it" if name in live.at_work else ""
    with context.reading("live state", text, name, clean=text):
        if rollout is None:
            context.judge(name, "/status/rollout", "an answer", live.rollouts.failed[name])
        else:
            verified = {k: v for k, v in known.state.flat().items() if k.startswith("rollout.")}
            _wrong(context, name, differences(verified, rollout.flat()))
        _build(context, node, known, live, delta)
        if failed := live.configs.failed.get(name):
            got = _whose(node, "config", failed)
            context.unknown(name, "config", known.state.config, got)
            return
        config = live.configs[name]
        if config.digest != known.state.config:
            _file(context, name, known, config)
        # One at work may have its new file, and not be restarted yet.
        if rollout and name not in live.at_work:
            disk_against_rpc(context, name, config.text, rollout)


def _build(context: Context, node: Node, known: Known, live: Live, delta: Delta | None) -> None:
    """The verified build runs, or the release's, where the stage has operators install it first."""
    name, before = node.name, known.state.binary
    if failed := live.builds.failed.get(name):
        context.unknown(name, "binary", before, _whose(node, "binary", failed))
        return
    build = live.builds[name]
    if build != before and delta is None:
        text = f"{build}, and what the stage installs is not known"
        context.unknown(name, "binary", before, text)
    elif build != before and delta and _is_ahead(context, delta, name, build):
        text = f"the release's, installed ahead of the stage: {build}"
        context.judge(name, "binary", "the verified or the release's", text, ok=True)
    elif build != before:
        context.judge(name, "binary", before, build, waivable=False)


def _is_ahead(context: Context, delta: Delta, name: str, build: str) -> bool:
    """Whether a node may run ``build`` before the stage, whose changes are about it."""
    ahead = context.stage in targets.INSTALLED_AHEAD and bool(delta.turns[name])
    return ahead and build == delta.build.binary


def _whose(node: Node, what: str, error: SourceError) -> str:
    if node.control == "ours":
        return error.problem
    return f"{what} not readable by us, {node.operator} must report it: {error.problem}"


def _file(context: Context, name: str, known: Known, found: NodeConfig) -> None:
    digest = known.state.config

    def files() -> tuple[Flat, Flat]:
        kept = context.scope.read(context.store.root / known.kept)
        if MARK.encode() not in kept and digest_bytes(kept) != digest:
            raise SourceError(known.kept, "expected the file as it was verified, got another")
        return flatten(toml.parse_toml(kept, name)), flatten(toml.parse_toml(found.text, name))

    both = tried(files)
    if isinstance(both, SourceError):  # nothing kept, or no TOML: the digests differ all the same
        context.judge(name, "config", digest, found.digest, ok=False)
    else:
        judge_file(context, name, *both)
