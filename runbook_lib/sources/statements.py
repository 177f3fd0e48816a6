"""in-toto statements and CycloneDX SBOMs, read from bytes nobody vouches for.

Sources: in-toto Statement v0.1 and v1, SLSA provenance v0.2 and v1, CycloneDX JSON 1.2 and newer.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from ..canonical import digest as canonical_digest
from ..canonical import load_once
from ..errors import ParameterError
from .files import Whole

STATEMENTS = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")
_HEX = re.compile(r"[0-9a-f]+")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class Statement:
    """Digests (``sha256:HEX`` or ``sha512:HEX``) a statement is about, and source commits its predicate names."""

    subjects: tuple[str, ...]
    commits: tuple[str, ...]

    @property
    def subjects_text(self) -> str:
        more = f" and {len(self.subjects) - 3} more" if len(self.subjects) > 3 else ""
        return ", ".join(self.subjects[:3]) + more


@dataclass(frozen=True)
class Sbom:
    """``problem`` is empty when the schema of ``version`` holds; digests are the subject's own."""

    version: str
    problem: str
    name: str
    digests: tuple[str, ...]


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """A JSON object in which no key stands twice. Raises ParameterError."""
    try:
        value = load_once(data)
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate is no text
    except ValueError as error:
        raise ParameterError(f"{where}: expected one JSON object, got: {error}") from error
    if not isinstance(value, dict):
        raise ParameterError(f"{where}: expected one JSON object, got {type(value).__name__}")
    return value


def parse_statement(data: bytes, where: str) -> Statement:
    """An in-toto statement about at least one digest. Raises ParameterError."""
    value = parse_object(data, where)
    kind = value.get("_type")
    if kind not in STATEMENTS:
        raise ParameterError(f"{where}: _type: expected {STATEMENTS[0]}, got {kind!r}")
    if not isinstance(value.get("predicateType"), str) or not value["predicateType"]:
        raise ParameterError(f"{where}: predicateType: expected a URI, got none")
    digests = [_inner(subject, "digest") for subject in _objects(value.get("subject"))]
    named = tuple(
        f"{kind}:{digest[kind]}"
        for digest in digests
        for kind, length in (("sha256", 64), ("sha512", 128))
        if isinstance(found := digest.get(kind), str)
        and len(found) == length
        and _HEX.fullmatch(found)
    )
    if not named:
        raise ParameterError(f"{where}: subject: expected a sha256 or sha512 digest, got none")
    return Statement(named, _commits(_inner(value, "predicate")))


def _commits(predicate: dict[str, Any]) -> tuple[str, ...]:
    """Source commits of SLSA v1 ``resolvedDependencies`` and v0.2 ``materials``."""
    sources = [
        *_objects(_inner(predicate, "buildDefinition").get("resolvedDependencies")),
        *_objects(predicate.get("materials")),
        _inner(_inner(predicate, "invocation"), "configSource"),
    ]
    digests = [_inner(source, "digest") for source in sources]
    commits = [str(digest.get("gitCommit") or digest.get("sha1")) for digest in digests]
    return tuple(sorted({text for text in commits if _COMMIT.fullmatch(text)}))


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


def parse_sbom(data: bytes, where: str) -> Sbom:
    """A CycloneDX document and whether its schema holds. Raises ParameterError for another kind."""
    from cyclonedx.exception import MissingOptionalDependencyException
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    value = parse_object(data, where)
    versions = {v.to_version(): v for v in SchemaVersion if v >= SchemaVersion.V1_2}
    version = value.get("specVersion")
    if value.get("bomFormat") != "CycloneDX" or str(version) not in versions:
        known = ", ".join(sorted(versions))
        raise ParameterError(f"{where}: expected CycloneDX JSON {known}, got {version!r}")
    try:
        error = JsonStrictValidator(versions[str(version)]).validate_str(data.decode())
    except MissingOptionalDependencyException as missing:
        raise ParameterError(f"cyclonedx: expected its JSON validator, got: {missing}") from missing
    except (ValueError, RecursionError) as broken:
        raise ParameterError(f"{where}: expected CycloneDX JSON, got: {broken}") from broken
    component = _inner(_inner(value, "metadata"), "component")
    hashes = [
        entry.get("content")
        for entry in _objects(component.get("hashes"))
        if entry.get("alg") == "SHA-256"
    ]
    digests = tuple(f"sha256:{h.lower()}" for h in hashes if isinstance(h, str))
    name = component.get("name")
    problem = str(error).strip().splitlines()[0][:200] if error is not None else ""
    return Sbom(str(version), problem, name if isinstance(name, str) else "", digests)


def _inner(value: dict[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
