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
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from runbook_lib.canonical import canonical, digest_bytes
from runbook_lib.evidence import seal
from runbook_lib.evidence.record import Record
from runbook_lib.evidence.replay import seal_by_hand
from runbook_lib.evidence.verify import GROWING, verify
from runbook_lib.outcomes import Outcome, worst
from runbook_lib.signatures import Envelope
from runbook_lib.signers import Signing
from runbook_lib.sources.redact import Redactor
from runbook_lib.sources.tape import Asked, LiveTape
from runbook_lib.verdicts import ExitCode
from runbook_lib.wording import utc

from ..conftest import ALICES, ALICES_KEY, BASELINE, DRIFT, declare, practising

STEPS = [
    "1 attestations",
    "2 signers",
    "3 files",
    "4 seals",
    "5 record",
    "6 tape",
    "7 findings",
    "8 completeness",
    "9 the rule",
    "10 verdict",
    "11 notebook",
    "12 head",
    "13 seal",
]
SIGNING = Signing("alice", CryptoSigner(ALICES_KEY))
ATTESTATION = f"{seal.FOLDER}/0001.alice.json"
BOOK = "10_development.ipynb"


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed attempt in which everything passed; a copy of it verifies as well."""
    with pytest.MonkeyPatch.context() as patch:
        declare(patch)
        with practising(tmp_path_factory.mktemp("passed") / "practice", patch) as practice:
            return practice.sealed()


@pytest.fixture
def sealed(passed: Path, declared: None, tmp_path: Path) -> Path:
    return shutil.copytree(passed, tmp_path / "store" / "v1.4.0" / "development" / "0001")


def red(folder: Path) -> dict[str, str]:
    """Step -> what was found, of every step that does not hold."""
    rows, _ = verify(folder, ALICES)
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
    """Attest to the folder as it is, with ``changes``, by a key that may."""
    entries = Record(folder / "record.jsonl").entries()
    shutil.rmtree(folder / seal.FOLDER)
    about = seal.statement(entries, seal.file_digests(folder), "")
    about["predicate"][seal.FACTS].update(changes)
    envelope = Envelope(canonical(about)).signed(CryptoSigner(ALICES_KEY))
    (folder / seal.FOLDER).mkdir()
    (folder / ATTESTATION).write_bytes(envelope.dump())


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
    """Thirteen steps, all PASS, and the verdict of the run."""
    rows, verdict = verify(sealed, ALICES)

    assert [(row.what, row.outcome) for row in rows] == [(step, Outcome.PASS) for step in STEPS]
    assert verdict is not None
    assert verdict.exit_code is ExitCode.PASSED


def test_it_verifies_elsewhere(sealed: Path, tmp_path: Path) -> None:
    """Nothing but the files is needed: a copy without its site and store holds too."""
    shutil.move(sealed, tmp_path / "copy")

    assert red(tmp_path / "copy") == {}


def test_a_notebook_that_was_looked_at_still_verifies(sealed: Path) -> None:
    """Jupyter's checkpoints are no part of the evidence."""
    (sealed / ".ipynb_checkpoints").mkdir()
    (sealed / ".ipynb_checkpoints" / BOOK).write_text("{}")

    assert red(sealed) == {}


def test_an_attempt_that_was_never_sealed_is_red(practice: Any) -> None:
    practice.walk(practice.open())

    assert red(practice.folder())["1 attestations"] == "no attestation; seal it with `runbook seal`"


@pytest.mark.parametrize(
    ("alter", "found"),
    [
        (lambda folder: (folder / "steps" / "more").write_text(""), "not attested: steps/more"),
        (lambda folder: (folder / ".hidden").write_text(""), "not attested: .hidden"),
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
def test_3_every_file_is_as_listed(sealed: Path, alter: Callable[[Path], Any], found: str) -> None:
    """Missing, extra, altered and renamed files are named."""
    alter(sealed)

    assert red(sealed)["3 files"] == found


@pytest.mark.parametrize("kind", ["file link", "folder link", "fifo"])
def test_3_links_and_pipes_are_no_evidence(sealed: Path, kind: str, tmp_path: Path) -> None:
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

    assert red(sealed)["3 files"].endswith("expected a regular file, got a link or another kind")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *itertools.product((*GROWING, BOOK), ("fifo", "endless")),
        (ATTESTATION, "huge"),
        ("record.jsonl", "huge"),
    ],
)
def test_a_file_that_would_never_end_is_not_read(sealed: Path, name: str, kind: str) -> None:
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
    assert found["6 tape"] == f"{body.name}: {size}"


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


