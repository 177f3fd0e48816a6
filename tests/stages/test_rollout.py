"""A plan, its approval and its apply on the testnet cluster: what moves it and what refuses it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runbook_lib import playbook
from runbook_lib.changes import roll
from runbook_lib.changes.adopt import adopt
from runbook_lib.checks import preflight, testnet
from runbook_lib.context import Context
from runbook_lib.errors import ParameterError
from runbook_lib.evidence import publish as publishing
from runbook_lib.evidence.publish import publish
from runbook_lib.next_steps import next_steps
from runbook_lib.outcomes import Outcome, Row, check_row
from runbook_lib.stage import Stage
from runbook_lib.strict import parse_yaml
from runbook_lib.verdicts import ExitCode, ItemStatus, Verdict
from runbook_rehearsal.chain.world import OPERATORS
from runbook_rehearsal.layout import ISSUE
from runbook_rehearsal.network import RehearsalNetwork

from ..conftest import named, signed_file
from .conftest import (
    clear,
    ended,
    enter,
    entries,
    given,
    held,
    in_the_way_of_kits,
    mutations,
    opened,
    plan_digest,
)
from .recovering import steps

GATES, DEPLOY, GATE = "testnet.ready.gates", "testnet.activate.deploy", "testnet.activate.gate"
DECLARED = (GATES, DEPLOY, GATE)
DRIFT = preflight.config_drift.item
ALICE, BOB = "alice", "bob"
NO_PLAN = "sha256:" + "0" * 64
NORTH, HARBOR, _ = OPERATORS


@dataclass
class Team:
    """Two people, their keys, and the parameters they promote with."""

    network: RehearsalNetwork
    patch: pytest.MonkeyPatch
    key: Ed25519PrivateKey

    @property
    def params(self) -> dict[str, Any]:
        return given(self.network, "testnet", release=self.release, baseline_hours=1.0)

    release = "v1.4.0"

    @contextmanager
    def opened(self, who: str = ALICE, **changes: Any) -> Iterator[Stage]:
        self.patch.setenv("RUNBOOK_OPERATOR", who)
        with opened("testnet", {**self.params, **changes}) as stage:
            yield stage

    def walk(self, who: str = ALICE, **changes: Any) -> tuple[Verdict, Path]:
        """Every cell of the stage; its verdict and folder."""
        with self.opened(who, **changes) as stage:
            if DRIFT in playbook.DECLARED["testnet"]:
                stage.check(preflight.config_drift)
            stage.check(testnet.gates)
            stage.plan(testnet.plan)
            stage.change(testnet.deploy)
            stage.change(testnet.gate)
            return ended(stage)

    def carry(self, **given: Any) -> tuple[Verdict, Path]:
        """The apply until it waits for nobody and nothing: operators act, and time passes."""
        given["mode"], seen = "apply", ""
        verdict, folder = self.walk(**given)
        while verdict.exit_code is ExitCode.WAITING:
            assert verdict.return_at is not None and verdict.number < 20
            self.network.operators.settle()
            if seen == verdict.blocking[0].reason:  # nobody can do anything about it
                left = verdict.return_at.timestamp() - self.network.world.clock.now()
                self.network.fast_forward(max(left, 0.0) + 1.0)
            seen = verdict.blocking[0].reason
            verdict, folder = self.walk(**given | {"attempt": verdict.attempt})
        return verdict, folder

    def planned(self, **changes: Any) -> tuple[str, dict[str, Any]]:
        """A plan by Alice: its digest, and the window it is for."""
        params = self.params
        window = {key: params[key] for key in ("window_start", "window_end")} | changes
        verdict, folder = self.walk(mode="plan", **window)
        assert verdict.exit_code is ExitCode.PASSED
        digest, given = plan_digest(folder), folder / "params.yaml"
        command = f"runbook run testnet -f {given} -p mode apply -p approved_plan {digest}"
        assert next_steps(verdict, folder) == [f"Have the plan approved, then: `{command}`"]
        return digest, window

    def approved(self, **changes: Any) -> dict[str, Any]:
        """What an apply of a plan that Bob approved is opened with."""
        digest, window = self.planned(**changes)
        return {"approved_plan": digest, "approvals": [self.approve(digest)], **window}

    def approve(self, digest: str, **more: Any) -> str:
        """A file of Bob's word."""
        said = {"kind": "approve", "account": BOB, "plan": digest, **more}
        path = self.network.root / f"{'-'.join(('approval', *more))}-{digest[-8:]}.json"
        path.write_text(signed_file(self.key, **said, at="2026-01-01T00:00:00Z"))
        return str(path)

    def dropped(self, node: str, **given: Any) -> dict[str, str]:
        """A node left out of an attempt, on another's word."""
        drop = {"node": node, "reason": "its disk died, a spare is ordered", "approval": ""}
        with pytest.raises(
            ParameterError, match=r"drops.0: expected an approval of sha256:"
        ) as refused:
            self.walk(mode="apply", drops=[drop], **given)
        wanted = str(refused.value).partition("approval of ")[2].split()[0]
        return {**drop, "approval": self.approve(wanted)}


