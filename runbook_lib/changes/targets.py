"""What each node's configuration and build must become: the map *after*, and its TOML.

Which nodes a stage touches, in which changes and how, is data: ``TURNS``. After = before, with the
gates of the stage's profile turned on, its channel and the release's build. A forward stage never
turns a gate off; a gate ahead of the profile stays, and is shown. The canary stage goes beyond its
profile in one gate, witness_network, which the playbook turns on in its last step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..canonical import digest_bytes
from ..context import Context
from ..errors import ParameterError, RecordDamaged, SourceError
from ..evidence.record import recorded
from ..files import keep_file, place, replace_file
from ..site import Site
from ..sources.commands import NodeConfig
from ..sources.config import (
    CHANNEL_AT,
    GATES,
    GATES_AT,
    Bundle,
    Flat,
    Profile,
    parse_bundle,
    render,
)
from ..sources.redact import MARK
from ..sources.running import fill
from ..sources.scope import Scope
from ..strict import project_path
from .plan import Artifact
from .state import Known, NodeState, kept_config, known_map


@dataclass(frozen=True)
class Turn:
    """What one change makes of each of its nodes, beside the release's build.

    ``gates`` None are all of the stage's profile.
    """

    item: str
    name: str
    who: Literal["all", "canaries"]
    gates: tuple[str, ...] | None = ()
    channel: bool = False


TURNS: dict[str, tuple[Turn, ...]] = {
    "development": (Turn("development.activate.deploy", "build", "all"),),
    "testnet": (
        Turn("testnet.activate.deploy", "build", "all", channel=True),
        Turn("testnet.activate.gate", "gates", "all", None),
    ),
    "canary": (
        Turn("canary.activate.rewards-gate", "gates", "canaries", None, channel=True),
        # Named: the canary profile has it off, the playbook turns it on for the canaries at the end.
        Turn("canary.activate.witness-clients", "witness", "canaries", ("witness_network",)),
    ),
    "mainnet": (
        Turn("mainnet.activate.witness-gate", "build", "all"),
        Turn("mainnet.activate.witness-gate", "gates", "all", None, channel=True),
    ),
}
"""The changes of a stage, in order; together they are its delta."""

INSTALLED_AHEAD = frozenset({"canary"})
"""Stages before which the members' operators install the release: they may run it already."""


@dataclass(frozen=True)
class Delta:
    """What a stage makes of one node; an empty one leaves it as it is.

    ``gates`` are on afterwards, in the chain's order; those that were on stay on. ``installed``:
    the node may run ``binary`` already, before the stage.
    """

    gates: tuple[str, ...] = ()
    channel: str = ""
    binary: str = ""
    artifact: str = ""
    installed: bool = False

    def __bool__(self) -> bool:
        return bool(self.binary)

    def then(self, later: Delta) -> Delta:
        """This one and a later one together."""
        gates = {*self.gates, *later.gates}
        return Delta(
            tuple(gate for gate in GATES if gate in gates),
            later.channel or self.channel,
            later.binary or self.binary,
            later.artifact or self.artifact,
        )

    def changes(self, before: NodeState) -> Flat:
        """The dotted keys of the node's TOML that are set, with their values."""
        keys: Flat = {
            f"{GATES_AT}.{gate}": True for gate in self.gates if not before.gates.get(gate)
        }
        if self.channel and before.channel != self.channel:
            keys[CHANNEL_AT] = self.channel
        return keys

    def after(self, before: NodeState, config: str) -> NodeState:
        """The map after, for a node whose TOML then has the digest ``config``."""
        return NodeState(
            gates={**before.gates, **dict.fromkeys(self.gates, True)},
            channel=self.channel or before.channel,
            binary=self.binary or before.binary,
            config=config,
            artifact=self.artifact or before.artifact,
        )


@dataclass(frozen=True, kw_only=True)
class Target(NodeConfig):
    """A node's TOML as it must become, of what was ``found``; ``after`` is the node's state then.

    ``raw`` is None in a replay, and where ``text`` is the whole of it.
    """

    found: bytes
    after: NodeState


