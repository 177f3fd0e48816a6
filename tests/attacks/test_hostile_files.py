"""Evidence is data: reading it, however hostile, writes nothing, follows nothing, and ends."""

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
import yaml
from nbconvert import HTMLExporter

from runbook_lib import launch
from runbook_lib.canonical import canonical
from runbook_lib.errors import ParameterError, SourceError, StoreError
from runbook_lib.evidence.store import Store
from runbook_lib.package import VERSION
from runbook_lib.plan import NodePlan, NodeState
from runbook_lib.playbook import NOTEBOOKS
from runbook_lib.recording import open_replay
from runbook_lib.site import read_site
from runbook_lib.sources.tape import LiveTape
from runbook_lib.stage import Stage

from ..conftest import ALICES_KEY, NOWHERE, Terminal, declare, practising, recorded, stages_of
from ..events import event
from ..sources.conftest import World
from .conftest import ATTESTATION, Alter, attest, chained, instead, snapshot, to, zeros

BOOK, INDEX, LOG = NOTEBOOKS["development"], "tape/index.jsonl", "log.jsonl"
OUT = "../" * 9 + "etc/cron.d/x"
NAMES = "../../home/u/.cargo/config", "/etc/cron.d/x", "..", "-rf", "a/b", "a\nb", ".hidden", "²"
TYPES = {"item": ["a"], "number": {}, "n": 1, "key": "k", "purpose": "read", "at": "", "ms": 0}
OTHERS = canonical({**TYPES, "meta": [], "body": 1}) + b"\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A sealed attempt and a copy of its folder; each notebook is laid out once."""
    pages, lay_out = dict[str, Any](), HTMLExporter.from_notebook_node

    def once(self: Any, book: Any, **more: Any) -> Any:
        key = json.dumps(book, sort_keys=True)
        return pages.get(key) or pages.setdefault(key, lay_out(self, book, **more))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HTMLExporter, "from_notebook_node", once)
        declare(patch)
        root = tmp_path_factory.mktemp("hostile")
        with practising(root / "practice", patch) as practice:
            practice.write_site(**stages_of("development", "testnet"))
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

    monkeypatch.setattr(launch, "run_stage", made.practice.replaying())
    roots = [*places.values(), made.practice.root]
    yield SimpleNamespace(
        folder=made.folder, whole=made.whole, site=str(made.practice.site), roots=roots,
        terminal=Terminal(capsys), page=tmp_path / "page.html",
    )  # fmt: skip
    shutil.rmtree(made.folder)
    shutil.copytree(made.whole, made.folder)


def entries(alter: Callable[[dict[str, Any]], object], kind: str) -> Alter:
    """A log's events of a kind altered, the chain computed anew."""
    return lambda folder: chained(
        folder, lambda found: [alter(one) for one in found if one["kind"] == kind]
    )


def taped(alter: Callable[[dict[str, Any], LiveTape], object], purpose: str = "read") -> Alter:
    """The answers of a purpose altered on the tape."""

    def made(folder: Path) -> None:
        path = folder / INDEX
        found = [json.loads(line) for line in path.read_bytes().splitlines()]
        tape = LiveTape(folder / "tape")
        for one in found:
            if one["purpose"] == purpose:
                alter(one, tape)
        path.write_bytes(b"".join(canonical(one) + b"\n" for one in found))

    return made


def answered(body: bytes, **meta: Any) -> Callable[[dict[str, Any], LiveTape], object]:
    """Another answer, under its own digest."""

    def alter(one: dict[str, Any], tape: LiveTape) -> None:
        made = recorded(tape, ("x", 1, one["key"], 1), body)
        one.update(body=made.body, meta={**one["meta"], **meta})

    return alter


def on_tape(**changes: Any) -> Alter:
    """The site file on the tape with ``changes``, under its own digest."""

    def alter(folder: Path) -> None:
        site = yaml.safe_load((folder.parents[3] / "site.yaml").read_bytes())
        other = answered(yaml.safe_dump({**site, **changes}).encode())
        taped(lambda one, tape: one["key"].endswith("/site.yaml") and other(one, tape))(folder)

    return alter


