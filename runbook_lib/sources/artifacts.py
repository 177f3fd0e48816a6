"""A release artifact and what comes beside it: signature, signer, provenance, commit, SBOM.

``examine`` answers with one row per question. A document that came beside the artifact (its
provenance, its SBOM) counts only when it is signed by the same signer. Malformed or unreadable
input is a ParameterError; nothing here reads the network but ``Request.find``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from ..canonical import digest_file
from ..errors import ParameterError
from ..markup import visible
from ..outcomes import Row, check_row, unknown_row
from .keys import Refused
from .signatures import Find, Material, Policy, Signed, Unproven, verify
from .statements import Sbom, Statement, parse_sbom, parse_statement

_DIGEST = re.compile(r"sha256:[0-9a-fA-F]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
MAX_DOCUMENT = 64 * 1024 * 1024


@dataclass(frozen=True)
class Request:
    """What to verify, and by whose word. ``find`` looks a detached signature up in a log."""

    artifact: str
    material: Material
    policy: Policy
    provenance: Path | None = None
    sbom: Path | None = None
    commit: str = ""
    find: Find | None = None


@dataclass(frozen=True)
class Artifact:
    """A file, or only its digest (``path`` is None): ``sha256:HEX``."""

    name: str
    digest: str
    path: Path | None


def examine(request: Request) -> list[Row]:
    """One row per question about the artifact. Raises ParameterError."""
    if request.commit and not _COMMIT.fullmatch(request.commit):
        raise ParameterError(f"commit: expected 40 or 64 hex digits, got {request.commit!r}")
    artifact = _artifact(request.artifact)
    rows, signed = _signature(artifact, request.material, request)
    statement = signed.statement if signed is not None else None
    if request.provenance is not None:
        more, provenance = _provenance(artifact, request.provenance, request)
        rows += more
        statement = provenance or statement
    if request.commit:
        rows.append(_commit(artifact, request.commit, signed, statement))
    if request.sbom is not None:
        rows += _sbom(artifact, request.sbom, request)
    return rows


def _artifact(text: str) -> Artifact:
    path = Path(text)
    if _DIGEST.fullmatch(text) and not path.exists():
        return Artifact(text[:19], text.lower(), None)
    try:
        return Artifact(visible(path.name), digest_file(path), path)
    except OSError as error:
        raise ParameterError(
            f"{visible(text)}: expected a file or sha256: and 64 hex digits, got: {error.strerror}"
        ) from error
    except ValueError as error:  # a path that no system takes
        raise ParameterError(f"artifact: expected a file, got: {error}") from error


def read_document(path: Path) -> bytes:
    """A small file's bytes. Raises ParameterError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCUMENT + 1)
    except (OSError, ValueError) as error:
        raise ParameterError(
            f"{visible(str(path))}: expected a readable file, got: {error}"
        ) from error
    if len(data) > MAX_DOCUMENT:
        raise ParameterError(
            f"{visible(str(path))}: expected at most {MAX_DOCUMENT} bytes, got more"
        )
    return data


def _signature(
    artifact: Artifact, material: Material, request: Request
) -> tuple[list[Row], Signed | None]:
    """Whether the signer that the policy names signed this artifact, provably in time."""
    expected = request.policy.signer
    try:
        signed = verify(artifact.digest, artifact.path, material, request.policy, request.find)
    except Refused as refused:
        return [check_row(artifact.name, "signature", expected, str(refused), ok=False)], None
    except Unproven as unproven:
        return [unknown_row(artifact.name, "signature", expected, str(unproven))], None
    return [check_row(artifact.name, "signature", expected, signed.signer, ok=True)], signed


def _beside(path: Path, policy: Policy) -> Material | None:
    """The signature that lies beside a document, in the forms in which releases publish one."""
    bundle = path.with_name(path.name + ".sigstore.json")
    signature = path.with_name(path.name + ".sig")
    certificate = path.with_name(path.name + ".pem")
    if bundle.exists():
        return Material(bundle=read_document(bundle))
    if signature.exists() and policy.key:
        return Material(signature=read_document(signature))
    if signature.exists() and certificate.exists():
        return Material(signature=read_document(signature), certificate=read_document(certificate))
    return None


def _covered(path: Path, request: Request) -> Row:
    """Whether a document is itself signed by the signer of the artifact."""
    document = _artifact(str(path))
    if (material := _beside(path, request.policy)) is None:
        forms = ".sig" if request.policy.key else ".sig and .pem"
        problem = f"no {document.name}.sigstore.json or {forms} beside it"
        return unknown_row(document.name, "signature", request.policy.signer, problem)
    return _signature(document, material, request)[0][0]


def _provenance(
    artifact: Artifact, path: Path, request: Request
) -> tuple[list[Row], Statement | None]:
    """Its own signature, and that it names this artifact; the statement when both hold."""
    data, name = read_document(path), visible(path.name)
    if b'"verificationMaterial"' in data:  # a bundle: the envelope in it is what was signed
        rows, signed = _signature(replace(artifact, name=name), Material(bundle=data), request)
        if signed is not None and signed.statement is None:
            what = "a signature of the file"
            rows = [check_row(name, "statement", "signed provenance", what, ok=False)]
        return rows, signed.statement if signed is not None else None
    statement = parse_statement(data, name)
    named = artifact.digest in statement.subjects
    rows = [
        check_row(name, "subject", artifact.digest, statement.subjects_text, ok=named),
        _covered(path, request),
    ]
    proven = all(row.outcome == "PASS" for row in rows)
    return rows, statement if proven else None


def _commit(
    artifact: Artifact, expected: str, signed: Signed | None, statement: Statement | None
) -> Row:
    """The certificate's commit, else the one of a signed provenance; both where both speak."""
    found = set(signed.commits) if signed is not None else set()
    if found - {expected}:
        return check_row(artifact.name, "commit", expected, ", ".join(sorted(found)), ok=False)
    sources = set(statement.commits) if statement is not None else set()
    if not found and not sources:
        problem = "neither a proven certificate nor a signed provenance names one"
        return unknown_row(artifact.name, "commit", expected, problem)
    # A provenance lists every source that went in: ours must be one of them.
    ok = expected in sources if sources else True
    return check_row(artifact.name, "commit", expected, ", ".join(sorted(found | sources)), ok=ok)


def _sbom(artifact: Artifact, path: Path, request: Request) -> list[Row]:
    """Valid by its own schema, signed, and about this artifact."""
    name = visible(path.name)
    sbom: Sbom = parse_sbom(read_document(path), name)
    rows = [
        check_row(
            name,
            "CycloneDX schema",
            f"valid {sbom.version}",
            sbom.problem or f"valid {sbom.version}",
            ok=not sbom.problem,
        ),
        _covered(path, request),
    ]
    if sbom.digests:
        shown = visible(", ".join(sbom.digests))
        ok = artifact.digest in sbom.digests
        rows.append(check_row(name, "is about", artifact.digest, shown, ok=ok))
    elif artifact.path is None or not sbom.name:
        problem = "no digest of its subject, and no file name to compare"
        rows.append(unknown_row(name, "is about", artifact.digest, problem))
    else:
        # cargo-cyclonedx writes the package's name and no digest; the file's name starts with it.
        ok = re.match(re.escape(sbom.name) + r"([-_.]|$)", artifact.name) is not None
        rows.append(check_row(name, "is about", artifact.name, visible(sbom.name), ok=ok))
    return rows
