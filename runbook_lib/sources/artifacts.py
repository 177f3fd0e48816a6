"""A release artifact and what comes beside it: checksums, signature, provenance, commit, SBOM.

``Examination`` answers each question with rows. A document that came beside the artifact (its
manifest, its provenance, its SBOM) counts only when it is signed by the same signer. Malformed
input is a ParameterError; nothing here reads the network but ``Trust.find``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..errors import ParameterError
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..wording import visible
from . import signatures
from .files import Files, Whole
from .keys import Refused
from .signatures import Find, Material, Policy, Signed, Statement, Unproven, inner, objects

_DIGEST = re.compile(r"sha256:[0-9a-fA-F]{64}")
_LISTED = re.compile(r"([0-9a-fA-F]{64}) [ *](\S.*)")


@dataclass(frozen=True)
class Trust:
    """By whose word, and where what proves it lies: names beside a file, ``{path}`` being it.

    ``find`` looks a detached signature up in a log.
    """

    policy: Policy
    files: Files
    find: Find | None = None
    bundle: str = "{path}.sigstore.json"
    signature: str = "{path}.sig"
    certificate: str = "{path}.pem"

    def beside(self, path: Path) -> Material | None:
        """The signature beside a file: a bundle if there is one, else detached."""
        bundle, signature, certificate = (
            Path(template.replace("{path}", str(path)))
            for template in (self.bundle, self.signature, self.certificate)
        )
        if self.files.exists(bundle):
            return Material(bundle=self.files.read(bundle))
        keyless = not self.policy.key
        if not self.files.exists(signature) or (keyless and not self.files.exists(certificate)):
            return None
        given = self.files.read(signature)
        return Material(
            signature=given, certificate=self.files.read(certificate) if keyless else b""
        )

    @property
    def forms(self) -> str:
        """What ``beside`` looks for, in words."""
        names = (self.bundle, self.signature, self.certificate)
        bundle, signature, certificate = (n.replace("{path}", "").rpartition("/")[2] for n in names)
        detached = signature if self.policy.key else f"{signature} and {certificate}"
        return f"{bundle} or {detached}"


@dataclass(frozen=True)
class Artifact:
    """A file, or only its digest (``path`` is None): ``sha256:HEX``."""

    name: str
    digest: str
    path: Path | None

    def content(self, files: Files) -> Whole | None:
        return files.whole(self.path) if self.path is not None else None


def read_artifact(text: str, files: Files) -> Artifact:
    """The artifact at a path, or the one of a digest. Raises ParameterError, SourceError."""
    path = Path(text)
    if _DIGEST.fullmatch(text) and not files.exists(path):
        return Artifact(text[:19], text.lower(), None)
    return Artifact(visible(path.name), files.digest(path), path)


def parse_checksums(data: bytes, where: str) -> dict[str, frozenset[str]]:
    """Digests (``sha256:HEX``) by last name of the path, as ``sha256sum`` lists them.

    The chain's lines name paths of its build, while artifacts are downloaded flat: a line is about
    every file of its last name. Raises ParameterError for another line.
    """
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise ParameterError(f"{where}: expected lines of sha256sum, got: {error}") from error
    found: dict[str, frozenset[str]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        match = _LISTED.fullmatch(line)
        if match is None:
            raise ParameterError(
                f"{where}: line {number}: expected DIGEST  PATH of sha256sum, got {line[:80]!r}"
            )
        name = match[2].replace("\\", "/").rpartition("/")[2]
        found[name] = found.get(name, frozenset()) | {f"sha256:{match[1].lower()}"}
    if not found:
        raise ParameterError(f"{where}: expected lines of sha256sum, got an empty file")
    return found


@dataclass
class Examination:
    """What is proven of one artifact. ``commit`` knows what was asked before it.

    Every question raises ParameterError for malformed input, SourceError for an unreadable one.
    """

    artifact: Artifact
    trust: Trust
    signed: Signed | None = None
    statement: Statement | None = None

    def listed(self, checksums: Mapping[str, frozenset[str]], where: str) -> Row:
        """Whether the manifest of that name lists the artifact's digest."""
        name, digest = self.artifact.name, self.artifact.digest
        said = checksums.get(name, frozenset())
        if not said:
            return check_row(name, f"listed in {where}", digest, "not listed", ok=False)
        shown = ", ".join(sorted(said))
        if len(said) > 1 and digest in said:  # two files of that name: nobody says which is ours
            return check_row(name, f"listed in {where}", digest, shown, Outcome.INCONCLUSIVE)
        return check_row(name, f"listed in {where}", digest, shown, ok=digest in said)

    def signature(self, material: Material | None = None) -> Row:
        """Whether the signer that the policy names signed it; by default by what lies beside it."""
        row, self.signed = self._signature(self.artifact, material)
        if self.statement is None and self.signed is not None:
            self.statement = self.signed.statement
        return row

    def covered(self, path: Path) -> Row:
        """Whether a document is itself signed by the signer of the artifact."""
        return self._signature(read_artifact(str(path), self.trust.files), None)[0]

    def _signature(
        self, artifact: Artifact, material: Material | None
    ) -> tuple[Row, Signed | None]:
        trust, row = self.trust, partial(check_row, artifact.name, "signature")
        expected = trust.policy.signer
        if material is None and artifact.path is not None:
            material = trust.beside(artifact.path)
        if material is None:
            return row(expected, f"no {trust.forms} beside it", Outcome.INCONCLUSIVE), None
        content = artifact.content(trust.files)
        try:
            signed = signatures.verify(artifact.digest, content, material, trust.policy, trust.find)
        except (Refused, Unproven) as error:
            ok = Outcome.FAIL if isinstance(error, Refused) else Outcome.INCONCLUSIVE
            return row(expected, str(error), ok), None
        return row(expected, signed.signer, ok=True), signed

    def provenance(self, path: Path) -> list[Row]:
        """Its own signature, and that it names this artifact."""
        data, name = self.trust.files.read(path), visible(path.name)
        if b'"verificationMaterial"' in data:  # a bundle: the envelope in it is what was signed
            named = replace(self.artifact, name=name)
            row, signed = self._signature(named, Material(bundle=data))
            if signed is not None and signed.statement is None:
                what = "a signature of the file"
                row = check_row(name, "statement", "signed provenance", what, ok=False)
            self.statement = signed.statement if signed is not None else self.statement
            return [row]
        statement = signatures.parse_statement(data, name)
        digest = bytes.fromhex(self.artifact.digest.removeprefix("sha256:"))
        ok = signatures.is_about(statement, digest, self.artifact.content(self.trust.files))
        rows = [
            check_row(name, "subject", self.artifact.digest, statement.subjects_text, ok=ok),
            self.covered(path),
        ]
        if all(row.outcome is Outcome.PASS for row in rows):
            self.statement = statement
        return rows

    def commit(self, expected: str) -> Row:
        """The certificate's commit, else the one of a signed provenance; both where both speak."""
        name = self.artifact.name
        found = set(self.signed.commits) if self.signed is not None else set()
        if found - {expected}:
            return check_row(name, "commit", expected, ", ".join(sorted(found)), ok=False)
        sources = set(self.statement.commits) if self.statement is not None else set()
        if not found and not sources:
            problem = "neither a proven certificate nor a signed provenance names one"
            return unknown_row(name, "commit", expected, problem)
        # A provenance lists every source that went in: ours must be one of them.
        ok = expected in sources if sources else True
        return check_row(name, "commit", expected, ", ".join(sorted(found | sources)), ok=ok)

    def sbom(self, path: Path) -> list[Row]:
        """Valid by its own schema, signed, and about this artifact."""
        name, artifact = visible(path.name), self.artifact
        sbom = parse_sbom(self.trust.files.read(path), name)
        valid = f"valid {sbom.version}"
        schema = check_row(name, "CycloneDX schema", valid, sbom.problem or valid, not sbom.problem)
        rows = [schema, self.covered(path)]
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


# --- CycloneDX SBOMs: JSON 1.2 and newer ------------------------------------------------------------


@dataclass(frozen=True)
class Sbom:
    """``problem`` is empty when the schema of ``version`` holds; digests are the subject's own."""

    version: str
    problem: str
    name: str
    digests: tuple[str, ...]


def parse_sbom(data: bytes, where: str) -> Sbom:
    """A CycloneDX document and whether its schema holds. Raises ParameterError for another kind."""
    from cyclonedx.exception import MissingOptionalDependencyException
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    value = signatures.parse_object(data, where)
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
    component = inner(inner(value, "metadata"), "component")
    hashes = [
        entry.get("content")
        for entry in objects(component.get("hashes"))
        if entry.get("alg") == "SHA-256"
    ]
    digests = tuple(f"sha256:{h.lower()}" for h in hashes if isinstance(h, str))
    name = component.get("name")
    problem = str(error).strip().splitlines()[0][:200] if error is not None else ""
    return Sbom(str(version), problem, name if isinstance(name, str) else "", digests)