def read_bundle(context: Context) -> Bundle:
    """The site's rollout bundle. Raises SourceError or ParameterError."""
    path = context.site.bundle.path
    return parse_bundle(context.scope.read(project_path(path)), path)


def of_release(context: Context) -> dict[str, str]:
    """What the site's templates of a release are filled with."""
    return {"release": context.params.release, "commit": context.params.commit}


def artifact(context: Context) -> Artifact:
    """The node artifact of the release, with its digests. Raises ParameterError, SourceError."""
    template = context.site.artifacts.get("node")
    if template is None:
        raise ParameterError("site: artifacts.node: expected the path of the release, got none")
    (path,) = fill("artifacts.node", [template], **of_release(context))
    digest, binary = digests_of(context.scope, context.site, project_path(path))
    return Artifact(path=path, digest=digest, binary=binary)


def digests_of(scope: Scope, site: Site, path: Path) -> tuple[str, str]:
    """Of a node artifact and of the binary in it; one where it is the binary. Raises SourceError."""
    digest, member = scope.file_digest(path), site.binary_member
    return digest, scope.member_digest(path, member) if member else digest


def kept_toml(context: Context, known: Known) -> NodeConfig:
    """A node's TOML as last verified, from the store. Raises SourceError; so it does where the
    file holds secrets: what becomes of it could not be told.
    """
    text = context.scope.read(context.store.root / known.kept)
    if digest_bytes(text) != known.state.config:
        raise SourceError(
            known.kept, "expected the file as it was verified, got it without secrets"
        )
    return NodeConfig(text, known.state.config)


def kept_as(context: Context, known: Known | None, digest: str) -> NodeConfig:
    """A node's TOML with ``digest`` as last verified; without text where the store has none."""
    with suppress(SourceError):
        if known is not None and known.state.config == digest:
            return kept_toml(context, known)
    return NodeConfig(b"", digest)


def members_of(context: Context, turn: Turn) -> set[str]:
    """The nodes that a change is about. Raises SourceError when there are none."""
    nodes = context.cluster.nodes
    found = {node.name for node in nodes if turn.who == "all" or node.canary}
    if not found:
        where = f"site: clusters.{context.cluster_name}.nodes"
        raise SourceError(where, "expected a node with canary: true, got none")
    return found


def turned(turn: Turn, profile: Profile, build: Artifact) -> Delta:
    """What one change makes of each of its nodes; ``build`` is the release's."""
    on = profile.on if turn.gates is None else set(turn.gates)
    channel = profile.release_channel if turn.channel else ""
    return Delta(tuple(gate for gate in GATES if gate in on), channel, build.binary, build.digest)


def deltas(context: Context, bundle: Bundle, build: Artifact) -> dict[str, Delta]:
    """What all changes of the context's stage together make of each node of its cluster.

    Raises SourceError when the stage has no members, and ParameterError when the bundle lacks it.
    Design: section 7, expected state.
    """
    found = {node.name: Delta() for node in context.cluster.nodes}
    for turn in TURNS[context.stage]:
        made = turned(turn, bundle.profile(context.stage), build)
        for name in members_of(context, turn):
            found[name] = found[name].then(made)
    ahead = context.stage in INSTALLED_AHEAD
    return {name: replace(delta, installed=ahead and bool(delta)) for name, delta in found.items()}


def target(
    context: Context, node: str, config: NodeConfig, before: NodeState, delta: Delta
) -> Target:
    """The target of a node. Raises SourceError when its TOML cannot be rewritten."""
    made = rendered(context, node, config, delta.changes(before))
    return Target(**vars(made), found=config.text, after=delta.after(before, made.digest))


