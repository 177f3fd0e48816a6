"""Files of the rehearsal, put in place in one step, named by digest; and keys made from names."""

import base64
import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MEMBER = "bin/rpp-node"
"""The binary's name in a release archive."""


def write_atomically(path: Path, data: bytes | str, mode: int = 0o644) -> None:
    """Replace a file in one step: a reader sees the old content or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    temporary.write_bytes(data.encode() if isinstance(data, str) else data)
    temporary.chmod(mode)
    temporary.replace(path)


def kept(*paths: Path) -> Callable[[], None]:
    """What puts these files back as they are now."""
    found = [(path, path.read_bytes(), path.stat().st_mode & 0o777) for path in paths]

    def put_back() -> None:
        for each in found:
            write_atomically(*each)

    return put_back


def private_key(name: str) -> Ed25519PrivateKey:
    """A throwaway key."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def public_key(key: Ed25519PrivateKey) -> str:
    """As the site file writes it."""
    return f"ed25519:{base64.b64encode(key.public_key().public_bytes_raw()).decode()}"


def pack(binary: bytes) -> bytes:
    """A release archive, as the chain's: the same bytes for the same binary, whatever zlib is there."""
    out = io.BytesIO()
    with (
        gzip.GzipFile("", "wb", 0, out, 0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, data, mode in ((MEMBER, binary, 0o755), ("README.md", b"A stand-in.\n", 0o644)):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), mode
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def unpack(artifact: Path) -> bytes:
    """The binary in an archive. Raises OSError, KeyError, TarError."""
    with tarfile.open(artifact) as archive:
        member = archive.extractfile(MEMBER)
        assert member is not None
        return member.read()


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
