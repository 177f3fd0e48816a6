"""Whether a snapshot bundle is whole: its manifest, whose signature is on it, every chunk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..canonical import digest_bytes
from ..context import Context
from ..errors import SourceError
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..sources import snapshots
from ..sources.keys import Refused
from ..sources.local import FileDigest
from ..sources.snapshots import About, Bundle, Manifest

SHOWN = 20


@dataclass(frozen=True)
class Whole:
    """What was seen of a bundle; without a digest its manifest could not be read."""

    rows: list[Row]
    digest: str = ""
    size: int = 0


def signature_row(name: str, what: str, signed: str | SourceError | Refused) -> Row:
    # Nor is one that is not there waived: whoever cannot forge it could take it away.
    what, wanted = f"signature of {what}", "a listed key's"
    if isinstance(signed, SourceError):
        return unknown_row(name, what, wanted, signed.problem, waivable=False)
    if isinstance(signed, Refused):
        return check_row(name, what, wanted, str(signed), ok=False, waivable=False)
    return check_row(name, what, wanted, signed, ok=True)


def whole(context: Context, bundle: Bundle, keys: snapshots.Keys) -> Whole:
    """The manifest, whose it is, and every chunk it names."""
    name = bundle.name
    path = bundle.path / snapshots.MANIFEST
    try:
        text, manifest = snapshots.read_manifest(context.scope, bundle)
    except SourceError as error:
        return Whole([unknown_row(name, "manifest", "readable", error.problem)])
    digest = digest_bytes(text)
    signed = snapshots.signature(context.scope, path, text, keys)
    rows = [signature_row(name, snapshots.MANIFEST, signed)]
    if isinstance(bundle.about, About):
        bound = bundle.about.manifest
        what = "manifest named by bundle.json"
        rows.append(check_row(name, what, bound, digest, bound == digest, waivable=False))
    bad = _chunks(context, bundle.path / "chunks", manifest, name)
    if not bad:
        what = f"{len(manifest.segments):,} chunks of {manifest.size:,} bytes"
        rows.append(check_row(name, "chunks", what, what, ok=True))
    rows += bad[:SHOWN]
    if left := bad[SHOWN:]:
        fails = any(row.outcome is Outcome.FAIL for row in left)
        outcome = Outcome.FAIL if fails else Outcome.INCONCLUSIVE
        waivable = all(row.waivable for row in left)
        got = f"{len(left):,} are not"
        rows.append(check_row(name, "further chunks", "whole", got, outcome, waivable=waivable))
    return Whole(rows, digest, manifest.size)


def _chunks(context: Context, folder: Path, manifest: Manifest, name: str) -> list[Row]:
    """A row for each chunk that is missing, unreadable, or not what the manifest says."""
    there = set(context.scope.listing(folder))
    rows = [
        check_row(name, f"chunk {segment.segment_name}", "there", "missing", ok=False)
        for segment in manifest.segments
        if segment.segment_name not in there
    ]
    wanted = [one for one in manifest.segments if one.segment_name in there]
    for algorithm in ("sha256", "blake2b"):
        mine = [one for one in wanted if manifest.expected(one).startswith(f"{algorithm}:")]
        paths = [folder / one.segment_name for one in mine]
        got = context.scope.file_digests(paths, algorithm)
        for segment, seen in zip(mine, got, strict=True):
            rows += _chunk(name, segment, manifest.expected(segment), seen)
    return rows


def _chunk(
    name: str, segment: snapshots.Segment, expected: str, seen: FileDigest | SourceError
) -> Iterable[Row]:
    what = f"chunk {segment.segment_name}"
    if isinstance(seen, SourceError):
        yield unknown_row(name, what, expected, seen.problem)
    elif seen.size != segment.size_bytes:
        size = segment.size_bytes
        yield check_row(name, what, size, seen.size, ok=False, unit="bytes", waivable=False)
    elif seen.digest != expected:
        yield check_row(name, what, expected, seen.digest, ok=False, waivable=False)
