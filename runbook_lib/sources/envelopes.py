"""What a signed envelope holds: an in-toto statement about this artifact, or it is refused."""

from __future__ import annotations

from ..errors import ParameterError
from .keys import Refused
from .statements import Statement, parse_statement

IN_TOTO = "application/vnd.in-toto+json"


def require_in_toto(kind: str) -> None:
    if kind != IN_TOTO:
        raise Refused(f"envelope of {kind!r}, expected {IN_TOTO}")


def statement_about(payload: bytes, digest: bytes) -> Statement:
    """The signed statement, which must name this artifact. Raises Refused."""
    try:
        statement = parse_statement(payload, "signed statement")
    except ParameterError as error:
        raise Refused(str(error)) from error
    if f"sha256:{digest.hex()}" not in statement.subjects:
        raise Refused(f"a statement about {statement.subjects_text}, not this artifact")
    return statement