def rendered(context: Context, node: str, config: NodeConfig, changes: Flat) -> NodeConfig:
    """A node's TOML with ``changes``: without secrets, with them (live), and the latter's digest."""
    text = render(config.text, changes, node) if changes else config.text
    if not config.secret:
        return NodeConfig(text, digest_bytes(text))
    raw = None
    if config.raw is not None:
        raw = render(config.raw, changes, node) if changes else config.raw
    whole = raw or b""
    digest = context.scope.derive(f"target {node}", lambda: digest_bytes(whole))
    return NodeConfig(text, digest, raw)


def changed(before: Mapping[str, bool], after: NodeState) -> Flat:
    """The dotted keys of the gates that differ, with their values ``after``."""
    return {f"{GATES_AT}.{gate}": on for gate, on in after.gates.items() if before.get(gate) != on}


def keep_target(context: Context, node: str, text: bytes, raw: bytes | None) -> Path:
    """Write a node's rendered TOML into the attempt, once, and return the file to deliver.

    That is another, outside the evidence, when the TOML holds secrets. Raises SourceError when
    this attempt already rendered another text.
    """
    path = kept_config(context.folder, node)
    if path.exists() and path.read_bytes() != text:
        raise SourceError(
            node, "expected the target this attempt already rendered, got another; start a new one"
        )
    return keep(context, node, path.parent.name, text, raw)


def keep(context: Context, name: str, folder: str, text: bytes, raw: bytes | None) -> Path:
    """Write a TOML into a folder of the attempt; the file to hand to a command.

    That is another, outside the evidence, when the TOML holds secrets.
    """
    path = keep_file(context.folder, f"{folder}/{name}.toml", text)
    if raw is None and MARK.encode() not in text:
        return path
    private = place(context.private, f"{name}.toml")
    if raw is not None:
        replace_file(private, raw, 0o600)
    return private


MOST = 100
"""So many other releases are looked at."""


def artifact_of(context: Context, state: NodeState) -> Artifact | None:
    """The file that a state's build was delivered in; None when none that we know of is that.

    Looked for where the site keeps ``previous_release``, then the release itself, then what the
    store's own plans delivered, then the site's other releases.
    """
    seen, digest = set(), state.artifact
    for path in _places(context, digest) if digest else ():
        if path in seen:
            continue
        seen.add(path)
        try:
            if context.scope.file_digest(project_path(path)) == digest:
                return Artifact(path=path, digest=digest, binary=state.binary)
        except SourceError:
            continue
    return None


def _places(context: Context, digest: str) -> Iterator[str]:
    params, template = context.params, context.site.artifacts.get("node", "")
    if before := getattr(params, "previous_release", ""):
        with suppress(ParameterError):  # it names a commit: only that release's plan knows
            yield from fill("artifacts.node", [template], release=before)
    if template:
        yield from fill("artifacts.node", [template], release=params.release, commit=params.commit)
    known = known_map(context.scope, context.store, context.cluster_name).values()
    for origin in sorted({one.origin for one in known if one.state.artifact == digest}):
        for entry in recorded(context.scope, context.store.root, origin):
            if entry.kind == "plan" and entry.body["plan"]["artifact"]["digest"] == digest:
                yield str(entry.body["plan"]["artifact"]["path"])
    before, found, after = template.partition("{release}")
    if found and before.endswith("/") and "{" not in after:
        names = context.scope.listing(project_path(before))
        yield from (before + name + after for name in names[-MOST:])


def no_file(state: NodeState) -> Artifact:
    """A build of which we have no file."""
    return Artifact(path="", digest=state.artifact, binary=state.binary)


def missing(state: NodeState) -> str:
    """What to do where a state's build has no file."""
    if not state.artifact:
        return "the artifact of its binary is not known; `runbook adopt --artifact FILE` tells it"
    return "set `previous_release`, or put it where the site says"


def artifact_or_none(context: Context, state: NodeState) -> Artifact | None:
    """The file of a build; a record of the store that is damaged tells of none."""
    try:
        return artifact_of(context, state)
    except RecordDamaged:
        return None
