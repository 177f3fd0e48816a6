"""The notebook out of the box, in a real JupyterLab: open it, Run All, read it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect

from tests.stages.recovering import Recovering, fresh, recovering

from ..conftest import blank
from .conftest import Watched, run_all

NOTEBOOK = "10_development.ipynb"
pytestmark = pytest.mark.browser


def test_run_all_replays_the_recording(lab: tuple[Path, str], watched: Watched) -> None:
    """No edit, no server, no network: every cell runs, the banner says replay, the verdict shows."""
    root, address = lab
    book = blank(NOTEBOOK)  # what shows afterwards is of this run
    nbformat.write(book, root / NOTEBOOK)
    page = watched.page

    run_all(page, address, NOTEBOOK)
    prompts = page.locator(".jp-CodeCell .jp-InputPrompt")
    count = sum(cell.cell_type == "code" for cell in book.cells)
    expect(prompts).to_have_text([f"[{n}]:" for n in range(1, count + 1)], timeout=60_000)

    outputs = page.locator(".jp-CodeCell .jp-OutputArea-output")
    notice = "REPLAY OF A RECORDING: nothing was asked or changed"
    expect(outputs.filter(has_text=notice)).to_have_count(2)
    verdict = outputs.last.get_by_text("✓ PASS · development · v1.4.0")
    verdict.scroll_into_view_if_needed()
    expect(verdict).to_be_in_viewport()
    page.screenshot(path=root.parent / "verdict.png")
    assert (watched.outside, watched.errors) == ([], [])


@pytest.fixture
def undone(tmp_path: Path) -> Iterator[tuple[Recovering, Path]]:
    """A canary that was applied, and the recovery notebook that lies ready in its attempt."""
    options = {"telemetry": True, "servers": "embedded", "history_s": 3600.0}
    with recovering(tmp_path / "network", **options) as network:
        made = fresh(network, "mainnet", 1)
        _, folder = made.apply("canary")
        yield made, folder / "recovery" / "35_canary_recovery.ipynb"


def test_the_recovery_that_lies_ready_takes_a_canary_back(
    undone: tuple[Recovering, Path], lab: tuple[Path, str], watched: Watched
) -> None:
    """No parameter to fill in: Run All, and rewards and witness are off. What people must be told
    nobody has written yet, and the report's card says so."""
    made, ready = undone
    root, address = lab
    shutil.copy(ready, root)
    page = watched.page
    assert any(made.gates("mainnet").values())

    run_all(page, address, ready.name)
    outputs = page.locator(".jp-CodeCell .jp-OutputArea-output")
    back = outputs.filter(has_text="canary.recover.disable-gates (change)").first
    expect(back).to_contain_text("✓ PASS", timeout=60_000)
    expect(outputs.filter(has_text="canary.recover.public-report (change)").first).to_contain_text(
        "summary", timeout=60_000
    )
    page.screenshot(path=root.parent / "recovery.png")

    assert not any(made.gates("mainnet").values())
    assert outputs.filter(has_text="REHEARSAL RECORDING").count() == 0
    assert watched.outside == []
