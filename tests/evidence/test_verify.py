"""An attempt verifies from its files alone, and no alteration of any of them does."""

from __future__ import annotations

import itertools
import json
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook_lib.canonical import canonical, digest_bytes
from runbook_lib.changes.kit import FOLDER
from runbook_lib.evidence import seal
from runbook_lib.evidence.record import Record
from runbook_lib.evidence.replay import seal_by_hand
from runbook_lib.evidence.verify import GROWING, verify
from runbook_lib.outcomes import Outcome, worst
from runbook_lib.sources.redact import Redactor
from runbook_lib.sources.tape import Asked, LiveTape
from runbook_lib.verdicts import ExitCode
from runbook_lib.wording import utc

STEPS = [
    "1 manifest",
    "2 files",
    "3 record",
    "4 tape",
    "5 completeness",
    "6 the rule",
    "7 verdict",
    "8 notebook",
    "9 seal",
]
BOOK = "10_development.ipynb"


@pytest.fixture
def sealed(practice: Any) -> Path:
    """A sealed attempt in which everything passed."""
    return practice.sealed()


def red(folder: Path) -> dict[str, str]:
    """Step -> what was found, of every step that does not hold."""
    rows, _ = verify(folder)
    assert [row.what for row in rows] == STEPS
    return {row.what: str(row.observed) for row in rows if row.outcome is not Outcome.PASS}


def rewrite(folder: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Forge the record: change its entries, chain them anew, and seal over the forgery."""
    path = folder / "record.jsonl"
    entries = [{"kind": entry.kind, "body": entry.body} for entry in Record(path).entries()[:-1]]
    sealed = Record(path).entries()[-1].body
    change(entries)
    path.unlink()
    forged = Record(path)
    for entry in [*entries, {"kind": "sealed", "body": sealed}]:
        forged.append(entry["kind"], entry["body"])
    reseal(folder)


def reseal(folder: Path, **changes: Any) -> None:
    """Write a manifest over the folder as it is, with ``changes``."""
    entries = Record(folder / "record.jsonl").entries()
    body = {**seal.manifest(entries, seal.file_digests(folder)), **changes}
    (folder / "manifest.json").write_bytes(canonical(body) + b"\n")


def rebook(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Alter the notebook, and let the record and the manifest say so."""
    book = json.loads((folder / BOOK).read_bytes())
    change(book)
    data = json.dumps(book).encode()
    (folder / BOOK).write_bytes(data)
    body = Record(folder / "record.jsonl").entries()[-1].body
    Record(folder / "record.jsonl").append("sealed", {**body, "digest": digest_bytes(data)})
    reseal(folder)


def test_a_sealed_attempt_holds_in_every_step(sealed: Path) -> None:
    """Nine steps, all PASS, and the verdict of the run."""
    rows, verdict = verify(sealed)

    assert [(row.what, row.outcome) for row in rows] == [(step, Outcome.PASS) for step in STEPS]
    assert verdict is not None
    assert verdict.exit_code is ExitCode.PASSED


def test_it_verifies_elsewhere(sealed: Path, tmp_path: Path) -> None:
    """Nothing but the files is needed: a copy without its site and store holds too."""
    shutil.move(sealed, tmp_path / "copy")
    shutil.rmtree(tmp_path / "practice")

    assert red(tmp_path / "copy") == {}


def test_a_notebook_that_was_looked_at_still_verifies(sealed: Path) -> None:
    """Jupyter's checkpoints are no part of the evidence."""
    (sealed / ".ipynb_checkpoints").mkdir()
    (sealed / ".ipynb_checkpoints" / BOOK).write_text("{}")

    assert red(sealed) == {}


def test_an_attempt_that_was_never_sealed_is_red(practice: Any) -> None:
    """It says how to seal it."""
    practice.walk(practice.open())

    assert red(practice.folder())["1 manifest"] == "no manifest; seal it with `runbook seal`"


def test_1_the_manifest_must_be_its_own_canonical_form(sealed: Path) -> None:
    """The same value in other bytes is another manifest."""
    path = sealed / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()), indent=1))

    assert red(sealed)["1 manifest"] == "other bytes"


def test_1_a_manifest_of_another_version_is_unknown(sealed: Path) -> None:
    """A later tool's manifest proves nothing to this one."""
    reseal(sealed, version=2)

    assert red(sealed)["1 manifest"] == "2"


