"""Links of a document are checked as RFC 3987 has them, and that costs no parser."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.sources.links import is_valid
from runbook_lib.sources.statements import parse_sbom

from .verifying import sbom


@pytest.mark.parametrize(
    ("link", "iri", "reference"),
    [
        ("https://forge.example/chain?tab=1#top", True, True),
        ("https://[::1]:8080/", True, True),
        ("pkg:cargo/rpp-node@1.4.0", True, True),
        ("mailto:é@example", True, True),
        ("https://example/é/\u00a0/\U0001fffd/\U000e1000", True, True),
        ("https://example/?\ue000", True, True),
        ("", False, True),
        ("docs/é#part", False, True),
        ("1a:b", False, False),
        ("see https://forge.example", False, False),
        ("https://example/\n", False, False),
        ("https://example/\ue000", False, False),
        ("https://example/\ufdd0", False, False),
        ("https://example/\U0001fffe", False, False),
        ("https://example/%zz", False, False),
        ("https://[::1", False, False),
        ("https://example:é/", False, False),
        ("a#b#c", False, False),
        ("<a>", False, False),
    ],
)
def test_a_link_is_judged_by_its_grammar(link: str, iri: bool, reference: bool) -> None:
    """Characters beyond ASCII where they may stand, those for private use in a query alone."""
    assert (is_valid("iri", link), is_valid("iri_reference", link)) == (iri, reference)


@given(st.text())
def test_any_text_is_a_link_or_none(text: str) -> None:
    """No text breaks it, and an IRI is a reference, too."""
    assert is_valid("iri", text) <= is_valid("iri_reference", text)


@pytest.mark.parametrize(("url", "good"), [("https://forge.example/é", True), ("no link", False)])
def test_an_sbom_with_a_broken_link_is_not_valid(url: str, good: bool) -> None:
    """Its schema says that a reference outside is a link."""
    outside: Any = [{"type": "vcs", "url": url}]
    document = json.dumps(sbom() | {"externalReferences": outside}).encode()

    assert (parse_sbom(document, "sbom.json").problem == "") is good


def test_notebooks_are_read_without_the_parser() -> None:
    """It is never loaded: neither for the schema of notebooks nor for that of an SBOM."""
    code = (
        "import sys\nfrom runbook_lib.sources.links import check_links_fast\ncheck_links_fast()\n"
        "import jsonschema\nchecker = jsonschema.Draft7Validator.FORMAT_CHECKER\n"
        "print('lark' in sys.modules, checker.conforms('no link', 'iri-reference'))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "False False"
