"""The development baseline against the previous release's: shown, and no item of the playbook."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from ..context import Context
from ..errors import SourceError
from ..evidence.record import Entry, parse
from ..outcomes import CheckResult, Outcome
from .baselines import FILE, baseline, read_catalogue

if TYPE_CHECKING:
    from ..metrics.compare import Compared, Stretch
    from ..metrics.pinned import About, Measured


def previous_release(context: Context) -> Sequence[Compared]:
    """This attempt's baseline judged against that of the release that ran here before.

    Raises SourceError where there is nothing to compare, saying what is missing.
    """
    from ..metrics.compare import compare
    from ..metrics.pinned import read

    now = _last(context.journal)
    path = context.folder / FILE
    if now is None or not path.exists():
        raise SourceError("this attempt", "expected a captured baseline, got none")
    # Our own evidence, which a replay writes again: it is no input of the tape.
    current = read(path.read_bytes(), *_captured(now), "this attempt's baseline")
    return compare(
        read_catalogue(context),
        _previous(context),
        current,
        max_missing=context.params.max_missing,
        names={node.validator: node.name for node in context.cluster.nodes},
        restarts=restarts(context.journal),
    )


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


def restarts(journal: Sequence[Entry]) -> list[Stretch]:
    """From the intent to restart a node until its rates have settled, by the journal."""
    from ..metrics.baseline import SETTLE

    found: list[Stretch] = []
    begun: dict[str, datetime] = {}
    for entry in journal:
        if entry.kind == "step" and entry.body["step"].startswith("restart"):
            at = datetime.fromisoformat(entry.body["at"])
            start = begun.setdefault(entry.body["node"], at)
            if entry.body["phase"] != "intent":
                found.append((start, at + SETTLE))
                del begun[entry.body["node"]]
    return found
