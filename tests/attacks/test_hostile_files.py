"""A sealed attempt whose files were made hostile: commands read it, say so, and leave all as it was."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from runbook_lib import launch
from runbook_lib.canonical import canonical, digest_bytes
from runbook_lib.errors import RunbookError
from runbook_lib.playbook import NOTEBOOKS
from runbook_lib.signatures import Envelope
from runbook_lib.sources.redact import Redactor
from runbook_lib.sources.tape import Asked, LiveTape

from ..commands.conftest import Terminal
from ..conftest import ALICES_KEY, NOWHERE, declare, practising
from .test_evidence import bottomless, chained, instead, zeros

Alter = Callable[[Path], object]
BOOK, INDEX, RECORD = NOTEBOOKS["development"], "tape/index.jsonl", "record.jsonl"
SEALED = "attestations/0001.alice.json"
OUT = "../" * 9 + "etc/cron.d/x"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A sealed attempt, and a copy of its release's folder."""
    with pytest.MonkeyPatch.context() as patch:
        declare(patch)
        root = tmp_path_factory.mktemp("hostile")
        with practising(root / "practice", patch) as practice:
            stages = {"development": "development", "testnet": "testnet"}
            nodes = {name: [{"name": f"{name}-1", "url": NOWHERE}] for name in stages}
            clusters = {k: {"chain_id": f"rpp-{k}", "nodes": v} for k, v in nodes.items()}
            practice.write_site(stages=stages, clusters=clusters)
            folder = practice.sealed()
            shutil.copytree(folder, root / "whole")
            yield SimpleNamespace(practice=practice, folder=folder, whole=root / "whole")


