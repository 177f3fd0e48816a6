"""A replay asks nobody, changes nothing and finds the same."""

import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.context import Context, judges
from runbook_lib.errors import StageRefused, StoreError
from runbook_lib.evidence.log import Log
from runbook_lib.evidence.replay import compare, seal_by_hand
from runbook_lib.evidence.verify import verify
from runbook_lib.outcomes import CheckResult, Outcome

from .conftest import (
    ALICES,
    BASELINE,
    CI,
    DEPLOY,
    DRIFT,
    FAIL,
    INCONCLUSIVE,
    PASS,
    PROVISION,
    SMALL,
    SUITES,
    states,
    text,
)
from .events import event
from .messages import saying


@pytest.fixture
def replayed(practice: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An attempt replayed by its own checks, walked as told; the replaying stage."""

    def replay(folder: Path, *first: str, **walk: Any) -> Any:
        monkeypatch.setenv("RUNBOOK_REPLAY", str(folder))
        stage = practice.open()
        for item in first:
            practice.item(stage, item)
        practice.walk(stage, **walk)
        monkeypatch.delenv("RUNBOOK_REPLAY")
        return stage

    return replay


def same(practice: Any, stage: Any) -> dict[str, Outcome]:
    rows = compare(practice.events(), stage._session.log.events())
    return {row.subject: row.outcome for row in rows}


def test_a_replay_asks_nobody_and_finds_the_same(practice: Any, replayed: Any) -> None:
    """The world may be gone; no change is made; the card says that it is a replay."""
    practice.walk(practice.open())
    practice.world.unlink()
    stage = replayed(practice.folder())

    assert same(practice, stage) == dict.fromkeys(SMALL, PASS)
    assert practice.made == [PROVISION, DEPLOY]
    assert "✓ PASS" in text(stage.enforce())
    assert stage.verdict().source == "replay"
    assert "REPLAY OF A RECORDING" in stage._repr_mimebundle_()[0]["text/plain"]
    assert "NOTHING WILL BE CHANGED" not in text(practice.item(stage, DRIFT))  # no recovery's


def test_a_later_attempt_reads_the_store_in_its_replay_as_it_did(practice: Any) -> None:
    """It is one of several there, and its own log is told from theirs by its number."""

    @judges(DRIFT)
    def check(context: Context) -> CheckResult:
        context.ledger.known(context.cluster_name)
        return context.conclude([practice.row(PASS)], passed="it holds", empty="none")

    practice.open().check(check)
    live = practice.open()
    live.check(check)
    practice.patch.setenv("RUNBOOK_REPLAY", str(practice.folder(2)))
    stage = practice.open()
    stage.check(check)

    assert stage.verdict().attempt == 2
    assert stage.verdict().items[0].result == live.verdict().items[0].result


def test_a_replay_follows_tries_sessions_and_waivers(practice: Any, replayed: Any) -> None:
    """The last run of each item, with the parameters and waivers of its session."""
    practice.walk(practice.open(), ci_green=FAIL)
    practice.walk(practice.open(attempt=1, waivers=[practice.approved_waiver()]))
    practice.world.unlink()
    stage = replayed(practice.folder(), ci_green=FAIL)
    stage.enforce()

    assert same(practice, stage) == dict.fromkeys(SMALL, PASS)
    assert stage.verdict().items[1].waived


def test_a_replay_shows_the_tries_that_came_before(practice: Any, replayed: Any) -> None:
    """Cells run again by hand, in the replay too, count once each."""
    stage = practice.open()
    practice.item(stage, DRIFT, INCONCLUSIVE)
    practice.walk(stage)
    replay = replayed(practice.folder(), DRIFT)

    assert [t.number for t in replay.verdict().items[0].earlier] == [1]
    assert same(practice, replay) == dict.fromkeys(SMALL, PASS)


@pytest.mark.parametrize("outcome", [PASS, FAIL])
def test_a_replay_follows_what_was_refreshed(
    practice: Any, replayed: Any, outcome: Outcome
) -> None:
    """The last run counts; the attempt verifies, too."""
    stage = practice.until(DEPLOY)
    practice.wind(2 * 3600)
    stage._session.checks[DRIFT] = practice.check(DRIFT, outcome)
    stage.refresh()
    cards = [practice.item(stage, item) for item in (DEPLOY, SUITES, BASELINE)]
    with suppress(StageRefused):
        stage.enforce()
    practice.write_notebook([*cards, *cards, *cards])
    seal_by_hand(practice.folder())
    practice.world.unlink()
    replay = replayed(practice.folder(), config_drift=outcome)

    assert same(practice, replay) == dict.fromkeys(SMALL, PASS)
    assert replay.verdict().items[0].earlier[0].outcome is PASS
    assert {row.outcome for row in verify(practice.folder(), ALICES)[0]} == {PASS}


def test_a_recording_that_ends_early_reaches_nothing_more(practice: Any, replayed: Any) -> None:
    """An item without a recorded run is not reached, whatever stands before it."""
    stage = practice.open()
    for item in (DRIFT, CI):
        practice.item(stage, item)
    replay = replayed(practice.folder())

    assert [states(replay)[item] for item in SMALL] == ["judged"] * 2 + ["not-reached"] * 5
    assert replay.verdict().items[2].reason == "not reached: the recording ends before it"


@pytest.mark.parametrize("kind", ["none", "adopted"])
def test_what_is_no_recording_cannot_be_replayed(practice: Any, kind: str, tmp_path: Path) -> None:
    if kind == "adopted":
        Log(tmp_path / "log.jsonl").append(event("adopting"))
    practice.patch.setenv("RUNBOOK_REPLAY", str(tmp_path))
    with pytest.raises(StoreError, match="expected an opening event, got none"):
        practice.open()


def test_without_a_recording_there_is_nothing_to_replay(practice: Any, tmp_path: Path) -> None:
    practice.patch.setattr("runbook_lib.recording.RECORDINGS", tmp_path)
    said = "development: expected a shipped recording, got none; run `make recording`"
    with saying(StoreError, said):
        practice.open(site="")


@pytest.mark.parametrize("broken", ["no archive", "cut", "other bytes"])
def test_a_damaged_archive_is_refused(practice: Any, broken: str, tmp_path: Path) -> None:
    """Whatever an archive holds: a sentence, never a traceback of its reader."""
    archive = tmp_path / "development.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as made:
        made.writestr("log.jsonl", b"x" * 4000)
    whole = archive.read_bytes()
    hurt = {
        "no archive": b"PK",
        "cut": whole[:40],
        "other bytes": whole[:50] + bytes(9) + whole[59:],
    }
    archive.write_bytes(hurt[broken])
    practice.patch.setattr("runbook_lib.recording.RECORDINGS", tmp_path)

    with pytest.raises(StoreError, match=r"expected an? (whole )?archive, got: "):
        practice.open(site="")


@pytest.mark.parametrize("lost", ["session", "site file"])
def test_a_damaged_recording_is_not_replayed(practice: Any, lost: str, tmp_path: Path) -> None:
    """Without a session or its site file nobody knows what was recorded."""
    practice.open()
    kept = practice.events("opened") if lost == "session" else practice.events()
    log = Log(tmp_path / "log.jsonl")
    for each in kept:
        log.append(each)
    practice.patch.setenv("RUNBOOK_REPLAY", str(tmp_path))
    with pytest.raises(StoreError, match=f"expected (a session|the {lost}).*, got none"):
        practice.open()
