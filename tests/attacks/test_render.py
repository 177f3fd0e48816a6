"""A page shows what was verified above what the notebook says, and nothing of it can pass for ours."""

from pathlib import Path
from typing import Any

import nbformat
import pytest

from runbook_lib.commands.evidence import page_of
from runbook_lib.evidence.replay import seal_by_hand
from runbook_lib.notebook import NOTEBOOKS

from ..cards import Page
from ..conftest import FAIL, Terminal, trust_of

BOOK = "10_development.ipynb"
GREEN = "#2e7d32"


def parts(page: str) -> tuple[str, str, Page]:
    """Its head, the text and styles of what stands above the notebook, and the notebook's part."""
    above, _, book = page.partition("<main")
    head, _, ours = above.partition("<header")
    header = Page(f"<header{ours}")
    return head, f"{header.text} {header.attributes}", Page(f"<main{book.rpartition('</main>')[0]}")


def altered(folder: Path, html: str) -> tuple[str, str, Page]:
    """The page of a notebook whose prose and outputs are ``html``."""
    output = nbformat.v4.new_output("display_data", {"text/html": html})
    code = nbformat.v4.new_code_cell("1", outputs=[output])
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(html), code])
    nbformat.write(book, folder / BOOK)
    return parts(page_of(folder / BOOK))


@pytest.mark.parametrize(
    "html",
    [
        f"<style>body, header {{ background: {GREEN} }} header {{ display: none }}</style>kept",
        f"<div style='position:fixed;inset:0;margin:-9em;background:{GREEN}'>kept</div>",
        "</main><header class=x id=y>✓ PASS</header><table bgcolor=green><tr><td>kept</table>",
        f"<link rel=stylesheet href='data:text/css,*{{color:{GREEN}}}'><font color=green>kept</font>",
        "<img src=x onerror=alert(1)><details ontoggle=alert(1) open>kept</details>",
        "<a href='javascript:alert(1)' onclick=alert(1) ping=//evil>kept</a><img src=//evil/x>",
        "<a href='data:text/html,x'>kept</a><img src='data:image/svg+xml,<svg/>'>",
        "<meta http-equiv=refresh content='0;url=//evil'><base href=//evil><form action=//evil>kept",
        "<svg><script>alert(1)</script></svg><iframe src=//evil></iframe><button>kept</button>",
    ],
)
def test_a_fail_never_renders_green_and_nothing_in_it_is_active(practice: Any, html: str) -> None:
    """Of a notebook's part inert tags are kept, without colours or places; the head says what holds."""
    cards = practice.walk(practice.open(), ci_green=FAIL)
    practice.write_notebook(cards)
    seal_by_hand(practice.folder())
    head, header, book = altered(practice.folder(), html)

    assert "default-src 'none'; img-src data:" in head
    assert "<title>NOT PROVEN · 10_development" in head
    assert "the evidence does not verify: nothing below is proven" in header
    assert "altered: 10_development.ipynb" in header
    assert GREEN not in header and "kept" in book.text
    assert {*book.tags[1:]} & {"style", "header", "link", "font", "script", "meta", "base", "form",
                               "svg", "iframe", "button", "main"} == set()  # fmt: skip
    allowed = {"style", "align", "open", "alt", "rel", "colspan", "rowspan"}
    assert {name for name, _ in book.attributes} <= allowed
    styles = {(value or "").partition(":")[0] for name, value in book.attributes if name == "style"}
    assert styles <= {"", "text-align", "white-space"}


def test_sound_evidence_says_what_was_verified_and_the_logs_verdict(practice: Any) -> None:
    """Step by step, above the notebook; once its log was altered, no card of ours repeats it."""
    folder = practice.sealed()
    trust = trust_of(folder)
    head, header, _ = parts(page_of(folder / BOOK, trust))
    unasked = parts(page_of(folder / BOOK))[:2]
    log = folder / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"alice"', b'"mallo"'))
    forged = parts(page_of(folder / BOOK, trust))[:2]

    assert "<title>PASS · 10_development" in head
    for said in ("✓ PASS · development · v1.4.0", "evidence: PASS", "2 signers", GREEN):
        assert said in header
    for (head, header), said in (
        (unasked, "the signature was not compared"),
        (forged, "its log says"),
    ):
        assert "<title>NOT PROVEN" in head
        assert said in header and "✓ PASS" not in header


def test_a_notebook_outside_an_attempt_proves_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that we ship, too: its page goes to the working directory, through no link there."""
    terminal = Terminal(capsys)
    monkeypatch.chdir(tmp_path)
    assert terminal.run("render", NOTEBOOKS / BOOK) == 0
    assert terminal.out == "10_development.html\n"
    head, header, _ = parts((tmp_path / "10_development.html").read_text())
    said = "nothing was verified: this is no sealed notebook in an attempt's folder"
    assert "<title>NOT PROVEN" in head and said in header

    (tmp_path / "10_development.html").unlink()
    (tmp_path / "10_development.html").symlink_to(tmp_path / "elsewhere")
    assert terminal.run("render", NOTEBOOKS / BOOK) == 3
    assert terminal.run("render", NOTEBOOKS / BOOK, "-o", NOTEBOOKS / "x.html") == 3
    assert not (tmp_path / "elsewhere").exists() and not (NOTEBOOKS / "x.html").exists()
