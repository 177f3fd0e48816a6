"""The development baseline against the previous release's: shown, and no item of the playbook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..context import Context
from ..errors import SourceError
from ..evidence.record import Entry, parse
from ..outcomes import CheckResult, Outcome
from .baselines import FILE, baseline, read_catalogue
from .marks import happened, restarts

if TYPE_CHECKING:
    from ..metrics.compare import Windows
    from ..metrics.pinned import About, Measured


def previous_release(context: Context) -> Windows:
    """This attempt's baseline judged against that of the release that ran here before.

    Raises SourceError where there is nothing to compare, saying what is missing.
    """
    from ..metrics.compare import Windows, compare, load_words
    from ..metrics.pinned import read

    now = _last(context.journal)
    path = context.folder / FILE
    if now is None or not path.exists():
        raise SourceError("this attempt", "expected a captured baseline, got none")
    # Our own evidence, which a replay writes again: it is no input of the tape.
    current = read(path.read_bytes(), *_captured(now), "this attempt's baseline")
    catalogue, before = read_catalogue(context), _previous(context)
    compared = compare(
        catalogue,
        before,
        current,
        max_missing=context.params.max_missing,
        names={node.validator: node.name for node in context.cluster.nodes},
        restarts=restarts(context.journal),
    )
    marks, note = happened(context, current.about.start, current.about.end)
    loads = load_words(catalogue.load, before, current)
    return Windows(compared, tuple(marks), f"{loads}; {note}" if note else loads)


def _previous(context: Context) -> Measured:
    """What the newest attempt of the previous release pinned for this cluster. Raises SourceError."""
    from ..metrics.pinned import read

    scope, store, release = context.scope, context.store, context.params.previous_release
    if not release:
        raise SourceError("previous_release", "expected a release to compare with, got none")
    folder = store.root / release / context.stage
    for number in sorted((n for n in scope.listing(folder) if n.isdigit()), reverse=True):
        where = f"{release}/{context.stage}/{number}"
        entries, _ = parse(scope.read(folder / number / "record.jsonl"), where)
        result = _last(entries)
        if result is None or not _same_place(entries, context):
            continue
        about, queries = _captured(result)
        pinned = store.pinned(context.cluster_name, about.digest, ".parquet")
        return read(scope.read(pinned), about, queries, f"{where}: baseline")
    raise SourceError(release, f"expected a baseline pinned for {context.cluster_name}, got none")


def _last(entries: Sequence[Entry]) -> CheckResult | None:
    """The last judgement of the baseline, when it passed."""
    from ..canonical import canonical

    bodies = [
        entry.body["result"]
        for entry in entries
        if entry.kind == "result" and entry.body["item"] == baseline.item
    ]
    if not bodies:
        return None
    last = CheckResult.model_validate_json(canonical(bodies[-1]))
    return last if last.outcome is Outcome.PASS else None


def _captured(result: CheckResult) -> tuple[About, dict[str, str]]:
    """What was captured, and by metric its query. Raises SourceError."""
    from pydantic import ValidationError

    from ..canonical import canonical
    from ..metrics.pinned import About

    about, queries = dict(result.data), result.data.get("metrics")
    about.pop("metrics", None)
    try:
        if not isinstance(queries, dict):
            raise TypeError("metrics")
        found = About.model_validate_json(canonical(about))
    except (TypeError, ValidationError) as error:
        got = ", ".join(sorted(result.data)) or "none"
        raise SourceError(
            result.item, f"expected a digest and metrics in its data, got {got}"
        ) from error
    return found, {metric: str(query) for metric, query in queries.items()}


def _same_place(entries: Sequence[Entry], context: Context) -> bool:
    """Whether a record is of a live run on this cluster."""
    opened = entries[0].body
    return bool(opened["source"] != "replay" and opened["cluster"] == context.cluster_name)
