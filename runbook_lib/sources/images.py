"""The previous release as it is staged: a plain file, an OCI layout, or what ``docker save`` writes.

Nothing is extracted. Layers are streamed from the first to the last; every blob must have the
digest it is named by, every layer the one its configuration names. One path is followed: the node's
binary, through whiteouts; links on its way are refused, as what they lead to is no proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ..canonical import digest_bytes
from ..errors import SourceError
from ..markup import visible
from . import wire
from .blobs import Archive, Folder
from .hashing import Advance, hash_file, open_regular
from .layers import Search
from .tarfiles import CHUNK, members
from .unpacking import Hashing, Unpacked
from .wire import Wire

MAX_DOCUMENT = 16 * 1024 * 1024
MAX_UNPACKED = 64 * 1024**3
MAX_LAYERS = 500

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class WrongDigest(SourceError):
    """A blob or layer is not what it is named by."""


class Staged(Wire):
    """``digest``: of the file, of a layout's manifest; ``known_as``: every digest it answers to.

    ``binary``: of the node's binary inside an image, or "" with ``problem`` saying why there is none.
    ``size`` in bytes.
    """

    kind: str
    digest: str
    known_as: list[str]
    binary: str
    problem: str
    size: int


class _Descriptor(Wire):
    digest: Digest
    size: Annotated[int, Field(ge=0, le=2**53)]
    media_type: str = Field("", alias="mediaType")
    annotations: dict[str, str] | None = None

    @property
    def is_image(self) -> bool:
        """Whether it is no attestation about one."""
        return "vnd.docker.reference.type" not in (self.annotations or {})


class _Index(Wire):
    manifests: Annotated[list[_Descriptor], Field(max_length=MAX_LAYERS)]


class _Manifest(Wire):
    config: _Descriptor
    layers: Annotated[list[_Descriptor], Field(min_length=1, max_length=MAX_LAYERS)]


class _RootFs(Wire):
    diff_ids: list[Digest]


class _Config(Wire):
    rootfs: _RootFs


class _Saved(Wire):
    config: str = Field(alias="Config")
    layers: Annotated[list[str], Field(alias="Layers", min_length=1, max_length=MAX_LAYERS)]


class _SavedList(Wire):
    images: list[_Saved]


def inspect(path: Path, binary: str, advance: Advance) -> Staged:
    """What lies at ``path``; ``binary`` is the node's path inside an image. Raises SourceError."""
    try:
        if path.is_dir():
            return _image(Folder(path), "", binary, advance)
        digest, size = hash_file(path, "sha256", advance)
        with open_regular(path) as file:
            archive = Archive.of(file, size)
            if archive is not None:
                return _image(archive, digest, binary, lambda amount: None)  # read already
        return Staged.model_construct(
            kind="file", digest=digest, known_as=[digest], binary=digest, problem="", size=size
        )
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise SourceError(
            path.name, f"expected a readable file or OCI layout, got: {said}"
        ) from error


@dataclass(frozen=True)
class _Layer:
    """Where a layer lies, its blob's digest ("" where only its content has one) and its content's."""

    name: str
    blob: str
    content: str
    size: int | None


@dataclass
class _Reading:
    """An image being read: how much was unpacked, how large it is."""

    files: Folder | Archive
    advance: Advance
    size: int = 0
    unpacked: int = 0

    def document(self, name: str, digest: str = "") -> bytes:
        """A small blob, of the digest it is named by. Raises SourceError."""
        with self.files.open(name) as blob:
            if blob.size > MAX_DOCUMENT:
                raise SourceError(
                    visible(name, 100), f"expected at most {MAX_DOCUMENT} bytes, got {blob.size}"
                )
            data = b"".join(iter(lambda: blob.read(CHUNK), b""))
        self.size += len(data)
        if digest and digest_bytes(data) != digest:
            raise WrongDigest("image", f"expected a blob {digest}, got {digest_bytes(data)}")
        return data