@pytest.fixture
def world(
    made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """The attempt in its store, with a home, a folder to work in and one for temporary files."""
    places = {name: tmp_path / name for name in ("home", "work", "temporary")}
    for path in places.values():
        (path / ".config").mkdir(parents=True)
        (path / ".config" / "key").write_text("a key of the reader's")
    monkeypatch.setenv("HOME", str(places["home"]))
    monkeypatch.setenv("TMPDIR", str(places["temporary"]))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(places["work"])

    def run_stage(stage: str, params: Any, **more: Any) -> Any:
        """Our notebook's cells over the tape, without a kernel."""
        try:
            replayed = made.practice.open()
            try:
                made.practice.walk(replayed)
                shutil.copy(replayed.folder / RECORD, os.environ["RUNBOOK_REPLAY_KEEP"])
            finally:
                replayed.close()
        except RunbookError as error:
            return SimpleNamespace(problems=[str(error)])
        return SimpleNamespace(problems=[])

    monkeypatch.setattr(launch, "run_stage", run_stage)
    roots = [*places.values(), made.practice.root]
    yield SimpleNamespace(
        folder=made.folder, whole=made.whole, site=str(made.practice.site), roots=roots,
        terminal=Terminal(capsys), page=tmp_path / "page.html",
    )  # fmt: skip
    shutil.rmtree(made.folder)
    shutil.copytree(made.whole, made.folder)


def around(roots: list[Path]) -> dict[str, Any]:
    """Every name below ``roots`` with mode, size and time, and of a small file its digest."""
    found = {}
    for path in sorted(path for root in roots for path in root.rglob("*")):
        about = path.lstat()
        small = stat.S_ISREG(about.st_mode) and about.st_size < 1_000_000
        digest = digest_bytes(path.read_bytes()) if small else ""
        found[str(path)] = (about.st_mode, about.st_size, about.st_mtime_ns, digest)
    return found


def entries(alter: Callable[[dict[str, Any]], object], kind: str) -> Alter:
    """The bodies of a log's entries of a kind altered, the chain computed anew."""
    return lambda folder: chained(
        folder, lambda found: [alter(one["body"]) for one in found if one["kind"] == kind]
    )


def taped(alter: Callable[[dict[str, Any], LiveTape], object], purpose: str = "read") -> Alter:
    """The answers of a purpose altered on the tape."""

    def made(folder: Path) -> None:
        path = folder / INDEX
        found = [json.loads(line) for line in path.read_bytes().splitlines()]
        tape = LiveTape(folder / "tape", Redactor())
        for one in found:
            if one["purpose"] == purpose:
                alter(one, tape)
        path.write_bytes(b"".join(canonical(one) + b"\n" for one in found))

    return made


def answered(body: bytes, **meta: Any) -> Callable[[dict[str, Any], LiveTape], object]:
    """Another answer, under its own digest."""

    def alter(one: dict[str, Any], tape: LiveTape) -> None:
        made = tape.record(("x", 1, one["key"], 1), Asked("read"), {}, body)[0]
        one.update(body=made.body, meta={**one["meta"], **meta})

    return alter


def body_of(folder: Path) -> Path:
    """The tape's body of the site file."""
    return max((path for path in (folder / "tape").glob("??/*")), key=lambda p: p.stat().st_size)


def in_body(make: Alter) -> Alter:
    def alter(folder: Path) -> None:
        path = body_of(folder)
        path.unlink()
        make(path)

    return alter


def device(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes a device")
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except OSError:
        pytest.skip("no device can be made here")


def to(target: str) -> Alter:
    return lambda path: path.symlink_to(target)


def signed(payload: bytes) -> Alter:
    envelope = Envelope(payload).signed(CryptoSigner(ALICES_KEY))
    return lambda path: path.write_bytes(envelope.dump())


KINDS = {
    "link": to("/etc/passwd"),
    "pipe": os.mkfifo,
    "device": device,
    "zeros": zeros,
    "depth": bottomless,
    "folder": Path.mkdir,
}
UNREAD = (BOOK, SEALED, "notebook", "signed")
"""What a replay does not look at: it compares results."""
HOSTILE: dict[str, Alter] = {
    "absolute body": taped(lambda one, tape: one.update(body="/etc/passwd")),
    "body above": taped(lambda one, tape: one.update(body=f"sha256:{OUT}")),
    "absolute notebook": entries(lambda body: body.update(notebook="/etc/passwd"), "sealed"),
    "notebook above": entries(lambda body: body.update(notebook=OUT), "sealed"),
    "item above": entries(lambda body: body.update(item=OUT), "started"),
    "release above": entries(lambda body: body["params"].update(release=OUT), "opened"),
    "absolute node": entries(
        lambda body: body["result"]["rows"][0].update(subject="/etc/x"), "result"
    ),
    "store elsewhere": taped(answered(b"name: x\nstore: /etc\n")),
    **{
        f"{what} as {name}": instead(name, make)
        for name in (RECORD, INDEX, BOOK, SEALED)
        for what, make in KINDS.items()
        if what in ("link", "pipe", "zeros", "depth") or name not in UNREAD
    },
    "link as body": in_body(to("/etc/passwd")),
    "pipe as body": in_body(os.mkfifo),
    "device as body": in_body(device),
    "zeros as body": in_body(zeros),
    "signed depth": instead(SEALED, signed(b'{"predicate":' * 100_000)),
    "depth in an answer": taped(answered(b"[" * 100_000)),
    "depth in a TOML": taped(answered(b".".join([b"a"] * 100_000) + b" = 1\n")),
    "depth in a YAML": taped(answered(b"a: " + b"{b: " * 100_000)),
    "a write that went otherwise": taped(answered(b"rm -r /", code=7), "change"),
    "a write nobody began": taped(lambda one, tape: one.update(item="x"), "change"),
    "a read that is a write": taped(lambda one, tape: one.update(purpose="change", number=7)),
}


def test_the_attempt_as_it_was_sealed_passes_each_command(world: Any) -> None:
    """What the others fail by is what was altered."""
    run, before = world.terminal.run, around(world.roots)

    assert run("verify", world.folder, "--trust", world.site) == 0, world.terminal.out
    assert run("replay", world.folder) == 0, world.terminal.out + world.terminal.err
    assert run("diff", world.whole, world.folder) == 0
    assert run("status", "v1.4.0", "--site", world.site) == 2, world.terminal.err
    assert run("render", world.folder, "--trust", world.site, "-o", world.page) == 0
    assert "<title>PASS" in world.page.read_text()
    assert around(world.roots) == before


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_named_and_nothing_is_altered_by_reading_them(
    world: Any, what: str
) -> None:
    """Whether it is read to be verified, replayed, compared, listed or shown."""
    HOSTILE[what](world.folder)
    before = around(world.roots)
    replays = {0} if any(name in what for name in UNREAD) else set()

    for argv, codes in (
        (("verify", world.folder, "--trust", world.site), {1, 2, 3}),
        (("replay", world.folder), {1, 2, 3} | replays),
        (("diff", world.whole, world.folder), {0, 3}),
        (("status", "v1.4.0", "--site", world.site), {2, 3}),
        (("render", world.folder, "--trust", world.site, "-o", world.page), {0, 3}),
    ):
        assert world.terminal.run(*argv) in codes, argv[0]
        said = world.terminal.out + world.terminal.err
        assert said.strip() and "Traceback" not in said, argv[0]
    assert not world.page.exists() or "<title>NOT PROVEN" in world.page.read_text()
    assert around(world.roots) == before
