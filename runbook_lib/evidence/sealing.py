"""Sealing: the executed notebook is filed in the attempt, and a statement about every file is signed.

The verdict card goes first into the notebook, the notebook is scanned for secrets, the log gets
its ``sealed`` event, and then an attestation is written over all of it. The earlier notebook and
attestations stay beside it.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .. import display, notebook
from ..canonical import canonical, digest_bytes, digest_file
from ..errors import NotebookError
from ..files import place, replace_file
from ..signatures import Envelope
from ..signers import Signing
from ..sources.redact import Redactor
from ..verdicts import Verdict
from .events import Sealed, of
from .log import Log
from .seal import FOLDER, file_digests, seals, statement
from .status import verdict

LEAKED = "notebook: a secret stood in an output and was taken out; find out how"


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


def judge_and_seal(
    folder: Path,
    name: str,
    book: Mapping[str, Any],
    problems: list[str],
    card: Callable[[Verdict], display.Card],
    redactor: Redactor,
    **how: Any,
) -> tuple[Verdict, bytes]:
    """Judge an attempt by its log, and seal the notebook with the verdict's card and no secret.

    ``problems`` are known beside the log; a secret in an output is one more. ``how``: as in ``seal``.
    """
    while True:
        found = verdict(Log(folder / "log.jsonl").events(), problems)
        carded = {**book, "cells": with_card(list(book["cells"]), card(found))}
        text = json.dumps(carded, ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n"
        data = redactor.clean(text)
        if data == text or LEAKED in problems:
            seal(folder, name, data, found, **how)
            return found, data
        problems.append(LEAKED)


def seal(
    folder: Path,
    name: str,
    data: bytes,
    judged: Verdict,
    *,
    code: str,
    foreign: bool,
    signing: Signing = Signing(),  # noqa: B008 - nothing in it changes
) -> Path:
    """File ``data`` as the executed notebook of an attempt and attest to everything.

    ``code`` is the digest of the notebook's code; ``foreign``: it is not one of ours.
    """
    target, before = folder / name, seals(folder)
    log = Log(folder / "log.jsonl")
    sealed = {event.digest for event in of(log.events(), Sealed)}
    if target.exists() and digest_file(target) in sealed:
        _keep_earlier(target)
    replace_file(target, data)
    made = Sealed(
        notebook=name,
        digest=digest_bytes(data),
        code=code,
        foreign=foreign,
        outcome=judged.outcome,
        exit_code=int(judged.exit_code),
        broken=judged.broken,
        number=judged.number,
    )
    log.append(made)
    previous = before[-1].digest if before else ""
    about = statement(log.events(), file_digests(folder), previous)
    _write(folder, 1 + len(before), Envelope(canonical(about)), signing)
    return target


def countersign(folder: Path, signing: Signing) -> Path:
    """One more signature over the newest seal's payload. Raises NotebookError when there is none."""
    found = seals(folder)
    if not found:
        raise NotebookError(f"{folder.name}: expected a sealed attempt, got none; seal it first")
    return _write(folder, found[-1].number, Envelope(found[-1].payload), signing)


def _write(folder: Path, number: int, envelope: Envelope, signing: Signing) -> Path:
    path, keyid = place(folder, f"{FOLDER}/{number:04d}.{signing.name}.json"), ""
    if signing.signer is not None:
        envelope, keyid = envelope.signed(signing.signer), signing.signer.public_key.keyid
    if path.exists():
        raise NotebookError(f"{path.name}: expected no such attestation yet, got one; it is kept")
    replace_file(path, envelope.dump(keyid))
    return path


def _keep_earlier(path: Path) -> None:
    number = 1 + len(list(path.parent.glob(f"{path.stem}.run*{path.suffix}")))
    path.rename(path.with_name(f"{path.stem}.run{number}{path.suffix}"))