def _image(files: Folder | Archive, whole: str, binary: str, advance: Advance) -> Staged:
    reading = _Reading(files, advance)
    if files.has("index.json"):
        kind, known_as, layers = "OCI layout", *_oci(reading)
        # Which of the two a runtime loads is its own choice: they must be one image.
        if (
            whole
            and files.has("manifest.json")
            and (saved := _docker(reading)[0][0]) not in known_as
        ):
            raise SourceError("manifest.json", f"expected the image of index.json, got {saved}")
    elif whole and files.has("manifest.json"):
        kind, known_as, layers = "docker save", *_docker(reading)
    else:
        raise SourceError("image", "expected index.json of an OCI layout, got none")
    search = Search(binary)
    for layer in layers:
        _read_layer(reading, layer, search)
    found, problem = search.result()
    digest = whole or known_as[0]
    return Staged.model_construct(
        kind=kind,
        digest=digest,
        known_as=list(dict.fromkeys([digest, *known_as])),
        binary=found,
        problem=problem,
        size=reading.size,
    )


def _oci(reading: _Reading) -> tuple[list[str], list[_Layer]]:
    """Digests of manifest and configuration, and the layers. Raises SourceError."""
    index = reading.document("index.json")
    for _ in range(3):  # builders nest one index in another
        listed = [
            one for one in wire.decode_once("index.json", index, _Index).manifests if one.is_image
        ]
        if len(listed) != 1:
            raise SourceError("index.json", f"expected one image, got {len(listed)}")
        index = reading.document(_blob(listed[0].digest), listed[0].digest)
        if "index" not in listed[0].media_type and "manifest.list" not in listed[0].media_type:
            break
    manifest = wire.decode_once("image manifest", index, _Manifest)
    config = reading.document(_blob(manifest.config.digest), manifest.config.digest)
    contents = wire.decode_once("image configuration", config, _Config).rootfs.diff_ids
    if len(contents) != len(manifest.layers):
        raise SourceError("image", f"expected {len(manifest.layers)} diff_ids, got {len(contents)}")
    layers = [
        _Layer(_blob(one.digest), one.digest, content, one.size)
        for one, content in zip(manifest.layers, contents, strict=True)
    ]
    return [listed[0].digest, manifest.config.digest], layers


def _docker(reading: _Reading) -> tuple[list[str], list[_Layer]]:
    text = b'{"images":' + reading.document("manifest.json") + b"}"
    saved = wire.decode_once("manifest.json", text, _SavedList).images
    if len(saved) != 1:
        raise SourceError("manifest.json", f"expected one image, got {len(saved)}")
    config = reading.document(saved[0].config)
    contents = wire.decode_once("image configuration", config, _Config).rootfs.diff_ids
    if len(contents) != len(saved[0].layers):
        raise SourceError("image", f"expected {len(saved[0].layers)} diff_ids, got {len(contents)}")
    layers = [
        _Layer(name, "", content, None)
        for name, content in zip(saved[0].layers, contents, strict=True)
    ]
    return [digest_bytes(config)], layers


def _blob(digest: str) -> str:
    return "blobs/sha256/" + digest.removeprefix("sha256:")


def _read_layer(reading: _Reading, layer: _Layer, search: Search) -> None:
    with reading.files.open(layer.name) as raw:
        magic = raw.read(4)
    reading.size += raw.size
    if layer.size not in (None, raw.size):
        raise WrongDigest("image", f"expected a layer of {layer.size} bytes, got {raw.size}")
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        raise SourceError("image", "expected layers as tar or gzip, got zstd; save it otherwise")
    with reading.files.open(layer.name) as raw:
        blob = Hashing(raw, raw.size, reading.advance)
        packed = magic.startswith(b"\x1f\x8b")
        left = MAX_UNPACKED - reading.unpacked
        content = Hashing(Unpacked(blob), left, lambda amount: None) if packed else blob
        search.layer(members(content))
        found = content.digest()
        reading.unpacked += content.read_so_far
        if found != layer.content:
            raise WrongDigest("image", f"expected a layer of content {layer.content}, got {found}")
        if layer.blob and (found := blob.digest()) != layer.blob:  # also what follows the content
            raise WrongDigest("image", f"expected a blob {layer.blob}, got {found}")
