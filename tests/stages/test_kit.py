"""The kit's script undoes a canary activation with nothing of ours; the record learns of it later."""

from __future__ import annotations

import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import cli, kit_store, kits
from runbook_lib.errors import ParameterError
from runbook_lib.evidence.incidents import add, incidents_of, load, open_incident
from runbook_lib.evidence.store import Store
from runbook_lib.outcomes import Outcome
from runbook_lib.sources.tape import mutations, read_entries
from runbook_rehearsal.network import RehearsalNetwork

from ..changes.test_kit import TOOLS
from .recovering import Recovering, back, fresh, records, recovering, steps, walk

ITEM = "canary.recover.disable-gates"
CANARIES = ("main-1", "main-2")
NUMBERS = count(1)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalNetwork]:
    root = tmp_path_factory.mktemp("kit") / "network"
    with pytest.MonkeyPatch.context() as patch, recovering(root, patch) as made:
        yield made


@dataclass
class Applied:
    """A canary activation that was made, and its kit."""

    carried: Recovering
    folder: Path
    kit: Path

    @property
    def gates(self) -> dict[str, bool]:
        found = self.carried.gates("mainnet")
        return {name: found[name] for name in CANARIES}

    def script(self, *options: str) -> subprocess.CompletedProcess[str]:
        """The kit's script in a shell whose PATH has no Python."""
        tools = self.carried.network.root / "tools"
        if not tools.exists():
            tools.mkdir()
            for name in (*TOOLS, "sha256sum", "timeout"):
                (tools / name).symlink_to(str(shutil.which(name)))
        assert shutil.which("python3", path=str(tools)) is None
        return subprocess.run(
            ["/bin/sh", self.kit / "recover.sh", *options],
            env={"PATH": str(tools)},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def params(self, **given: Any) -> dict[str, Any]:
        return self.carried.params("canary_recovery", mode="apply", **given)

    def bring_in(self, **given: Any) -> kits.Brought:
        return kits.bring_in("canary", self.kit, self.params(**given), "params")


@pytest.fixture
def applied(network: RehearsalNetwork) -> Applied:
    carried = fresh(network, "mainnet", next(NUMBERS))
    verdict, folder = carried.apply("canary")
    assert verdict.exit_code == 0, [item.reason for item in verdict.blocking]
    return Applied(
        carried, folder, network.root / "kits" / f"{carried.release}-canary-{folder.name}"
    )


def test_an_apply_writes_its_kit_before_the_first_change(applied: Applied) -> None:
    """Once, for its owner alone; the record and the tape know digests, and no secret."""
    written = [e for e in records(applied.folder) if e["kind"] == "kit"]
    first = next(e for e in records(applied.folder) if e["kind"] == "step")
    targets = sorted((applied.kit / "targets").iterdir())

    assert len(written) == 1 and written[0]["seq"] < first["seq"]
    assert written[0]["body"]["folder"] == f"{{kits}}/{applied.kit.name}"
    files = {str(p.relative_to(applied.kit)) for p in applied.kit.rglob("*") if p.is_file()}
    assert set(written[0]["body"]["files"]) == files
    assert [path.name for path in targets] == [f"{name}.toml" for name in CANARIES]
    assert {stat.S_IMODE(path.stat().st_mode) for path in targets} == {0o600}
    assert stat.S_IMODE(applied.kit.stat().st_mode) == 0o700


def test_a_kit_that_cannot_be_written_blocks_the_change(network: RehearsalNetwork) -> None:
    """INCONCLUSIVE, and not one changing call."""
    carried = fresh(network, "mainnet", next(NUMBERS))
    place = network.root / "kits"
    aside = place.with_name("kits.aside")
    if place.exists():
        place.rename(aside)
    place.write_text("no folder")
    try:
        verdict, folder = carried.apply("canary")
    finally:
        place.unlink()
        if aside.exists():
            aside.rename(place)

    result = verdict.items[0].result
    assert result is not None and result.outcome is Outcome.INCONCLUSIVE
    assert result.reason.startswith("recovery kit: kept outside the store: expected written, got ")
    assert not mutations(read_entries(folder / "tape"))


def test_the_script_alone_undoes_a_canary_and_the_record_learns_of_it(applied: Applied) -> None:
    """No Python on its PATH; a second run changes nothing; imported, the recovery only reads back."""
    assert applied.gates == dict.fromkeys(CANARIES, True)
    found = applied.script()
    assert (found.returncode, found.stderr) == (0, ""), found.stdout
    assert applied.gates == dict.fromkeys(CANARIES, False)
    journal = (applied.kit / "journal.tsv").read_bytes()
    again = applied.script()
    assert (again.returncode, (applied.kit / "journal.tsv").read_bytes()) == (0, journal)

    brought = applied.bring_in()
    verdict, folder = applied.carried.recover("canary", attempt=brought.attempt.number)
    twice = applied.bring_in()

    assert (brought.added, brought.refused) == (8, ())
    assert (twice.added, twice.attempt.name) == (0, brought.attempt.name)
    assert back(verdict).outcome is Outcome.PASS, back(verdict).reason
    assert steps(folder) == [(n, f"{s}-back") for n in CANARIES for s in ("deliver", "restart")]
    assert not mutations(read_entries(folder / "tape"))
    states = [e["body"]["node"] for e in records(folder) if e["kind"] == "state"]
    assert sorted(states) == list(CANARIES)


def test_a_replay_needs_no_kit_and_writes_none(
    applied: Applied, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither that of the apply, nor that of a recovery whose steps were imported."""
    applied.script()
    _, recovery = applied.carried.recover("canary", attempt=applied.bring_in().attempt.number)
    shutil.rmtree(applied.kit)
    monkeypatch.setenv("RUNBOOK_REPLAY", str(applied.folder))
    with applied.carried.opened("canary") as stage:
        again = walk(stage, "canary")
    monkeypatch.setenv("RUNBOOK_REPLAY", str(recovery))
    undone, _ = applied.carried.recover("canary")

    assert again.exit_code == 0, [item.reason for item in again.blocking]
    assert back(undone).outcome is Outcome.PASS, back(undone).reason
    assert not applied.kit.exists()


def test_after_a_stall_the_script_turns_mainnets_gates_off_everywhere(
    network: RehearsalNetwork,
) -> None:
    """Also on the canaries, which had them on; without ``--stall`` they are back on there. Imported,
    the recovery finds its own targets delivered, and only reads back.
    """
    carried = fresh(network, "mainnet", next(NUMBERS))
    carried.apply("canary")
    was = carried.gates("mainnet")
    verdict, folder = carried.apply("mainnet")
    assert verdict.exit_code == 0, [item.reason for item in verdict.blocking]
    kit = network.root / "kits" / f"{carried.release}-mainnet-{folder.name}"
    applied = Applied(carried, folder, kit)
    back_again, without = applied.script(), carried.gates("mainnet")
    stalled = applied.script("--stall")

    assert set(was.values()) == {True, False}
    assert (back_again.returncode, without) == (0, was), back_again.stdout
    assert (stalled.returncode, stalled.stderr) == (0, ""), stalled.stdout
    assert set(carried.gates("mainnet").values()) == {False}
    params = carried.params("mainnet_recovery", mode="apply")
    brought = kits.bring_in("mainnet", kit, params, "params")
    undone, recovery = carried.recover("mainnet", attempt=brought.attempt.number)

    assert brought.refused == ()
    assert back(undone).outcome is Outcome.PASS, back(undone).reason
    assert not mutations(read_entries(recovery / "tape"))


def test_lines_that_no_script_wrote_are_refused_by_name(applied: Applied) -> None:
    """What is well-formed comes in; a claim that a node is back is read back all the same."""
    text = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = [
        f"{text}\tmain-1\tdeliver-back\tintent\t-",
        f"{text}\tmain-1\tdeliver-back\tdone\t0",
        f"{text}\tmain-9\tdeliver-back\tintent\t-",
        f"{text}\tmain-2\trestart-back\tdone\t0",
        f"{text}\tmain-2\trm -rf\tintent\t-",
        "2019-01-01T00:00:00Z\tmain-2\tdeliver-back\tintent\t-",
        "<script>",
    ]
    (applied.kit / "journal.tsv").write_text("\n".join(lines) + "\n")
    brought = applied.bring_in()
    verdict, folder = applied.carried.recover("canary", attempt=brought.attempt.number)

    assert brought.added == 2
    assert [line.partition(": expected")[0] for line in brought.refused] == [
        f"journal.tsv: line {number}" for number in (3, 4, 5, 6, 7)
    ]
    assert back(verdict).outcome is Outcome.PASS
    assert ("main-1", "deliver-back-2") in steps(folder)
    assert applied.gates == dict.fromkeys(CANARIES, False)


def test_a_kit_that_was_altered_or_is_of_another_attempt_is_not_imported(applied: Applied) -> None:
    """Its plan and script must be those that the record names."""
    script = applied.kit / "recover.sh"
    script.write_text(script.read_text() + "# more\n")
    with pytest.raises(ParameterError, match=r"recover\.sh: expected sha256:.*, got sha256:"):
        applied.bring_in()
    with pytest.raises(ParameterError, match="expected the kit of an attempt at testnet"):
        kits.bring_in("testnet", applied.kit, applied.params(), "params")


def test_with_the_store_gone_the_kit_stands_in_for_it(applied: Applied) -> None:
    """The recovery works in the kit's own store; when the store is back it is brought in."""
    network = applied.carried.network
    with pytest.raises(ParameterError, match="expected the store to be gone"):
        kit_store.without_store("canary", applied.kit, applied.params())
    network.fault("store-gone@canary")
    try:
        site = kit_store.without_store("canary", applied.kit, applied.params())
        verdict, folder = applied.carried.recover("canary", site=str(site), break_glass="")
    finally:
        network.clear("store-gone")

    assert back(verdict).outcome is Outcome.PASS, back(verdict).reason
    assert folder.is_relative_to(applied.kit)
    assert applied.gates == dict.fromkeys(CANARIES, False)
    local = [e for e in records(folder) if e["kind"] in ("step", "state")]
    brought = applied.bring_in()
    again, there = applied.carried.recover("canary", attempt=brought.attempt.number)
    assert brought.added == len(local)
    assert back(again).outcome is Outcome.PASS
    assert not mutations(read_entries(there / "tape"))


def test_an_import_that_was_killed_brings_its_incidents_in_later(
    applied: Applied, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was added to them since; another one of that name is named, never replaced."""
    network, release = applied.carried.network, applied.carried.release
    applied.script()
    opened = {"release": release, "stage": "canary", "author": "rehearsal", "attempt": "a",
              "by": "rehearsal", "at": datetime.now(UTC).isoformat(), "break_glass": None}  # fmt: skip
    local, store = Store(applied.kit / kits.STORE), Store(network.root / "store")
    local.root.mkdir()
    incident, _ = open_incident(local, opened, lambda one: False)

    def killed(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(kits, "_incidents", killed)
        applied.bring_in()
    assert incidents_of(store, release) == []

    assert (applied.bring_in().added, applied.bring_in().refused) == (0, ())
    assert [one.entries for one in incidents_of(store, release)] == [incident.entries]

    said = {"by": "rehearsal", "at": opened["at"]}
    more = add(local, incident.id, "acknowledged", said)
    applied.bring_in()
    assert load(store, incident.id).entries == more.entries
    theirs = add(store, incident.id, "mitigated", said)
    assert applied.bring_in().refused == ()
    add(local, incident.id, "mitigated", {**said, "by": "rehearsal-ops"})

    name = f"{incident.id}.jsonl: expected one incident of that name, got two"
    assert applied.bring_in().refused == (name,)
    assert load(store, incident.id).entries == theirs.entries


@pytest.mark.parametrize(
    "options",
    [("--no-store",), ("--kit", "K"), ("--no-store", "--kit", "K", "--import", "K")],
)
def test_a_kit_goes_with_its_option(
    options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """A stand-in for the store and an import are two things."""
    assert cli.main(["recover", "canary", *options]) == 3
    assert capsys.readouterr().err == (
        "recover: expected --no-store with --kit KIT, or --import KIT alone\n"
    )
