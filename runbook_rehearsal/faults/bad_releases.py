"""Releases that must not be accepted: what each fault does to the files of a good one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import kept, write_atomically
from ..layout import IDENTITY, ISSUER
from ..signing import SignedRelease, b64, beside

if TYPE_CHECKING:
    from ..network import RehearsalNetwork
    from .table import Active

OTHER = "0" * 64
Break = Callable[[SignedRelease], None]


def _artifact_tampered(release: SignedRelease) -> None:
    release.artifact.write_bytes(release.artifact.read_bytes() + b"# patched\n")


def _signature_tampered(release: SignedRelease) -> None:
    signature, _ = beside(release.artifact)
    made = release.authority.detach(b"", identity=IDENTITY, issuer=ISSUER, commit=release.commit)
    write_atomically(signature, b64(made.signature))


def _without(*names: str) -> Break:
    """Without those of: artifact, manifest, provenance, sbom; ``.sig`` means its signature."""

    def drop(release: SignedRelease) -> None:
        for name in names:
            path: Path = getattr(release, name.removesuffix(".sig"))
            (beside(path)[0] if name.endswith(".sig") else path).unlink()

    return drop


def _manifest(release: SignedRelease, **digests: str) -> None:
    named = {release.artifact.name: digests["artifact"]} if "artifact" in digests else {}
    release.write_manifest({release.sbom.name: release.digest(release.sbom), **named})


BREAKS: dict[str, Break] = {
    "artifact-tampered": _artifact_tampered,
    "artifact-wrong-identity": lambda r: r.sign(
        r.artifact, identity=IDENTITY.replace("HUBId", "mallory")
    ),
    "artifact-wrong-issuer": lambda r: r.sign(r.artifact, issuer="https://issuer.invalid"),
    "artifact-other-commit": lambda r: r.sign(r.artifact, commit="0" * 40),
    "signature-tampered": _signature_tampered,
    "signature-missing": _without("artifact.sig"),
    "manifest-wrong-digest": lambda r: _manifest(r, artifact=OTHER),
    "manifest-line-missing": _manifest,
    "manifest-missing": _without("manifest"),
    "manifest-unsigned": _without("manifest.sig"),
    "provenance-other-subject": lambda r: r.write_provenance(OTHER),
    "provenance-missing": _without("provenance"),
    "provenance-unsigned": _without("provenance.sig"),
    "sbom-invalid": lambda r: r.write_sbom(kind="holiday"),
    "sbom-other-artifact": lambda r: r.write_sbom(OTHER),
    "sbom-missing": _without("sbom"),
    "sbom-unsigned": _without("sbom.sig"),
}


def bad_release(network: RehearsalNetwork, active: Active) -> Callable[[], None]:
    release = network.signed
    undo = kept(*(path for path in release.artifact.parent.iterdir() if path.is_file()))
    BREAKS[active.name](release)
    return undo
