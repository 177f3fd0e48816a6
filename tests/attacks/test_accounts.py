"""One store, two accounts of one group: what either makes the other can go on with, whatever its umask."""

import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runbook_lib.canonical import canonical
from runbook_lib.changes.kit import put_files
from runbook_lib.errors import StoreError
from runbook_lib.evidence.store import Store
from runbook_lib.files import keep_file
from runbook_lib.sources.tape import LiveTape

from ..conftest import recorded
from ..events import event

GROUP, ADA, GRACE = 47110, 47111, 47112
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs as other accounts")


def as_account(user: int, umask: int, do: Callable[[], object]) -> str:
    """What ``do`` comes to in a process of another account of the group."""
    read, write = os.pipe()
    if not (child := os.fork()):
        try:
            os.setgroups([GROUP])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            os.umask(umask)
            os.write(write, str(do()).encode())
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as said:
        return said.read()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A store as ``require_shared`` wants it: the group's, and setgid."""
    root = Path(tempfile.mkdtemp(prefix="runbook-shared-"))
    root.chmod(0o755)
    for name in ("store", "kits"):
        (root / name).mkdir()
        os.chown(root / name, -1, GROUP)
        (root / name).chmod(0o2770)
    canonical({"a": 1, "b": 2})  # what it imports may lie where other accounts cannot read
    yield root
    shutil.rmtree(root)


def by_ada(root: Path) -> str:
    store = Store(root / "store")
    made = store.create(event("opened", stage="canary"))
    with store.cluster_lock("main", "ada"):
        keep_file(made.folder, "targets/main-1.toml", "[a]")
        tape = LiveTape(made.folder / "tape")
        recorded(tape, ("i", 1, "k", 1), b"body")
    put_files(
        root / "kits" / "v1-canary-0001", {"recover.sh": b"", "targets/m.toml": b"[kept]"}, GROUP
    )
    return made.name


def by_grace(root: Path) -> str:
    store = Store(root / "store")
    made = store.attempt("v1", "canary", 1)
    with store.cluster_lock("main", "grace"):
        made.log.append(event("session"))
        keep_file(made.folder, "targets/main-1.toml", "[b]")
        tape = LiveTape(made.folder / "tape")
        recorded(tape, ("i", 1, "k", 2), b"other")
    kept = root / "kits" / "v1-canary-0001" / "targets" / "m.toml"
    return f"{store.create(event('opened', stage='canary')).name} {kept.read_text()}"


@needs_root
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_what_one_account_makes_another_goes_on_with(shared: Path, umask: int) -> None:
    """Folders 2770 and files 0660 of the group; a kit is the group's to read alone."""
    assert as_account(ADA, umask, lambda: by_ada(shared)) == "v1/canary/0001"
    made = list((shared / "store").rglob("*"))
    kit = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (shared / "kits").rglob("*")}

    assert {stat.S_IMODE(p.stat().st_mode) for p in made if p.is_file()} == {0o660}
    assert {stat.S_IMODE(p.stat().st_mode) for p in made if p.is_dir()} == {0o2770}
    folders = {"v1-canary-0001": 0o2750, "targets": 0o2750}
    assert kit == {**folders, "m.toml": 0o640, "recover.sh": 0o750}
    assert {p.stat().st_gid for p in shared.rglob("*")} == {GROUP}
    assert as_account(GRACE, umask, lambda: by_grace(shared)) == "v1/canary/0002 [kept]"


@needs_root
@pytest.mark.parametrize(("name", "mode"), [("log.jsonl", 0o640), ("targets", 0o2750)])
def test_a_refusal_names_the_mode_to_set(shared: Path, name: str, mode: int) -> None:
    """Of the file that is not the group's, or of the folder in which one is to be made."""
    as_account(ADA, 0o022, lambda: by_ada(shared))
    path = shared / "store" / "v1" / "canary" / "0001" / name
    path.chmod(mode)

    assert as_account(GRACE, 0o022, lambda: by_grace(shared)) == (
        f"StoreError: {path}: expected it writable for the operators' group, got mode {mode:04o}; its"
        f" owner must set it: chmod {mode | 0o20:o} {path}"
    )


@pytest.mark.parametrize(
    "name", ["../up", "/etc/x", "a/../../up", "", "..", "a\0b", "link/x", "file/x"]
)
def test_no_name_leads_out_of_its_folder(tmp_path: Path, name: str) -> None:
    """Above, absolute, nothing, or behind a link or a file."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    (folder / "file").write_text("")
    with pytest.raises(StoreError):
        keep_file(folder, name, "text")

    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder", "link"]


def test_what_lies_where_we_write_is_replaced_never_written_through(tmp_path: Path) -> None:
    """The file itself, and the name under which its next version is prepared."""
    (tmp_path / "key").write_text("a key")
    (tmp_path / "a.txt").symlink_to(tmp_path / "key")
    scratch = tmp_path / f".a.txt.{os.getpid()}.{threading.get_ident()}"
    scratch.symlink_to(tmp_path / "key")
    keep_file(tmp_path, "a.txt", "text")

    assert (tmp_path / "key").read_text() == "a key"
    assert not (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "a.txt").read_text() == "text"
