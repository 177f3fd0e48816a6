"""A fresh node by the cluster's automation: made, read back, and removed whatever came of it."""

from __future__ import annotations

import re
from pathlib import Path

from ..clusters import Node
from ..context import Context
from ..errors import SourceError
from ..outcomes import Row, check_row, unknown_row
from ..sources.changing import Provisioned, provisioned
from ..sources.config import CHANNEL_AT, GATES_AT, Flat, Profile, flatten, parse_toml
from ..sources.node import Fleet, Rollout
from ..sources.process import Ended
from .apply import POLL_S, Applier, Step
from .targets import keep_target, rendered

REMOVE = "deprovision"


def provision_and_remove(context: Context, applier: Applier, profile: Profile) -> list[Row]:
    """Rows of one provisioning; the node is removed also when it came up wrong.

    A further try takes a node of another name where an earlier one began to remove its own.
    """
    cluster, commands = context.cluster_name, context.commands
    base = "rehearsal-" + re.sub(r"[^a-z0-9]+", "-", context.attempt_name.lower()).strip("-")
    name, number = base, 1

    def remove_it(lock: int, outputs: Path) -> Ended:
        return commands.deprovision(cluster, name, lock=lock, outputs=outputs)

    removed = {body["node"] for body in applier.steps() if body["step"] == REMOVE}
    while name in removed:  # of an earlier try: there is nothing left of it to be read back
        if not applier.step(Step(name, REMOVE, remove_it)):
            return applier.rows
        number += 1
        name = f"{base}-{number}"
    config = keep_target(context, name, *_config(context, profile))
    make = Step(
        name,
        "provision",
        lambda lock, outputs: commands.provision(cluster, name, config, lock=lock, outputs=outputs),
    )
    remove = Step(name, REMOVE, remove_it)
    if applier.step(make):
        applier.rows += _read_back(context, applier, make, profile)
    if applier.step(remove):
        applier.rows += _gone(context, applier, make)
    return applier.rows


def _config(context: Context, profile: Profile) -> tuple[bytes, bytes | None]:
    """The first node's TOML with exactly the profile's gates and channel."""
    model = context.cluster.nodes[0].name
    found = context.commands.read_config(model)
    flat = flatten(parse_toml(found.text, model))
    wanted: Flat = {f"{GATES_AT}.{gate}": on for gate, on in profile.feature_gates.items()}
    wanted[CHANNEL_AT] = profile.release_channel
    changes = {key: value for key, value in wanted.items() if flat.get(key) != value}
    text, raw, _ = rendered(context, model, found, changes)
    return text, raw


def _made(context: Context, applier: Applier, make: Step) -> Provisioned:
    stem = applier.stem(make)
    out = context.scope.read(context.folder / "steps" / f"{stem}.out")
    return provisioned(make.node, Ended(0, out, b""))


def _fleet(context: Context, made: Provisioned) -> Fleet:
    node = Node(name=made.node, url=made.url)
    return Fleet(context.scope, context.cluster.model_copy(update={"nodes": [node]}))


def _read_back(context: Context, applier: Applier, make: Step, profile: Profile) -> list[Row]:
    try:
        made = _made(context, applier, make)
    except SourceError as error:
        return [unknown_row(make.node, "provisioned", "its name and URL", error.problem)]
    fleet = _fleet(context, made)
    deadline = context.scope.reread().timestamp() + context.patience_s
    while True:
        found = fleet.rollout()[made.node]
        if not isinstance(found, SourceError):
            break
        if context.scope.reread().timestamp() >= deadline:
            return [unknown_row(made.node, "/status/rollout", "an answer", found.problem)]
        context.scope.sleep(POLL_S)
    rows = [
        check_row(
            made.node,
            CHANNEL_AT,
            profile.release_channel,
            found.release_channel,
            found.release_channel == profile.release_channel,
        )
    ]
    for gate, on in profile.feature_gates.items():
        seen = found.feature_gates.get(gate, "absent")
        rows.append(check_row(made.node, f"{GATES_AT}.{gate}", on, seen, seen is on))
    return rows


def _gone(context: Context, applier: Applier, make: Step) -> list[Row]:
    try:
        made = _made(context, applier, make)
    except SourceError:
        return []
    # Asked once: a refusal is what is hoped for, not a passing fault.
    left = _fleet(context, made).get("/status/rollout", Rollout, retries=1)[made.node]
    ok = isinstance(left, SourceError) and "ConnectError" in left.problem
    return [
        check_row(
            made.node, "removed again", "refuses connections", "gone" if ok else "answers", ok
        )
    ]
