"""What each node's configuration and build must become: the map *after*, and its TOML.

Which nodes a stage touches, in which changes and how, is data: ``TURNS``. After = before, with the
gates of the stage's profile turned on, its channel and the release's build. A forward stage never
turns a gate off; a gate ahead of the profile stays, and is shown. The canary stage goes beyond its
profile in one gate, witness_network, which the playbook turns on in its last step.

A node on which nothing differs stays in its phase of the plan: it is read back, and that is the
release's anchor.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .. import playbook
from ..canonical import digest_bytes
from ..context import Context
from ..errors import LogDamaged, ParameterError, SourceError, tried
from ..evidence.events import PlanMade, of
from ..evidence.ledger import Known, kept_config
from ..files import keep_file, place, replace_file
from ..params import RolloutParams
from ..plan import Artifact, NodePlan, NodeState, Phase, Plan, moves
from ..site import Site
from ..sources.commands import NodeConfig, fill
from ..sources.config import GATES, Bundle, Flat, Profile, parse_bundle, render
from ..sources.redact import MARK
from ..sources.scope import Scope
from ..strict import project_path
from .power import Powers, cut, powers


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
    """What a stage makes of its cluster: by node the changes that are about it, none for most."""

    turns: Mapping[str, Sequence[Turn]]
    profile: Profile
    build: Artifact

    def after(self, before: NodeState, turns: Sequence[Turn]) -> NodeState:
        """What changes make of a node that was ``before``, but for its file; no gate goes off."""
        after = before
        for turn in turns:
            on = self.profile.on if turn.gates is None else turn.gates
            after = NodeState(
                gates={**after.gates, **{gate: True for gate in GATES if gate in on}},
                channel=self.profile.release_channel if turn.channel else after.channel,
                binary=self.build.binary,
                config=before.config,
                artifact=self.build.digest,
            )
        return after


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


def delta(context: Context, bundle: Bundle, build: Artifact) -> Delta:
    """What the context's stage makes of its cluster with a ``build``.

    Raises SourceError when it is about no node, and ParameterError when the bundle lacks it.
    Design: section 7, expected state.
    """
    turns = {
        node.name: [t for t in TURNS[context.stage] if t.who == "all" or node.canary]
        for node in context.cluster.nodes
    }
    if not any(turns.values()):
        where = f"site: clusters.{context.cluster_name}.nodes"
        raise SourceError(where, "expected a node with canary: true, got none")
    return Delta(turns, bundle.profile(context.stage), build)


def target(
    context: Context, node: str, config: NodeConfig, before: NodeState, after: NodeState
) -> tuple[NodeConfig, NodeState]:
    """A node's TOML turned into what ``after`` says, and its state then. Raises SourceError."""
    made = rendered(context, node, config, moves(before, after))
    return made, after.model_copy(update={"config": made.digest})


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


STALL_OFF = playbook.GATE_STEPS["mainnet"]
"""Gates that are off everywhere after a stall, whatever was on before."""


def goal_of(stage: str, before: NodeState) -> NodeState:
    """What a node goes back to: what it was, on mainnet with gates off, and its file another then."""
    if stage != "mainnet":
        return before
    gates = {gate: on and gate not in STALL_OFF for gate, on in before.gates.items()}
    return before.model_copy(update={"gates": gates})


def keep_target(context: Context, name: str, made: NodeConfig) -> Path:
    """Write a node's rendered TOML into the attempt, once, and return the file to deliver.

    Raises SourceError when this attempt already rendered another text.
    """
    path = kept_config(context.folder, name)
    if path.exists() and path.read_bytes() != made.text:
        raise SourceError(
            name, "expected the target this attempt already rendered, got another; start a new one"
        )
    return keep(context, name, path.parent.name, made)


def keep(context: Context, name: str, folder: str, made: NodeConfig) -> Path:
    """Write a TOML into a folder of the attempt; the file to hand to a command.

    That is another, outside the evidence, when the TOML holds secrets.
    """
    path = keep_file(context.folder, f"{folder}/{name}.toml", made.text)
    if made.raw is None and MARK.encode() not in made.text:
        return path
    private = place(context.private, f"{name}.toml")
    if made.raw is not None:
        replace_file(private, made.raw, 0o600)
    return private


MOST = 100
"""So many other releases are looked at."""


