"""What ships with the notebooks says nothing of the machine it was made on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from runbook_lib.outcomes import Row
from runbook_lib.playbook import NOTEBOOKS, REPORT
from runbook_lib.replaying import RECORDINGS
from runbook_lib.strict import PROJECT

MACHINE = re.compile(
    rb"(?<![\w.}-])/(?:home|root|tmp|work|Users|private|builds|mnt|srv)/[\w.-]|[A-Z]:\\\\Users"
)
SHIPPED = sorted(PROJECT.glob("notebooks/*.ipynb")) + sorted(PROJECT.glob("notebooks/recordings/*"))


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.name)
def test_nothing_shipped_holds_a_path_of_a_machine(shipped: Path) -> None:
    """Neither a usual place of homes and builds, nor the folder that the project lies in here."""
    here = str(PROJECT).encode()
    found = [
        f"{path.relative_to(PROJECT)}: {MACHINE.search(data) or here!r}"
        for path in _files(shipped)
        if MACHINE.search(data := path.read_bytes()) or here in data
    ]

    assert found == []


def test_a_path_of_a_machine_is_recognised() -> None:
    for text in (b'"/home/anna/chain"', b"Unit Testing:  /tmp/x/a.yaml", b"file: /root/.cache"):
        assert MACHINE.search(text)
    for text in (
        b"chain/.github/workflows/x.yml",
        b"{project}/work/x",
        b"https://a.example/home/x",
    ):
        assert not MACHINE.search(text)


@pytest.mark.parametrize("runbook", [name for name in NOTEBOOKS if name != REPORT])
def test_a_shipped_notebook_shows_what_its_recording_holds(runbook: str) -> None:
    """Its outputs are of today's code (nbval), its recording of the code it was made with: one result."""
    lines = (RECORDINGS / runbook / "record.jsonl").read_text().splitlines()
    bodies = [e["body"] for e in map(json.loads, lines) if e["kind"] == "result"]
    recorded = {(b["item"], b["number"]): b["result"] for b in bodies}
    book = json.loads((PROJECT / "notebooks" / NOTEBOOKS[runbook]).read_text())
    data = [
        output.get("data", {}).get("application/vnd.rpp-runbook.v1+json", {})
        for cell in book["cells"]
        for output in cell.get("outputs", ())
    ]
    shown = [one["standing"] for one in data if one.get("kind") == "result"]
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
