"""Files of this machine as answers: what can be kept of one, or why it cannot be read."""

import gzip
import hashlib
import os
import posixpath
import stat
import tarfile
import zipfile
import zlib
from functools import partial
from io import FileIO
from lzma import LZMAError
from pathlib import Path
from typing import IO, Literal, NamedTuple

from ..errors import LogDamaged, SourceError

Algorithm = Literal["sha256", "blake2b"]
MAX_FILE = 64 * 1024 * 1024
MAX_RECORD = 1024**3
MAX_FILES, MAX_DEPTH = 200_000, 8
Folder = Path | zipfile.Path
"""Where an attempt's files are: a folder, or an archive that is read in place."""


class FileDigest(NamedTuple):
    """``ALGORITHM:HEX`` of a file, and how many bytes it has."""

    digest: str
    size: int


def open_regular(path: Path, *, follow: bool = True) -> FileIO:
    """A regular file, unbuffered, ``follow`` a link or not. Raises OSError.

    Judged by what was opened: its name may be another file's meanwhile, a pipe would never end.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb", buffering=0)


def hash_file(path: Path, algorithm: Algorithm = "sha256", *, follow: bool = True) -> FileDigest:
    """Digest (the chain's blake2b has 32 bytes) and size, in constant memory. Raises OSError."""
    make = partial(hashlib.blake2b, digest_size=32) if algorithm == "blake2b" else hashlib.sha256
    with open_regular(path, follow=follow) as file:
        found = hashlib.file_digest(file, make).hexdigest()
        return FileDigest(f"{algorithm}:{found}", file.tell())


def unreadable(error: Exception) -> str:
    """Why a file cannot be read, without its name."""
    if isinstance(error, SourceError):
        return error.problem
    if isinstance(error, LogDamaged):
        return str(error).partition(": ")[2]
    return f"expected a readable file, got: {getattr(error, 'strerror', None) or error}"


def recorded(path: Folder, limit: int = MAX_RECORD, *, follow: bool = False) -> bytes:
    """A file out of an attempt that may be hostile: no link, no pipe, not without end.

    Raises OSError, LogDamaged.
    """
    if isinstance(path, zipfile.Path):
        try:
            with path.open("rb") as file:
                require_size(path, path.root.getinfo(path.at).file_size, limit)
                return bytes(file.read())
        except (zipfile.BadZipFile, EOFError, LZMAError) as error:
            raise LogDamaged(f"{path.name}: expected a whole archive, got: {error}") from error
    with open_regular(path, follow=follow) as file:
        require_size(path, os.fstat(file.fileno()).st_size, limit)
        return file.readall()


def require_size(path: Folder, size: int, limit: int) -> None:
    if size > limit:
        raise LogDamaged(f"{path.name}: expected at most {limit} bytes, got {size}")


def plain_files(folder: Path) -> dict[str, Path]:
    """Every file of an attempt, by its name there.

    Raises LogDamaged unless it is of folders and regular files, no more than an attempt has.
    """
    found, left, seen = dict[str, Path](), [folder], 0
    while left:
        for path in left.pop().iterdir():
            about, name, seen = path.lstat(), path.relative_to(folder), seen + 1
            require_size(path, about.st_size, MAX_RECORD)
            if stat.S_ISREG(about.st_mode):
                found[name.as_posix()] = path
            elif stat.S_ISDIR(about.st_mode):
                left.append(path)
            else:
                raise LogDamaged(f"{name}: expected a regular file, got a link or another kind")
            if seen > MAX_FILES or len(name.parts) > MAX_DEPTH:
                most = f"expected at most {MAX_FILES:,} files, {MAX_DEPTH} folders deep, got more"
                raise LogDamaged(f"{folder.name}: {most}")
    return dict(sorted(found.items()))


def names(path: Path) -> list[str]:
    """The names in a folder, sorted; of no folder, none."""
    return sorted(os.listdir(path)) if path.is_dir() else []


# --- The digest of one file inside a release archive (.tar or .tar.gz) ---
# Nothing is extracted and no link is followed. tarfile is given the archive forward only, in small
# pieces, no more of it than an honest one would unpack to; whatever else it asks for is refused.

PIECE = 64 * 1024
MAX_MEMBERS = 10_000
MAX_UNPACKED = 8 * 1024**3
MAX_RATIO = 200
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)


def member_digest(path: Path, member: str) -> str:
    """``sha256:HEX`` of the one plain file called ``member``. Raises SourceError."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            magic = file.read(2)
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if magic == b"\x1f\x8b" else file
            limit = min(MAX_UNPACKED, MAX_RATIO * size + PIECE)
            return _digest(_Forward(stream, limit), member)
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error, OverflowError) as error:
        problem = f"expected {member} in a whole .tar or .tar.gz, got: {error}"
        raise SourceError(path.name, problem) from error


class _Forward:
    """A stream as tarfile wants one. Raises SourceError for a step back or more than is allowed."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, limit: int) -> None:
        self._file, self._limit, self._at = file, limit, 0

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        if not 0 <= size <= PIECE:
            raise _refused(f"a header of {size} bytes")
        data = self._file.read(size)
        self._at += len(data)
        if self._at > self._limit:
            raise _refused(f"more than {self._limit} bytes unpacked")
        return data

    def seek(self, position: int) -> None:
        if position < self._at:
            raise _refused("an entry that begins before the last one ends")
        while self._at < position and self.read(min(PIECE, position - self._at)):
            pass


def _digest(stream: _Forward, wanted: str) -> str:
    found, wanted = "", posixpath.normpath(wanted)
    with tarfile.open(fileobj=stream, mode="r:") as archive:  # type: ignore[call-overload]
        for _ in range(MAX_MEMBERS):
            if (entry := archive.next()) is None:
                break
            archive.members.clear()  # it would keep every header
            name = posixpath.normpath(entry.name.lstrip("/"))
            if name == wanted:
                if found:
                    raise _refused(f"{wanted} twice")
                if entry.type not in _PLAIN or entry.issparse():
                    raise _refused(f"{wanted} as a link or special file")
                content, left = hashlib.sha256(), entry.size
                while left > 0:
                    if not (data := stream.read(min(PIECE, left))):
                        raise _refused("it breaks off in a file")
                    content.update(data)
                    left -= len(data)
                found = f"sha256:{content.hexdigest()}"
            elif f"{wanted}/".startswith(f"{name}/") and not entry.isdir():
                raise _refused(f"{wanted} below a link or file")
        else:
            raise _refused(f"more than {MAX_MEMBERS} entries")
    # The reader takes a damaged header for the end; another one may read on behind it.
    while data := stream.read(PIECE):
        if data.strip(b"\0"):
            raise _refused("content behind its end")
    if not found:
        raise _refused(f"none of that name: {wanted}")
    return found


def _refused(what: str) -> SourceError:
    return SourceError("archive", f"expected the binary once in a well-formed archive, got: {what}")
