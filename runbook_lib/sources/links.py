"""Links in JSON documents (the schema formats ``iri`` and ``iri-reference``), checked fast.

jsonschema checks them with a general parser: a second to load, paid by whatever imports nbformat,
and then 3 ms a character, which a hostile document could make hours. Its place is taken by what
RFC 3987 itself says (section 3.1): an IRI is a URI once its further characters are encoded.
"""

from __future__ import annotations

import re
import sys
from types import ModuleType

_PLANES = "".join(f"{chr(plane << 16)}-{chr((plane << 16) + 0xFFFD)}" for plane in range(1, 14))
_FURTHER = re.compile(
    f"[\u00a0-\ud7ff\uf900-\ufdcf\ufdf0-\uffef{_PLANES}{chr(0xE1000)}-{chr(0xEFFFD)}]"
)
_PRIVATE = re.compile(
    f"[\ue000-\uf8ff{chr(0xF0000)}-{chr(0xFFFFD)}{chr(0x100000)}-{chr(0x10FFFD)}]"
)
_QUERY = re.compile(r"\?[^#]*")
_ENCODED = "%C3"  # any encoded byte stands for any character: only where one may be is judged
RULES = {"iri": "URI", "iri_reference": "URI_reference"}


def is_valid(term: str, value: str) -> bool:
    """Whether ``value`` is an ``iri`` or an ``iri_reference``."""
    from rfc3986_validator import validate_rfc3986

    query = _QUERY.sub(lambda found: _PRIVATE.sub(_ENCODED, found[0]), value, count=1)
    encoded = _FURTHER.sub(_ENCODED, query)
    return not value.endswith("\n") and validate_rfc3986(encoded, rule=RULES[term]) is not None


def check_links_fast() -> None:
    """Take the parser's place; call it before what imports jsonschema."""
    stand_in = ModuleType("rfc3987_syntax")
    vars(stand_in)["is_valid_syntax"] = is_valid
    sys.modules.setdefault(stand_in.__name__, stand_in)
