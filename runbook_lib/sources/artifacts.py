"""A release artifact and what comes beside it: checksums, signature, provenance, commit, SBOM.

``Examination`` answers each question with rows. A document that came beside the artifact (its
manifest, its provenance, its SBOM) counts only when it is signed by the same signer. Malformed
input is a ParameterError; nothing here reads the network but ``Trust.find``.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import ParameterError, SourceError
from ..outcomes import Outcome, Row, check_row, unknown_row, worst
from ..wording import visible
from . import signatures
from .keys import Judge, Refused, Whole
from .scope import Scope
from .signatures import Find, Material, Policy, Signed, Statement, Unproven, inner, objects

_DIGEST = re.compile(r"sha256:[0-9a-fA-F]{64}")
_LISTED = re.compile(r"(?P<digest>[0-9a-fA-F]+) [ *](?P<path>\S.*)")
_TAGGED = re.compile(r"(?P<kind>[A-Z0-9-]+) ?\((?P<path>\S.*)\) ?= ?(?P<digest>[0-9a-fA-F]+)")
_KINDS = {length: kind for kind, length in signatures.LENGTHS.items()}
UNREADABLE = "expected a readable file"
_VERSION = re.compile(r"\d+\.\d[\w.-]*")


@dataclass(frozen=True)
class Trust:
    """By whose word, and where what proves it lies: names beside a file, ``{path}`` being it.

    ``find`` looks a detached signature up in a log.
    """

    policy: Policy
    scope: Scope
    find: Find | None = None
    bundle: str = "{path}.sigstore.json"
    signature: str = "{path}.sig"
    certificate: str = "{path}.pem"

    def beside(self, path: Path) -> Material | None:
        """The signature beside a file: a bundle if there is one, else detached."""
        bundle, signature, certificate = map(Path, self._named(str(path)))
        if exists(self.scope, bundle):
            return Material(bundle=self.scope.read(bundle))
        keyless = not self.policy.key
        if not all(exists(self.scope, each) for each in (signature, certificate)[: 1 + keyless]):
            return None
        given = self.scope.read(signature)
        return Material(
            signature=given, certificate=self.scope.read(certificate) if keyless else b""
        )

    def _named(self, path: str) -> list[str]:
        names = (self.bundle, self.signature, self.certificate)
        return [name.replace("{path}", path) for name in names]

    @property
    def forms(self) -> str:
        """What ``beside`` looks for, in words."""
        bundle, signature, certificate = (n.rpartition("/")[2] for n in self._named(""))
        detached = signature if self.policy.key else f"{signature} and {certificate}"
        return f"{bundle} or {detached}"


@dataclass(frozen=True)
class Artifact:
    """A file, or only its digest (``path`` is None): ``sha256:HEX``."""

    name: str
    digest: str
    path: Path | None

    def content(self, scope: Scope) -> Whole | None:
        """Judges its content, if there is a file; a replay has the answers."""
        if (path := self.path) is None:
            return None

        def ask(what: str, judge: Judge) -> str:
            def compute() -> str:
                try:
                    return judge(path.read_bytes())
                except OSError as error:
                    return f"{UNREADABLE}, got: {error.strerror}"

            problem = scope.derive(f"{what} over {path.name}", compute)
            if problem.startswith(UNREADABLE):
                raise SourceError(path.name, problem)
            return problem

        return ask


def exists(scope: Scope, path: Path) -> bool:
    return path.name in scope.listing(path.parent)


def read_artifact(text: str, scope: Scope) -> Artifact:
    """The artifact at a path, or the one of a digest. Raises ParameterError, SourceError."""
    path = Path(text)
    if _DIGEST.fullmatch(text) and not exists(scope, path):
        return Artifact(text[:19], text.lower(), None)
    return Artifact(visible(path.name), scope.file_digest(path), path)


def parse_checksums(data: bytes, where: str) -> dict[str, frozenset[str]]:
    """Digests (``ALGORITHM:HEX``) by last name of the path, as ``sha256sum`` and BSD list them.

    The chain's lines name paths of its build, while artifacts are downloaded flat: a line is about
    every file of its last name. Raises ParameterError for another line.
    """
    try:
        lines = re.split(r"\r?\n", data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ParameterError(f"{where}: expected lines of sha256sum, got: {error}") from error
    found: dict[str, frozenset[str]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LISTED.fullmatch(line) or _TAGGED.fullmatch(line)
        parts = match.groupdict() if match else {}
        kind = parts.get("kind") or _KINDS.get(len(parts.get("digest", "")), "")
        if not (digest := signatures.named(kind, parts.get("digest"))):
            raise ParameterError(
                f"{where}: line {number}: expected DIGEST  PATH of sha256sum, got {line[:80]!r}"
            )
        name = parts["path"].replace("\\", "/").rpartition("/")[2]
        found[name] = found.get(name, frozenset()) | {digest}
    if not found:
        raise ParameterError(f"{where}: expected lines of sha256sum, got an empty file")
    return found


@dataclass
class Examination:
    """What is proven of one artifact, of a release and built from ``repository`` (HOST/OWNER/NAME)
    where these are known. ``commit`` knows what was asked before it.

    Every question raises ParameterError for malformed input, SourceError for an unreadable one.
    """

    artifact: Artifact
    trust: Trust
    release: str = ""
    repository: str = ""
    signed: Signed | None = None
    statement: Statement | None = None

    def listed(self, checksums: Mapping[str, frozenset[str]], where: str) -> Row:
        """Whether the manifest of that name lists the artifact's digest."""
        name, digest = self.artifact.name, self.artifact.digest
        said = checksums.get(name, frozenset())
        ok = self._has(said) if said else Outcome.FAIL
        if (
            ok is Outcome.FAIL and digest in said
        ):  # of two files of that name nobody says which is ours
            ok = Outcome.INCONCLUSIVE
        got = ", ".join(sorted(said)) or "not listed"
        return check_row(name, f"listed in {where}", digest, got, ok)

    def _has(self, digests: Collection[str]) -> Outcome:
        """Whether all of ``digests`` are the artifact's, and one of them is proof."""
        content = self.artifact.content(self.trust.scope)
        held = [signatures.has(name, self._digest, content) for name in sorted(digests)]
        proven = Outcome.PASS if True in held else Outcome.INCONCLUSIVE
        return Outcome.FAIL if False in held else proven

    @property
    def _digest(self) -> bytes:
        return bytes.fromhex(self.artifact.digest.removeprefix("sha256:"))

    def signature(self, material: Material | None = None) -> Row:
        """Whether the signer that the policy names signed it; by default by what lies beside it."""
        row, self.signed = self._signature(self.artifact, material)
        said = self.signed.statement if self.signed is not None else None
        self.statement = said if said is not None and said.is_provenance else self.statement
        return row

    def covered(self, path: Path) -> Row:
        """Whether a document is itself signed by the signer of the artifact."""
        return self._signature(read_artifact(str(path), self.trust.scope), None)[0]

    def _signature(
        self, artifact: Artifact, material: Material | None
    ) -> tuple[Row, Signed | None]:
        trust, row = self.trust, partial(check_row, artifact.name, "signature")
        expected = trust.policy.signer
        if material is None and artifact.path is not None:
            material = trust.beside(artifact.path)
        if material is None:
            return row(expected, f"no {trust.forms} beside it", Outcome.INCONCLUSIVE), None
        content = artifact.content(trust.scope)
        try:
            signed = signatures.verify(artifact.digest, content, material, trust.policy, trust.find)
        except (Refused, Unproven) as error:
            ok = Outcome.FAIL if isinstance(error, Refused) else Outcome.INCONCLUSIVE
            return row(expected, str(error), ok), None
        return row(expected, signed.signer, ok=True), signed

    def provenance(self, path: Path) -> list[Row]:
        """That it names this artifact and is signed; of several attestations, one that does."""
        name, covered = visible(path.name), cache(lambda: self.covered(path))
        found: list[list[Row]] = []
        for value in signatures.attestations(self.trust.scope.read(path), name):
            rows, statement = self._attested(name, value, covered)
            if statement is not None and not statement.is_provenance:
                wanted, got = signatures.PROVENANCE[0], statement.predicate_type
                rows.append(check_row(name, "predicate type", wanted, got, ok=False))
            if worst(row.outcome for row in rows) is Outcome.PASS:
                self.statement = statement
                return rows
            found.append(rows)
        return min(found, key=lambda rows: sum(row.outcome is not Outcome.PASS for row in rows))

    def _attested(
        self, name: str, value: dict[str, Any], covered: Callable[[], Row]
    ) -> tuple[list[Row], Statement | None]:
        """A bundle or a key's envelope holds its signature, a statement is ``covered`` by one."""
        if "verificationMaterial" in value or ("payload" in value and self.trust.policy.key):
            made = Material(bundle=json.dumps(value).encode())
            row, signed = self._signature(replace(self.artifact, name=name), made)
            if signed is not None and signed.statement is None:
                what = "a signature of the file"
                row = check_row(name, "statement", "signed provenance", what, ok=False)
            return [row], signed.statement if signed is not None else None
        statement = signatures.parse_statement(value, name)
        ok = statement.is_about(self._digest, self.artifact.content(self.trust.scope))
        said = statement.subjects_text
        return [check_row(name, "subject", self.artifact.digest, said, ok), covered()], statement

    def commit(self, expected: str) -> Row:
        """The certificate's commit, else the one of a signed provenance; both where both speak."""
        name = self.artifact.name
        found = set(self.signed.commits) if self.signed is not None else set()
        if found - {expected}:
            return check_row(name, "commit", expected, ", ".join(sorted(found)), ok=False)
        # It lists every source that went in, tools as well.
        sources = self.statement.commits(self.repository) if self.statement is not None else set()
        if not found and not sources:
            problem = "neither a proven certificate nor a signed provenance names one"
            return unknown_row(name, "commit", expected, problem)
        perhaps = Outcome.INCONCLUSIVE if expected in sources else Outcome.FAIL
        ok = Outcome.PASS if sources <= {expected} else perhaps
        return check_row(name, "commit", expected, ", ".join(sorted(found | sources)), ok)

    def sbom(self, path: Path) -> list[Row]:
        """Valid by its own schema, signed, and about this artifact."""
        name, artifact = visible(path.name), self.artifact
        sbom = parse_sbom(self.trust.scope.read(path), name)
        valid = f"valid {sbom.version}"
        schema = check_row(name, "CycloneDX schema", valid, sbom.problem or valid, not sbom.problem)
        ok, wanted = self._has(sbom.digests), _VERSION.search(self.release)
        other = wanted and sbom.release and sbom.release.lstrip("v").partition("+")[0] != wanted[0]
        expected, got = artifact.digest, ", ".join(sbom.digests)
        if ok is not Outcome.FAIL and other:
            expected, got, ok = self.release, f"{sbom.name} {sbom.release}", Outcome.FAIL
        elif ok is Outcome.INCONCLUSIVE:
            got = "no SHA-256 or longer of its subject; write metadata.component.hashes"
            if sbom.name and not re.match(re.escape(sbom.name) + r"([-_.]|$)", artifact.name):
                expected, got, ok = artifact.name, sbom.name, Outcome.FAIL
        return [schema, self.covered(path), check_row(name, "is about", expected, visible(got), ok)]


