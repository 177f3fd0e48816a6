"""The staged release: files, OCI layouts and docker's archives, and the one path that is followed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.errors import SourceError
from runbook_lib.sources import images, layers, tarfiles
from runbook_lib.sources.images import Staged, inspect

BINARY = "usr/local/bin/rpp-node"
NODE = b"#!/bin/sh\nnode of the last good release\n" * 50
EVIL = b"#!/bin/sh\nanother build\n"


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar(*entries: tuple[str, bytes | str | None], form: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive: bytes are a file's, None a folder, ``->x`` a symlink, ``=x`` a hard link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                symbolic = content.startswith("->")
                member.type = tarfile.SYMTYPE if symbolic else tarfile.LNKTYPE
                member.linkname = content.lstrip("->=")
            data = content if isinstance(content, bytes) else b""
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


Pack = Callable[[bytes], bytes]


def layout(*layers: bytes, pack: Pack = lambda data: data, **changes: Any) -> dict[str, bytes]:
    """The files of an OCI layout; ``changes`` damage it by name."""
    packed = [pack(layer) for layer in layers]
    config = json.dumps({"rootfs": {"diff_ids": changes.get("diff_ids", list(map(sha, layers)))}})
    blobs = {blob(data): data for data in (*packed, config.encode())}
    manifest = {
        "config": descriptor(config.encode()),
        "layers": [descriptor(data) | changes.get("layer", {}) for data in packed],
    }
    text = json.dumps(manifest).encode()
    blobs[blob(text)] = text
    listed = [descriptor(text), *changes.get("more", [])]
    index = json.dumps({"manifests": listed}).encode()
    return {**blobs, "index.json": index, "oci-layout": b"{}", **changes.get("files", {})}


def saved(*layers: bytes) -> dict[str, bytes]:
    """What older ``docker save`` writes."""
    config = json.dumps({"rootfs": {"diff_ids": [sha(layer) for layer in layers]}}).encode()
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": ["rpp/node:v1"], "Layers": names}]
    files = dict(zip(names, layers, strict=True))
    return {**files, "config.json": config, "manifest.json": json.dumps(manifest).encode()}


def blob(data: bytes) -> str:
    return "blobs/sha256/" + hashlib.sha256(data).hexdigest()


def descriptor(data: bytes) -> dict[str, Any]:
    return {"digest": sha(data), "size": len(data)}


def seen(path: Path, files: dict[str, bytes] | bytes, *, folder: bool = False) -> Staged:
    """Write it as an archive or a folder, and look."""
    if folder:
        assert isinstance(files, dict)
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    else:
        path.write_bytes(files if isinstance(files, bytes) else tar(*files.items()))
    return inspect(path, BINARY, lambda amount: None)


# --- what it is -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [NODE, b"", gzip.compress(tar((BINARY, NODE))), tar(("x", NODE))]
)
def test_anything_else_is_a_plain_file(tmp_path: Path, content: bytes) -> None:
    """Known by its own digest alone; an archive that is no image as well."""
    found = seen(tmp_path / "file", content)

    assert (found.kind, found.known_as, found.binary) == ("file", [sha(content)], sha(content))
    assert found.size == len(content)


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_binary_is_found_in_an_oci_layout(tmp_path: Path, pack: Pack, folder: bool) -> None:
    """As a folder or one tar, its layers packed or not; it answers to manifest and config too."""
    files = layout(tar(("etc/x", b"x")), tar((f"./{BINARY}", NODE)), pack=pack)
    manifest = json.loads(files["index.json"])["manifests"][0]["digest"]
    config = json.loads(files["blobs/sha256/" + manifest[7:]])["config"]["digest"]

    found = seen(tmp_path / "image", files, folder=folder)

    assert (found.kind, found.binary, found.problem) == ("OCI layout", sha(NODE), "")
    own = manifest if folder else sha(tar(*files.items()))
    assert (found.digest, found.known_as[-1]) == (own, config)
    assert manifest in found.known_as


def test_a_binary_is_found_in_what_docker_saves(tmp_path: Path) -> None:
    """Its image id is the digest of its configuration."""
    files = saved(tar((BINARY, EVIL)), tar((BINARY, NODE)))

    found = seen(tmp_path / "image.tar", files)

    assert (found.kind, found.binary) == ("docker save", sha(NODE))
    assert found.known_as == [sha(tar(*files.items())), sha(files["config.json"])]


def test_attestations_and_nested_indexes_are_no_second_image(tmp_path: Path) -> None:
    """As builders write them."""
    inner = layout(tar((BINARY, NODE)))
    index = inner.pop("index.json")
    attestation = descriptor(b"?") | {"annotations": {"vnd.docker.reference.type": "attestation"}}
    outer = descriptor(index) | {"mediaType": "application/vnd.oci.image.index.v1+json"}
    top = json.dumps({"manifests": [outer, attestation]}).encode()

    found = seen(tmp_path / "image.tar", {**inner, blob(index): index, "index.json": top})

    assert found.binary == sha(NODE)


# --- layers -----------------------------------------------------------------------------------------

LATER = {
    "replaced": ([(BINARY, EVIL)], [(BINARY, NODE)]),
    "untouched": ([(BINARY, NODE)], [("usr/local/bin/other", EVIL), ("usr/local/bin", None)]),
    "white-out and back": ([(BINARY, EVIL)], [("usr/local/bin/.wh.rpp-node", b"")], [(BINARY, NODE)]),
    "own opaque folder": ([(BINARY, EVIL)], [(BINARY, NODE), ("usr/local/bin/.wh..wh..opq", b"")]),
    "link elsewhere": ([("lib", "->usr/lib"), ("lib64", "->x")], [(BINARY, NODE)], [("usr/lib/x", b"")]),
}  # fmt: skip


@pytest.mark.parametrize("layers", LATER.values(), ids=LATER)
def test_the_last_layer_that_has_the_path_counts(tmp_path: Path, layers: Any) -> None:
    """Whiteouts hide what lies below, never what their own layer brings."""
    found = seen(tmp_path / "i", layout(*(tar(*layer) for layer in layers)))

    assert (found.binary, found.problem) == (sha(NODE), "")


NONE = f"{BINARY}: expected it in the image, got none"
GONE = {
    "never there": [("usr/local/bin/rpp-node2", EVIL)],
    "whiteout": [("usr/local/bin/.wh.rpp-node", b"")],
    "whiteout above": [("usr/.wh.local", b"")],
    "opaque": [("usr/local/bin/.wh..wh..opq", b"")],
    "opaque above": [("usr/.wh..wh..opq", b"")],
    "opaque root": [(".wh..wh..opq", b"")],
    "whiteout at the root": [(".wh.usr", b"")],
}


@pytest.mark.parametrize("layer", GONE.values(), ids=GONE)
def test_a_path_that_is_hidden_is_not_there(tmp_path: Path, layer: Any) -> None:
    """However it was hidden."""
    below = [] if layer is GONE["never there"] else [tar((BINARY, NODE))]
    found = seen(tmp_path / "i", layout(*below, tar(*layer)))

    assert (found.binary, found.problem) == ("", NONE)


LINKED = f"{BINARY}: expected a plain path, got an entry through a link"
SPECIAL = f"{BINARY}: expected a plain file, got one that is a link or a special file"
BELOW = f"{BINARY}: expected a plain file, got one that lies below a link or file"
TRICKS = {
    "symlink": ([(BINARY, "->/bin/sh")], SPECIAL),
    "hard link": ([("evil", EVIL), (BINARY, "=evil")], SPECIAL),
    "folder": ([(BINARY, None)], SPECIAL),
    "folder is a link": ([("usr/local", "->/opt")], BELOW),
    "folder is a file": ([("usr/local/bin", EVIL)], BELOW),
    "written through a link": ([("foo", "->usr/local/bin"), ("foo/rpp-node", EVIL)], LINKED),
    "hidden through a link": ([("foo", "->usr/local"), ("foo/bin/.wh.rpp-node", b"")], LINKED),
    "opaque through a link": ([("foo", "->usr/local"), ("foo/.wh..wh..opq", b"")], LINKED),
    "folder through a link": ([("foo", "->usr"), ("foo/local", "->/opt")], LINKED),
    "twice": ([(BINARY, NODE), (BINARY, EVIL)], f"{BINARY}: expected a plain file, got one that stands twice in one layer"),
}  # fmt: skip


@pytest.mark.parametrize(("layer", "problem"), TRICKS.values(), ids=TRICKS)
def test_links_on_the_way_prove_nothing(tmp_path: Path, layer: Any, problem: str) -> None:
    """What a runtime would make of them is not ours to guess; also with a proper file below."""
    found = seen(tmp_path / "i", layout(tar((BINARY, NODE)), tar(*layer)))

    assert (found.binary, found.problem) == ("", problem)


# --- damaged and hostile ----------------------------------------------------------------------------


def damaged(**changes: Any) -> dict[str, bytes]:
    return layout(tar((BINARY, NODE)), **changes)


def short(files: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {**files, name: files[name][:-7]}


LAYER = blob(tar((BINARY, NODE)))
ZSTD = b"\x28\xb5\x2f\xfd" + b"0" * 60
WRONG = {
    "another diff id": (damaged(diff_ids=[sha(b"")]), "image: expected a layer of content sha256:e3b0"),
    "no diff id": (damaged(diff_ids=[]), "image: expected 1 diff_ids, got 0"),
    "another blob": (damaged(files={LAYER: tar((BINARY, EVIL + NODE))}), "image: expected a layer of "),
    "missing blob": ({k: v for k, v in damaged().items() if k != LAYER}, f"image: expected {LAYER}, got none"),
    "short blob": (short(damaged(), LAYER), "image: expected a layer of 10240 bytes, got 10233"),
    "two images": (damaged(more=[descriptor(b"?")]), "index.json: expected one image, got 2"),
    "escaping digest": (damaged(files={"index.json": b'{"manifests": [{"digest": "sha256:../../x", "size": 1}]}'}), "index.json: manifests.0.digest: expected text matching"),
    "no JSON": (damaged(files={"index.json": b"\xff"}), "index.json: expected JSON, got"),
    "zstd": (layout(ZSTD), "image: expected layers as tar or gzip, got zstd; save it otherwise"),
    "no tar in it": (layout(b"?" * 1024), "archive: expected a well-formed tar archive, got: a number is not octal"),
    "leaves its folder": (layout(tar(("../../etc/passwd", EVIL))), "archive: expected a well-formed tar archive, got: an entry's name leaves its folder"),
    "two kinds of image": (damaged(files=saved(tar((BINARY, EVIL)))), "manifest.json: expected the image of index.json, got sha256:"),
    "a key in two cases": (damaged(files={"index.json": b'{"manifests": [], "Manifests": []}'}), "index.json: expected every key once, got one twice"),
    "docker without images": ({"manifest.json": b"[]"}, "manifest.json: expected one image, got 0"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "problem"), WRONG.values(), ids=WRONG)
def test_a_damaged_image_is_an_error(tmp_path: Path, files: Any, problem: str) -> None:
    """Saying which part is not what its name or its configuration says."""
    with pytest.raises(SourceError) as caught:
        seen(tmp_path / "i", files)

    assert str(caught.value).startswith(problem)


def test_a_folder_of_docker_names_no_files_outside(tmp_path: Path) -> None:
    """Its lists hold any path; a folder is read as an OCI layout only."""
    files = saved(tar((BINARY, NODE)))
    with pytest.raises(
        SourceError, match=r"^image: expected index.json of an OCI layout, got none$"
    ):
        seen(tmp_path / "folder", files, folder=True)


def test_a_damaged_gzip_layer_is_an_error(tmp_path: Path) -> None:
    """Cut, or followed by something else."""
    for pack in (lambda data: gzip.compress(data)[:-9], lambda data: gzip.compress(data) + b"x"):
        with pytest.raises(SourceError, match=r"^image: expected a whole gzip layer, got: "):
            seen(tmp_path / "i", layout(tar((BINARY, NODE)), pack=pack))


def test_a_bomb_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a layer unpacks to is bounded, however small it is packed."""
    monkeypatch.setattr(images, "MAX_UNPACKED", 2_000_000)
    bomb = tar(("zeros", bytes(3_000_000)))

    with pytest.raises(SourceError, match=r"^image: expected at most 2000000 bytes unpacked, got"):
        seen(tmp_path / "i", layout(bomb, pack=gzip.compress))


