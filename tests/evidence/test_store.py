"""The store numbers attempts without a gap, misses what was removed, and lends one lock a cluster."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runbook_lib.errors import LockHeld, LogDamaged, StoreError
from runbook_lib.evidence.events import Opened
from runbook_lib.evidence.log import Log
from runbook_lib.evidence.store import Store

from ..events import event

RELEASE, STAGE = "v1.4.0", "development"
CREATE = """
import sys
from pathlib import Path
from runbook_lib.evidence.events import Opened
from runbook_lib.evidence.store import Store
opened = Opened.model_validate_json(sys.argv[2])
for _ in range(8):
    Store(Path(sys.argv[1])).create(opened)
"""


def opened(stage: str = STAGE) -> Opened:
    return event("opened", release=RELEASE, stage=stage)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_damaged_attestation_stops_no_recovery(store: Store) -> None:
    """It opens whatever is broken, and holds what the log says."""
    attempt = store.create(opened())
    (attempt.folder / "attestations").mkdir()
    (attempt.folder / "attestations" / "0001.alice.json").write_text("{")
    recovery = "development_recovery"
    after = store.create(opened(recovery), whatever=True)

    assert after.log.events()[0].heads == {attempt.name: attempt.log.head}


def test_attempts_are_numbered_from_one(store: Store) -> None:
    """Each is a directory of its own whose log opens with its number."""
    made = [store.create(opened()) for _ in range(3)]

    assert [attempt.name for attempt in made] == [f"v1.4.0/development/000{n}" for n in (1, 2, 3)]
    assert [attempt.opened.attempt for attempt in made] == [1, 2, 3]
    assert [attempt.number for attempt in store.attempts(RELEASE)] == [1, 2, 3]
    assert list(store.everything()) == [attempt.name for attempt in made]


def test_an_attempt_opens_on_the_heads_of_all_earlier_ones(store: Store) -> None:
    """Of every stage of the release, so that a removed one is missed."""
    first = store.create(opened())
    first.log.append(event("note", text=""))
    second = store.create(opened("testnet"))

    assert second.opened.heads == {first.name: first.log.head}


def test_an_unknown_attempt_is_named_beside_the_known_ones(store: Store) -> None:
    with pytest.raises(StoreError) as none:
        store.attempt(RELEASE, STAGE, 1)
    store.create(opened())
    with pytest.raises(StoreError) as another:
        store.attempt(RELEASE, STAGE, 2)

    assert str(none.value) == "v1.4.0/development: attempt: expected one of none yet, got 1"
    assert str(another.value) == "v1.4.0/development: attempt: expected one of [1], got 2"


def lost(store: Store) -> None:
    """In the middle: by the gap."""
    for _ in range(3):
        store.create(opened())
    store.attempt(RELEASE, STAGE, 2).folder.rename(store.root / "gone")


def lost_last(store: Store) -> None:
    """A gap is not needed: later attempts of other stages hold its head."""
    first = store.create(opened())
    store.create(opened("testnet"))
    first.folder.rename(store.root / "gone")


def replaced(store: Store) -> None:
    """Another history, however well it is chained, does not hold the head that was seen."""
    path = store.create(opened()).folder / "log.jsonl"
    assert store.create(opened()).number == 2
    path.unlink()
    Log(path).append(event("opened", attempt=1, operator="forger"))


def unopened(store: Store) -> None:
    (store.root / RELEASE / STAGE / "0001").mkdir(parents=True)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lost, "v1.4.0/development: expected attempts 1 to 2 without a gap, got [1, 3]; an attempt"
         " was removed from the store: restore it"),
        (lost_last, "v1.4.0/testnet/0001: expected the earlier attempt v1.4.0/development/0001 in"
         " the store, got none; it was removed: restore it"),
        (replaced, "v1.4.0/development/0001: expected its log to hold {head}, got another"
         " history; the log was replaced: restore it"),
        (unopened, "v1.4.0/development/0001: log: expected an opening event, got none"),
    ],
)  # fmt: skip
def test_a_store_that_lost_something_opens_nothing(
    store: Store, harm: Callable[[Store], None], said: str
) -> None:
    """Attempts of every stage and their heads are looked at before another is made."""
    harm(store)
    with pytest.raises((StoreError, LogDamaged)) as caught:
        store.attempts(RELEASE)
    with pytest.raises((StoreError, LogDamaged)):
        store.create(opened())

    assert re.fullmatch(
        re.escape(said).replace(r"\{head\}", "sha256:[0-9a-f]{64}"), str(caught.value)
    )


def test_two_processes_create_different_attempts(store: Store) -> None:
    """Sixteen attempts of two processes have sixteen numbers, each opened on all before it."""
    argv = [sys.executable, "-c", CREATE, str(store.root), opened().model_dump_json()]
    both = [subprocess.Popen(argv) for _ in range(2)]
    assert [one.wait() for one in both] == [0, 0]
    attempts = store.attempts(RELEASE)

    assert [attempt.number for attempt in attempts] == list(range(1, 17))
    assert [len(attempt.opened.heads) for attempt in attempts] == list(range(16))
    assert [p.name for p in (store.root / RELEASE / STAGE).glob(".*")] == []


def test_a_held_lock_names_owner_and_age(store: Store) -> None:
    with (
        store.cluster_lock("development", "alice (v1.4.0/development/0001)") as descriptor,
        pytest.raises(LockHeld) as caught,
        store.cluster_lock("development", "bob"),
    ):
        raise AssertionError(descriptor)

    text = str(caught.value)
    assert text.startswith(
        "development: lock: expected it free, got held by alice (v1.4.0/development/0001) since "
    )
    assert text.endswith(
        " UTC; a run or one of its commands is still at work: wait for it, or recover"
    )


def test_a_lock_without_a_note_is_still_held(store: Store) -> None:
    """Who holds it may be unknown; that it is held is not."""
    with store.cluster_lock("development", "alice"):
        (store.root / ".locks" / "development.lock").write_text("")
        with (
            pytest.raises(LockHeld, match="got held by somebody unknown;"),
            store.cluster_lock("development", "bob"),
        ):
            pass


def test_clusters_are_locked_apart_and_released(store: Store) -> None:
    """Another cluster's lock is free, and so is this one after its run."""
    with store.cluster_lock("development", "alice"), store.cluster_lock("testnet", "alice"):
        pass
    with store.cluster_lock("development", "bob"):
        pass


def test_other_operators_of_the_group_can_take_a_lock(store: Store) -> None:
    """Its file is the group's to write, whatever the umask."""
    umask = os.umask(0o077)
    with store.cluster_lock("development", "alice"):
        os.umask(umask)
        assert (store.root / ".locks" / "development.lock").stat().st_mode & 0o777 == 0o660


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file in the way of the store is an error of the store, not a traceback."""
    (tmp_path / "store").write_text("")

    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "store").create(opened())

    assert str(caught.value) == (
        f"{tmp_path / 'store'}: expected a folder to write to, got: Not a directory"
    )


def test_a_baseline_is_pinned_once_under_its_digest(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "baseline.parquet"
    source.write_bytes(b"frames")
    pinned = store.pin("development", "sha256:abc", source)
    source.write_bytes(b"others")

    assert store.pin("development", "sha256:abc", source) == pinned
    assert pinned == store.root / ".baselines" / "development" / "abc.parquet"
    assert pinned.read_bytes() == b"frames"
    assert [path.name for path in pinned.parent.iterdir()] == ["abc.parquet"]
