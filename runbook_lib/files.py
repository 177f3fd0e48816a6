"""Files put in place in one step, lasting, and for the operators' group. Cheap to import.

Others can write where we write: what lies in the way may be a link to somebody's own file.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from threading import get_ident

from .errors import StoreError

FOLDER_MODE, FILE_MODE = 0o2770, 0o660
"""Whatever the umask: every operator of the group writes to the store."""


def replace_file(
    path: Path, data: bytes | str, mode: int = FILE_MODE, *, lasting: bool = True
) -> None:
    """Write a file: a reader has the old content or the new one, never a part.

    ``lasting``: so does who comes after a power cut; the rename itself may be lost, not the content.
    Raises OSError, and StoreError where the group may not write.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        scratch.unlink(missing_ok=True)
        descriptor = os.open(scratch, flags, mode)
        with naming(path), os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data.encode() if isinstance(data, str) else data)
            if lasting:
                file.flush()
                os.fsync(descriptor)
        scratch.replace(path)
    except PermissionError as error:
        raise _refused(path.parent, error) from error
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of a descriptor names no file, such as that of a full disk: it gets this name."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def place(folder: Path, name: str, mode: int = FOLDER_MODE) -> Path:
    """The file ``name`` of ``folder``, its folders made on the way. Raises StoreError for any other.

    ``name`` may come from data: no part of it leads out of ``folder``, nor is a link.
    """
    *above, last = PurePosixPath(name).parts or ("",)
    if not last or name.startswith("/") or ".." in (*above, last) or "\0" in name:
        raise StoreError(f"{folder.name}: expected the name of a file in it, got {name!r}")
    for part in above:
        folder = folder / part
        try:
            folder.mkdir()
            folder.chmod(mode)
        except FileExistsError:
            if not stat.S_ISDIR(folder.lstat().st_mode):
                raise StoreError(f"{folder}: expected a folder, got a link or a file") from None
        except OSError as error:
            raise _refused(folder.parent, error) from error
    return folder / last


def keep_file(folder: Path, name: str, data: bytes | str) -> Path:
    """``replace_file`` of a ``place``; the file."""
    replace_file(path := place(folder, name), data)
    return path


def open_own(path: Path, flags: int = os.O_RDWR) -> int:
    """A descriptor of a file to write to, made where there is none.

    Raises StoreError for what is no regular file with one name (what it would alter is somebody's
    own), or may not be written; FileNotFoundError for one in no folder.
    """
    wrong = f"{path}: expected a file with one name, got a link or no regular file"
    safe = os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | safe, FILE_MODE)
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise _refused(path if path.exists() else path.parent, error) from error
    except OSError as error:
        raise StoreError(wrong) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise StoreError(wrong)
    if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) != FILE_MODE:
        os.fchmod(descriptor, FILE_MODE)
    return descriptor


def _refused(path: Path, error: OSError) -> StoreError:
    """Why ``path`` cannot be written to, with the mode that its owner must set."""
    if not isinstance(error, PermissionError):
        return StoreError(f"{path}: expected a folder to write to, got: {error.strerror}")
    mode = FOLDER_MODE if path.is_dir() else FILE_MODE
    return StoreError(
        f"{path}: expected it writable for the operators' group, got mode"
        f" {stat.S_IMODE(path.stat().st_mode):04o}; its owner must set it: chmod {mode:o} {path}"
    )


def is_left_of(name: str, target: str) -> bool:
    """Whether a file is what a killed ``replace_file`` of ``target`` left beside it."""
    return re.fullmatch(rf"\.{re.escape(target)}\.\d+\.\d+", name) is not None


def sync_names(folder: Path) -> None:
    """What lies in a folder by now is there after a power cut, too. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
