"""The 24 hours after mainnet's activation: looks, what they find, and who decides of it."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import playbook
from runbook_lib.checks.baselines import capture, read_catalogue
from runbook_lib.checks.mainnet import watch
from runbook_lib.checks.watch import GATE, ITEM, TOPICS
from runbook_lib.cli import main
from runbook_lib.commands.watch import look
from runbook_lib.evidence.sealing import seal
from runbook_lib.evidence.verify import verify
from runbook_lib.files import keep_file
from runbook_lib.outcomes import Outcome, Row
from runbook_lib.params import MainnetParams
from runbook_lib.sources.tape import read_entries
from runbook_lib.stage import Stage
from runbook_lib.verdicts import ItemStatus
from runbook_lib.wording import utc
from runbook_rehearsal import people
from runbook_rehearsal.layout import ISSUE
from runbook_rehearsal.network import RehearsalNetwork

from ..conftest import not_passed, trust_of
from ..events import event
from .conftest import clear, enter, given, held, mutations, opened

# Mainnet with more than a day of history.
SIZES = {"development": 1, "testnet": 1, "mainnet": 4}
network = held(RehearsalNetwork, sizes=SIZES, history_s=49 * 3600.0)


@dataclass
class Watch:
    """Mainnet attempts whose gate took effect when a test says."""

    network: RehearsalNetwork
    patch: pytest.MonkeyPatch
    release: str
    window: dict[str, Any] = field(default_factory=dict)
    """What an attempt fixes, as it was opened."""

    @property
    def params(self) -> dict[str, Any]:
        now = self.network.now.replace(microsecond=0)
        return given(
            self.network, "mainnet", release=self.release, issue=ISSUE, mode="apply",
            approved_plan="sha256:" + "0" * 64,
            window_start=(now - timedelta(days=2)).isoformat(),
            window_end=(now - timedelta(days=1)).isoformat(),
        )  # fmt: skip

    def told(self) -> list[dict[str, str]]:
        """What the site's pager was given."""
        path = self.network.root / "notifications.json"
        return json.loads(path.read_text()) if path.exists() else []

    def comments(self) -> list[str]:
        return [comment["body"] for comment in self.network.forge.comments.values()]

    @contextmanager
    def opened(self, activated: timedelta | None = None, **changes: Any) -> Iterator[Stage]:
        """A stage whose gate took effect so long ago; without, one of an attempt that goes on."""
        params = {**self.params, **changes}
        self.window = {key: params[key] for key in ("window_start", "window_end")}
        with opened("mainnet", params) as stage:
            if activated is not None:
                took = event("state", item=GATE, node="main-1", at=self.network.now - activated)
                stage._session.log.append(took)
            yield stage


