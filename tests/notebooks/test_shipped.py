"""What ships with the notebooks says nothing of the machine it was made on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