def artifact_of(context: Context, state: NodeState) -> Artifact | None:
    """The file that a state's build was delivered in; None when none that we know of is that.

    Looked for where the site keeps ``previous_release``, then the release itself, then what the
    store's own plans delivered, then the site's other releases.
    """
    seen, digest = set[str](), state.artifact
    for path in _places(context, digest) if digest else ():
        if path not in seen and tried(context.scope.file_digest, project_path(path)) == digest:
            return Artifact(path=path, digest=digest, binary=state.binary)
        seen.add(path)
    return None


def _places(context: Context, digest: str) -> Iterator[str]:
    params, template = context.params, context.site.artifacts.get("node", "")
    if before := getattr(params, "previous_release", ""):
        with suppress(ParameterError):  # it names a commit: only that release's plan knows
            yield from fill("artifacts.node", [template], release=before)
    if template:
        yield from fill("artifacts.node", [template], release=params.release, commit=params.commit)
    with suppress(LogDamaged, SourceError):  # one that cannot be read tells of none
        known = context.ledger.known(context.cluster_name).values()
        for origin in sorted({one.origin for one in known if one.state.artifact == digest}):
            for made in of(context.ledger.events(origin, PlanMade), PlanMade):
                if made.plan.artifact.digest == digest:
                    yield made.plan.artifact.path
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


# --- the phases of a stage, and their plan --------------------------------------------------------


def make_plan(context: Context, *, keep: bool = True) -> Plan:
    """The stage's plan, from the world as it is. Raises SourceError, ParameterError.

    Unless ``keep``, what it renders is not kept in the attempt: it is only looked at.
    """
    build = artifact(context)
    known = context.ledger.known(context.cluster_name)
    before = {node.name: known[node.name] for node in context.cluster.nodes}
    stage = delta(context, read_bundle(context), build)
    phases = _phases(context, stage, before, keep)
    params = context.params
    rollout = isinstance(params, RolloutParams)
    touched = {node.node for phase in phases for node in phase.nodes}
    return stage_plan(
        context,
        build,
        phases,
        untouched={name: last.state for name, last in before.items() if name not in touched},
        window=tuple(instant.isoformat() for instant in params.window) if rollout else (),
        max_down=params.max_down if rollout else 1.0,
    )


def stage_plan(context: Context, build: Artifact, phases: Sequence[Phase], **more: Any) -> Plan:
    """A plan of this stage, release, cluster and policy."""
    return Plan(
        stage=context.stage,
        release=context.params.release,
        commit=context.params.commit,
        cluster=context.cluster_name,
        chain_id=context.cluster.chain_id,
        artifact=build,
        phases=tuple(phases),
        policy=context.site.policy_digest,
        limits=context.limits(),
        **more,
    )


def _phases(context: Context, stage: Delta, known: dict[str, Known], keep: bool) -> list[Phase]:
    # Our own nodes first: operators follow what has been seen to work.
    nodes = sorted(context.cluster.nodes, key=lambda node: node.control == "operator")
    found = context.each(context.commands.read_config)
    power = powers(context) if isinstance(context.params, RolloutParams) else None
    at: dict[str, tuple[NodeConfig, NodeState]] = {}
    for node in (node for node in nodes if stage.turns[node.name]):
        name, last = node.name, known[node.name]
        mine, before = node.control == "ours" or name in found.known, last.state
        # That what was kept still lies there is config-drift's to prove.
        config = found[name] if mine else kept_toml(context, last)
        if context.stage in INSTALLED_AHEAD:
            # Operators installed the candidate: canary.ready.candidate-installed proves it.
            update = {"binary": stage.build.binary, "artifact": stage.build.digest}
            before = before.model_copy(update=update)
        at[name] = config, before
    phases = []
    for turn in TURNS[context.stage]:
        plans = []
        for node in (node for node in nodes if turn in stage.turns[node.name]):
            config, before = at[node.name]
            after = stage.after(before, [turn])
            made, after = at[node.name] = target(context, node.name, config, before, after)
            if keep:
                keep_target(context, f"{node.name}.{turn.name}", made)
            plans.append(NodePlan.of(node, before, after))
        waves = _waves(context, plans, power)
        phases.append(Phase(item=turn.item, name=turn.name, nodes=tuple(plans), waves=waves))
    return phases


def _waves(
    context: Context, plans: Sequence[NodePlan], found: Powers | None
) -> tuple[tuple[str, ...], ...]:
    ours = [plan.node for plan in plans if plan.control == "ours"]
    theirs = [plan.node for plan in plans if plan.control == "operator"]
    groups = [group for group in (ours, theirs) if group]  # no wave is mixed
    if found is None:
        return tuple(tuple(group) for group in groups)
    most = context.params.max_down
    return tuple(wave for group in groups for wave in cut(group, found, most))