@pytest.fixture
def mainnet(network: RehearsalNetwork, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    enter(network, monkeypatch)
    monkeypatch.setitem(playbook.DECLARED, "mainnet", (ITEM,))
    (network.root / "notifications.json").unlink(missing_ok=True)
    network.forge.comments.clear()
    store = network.root / "store"
    yield Watch(network, monkeypatch, f"v1.4.0-{len(list(store.iterdir()))}")
    clear(network)


def judged(stage: Stage) -> ItemStatus:
    stage.check(watch)
    return next(item for item in stage.verdict().items if item.item == ITEM)


def rows(found: ItemStatus) -> dict[tuple[str, str], Row]:
    assert found.result is not None
    return {
        (row.subject.partition(" A")[0], row.what.partition(" (")[0]): row
        for row in found.result.rows
    }


def recorded(stage: Stage, kind: str) -> list[Any]:
    return [entry for entry in stage._session.log.events() if entry.kind == kind]


def pin(watch: Watch, stage: Stage) -> None:
    """A baseline of the hours up to a day ago, pinned as before an activation."""
    context = stage.context("baseline", 1)
    until = watch.network.now.replace(microsecond=0) - timedelta(hours=24, minutes=5)
    start, catalogue = until - timedelta(hours=24), read_catalogue(context)
    metrics = catalogue.of_topic(*TOPICS)
    made, _ = capture(context, [*metrics, *catalogue.loads], start, until)
    path = keep_file(stage.folder, "metrics/before.parquet", made.file())
    context.store.pin("mainnet", made.about.digest, path)
    about = made.about.model_dump(mode="json", exclude_none=True)
    kept = {"item": GATE, "data": {**about, "metrics": dict(made.queries)}}
    stage._session.log.append(event("captured", **kept))


@pytest.fixture
def later(mainnet: Watch) -> Iterator[Watch]:
    """Time passes after it: what a test did to the chain lies behind the next one."""
    yield mainnet
    clear(mainnet.network)
    mainnet.network.fast_forward(2 * 3600.0)


def replayed(folder: Path, patch: pytest.MonkeyPatch) -> ItemStatus:
    """The same cell over an attempt's tape, with nothing outside."""
    with patch.context() as inside:
        inside.setenv("RUNBOOK_REPLAY", str(folder))
        inside.setenv("PATH", "/nowhere")
        with opened("mainnet", MainnetParams().model_dump()) as stage:
            return judged(stage)


# --- looks ----------------------------------------------------------------------------------------


def test_a_healthy_watch_is_waiting_for_its_next_look(mainnet: Watch) -> None:
    """What nobody saw in time is named; the next look is a quarter of an hour away."""
    with mainnet.opened(timedelta(hours=1, minutes=1)) as stage:
        begun = recorded(stage, "state")[0].at
        found = judged(stage)
        [look] = recorded(stage, "look")

    assert found.return_at == look.at + timedelta(minutes=15)
    made = rows(found)["looks", "made"].observed
    assert made == f"1 made, seen late: {utc(begun)} to {utc(look.at)}"
    assert [row for row in found.open_rows if row.return_at is None] == []


def test_the_first_look_is_due_when_there_is_something_to_see(mainnet: Watch) -> None:
    with mainnet.opened(timedelta(minutes=1)) as stage:
        begun = recorded(stage, "state")[0].at
        found = judged(stage)
        assert recorded(stage, "look") == []

    assert found.return_at == begun + timedelta(minutes=15)


def test_a_day_without_an_anomaly_passes_and_replays(mainnet: Watch) -> None:
    """The whole window judged against what was pinned before; offline the same.

    Without a baseline it is INCONCLUSIVE, and says which is missing. To the command over is not
    passed: 4, and the command that judges; then the item's own outcome, unchanged.
    """
    with mainnet.opened(timedelta(hours=24, minutes=1)) as stage:
        site = str(mainnet.network.site)
        over = look(site, mainnet.release)
        assert over.exit_code == 4
        assert "not judged yet: runbook run mainnet --continue" in over.standing.reason
        found = judged(stage)
        assert [(row.subject, row.what, row.observed) for row in found.open_rows] == [
            (GATE, "comparison", "expected a baseline pinned before it, got none")
        ]
        pin(mainnet, stage)
        live = judged(stage)
        assert live.outcome is Outcome.PASS, live.reason
        assert live.reason == "24 h watched in 1 look, nothing left undecided"
        # people, looks, window; the watchdog, pages, limits, halts; 4 nodes, silences; comparison
        assert len(live.result.rows) == 3 + 2 + 8 + 1 + 5 + 10  # type: ignore[union-attr]
        assert mutations(stage.folder) == []
        folder, entries = stage.folder, len(stage._session.log.events())
        passed = look(site, mainnet.release)
        assert (passed.exit_code, passed.line) == (0, "the watch is over, and passed")
        assert len(stage._session.log.events()) == entries

    assert replayed(folder, mainnet.patch).result == live.result


def test_a_look_without_the_store_is_made_up_later(mainnet: Watch) -> None:
    mainnet.network.fault("prometheus-down@mainnet")
    with mainnet.opened(timedelta(minutes=16)) as stage:
        dark = judged(stage)
        assert (dark.outcome, dark.return_at) == (Outcome.INCONCLUSIVE, None)
        assert recorded(stage, "look") == []
        mainnet.network.clear("prometheus-down")
        assert judged(stage).return_at is not None
        assert len(recorded(stage, "look")) == 1


def test_before_the_gate_took_effect_there_is_nothing_to_watch(mainnet: Watch) -> None:
    with mainnet.opened() as stage:
        found = judged(stage)

    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.reason.endswith(f"expected a node that {GATE} verified, got none")


# --- people ---------------------------------------------------------------------------------------


def test_an_anomaly_is_told_once_with_figure_and_query(later: Watch) -> None:
    """By the site's command and a comment; acknowledged, decided, and both recorded."""
    later.network.fault("participation-dip@mainnet")
    with later.opened(timedelta(hours=1, minutes=1)) as stage:
        begun = recorded(stage, "state")[0].at
        found = judged(stage)
        judged(stage)
        anomalies = recorded(stage, "anomaly")
        decided, folder = recorded(stage, "decided"), stage.folder
    told = later.told()

    assert [each["role"] for each in told] == ["release-commander"] * len(anomalies)
    dip = next(each for each in anomalies if each.subject == "vrf_participation")
    text = next(each["text"] for each in told if dip.key in each["text"])
    assert "got 0.4" in text
    assert dip.query in text
    assert f"figure: figures/anomaly-{dip.key}.png" in text
    assert (folder / f"figures/anomaly-{dip.key}.png").read_bytes()[1:4] == b"PNG"
    assert any(f"`acknowledge-anomaly {dip.key}`" in body for body in later.comments())
    assert {each.decision for each in decided} == {"restart"}
    window = rows(found)["window", "watched"]
    assert window.return_at is not None
    assert str(window.observed).endswith("(restarted)")
    assert rows(found)["vrf_participation", "level"].outcome is Outcome.PASS
    assert datetime.fromisoformat(found.result.data["anchor"]) > begun  # type: ignore[union-attr,arg-type]


DIP = ["alert ConsensusVRFParticipationLow", "vrf_participation"]
HALT = ["alert ConsensusLivenessStall", "block_production", "mainnet"]


@pytest.mark.parametrize(
    ("fault", "ended", "again"),
    [
        ("participation-dip", False, DIP),
        ("participation-dip", True, []),
        ("consensus-stall", False, HALT),
        ("consensus-stall", True, []),
    ],
)
def test_a_restart_excuses_what_ended_and_nothing_that_goes_on(
    later: Watch, fault: str, ended: bool, again: list[str]
) -> None:
    """What is still there at the new window's first look is an anomaly again, and undecided."""
    later.patch.setitem(people.DECISIONS, fault, "restart it is mended")
    later.network.fault(f"{fault}@mainnet")
    later.network.fast_forward(11 * 60)
    with later.opened(timedelta(hours=1, minutes=1)) as stage:
        judged(stage)
        first = recorded(stage, "anomaly")
        assert {each.decision for each in recorded(stage, "decided")} == {"restart"}
        number = stage.verdict().attempt
    later.patch.delitem(people.DECISIONS, fault)
    if ended:
        later.network.clear(fault)
    later.network.fast_forward(17 * 60)
    with later.opened(attempt=number, retry_reason="the next look", **later.window) as stage:
        found = judged(stage)
        second = recorded(stage, "anomaly")[len(first) :]

    failing = [row.subject for row in found.open_rows if row.outcome is Outcome.FAIL]
    undecided = [row.subject for row in found.open_rows if row.subject.startswith("anomaly ")]
    assert sorted(each.subject for each in second) == sorted(failing) == again
    assert sorted(undecided) == sorted(f"anomaly {each.key}" for each in second)
    assert found.outcome is (Outcome.INCONCLUSIVE if ended else Outcome.FAIL)


def test_nobody_acknowledging_is_escalated_to_everybody(later: Watch) -> None:
    """After engage_minutes, not before, to the council and the engineers; once."""
    later.network.fault("commander-silent@mainnet")
    with later.opened(timedelta(hours=1, minutes=1)) as stage:
        found = judged(stage)
        count = len(recorded(stage, "anomaly"))
        assert {each["role"] for each in later.told()} == {"release-commander"}
        window = rows(found)["window", "watched"]
        opened = recorded(stage, "anomaly")[0].opened
        assert window.return_at == opened + timedelta(minutes=5)
        number = stage.verdict().attempt
    later.network.fast_forward(301)
    with later.opened(attempt=number, retry_reason="nobody has answered", **later.window) as stage:
        found = judged(stage)

    roles = [each["role"] for each in later.told()]
    assert sorted(set(roles)) == ["governance-council", "release-commander", "release-engineer"]
    assert len(roles) == 3 * count
    assert "escalated" in str(rows(found)["anomaly", "decided"].observed)
    assert replayed(stage.folder, later.patch).result == found.result


def test_what_cannot_be_sent_waits_in_the_outbox(later: Watch) -> None:
    """And goes out with the next look; what went out another way is not repeated."""
    later.network.fault("notify-down@mainnet")
    with later.opened(timedelta(hours=1, minutes=1)) as stage:
        found = judged(stage)
        count, outbox = len(recorded(stage, "anomaly")), stage.folder / "outbox"
        assert len(list(outbox.iterdir())) == count
        assert "waits in the outbox: commands.notify: expected exit code 0, got 22" in str(
            rows(found)["anomaly", "decided"].observed
        )
        comments = len(later.comments())
        number = stage.verdict().attempt
    later.network.clear("notify-down")
    with later.opened(attempt=number, retry_reason="the pager is back", **later.window) as stage:
        judged(stage)
        assert list(outbox.iterdir()) == []

    assert len(later.told()) == count
    assert len([text for text in later.comments() if "An anomaly" in text]) == comments


def test_going_on_needs_a_waiver_of_what_was_found(later: Watch) -> None:
    """A decision to continue alone lets nothing pass; the waiver's rows stay shown."""
    later.network.fault("proof-slow@mainnet")
    with later.opened(timedelta(hours=1, minutes=1)) as stage:
        found = judged(stage)
        number, subjects = stage.verdict().attempt, {row.subject for row in found.open_rows}
    assert found.outcome is Outcome.FAIL
    assert subjects == {"proof_latency", "window"}
    waiver = {
        "item": ITEM, "subjects": ["proof_latency"], "outcome": "FAIL",
        "reason": "one batch of large proofs, over by now",
        "expires": (later.network.now + timedelta(days=2)).isoformat(),
    }  # fmt: skip
    with later.opened(
        attempt=number, retry_reason="decided to go on", waivers=[waiver], **later.window
    ) as stage:
        waived = judged(stage)

    assert [row.subject for row in waived.open_rows] == ["window"]
    assert waived.return_at is not None


def test_only_a_commanders_standing_word_counts(later: Watch) -> None:
    """Not a stranger's, nor an engineer's, nor one that was edited or taken back."""
    later.network.fault("commander-silent@mainnet")
    with later.opened(timedelta(hours=1, minutes=1)) as stage:
        judged(stage)
        number, name = stage.verdict().attempt, recorded(stage, "anomaly")[0].key
        commander = "rehearsal-commander"
        later.network.say("north-validators", f"decide {name} recover it is bad")
        later.network.say("rehearsal", f"acknowledge-anomaly {name}")
        later.network.say(commander, f"decide {name} recover it is bad")
        later.network.say(commander, f"withdraw decide {name}")
        edited = later.network.say(commander, f"decide {name} restart now")
        later.network.forge.edit(edited, f"decide {name} recover now")
    with later.opened(attempt=number, retry_reason="hear them", **later.window) as stage:
        judged(stage)
        assert recorded(stage, "acknowledged") == recorded(stage, "decided") == []
        # A word of the same second is withdrawn as well.
        at = later.network.now + timedelta(seconds=2)
        later.network.say(commander, f"decide {name} recover enough of it", at=at)
    with later.opened(attempt=number, retry_reason="hear them", **later.window) as stage:
        found = judged(stage)
        [decided] = recorded(stage, "decided")

    assert (decided.by, decided.decision, decided.reason) == (
        commander,
        "recover",
        "enough of it",
    )
    assert found.outcome is Outcome.FAIL


# --- runbook watch --------------------------------------------------------------------------------


def test_the_command_looks_once_and_is_waiting(
    mainnet: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One look, no run of the item and no session; 4, and when to look again."""
    with mainnet.opened(timedelta(minutes=16)) as stage:
        kinds = [entry.kind for entry in stage._session.log.events()]
        argv = ["watch", "--site", str(mainnet.network.site), mainnet.release]
        code = main(argv)
        text = capsys.readouterr().out
        assert main([*argv, "--json"]) == code == 4
        document = json.loads(capsys.readouterr().out)
        added = [entry.kind for entry in stage._session.log.events()][len(kinds) :]

    assert added[:3] == ["watching", "look", "watching"]
    assert re.search(
        r"proof_latency \d+\S* ms, vrf_participation (0\.9\d*|1) share", text.splitlines()[0]
    )
    assert text.splitlines()[2].startswith("look again at ")
    assert document["outcome"] == "INCONCLUSIVE"
    assert document["return_at"] is not None


def test_a_look_after_the_seal_is_named_by_verify(mainnet: Watch) -> None:
    """It damages nothing that was sealed, and is no part of it."""
    with mainnet.opened(timedelta(minutes=16)) as stage:
        folder, verdict = stage.folder, stage.verdict()
        seal(folder, "40_mainnet.ipynb", b"{}", verdict, code="", foreign=False)
        before = open_steps(folder)
        look(str(mainnet.network.site), mainnet.release)
        after = open_steps(folder)

    assert not set(before) & {"3 files", "5 log", "6 tape", "13 seal"}
    assert set(after) - set(before) == {"13 seal"}
    assert re.fullmatch(r"not yet sealed: 2 events since .* by runbook watch; .*", after["13 seal"])


def open_steps(folder: Path) -> dict[str, str]:
    found, _ = verify(folder, trust_of(folder))
    return dict(not_passed(found, "what", "observed"))


def test_several_commands_may_look_at_once(mainnet: Watch) -> None:
    """Each under a number of its own on the tape, beside an open stage as well."""
    with mainnet.opened(timedelta(minutes=16)) as stage:
        with ThreadPoolExecutor(3) as pool:
            site = str(mainnet.network.site)
            found = list(pool.map(lambda _: look(site, mainnet.release), range(3)))
        judged(stage)
        numbers = [entry.number for entry in recorded(stage, "watching")]
        slots = [entry.slot for entry in read_entries(stage.folder / "tape")]

    assert [one.exit_code for one in found] == [4, 4, 4]
    assert numbers == [1, 2, 3]
    assert len(slots) == len(set(slots))


def test_the_command_loops_and_escalates_at_the_deadline(later: Watch) -> None:
    """It looks again when the commander's time is up, and goes on to the end of the watch."""
    later.network.fault("commander-silent@mainnet")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt
        later.network.fast_forward(seconds + 1.0)

    later.patch.setattr("runbook_lib.commands.watch.sleep", sleep)
    with later.opened(timedelta(hours=1, minutes=1)) as stage:
        code = main(["watch", "--loop", "--site", str(later.network.site), later.release])
        count = len(recorded(stage, "anomaly"))
    roles = [each["role"] for each in later.told()]

    assert code == 3 and slept[0] == pytest.approx(300.0, abs=30.0)
    assert roles.count("governance-council") == roles.count("release-engineer") == count > 0


def test_the_command_needs_an_attempt_that_reached_the_watch(
    mainnet: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["watch", "--site", str(mainnet.network.site), mainnet.release]
    assert main(argv) == 3
    assert capsys.readouterr().err == (
        f"{mainnet.release}/mainnet: expected an attempt that applied, got none yet\n"
    )
    mainnet.patch.setitem(playbook.DECLARED, "mainnet", (GATE, ITEM))
    with mainnet.opened(timedelta(minutes=16)):
        assert main(argv) == 3
    assert f"expected every item before the watch passed, got {GATE}" in capsys.readouterr().err
    assert main(["watch", "mainnet"]) == 3
    assert "expected --site or a parameter file" in capsys.readouterr().err
