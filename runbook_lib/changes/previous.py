"""The build that ran before: the artifact it was delivered in, as the site's `deploy` takes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from ..context import Context
from ..errors import ParameterError, RecordDamaged, SourceError
from ..evidence.record import recorded
from ..sources.running import fill
from ..strict import project_path
from .plan import Artifact
from .state import NodeState, known_map

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
