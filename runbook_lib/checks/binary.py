"""preflight.binary-verification: the release's artifacts are ours, and of the commit under test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..changes.roll import VERIFICATION
from ..changes.targets import of_release
from ..context import Context, judges
from ..errors import ParameterError, SourceError
from ..outcomes import CheckResult, Outcome, Row, Value, check_row, worst
from ..sources.commands import fill
from ..strict import project_path
from ..wording import count
from .ci import checkout

if TYPE_CHECKING:
    from ..sources.artifacts import Trust

Checksums = Mapping[str, frozenset[str]]
UNREAD = SourceError, ParameterError


def expected(context: Context) -> tuple[str, Value]:
    """What must hold, and its threshold."""
    what = "checksum, signer, provenance, commit and SBOM of each release artifact"
    return what, ", ".join(context.site.artifacts) or "the site names none"


@judges(VERIFICATION)
def binary_verification(context: Context) -> CheckResult:
    """Each artifact is listed, signed by the site's signer, and built from the commit under test.

    Its provenance names it; its SBOM is valid CycloneDX and about it; manifest, provenance and SBOM
    are signed by the same signer. ``data`` holds the digests of artifacts of which all of this
    holds: what later read-backs must name. Playbook: common preflight, 2.
    """
    checkout(context, "under test")
    digests, manifests = dict[str, str](), dict[Path, Checksums]()
    trust = None
    with context.reading("signing", "a signer to trust", "site", UNREAD):
        trust = _trust(context)
    if trust is not None:
        for name in context.site.artifacts:
            with context.apart() as found:
                digest = _artifact(context, trust, name, manifests)
            context.findings += found
            if digest and worst(row.outcome for row in found) is Outcome.PASS:
                digests[name] = digest
        if not context.site.artifacts:
            problem = "expected artifacts in the site file, got none"
            context.unknown("site", "artifacts", "at least one", problem)
    signer = context.site.artifact_signing.identity or context.site.artifact_signing.key
    return context.conclude(
        passed=f"signed by {signer}, of the commit under test: {count(len(digests), 'artifact')}",
        data={"digests": digests, "commit": context.params.commit},
    )


def _trust(context: Context) -> Trust:
    """Whom the site trusts, and by what. Raises SourceError, ParameterError."""
    from ..sources.artifacts import Trust
    from ..sources.signatures import Policy, finder

    signing, scope = context.site.artifact_signing, context.scope
    if not (signing.identity or signing.key):
        wanted = "artifact_signing.identity with its issuer, or artifact_signing.key"
        raise SourceError("site", f"expected {wanted} in the site file, got neither")
    (identity,) = fill("artifact_signing.identity", [signing.identity], **of_release(context))
    policy = Policy(
        identity=identity,
        issuer=signing.issuer,
        key=scope.read(project_path(signing.key)) if signing.key else b"",
        root=scope.read(project_path(signing.trusted_root)) if signing.trusted_root else b"",
    )
    find = finder(lambda asked: scope.http([asked])[0], signing.log)
    return Trust(policy, scope, find, signing.bundle, signing.signature, signing.certificate)


def _artifact(context: Context, trust: Trust, name: str, manifests: dict[Path, Checksums]) -> str:
    """Judge all about the artifact of that name. Its digest if the file could be read.

    ``manifests`` are those read so far: one of several artifacts is read and verified once.
    """
    from ..sources.artifacts import Examination, parse_checksums, read_artifact

    signing, release = context.site.artifact_signing, of_release(context)
    forge = context.site.forge
    host = str(urlsplit(forge.url).hostname).removeprefix("api.")
    repository = f"{host}/{forge.repository}".lower()
    (filled,) = fill(f"artifacts.{name}", [context.site.artifacts[name]], **release)
    path = project_path(filled)
    artifact = None
    with context.reading("artifact", "readable", name, UNREAD):
        artifact = read_artifact(str(path), trust.scope)
    if artifact is None:
        return ""
    found = Examination(artifact, trust, context.params.release, repository)
    about = found.artifact.name

    def asked(what: str, ask: Callable[[], Iterable[Row]]) -> None:
        """What a question answers; what cannot be read or understood is INCONCLUSIVE."""
        with context.reading(what, "readable", about, UNREAD):
            context.findings += ask()

    def beside(what: str, template: str, ask: Callable[[Path], Iterable[Row]]) -> None:
        if not template:
            problem = f"expected artifact_signing.{what} in the site file, got none"
            context.unknown(about, what, "in the site file", problem)
            return
        values = {"name": name, "path": str(path), **release}
        (filled,) = fill(f"artifact_signing.{what}", [template], **values)
        asked(what, lambda: ask(project_path(filled)))

    def listed(at: Path) -> list[Row]:
        """Whether the manifest lists the artifact; its own signature when it is first read."""
        with context.apart() as rows:
            if at not in manifests:
                manifests[at] = parse_checksums(trust.scope.read(at), at.name)
                asked("manifest", lambda: [found.covered(at)])
        return [found.listed(manifests[at], at.name), *rows]

    def binary() -> list[Row]:
        """The node's binary in its archive: what running nodes must name."""
        digest = context.scope.member_digest(path, member)
        return [check_row(path.name, "binary", f"{member} in it", digest, ok=True)]

    member = context.site.binary_member if name == "node" else ""
    beside("manifest", signing.manifest, listed)
    asked("signature", lambda: [found.signature()])
    beside("provenance", signing.provenance, found.provenance)
    context.findings.append(found.commit(context.params.commit))
    beside("sbom", signing.sbom, found.sbom)
    if member:
        asked("binary", binary)
    return found.artifact.digest