def test_5_the_record_ends_where_the_seal_says(sealed: Path) -> None:
    """An entry more, well chained, is an alteration."""
    Record(sealed / "record.jsonl").append("note", {"text": "late"})

    assert "5 record" in red(sealed)


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
def test_13_what_was_added_since_the_seal_is_named(
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
    rows, verdict = verify(sealed, ALICES)

    assert {r.what: (r.outcome, r.observed) for r in rows if r.outcome is not Outcome.PASS} == {
        "13 seal": (
            Outcome.INCONCLUSIVE,
            f"not yet sealed: {said.format(at=at)}; the next --continue seals it",
        )
    }
    assert verdict is not None and verdict.exit_code is ExitCode.PASSED


@pytest.mark.parametrize("name", ["record.jsonl", "tape/index.jsonl", BOOK])
def test_13_what_was_sealed_stands_unchanged_before_it(sealed: Path, name: str) -> None:
    Record(sealed / "record.jsonl").append("watching", {"number": 1})
    data = (sealed / name).read_bytes()
    (sealed / name).write_bytes(data.replace(b"development", b"Development", 1))
    rows, _ = verify(sealed, ALICES)

    assert worst(row.outcome for row in rows) is Outcome.FAIL


def test_5_a_torn_end_is_an_alteration(sealed: Path) -> None:
    with (sealed / "record.jsonl").open("ab") as file:
        file.write(b"{")

    assert red(sealed)["5 record"] == "1 bytes of an unfinished one"


def other_inputs(entries: list[dict[str, Any]]) -> None:
    result = next(entry for entry in entries if entry["kind"] == "result")
    result["body"]["result"]["inputs"] = "sha256:" + "0" * 64


def without_baseline(entries: list[dict[str, Any]]) -> None:
    entries[:] = [entry for entry in entries if entry["body"].get("item") != BASELINE]


def drift_left_open(entries: list[dict[str, Any]]) -> None:
    """A step began while an item before it was open."""
    results = (entry["body"] for entry in entries if entry["kind"] == "result")
    result = next(body["result"] for body in results if body["item"] == DRIFT)
    result["outcome"] = result["rows"][0]["outcome"] = "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("forge", "step", "said"),
    [
        (other_inputs, "6 tape", ""),
        (
            without_baseline,
            "8 completeness",
            f"{BASELINE}: expected a final result, it has not run",
        ),
        (drift_left_open, "9 the rule", f"it began while {DRIFT} was INCONCLUSIVE (judged)"),
    ],
)
def test_a_forged_record_is_seen(
    sealed: Path, forge: Callable[[list[dict[str, Any]]], None], step: str, said: str
) -> None:
    """Also when it was chained and sealed anew."""
    rewrite(sealed, forge)

    assert red(sealed)[step].startswith(said)


def test_6_a_lost_body_is_missed(sealed: Path) -> None:
    """Also when the manifest was written over what is left."""
    body = next(path for path in (sealed / "tape").glob("*/*"))
    body.unlink()
    reseal(sealed)

    assert red(sealed) == {"6 tape": f"tape: sha256:{body.name}: expected its body, got none"}


def test_8_a_broken_run_stays_broken(practice: Any) -> None:
    """What the engine knew beside the record is in the seal: it does not verify as complete."""
    folder = practice.sealed()
    verdict = verify(folder, ALICES)[1]
    assert verdict is not None
    broken = verdict.model_copy(update={"broken": ("run: the kernel died",)})
    code = seal.facts_of(seal.seals(folder)[0].payload)["code"]
    seal.seal(
        folder,
        BOOK,
        (folder / BOOK).read_bytes(),
        broken,
        code=code,
        foreign=False,
        signing=SIGNING,
    )

    assert red(folder)["8 completeness"] == "run: the kernel died"


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
def test_10_the_statement_says_nothing_of_its_own(sealed: Path, key: str, value: Any) -> None:
    reseal(sealed, **{key: value})

    assert set(red(sealed)) & {"8 completeness", "10 verdict"}


def shown(cell: dict[str, Any]) -> Any:
    """What the JSON of a cell's card holds."""
    data = cell["outputs"][0]["data"]
    return next(value for kind, value in data.items() if kind.endswith("json"))


def another_verdict(book: dict[str, Any]) -> None:
    shown(book["cells"][0])["verdict"]["outcome"] = "FAIL"


def another_result(book: dict[str, Any]) -> None:
    checks = (c for c in book["cells"] if "".join(c["source"]).startswith("stage.check(preflight"))
    shown(next(checks))["standing"]["result"]["reason"] = "it never held"


