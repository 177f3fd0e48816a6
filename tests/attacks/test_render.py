"""A page shows what was verified above what the notebook says, and nothing of it can pass for ours."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest

from runbook_lib.commands.evidence import page_of
from runbook_lib.evidence.replay import seal_by_hand
from runbook_lib.notebook import NOTEBOOKS

from ..conftest import FAIL, Terminal, trust_of

BOOK = "10_development.ipynb"
GREEN = "#2e7d32"


class Page(HTMLParser):
    """The text and styles of a page's title and head, and what its notebook's part is made of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = {"title": "", "header": "", "main": "", "style": ""}
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self._at = "style"
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._at == "main":
            self.tags.add(tag)
            self.attributes += attrs
        elif tag in self.text:
            self._at = tag
        self.text[self._at] += "" if self._at == "main" else str(attrs)

    def handle_data(self, data: str) -> None:
        self.text[self._at] += data


def altered(folder: Path, html: str) -> Page:
    """The page of a notebook whose prose and outputs are ``html``."""
    output = nbformat.v4.new_output("display_data", {"text/html": html})
    code = nbformat.v4.new_code_cell("1", outputs=[output])
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(html), code])
    nbformat.write(book, folder / BOOK)
    return Page(page_of(folder / BOOK))


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
    page = altered(practice.folder(), html)

    assert "default-src 'none'; img-src data:" in page.text["style"]
    assert page.text["title"].startswith("[]NOT PROVEN · 10_development")
    assert "the evidence does not verify: nothing below is proven" in page.text["header"]
    assert "altered: 10_development.ipynb" in page.text["header"]
    assert GREEN not in page.text["header"] and "kept" in page.text["main"]
    assert page.tags & {"style", "header", "link", "font", "script", "meta", "base", "form", "svg",
                        "iframe", "button", "main"} == set()  # fmt: skip
    allowed = {"style", "align", "open", "alt", "rel", "colspan", "rowspan"}
    assert {name for name, _ in page.attributes} <= allowed
    styles = {(value or "").partition(":")[0] for name, value in page.attributes if name == "style"}
    assert styles <= {"", "text-align", "white-space"}


def test_sound_evidence_says_what_was_verified_and_the_logs_verdict(practice: Any) -> None:
    """Step by step, above the notebook; once its log was altered, no card of ours repeats it."""
    folder = practice.sealed()
    trust = trust_of(folder)
    page, unasked = Page(page_of(folder / BOOK, trust)), Page(page_of(folder / BOOK))
    log = folder / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"alice"', b'"mallo"'))
    forged = Page(page_of(folder / BOOK, trust))

    assert page.text["title"].startswith("[]PASS · 10_development")
    assert "✓ PASS · development · v1.4.0" in page.text["header"]
    assert "evidence: PASS" in page.text["header"] and "2 signers" in page.text["header"]
    assert unasked.text["title"].startswith("[]NOT PROVEN")
    assert "the signature was not compared" in unasked.text["header"]
    assert "✓ PASS" not in unasked.text["header"]
    assert forged.text["title"].startswith("[]NOT PROVEN")
    assert "its log says" in forged.text["header"] and "✓ PASS" not in forged.text["header"]


def test_a_notebook_outside_an_attempt_proves_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that we ship, too: its page goes to the working directory, through no link there."""
    terminal = Terminal(capsys)
    monkeypatch.chdir(tmp_path)
    assert terminal.run("render", NOTEBOOKS / BOOK) == 0
    assert terminal.out == "10_development.html\n"
    page = Page((tmp_path / "10_development.html").read_text())
    said = "nothing was verified: this is no sealed notebook in an attempt's folder"
    assert page.text["title"].startswith("[]NOT PROVEN") and said in page.text["header"]

    (tmp_path / "10_development.html").unlink()
    (tmp_path / "10_development.html").symlink_to(tmp_path / "elsewhere")
    assert terminal.run("render", NOTEBOOKS / BOOK) == 3
    assert terminal.run("render", NOTEBOOKS / BOOK, "-o", NOTEBOOKS / "x.html") == 3
    assert not (tmp_path / "elsewhere").exists() and not (NOTEBOOKS / "x.html").exists()
