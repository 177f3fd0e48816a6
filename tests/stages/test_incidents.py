"""What a recovery tells: filed and read back, kept in the outbox when it cannot be, decided on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nbformat
import pytest

from runbook_lib import cli, playbook
from runbook_lib.changes.apply import Applier, Change
from runbook_lib.changes.halt import announce_halt, plan_halt
from runbook_lib.checks import incidents as telling
from runbook_lib.context import Context
from runbook_lib.errors import StageRefused
from runbook_lib.evidence.blocking import blocking
from runbook_lib.evidence.by_hand import seal_by_hand
from runbook_lib.evidence.comment import sections
from runbook_lib.evidence.incident_file import Incident
from runbook_lib.evidence.incidents import incidents_of, path_of
from runbook_lib.evidence.publish import at_sealing, publish
from runbook_lib.evidence.store import Store
from runbook_lib.notebook import NOTEBOOKS
from runbook_lib.outcomes import CheckResult, Outcome, Row
from runbook_lib.params import RecoveryParams
from runbook_lib.rehearsal.faults.table import FAULTS, Fault
from runbook_lib.rehearsal.network import RehearsalNetwork
from runbook_lib.site import read_site
from runbook_lib.sources.tape import mutations, read_entries
from runbook_lib.stage import Stage, open_stage
from runbook_lib.verdicts import ExitCode, Verdict

from .servers import SERVERS

TEXTS = {
    "summary": "Rewards stopped on both canaries.",
    "impact": "No validator lost stake.",
    "mitigations": ["the gates are off again"],
    "next_steps": ["mend the replay worker"],
}
CLUSTERS = {
    "development": "development",
    "testnet": "testnet",
    "canary": "mainnet",
    "mainnet": "mainnet",
}


def _halt(context: Context, applier: Applier) -> CheckResult:
    return context.conclude(announce_halt(context, applier), passed="announced", empty="nothing")


HALT = Change("testnet.recover.halt", plan_halt, _halt, exclusive=False)
CHANGES = (
    telling.incident,
    HALT,
    telling.governance_incident,
    telling.public_report,
    telling.council,
)
FILED = [change for change in CHANGES if change is not HALT]
# That a node keeps its build is seen on the way back, in test_recovery.py, and not by the telling.
MINE = [
    fault
    for fault in FAULTS.values()
    if fault.item in {change.item for change in CHANGES} and fault.name != "build-sticks"
]
RELEASES = iter(f"v1.4.0-{number}" for number in range(1, 1000))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalNetwork]:
    sizes = {"development": 2, "testnet": 2, "mainnet": 2}
    root = tmp_path_factory.mktemp("incidents") / "network"
    with RehearsalNetwork(root, servers=SERVERS, sizes=sizes) as network:
        yield network


@pytest.fixture
def network(made: RehearsalNetwork, monkeypatch: pytest.MonkeyPatch) -> Iterator[RehearsalNetwork]:
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    for change in CHANGES:
        runbook = f"{change.item.partition('.')[0]}_recovery"
        monkeypatch.setitem(playbook.DECLARED, runbook, (change.item,))
    made.forge.comments.clear()
    made.forge._writes.clear()
    (made.root / "announced.json").unlink(missing_ok=True)
    (made.root / "notifications.json").unlink(missing_ok=True)
    yield made
    for fault in list(made.faults):
        made.clear(fault.name)


@dataclass
class Recovery:
    """The recovery of an apply that was stopped, tried as often as wanted."""

    network: RehearsalNetwork
    change: Change
    release: str = field(default_factory=lambda: next(RELEASES))
    given: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path()

    def __post_init__(self) -> None:
        self.stage = self.change.item.partition(".")[0]
        forward(self.network, self.release, self.stage)

    @property
    def store(self) -> Store:
        return Store(self.network.root / "store")

    @property
    def incident(self) -> Incident:
        (found,) = incidents_of(self.store, self.release)
        return found

    @property
    def issue(self) -> dict[str, Any]:
        """The one issue that tells of it."""
        mark = f"incident={self.incident.id} "
        (found,) = [one for one in self.network.forge.issues.values() if mark in one["body"]]
        return dict(found)

    def params(self, **changes: Any) -> dict[str, Any]:
        return {
            **RecoveryParams().model_dump(),
            **TEXTS,
            "site": str(self.network.site),
            "release": self.release,
            "commit": self.network.release.commit,
            "issue": 42,
            "mode": "apply",
            **self.given,
            **changes,
        }

    def run(self, **changes: Any) -> tuple[Verdict, CheckResult]:
        """One try, and that its replay comes to the same."""
        runbook = f"{self.stage}_recovery"
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(playbook.DECLARED, runbook, (self.change.item,))
            return self._run(runbook, **changes)

    def _run(self, runbook: str, **changes: Any) -> tuple[Verdict, CheckResult]:
        if self.folder != Path():
            changes = {"attempt": 1, "retry_reason": "try again", **changes}
        stage = open_stage(runbook, **self.params(**changes))
        verdict, result = self._walk(stage)
        self.folder = stage.folder
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RUNBOOK_REPLAY", str(self.folder))
            replayed = open_stage(runbook, **self.params(**changes))
            _, again = self._walk(replayed)
        assert again == result
        return verdict, result

    def _walk(self, stage: Stage) -> tuple[Verdict, CheckResult]:
        try:
            stage.change(self.change)
            with suppress(StageRefused):
                stage.enforce()
            verdict = stage.verdict()
        finally:
            stage.close()
        result = verdict.items[0].result
        assert result is not None
        return verdict, result


def forward(network: RehearsalNetwork, release: str, stage: str, **hostile: str) -> None:
    """An apply that was stopped half way, as its record tells it."""
    now = datetime.fromtimestamp(network.world.clock.now(), UTC)
    at = (now - timedelta(minutes=20)).isoformat()
    item = playbook.DECLARED[stage][-1]
    opened = {
        "stage": stage, "release": release, "commit": network.release.commit,
        "site": "rehearsal", "cluster": CLUSTERS[stage], "mode": "apply", "source": "rehearsal",
        "run": "headless", "operator": "rehearsal", "declared": list(playbook.DECLARED[stage]),
        "now": at, "params": {},
    }  # fmt: skip
    record = Store(network.root / "store").create(release, stage, opened).record
    digest = "sha256:" + "a" * 64
    record.append("plan", {"digest": digest, "plan": {}, "approved_by": ["rehearsal"]})
    step = {"item": item, "node": "main-1", "step": "restart", "stem": "", "at": at}
    record.append("step", {**step, "phase": "failed", "code": 1, "problem": "no answer", **hostile})


def row(result: CheckResult, subject: str) -> Row:
    (found,) = [one for one in result.rows if one.subject == subject]
    return found


# --- filed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", FILED, ids=lambda change: change.item)
def test_it_is_filed_once_and_read_back(network: RehearsalNetwork, change: Change) -> None:
    """With an incident in the store that blocks the release; a further try adds nothing."""
    recovery = Recovery(network, change)
    verdict, result = recovery.run()

    assert verdict.exit_code is ExitCode.PASSED, result.reason
    issue, found = recovery.issue, recovery.incident
    assert issue["title"].endswith(f"{found.id}: {TEXTS['summary']}")
    for text in ("v1.4.0-", "Rewards stopped on both canaries", "restart failed: no answer"):
        assert text in issue["body"]
    assert [entry.kind for entry in found.entries][:2] == ["opened", "filed"]
    assert [
        one.name for one in blocking(recovery.store, recovery.release, single_operator=True)
    ] == [found.id]
    again, more = recovery.run()
    assert again.exit_code is ExitCode.PASSED, more.reason
    assert recovery.issue["number"] == issue["number"]
    assert len(incidents_of(recovery.store, recovery.release)) == 1


def test_an_incident_shows_figures_gates_and_timeline(network: RehearsalNetwork) -> None:
    """As tables that need no style."""
    recovery = Recovery(network, telling.governance_incident)
    recovery.run()
    body = recovery.issue["body"]

    assert "| metric | when the apply began | now |" in body
    assert "| `test-1` | us | off | off | off |" in body
    assert "| `test-2` |" in body
    assert "nothing: all of it was read" in body
    assert "<style" not in body
    assert "runbook incident" in body


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_report_without_a_text_fails(network: RehearsalNetwork, name: str) -> None:
    """It names the one that says nothing; said later, the report goes out."""
    recovery = Recovery(network, telling.public_report)
    empty = "TBD." if isinstance(TEXTS[name], str) else [" - "]
    refused, result = recovery.run(**{name: empty})
    assert refused.exit_code is ExitCode.REFUSED
    assert result.reason.startswith(f"{name}: text: expected not empty, got nothing said")
    assert mutations(read_entries(recovery.folder / "tape")) == []

    verdict, result = recovery.run()

    assert verdict.exit_code is ExitCode.PASSED, result.reason


def test_hostile_text_is_shown_as_text(network: RehearsalNetwork) -> None:
    """It can neither format, link, mention, refer, nor end a marker or a table."""
    evil = "--> @everyone <script>alert(1)</script> | [x](https://evil.example) #1 `rm` \u202e"
    recovery = Recovery(network, telling.public_report)
    forward(network, recovery.release, "canary", problem=evil, node=evil)
    verdict, result = recovery.run(
        summary=evil, impact=evil, mitigations=[evil], next_steps=[evil], undoes=2
    )
    body = recovery.issue["body"]

    assert verdict.exit_code is ExitCode.PASSED, result.reason
    assert "<script" not in body
    assert "@everyone" not in body
    assert "](https://evil" not in body
    assert "\u202e" not in body
    assert body.count("-->") == 1


def test_a_plan_says_what_it_would_file(network: RehearsalNetwork) -> None:
    """And opens no incident."""
    recovery = Recovery(network, telling.public_report)
    stage = open_stage("canary_recovery", **recovery.params(mode="plan"))
    try:
        stage.change(telling.public_report)
        standing = stage.verdict().items[0]
    finally:
        stage.close()

    assert standing.state == "planned"
    assert standing.planned[-1].observed == (
        f"an incident of {recovery.release} is opened, its public report filed"
    )
    assert incidents_of(recovery.store, recovery.release) == []


# --- what is not there ----------------------------------------------------------------------------


def test_figures_that_were_not_collected_are_fetched_later(network: RehearsalNetwork) -> None:
    """The report goes out without them, and is mended."""
    recovery = Recovery(network, telling.incident)
    network.fault("prometheus-down@development")
    verdict, result = recovery.run()
    assert verdict.exit_code is ExitCode.INCONCLUSIVE
    assert str(row(result, "figures").observed).startswith("0 collected; figure ")
    assert str(row(result, "figures").observed).endswith("; the next try collects them")
    assert "- figure" in recovery.issue["body"]

    network.clear("prometheus-down")
    verdict, result = recovery.run()

    assert verdict.exit_code is ExitCode.PASSED, result.reason
    assert "- figure" not in recovery.issue["body"]


def test_a_node_that_does_not_answer_is_listed(network: RehearsalNetwork) -> None:
    """Its gates are not known."""
    recovery = Recovery(network, telling.governance_incident)
    network.fault("node-down@testnet/test-2")
    verdict, result = recovery.run()

    assert verdict.exit_code is ExitCode.INCONCLUSIVE
    assert row(result, "gates").observed == "not of test-2; the next try collects them"
    assert "never read back" in recovery.issue["body"]


def test_what_cannot_be_sent_is_published_later(
    network: RehearsalNetwork, capsys: pytest.CaptureFixture[str]
) -> None:
    """The incident is open all the same; one publish and one more run finish it, nothing twice."""
    recovery = Recovery(network, telling.public_report)
    network.fault("forge-down@canary")
    verdict, result = recovery.run()
    path = recovery.folder / "outbox" / "01-public-report.json"
    name = f"{recovery.release}/canary_recovery/0001"

    assert verdict.exit_code is ExitCode.INCONCLUSIVE
    assert str(row(result, "public-report").observed).endswith(
        f"; kept in the outbox: runbook publish {name}"
    )
    assert recovery.incident.standing == "open"
    assert {one.outcome for one in publish(recovery.folder)} == {Outcome.INCONCLUSIVE}
    assert path.exists()

    network.clear("forge-down")
    assert cli.main(["publish", str(recovery.folder)]) == 0
    number = recovery.issue["number"]
    assert not path.parent.exists()
    assert cli.main(["publish", str(recovery.folder)]) == 0
    capsys.readouterr()
    verdict, result = recovery.run()

    assert verdict.exit_code is ExitCode.PASSED, result.reason
    assert recovery.issue["number"] == number
    assert [e.kind for e in recovery.incident.entries] == ["opened", "filed"]


def test_an_outbox_that_was_tampered_with_is_not_sent(network: RehearsalNetwork) -> None:
    """Only what the record names goes out."""
    recovery = Recovery(network, telling.public_report)
    network.fault("forge-down@canary")
    recovery.run()
    network.clear("forge-down")
    path = recovery.folder / "outbox" / "01-public-report.json"
    path.write_bytes(path.read_bytes().replace(b"Rewards stopped", b"All is well, no"))

    (found,) = publish(recovery.folder)

    assert found.outcome is Outcome.FAIL
    assert "expected what the record names" in str(found.observed)
    assert path.exists()


@pytest.mark.parametrize("fault", MINE, ids=lambda fault: fault.name)
def test_a_fault_comes_to_its_declared_outcome(network: RehearsalNetwork, fault: Fault) -> None:
    """What was not read back was not told."""
    (change,) = [one for one in CHANGES if one.item == fault.item]
    recovery = Recovery(network, change)
    network.fault(f"{fault.name}@{recovery.stage}")

    _, result = recovery.run()

    assert result.outcome == fault.outcome, result.reason


def test_a_sealed_recovery_is_published(network: RehearsalNetwork) -> None:
    """As a section of its own, its files attached; what its outbox kept goes out first."""
    recovery = Recovery(network, telling.public_report)
    network.fault("forge-down@canary")
    recovery.run()
    network.clear("forge-down")
    book = nbformat.read(NOTEBOOKS / "35_canary_recovery.ipynb", as_version=4)
    nbformat.write(book, recovery.folder / "35_canary_recovery.ipynb")
    seal_by_hand(recovery.folder)

    problems = at_sealing(recovery.folder)

    assert problems == []
    assert recovery.issue["state"] == "open"
    (comment,) = network.forge.comments.values()
    (section,) = sections(comment["body"])
    assert section.title == "### ? INCONCLUSIVE · canary_recovery · attempt 1"
    assert "canary, which it takes back" in section.text
    assert not (recovery.folder / "outbox").exists()


# --- the halt -------------------------------------------------------------------------------------


def test_a_halt_is_announced_once(network: RehearsalNetwork) -> None:
    """Read back from where validators read."""
    recovery = Recovery(network, HALT)
    verdict, result = recovery.run()
    assert verdict.exit_code is ExitCode.PASSED, result.reason
    recovery.run()

    (told,) = json.loads((network.root / "announced.json").read_text())
    assert (told["kind"], told["reference"]) == ("halt", f"{recovery.release}/testnet/0001")
    assert f"the rollout of {recovery.release} on testnet is HALTED" in told["text"]


def test_a_halt_that_cannot_be_announced_is_published_later(network: RehearsalNetwork) -> None:
    """By the same command, once."""
    recovery = Recovery(network, HALT)
    network.fault("halt-announce-fails@testnet")
    verdict, result = recovery.run()
    assert verdict.exit_code is ExitCode.INCONCLUSIVE
    assert "exit 22: channel: 503 Service Unavailable; kept in the outbox" in result.reason

    network.clear("halt-announce-fails")
    assert {one.outcome for one in publish(recovery.folder)} == {Outcome.PASS}
    verdict, result = recovery.run()

    assert verdict.exit_code is ExitCode.PASSED, result.reason
    assert len(json.loads((network.root / "announced.json").read_text())) == 1
    assert not (recovery.folder / "outbox").exists()


# --- the council ----------------------------------------------------------------------------------


def test_the_council_is_told_once_and_its_decision_recorded(network: RehearsalNetwork) -> None:
    """Two of its three members approve what the issue says; it ratifies a break-glass as well."""
    recovery = Recovery(network, telling.council)
    verdict, result = recovery.run(break_glass="the chain stood still, no time to ask")
    assert verdict.exit_code is ExitCode.PASSED, result.reason
    told = json.loads((network.root / "notifications.json").read_text())
    decided = recovery.incident.last("decision")

    assert [one["role"] for one in told] == ["governance-council"]
    assert "2 of 3 members: rehearsal-council-a, rehearsal-council-b, at" in str(
        [one.observed for one in result.rows if one.what == "decided"]
    )
    assert decided is not None
    assert (decided["ratifies"], decided["late"]) == (True, False)
    assert decided["digest"] in recovery.issue["body"]
    assert "Break-glass by rehearsal: the chain stood still" in recovery.issue["body"]


def test_a_silent_council_is_waited_for_a_day(network: RehearsalNetwork) -> None:
    """Until then it is not yet due; after it nothing helps."""
    recovery = Recovery(network, telling.council)
    network.fault("council-silent@mainnet")
    verdict, result = recovery.run()
    assert verdict.exit_code is ExitCode.WAITING
    assert result.return_at is not None
    assert result.return_at - recovery.incident.when("opened") == timedelta(hours=24)  # type: ignore[operator]

    network.fast_forward(25 * 3600)
    verdict, result = recovery.run()

    assert verdict.exit_code is ExitCode.REFUSED
    assert result.reason.endswith("got 0 of 3 members; later than 24 h after the recovery")
    assert len(json.loads((network.root / "notifications.json").read_text())) == 1


def test_one_member_is_no_majority(network: RehearsalNetwork) -> None:
    """A member who says it twice is one."""
    recovery = Recovery(network, telling.council)
    network.fault("council-silent@mainnet")
    recovery.run()
    (told,) = json.loads((network.root / "notifications.json").read_text())
    word = f"approve {told['text'].partition('approve ')[2].partition('`')[0]}"
    for account in ("rehearsal-council-a", "rehearsal-council-a", "rehearsal-second"):
        network.say(account, word)

    verdict, result = recovery.run()

    assert verdict.exit_code is ExitCode.WAITING
    assert "got 1 of 3 members: rehearsal-council-a" in result.reason


def test_a_pager_that_is_down_keeps_the_notice(network: RehearsalNetwork) -> None:
    """It goes out with publish; the council's answer counts on the next try."""
    recovery = Recovery(network, telling.council)
    network.fault("notify-down@mainnet")
    verdict, result = recovery.run()
    assert verdict.exit_code is ExitCode.INCONCLUSIVE
    assert "kept in the outbox" in str(row(result, "council-notice").observed)

    network.clear("notify-down")
    assert {one.outcome for one in publish(recovery.folder)} == {Outcome.PASS}
    verdict, result = recovery.run()

    assert verdict.exit_code is ExitCode.PASSED, result.reason


