"""The kit's script undoes a canary activation with nothing of ours; the recovery then reads back."""

import shutil
import stat
import subprocess
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from runbook_lib.canonical import digest_bytes
from runbook_lib.commands.running import attach_journal
from runbook_lib.errors import LogDamaged
from runbook_lib.outcomes import Outcome
from runbook_rehearsal.network import RehearsalNetwork

from ..changes.test_kit import TOOLS
from ..conftest import path_of, ran
from .conftest import entries, mutations
from .recovering import Recovering, back, fresh, network, walk

__all__ = ["network"]

CANARIES = ("main-1", "main-2")
NUMBERS = count(1)
OF_COMMANDS = ("mkfifo",)
"""What the practice network's commands need beside what the kit's script does."""


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
        path = path_of(tools, *TOOLS, "sha256sum", "timeout", *OF_COMMANDS)
        assert shutil.which("python3", path=path) is None
        return ran("/bin/sh", self.kit / "recover.sh", *options, env={"PATH": path}, cwd="/")

    def attach(self) -> int:
        """The attempt that the kit's journal was attached to."""
        params = self.carried.params("canary_recovery", mode="apply")
        return attach_journal(self.kit, "canary_recovery", params, "params")


@pytest.fixture
def applied(network: RehearsalNetwork) -> Applied:
    carried = fresh(network, "mainnet", next(NUMBERS))
    verdict, folder = carried.apply("canary")
    assert verdict.exit_code == 0, [item.reason for item in verdict.blocking]
    return Applied(
        carried, folder, network.root / "kits" / f"{carried.release}-canary-{folder.name}"
    )


def test_an_apply_writes_its_kit_before_the_first_change(applied: Applied) -> None:
    """Once, for the operators' group to read; the log and the tape know digests, and no secret."""
    written = [e for e in entries(applied.folder) if e["kind"] == "kit"]
    first = next(e for e in entries(applied.folder) if e["kind"] == "step")
    targets = sorted((applied.kit / "targets").iterdir())

    assert len(written) == 1 and written[0]["seq"] < first["seq"]
    assert written[0]["folder"] == f"{{kits}}/{applied.kit.name}"
    files = {str(p.relative_to(applied.kit)) for p in applied.kit.rglob("*") if p.is_file()}
    assert set(written[0]["files"]) == files
    assert [path.name for path in targets] == [f"{name}.toml" for name in CANARIES]
    assert {stat.S_IMODE(path.stat().st_mode) for path in targets} == {0o640}
    assert stat.S_IMODE(applied.kit.stat().st_mode) == 0o2750


def test_the_script_alone_undoes_a_canary_and_the_recovery_reads_back(applied: Applied) -> None:
    """No Python on its PATH; a second run changes nothing; its journal is kept, and not believed."""
    assert applied.gates == dict.fromkeys(CANARIES, True)
    found = applied.script()
    assert (found.returncode, found.stderr) == (0, ""), found.stdout
    assert applied.gates == dict.fromkeys(CANARIES, False)
    journal = (applied.kit / "journal.tsv").read_bytes()
    assert (applied.script().returncode, (applied.kit / "journal.tsv").read_bytes()) == (0, journal)

    verdict, folder = applied.carried.recover("canary", attempt=applied.attach())

    assert back(verdict).outcome is Outcome.PASS, back(verdict).reason
    (kept,) = (folder / "kit").iterdir()
    (attached,) = [e for e in entries(folder) if e["kind"] == "attached"]
    assert kept.read_bytes() == journal
    assert (attached["kit"], attached["file"]) == (applied.kit.name, f"kit/{kept.name}")
    assert attached["digest"] == digest_bytes(journal)
    assert not mutations(folder)
    states = [e["node"] for e in entries(folder) if e["kind"] == "state"]
    assert sorted(states) == list(CANARIES)


def test_a_journal_that_lies_is_kept_and_each_node_is_taken_back(applied: Applied) -> None:
    at = "2026-01-31T12:00:00Z"
    (applied.kit / "journal.tsv").write_text(f"{at}\tmain-1\trestart\tdone\t0\n<script>\xff")
    verdict, _ = applied.carried.recover("canary", attempt=applied.attach())

    assert back(verdict).outcome is Outcome.PASS, back(verdict).reason
    assert applied.gates == dict.fromkeys(CANARIES, False)


@pytest.mark.parametrize(
    ("size", "said"), [(None, "No such file"), (1_000_001, "expected at most")]
)
def test_a_kit_without_a_journal_opens_no_attempt(
    tmp_path: Path, size: int | None, said: str
) -> None:
    """Neither one that was not used, nor one that would fill the store."""
    if size is not None:
        (tmp_path / "journal.tsv").write_bytes(b"x" * size)
    with pytest.raises((OSError, LogDamaged), match=said):
        attach_journal(tmp_path, "canary_recovery", {}, "params")


def test_a_replay_needs_no_kit_and_writes_none(
    applied: Applied, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither that of the apply, nor that of a recovery that came after a kit."""
    applied.script()
    _, recovery = applied.carried.recover("canary", attempt=applied.attach())
    shutil.rmtree(applied.kit)
    monkeypatch.setenv("RUNBOOK_REPLAY", str(applied.folder))
    with applied.carried.opened("canary") as stage:
        again = walk(stage, "canary")
    monkeypatch.setenv("RUNBOOK_REPLAY", str(recovery))
    undone, _ = applied.carried.recover("canary")

    assert again.exit_code == 0, [item.reason for item in again.blocking]
    assert back(undone).outcome is Outcome.PASS, back(undone).reason
    assert not applied.kit.exists()


def test_after_mainnet_the_script_turns_its_gates_off_everywhere(network: RehearsalNetwork) -> None:
    """Also on the canaries, which had them on. The recovery finds its own targets delivered, and only
    reads back.
    """
    carried = fresh(network, "mainnet", next(NUMBERS))
    carried.apply("canary")
    verdict, folder = carried.apply("mainnet")
    assert verdict.exit_code == 0, [item.reason for item in verdict.blocking]
    kit = network.root / "kits" / f"{carried.release}-mainnet-{folder.name}"
    found = Applied(carried, folder, kit).script()

    assert (found.returncode, found.stderr) == (0, ""), found.stdout
    assert set(carried.gates("mainnet").values()) == {False}
    undone, recovery = carried.recover("mainnet")

    assert back(undone).outcome is Outcome.PASS, back(undone).reason
    assert not mutations(recovery)