# History of development and mainnet does not matter.
network = held(RehearsalNetwork, sizes={"development": 1, "mainnet": 1}, history_s=2 * 3600.0)


@pytest.fixture
def team(network: RehearsalNetwork, monkeypatch: pytest.MonkeyPatch) -> Iterator[Team]:
    enter(network, monkeypatch)
    monkeypatch.setitem(playbook.DECLARED, "testnet", DECLARED)
    monkeypatch.setitem(playbook.PLAN_BEFORE, "testnet", DEPLOY)
    # What is observed afterwards needs telemetry, which this network has not.
    monkeypatch.setattr(testnet.gate, "observe", None)
    network.reinstall("testnet")
    key = Ed25519PrivateKey.generate()
    site = yaml.safe_load(network.site.read_text())
    before = network.site.read_text()
    site["single_operator"] = False
    site["people"] = [
        {"name": "Alice", "account": ALICE, "roles": ["release-engineer"]},
        {"name": "Bob", "account": BOB, "key": named(key), "roles": ["release-commander"]},
    ]
    site["commands"]["probe"]["timeout_s"] = 5.0
    network.site.write_text(yaml.safe_dump(site))
    store = network.root / "store"
    store.chmod(0o2775)
    made = Team(network, monkeypatch, key)
    made.release = f"v1.4.0-{len(list((network.root / 'artifacts').iterdir()))}"
    (network.root / "artifacts" / made.release).symlink_to(network.root / "artifacts" / "v1.4.0")
    monkeypatch.setenv("RUNBOOK_OPERATOR", ALICE)
    _adopt(network, site)
    yield made
    clear(network)
    network.site.write_text(before)


def _adopt(network: RehearsalNetwork, site: dict[str, Any]) -> None:
    text = network.site.read_text()
    network.site.write_text(yaml.safe_dump({**site, "single_operator": True}))
    adopt(str(network.site), "testnet", artifacts=[network.release.previous_artifact])
    network.site.write_text(text)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("", "approval: seat 1 of 1: "),
        (NO_PLAN, f"approved_plan: a plan run in the store: expected {NO_PLAN}, got none"),
    ],
)
def test_what_was_not_approved_by_another_is_refused(team: Team, wanted: str, reason: str) -> None:
    digest, window = team.planned()

    verdict, folder = team.walk(mode="apply", approved_plan=wanted or digest, **window)

    blocked = next(item for item in verdict.items if item.item == DEPLOY)
    assert blocked.reason.startswith(f"not reached: blocked by the plan refused: {reason}")
    assert mutations(folder) == []


def test_a_plan_is_refused_when_a_node_moved(team: Team) -> None:
    told = team.approved()
    team.network.fault("config-edited@testnet/test-3")
    _adopt(team.network, yaml.safe_load(team.network.site.read_text()))

    verdict, folder = team.walk(mode="apply", **told)

    blocked = next(item for item in verdict.items if item.item == DEPLOY)
    assert "test-3: config before (planned, now): expected sha256:" in blocked.reason
    assert mutations(folder) == []


def test_a_kit_that_cannot_be_written_blocks_and_leaves_out_what_was_dropped(team: Team) -> None:
    told = team.approved()
    with in_the_way_of_kits(team.network):
        verdict, folder = team.carry(**told)
    result = next(item.result for item in verdict.items if item.item == DEPLOY)
    assert result is not None and result.outcome is Outcome.INCONCLUSIVE
    assert result.reason.startswith("recovery kit: kept outside the store: expected written, got ")
    assert mutations(folder) == []
    again = {**told, "attempt": verdict.attempt}

    verdict, folder = team.carry(drops=[team.dropped("test-3", **again)], **again)
    kit = team.network.root / "kits" / f"{verdict.release}-testnet-{folder.name}"

    assert verdict.exit_code is ExitCode.PASSED, [i.reason for i in verdict.blocking]
    names = {path.stem for path in (kit / "targets").iterdir()}
    assert names and "test-3" not in names


