"""Lines of sha256sum are read by the last name of their path; any other line is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.errors import ParameterError
from runbook_lib.sources.artifacts import parse_checksums

A, B = "a" * 64, "b" * 64


def test_a_line_is_about_the_last_name_of_its_path() -> None:
    text = f"{A}  dist/artifacts/x86/node.tar.gz\n{B.upper()} *wallet.json\r\n\n{B}  node.tar.gz\n"

    assert parse_checksums(text.encode(), "SUMS") == {
        "node.tar.gz": {f"sha256:{A}", f"sha256:{B}"},
        "wallet.json": {f"sha256:{B}"},
    }


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "expected lines of sha256sum, got an empty file"),
        (b"\n \n", "expected lines of sha256sum, got an empty file"),
        (b"\xff", "expected lines of sha256sum, got: 'utf-8' codec can't decode byte 0xff in"
                  " position 0: invalid start byte"),
        (f"{A}  a\nno digest\n".encode(),
         "line 2: expected DIGEST  PATH of sha256sum, got 'no digest'"),
        (f"{A}".encode(), f"line 1: expected DIGEST  PATH of sha256sum, got '{A}'"),
        (f"\\{A}  a\\nb".encode(),
         f"line 1: expected DIGEST  PATH of sha256sum, got {(chr(92) + A + '  a' + chr(92) + 'nb')[:80]!r}"),
    ],
)  # fmt: skip
def test_anything_else_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_checksums(data, "SUMS")

    assert str(caught.value) == f"SUMS: {problem}"


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_content_escapes(data: bytes) -> None:
    try:
        found = parse_checksums(data, "SUMS")
    except ParameterError:
        return
    assert all(len(text) == 71 for digests in found.values() for text in digests)
