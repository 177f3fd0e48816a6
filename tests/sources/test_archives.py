"""One file of a release archive: its digest, or a refusal; nothing is extracted, nothing followed."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runbook_lib.errors import SourceError, tried
from runbook_lib.sources import local

from .conftest import World

NAME, NODE, EVIL = "bin/rpp-node", b"the node" * 1000, b"another"
DIGEST = f"sha256:{hashlib.sha256(NODE).hexdigest()}"
Entry = tuple[str, Any]


def tar(*entries: Entry, form: int = tarfile.PAX_FORMAT, **headers: str) -> bytes:
    """Bytes are a file, None a folder, text a link, a pair a kind of its own and a size it claims."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, pax_headers=headers) as archive:
        for name, what in entries:
            member = tarfile.TarInfo(name)
            match what:
                case bytes():
                    member.size = len(what)
                case None:
                    member.type = tarfile.DIRTYPE
                case str():
                    member.type, member.linkname = tarfile.SYMTYPE, what
                case (kind, size):
                    member.type, member.size = kind, size
            archive.addfile(member, io.BytesIO(what) if isinstance(what, bytes) else None)
    return out.getvalue()


@pytest.fixture
def digest(tmp_path: Path) -> Callable[[bytes], str]:
    """What an archive of that content says of the node: its digest, or the error."""
    path = tmp_path / "release.tar.gz"

    def found(data: bytes) -> str:
        path.write_bytes(data)
        got = tried(local.member_digest, path, NAME)
        return got.problem if isinstance(got, SourceError) else got

    return found


GOOD = [("bin", None), ("README.md", b"text"), (NAME, NODE), ("LICENSE.md", b"")]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_named_file_is_hashed(digest: Any, pack: Any, form: int) -> None:
    long = ("d/" + "x" * 200, b"long")

    assert digest(pack(tar(*GOOD, form=form))) == DIGEST
    assert digest(pack(tar((f"./{NAME}", NODE)))) == DIGEST
    if form != tarfile.USTAR_FORMAT:
        assert digest(pack(tar(long, *GOOD, form=form))) == DIGEST


def sparse() -> bytes:
    return tar((NAME, (tarfile.GNUTYPE_SPARSE, 0)), form=tarfile.GNU_FORMAT)


def claims(kind: bytes, size: int) -> bytes:
    """A header of a kind that the reader would take whole into memory."""
    return tar(("x", (kind, size)), form=tarfile.GNU_FORMAT)


def damaged(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


HOSTILE: dict[str, tuple[bytes, str]] = {
    "no such file": (tar(("bin/rpp-node2", NODE)), f"none of that name: {NAME}"),
    "twice": (tar((NAME, NODE), (NAME, EVIL)), f"{NAME} twice"),
    "twice, spelt otherwise": (tar((NAME, NODE), ("bin/../bin//rpp-node", EVIL)), "twice"),
    "twice, absolute": (tar((NAME, NODE), (f"/{NAME}", EVIL)), "twice"),
    "a symbolic link": (tar(("real", NODE), (NAME, "../real")), "as a link or special file"),
    "a hard link": (tar((NAME, (tarfile.LNKTYPE, 0))), "as a link or special file"),
    "a folder": (tar((NAME, None)), "as a link or special file"),
    "a pipe": (tar((NAME, (tarfile.FIFOTYPE, 0))), "as a link or special file"),
    "sparse": (sparse(), "expected"),
    "below a link": (tar(("bin", "elsewhere"), (NAME, NODE)), "below a link or file"),
    "below a file": (tar((NAME, NODE), ("bin", b"file")), "below a link or file"),
    "a second archive behind it": (tar((NAME, NODE)) + tar((NAME, EVIL)), "content behind its end"),
    "a damaged header between": (
        damaged(tar((NAME, NODE), (NAME, EVIL)), 512 * 17), "content behind its end"),
    "it breaks off in the file": (tar((NAME, NODE))[:2000], "it breaks off in a file"),
    "a long name of 1 GB": (claims(tarfile.GNUTYPE_LONGNAME, 2**30), "a header of"),
    "a pax header of 1 GB": (claims(tarfile.XHDTYPE, 2**30), "a header of"),
    "a gzip stream that breaks off": (gzip.compress(tar(*GOOD))[:-20], "got: "),
    "a gzip stream with a wrong sum": (damaged(gzip.compress(tar(*GOOD)), -6), "got: "),
    "content behind a gzip stream": (gzip.compress(tar(*GOOD)) + b"more", "got: "),
    "a bomb": (gzip.compress(tar((NAME, bytes(30_000_000)))), "bytes unpacked"),
    "a bomb beside it": (gzip.compress(tar(("x", bytes(30_000_000)), (NAME, NODE))), "unpacked"),
    "no archive": (b"#!/bin/sh\n" * 100, "got: "),
    "nothing": (b"", "got: "),
    "zip": (b"PK\x03\x04" + bytes(600), "got: "),
}  # fmt: skip


@pytest.mark.parametrize(("data", "problem"), HOSTILE.values(), ids=HOSTILE)
def test_anything_else_is_refused(digest: Any, data: bytes, problem: str) -> None:
    found = digest(data)

    assert found.startswith("expected ")
    assert problem in found


def test_entries_are_counted(digest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "MAX_MEMBERS", 5)

    assert digest(tar(*GOOD)) == DIGEST
    assert "more than 5 entries" in digest(tar(*GOOD, ("a", b""), ("b", b"")))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_damage_escapes(digest: Any, data: st.DataObject) -> None:
    whole = bytearray(tar(*GOOD, form=tarfile.GNU_FORMAT))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 600))] = data.draw(st.binary(max_size=12))
    assert digest(bytes(whole)).startswith(("sha256:", "expected "))


def test_what_a_scope_is_told_is_replayed(world: World, tmp_path: Path) -> None:
    path = tmp_path / "release.tar.gz"
    path.write_bytes(gzip.compress(tar(*GOOD)))
    assert world.scope().member_digest(path, NAME) == DIGEST
    path.unlink()
    assert world.replay().member_digest(path, NAME) == DIGEST
    with pytest.raises(SourceError, match="No such file or directory"):
        world.scope(number=2).member_digest(path, NAME)