# --- its end --------------------------------------------------------------------------------------


def test_an_incident_ends_with_somebody_elses_word_in_its_issue(
    network: RehearsalNetwork, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stranger's, a withdrawn and an edited one do not count; then the release goes on."""
    recovery = Recovery(network, telling.incident)
    recovery.run()
    name, number = recovery.incident.id, recovery.issue["number"]

    def take(*words: str) -> int:
        return cli.main(["incident", name, "--site", str(network.site), *words])

    for words in (["--acknowledge"], ["--mitigated"], ["--close", "--reason", "cause was mended"]):
        assert take(*words) == 0
    closed = recovery.incident.last("closed")
    assert closed is not None
    word = f"approve {closed['digest']}"
    network.say("mallory", word, issue=number)
    network.say("rehearsal-second", word, issue=number)
    network.say("rehearsal-second", f"withdraw {word}", issue=number)
    edited = network.say("rehearsal-commander", word, issue=number)
    network.forge.edit(edited, word + " ")
    site = read_site(str(network.site)).model_copy(update={"single_operator": False})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runbook_lib.site.read_site", lambda path: site)
        assert take("--sign-off") == 4

    network.say("rehearsal-council-a", word, issue=number)
    capsys.readouterr()

    assert take("--sign-off") == 0
    signed = recovery.incident.last("signed-off")
    assert signed is not None
    assert (signed["account"], f"issues/{number}#" in signed["grounds"]) == (
        "rehearsal-council-a",
        True,
    )
    assert blocking(recovery.store, recovery.release, single_operator=False) == []


# --- one incident ---------------------------------------------------------------------------------


def test_a_later_recovery_joins_the_incident(network: RehearsalNetwork) -> None:
    """Of the same stopped apply; a deleted file is noticed, and not opened again in its place."""
    recovery = Recovery(network, telling.public_report)
    recovery.run()
    recovery.folder = Path()
    stage = open_stage("canary_recovery", **recovery.params())
    try:
        stage.change(telling.public_report)
    finally:
        stage.close()
    assert len(incidents_of(recovery.store, recovery.release)) == 1

    path_of(recovery.store, recovery.incident.id).unlink()

    problems = [
        one.problem for one in blocking(recovery.store, recovery.release, single_operator=True)
    ]
    assert len(problems) == 2
    assert all("it was removed from the store" in problem for problem in problems)
