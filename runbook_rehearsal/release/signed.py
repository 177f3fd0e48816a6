"""The release as the chain's pipeline publishes it, signed by a throwaway authority.

Beside the artifact lie its provenance and SBOM, and the release's checksums; each of them and the
artifact itself has a detached signature and certificate, whose log entry only the transparency log
knows: a listener that answers ``POST /api/v1/log/entries/retrieve`` as Rekor does.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..faults.table import FaultBoard
from ..files import write_atomically
from ..layout import IDENTITY, ISSUER, Release
from ..loopback import Address, Loopback
from .authority import Authority, b64, v1_answer

Json = dict[str, Any]


class SignedRelease:
    """A release's artifact, what lies beside it, and the log of its signatures."""

    def __init__(self, release: Release, faults: FaultBoard, loopback: Loopback) -> None:
        self._about(release)
        self._faults, self._loopback = faults, loopback
        self._entries: dict[tuple[str, str], Json] = {}
        self._address: Address = ("127.0.0.1", 0)
        self.open_log()
        self.authority = Authority(datetime.now(UTC), self.log)

    def _about(self, release: Release) -> None:
        self.artifact, self.commit = release.artifact, release.commit
        folder, name = self.artifact.parent, self.artifact.name
        self.manifest = folder / "SHA256SUMS.txt"
        self.provenance = folder / f"{name}.intoto.jsonl"
        self.sbom = folder / f"sbom-{name.partition('.')[0]}.json"

    @property
    def log(self) -> str:
        """The log's URL."""
        return f"http://{self._address[0]}:{self._address[1]}"

    def open_log(self) -> None:
        routes = [Route("/api/v1/log/entries/retrieve", self._retrieve, methods=["POST"])]
        self._address = self._loopback.listen(Starlette(routes=routes), *self._address)

    def close_log(self) -> None:
        self._loopback.close(self._address)

    # --- what is published ----------------------------------------------------------------------

    def publish(self, trusted_root: Path) -> None:
        """Write and sign everything, and what a verifier must be told to trust."""
        trusted_root.parent.mkdir(parents=True, exist_ok=True)
        trusted_root.write_bytes(self.authority.root)
        self._publish()

    def publish_next(self, release: Release) -> None:
        """The same for a later release, by the same authority; what was signed stays so."""
        self._about(release)
        self._publish()

    def _publish(self) -> None:
        self.sign(self.artifact)
        self.write_provenance(self.digest(self.artifact))
        self.write_sbom()
        self.write_manifest({path.name: self.digest(path) for path in (self.artifact, self.sbom)})

    @staticmethod
    def digest(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def write_manifest(self, digests: dict[str, str]) -> None:
        """Checksums by file name, under the paths of the build."""
        lines = [f"{digest}  dist/artifacts/{name}\n" for name, digest in sorted(digests.items())]
        self._write(self.manifest, "".join(lines))

    def write_provenance(self, digest: str) -> None:
        """A statement as the pipeline writes it: about that sha256, with no commit in it."""
        predicate = {
            "buildDefinition": {
                "buildType": "https://slsa.dev/provenance/v1#generic",
                "externalParameters": {"target": "x86_64-unknown-linux-gnu"},
                "internalParameters": {},
                "resolvedDependencies": [],
            },
            "runDetails": {"builder": {"id": IDENTITY}, "metadata": {"invocationId": "1/1"}},
        }
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": self.artifact.name, "digest": {"sha256": digest}}],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": predicate,
        }
        self._write(self.provenance, json.dumps(statement, indent=2) + "\n")

    def write_sbom(self, digest: str = "", kind: str = "application") -> None:
        """What the artifact is made of, by default about the artifact itself."""
        content = digest or self.digest(self.artifact)
        component = {
            "type": kind,
            "name": "rpp-node",
            "hashes": [{"alg": "SHA-256", "content": content}],
        }
        parts = [{"type": "library", "name": "tokio", "version": "1.43.0"}]
        document = {
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {"component": component},
            "components": parts,
        }
        self._write(self.sbom, json.dumps(document, indent=2) + "\n")

    def sign(self, path: Path, **certificate: str) -> None:
        """Sign a file as cosign leaves it: base64 of the signature, and of the certificate."""
        who = {"identity": IDENTITY, "issuer": ISSUER, "commit": self.commit, **certificate}
        data = path.read_bytes()
        made = self.authority.detach(data, **who)
        key = (hashlib.sha256(data).hexdigest(), b64(made.signature))
        self._entries[key] = v1_answer(made.entry)
        signature, pem = beside(path)
        write_atomically(signature, b64(made.signature) + "\n")
        write_atomically(pem, base64.b64encode(made.certificate))

    def _write(self, path: Path, text: str) -> None:
        write_atomically(path, text)
        self.sign(path)

    async def _retrieve(self, request: Request) -> Response:
        """The entries that hold a digest and a signature; of unknown ones, none."""
        try:
            (asked,) = json.loads(await request.body())["entries"]
            spec = asked["spec"]
            key = (spec["data"]["hash"]["value"], spec["signature"]["content"])
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"code": 400, "message": "expected one proposed entry"}, 400)
        known = key in self._entries and not self._faults.is_on("log-entry-missing")
        return JSONResponse([self._entries[key]] if known else [])


def beside(path: Path) -> tuple[Path, Path]:
    """Where a file's detached signature and certificate lie."""
    return path.with_name(f"{path.name}.sig"), path.with_name(f"{path.name}.pem")
