"""A node's witnesses against one another: its RPC, the TOML on its disk, what its peers see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..changes.state import differences
from ..context import Context
from ..errors import SourceError
from ..outcomes import Row, check_row, unknown_row
from ..sources.config import BASE_GATES, CHANNEL_AT, GATES, GATES_AT, Flat, flatten, parse_toml
from ..sources.node import Peers, Rollout

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