# --- CycloneDX SBOMs: JSON 1.2 and newer ------------------------------------------------------------


@dataclass(frozen=True)
class Sbom:
    """``problem`` is empty when the schema of ``version`` holds; the rest is the subject's own."""

    version: str
    problem: str
    name: str
    release: str
    digests: tuple[str, ...]


def _is_reference(value: object) -> bool:
    """Whether a text is a link: as ASCII (RFC 3987, section 3.1) one by RFC 3986."""
    from rfc3986_validator import validate_rfc3986

    text = "".join(each if each.isascii() else quote(each) for each in str(value))
    return bool(validate_rfc3986(text, rule="URI_reference"))


def parse_sbom(data: bytes, where: str) -> Sbom:
    """A CycloneDX document and whether its schema holds. Raises ParameterError for another kind."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
    from jsonschema import Draft7Validator

    Draft7Validator.FORMAT_CHECKER.checks("iri-reference")(_is_reference)
    value = signatures.parse_object(data, where)
    versions = {v.to_version(): v for v in SchemaVersion if v >= SchemaVersion.V1_2}
    version = value.get("specVersion")
    if value.get("bomFormat") != "CycloneDX" or str(version) not in versions:
        known = ", ".join(sorted(versions))
        raise ParameterError(f"{where}: expected CycloneDX JSON {known}, got {version!r}")
    try:
        error = JsonStrictValidator(versions[str(version)]).validate_str(data.decode())
    except (ValueError, RecursionError) as broken:
        raise ParameterError(f"{where}: expected CycloneDX JSON, got: {broken}") from broken
    component = inner(inner(value, "metadata"), "component")
    hashes = objects(component.get("hashes"))
    digests = (signatures.named(str(each.get("alg")), each.get("content")) for each in hashes)
    name, release = (str(component.get(key) or "") for key in ("name", "version"))
    problem = str(error).strip().splitlines()[0][:200] if error is not None else ""
    return Sbom(str(version), problem, name, release, tuple(filter(None, digests)))
