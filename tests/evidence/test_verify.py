"""An attempt verifies from its files alone, and no alteration of any of them does."""

import itertools
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from runbook_lib.canonical import digest_bytes
from runbook_lib.evidence import seal, sealing
from runbook_lib.evidence.log import Log
from runbook_lib.evidence.replay import seal_by_hand
from runbook_lib.evidence.verify import verify
from runbook_lib.outcomes import Outcome, worst
from runbook_lib.signers import Signing
from runbook_lib.sources.tape import Answer, LiveTape
from runbook_lib.verdicts import ExitCode
from runbook_lib.wording import utc

from ..attacks.conftest import Alter, attest, chained, resealed
from ..conftest import ALICES, ALICES_KEY, BASELINE, DRIFT, declare, practising, recorded, red
from ..events import event

STEPS = [
    "1 attestations", "2 signers", "3 files", "4 seals", "5 log", "6 tape", "7 findings",
    "8 completeness", "9 the rule", "10 verdict", "11 notebook", "12 head", "13 seal",
]  # fmt: skip
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


def rebook(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Alter the notebook, and let the log and the manifest say so."""
    book = json.loads((folder / BOOK).read_bytes())
    change(book)
    data = json.dumps(book).encode()
    (folder / BOOK).write_bytes(data)
    log = Log(folder / "log.jsonl")
    log.append(log.events()[-1].model_copy(update={"digest": digest_bytes(data)}))
    resealed(folder, ALICES_KEY)


def test_a_sealed_attempt_holds_in_every_step(sealed: Path, tmp_path: Path) -> None:
    """Also where it was looked at by Jupyter, and moved away from its site and store."""
    (sealed / ".ipynb_checkpoints").mkdir()
    (sealed / ".ipynb_checkpoints" / BOOK).write_text("{}")
    rows, verdict = verify(shutil.move(sealed, tmp_path / "copy"), ALICES)

    assert [(row.what, row.outcome) for row in rows] == [(step, Outcome.PASS) for step in STEPS]
    assert verdict is not None
    assert verdict.exit_code is ExitCode.PASSED


def linked(name: str) -> Alter:
    """A link to the very same content: tomorrow it may point elsewhere."""

    def alter(folder: Path) -> None:
        (folder / name).rename(folder.parent / "same")
        (folder / name).symlink_to(folder.parent / "same")

    return alter


OTHER_KIND = "expected a regular file, got a link or another kind"
STEP = "steps/dev-1-touch-1"
FILES: dict[str, tuple[Alter, str]] = {
    "more": (lambda folder: (folder / "steps" / "more").write_text(""), "not attested: steps/more"),
    "hidden": (lambda folder: (folder / ".hidden").write_text(""), "not attested: .hidden"),
    "gone": (lambda folder: (folder / BOOK).unlink(), f"missing: {BOOK}"),
    "altered": (
        lambda folder: (folder / f"{STEP}.out").write_text("x"), f"altered: {STEP}.out",
    ),
    "renamed": (
        lambda folder: (folder / "steps").rename(folder / "pets"),
        f"missing: {STEP}.code, {STEP}.err, {STEP}.out",
    ),
    "file link": (linked(BOOK), OTHER_KIND),
    "folder link": (linked("steps"), OTHER_KIND),
    "pipe": (lambda folder: os.mkfifo(folder / "pipe"), OTHER_KIND),
}  # fmt: skip


@pytest.mark.parametrize(("alter", "found"), FILES.values(), ids=FILES)
def test_3_every_file_is_as_listed(sealed: Path, alter: Alter, found: str) -> None:
    """Missing, extra, altered and renamed files are named; links and pipes are no evidence."""
    alter(sealed)
    said = red(sealed)["3 files"]

    assert (said.partition(": ")[2] if found == OTHER_KIND else said) == found


def test_a_huge_body_is_refused_by_its_size(sealed: Path) -> None:
    """None of it is read: no answer that we log is that long."""
    body = next((sealed / "tape").glob("??/*"))
    os.truncate(body, 1024**3 + 1)

    size = "expected at most 1073741824 bytes, got 1073741825"
    assert red(sealed)["6 tape"] == f"{body.name}: {size}"


def test_5_the_record_ends_where_the_seal_says(sealed: Path) -> None:
    """An entry more, well chained, is an alteration, and so is a torn end."""
    with (sealed / "log.jsonl").open("ab") as file:
        file.write(b"{")
    assert red(sealed)["5 log"] == "1 bytes of an unfinished one"

    Log(sealed / "log.jsonl").append(event("note", text="late"))
    assert "5 log" in red(sealed)


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        (("watching", "look"), "2 events since {at} by runbook watch"),
        (("session",), "1 event since {at} by a further run"),
        (("watching", "look", "session"),
         "3 events since {at} by runbook watch and a further run"),
    ],
)  # fmt: skip
def test_13_what_was_added_since_the_seal_is_named(
    sealed: Path, kinds: tuple[str, ...], said: str
) -> None:
    """Neither damage nor proof: the sealed part still holds step by step, the rest is INCONCLUSIVE."""
    log = Log(sealed / "log.jsonl")
    at = utc(datetime.fromisoformat(log.events()[-1].written))
    for kind in kinds:
        log.append(event(kind))
    tape = LiveTape(sealed / "tape")
    asked = ("mainnet.activate.watch/look", 1, "GET /", 0)
    recorded(tape, asked, b"an answer", Answer())
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


@pytest.mark.parametrize("name", ["log.jsonl", "tape/index.jsonl", BOOK])
def test_13_what_was_sealed_stands_unchanged_before_it(sealed: Path, name: str) -> None:
    Log(sealed / "log.jsonl").append(event("watching", number=1))
    data = (sealed / name).read_bytes()
    (sealed / name).write_bytes(data.replace(b"development", b"Development", 1))
    rows, _ = verify(sealed, ALICES)

    assert worst(row.outcome for row in rows) is Outcome.FAIL


def other_inputs(entries: list[dict[str, Any]]) -> None:
    result = next(entry for entry in entries if entry["kind"] == "result")
    result["result"]["inputs"] = "sha256:" + "0" * 64


def without_baseline(entries: list[dict[str, Any]]) -> None:
    entries[:] = [entry for entry in entries if entry.get("item") != BASELINE]


def drift_left_open(entries: list[dict[str, Any]]) -> None:
    """A step began while an item before it was open."""
    results = (entry for entry in entries if entry["kind"] == "result")
    result = next(body["result"] for body in results if body["item"] == DRIFT)
    result["outcome"] = result["rows"][0]["outcome"] = "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("forge", "step", "said"),
    [
        (other_inputs, "6 tape", ""),
        (without_baseline, "8 completeness",
         f"{BASELINE}: expected a final result, it has not run"),
        (drift_left_open, "9 the rule", f"it began while {DRIFT} was INCONCLUSIVE (judged)"),
    ],
)  # fmt: skip
def test_a_forged_record_is_seen(
    sealed: Path, forge: Callable[[list[dict[str, Any]]], None], step: str, said: str
) -> None:
    """Also when it was chained and sealed anew."""
    chained(sealed, forge)
    resealed(sealed, ALICES_KEY)

    assert red(sealed)[step].startswith(said)


def test_6_a_lost_body_is_missed(sealed: Path) -> None:
    """Also when the manifest was written over what is left."""
    body = next(path for path in (sealed / "tape").glob("*/*"))
    body.unlink()
    resealed(sealed, ALICES_KEY)

    assert red(sealed) == {"6 tape": f"tape: sha256:{body.name}: expected its body, got none"}


def test_8_a_broken_run_stays_broken(practice: Any) -> None:
    """What the engine knew beside the log is in the seal: it does not verify as complete."""
    folder = practice.sealed()
    verdict = verify(folder, ALICES)[1]
    assert verdict is not None
    broken = verdict.model_copy(update={"broken": ("run: the kernel died",)})
    given: dict[str, Any] = {"code": seal.facts_of(seal.seals(folder)[0].payload)["code"]}
    given |= {"foreign": False, "signing": Signing("alice", CryptoSigner(ALICES_KEY))}
    sealing.seal(folder, BOOK, (folder / BOOK).read_bytes(), broken, **given)

    assert red(folder)["8 completeness"] == "run: the kernel died"


FACTS = {
    "outcome": "FAIL", "exit_code": 1, "release": "v9", "commit": "0" * 40, "stage": "testnet",
    "attempt": 2, "mode": "plan", "source": "live", "run": "headless", "more": 1, "broken": ["x"],
    "sealed_at": "2030-01-01T00:00:00+00:00",
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), FACTS.items(), ids=FACTS)
def test_10_the_statement_says_nothing_of_its_own(sealed: Path, key: str, value: Any) -> None:
    resealed(sealed, ALICES_KEY, **{key: value})

    assert set(red(sealed)) & {"8 completeness", "10 verdict"}


def shown(cell: dict[str, Any]) -> Any:
    """What the JSON of a cell's card holds."""
    data = cell["outputs"][0]["data"]
    return next(value for kind, value in data.items() if kind.endswith("json"))


def another_verdict(book: dict[str, Any]) -> None:
    shown(book["cells"][0])["verdict"]["outcome"] = "FAIL"


def another_result(book: dict[str, Any]) -> None:
    checks = (c for c in book["cells"] if "".join(c["source"]).startswith("stage.check(preflight"))
    shown(next(checks))["status"]["result"]["reason"] = "it never held"


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
    """The log holds the digest of the notebook that was sealed; none elsewhere is read."""
    (sealed / BOOK).write_text((sealed / BOOK).read_text() + " ")
    resealed(sealed, ALICES_KEY)
    assert red(sealed) == {"10 verdict": "another one"}

    resealed(sealed, ALICES_KEY, notebook="../../secret.ipynb")
    assert set(red(sealed)) >= {"10 verdict", "11 notebook"}


def test_11_altered_code_is_seen(sealed: Path) -> None:
    rebook(sealed, lambda book: book["cells"][-1].update(source="print('enforced')"))

    assert "11 notebook" in red(sealed)


def test_11_a_foreign_notebook_never_verifies(practice: Any) -> None:
    """Sealed by hand with altered code it is foreign, and broken."""
    path = practice.enforced() / BOOK
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


def _link(path: Path, dice: random.Random) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def _other(path: Path, dice: random.Random) -> Path:
    return path.with_name(f"{path.name}.{dice.randrange(9)}")


MUTATIONS: dict[str, Callable[[Path, random.Random], object]] = {
    "flip": _flip,
    "flip again": _flip,
    "flip once more": _flip,
    "cut": _cut,
    "remove": lambda path, dice: path.unlink(),
    "rename": lambda path, dice: path.rename(_other(path, dice)),
    "add": lambda path, dice: shutil.copy(path, _other(path, dice)),
    "link": _link,
}


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.torture)])
def test_no_mutation_verifies(sealed: Path, tmp_path: Path, count: int) -> None:
    """Any byte of any file flipped; files cut, removed, renamed, added, replaced by a link."""
    dice = random.Random(20261123)
    passed = []
    for number, how in zip(range(count), itertools.cycle(MUTATIONS)):
        copy = tmp_path / "copies" / f"{number}" / "attempt"
        shutil.copytree(sealed, copy)
        path = dice.choice(sorted(path for path in copy.rglob("*") if path.is_file()))
        MUTATIONS[how](path, dice)
        rows, _ = verify(copy, ALICES)
        if worst(row.outcome for row in rows) is Outcome.PASS:
            passed.append(f"{how} {path.relative_to(copy)}")
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
    attest(hostile, json.dumps(payload).encode(), ALICES_KEY)
    (hostile / BOOK).write_text(json.dumps(book))
    line = json.dumps({"seq": 0, "prev": "sha256:" + "0" * 64, "at": "", "kind": "opened"})
    line = line[:-1] + f', "body": {json.dumps(body)}}}\n'
    (hostile / "log.jsonl").write_text(line)
    (hostile / "tape" / "index.jsonl").write_text(json.dumps(body) + "\n")
    rows, verdict = verify(hostile, ALICES)

    assert [row.what for row in rows] == STEPS
    assert worst(row.outcome for row in rows) is not Outcome.PASS
    assert verdict is None
