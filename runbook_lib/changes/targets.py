"""What each node's configuration and build must become: the map *after*, and its TOML.

After = before, with the gates of the stage's profile turned on, its channel and the release's
build. A forward stage never turns a gate off; a gate ahead of the profile stays, and is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..canonical import digest_bytes
from ..context import Context
from ..errors import ParameterError, SourceError
from ..params import project_path
from ..sources.config import (
    CHANNEL_AT,
    GATES_AT,
    Bundle,
    Profile,
    flatten,
    parse_bundle,
    parse_toml,
    render,
)
from .plan import Artifact
from .state import NodeState


@dataclass(frozen=True)
class Target:
    """``text`` is the node's TOML as it must become, ``found`` as it is."""

    found: bytes
    text: bytes
    after: NodeState


def read_bundle(context: Context) -> Bundle:
    """The site's rollout bundle. Raises SourceError or ParameterError."""
    path = context.site.bundle.path
    return parse_bundle(context.scope.read(project_path(path)), path)


def artifact(context: Context) -> Artifact:
    """The node artifact of the release, with its digest. Raises ParameterError, SourceError."""
    template = context.site.artifacts.get("node")
    if template is None:
        raise ParameterError("site: artifacts.node: expected the path of the release, got none")
    path = template.replace("{release}", context.params.release)
    path = path.replace("{commit}", context.params.commit)
    return Artifact(path=path, digest=context.scope.file_digest(project_path(path)))


def target(node: str, found: bytes, before: NodeState, profile: Profile, binary: str) -> Target:
    """The target of a node whose TOML is ``found``. Raises SourceError when it cannot be rewritten."""
    wanted = {gate: True for gate, on in profile.feature_gates.items() if on}
    changes = {f"{GATES_AT}.{gate}": True for gate in wanted if not before.gates.get(gate)}
    flat = flatten(parse_toml(found, node))
    if flat.get(CHANNEL_AT) != profile.release_channel:
        changes = {**changes, CHANNEL_AT: profile.release_channel}  # type: ignore[dict-item]
    text = render(found, changes, node) if changes else found
    after = NodeState(
        gates={**before.gates, **wanted},
        channel=profile.release_channel,
        binary=binary,
        config=digest_bytes(text),
    )
    return Target(found, text, after)


def target_path(context: Context, node: str) -> Path:
    """Where a node's rendered TOML lies in the attempt."""
    return context.folder / "targets" / f"{node}.toml"


def keep_target(context: Context, node: str, text: bytes) -> Path:
    """Write a node's rendered TOML into the attempt, once; another text is a SourceError."""
    path = target_path(context, node)
    path.parent.mkdir(exist_ok=True)
    if path.exists() and path.read_bytes() != text:
        raise SourceError(
            node, "expected the target this attempt already rendered, got another; start a new one"
        )
    path.write_bytes(text)
    return path
