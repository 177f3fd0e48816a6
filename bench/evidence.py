"""Seal and verify: seconds for an ordinary attempt, and 2 GiB against one pass of hashing."""

import base64
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from runbook_lib.evidence import sealing, verify
from runbook_lib.evidence.log import Log
from runbook_lib.evidence.status import verdict
from runbook_lib.recording import RECORDINGS
from runbook_lib.signers import Signing, Trust

KEY = Ed25519PrivateKey.generate()
PUBLIC = f"ed25519:{base64.b64encode(KEY.public_key().public_bytes_raw()).decode()}"
SIGNERS: dict[str, Any] = {"keys": [{"name": "bench", "key": PUBLIC}]}
BIG, FILES = 2 * 1024**3, 64


def sealed(folder: Path) -> None:
    """Seal what was recorded anew, and verify it."""
    entries = Log(folder / "log.jsonl").events()
    signing = Signing("bench", CryptoSigner(KEY))
    name = next(folder.glob("*.ipynb"), folder / "10_development.ipynb").name
    sealing.seal(folder, name, b"{}", verdict(entries), code="", foreign=False, signing=signing)
    rows, _ = verify.verify(folder, Trust.model_validate({"signers": SIGNERS}))
    assert {row.what for row in rows if row.outcome == "PASS"} >= {
        "2 signers",
        "3 files",
        "4 seals",
    }


def hashed(folder: Path) -> None:
    for path in (path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")


def timed(what: Callable[[Path], None], folder: Path) -> float:
    begun = time.perf_counter()
    what(folder)
    return time.perf_counter() - begun


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "attempt"
        with ZipFile(RECORDINGS / "canary.zip") as archive:
            archive.extractall(folder)
        print(f"seal and verify an ordinary attempt: {timed(sealed, folder):.2f} s")
        for number in range(FILES):
            with (folder / f"large-{number}").open("wb") as file:
                for _ in range(BIG // FILES // 2**20):
                    file.write(os.urandom(2**20))
        hashed(folder)  # what follows reads from memory
        once, both = timed(hashed, folder), timed(sealed, folder)
        print(
            f"2 GiB: one pass {once:.2f} s, seal and verify {both:.2f} s, {both / once:.2f} times"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
