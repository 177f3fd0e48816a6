"""What each node's configuration and build must become: the map *after*, and its TOML.

After = before, with the gates of the stage's profile turned on, its channel and the release's
build. A forward stage never turns a gate off; a gate ahead of the profile stays, and is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..canonical import digest_bytes
from ..context import Context
from ..errors import ParameterError, SourceError
from ..params import project_path
from ..sources.commands import NodeConfig
from ..sources.config import (
    CHANNEL_AT,
    GATES_AT,
    Bundle,
    Flat,
    Profile,
    flatten,
    parse_bundle,
    parse_toml,
    render,
)
from ..sources.redact import MARK
from .plan import Artifact
from .state import NodeState


@dataclass(frozen=True)
class Target:
    """``found`` is a node's TOML as it is, ``text`` as it must become, both without secrets.

    ``raw`` is the target with its secrets, in memory only; None in a replay, and where ``text``
    is the whole of it.
    """

    found: bytes
    text: bytes
    after: NodeState
    raw: bytes | None = field(default=None, repr=False)


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


def target(
    context: Context,
    node: str,
    config: NodeConfig,
    before: NodeState,
    profile: Profile,
    binary: str,
) -> Target:
    """The target of a node. Raises SourceError when its TOML cannot be rewritten."""
    wanted = {gate: True for gate, on in profile.feature_gates.items() if on}
    changes: Flat = {f"{GATES_AT}.{gate}": True for gate in wanted if not before.gates.get(gate)}
    if flatten(parse_toml(config.text, node)).get(CHANNEL_AT) != profile.release_channel:
        changes[CHANNEL_AT] = profile.release_channel
    text, raw, digest = rendered(context, node, config, changes)
    after = NodeState(
        gates={**before.gates, **wanted},
        channel=profile.release_channel,
        binary=binary,
        config=digest,
    )
    return Target(config.text, text, after, raw)


def rendered(
    context: Context, node: str, config: NodeConfig, changes: Flat
) -> tuple[bytes, bytes | None, str]:
    """A node's TOML with ``changes``: without secrets, with them (live), and the latter's digest."""
    text = render(config.text, changes, node) if changes else config.text
    if not config.secret:
        return text, None, digest_bytes(text)
    raw = None
    if config.raw is not None:
        raw = render(config.raw, changes, node) if changes else config.raw
    whole = raw or b""
    return text, raw, context.scope.derive(f"target {node}", lambda: digest_bytes(whole))


def keep_target(context: Context, node: str, text: bytes, raw: bytes | None) -> Path:
    """Write a node's rendered TOML into the attempt, once, and return the file to deliver.

    That is another, outside the evidence, when the TOML holds secrets. Raises SourceError when
    this attempt already rendered another text.
    """
    path = context.folder / "targets" / f"{node}.toml"
    if path.exists() and path.read_bytes() != text:
        raise SourceError(
            node, "expected the target this attempt already rendered, got another; start a new one"
        )
    return keep(context, node, "targets", text, raw)


def keep(context: Context, name: str, folder: str, text: bytes, raw: bytes | None) -> Path:
    """Write a TOML into a folder of the attempt; the file to hand to a command.

    That is another, outside the evidence, when the TOML holds secrets.
    """
    path = context.folder / folder / f"{name}.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text)
    if raw is None and MARK.encode() not in text:
        return path
    private = context.private / f"{name}.toml"
    if raw is not None:
        private.touch(0o600)
        private.write_bytes(raw)
    return private