@pytest.mark.parametrize(
    ("alter", "found"),
    [
        (lambda folder: (folder / "steps" / "more").write_text(""), "not listed: steps/more"),
        (lambda folder: (folder / ".hidden").write_text(""), "not listed: .hidden"),
        (lambda folder: (folder / BOOK).unlink(), f"missing: {BOOK}"),
        (
            lambda folder: next((folder / "steps").glob("*.out")).write_text("x"),
            "altered: steps/dev-1-touch-1.out",
        ),
        (
            lambda folder: (folder / "steps").rename(folder / "pets"),
            "missing: steps/dev-1-touch-1.code, steps/dev-1-touch-1.err, steps/dev-1-touch-1.out",
        ),
    ],
)
def test_2_every_file_is_as_listed(sealed: Path, alter: Callable[[Path], Any], found: str) -> None:
    """Missing, extra, altered and renamed files are named."""
    alter(sealed)

    assert red(sealed)["2 files"] == found


@pytest.mark.parametrize("kind", ["file link", "folder link", "fifo"])
def test_2_links_and_pipes_are_no_evidence(sealed: Path, kind: str, tmp_path: Path) -> None:
    """Also a link to the very same content: tomorrow it may point elsewhere."""
    match kind:
        case "file link":
            shutil.copy(sealed / BOOK, tmp_path / "same")
            (sealed / BOOK).unlink()
            (sealed / BOOK).symlink_to(tmp_path / "same")
        case "folder link":
            shutil.move(sealed / "steps", tmp_path / "same")
            (sealed / "steps").symlink_to(tmp_path / "same")
        case "fifo":
            os.mkfifo(sealed / "pipe")

    assert red(sealed)["2 files"].endswith(
        "expected a regular file in the evidence, got another kind"
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *itertools.product((*GROWING, BOOK), ("fifo", "endless")),
        ("manifest.json", "huge"),
        ("record.jsonl", "huge"),
    ],
)
def test_a_file_that_would_never_end_is_not_read(sealed: Path, name: str, kind: str) -> None:
    """Verifying a stranger's files neither hangs nor fills the memory."""
    path = sealed / name
    path.unlink()
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "endless":
            path.symlink_to("/dev/zero")
        case "huge":
            path.touch()
            os.truncate(path, 1024**3 + 1)

    with short_of_memory(), in_time(20):
        found = red(sealed)

    assert found


def test_a_huge_body_is_refused_by_its_size(sealed: Path) -> None:
    """None of it is read: no answer that we record is that long."""
    body = next((sealed / "tape").glob("??/*"))
    os.truncate(body, 1024**3 + 1)

    with short_of_memory():
        found = red(sealed)

    size = "expected at most 1073741824 bytes, got 1073741825"
    assert found["4 tape"] == f"{body.name}: {size}"


