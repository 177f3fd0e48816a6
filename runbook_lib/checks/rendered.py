"""The rendered targets: accepted by the chain, the stage's profile, changed by the stage alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    misplaced,
    parse_toml,
)
from ..sources.redact import MARK
from .bundles import for_nodes

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
        # The chain refuses unknown keys only in a strict dry run; nothing else knows them all.
        got = "not checked: set commands.dry_run in the site file to the chain's strict dry run"
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


def shown(value: object) -> Value:
    """A value of a TOML file as a row can hold it."""
    if value is None:
        return "absent"
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**53):
        return value
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
