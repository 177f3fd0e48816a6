"""A page shows what was verified above what the notebook says, and nothing of it can pass for ours."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest

from runbook_lib.commands.evidence import page_of
from runbook_lib.evidence.replay import seal_by_hand
from runbook_lib.notebook import NOTEBOOKS

from ..commands.conftest import Terminal
from ..conftest import FAIL

BOOK = "10_development.ipynb"
GREEN = "#2e7d32"


class Page(HTMLParser):
    """A page's title, the text and styles above its notebook's part, and that part's tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.title, self.head, self.body = "", "", ""
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self._at = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._at = tag if tag in ("title", "header", "main", "style") else self._at
        if self._at == "main" and tag != "main":
            self.tags.append(tag)
            self.attributes += [(name, value or "") for name, value in attrs]
        elif self._at == "header":
            self.head += f" {dict(attrs).get('style') or ''} "

    def handle_data(self, data: str) -> None:
        if self._at == "title":
            self.title += data
        elif self._at == "header":
            self.head += data
        elif self._at == "main":
            self.body += data


def hostile(folder: Path, html: str) -> None:
    """The sealed notebook, altered: the output and the prose of every cell."""
    book = nbformat.read(folder / BOOK, as_version=4)
    output = nbformat.v4.new_output("display_data", {"text/html": html})
    book.cells = [
        nbformat.v4.new_markdown_cell(html),
        nbformat.v4.new_code_cell("1", outputs=[output]),
    ]
    nbformat.write(book, folder / BOOK)


def test_a_page_of_sound_evidence_says_what_was_verified_and_the_logs_verdict(
    practice: Any,
) -> None:
    """Each step of the procedure, above the notebook."""
    page = Page(page_of(practice.sealed() / BOOK))

    assert page.title == "PASS · 10_development"
    assert "✓ PASS · development · v1.4.0" in page.head
    assert "evidence: PASS" in page.head
    assert page.head.count("holds") >= 18


def fail(practice: Any) -> Path:
    stage = practice.open()
    cards = practice.walk(stage, ci_green=FAIL)
    practice.write_notebook(cards)
    folder: Path = practice.folder()
    seal_by_hand(folder)
    return folder


OVERLAYS = [
    f"<style>body, header {{ background: {GREEN}; }} header {{ display: none }}</style>",
    f"<div style='position:fixed;inset:0;background:{GREEN};color:{GREEN};margin:-9em'>PASS</div>",
    "</main><header>✓ PASS</header><table bgcolor=green class=x id=header><tr><td background=x></table>",
    f"<link rel=stylesheet href='data:text/css,*{{background:{GREEN}}}'><font color=green>PASS</font>",
    "<svg><style>*{background:green}</style></svg><math><mtext><style>*{}</style></math>",
]


@pytest.mark.parametrize("html", OVERLAYS)
def test_a_fail_never_renders_as_a_green_page(practice: Any, html: str) -> None:
    """Styles, places and colours of an output are dropped; title and head say what is known."""
    folder = fail(practice)
    hostile(folder, html)
    text = page_of(folder / BOOK)
    page = Page(text)

    assert page.title == "NOT PROVEN · 10_development"
    assert "the evidence does not verify: nothing below is proven" in page.head
    assert "2 files" in page.head and "altered: 10_development.ipynb" in page.head
    assert GREEN not in page.head and GREEN not in "".join(value for _, value in page.attributes)
    assert text.count("<header>") == text.count("</main>") == 1
    assert {"style", "link", "svg", "math", "font"} & set(page.tags) == set()
    styles = [value.partition(":")[0] for name, value in page.attributes if name == "style"]
    assert set(styles) <= {"text-align", "white-space", ""}
    assert [value for name, value in page.attributes if name in ("class", "id", "bgcolor")] == []


def test_an_honest_fail_is_no_green_page_either(practice: Any) -> None:
    """Its notebook shows cards that passed, and those are not green."""
    text = page_of(fail(practice) / BOOK)
    page = Page(text)

    assert page.title.endswith(" · 10_development") and not page.title.startswith("PASS")
    assert GREEN not in text


def test_a_pass_whose_log_was_altered_is_shown_as_not_proven(practice: Any) -> None:
    """What the log says is quoted; no card of ours repeats it."""
    folder = practice.sealed()
    path = folder / "record.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"alice"', b'"mallo"'))
    page = Page(page_of(folder / BOOK))

    assert page.title == "NOT PROVEN · 10_development"
    assert "✓ PASS" not in page.head
    assert "its log says" in page.head


@pytest.mark.parametrize(
    "html",
    [
        "<img src=x onerror=alert(1)><details ontoggle=alert(1) open><summary>kept</summary></details>",
        "<a href='javascript:alert(1)' onclick=alert(1) target=_top ping=//evil>kept</a>",
        "<a href='data:text/html,x'>kept</a><img src='data:image/svg+xml,<svg/>'><img src=//evil/x>",
        "<meta http-equiv=refresh content='0;url=//evil'><base href=//evil><form action=//evil>kept",
        "<template><script>alert(1)</script></template><noscript>kept</noscript><!--><script>x</script>-->",
    ],
)
def test_what_is_active_in_an_output_is_gone(tmp_path: Path, html: str) -> None:
    """Handlers, other schemes, frames and forms; the text stays."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(html)])
    nbformat.write(book, tmp_path / BOOK)
    page = Page(page_of(tmp_path / BOOK))

    assert "kept" in page.body
    assert [
        name for name, _ in page.attributes if name.startswith("on") or name in ("target", "ping")
    ] == []
    assert [value for name, value in page.attributes if name in ("href", "src")] == []
    assert {"script", "meta", "base", "form", "template"} & set(page.tags) == set()


@pytest.fixture(name="terminal")
def _terminal(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys)


def test_a_notebook_outside_an_attempt_proves_nothing(
    terminal: Terminal, tmp_path: Path, monkeypatch: Any
) -> None:
    """One of ours, too: its page goes to the working directory, never among the shipped ones."""
    monkeypatch.chdir(tmp_path)
    assert terminal.run("render", NOTEBOOKS / BOOK) == 0
    assert terminal.out == "10_development.html\n"
    page = Page((tmp_path / "10_development.html").read_text())
    assert page.title == "NOT PROVEN · 10_development"
    assert "nothing was verified: this is no sealed notebook in an attempt's folder" in page.head

    assert terminal.run("render", NOTEBOOKS / BOOK, "-o", NOTEBOOKS / "x.html") == 3
    (tmp_path / "link.html").symlink_to(tmp_path / "kept")
    assert terminal.run("render", NOTEBOOKS / BOOK, "-o", tmp_path / "link.html") == 3
    assert not (tmp_path / "kept").exists() and not (NOTEBOOKS / "x.html").exists()


def test_links_show_where_they_lead(tmp_path: Path) -> None:
    """Evidence refers to its issue: a plain link stays one, and no other site learns of it."""
    cell = nbformat.v4.new_markdown_cell("[the issue](https://forge.example/7)")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / BOOK)
    text = page_of(tmp_path / BOOK)

    assert '<a href="https://forge.example/7" rel="noopener noreferrer">the issue</a>' in text
    assert 'main a::after { content: " (" attr(href) ")"; }' in text