@contextmanager
def short_of_memory() -> Iterator[None]:
    """Half a gigabyte more than now."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 512 * 1024**2
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def in_time(seconds: int) -> Iterator[None]:
    """Instead of waiting for a pipe for ever."""

    def late(number: int, frame: object) -> None:
        pytest.exit(f"not over after {seconds} s", returncode=1)

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_3_the_record_ends_where_the_manifest_says(sealed: Path) -> None:
    """An entry more, well chained, is an alteration."""
    Record(sealed / "record.jsonl").append("note", {"text": "late"})

    assert "3 record" in red(sealed)


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        (("watching", "look"), "2 entries since {at} by runbook watch"),
        (("session",), "1 entry since {at} by a further try"),
        (
            ("watching", "look", "session"),
            "3 entries since {at} by runbook watch and a further try",
        ),
    ],
)
def test_9_what_was_added_since_the_seal_is_named(
    sealed: Path, kinds: tuple[str, ...], said: str
) -> None:
    """Neither damage nor proof: the sealed part still holds step by step, the rest is INCONCLUSIVE."""
    record = Record(sealed / "record.jsonl")
    at = utc(datetime.fromisoformat(record.entries()[-1].at))
    for kind in kinds:
        record.append(kind, {"number": 2})
    tape = LiveTape(sealed / "tape", Redactor(()))
    asked = Asked("read", datetime.now(UTC), 0.0)
    tape.record(("mainnet.activate.watch/look", 1, "GET /", 0), asked, {}, b"an answer")
    (sealed / "figures").mkdir(exist_ok=True)
    (sealed / "figures" / "anomaly.png").write_bytes(b"drawn")
    rows, verdict = verify(sealed)

    assert {r.what: (r.outcome, r.observed) for r in rows if r.outcome is not Outcome.PASS} == {
        "9 seal": (
            Outcome.INCONCLUSIVE,
            f"not yet sealed: {said.format(at=at)}; the next --continue seals it",
        )
    }
    assert verdict is not None and verdict.exit_code is ExitCode.PASSED


@pytest.mark.parametrize("name", ["record.jsonl", "tape/index.jsonl", BOOK])
def test_9_what_was_sealed_stands_unchanged_before_it(sealed: Path, name: str) -> None:
    """Growing excuses no other byte."""
    Record(sealed / "record.jsonl").append("watching", {"number": 1})
    data = (sealed / name).read_bytes()
    (sealed / name).write_bytes(data.replace(b"development", b"Development", 1))
    rows, _ = verify(sealed)

    assert worst(row.outcome for row in rows) is Outcome.FAIL


def test_3_a_torn_end_is_an_alteration(sealed: Path) -> None:
    """A sealed record has no unfinished entry."""
    with (sealed / "record.jsonl").open("ab") as file:
        file.write(b"{")

    assert red(sealed)["3 record"] == "1 bytes of an unfinished one"


def test_4_a_result_is_judged_on_the_entries_it_names(sealed: Path) -> None:
    """A result whose inputs are not those on the tape was not judged on them."""

    def forge(entries: list[dict[str, Any]]) -> None:
        result = next(entry for entry in entries if entry["kind"] == "result")
        result["body"]["result"]["inputs"] = "sha256:" + "0" * 64

    rewrite(sealed, forge)

    assert set(red(sealed)) >= {"4 tape"}


def test_4_a_lost_body_is_missed(sealed: Path) -> None:
    """Also when the manifest was written over what is left."""
    body = next(path for path in (sealed / "tape").glob("*/*"))
    body.unlink()
    reseal(sealed)

    assert red(sealed) == {"4 tape": f"tape: sha256:{body.name}: expected its body, got none"}


def test_5_an_item_without_a_result_is_missed(sealed: Path) -> None:
    """Taken out of the record, it has not run."""

    def forge(entries: list[dict[str, Any]]) -> None:
        entries[:] = [
            entry
            for entry in entries
            if entry["body"].get("item") != "development.activate.baseline"
        ]

    rewrite(sealed, forge)

    assert red(sealed)["5 completeness"] == (
        "development.activate.baseline: expected a final result, it has not run"
    )


def test_5_a_broken_run_stays_broken(practice: Any) -> None:
    """What the engine knew beside the record is in the seal: it does not verify as complete."""
    folder = practice.sealed()
    verdict = verify(folder)[1]
    assert verdict is not None
    broken = verdict.model_copy(update={"broken": ("run: the kernel died",)})
    code = json.loads((folder / "manifest.json").read_bytes())["code"]
    seal.seal(folder, BOOK, (folder / BOOK).read_bytes(), broken, code=code, foreign=False)

    assert red(folder)["5 completeness"] == "run: the kernel died"


def test_6_a_change_before_its_guards_is_seen(sealed: Path) -> None:
    """A step that began while an item before it was open breaks the rule."""

    def forge(entries: list[dict[str, Any]]) -> None:
        result = next(
            entry
            for entry in entries
            if entry["kind"] == "result" and entry["body"]["item"] == "preflight.config-drift"
        )
        result["body"]["result"]["outcome"] = "INCONCLUSIVE"
        result["body"]["result"]["rows"][0]["outcome"] = "INCONCLUSIVE"

    rewrite(sealed, forge)

    assert red(sealed)["6 the rule"] == (
        "it began while preflight.config-drift was INCONCLUSIVE (judged)"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("outcome", "FAIL"),
        ("exit_code", 1),
        ("release", "v9"),
        ("commit", "0" * 40),
        ("stage", "testnet"),
        ("attempt", 2),
        ("mode", "plan"),
        ("source", "live"),
        ("run", "headless"),
        ("sealed_at", "2030-01-01T00:00:00+00:00"),
        ("broken", ["x"]),
        ("more", 1),
    ],
)
def test_7_the_manifest_says_nothing_of_its_own(sealed: Path, key: str, value: Any) -> None:
    """Each of its words follows from the record."""
    reseal(sealed, **{key: value})

    assert set(red(sealed)) & {"5 completeness", "7 verdict"}


def test_7_the_card_says_what_the_record_says(sealed: Path) -> None:
    """A verdict card with another outcome is a lie, whoever sealed it."""

    def forge(book: dict[str, Any]) -> None:
        card = book["cells"][0]["outputs"][0]["data"]
        kind = next(key for key in card if key.endswith("json"))
        card[kind]["verdict"]["outcome"] = "FAIL"

    rebook(sealed, forge)

    assert red(sealed) == {"7 verdict": "FAIL"}


def test_7_a_results_card_says_what_the_record_says(sealed: Path) -> None:
    """The results in the notebook are those of the record."""

    def forge(book: dict[str, Any]) -> None:
        for cell in book["cells"]:
            if "".join(cell["source"]).startswith("stage.check(preflight"):
                card = cell["outputs"][0]["data"]
                kind = next(key for key in card if key.endswith("json"))
                card[kind]["standing"]["result"]["reason"] = "it never held"

    rebook(sealed, forge)

    assert red(sealed) == {"7 verdict": "another result in the notebook"}


def test_7_another_notebook_than_the_sealed_one_is_seen(sealed: Path) -> None:
    """The record holds the digest of the notebook that was sealed."""
    text = (sealed / BOOK).read_text()
    (sealed / BOOK).write_text(text + " ")
    reseal(sealed)

    assert red(sealed) == {"7 verdict": "another one"}


def test_8_altered_code_is_seen(sealed: Path) -> None:
    """Also when record and manifest were written over it."""

    def forge(book: dict[str, Any]) -> None:
        book["cells"][-1]["source"] = "print('enforced')"

    rebook(sealed, forge)

    assert "8 notebook" in red(sealed)


def test_8_a_foreign_notebook_never_verifies(practice: Any) -> None:
    """Sealed by hand with altered code it is foreign, and broken."""
    stage = practice.open()
    path = practice.write_notebook(practice.walk(stage), stage.enforce())
    book = json.loads(path.read_bytes())
    book["cells"][-1]["source"] = "stage.enforce();"
    path.write_text(json.dumps(book))
    verdict = seal_by_hand(practice.folder())

    assert verdict.broken == ("notebook: its code is not the one we ship: foreign",)
    assert red(practice.folder()) == {
        "5 completeness": "notebook: its code is not the one we ship: foreign",
        "7 verdict": "none",
        "8 notebook": "a foreign one; it never promotes",
    }


def test_a_notebook_outside_the_attempt_is_not_read(sealed: Path) -> None:
    """The manifest cannot lead the reader to another folder."""
    reseal(sealed, notebook="../../secret.ipynb")

    assert set(red(sealed)) >= {"7 verdict", "8 notebook"}


# --- mutations --------------------------------------------------------------------------------------


def _flip(path: Path, dice: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if not data:
        path.write_bytes(b"\n")
        return
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


def _cut(path: Path, dice: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: dice.randrange(len(data))] if data else b"\n")


def _remove(path: Path, dice: random.Random) -> None:
    path.unlink()


def _rename(path: Path, dice: random.Random) -> None:
    path.rename(path.with_name(f"{path.name}.{dice.randrange(9)}"))


def _add(path: Path, dice: random.Random) -> None:
    shutil.copy(path, path.with_name(f"{path.name}.{dice.randrange(9)}"))


def _link(path: Path, dice: random.Random) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


MUTATIONS = (_flip, _flip, _flip, _cut, _remove, _rename, _add, _link)


def test_none_of_a_hundred_mutations_verifies(sealed: Path, tmp_path: Path) -> None:
    """Any byte of any file flipped; files cut, removed, renamed, added, replaced by a link."""
    dice = random.Random(20261123)
    passed = []
    for number in range(100):
        copy = tmp_path / "copies" / f"{number}" / "attempt"
        shutil.copytree(sealed, copy)
        # What lies ready for a recovery is a tool that people run, and no evidence.
        files = (path for path in copy.rglob("*") if path.is_file())
        path = dice.choice(sorted(path for path in files if path.parent.name != FOLDER))
        mutate = MUTATIONS[number % len(MUTATIONS)]
        mutate(path, dice)
        rows, _ = verify(copy)
        if worst(row.outcome for row in rows) is Outcome.PASS:
            passed.append(f"{mutate.__name__} {path.relative_to(copy)}")

    assert passed == []


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("hostile")


@settings(max_examples=60)
@given(
    manifest=JSON | st.fixed_dictionaries({"version": st.just(1), "files": JSON, "record": JSON}),
    body=JSON,
    book=JSON,
)
def test_hostile_files_are_rows_never_tracebacks(
    hostile: Path, manifest: Any, body: Any, book: Any
) -> None:
    """Whatever JSON stands in the files, each step is reported and the attempt does not verify."""
    (hostile / "tape").mkdir(exist_ok=True)
    (hostile / "manifest.json").write_text(json.dumps(manifest))
    (hostile / BOOK).write_text(json.dumps(book))
    line = json.dumps({"seq": 0, "prev": "sha256:" + "0" * 64, "at": "", "kind": "opened"})
    line = line[:-1] + f', "body": {json.dumps(body)}}}\n'
    (hostile / "record.jsonl").write_text(line)
    (hostile / "tape" / "index.jsonl").write_text(json.dumps(body) + "\n")
    rows, verdict = verify(hostile)

    assert [row.what for row in rows] == STEPS
    assert worst(row.outcome for row in rows) is not Outcome.PASS
    assert verdict is None


@pytest.mark.parametrize("name", ["manifest.json", "record.jsonl", BOOK, "tape/index.jsonl"])
@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"[" * 100_000, b"{}\n", b"null\n"])
def test_garbage_in_a_file_is_a_red_row(sealed: Path, name: str, text: bytes) -> None:
    """Nothing at all, no UTF-8, bottomless nesting, another shape."""
    (sealed / name).write_bytes(text)

    assert red(sealed)
