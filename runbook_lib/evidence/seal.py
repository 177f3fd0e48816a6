"""Sealing: the executed notebook is filed in the attempt, and a manifest lists every file's digest.

The verdict card goes first into the notebook, the notebook is scanned for secrets, the record gets
its ``sealed`` entry, and then the manifest is written over all of it. A later try is sealed again;
the earlier notebook and manifest stay beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import display, notebook
from ..canonical import canonical, digest_bytes, digest_file
from ..errors import NotebookError, RecordDamaged
from ..files import is_left_of, replace_file
from ..sources.local import MAX_RECORD, require_size
from ..sources.redact import Redactor
from ..verdicts import Verdict
from . import outbox
from .record import Entry, Record
from .standing import verdict as verdict_of

MANIFEST = "manifest.json"
OUTBOX = "outbox/release-issue.json"
"""What is still to be published: written after the seal, and no part of the evidence."""
SEALED = ("outcome", "exit_code", "broken", "notebook", "code", "foreign")
"""What the ``sealed`` entry and the manifest both say."""


def with_card(cells: list[Any], card: display.Card) -> list[Any]:
    """The cells with the verdict card first, an older one replaced."""
    rest = [
        cell
        for cell in cells
        if not (notebook.VERDICT in notebook.tags(cell) and cell["cell_type"] == "code")
    ]
    data, metadata = card._repr_mimebundle_()
    output = {"output_type": "display_data", "data": data, "metadata": metadata}
    first = {
        "cell_type": "code",
        "id": "verdict",
        "metadata": {"tags": [notebook.VERDICT]},
        "execution_count": None,
        "source": notebook.VERDICT_SOURCE,
        "outputs": [output],
    }
    return [first, *rest]


def serialise(book: Mapping[str, Any], redactor: Redactor) -> tuple[bytes, bool]:
    """The notebook's bytes without secrets, and whether one had to be taken out."""
    text = json.dumps(book, ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n"
    clean = redactor.clean(text)
    return clean, clean != text


def seal(
    folder: Path, name: str, data: bytes, verdict: Verdict, *, code: str, foreign: bool
) -> Path:
    """File ``data`` as the executed notebook of an attempt and write the manifest over everything.

    ``code`` is the digest of the notebook's code; ``foreign``: it is not one of ours.
    """
    target = folder / name
    record = Record(folder / "record.jsonl")
    sealed = {entry.body["digest"] for entry in record.entries() if entry.kind == "sealed"}
    if target.exists() and digest_file(target) in sealed:
        _keep_earlier(target)
    _keep_earlier(folder / MANIFEST)
    replace_file(target, data)
    record.append(
        "sealed",
        {
            "notebook": name,
            "digest": digest_bytes(data),
            "code": code,
            "foreign": foreign,
            "outcome": verdict.outcome.value,
            "exit_code": int(verdict.exit_code),
            "broken": list(verdict.broken),
            "number": verdict.number,
        },
    )
    about = manifest(record.entries(), file_digests(folder))
    replace_file(folder / MANIFEST, canonical(about) + b"\n")
    return target


def manifest(entries: Sequence[Entry], files: Mapping[str, str]) -> dict[str, Any]:
    """What stands in ``manifest.json``: nothing that does not follow from the record and the files.

    ``entries`` end with the ``sealed`` one. Raises RecordDamaged when they do not.
    """
    if not entries or entries[-1].kind != "sealed":
        raise RecordDamaged("record: expected it to end with its seal, it does not")
    sealed = entries[-1].body
    final = verdict_of(entries)
    return {
        "version": 1,
        "release": final.release,
        "commit": final.commit,
        "stage": final.stage,
        "attempt": final.attempt,
        "mode": final.mode,
        "source": final.source,
        "run": final.run,
        **{key: sealed[key] for key in SEALED},
        "record": {"entries": len(entries), "head": entries[-1].hash},
        "sealed_at": entries[-1].at,
        "files": dict(files),
    }


def file_digests(folder: Path) -> dict[str, str]:
    """Relative path -> digest of every file but the manifest itself. Raises NotebookError for links."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise NotebookError(
                f"{name}: expected a regular file in the evidence, got another kind"
            )
        require_size(path, path.stat().st_size, MAX_RECORD)
        if path.is_file() and name != MANIFEST and not _passing(name):
            found[name] = digest_file(path)
    return found


def _passing(name: str) -> bool:
    """What Jupyter leaves beside a notebook that was looked at, a manifest half written, the outbox,
    and the way back that lies ready to be used.
    """
    jupyter = ".ipynb_checkpoints/" in f"/{name}" or name.split("/")[-1].startswith(".~")
    ours = name.startswith("recovery/") or outbox.is_ours(name)
    return jupyter or ours or name == OUTBOX or is_left_of(name, MANIFEST)


def _keep_earlier(path: Path) -> None:
    if path.exists():
        number = 1 + len(list(path.parent.glob(f"{path.stem}.try*{path.suffix}")))
        path.rename(path.with_name(f"{path.stem}.try{number}{path.suffix}"))
