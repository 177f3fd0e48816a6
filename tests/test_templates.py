"""Templates: both forms of a card agree, what comes from outside is escaped, and nothing acts."""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, UndefinedError, nodes

from runbook_lib import display
from runbook_lib.changes.kit_script import SHELL, page
from runbook_lib.evidence.comment import MARKDOWN, sealed_text, section
from runbook_lib.package import package_digest

from .cards import BAD, GOOD, judged, verdict, waived
from .changes.test_kit import Made
from .evidence.test_comment import account

FORMS = {"html": display._HTML, "text": display._TEXT, "markdown": MARKDOWN, "shell": SHELL}
OURS = {
    # Words, titles and markers that we made; sections and texts that were escaped as they were made.
    "word", "title", "tally", "marker", "text",
    # Checked names: a release, a stage, a phase, nodes, operators, digests, environment variables.
    "release", "stage", "phase", "plan", "name", "node", "operator", "mark", "rows", "tokens", "run",
    # In a fence that is longer than any in it.
    "document",
}  # fmt: skip
"""What a template may pass on as it is."""


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_value_that_no_filter_made_is_escaped(form: display.Form) -> None:
    """Also without a filter: forgetting one shows too little, never too much."""
    hostile = "<b>'$(x)' `y` | @z"
    made = form._environment.from_string("{{ x }}{% macro m(x) %}{{ x }}{% endmacro %} {{ m(x) }}")
    written = form.escape(hostile)

    assert made.render(x=hostile) == f"{written} {written}"


def test_a_value_that_is_missing_is_an_error() -> None:
    """A card never shows an empty place where something should stand."""
    with pytest.raises(UndefinedError, match="'title' is undefined"):
        display._TEXT.render("table.j2", columns=(), rows=())


def test_what_is_passed_on_as_it_is_is_ours() -> None:
    """Whatever else is marked as safe has to be looked at, and listed."""
    parsed = [Environment().parse(path.read_text()) for path in display.TEMPLATES.rglob("*.j2")]
    marked = [f for tree in parsed for f in tree.find_all(nodes.Filter) if f.name == "safe"]

    assert {name.name for one in marked for name in one.find_all(nodes.Name)} == OURS


def test_both_forms_of_a_card_have_the_same_parts() -> None:
    html, text = (
        re.findall(r"macro (\w+)\(([^)]*)\)", (display.TEMPLATES / form / "form.j2").read_text())
        for form in ("html", "text")
    )

    assert set(html) - set(text) == {("cell", "name, text, right, tag")}
    assert set(text) <= set(html)


def plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(plain, value))
    return value is None or isinstance(value, str | int | float | datetime)


def test_templates_get_plain_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing that a template could ask, write or run anything with."""
    given, render = dict[str, Any](), display.Form.render

    def seen(form: display.Form, name: str, /, **values: Any) -> str:
        given[values.get("template", name)] = values
        return render(form, name, **values)

    monkeypatch.setattr(display.Form, "render", seen)
    whole = verdict(judged(GOOD), judged(BAD, waived=(waived(),)))
    display.verdict_card(whole)
    display.banner_card(whole)
    display.result_card(judged(GOOD, BAD))
    display.plan_card([("a", "b", 1, 2)], digest="c")
    section(account())
    sealed_text(account())
    page(Made(tmp_path / "made", ("main-1",), theirs=("main-7",)).kit)

    assert len(given) == 7
    assert [name for name, values in given.items() if not plain(values)] == []


def test_templates_are_part_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """They say what a recovery does and what people read: its digest covers them."""
    package_digest.cache_clear()
    monkeypatch.setattr("runbook_lib.package.digest", list)

    assert {"display.py", "templates/recover.sh.j2"} <= set(package_digest())
    package_digest.cache_clear()
