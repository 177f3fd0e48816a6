"""Sealing an attempt that a person stepped through: judged by the same rule as a headless one."""

from __future__ import annotations

from pathlib import Path

from .. import display, notebook, playbook
from ..errors import NotebookError
from ..replaying import recorded_site
from ..sources.redact import Redactor
from ..verdicts import Verdict
from . import seal
from .record import Record
from .standing import verdict


def seal_by_hand(folder: Path) -> Verdict:
    """Put the verdict card on the notebook in ``folder`` and seal it. Raises NotebookError."""
    entries = Record(folder / "record.jsonl").entries()
    stage = entries[0].body.get("stage") if entries else None
    if stage not in playbook.NOTEBOOKS:
        raise NotebookError(f"{folder.name}: expected an attempt's folder, got none")
    if not any(entry.kind == "session" for entry in entries):
        raise NotebookError(
            f"{folder.name}: expected a notebook that was stepped through, got none of its cells run;"
            " run and save it, then seal"
        )
    name = playbook.NOTEBOOKS[stage]
    path = folder / name
    if not path.is_file() and (undoes := entries[0].body.get("undoes")):
        # Stepped through where the undone apply laid it ready.
        path = folder.parents[2] / undoes["name"] / "recovery" / name
    if not path.is_file():
        raise NotebookError(
            f"{folder.name}: {name}: expected the notebook to seal, got none; save it"
        )
    book = notebook.read(path)
    code = notebook.code_digest(book)
    foreign = code != notebook.known_digests().get(name)
    problems = ["notebook: its code is not the one we ship: foreign"] if foreign else []
    found = verdict(entries, problems)
    redactor = Redactor(recorded_site(folder, "recorded site").secret_names())
    card = display.verdict_card(found)
    data, leaked = seal.serialise(
        {**book, "cells": seal.with_card(list(book.cells), card)}, redactor
    )
    if leaked:
        found = verdict(entries, [*problems, "notebook: a secret stood in an output; taken out"])
        card = display.verdict_card(found)
        book["cells"] = seal.with_card(list(book.cells), card)
        data, _ = seal.serialise(book, redactor)
    seal.seal(folder, name, data, found, code=code, foreign=foreign)
    return found