@pytest.mark.parametrize(
    ("forge", "said"),
    [(another_verdict, "FAIL"), (another_result, "another result in the notebook")],
)
def test_10_the_cards_say_what_the_record_says(
    sealed: Path, forge: Callable[[dict[str, Any]], None], said: str
) -> None:
    """Another outcome or result is a lie, whoever sealed it."""
    rebook(sealed, forge)

    assert red(sealed) == {"10 verdict": said}


def test_10_another_notebook_than_the_sealed_one_is_seen(sealed: Path) -> None:
    """The record holds the digest of the notebook that was sealed."""
    text = (sealed / BOOK).read_text()
    (sealed / BOOK).write_text(text + " ")
    reseal(sealed)

    assert red(sealed) == {"10 verdict": "another one"}


def test_11_altered_code_is_seen(sealed: Path) -> None:
    def forge(book: dict[str, Any]) -> None:
        book["cells"][-1]["source"] = "print('enforced')"

    rebook(sealed, forge)

    assert "11 notebook" in red(sealed)


def test_11_a_foreign_notebook_never_verifies(practice: Any) -> None:
    """Sealed by hand with altered code it is foreign, and broken."""
    stage = practice.open()
    path = practice.write_notebook(practice.walk(stage), stage.enforce())
    book = json.loads(path.read_bytes())
    book["cells"][-1]["source"] = "stage.enforce();"
    path.write_text(json.dumps(book))
    verdict = seal_by_hand(practice.folder())

    assert verdict.broken == ("notebook: its code is not the one we ship: foreign",)
    assert red(practice.folder()) == {
        "8 completeness": "notebook: its code is not the one we ship: foreign",
        "10 verdict": "none",
        "11 notebook": "a foreign one; it never promotes",
    }


def test_a_notebook_outside_the_attempt_is_not_read(sealed: Path) -> None:
    reseal(sealed, notebook="../../secret.ipynb")

    assert set(red(sealed)) >= {"10 verdict", "11 notebook"}


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


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.torture)])
def test_no_mutation_verifies(sealed: Path, tmp_path: Path, count: int) -> None:
    """Any byte of any file flipped; files cut, removed, renamed, added, replaced by a link."""
    dice = random.Random(20261123)
    passed = []
    for number in range(count):
        copy = tmp_path / "copies" / f"{number}" / "attempt"
        shutil.copytree(sealed, copy)
        path = dice.choice(sorted(path for path in copy.rglob("*") if path.is_file()))
        mutate = MUTATIONS[number % len(MUTATIONS)]
        mutate(path, dice)
        rows, _ = verify(copy, ALICES)
        if worst(row.outcome for row in rows) is Outcome.PASS:
            passed.append(f"{mutate.__name__} {path.relative_to(copy)}")
        shutil.rmtree(copy)

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
    payload=JSON | st.fixed_dictionaries({"_type": JSON, "subject": JSON, "predicate": JSON}),
    body=JSON,
    book=JSON,
)
def test_hostile_files_are_rows_never_tracebacks(
    hostile: Path, payload: Any, body: Any, book: Any
) -> None:
    """Whatever JSON stands in the files, each step is reported and the attempt does not verify."""
    (hostile / "tape").mkdir(exist_ok=True)
    (hostile / seal.FOLDER).mkdir(exist_ok=True)
    envelope = Envelope(json.dumps(payload).encode()).signed(CryptoSigner(ALICES_KEY))
    (hostile / ATTESTATION).write_bytes(envelope.dump())
    (hostile / BOOK).write_text(json.dumps(book))
    line = json.dumps({"seq": 0, "prev": "sha256:" + "0" * 64, "at": "", "kind": "opened"})
    line = line[:-1] + f', "body": {json.dumps(body)}}}\n'
    (hostile / "record.jsonl").write_text(line)
    (hostile / "tape" / "index.jsonl").write_text(json.dumps(body) + "\n")
    rows, verdict = verify(hostile, ALICES)

    assert [row.what for row in rows] == STEPS
    assert worst(row.outcome for row in rows) is not Outcome.PASS
    assert verdict is None


@pytest.mark.parametrize("name", [ATTESTATION, "record.jsonl", BOOK, "tape/index.jsonl"])
@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"[" * 100_000, b"{}\n", b"null\n"])
def test_garbage_in_a_file_is_a_red_row(sealed: Path, name: str, text: bytes) -> None:
    """Nothing at all, no UTF-8, bottomless nesting, another shape."""
    (sealed / name).write_bytes(text)

    assert red(sealed)