def test_before_its_window_a_change_waits(team: Team) -> None:
    """Exit 4, and when to return; after it the plan has expired."""
    start = datetime.fromtimestamp(team.network.world.clock.now(), UTC) + timedelta(hours=2)
    ends = {"window_start": start, "window_end": start + timedelta(hours=4)}
    told = team.approved(**{name: at.isoformat() for name, at in ends.items()})

    verdict, folder = team.walk(mode="apply", **told)

    assert (verdict.exit_code, verdict.return_at) == (ExitCode.WAITING, start)
    assert mutations(folder) == []


def test_a_wave_that_was_not_healthy_is_judged_again_before_the_next(team: Team) -> None:
    """Its steps are done, and that is no proof that the chain bears them: nothing follows until it is."""
    told = team.approved()
    asked: list[list[str]] = []

    def ill(context: Context, nodes: Sequence[str]) -> list[Row]:
        asked.append(list(nodes))
        return [check_row(nodes[0], "blocks behind", "at most 2", 99, ok=False)]

    team.patch.setattr(roll, "healthy", ill)
    verdict, folder = team.carry(**told)
    made = len(mutations(folder))
    again = {"attempt": verdict.attempt, "retry_reason": "looked at it"}
    verdict, _ = team.walk(mode="apply", **told, **again)

    items = {item.item: item for item in verdict.items}
    assert items[DEPLOY].reason == f"{asked[0][0]}: blocks behind: expected at most 2, got 99"
    assert asked == [asked[0], asked[0]]
    assert len(mutations(folder)) == made


# --- nodes that belong to operators: instructed, read back, and never touched by us --------------


def item(verdict: Verdict, name: str) -> ItemStatus:
    return next(one for one in verdict.items if one.item == name)


def test_a_forged_report_is_waited_past_and_the_next_operator_hears_nothing(team: Team) -> None:
    """It is named; once the operator reports with its own key, the rollout goes on."""
    given = team.approved(issue=ISSUE)
    team.network.fault("report-forged@testnet/test-5")

    verdict, folder = team.walk(mode="apply", **given)
    team.network.operators.settle()
    verdict, _ = team.walk(mode="apply", **given, attempt=verdict.attempt)

    assert verdict.exit_code is ExitCode.WAITING
    assert "forged: expected the signature of this node's" in item(verdict, DEPLOY).reason
    told = [step for step in steps(folder) if step[0] in OPERATORS]
    assert told == [
        (who, f"{how}-build.1") for who in (NORTH, HARBOR) for how in ("instruct", "notify")
    ]
    comments = [one["body"] for one in team.network.forge.comments.values()]
    mine = [body for body in comments if f"attempt={verdict.release}" in body.splitlines()[0]]
    assert all(f"for `{who}`" in body for who, body in zip((NORTH, HARBOR), mine, strict=True))

    team.network.clear("report-forged")
    done, _ = team.carry(**given, attempt=verdict.attempt)
    assert done.exit_code is ExitCode.PASSED, [one.reason for one in done.blocking]
    result = item(done, DEPLOY).result
    assert result is not None
    (row,) = [r for r in result.rows if (r.subject, r.what) == ("test-5", "node report")]
    assert "; passed over: http" in str(row.observed) and ": forged: expected" in str(row.observed)


