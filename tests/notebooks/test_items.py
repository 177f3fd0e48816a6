"""Every item of a stage stands in its notebook, once, in the playbook's order, as a cell of its own."""

from __future__ import annotations

import importlib
import re
import runpy
from collections import Counter

import pytest

from runbook_lib import notebook, playbook
from runbook_lib.strict import PROJECT

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
