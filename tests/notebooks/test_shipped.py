"""What ships with the notebooks says nothing of the machine it was made on."""

import importlib
import json
import re
import runpy
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from runbook_lib import notebook, playbook
from runbook_lib.outcomes import Row
from runbook_lib.playbook import NOTEBOOKS, REPORT
from runbook_lib.recording import RECORDINGS, recording
from runbook_lib.sources.tape import read_entries
from runbook_lib.strict import PROJECT

MACHINE = re.compile(
    rb"(?<![\w.}-])/(?:home|root|tmp|work|Users|private|builds|mnt|srv)/[\w.-]|[A-Z]:\\\\Users"
)
SHIPPED = sorted(PROJECT.glob("notebooks/*.ipynb")) + sorted(PROJECT.glob("notebooks/recordings/*"))


def _contents(path: Path) -> dict[str, bytes]:
    """A file's bytes, or those of each member of an archive."""
    if path.suffix != ".zip":
        return {path.name: path.read_bytes()}
    with zipfile.ZipFile(path) as archive:
        return {f"{path.name}/{name}": archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.name)
def test_nothing_shipped_holds_a_path_of_a_machine(shipped: Path) -> None:
    """Neither a usual place of homes and builds, nor the folder that the project lies in here."""
    here = str(PROJECT).encode()
    found = [
        f"{name}: {MACHINE.search(data) or here!r}"
        for name, data in _contents(shipped).items()
        if MACHINE.search(data) or here in data
    ]

    assert found == []


def test_the_recordings_are_small() -> None:
    """One archive a notebook, ten megabytes in all: a clone is quick, and stays so."""
    archives = sorted(RECORDINGS.iterdir())

    assert [path.stem for path in archives] == sorted(NOTEBOOKS)
    assert sum(path.stat().st_size for path in archives) <= 10_000_000


@pytest.mark.parametrize("runbook", list(NOTEBOOKS))
def test_no_question_of_a_recorded_run_has_two_answers(runbook: str) -> None:
    """A replay could not tell which of them was judged."""
    entries = read_entries(recording(runbook) / "tape")
    answers = {one.slot: (one.meta, one.body) for one in entries}
    twice = [one.slot for one in entries if answers[one.slot] != (one.meta, one.body)]

    assert [slot for slot in twice if slot[0] in playbook.ITEMS] == []


def test_a_path_of_a_machine_is_recognised() -> None:
    for text in (b'"/home/anna/chain"', b"Unit Testing:  /tmp/x/a.yaml", b"file: /root/.cache"):
        assert MACHINE.search(text)
    for text in (
        b"chain/.github/workflows/x.yml",
        b"{project}/tmp/x",
        b"https://a.example/home/x",
    ):
        assert not MACHINE.search(text)


@pytest.mark.parametrize("runbook", [name for name in NOTEBOOKS if name != REPORT])
def test_a_shipped_notebook_shows_what_its_recording_holds(runbook: str) -> None:
    """Its outputs are of today's code (nbval), its recording of the code it was made with: one result."""
    lines = (recording(runbook) / "log.jsonl").read_text().splitlines()
    bodies = [e for e in map(json.loads, lines) if e["kind"] == "result"]
    recorded = {(b["item"], b["number"]): b["result"] for b in bodies}
    book = json.loads((PROJECT / "notebooks" / NOTEBOOKS[runbook]).read_text())
    data = [
        output.get("data", {}).get("application/vnd.rpp-runbook.v1+json", {})
        for cell in book["cells"]
        for output in cell.get("outputs", ())
    ]
    shown = [one["status"] for one in data if one.get("kind") == "result"]
    judged = {(one["item"], one["number"]): one["result"] for one in shown if one.get("result")}

    assert judged
    for key, result in judged.items():
        rows = [
            Row.model_validate_json(json.dumps(row)) for row in result["rows"]
        ]  # shown without what is usual
        assert rows == [
            Row.model_validate_json(json.dumps(row)) for row in recorded[key]["rows"]
        ], key
        assert result["reason"] == recorded[key]["reason"], key


# --- every item of a stage stands in its notebook, once, in the playbook's order ------------------


CELL = re.compile(r"(?:stage|run)\.(?:check|change)\((\w+)\.(\w+)\)")


def items(name: str) -> list[str]:
    """The items of a notebook's cells, in order."""
    found = []
    for cell in notebook.code_cells(notebook.read(notebook.NOTEBOOKS / name)):
        match = CELL.fullmatch(notebook.source(cell).strip())
        if match:
            module = importlib.import_module(f"runbook_lib.checks.{match[1]}")
            found.append(getattr(module, match[2]).item)
    return found


@pytest.mark.parametrize("runbook", playbook.NOTEBOOKS)
def test_a_notebook_has_a_cell_for_each_item_it_declares(runbook: str) -> None:
    assert items(playbook.NOTEBOOKS[runbook]) == list(playbook.DECLARED[runbook])


def test_every_item_but_the_common_ones_stands_in_exactly_one_notebook() -> None:
    counted = Counter(item for name in playbook.NOTEBOOKS.values() for item in items(name))
    wanted = [i for i in playbook.ITEMS if not i.startswith("preflight.")]

    assert {item: counted[item] for item in wanted} == dict.fromkeys(wanted, 1)


def test_the_page_of_items_is_current() -> None:
    """All 41, out of the playbook and the faults; `python scripts/items.py` writes it anew."""
    made = runpy.run_path(str(PROJECT / "scripts" / "items.py"))["table"]()

    assert (PROJECT / "docs" / "items.md").read_text("utf-8") == made
    assert sum(line.startswith("| `") for line in made.splitlines()) == 41
