"""Regular expressions that others wrote, matched in time linear in what is read.

Python's ``re`` tries alternatives one after the other: ``(a+)+b`` in a server's configuration
would hold us for ever. RE2 does not, it is the dialect of Prometheus and Alertmanager, and arrow
brings it along. Source: pkg/labels/matcher.go of Alertmanager, v0.25.
"""

from __future__ import annotations

from functools import lru_cache

LONGEST = 4_000
"""Characters of an expression and of a text; with RE2's own bound on memory a match ends soon."""


@lru_cache(maxsize=4096)
def matches(pattern: str, text: str) -> bool:
    """Whether the whole of ``text`` matches. Raises ValueError, naming what cannot be judged."""
    import pyarrow as pa
    from pyarrow import compute

    for what, given in (("an expression", pattern), ("a text", text)):
        if len(given) > LONGEST:
            raise ValueError(f"{what} of {len(given)} characters, at most {LONGEST} are tried")
    try:
        found = compute.match_substring_regex(pa.scalar(text), f"^(?s:{pattern})$")
    except ValueError as error:  # arrow's own is one, and so is text that is no UTF-8
        raise ValueError(str(error).partition(": (?s")[0].partition(": ^(?s")[0]) from error
    return bool(found.as_py())
