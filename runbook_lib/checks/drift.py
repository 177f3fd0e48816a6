"""preflight.config-drift: nodes are as last verified, and their targets are the stage's profile."""

from __future__ import annotations

from collections.abc import Mapping

from ..changes.state import NodeState, differences, known_map, require_known
from ..changes.targets import Target, artifact, keep_target, read_bundle, target
from ..context import Context, judges
from ..errors import SourceError
from ..outcomes import CheckResult, Row, Value, check_row, unknown_row
from ..sources.commands import Build, NodeConfig
from ..sources.config import GATES_AT, Bundle, Flat, Profile, diff, flatten, parse_toml
from ..sources.node import Peers, Rollout

Before = Mapping[str, NodeState | SourceError]
Configs = Mapping[str, NodeConfig | SourceError]


def expected(context: Context) -> tuple[str, Value]:
    """What must hold, and its threshold."""
    return "every node equals its last verified state", "0 differences"


@judges("preflight.config-drift")
def config_drift(context: Context) -> CheckResult:
    """Live nodes equal the map before the stage, the rendered target its profile.

    Three witnesses per node: its RPC, the TOML on its disk, and what its peers say it advertises.
    Any two that disagree are a FAIL. Playbook: common preflight, 1.
    """
    known = known_map(context.scope, context.store, context.cluster_name)
    before: dict[str, NodeState | SourceError] = {}
    for node in context.cluster.nodes:
        try:
            before[node.name] = require_known(known, node.name, context.cluster_name)
        except SourceError as error:
            before[node.name] = error
    configs = context.each(context.commands.read_config)
    rows = [*_live(context, before, configs), *_advertised(context)]
    rows += _targets(context, before, configs)
    return context.conclude(
        rows,
        passed=f"{len(before)} nodes are as last verified; the target is the stage's profile",
        empty="the cluster has no nodes",
        data={"nodes": len(before)},
    )


def _live(context: Context, before: Before, configs: Configs) -> list[Row]:
    rollouts = context.fleet.rollout()
    builds = context.each(context.commands.version)
    rows: list[Row] = []
    for name, expected in before.items():
        if isinstance(expected, SourceError):
            rows.append(unknown_row(name, "known state", "in the store", expected.problem))
            continue
        rows += _node(name, expected, rollouts[name], builds[name], configs[name])
    return rows


def _node(
    name: str,
    expected: NodeState,
    rollout: Rollout | SourceError,
    build: Build | SourceError,
    config: NodeConfig | SourceError,
) -> list[Row]:
    seen: dict[str, str | bool] = {}
    wanted = expected.flat()
    rows = []
    if isinstance(rollout, SourceError):
        rows.append(unknown_row(name, "/status/rollout", "an answer", rollout.problem))
        wanted = {key: value for key, value in wanted.items() if not key.startswith("rollout.")}
    else:
        seen["rollout.release_channel"] = rollout.release_channel
        seen |= {f"{GATES_AT}.{gate}": on for gate, on in rollout.feature_gates.items()}
    for what, source in (("binary", build), ("config", config)):
        if isinstance(source, SourceError):
            rows.append(unknown_row(name, what, wanted.pop(what), source.problem))
        else:
            seen[what] = source.digest
    rows += [check_row(name, *found, ok=False) for found in differences(wanted, seen)]
    if not isinstance(config, SourceError) and not isinstance(rollout, SourceError):
        rows += _disk_against_rpc(name, config.text, rollout)
    if not rows:
        text = f"{len(wanted)} keys as last verified"
        rows.append(check_row(name, "live state", text, text, ok=True))
    return rows


