"""Checksum manifests as ``sha256sum`` writes them.

The chain's lines name paths of its build (``dist/artifacts/...``), while artifacts are downloaded
flat: a line is about every file of its last name.
"""

from __future__ import annotations

import re

from ..errors import ParameterError

_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](\S.*)")


def parse_checksums(data: bytes, where: str) -> dict[str, frozenset[str]]:
    """Digests (``sha256:HEX``) by last name of the path. Raises ParameterError for another line."""
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise ParameterError(f"{where}: expected lines of sha256sum, got: {error}") from error
    found: dict[str, frozenset[str]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ParameterError(
                f"{where}: line {number}: expected DIGEST  PATH of sha256sum, got {line[:80]!r}"
            )
        name = match[2].replace("\\", "/").rpartition("/")[2]
        found[name] = found.get(name, frozenset()) | {f"sha256:{match[1].lower()}"}
    if not found:
        raise ParameterError(f"{where}: expected lines of sha256sum, got an empty file")
    return found
