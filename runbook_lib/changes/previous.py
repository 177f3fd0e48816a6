"""The build that ran before: a file with exactly that digest, as the site's `deploy` takes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..context import Context
from ..errors import ParameterError, RecordDamaged, SourceError
from ..evidence.record import parse
from ..sources.running import fill
from ..strict import project_path
from .plan import Artifact
from .state import known_map

MOST = 100
"""So many other releases are looked at."""


def artifact_of(context: Context, digest: str) -> Artifact | None:
    """A release artifact with ``digest``; None when none of those we know of has it.

    Looked for where the site keeps ``previous_release``, then the release itself, then what the
    store's own plans delivered, then the site's other releases.
    """
    seen = set()
    for path in _places(context, digest):
        if path in seen:
            continue
        seen.add(path)
        try:
            if context.scope.file_digest(project_path(path)) == digest:
                return Artifact(path=path, digest=digest)
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
    for origin in sorted({one.origin for one in known if one.state.binary == digest}):
        where = context.store.root / Path(origin) / "record.jsonl"
        for entry in parse(context.scope.read(where), origin)[0]:
            if entry.kind == "plan" and entry.body["plan"]["artifact"]["digest"] == digest:
                yield str(entry.body["plan"]["artifact"]["path"])
    before, found, after = template.partition("{release}")
    if found and before.endswith("/") and "{" not in after:
        names = context.scope.listing(project_path(before))
        yield from (before + name + after for name in names[-MOST:])


def artifact_or_none(context: Context, digest: str) -> Artifact | None:
    """The file of a build; a record of the store that is damaged tells of none."""
    try:
        return artifact_of(context, digest)
    except RecordDamaged:
        return None
