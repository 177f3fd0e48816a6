"""The rendered targets: accepted by the chain, the stage's profile, changed by the stage alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import playbook
from ..changes.state import Known
from ..changes.targets import Delta, Target, keep, keep_target, target
from ..context import Context
from ..errors import SourceError
from ..outcomes import Outcome, Row, Value, check_row, unknown_row
from ..sources.commands import NodeConfig
from ..sources.config import (
    CHANNEL_AT,
    GATES,
    GATES_AT,
    Bundle,
    Flat,
    diff,
    flatten,
    gates_turned_off,
    parse_toml,
)
from ..sources.node_keys import judge_keys, misplaced
from ..sources.redact import MARK

CONTROL = "runbook_unknown_key"
"""A key that no chain knows: a dry run that accepts it finds no unknown keys at all."""
_CONTROL, _LONGEST = "unknown-key-control", 200


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
        rows = _by_model(name, table)
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
        of_node = {f"{GATES_AT}.{gate}": on for gate, on in made.after.gates.items()}
        in_force = {CHANNEL_AT: made.after.channel, **of_node, **after}
        seen |= {key: in_force[key] for key in wanted if key in in_force}
    text = "a secret, which is compared nowhere; leave it to the node's file"
    secret = [key for key, value in wanted.items() if MARK in str(value)]
    rows = [unknown_row(name, key, "as in the bundle", text) for key in secret]
    return rows + [
        check_row(
            name,
            f"{d.key} ({d.kind} in the target)",
            shown(d.expected),
            shown(d.observed),
            ok=False,
        )
        for d in diff(wanted, seen)
    ]


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


def _by_model(name: str, table: Mapping[str, Any]) -> list[Row]:
    """For want of a binary: the documented tables; any other is not checked."""
    wrong, unchecked = judge_keys(table)
    rows = [check_row(name, one.key, one.expected, one.got, ok=False) for one in wrong]
    if unchecked:
        text = f"not checked: {', '.join(unchecked)}; set commands.dry_run"
        rows.append(unknown_row(name, "unknown keys", "none", text))
    return rows


def shown(value: object) -> Value:
    """A value of a TOML file as a row can hold it."""
    if value is None:
        return "absent"
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**53):
        return value
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


# --- the rollout bundle against itself ------------------------------------------------------------


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
