"""In a real browser: the notebook out of the box in a JupyterLab, and the page made of it."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from playwright.sync_api import expect

from runbook_lib.commands.evidence import page_of
from tests.stages.recovering import Recovering, fresh, recovering

from ..conftest import blank, ran, unmeasured
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


# --- The page that ``runbook render`` makes, as a reader's browser shows it -----------------------


HOSTILE = "<script>window.ran = 1</script><img src=x onerror='window.ran = 2'>"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebook as our engine leaves it, over the shipped recording."""
    output = tmp_path_factory.mktemp("executed") / NOTEBOOK
    project = Path(__file__).resolve().parents[2]
    argv = ("papermill", "--engine", "runbook", project / "notebooks" / NOTEBOOK, output)
    env = unmeasured() | {"RUNBOOK_REPLAY_OK": "1"}
    ran(sys.executable, "-m", *argv, env=env, check=True)
    return output


def show(watched: Watched, notebook: Path) -> None:
    page = notebook.with_suffix(".html")
    page.write_text(page_of(notebook), encoding="utf-8")
    watched.page.goto(page.as_uri())


def test_the_verdict_stands_on_the_first_screen(executed: Path, watched: Watched) -> None:
    """Outcome, release and every item, without scrolling, and nothing is asked of anybody."""
    show(watched, executed)

    page = watched.page
    expect(page.get_by_text("✓ PASS · development · v1.4.0").first).to_be_in_viewport(ratio=1)
    expect(page.get_by_text("11 items: 11 ✓ PASS").first).to_be_in_viewport(ratio=1)
    page.screenshot(path=executed.with_suffix(".png"))
    assert (watched.outside, watched.errors) == ([], [])


def test_it_says_the_same_without_any_style(executed: Path, watched: Watched) -> None:
    """A forge drops every style: the text is equal, figures stay, nothing is wider than the page."""
    show(watched, executed)
    page = watched.page
    before = page.locator("body").inner_text()

    page.evaluate("document.querySelectorAll('[style]').forEach(e => e.removeAttribute('style'))")

    assert page.locator("body").inner_text().split() == before.split()
    widths = page.evaluate("[document.body.scrollWidth, document.body.clientWidth]")
    assert widths[0] == widths[1]
    shown = page.locator("img").evaluate_all("all => all.map(i => i.naturalWidth > 300)")
    assert shown and all(shown)


def test_nothing_in_a_hostile_notebook_runs(tmp_path: Path, watched: Watched) -> None:
    """Scripts, handlers, forms and links elsewhere in outputs and prose are shown, not obeyed."""
    elsewhere = "<meta http-equiv='refresh' content='0;url=http://192.0.2.1/'>"
    data = {"text/html": HOSTILE + elsewhere, "text/plain": HOSTILE}
    output = new_output("display_data", data)
    svg = new_output(
        "display_data", {"image/svg+xml": "<svg onload='window.ran = 3'><script>1</script></svg>"}
    )
    cells = [
        new_markdown_cell(HOSTILE + "[link](javascript:window.ran=4)"),
        new_code_cell(HOSTILE, outputs=[output, svg]),
    ]
    path = tmp_path / "hostile.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)

    show(watched, path)
    for link in watched.page.get_by_role("link").all():
        link.click()

    assert watched.page.evaluate("window.ran") is None
    assert (watched.page.url, watched.outside) == (path.with_suffix(".html").as_uri(), [])