def _disk_against_rpc(name: str, config: bytes, rollout: Rollout) -> list[Row]:
    try:
        flat = flatten(parse_toml(config, name))
    except SourceError as error:
        return [unknown_row(name, "TOML on disk", "readable", error.problem)]
    running = {f"{GATES_AT}.{gate}": on for gate, on in rollout.feature_gates.items()}
    running["rollout.release_channel"] = rollout.release_channel  # type: ignore[assignment]
    on_disk = {key: value for key, value in flat.items() if key in running}
    return [
        check_row(name, f"{key} (running against its file)", file, run, ok=False)
        for key, file, run in differences(on_disk, running)
    ]


def _advertised(context: Context) -> list[Row]:
    """What peers say of each node against what it says of itself."""
    rollouts, views = context.fleet.rollout(), context.fleet.peers()
    rows = []
    for node in context.cluster.nodes:
        rollout = rollouts[node.name]
        if not node.peer or isinstance(rollout, SourceError):
            continue
        said = [
            (viewer, peer.features)
            for viewer, view in views.items()
            if isinstance(view, Peers) and viewer != node.name
            for peer in view.peers
            if peer.peer == node.peer
        ]
        others = [f"{v}: {g.problem}" for v, g in views.items() if isinstance(g, SourceError)]
        rows.append(_advert(node.name, rollout.feature_gates, said, others, len(views) - 1))
    return rows


def _advert(
    name: str,
    gates: Mapping[str, bool],
    said: list[tuple[str, dict[str, bool]]],
    unread: list[str],
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


def _targets(context: Context, before: Before, configs: Configs) -> list[Row]:
    bundle = read_bundle(context)
    profile = bundle.profile(context.stage)
    try:
        binary = artifact(context).digest
    except SourceError as error:
        return [unknown_row("release artifact", "digest", "readable", error.problem)]

    def judge(name: str) -> list[Row]:
        state, found = before[name], configs[name]
        if isinstance(state, SourceError) or isinstance(found, SourceError):
            return []  # said by its live state already
        made = target(context, name, found, state, profile, binary)
        return _target(context, name, made, bundle, profile)

    rows: list[Row] = []
    for name, judged in context.each(judge).items():
        if isinstance(judged, SourceError):
            rows.append(unknown_row(name, "target", "rendered and valid", judged.problem))
        else:
            rows += judged
    return rows


def _target(
    context: Context, name: str, made: Target, bundle: Bundle, profile: Profile
) -> list[Row]:
    """The rendered target: valid to the chain, the profile's, and changed by the stage alone."""
    path = keep_target(context, name, made.text, made.raw)
    verdict = context.commands.dry_run(path)
    rows = []
    if verdict.unknown_keys:
        unknown = ", ".join(verdict.unknown_keys)
        rows.append(check_row(name, "unknown keys", "none", unknown, ok=False))
    elif not verdict.ok:
        rows.append(check_row(name, "dry run of the target", "valid", verdict.text[:300], ok=False))
    after, found = (flatten(parse_toml(text, name)) for text in (made.text, made.found))
    wanted: Flat = {f"{GATES_AT}.{g}": on for g, on in profile.feature_gates.items() if on}
    wanted |= {"rollout.release_channel": profile.release_channel, **bundle.other}
    for difference in diff(wanted, {key: after[key] for key in wanted if key in after}):
        what = f"{difference.key} ({difference.kind} in the target)"
        expected, got = _shown(difference.expected), _shown(difference.observed)
        rows.append(check_row(name, what, expected, got, ok=False))
    allowed = {key for key in wanted if key.startswith("rollout.")}
    for difference in diff(found, after):
        if difference.key not in allowed:
            moved = _shown(difference.observed)
            rows.append(check_row(name, difference.key, "unchanged", moved, ok=False))
    if not rows:
        keys = ", ".join(d.key for d in diff(found, after)) or "the build only"
        text = f"profile {profile.name}; changes: {keys}"
        rows.append(check_row(name, "target", text, text, ok=True))
    return rows


def _shown(value: object) -> Value:
    if value is None:
        return "absent"
    return value if isinstance(value, str | bool | int) else str(value)
