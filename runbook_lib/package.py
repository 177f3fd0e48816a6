"""Which version of the package this is, and the digest of its code as it was imported."""

from functools import cache
from pathlib import Path

from .canonical import digest, digest_file

VERSION = "0.1.0"


@cache
def package_digest() -> str:
    """``sha256:HEX`` over the name and digest of every module and template."""
    root = Path(__file__).parent
    paths = sorted([*root.rglob("*.py"), *root.rglob("*.j2")])
    return digest({path.relative_to(root).as_posix(): digest_file(path) for path in paths})
