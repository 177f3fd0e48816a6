"""What opens the next stage: an attempt that applied and passed in this world, and nothing like it."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.errors import StageRefused, StoreError
from runbook_lib.evidence.events import Opened
from runbook_lib.evidence.ledger import Ledger
from runbook_lib.evidence.log import Log
from runbook_lib.evidence.release import stages_before
from runbook_lib.evidence.store import Store
from runbook_lib.opening import require_order
from runbook_lib.outcomes import Outcome
from runbook_lib.params import TestnetParams
from runbook_lib.signers import Trust
from runbook_lib.taking_back import what_to_undo

from ..conftest import ALICES
from ..events import event

RELEASE = "v1.4.0"
NONE_YET = "expected an attempt that applied and passed, got none yet"
COMMIT = "c0ffee" * 6 + "abcd"


def problem(practice: Any, source: str = "rehearsal", **changes: Any) -> str:
    """Why testnet cannot open; empty when it can. ``require_order`` says the same."""
    store, wanted = Store(practice.root / "store"), changes.get("commit", COMMIT)
    found = Ledger(store).earlier(RELEASE, wanted, "testnet", source, ALICES).problem
    params = TestnetParams(release=RELEASE, commit=wanted)
    applies: Any = params.model_copy(update={"mode": "apply"})
    if found:
        with pytest.raises(StoreError) as refused:
            require_order(store, "testnet", applies, source, ALICES)  # type: ignore[arg-type]
        said = f"{RELEASE}/development: {found}; testnet cannot open"
        assert str(refused.value) == said
    else:
        require_order(store, "testnet", applies, source, ALICES)  # type: ignore[arg-type]
    return found


def carried(practice: Any, **outcomes: Any) -> None:
    """An apply that was carried to its end, and never sealed."""
    stage = practice.open()
    practice.walk(stage, **outcomes)
    with suppress(StageRefused):
        stage.enforce()


def planned(practice: Any) -> None:
    """A plan in which everything passed, sealed."""
    opened, *_, sealed = Log(practice.sealed(mode="plan") / "log.jsonl").events()
    assert (opened.mode, sealed.outcome) == ("plan", "PASS")


def altered(practice: Any) -> None:
    index = practice.sealed() / "tape" / "index.jsonl"
    index.write_bytes(index.read_bytes().replace(b'"read"', b'"look"', 1))


NOTHING: dict[str, tuple[Callable[[Any], object], dict[str, str], str]] = {
    "a plan": (planned, {}, NONE_YET),
    "a plan after a failed apply": (
        lambda practice: (carried(practice, deploy=1), planned(practice)), {},
        "expected attempt 1 PASS, got ",
    ),
    "a failure after a pass": (
        lambda practice: (practice.sealed(), carried(practice, ci_green=Outcome.FAIL)), {},
        "expected attempt 2 PASS, got ",
    ),
    "a rehearsal": (
        lambda practice: practice.sealed(), {"source": "live"},
        "expected attempt 1 made live, got it made rehearsal",
    ),
    "another commit": (
        lambda practice: practice.sealed(), {"commit": "d" * 40},
        f"expected commit {'d' * 40}, got {COMMIT} in attempt 1",
    ),
    "an unsealed pass": (
        carried, {},
        "expected attempt 1 to verify, got: evidence: 1 attestations: expected a sealed attempt,"
        " got no attestation; seal it with `runbook seal` (and 7 more)",
    ),
    "an altered pass": (altered, {}, "expected attempt 1 to verify, got: "),
}  # fmt: skip


@pytest.mark.parametrize(("made", "asked", "said"), NOTHING.values(), ids=NOTHING)
def test_what_does_not_open_the_next_stage(
    practice: Any, made: Callable[[Any], object], asked: dict[str, str], said: str
) -> None:
    """The newest apply is the one that counts, whatever was planned after it."""
    made(practice)
    found = problem(practice, **asked)

    assert found.startswith(said) if said.endswith(" ") else found == said


def test_an_applied_sealed_pass_opens_the_next_stage(practice: Any) -> None:
    """The positive control of all that is refused above."""
    practice.sealed()

    assert problem(practice) == ""


def test_a_replay_opens_nothing(practice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even in the very store that it was written to."""
    folder = practice.sealed()
    monkeypatch.setenv("RUNBOOK_REPLAY", str(folder))
    (practice.root / "scratch").mkdir()
    monkeypatch.setenv("RUNBOOK_SCRATCH", str(practice.root / "scratch"))
    stage = practice.open()
    practice.walk(stage)
    stage.enforce()
    monkeypatch.delenv("RUNBOOK_REPLAY")
    log = Log(stage.folder / "log.jsonl").events()
    assert (stage.verdict().outcome, log[0].mode) == (Outcome.PASS, "apply")

    for source in ("live", "rehearsal"):
        scratch = Store(stage.folder.parents[2])
        found = Ledger(scratch).earlier(RELEASE, COMMIT, "testnet", source, ALICES)
        assert found.problem == NONE_YET