def test_links_without_end_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What must be remembered of an image is bounded."""
    monkeypatch.setattr(layers, "MAX_NOTED", 1000)
    links: list[tuple[str, str]] = [(f"link-{number}", "->x") for number in range(20)]

    with pytest.raises(
        SourceError, match=r"^image: expected at most 1000 bytes of links, got more$"
    ):
        seen(tmp_path / "i", layout(tar(*links)))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Nobody will ever write to it."""
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(
        SourceError, match=r"^pipe: expected a readable file or OCI layout, got: not"
    ):
        inspect(tmp_path / "pipe", BINARY, lambda amount: None)


# --- the walker -------------------------------------------------------------------------------------


class Bytes:
    """A stream that never gives more than is asked for, and counts the largest question."""

    def __init__(self, data: bytes) -> None:
        self._file, self.most = io.BytesIO(data), 0

    def read(self, size: int, /) -> bytes:
        self.most = max(self.most, size)
        return self._file.read(size)

    def skip(self, size: int, /) -> None:
        self._file.seek(size, 1)


NAMES = st.lists(st.text("abü. -_", min_size=1, max_size=60).filter(lambda n: n.strip(".")), min_size=1, max_size=4).map("/".join)  # fmt: skip


@given(
    files=st.dictionaries(NAMES, st.binary(max_size=1500), max_size=6),
    form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_every_archive_is_read_as_the_standard_library_reads_it(
    files: dict[str, bytes], form: int
) -> None:
    """Names of any length, in both ways to write them, and their content."""
    written = {name: data for name, data in files.items() if not name.endswith("/")}
    found = {
        member.name: b"".join(member.content())
        for member in tarfiles.members(Bytes(tar(*written.items(), form=form)))
    }

    assert found == {
        "/".join(part for part in name.split("/") if part != "."): data
        for name, data in written.items()
    }


@given(st.binary(max_size=2000), st.integers(0, 3000), st.binary(min_size=1, max_size=40))
def test_any_bytes_are_an_archive_or_an_error(noise: bytes, at: int, patch: bytes) -> None:
    """Damaged anywhere, or noise: never another exception, never a large read."""
    good = tar(("a/long" * 40, NODE), (BINARY, EVIL), ("link", "->x"))
    for data in (noise, good[:at] + patch + good[at + len(patch) :], good[:at]):
        stream = Bytes(data)
        try:
            for member in tarfiles.members(stream):
                for _part in member.content():
                    pass
        except SourceError as error:
            assert error.problem.startswith("expected a well-formed tar archive, got: ")
        assert stream.most <= 2 * tarfiles.MAX_HEADER


def test_a_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    """The size a header claims for itself is bounded before anything is taken into memory."""
    header = bytearray(tar(("x", b""), form=tarfile.GNU_FORMAT)[:512])
    header[156:157], header[124:136] = b"x", b"77777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)

    with pytest.raises(
        SourceError, match=r"got: a header of 8589934591 bytes, expected at most 10"
    ):
        list(tarfiles.members(Bytes(bytes(header))))


def headers(kind: bytes, content: bytes) -> bytes:
    """One extension header with its content, then a file and the end."""
    header = bytearray(tar(("x", b""), form=tarfile.GNU_FORMAT)[:512])
    header[156:157], header[124:136] = kind, b"%011o\0" % len(content)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content + bytes(-len(content) % 512)


DISAGREE = [
    (
        headers(b"x", b"9 path=a\n") + headers(b"L", b"b\0"),
        "two headers disagree about an entry",
    ),
    (headers(b"g", b"9 path=a\n"), "a global header renames files"),
    (headers(b"x", b"99 path=a\n"), "a pax header is malformed"),
    (tar(("x", NODE))[:300] + b"!" + tar(("x", NODE))[301:], "a header's checksum is wrong"),
    (headers(b"x", b"x"), "a pax header is malformed"),
    (headers(b"x", b"9 size=x\n"), "a pax size is no number"),
    (headers(b"x", b"12 path=a\0b\n"), "a name is too long, or holds a zero byte"),
    (headers(b"L", b"a/../../b\0"), "an entry's name leaves its folder"),
    (headers(b"S", b""), "a sparse file of GNU's old kind"),
]


@pytest.mark.parametrize(("before", "problem"), DISAGREE)
def test_tricks_with_headers_are_refused(before: bytes, problem: str) -> None:
    """Two readers could read two names, or two sizes."""
    archive = before + tar(("x", b"content"), form=tarfile.GNU_FORMAT)
    try:
        names = [member.name for member in tarfiles.members(Bytes(archive))]
    except SourceError as error:
        assert error.problem == f"expected a well-formed tar archive, got: {problem}"
    else:
        raise AssertionError(f"expected a refusal, got {names}")
