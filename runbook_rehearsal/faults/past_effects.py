"""Faults that have happened already when they are switched on: the history is laid again with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..chain.world import Event, EventKind
from .asset_effects import Effect, Undo
from .board import Active

if TYPE_CHECKING:
    from ..network import RehearsalNetwork


def _before(network: RehearsalNetwork, events: list[Event]) -> Undo:
    """These events have happened already: the history is laid again with them, or without."""

    def relay() -> None:
        if network.telemetry is not None:
            network.telemetry.relay()

    def undo() -> None:
        for event in events:
            network.world.events.remove(event)
        relay()

    network.world.events.extend(events)
    relay()
    return undo


def _laid_anew(network: RehearsalNetwork, active: Active) -> Undo:
    """It is how Prometheus is configured: a real one starts anew with it, and without."""
    return _before(network, [])


def _once(name: str, begun_s: float, over_s: float) -> Effect:
    """Another fault was on for a while: from so many seconds ago until so many seconds ago."""

    def effect(network: RehearsalNetwork, active: Active) -> Undo:
        now, data = network.world.clock.now(), {"name": name}
        times: tuple[tuple[EventKind, float], ...]
        times = (("fault-on", begun_s), ("fault-off", over_s))
        return _before(
            network, [Event(now - ago, active.cluster, "", kind, data) for kind, ago in times]
        )

    return effect


def _since_restart(network: RehearsalNetwork, active: Active) -> Undo:
    """The fault has been on since the cluster's last restart, as if that had brought it."""
    ups = [e.at for e in network.world.events_of(active.cluster) if e.kind == "up"]
    event = Event(max(ups), active.cluster, "", "fault-on", {"name": active.name})
    return _before(network, [event])


def _restarted(nodes: int) -> Effect:
    """The last nodes of the cluster were down for four minutes, half an hour ago."""

    def effect(network: RehearsalNetwork, active: Active) -> Undo:
        now = network.world.clock.now()
        names = [spec.name for spec in network.world.clusters[active.cluster].nodes[-nodes:]]
        times: tuple[tuple[EventKind, float], ...] = (("down", 1800.0), ("up", 1560.0))
        return _before(
            network,
            [Event(now - ago, active.cluster, n, kind) for n in names for kind, ago in times],
        )

    return effect


PAST_EFFECTS: dict[str, Effect] = {
    "page-during-soak": _once("consensus-slow", 3600.0, 1800.0),
    "telemetry-gap-during-soak": _once("metrics-gap", 3600.0, 1800.0),
    "restart-during-soak": _restarted(1),
    "gossip-silent": _since_restart,
    "gossip-drops": _since_restart,
    "gossip-slow": _since_restart,
    "halted-once": _once("consensus-stall", 5400.0, 4200.0),
    "mass-restart": _restarted(2),
    "gap-during-epochs": _once("metrics-gap", 3600.0, 1800.0),
    "alertmanager-not-in-prometheus": _laid_anew,
    "rule-never-evaluated": _laid_anew,
}
