"""Taking a cluster over as it is: the first known state of nodes we have never changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..canonical import digest
from ..errors import ParameterError, SourceError
from ..evidence.events import Adopted, Adopting, NodeVerified
from ..evidence.ledger import kept_config
from ..evidence.store import Attempt, Store
from ..files import keep_file
from ..opening import find_operator
from ..plan import NodeState
from ..site import Site, read_site
from ..sources.commands import NodeConfig, SiteCommands
from ..sources.node import Fleet
from ..sources.quorum import anybody
from ..sources.scope import Scope, live_scope
from ..sources.words import hear
from .targets import digests_of

ADOPT = "adopt"
Read = dict[str, tuple[NodeState, NodeConfig]]


@dataclass(frozen=True)
class Adoption:
    """``approved_by`` is empty while nobody else has approved ``digest``: nothing was taken over."""

    attempt: Attempt
    digest: str
    states: dict[str, NodeState]
    approved_by: tuple[str, ...]
    self_approved: bool


def adopt(
    site_path: str,
    cluster: str,
    *,
    issue: int = 0,
    approval: str = "",
    artifacts: Sequence[Path] = (),
) -> Adoption:
    """Read every node of ``cluster`` and record it as known, once somebody has approved it.

    ``artifacts`` are the files that the running binaries were delivered in.

    Raises SourceError when a node cannot be read whole: a state is taken over entirely or not.
    """
    site = read_site(site_path)
    if cluster not in site.clusters:
        known = ", ".join(site.clusters)
        raise ParameterError(f"{site_path}: clusters: expected one of {known}, got {cluster!r}")
    operator = find_operator(site, "apply", proven=True)
    store = Store(site.store_path)
    opened = Adopting(cluster=cluster, source=site.source, site=site.name, operator=operator)
    attempt = store.adopt(opened)
    tape = attempt.folder / "tape"
    with live_scope(ADOPT, site, tape=tape) as scope:
        read = _read(scope, site, cluster, artifacts)
        states = {name: state for name, (state, _) in read.items()}
        dumped = {name: state.model_dump(mode="json") for name, state in states.items()}
        found = digest(dumped)
        heard = hear(scope, site, found, issues=[issue], files=[approval])
        count = anybody(site, operator).count(heard, found)
        scope.tape.sync()
        if count.by:
            by = (f"{operator} (self-approved)",) if count.self_approved else count.by
            attempt.log.append(Adopted(digest=found, approved_by=by))
            for name, (_, config) in read.items():
                keep_file(attempt.folder, str(kept_config(Path(), name)), config.text)
                verified = NodeVerified(item=ADOPT, node=name, state=states[name], at=scope.now())
                attempt.log.append(verified)
        return Adoption(attempt, found, states, count.by, count.self_approved)


def _read(scope: Scope, site: Site, cluster: str, artifacts: Sequence[Path]) -> Read:
    """Raises SourceError; so it does for an artifact whose binary no node runs."""
    commands = SiteCommands(scope, site.commands)
    files = {binary: digest for digest, binary in (digests_of(scope, site, f) for f in artifacts)}
    states = {}
    for name, rollout in Fleet(scope, site.clusters[cluster]).rollout().items():
        binary, config = commands.version(name).digest, commands.read_config(name)
        state = NodeState(
            gates=rollout.feature_gates,
            channel=rollout.release_channel,
            binary=binary,
            config=config.digest,
            # Where the artifact is the binary itself, its digest says both.
            artifact=files.get(binary, "" if site.binary_member else binary),
        )
        states[name] = state, config
    if strange := sorted(set(files) - {state.binary for state, _ in states.values()}):
        raise SourceError("artifact", f"expected the build of a node, got binary {strange[0]}")
    return states