def test_an_instruction_that_could_not_be_given_is_given_by_publish(team: Team) -> None:
    """Kept in the outbox, and given once: inside the window, unless the apply was undone."""
    away = team.network.root / "instruct-away"
    site = yaml.safe_load(team.network.site.read_text())
    asked = 'echo "$@" >>"$0.asked"; [ ! -e "$0" ] && exec "$@"'
    site["commands"]["instruct"]["argv"][:0] = ["sh", "-c", asked, str(away)]
    team.network.site.write_text(yaml.safe_dump(site))
    given = team.approved()
    digest = given["approved_plan"]
    away.touch()

    verdict, folder = team.walk(mode="apply", **given)
    still = publish(folder)
    away.unlink()
    words = team.network.root / "words" / team.release
    words.mkdir(parents=True)
    (words / "approval.json").write_text(Path(team.approve(digest)).read_text())
    (words / "withdrawn.json").write_text(Path(team.approve(digest, withdraw=True)).read_text())
    (taken,) = publish(folder)
    (words / "withdrawn.json").unlink()
    assert str(taken.observed) == "its approval was withdrawn by bob"
    with team.patch.context() as patch:
        then = datetime.now(UTC) + timedelta(hours=9)
        patch.setattr(publishing, "read_clock", lambda clock: (then, 0))
        late = publish(folder)
    sent = publish(folder)
    asked_for = Path(f"{away}.asked").read_text().count(f" {NORTH} ")
    again = {"attempt": verdict.attempt, "retry_reason": "it works again"}
    done, _ = team.carry(**given, **again)

    (failed,) = item(verdict, DEPLOY).open_rows
    assert (failed.subject, failed.what) == (NORTH, "notify-build.1")
    kept = f"; kept in the outbox: runbook publish {team.release}/testnet/0002"
    assert str(failed.observed).endswith(kept)
    unsent = [Outcome.INCONCLUSIVE] * 2
    assert [row.outcome for row in (*still, *late, *sent)] == [*unsent, Outcome.PASS]
    assert str(late[0].observed).startswith("its window ended ")
    assert done.exit_code is ExitCode.PASSED, [one.reason for one in done.blocking]
    assert not (folder / "outbox").exists()
    calls = Path(f"{away}.asked").read_text().count(f" {NORTH} ")
    assert (asked_for, calls) == (3, 4)  # failed twice, given by publish; then the next phase


def test_an_instruction_says_all_there_is_to_do(team: Team) -> None:
    """Until when, which keys, the whole target without secrets, and how to report."""
    given = team.approved()
    team.network.fault("operator-silent@testnet/test-5")
    _, folder = team.walk(mode="apply", **given)

    text = (folder / "instructions" / f"{NORTH}.build.md").read_text()
    document = json.loads(text.partition("```json\n")[2].partition("\n```")[0])
    digest = given["approved_plan"]
    assert (document["deadline"], document["plan"]) == (given["window_end"], digest)
    assert "| `test-5` | `binary` |" in text
    assert (folder / "targets" / "test-5.build.toml").read_text().rstrip() in text
    assert f"--plan {digest} --phase build" in text


# --- hours later ----------------------------------------------------------------------------------


def test_a_node_dropped_hours_later_lets_the_rollout_finish_without_it(team: Team) -> None:
    """On another's word; the others get the release. What was verified before has aged: the dropped
    node is said to be out, and to the next attempt it is drift.

    The last of this file: the hours in which that node told nothing are no baseline for another test.
    """
    team.patch.setitem(playbook.DECLARED, "testnet", (DRIFT, *DECLARED))
    told = team.approved()
    team.network.fault("node-stays-down@testnet/test-3")
    verdict, folder = team.carry(**told)
    file = folder / "params.yaml"
    command = f"`runbook run testnet --continue -f {file} --drop test-3 --reason 'WHY'`"
    assert command in " ".join(next_steps(verdict, folder))
    assert parse_yaml(file.read_bytes(), file.name) == entries(folder)[0]["params"]
    team.network.fast_forward(3 * 3600)
    again = {**told, "attempt": verdict.attempt, "retry_reason": "test-3 is left out"}

    verdict, folder = team.carry(drops=[team.dropped("test-3", **again)], **again)
    drift = verdict.items[0].result
    next_one, _ = team.walk(mode="plan")

    assert verdict.exit_code is ExitCode.PASSED, [i.reason for i in verdict.blocking]
    running = team.network.fleet.running
    assert "test-3" not in running
    others = [n.name for n in team.network.world.clusters["testnet"].nodes if n.name != "test-3"]
    assert all(running[name].config.gates["malachite_consensus"] for name in others)
    delivered = [e.key for e in mutations(folder) if '"deploy"' in e.key]
    assert len(delivered) == len(set(delivered))
    assert drift is not None
    assert [(row.expected, row.observed) for row in drift.rows if row.subject == "test-3"] == [
        ("dropped from this attempt's plan, with an approval", "not judged here")
    ]
    assert next_one.blocking[0].item == DRIFT
    assert next_one.blocking[0].reason.startswith("test-3: ")
