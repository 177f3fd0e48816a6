"""What a signed envelope holds: an in-toto statement about this artifact, or it is refused."""

from __future__ import annotations

import hashlib

from ..canonical import digest as canonical_digest
from ..errors import ParameterError
from .files import Whole
from .keys import Refused
from .statements import Statement, parse_statement

IN_TOTO = "application/vnd.in-toto+json"


def require_in_toto(kind: str) -> None:
    if kind != IN_TOTO:
        raise Refused(f"envelope of {kind!r}, expected {IN_TOTO}")


def statement_about(payload: bytes, digest: bytes, content: Whole | None) -> Statement:
    """The signed statement, which must name this artifact. Raises Refused, SourceError."""
    try:
        statement = parse_statement(payload, "signed statement")
    except ParameterError as error:
        raise Refused(str(error)) from error
    if not is_about(statement, digest, content):
        raise Refused(f"a statement about {statement.subjects_text}, not this artifact")
    return statement


def is_about(statement: Statement, digest: bytes, content: Whole | None) -> bool:
    """Whether a statement names what has this sha256; by its sha512 only where all of it is there."""
    if f"sha256:{digest.hex()}" in statement.subjects:
        return True
    longer = {name for name in statement.subjects if name.startswith("sha512:")}
    if content is None or not longer:
        return False

    def judge(data: bytes) -> str:
        same = hashlib.sha256(data).digest() == digest
        return "" if same and f"sha512:{hashlib.sha512(data).hexdigest()}" in longer else "another"

    return not content(f"sha512 of {canonical_digest(sorted(longer))}", judge)
