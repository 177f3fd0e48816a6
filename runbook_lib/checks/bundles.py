"""The rollout bundle against itself: what no node could follow, whatever its file says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .. import playbook
from ..outcomes import Row, check_row
from ..sources.config import Bundle, Flat, gates_turned_off

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