def test_what_was_done_live_opens_nothing_in_a_rehearsal(practice: Any) -> None:
    """Nor the other way round: a rehearsal practises its own order."""
    practice.write_site(clock={"source": "utc"})
    practice.sealed()

    assert problem(practice, "live") == ""
    assert problem(practice) == "expected attempt 1 made rehearsal, got it made live"


# --- which apply a recovery undoes ---


STAGE = "canary"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def opened(stage: str, hour: int, **more: Any) -> Opened:
    now = datetime(2026, 1, 31, hour, tzinfo=UTC)
    return event("opened", release=RELEASE, stage=stage, operator="ops", now=now, **more)


def apply(store: Store, hour: int, *, begun: bool) -> None:
    log = store.create(opened(STAGE, hour)).log
    log.append(event("plan", digest="sha256:" + "a" * 64, approved_by=["lead"]))
    if begun:
        log.append(event("step", node="main-1", step="deliver", phase="intent"))


def recover(store: Store, hour: int, attempt: int) -> None:
    undoes = {"attempt": attempt, "plan": "", "name": f"{RELEASE}/{STAGE}/{attempt:04d}"}
    store.create(opened(f"{STAGE}_recovery", hour, undoes=undoes))


def undoes(store: Store) -> int:
    found, why = what_to_undo(store, RELEASE, STAGE, "live")
    assert found is not None and why == ""
    return found.attempt


def test_it_is_the_newest_that_changed_anything(store: Store) -> None:
    """One that only has a plan has nothing to take back, unless there is no other."""
    apply(store, 1, begun=False)
    assert undoes(store) == 1
    apply(store, 2, begun=True)
    apply(store, 3, begun=False)
    assert undoes(store) == 2
    recover(store, 4, attempt=2)
    assert undoes(store) == 2  # that recovery goes on


def test_a_new_apply_is_the_one_to_stop_once_the_older_one_is_undone(store: Store) -> None:
    """It is about to begin: a recovery that undid the older one again would not stop it."""
    apply(store, 1, begun=True)
    recover(store, 2, attempt=1)
    apply(store, 3, begun=False)

    assert undoes(store) == 2
    recover(store, 4, attempt=2)
    assert (
        str(Ledger(store).undoing(RELEASE, STAGE, 2)) == f"{RELEASE}/{STAGE}_recovery/0002 by ops"
    )
    assert undoes(store) == 2


def test_verify_goes_back_to_development(practice: Any) -> None:
    """Of an apply in its own store; a copy elsewhere has no stage before it, a plan needs none."""
    before = practice.sealed()
    folder = before.parents[1] / "testnet" / "0001"
    folder.mkdir(parents=True)
    first, log = Log(before / "log.jsonl").events()[0], Log(folder / "log.jsonl")
    log.append(first.model_copy(update={"stage": "testnet", "heads": {}}))
    (row,) = stages_before(folder, ALICES)
    (other,) = stages_before(folder, Trust(signing="none"))
    shutil.rmtree(before / "attestations")
    (gone,) = stages_before(folder, ALICES)
    moved = folder.rename(practice.root / "elsewhere")

    assert (row.subject, row.outcome) == ("development", Outcome.PASS)
    assert other.outcome is Outcome.PASS
    assert gone.outcome is Outcome.FAIL
    assert str(gone.observed).startswith("expected attempt 1 to verify, got: evidence: 1 attest")
    assert stages_before(moved, ALICES) == []
    (moved / "log.jsonl").write_text("x\n")
    assert [row.outcome for row in stages_before(moved, ALICES)] == [Outcome.INCONCLUSIVE]