def node(name: str) -> dict[str, Any]:
    nodes = [{"name": name, "url": NOWHERE}]
    return {"clusters": {"development": {"chain_id": "x", "nodes": nodes}}}


def opened(**changes: Any) -> Alter:
    return entries(lambda body: body.update(changes), "opened")


def deeply(path: Path) -> None:
    (path / "/".join("b" * 900)).mkdir(parents=True)
    (path / "file").write_text("")


def bottomless(path: Path) -> None:
    path.write_bytes(b"[" * 100_000 + b"\n")


def in_body(make: Alter) -> Alter:
    def alter(folder: Path) -> None:
        bodies = (folder / "tape").glob("??/*")
        path = max(bodies, key=lambda path: path.stat().st_size)  # that of the site file
        instead(path.name, make)(path.parent)

    return alter


def device(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes a device")
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except OSError:
        pytest.skip("no device can be made here")


KINDS = {
    "link": to("/etc/passwd"),
    "pipe": os.mkfifo,
    "device": device,
    "zeros": zeros,
    "depth": bottomless,
    "folder": Path.mkdir,
}
UNREAD = (BOOK, ATTESTATION, "notebook", "signed", "folder beside")
"""What a replay does not look at: it compares results."""
HOSTILE: dict[str, Alter] = {
    "absolute body": taped(lambda one, tape: one.update(body="/etc/passwd")),
    "body above": taped(lambda one, tape: one.update(body=f"sha256:{OUT}")),
    "absolute notebook": entries(lambda body: body.update(notebook="/etc/passwd"), "sealed"),
    "notebook above": entries(lambda body: body.update(notebook=OUT), "sealed"),
    "item above": entries(lambda body: body.update(item=OUT), "started"),
    "release above": entries(lambda body: body["params"].update(release=OUT), "opened"),
    "stage above": opened(stage=OUT),
    "number above": opened(attempt=OUT),
    "huge number": opened(attempt=10**15),
    "nothing opened": entries(dict.clear, "opened"),
    **{f"node {name!r}": on_tape(**node(name)) for name in (*NAMES[:2], "..")},
    "site above": on_tape(name=OUT),
    "absolute artifact": on_tape(artifacts={"/etc/x": "x"}),
    "absolute node": entries(
        lambda body: body["result"]["rows"][0].update(subject="/etc/x"), "result"
    ),
    "store elsewhere": taped(answered(b"name: x\nstore: /etc\n")),
    **{
        f"{what} as {name}": instead(name, make)
        for name in (LOG, INDEX, BOOK, ATTESTATION)
        for what, make in KINDS.items()
        if what in ("link", "pipe", "zeros", "depth") or name not in UNREAD
    },
    "linked folder beside": instead("more", to("/etc")),
    "deep folder beside": instead("a", deeply),
    "other types as tape/index.jsonl": instead(INDEX, lambda path: path.write_bytes(OTHERS)),
    "link as body": in_body(to("/etc/passwd")),
    "pipe as body": in_body(os.mkfifo),
    "device as body": in_body(device),
    "zeros as body": in_body(zeros),
    "signed depth": lambda folder: attest(folder, b'{"predicate":' * 100_000, ALICES_KEY),
    "depth in an answer": taped(answered(b"[" * 100_000)),
    "depth in a TOML": taped(answered(b".".join([b"a"] * 100_000) + b" = 1\n")),
    "depth in a YAML": taped(answered(b"a: " + b"{b: " * 100_000)),
    "a write that went otherwise": taped(answered(b"rm -r /", code=7), "change"),
    "a write nobody began": taped(lambda one, tape: one.update(item="x"), "change"),
    "a read that is a write": taped(lambda one, tape: one.update(purpose="change", number=7)),
}


def test_the_attempt_as_it_was_sealed_passes_each_command(world: Any) -> None:
    """What the others fail by is what was altered."""
    run, before = world.terminal.run, snapshot(*world.roots)

    assert run("verify", world.folder, "--trust", world.site) == 0, world.terminal.out
    replayed = world.terminal.json("replay", world.folder)
    assert (replayed["recorded_by"], replayed["replayed_by"]) == (VERSION, VERSION)
    assert [row["observed"] for row in replayed["rows"]] == ["the same"] * 7
    assert world.terminal.code == 0
    assert run("diff", world.whole, world.folder) == 0
    assert run("status", "v1.4.0", "--site", world.site) == 2, world.terminal.err
    assert run("render", world.folder, "--trust", world.site, "-o", world.page) == 0
    assert "<title>PASS" in world.page.read_text()
    assert snapshot(*world.roots) == before


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_named_and_nothing_is_altered_by_reading_them(
    world: Any, what: str
) -> None:
    """Whether it is read to be verified, replayed, compared, listed or shown."""
    HOSTILE[what](world.folder)
    before = snapshot(*world.roots)
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
    assert snapshot(*world.roots) == before


@pytest.mark.parametrize("name", NAMES)
def test_names_obey_one_rule_in_a_site_and_in_evidence(practice: Any, name: str) -> None:
    """Nodes, clusters, sites and artifacts; and what a plan of a log names."""
    one, other = (node(each)["clusters"]["development"] for each in ("dev-1", "dev-2"))
    clusters = {"development": one, name: other}
    for changes in ({"name": name}, node(name), {"clusters": clusters}, {"artifacts": {name: "x"}}):
        practice.write_site(**changes)
        with pytest.raises(ParameterError, match="expected a name of letters, digits"):
            read_site(str(practice.site))
    state = NodeState(gates={}, channel="x", binary="x", config="x")
    with pytest.raises(ValueError, match="expected a name of letters, digits"):
        NodePlan(node=name, control="ours", before=state, after=state)


def test_a_replay_has_a_folder_of_its_own_below_the_engines(practice: Any, tmp_path: Path) -> None:
    """Beside what lies there: a release named like the engine's own note alters nothing."""
    folder = practice.sealed()
    practice.patch.setenv("RUNBOOK_SCRATCH", str(tmp_path))
    (tmp_path / "attempt.json").write_text("{}")
    chained(folder, lambda entries: entries[0]["params"].update(release="attempt.json"))
    stage = Stage(open_replay("development", folder))
    stage.close()

    assert stage.folder.parents[3] == tmp_path
    assert (tmp_path / "attempt.json").read_text() == "{}"


@pytest.mark.parametrize("name", ["link", "linked/key", "../key"])
def test_a_file_of_the_store_is_read_through_no_link(tmp_path: Path, name: str) -> None:
    """A colleague's link to a key of ours would put it on the tape."""
    store = tmp_path / "store"
    store.mkdir()
    (tmp_path / "key").write_text("a key")
    (store / "link").symlink_to(tmp_path / "key")
    (store / "linked").symlink_to(tmp_path, target_is_directory=True)
    world = World(tmp_path / "tape")
    with pytest.raises(SourceError, match="expected a"):
        world.scope(aliases=((str(store), "store"),)).read(store / name)
    world.close()

    found = [path.read_bytes() for path in (tmp_path / "tape").rglob("*") if path.is_file()]
    assert found and b"a key" not in b"".join(found)


@pytest.mark.parametrize("name", ["1²", "00²1", "0001.bak"])
def test_a_folder_that_is_no_attempt_is_no_attempt(tmp_path: Path, name: str) -> None:
    """Digits of other scripts are none; a second spelling of a number is a gap."""
    store = Store(tmp_path / "store")
    store.create(event("opened", stage="canary")).folder.with_name(name).mkdir()
    assert [one.number for one in store.attempts("v1")] == [1]

    (store.root / "v1" / "canary" / "00001").mkdir()
    with pytest.raises(StoreError, match="expected attempts 1 to 2 without a gap"):
        store.attempts("v1")
