"""No mutation of good material passes, and no content of a file ends in a traceback."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runbook_lib.checks.observability import read_rules
from runbook_lib.errors import ParameterError, SourceError
from runbook_lib.sources.alertmanager import read_config
from runbook_lib.sources.artifacts import parse_checksums
from runbook_lib.sources.keys import read_signed
from runbook_lib.sources.signatures import Policy
from runbook_lib.sources.snapshots import Manifest, verified_by
from runbook_lib.sources.wire import decode
from runbook_lib.sources.words import NodeReport, Statement
from runbook_rehearsal.signing import new_key, pem

from .verifying import (
    AUTHORITY,
    DATA,
    HEX,
    IDENTITY,
    ISSUER,
    POLICY,
    one,
    rows,
    sbom,
    statement,
    tamper,
    write,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every path in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = [(*path, key) for key, _ in inner]
    nested = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in nested:
        if isinstance(each, dict | list):
            found += places(each, (*path, key))
    return found


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_mutation_passes_or_escapes(file: Path, data: st.DataObject) -> None:
    key = new_key()
    good, judge = data.draw(
        st.sampled_from(
            [
                (AUTHORITY.sign(DATA), POLICY),
                (AUTHORITY.attest(statement(HEX)), POLICY),
                (AUTHORITY.sign_with(key, DATA), Policy(key=pem(key), root=AUTHORITY.root)),
            ]
        )
    )
    path = data.draw(st.sampled_from(places(good)))
    value = data.draw(JSON)
    # What the log does not sign and no step reads may be anything: a hint, a key id, a position.
    free = ("hint", "keyid", "logIndex", "keyId", "publicKey", "messageDigest", "inclusionPromise")
    mutated = tamper(good, *path, value=value if value is not None else {})
    try:
        outcome, _ = one(file, judge, mutated)
    except ParameterError:
        return
    if path[-1] not in free and mutated != good:
        assert outcome != "PASS"


KEYS = st.sampled_from([
    "statement", "signature", "plan", "kind", "version", "segments", "segment_name", "size_bytes",
    "checksum", "groups", "rules", "route", "receivers",
])  # fmt: skip
CONTENT = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=100).map(str.encode),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
)


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda data: read_config(data.decode("latin-1")), "alertmanager: config: "),
        (lambda data: parse_checksums(data, "name"), "name: "),
        (lambda data: read_rules(data, "name"), "name:"),
        (lambda data: read_signed(data, Statement), ""),
        (lambda data: read_signed(data, NodeReport), ""),
        (lambda data: decode("name", data, Manifest, once=True), "name: "),
        (lambda data: verified_by(b"", data, "name", {}), "name: expected 64 bytes in hex or base64"),
    ],
    ids=["routes", "checksums", "rules", "word", "report", "manifest", "signature"],
)  # fmt: skip
@given(data=CONTENT)
def test_any_content_is_read_or_refused_in_words(read: Any, said: str, data: bytes) -> None:
    """In a line that names the file, where the reader is told its name."""
    try:
        read(data)
    except (ParameterError, SourceError, ValueError) as error:
        assert re.match(rf"{said}[^\n]*", str(error).splitlines()[0])
        assert said or "\n" not in str(error)
    else:
        assert said  # nothing that anybody would have signed


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=JSON)
def test_no_document_escapes(file: Path, tmp_path: Path, value: Any) -> None:
    good, junk = AUTHORITY.sign(DATA), json.dumps(value).encode()
    path = write(tmp_path, "junk.json", junk)
    for call in (
        lambda: rows(file, POLICY, junk),
        lambda: rows(file, POLICY, good, provenance=path),
        lambda: rows(file, POLICY, good, sbom=path),
        lambda: rows(file, Policy(IDENTITY, ISSUER, root=junk), good),
    ):
        with pytest.raises(ParameterError):
            call()


def test_what_cannot_be_shown_is_escaped(tmp_path: Path) -> None:
    odd = tmp_path / "node\x1b[2J"
    odd.write_bytes(DATA)
    document = json.dumps(sbom(name="\x1b[2J")).encode()
    path = write(tmp_path, "sbom.json", document, AUTHORITY.sign(document))

    found = rows(odd, POLICY, AUTHORITY.sign(DATA), sbom=path)

    assert (found[0].subject, found[-1].observed) == (r"node\x1b[2J", r"\x1b[2J")
    broken = write(tmp_path, "broken.json", json.dumps(sbom(name="\ud800")).encode())
    with pytest.raises(ParameterError, match="surrogates not allowed"):
        rows(odd, POLICY, AUTHORITY.sign(DATA), sbom=broken)
    (tmp_path / "no\udcffde").touch()  # a folder with such a name is not listed in part
    with pytest.raises(SourceError, match="input contains non-UTF-8 codepoints"):
        rows(odd, POLICY, AUTHORITY.sign(DATA), sbom=path)
