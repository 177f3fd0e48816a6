"""Releases that must not be accepted: what each fault does to the files of a good one."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256, sha512
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import kept, write_atomically
from ..layout import IDENTITY, ISSUER
from ..signing import Json, SignedRelease, b64, beside

if TYPE_CHECKING:
    from ..network import RehearsalNetwork
    from .table import Active

OTHER = "0" * 64
_OTHERS = [{"name": "other", "digest": {"sha256": OTHER}}]
_BOM = "https://cyclonedx.org/bom"
Break = Callable[[SignedRelease], None]


def _signature_tampered(release: SignedRelease) -> None:
    signature, _ = beside(release.artifact)
    made = release.authority.detach(b"", identity=IDENTITY, issuer=ISSUER, commit=release.commit)
    write_atomically(signature, b64(made.signature))


def _without(name: str) -> Break:
    """Without its artifact, manifest, provenance or sbom; ``.sig`` means its signature."""

    def drop(release: SignedRelease) -> None:
        path: Path = getattr(release, name.removesuffix(".sig"))
        (beside(path)[0] if name.endswith(".sig") else path).unlink()

    return drop


def _as_bsd(release: SignedRelease) -> str:
    """As tools of other systems write it: a mark of byte order, comments, another algorithm beside."""
    files, named = (release.artifact, release.sbom), {"SHA256": sha256, "SHA512": sha512}
    lines = [f"{kind} (dist/{file.name}) = {made(file.read_bytes()).hexdigest()}"
             for file in files for kind, made in named.items()]  # fmt: skip
    return "\r\n".join(["\ufeff# checksums of the release", "", *lines, ""])


def _hash(content: str, algorithm: str = "SHA-256") -> dict[str, str]:
    return {"alg": algorithm, "content": content}


def _commit_of_tool(release: SignedRelease) -> None:
    """Only a tool's repository had the commit; the certificate names none."""
    tool = {"uri": "git+https://github.com/elsewhere/tool", "digest": {"gitCommit": release.commit}}
    build = {"resolvedDependencies": [tool]}
    release.write_provenance(predicate={"buildDefinition": build})
    release.sign(release.artifact, commit="")


def _envelope(statement: Json) -> str:
    kind, payload = "application/vnd.in-toto+json", b64(json.dumps(statement).encode())
    return json.dumps({"payloadType": kind, "payload": payload, "signatures": [{"sig": b64(b"-")}]})


def _second_of_two(statement: Json) -> str:
    return "".join(json.dumps(one) + "\n" for one in ({**statement, "subject": _OTHERS}, statement))


BREAKS: dict[str, Break] = {
    "artifact-tampered": lambda r: write_atomically(
        r.artifact, r.artifact.read_bytes() + b"# patched\n"
    ),
    "artifact-wrong-identity": lambda r: r.sign(
        r.artifact, identity=IDENTITY.replace("HUBId", "mallory")
    ),
    "artifact-wrong-issuer": lambda r: r.sign(r.artifact, issuer="https://issuer.invalid"),
    "artifact-other-commit": lambda r: r.sign(r.artifact, commit="0" * 40),
    "signature-tampered": _signature_tampered,
    "signature-missing": _without("artifact.sig"),
    "manifest-wrong-digest": lambda r: r.write_manifest(**{r.artifact.name: OTHER}),
    "manifest-line-missing": lambda r: r.write_manifest(**{r.artifact.name: ""}),
    "manifest-missing": _without("manifest"),
    "manifest-unsigned": _without("manifest.sig"),
    "manifest-as-bsd": lambda r: r.write(r.manifest, _as_bsd(r)),
    "provenance-other-subject": lambda r: r.write_provenance(subject=_OTHERS),
    "provenance-other-kind": lambda r: r.write_provenance(predicateType=_BOM),
    "provenance-commit-of-tool": _commit_of_tool,
    "provenance-in-envelope": lambda r: r.write_provenance(_envelope),
    "provenance-among-others": lambda r: r.write_provenance(_second_of_two),
    "provenance-missing": _without("provenance"),
    "provenance-unsigned": _without("provenance.sig"),
    "sbom-invalid": lambda r: r.write_sbom(type="holiday"),
    "sbom-other-artifact": lambda r: r.write_sbom(hashes=[_hash(OTHER)]),
    "sbom-other-hash": lambda r: r.write_sbom(
        hashes=[_hash(r.digest(r.artifact)), _hash(2 * OTHER, "SHA-512")]
    ),
    "sbom-other-version": lambda r: r.write_sbom(version="0.9.0"),
    "sbom-other-name": lambda r: r.write_sbom(name="rpp", hashes=[]),
    "sbom-missing": _without("sbom"),
    "sbom-unsigned": _without("sbom.sig"),
}


def bad_release(network: RehearsalNetwork, active: Active) -> Callable[[], None]:
    release = network.signed
    undo = kept(*(path for path in release.artifact.parent.iterdir() if path.is_file()))
    BREAKS[active.name](release)
    return undo
