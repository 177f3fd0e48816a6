"""How two TOML files differ, key by key, as rows."""

from __future__ import annotations

from ..outcomes import Row, Value, check_row
from ..sources.commands import NodeConfig
from ..sources.config import Flat, diff, flatten, parse_toml

_LONGEST = 200


def shown(value: object) -> Value:
    """A value of a TOML file as a row can hold it."""
    if value is None:
        return "absent"
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**53):
        return value
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


def file_rows(name: str, kept: bytes, found: NodeConfig) -> list[Row]:
    """Which keys of a node's file differ from the ``kept`` one, of another digest than ``found``.

    Raises SourceError when either is no TOML.
    """
    rows = difference_rows(
        name, flatten(parse_toml(kept, name)), flatten(parse_toml(found.text, name))
    )
    what, text = "config", "the same keys and values; a secret, a comment or the order differs"
    return rows or [check_row(name, what, "the file last verified", text, ok=False)]


def difference_rows(name: str, expected: Flat, observed: Flat, where: str = "") -> list[Row]:
    """One FAIL row per dotted key: missing, extra, different or of the wrong type, and ``where``."""
    found = diff(expected, observed)
    keys = [one.key for one in found]
    # A table whose last key went, or which got its first, shows as that key alone.
    tables = {
        one.key
        for one in found
        if {} in (one.expected, one.observed)
        and any(key.startswith((f"{one.key}.", f"{one.key}[")) for key in keys)
    }
    return [
        check_row(
            name, f"{d.key} ({d.kind}{where})", shown(d.expected), shown(d.observed), ok=False
        )
        for d in found
        if d.key not in tables
    ]
