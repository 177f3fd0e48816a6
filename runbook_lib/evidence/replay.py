"""Replaying an attempt: our own notebook over its tape, every result compared.

Never code from the evidence: the notebook that runs is the one that ships with this version.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import notebook, playbook
from ..display import verdict_card
from ..errors import LogDamaged, NotebookError
from ..files import keep_file
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..package import VERSION
from ..params import way_back
from ..recording import recorded_site
from ..signers import signed_text
from ..sources.local import plain_files
from ..sources.redact import Redactor
from ..strict import ATTEMPT
from ..verdicts import ItemStatus, Verdict
from . import sealing
from .events import Event, SessionOpened, of
from .log import Log, opened_by
from .status import statuses


def seal_by_hand(folder: Path, judged_again: Sequence[Row] = ()) -> Verdict:
    """Put the verdict card on the notebook in ``folder`` and seal it. Raises NotebookError.

    ``judged_again``: what a fresh kernel found over its tape; a difference breaks the run.
    """
    entries = Log(folder / "log.jsonl").events()
    opened = opened_by(entries, folder.name)
    if opened.stage not in playbook.NOTEBOOKS:
        raise NotebookError(f"{folder.name}: expected one of our stages, got {opened.stage!r}")
    if not of(entries, SessionOpened):
        raise NotebookError(
            f"{folder.name}: expected a notebook that was stepped through, got none of its cells run;"
            " run and save it, then seal"
        )
    name = playbook.NOTEBOOKS[opened.stage]
    path, undoes = folder / name, opened.undoes
    if not path.is_file() and undoes and ATTEMPT.fullmatch(undoes.name):
        # Stepped through where the undone apply laid it ready.
        path = folder.parents[2] / undoes.name / "recovery" / name
    if not path.is_file():
        raise NotebookError(
            f"{folder.name}: {name}: expected the notebook to seal, got none; save it"
        )
    book = notebook.read(path)
    code = notebook.code_digest(book)
    foreign = code != notebook.known_digests().get(name)
    problems = ["notebook: its code is not the one we ship: foreign"] if foreign else []
    problems += [
        f"judged again: {row.subject}: {row.what}: expected {row.expected}, got {row.observed}"
        for row in judged_again
        if row.outcome is not Outcome.PASS
    ]
    site = recorded_site(folder, "recorded site")
    signing = site.trust.own()
    found, _ = sealing.judge_and_seal(
        folder,
        name,
        book,
        problems,
        lambda found: verdict_card(found, signed=signed_text(signing)),
        Redactor(site.secret_names()),
        code=code,
        foreign=foreign,
        signing=signing,
    )
    if path.parent != folder:  # as it was attested with the apply that laid it ready
        applied = path.parents[1]
        values = way_back(opened_by(Log(applied / "log.jsonl").events(), applied.name))
        laid = notebook.filled_in(notebook.NOTEBOOKS / name, values)
        keep_file(applied, f"{path.parent.name}/{name}", laid)
    return found


Run = Callable[[str], Any]


def replay(folder: Path, run: Run) -> tuple[list[Row], str]:
    """Rows comparing each item's recorded result with the replayed one, and the version that
    recorded it. ``run(stage)`` runs our notebook headless. Raises LogDamaged.
    """
    plain_files(folder)
    recorded = Log(folder / "log.jsonl").events()
    opened = opened_by(recorded, folder.name)
    if opened.stage not in playbook.NOTEBOOKS:
        raise LogDamaged(f"{folder.name}: expected one of our stages, got {opened.stage!r}")
    with tempfile.TemporaryDirectory(prefix="runbook-replay-") as kept:
        report = _run(opened.stage, folder, Path(kept), run)
        path = Path(kept) / "log.jsonl"
        if not path.exists():
            why = "; ".join(report.problems) or "it was never opened"
            return [unknown_row("replay", "runs", "to its end", why)], VERSION
        again = Log(path).events()
    try:
        rows = compare(recorded, again)
    except Exception as error:  # whatever a hostile log makes us stumble over proves nothing
        problem = f"unreadable: {type(error).__name__}: {error}"
        rows = [unknown_row("replay", "the log", "readable", problem[:300])]
    rows += [unknown_row("replay", "runs", "to its end", why) for why in report.problems]
    return rows, opened.version


def _run(stage: str, folder: Path, kept: Path, run: Run) -> Any:
    asked = str(folder.resolve())
    with environment(RUNBOOK_REPLAY=asked, RUNBOOK_REPLAY_OK="1", RUNBOOK_REPLAY_KEEP=str(kept)):
        return run(stage)


def compare(recorded: Sequence[Event], again: Sequence[Event]) -> list[Row]:
    """One row an item: whether state, outcome, reason, rows and data are the same."""
    pairs = zip(statuses(recorded), statuses(again), strict=True)
    return [_compare(was, now) for was, now in pairs]


def _compare(was: ItemStatus, now: ItemStatus) -> Row:
    if was.state == "missing":
        text = f"{was.state}: {was.reason}"
        return check_row(was.item, "result", text, text, ok=now.state != "judged")
    keys = ("state", "outcome", "reason", "result")
    same = all(getattr(was, key) == getattr(now, key) for key in keys)
    return check_row(was.item, "result", _short(was), "the same" if same else _short(now), same)


def _short(standing: ItemStatus) -> str:
    return f"{standing.outcome} ({standing.state}): {standing.reason}"[:300]


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Variables that are set for a while; an empty value leaves one as it is."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: value for name, value in values.items() if value})
    try:
        yield
    finally:
        for name, old in before.items():
            os.environ.pop(name, None)
            if old is not None:
                os.environ[name] = old
