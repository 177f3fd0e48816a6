"""The release report: attempts of the store on one page; what a recovery announces."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from runbook_lib import open_stage
from runbook_lib.checks import recovery, report
from runbook_lib.errors import SourceError, StageRefused
from runbook_lib.outcomes import Outcome
from runbook_lib.params import ReportParams
from runbook_lib.stage import Stage
from runbook_lib.verdicts import ExitCode

from ..conftest import stages_of
from .conftest import Bare


@pytest.fixture
def page(practice: Any) -> Any:
    practice.write_site(**stages_of("development", "mainnet"))
    opened: list[Stage] = []

    def open_page() -> Stage:
        given = ReportParams().model_dump()
        given |= {key: practice.params[key] for key in ("site", "release", "commit")}
        opened.append(open_stage("report", given))
        return opened[-1]

    yield open_page
    for stage in opened:
        stage.close()


def test_without_an_attempt_there_is_nothing_to_show(page: Any) -> None:
    said = "expected an attempt at a stage in the store, got none"
    assert said in page().show(report.verdicts).text


def test_every_attempt_stands_on_the_page_with_what_blocked_it(practice: Any, page: Any) -> None:
    first = practice.open()
    practice.walk(first, ci_green=Outcome.FAIL)
    with pytest.raises(StageRefused):
        first.enforce()
    practice.sealed()
    stage = page()

    verdicts = stage.show(report.verdicts).data["rows"]
    stood = [(row[0], row[1], row[3]) for row in verdicts]
    assert stood == [("development", 1, "FAIL"), ("development", 2, "PASS")]
    assert verdicts[0][7].startswith("development.ready.ci-green: dev-1")
    runs = stage.show(report.runs).data["rows"]
    assert [(row[1], row[3]) for row in runs] == [("development.ready.ci-green", "FAIL")]
    assert stage.show(report.waivers).data["rows"] == [["none"]]
    assert stage.show(report.gates).data["rows"][0][1:3] == ["development-1", "never verified"]
    assert stage.show(report.metrics).data["rows"] == [["none pinned"]]
    timeline = stage.show(report.timeline).data["rows"]
    assert timeline == sorted(timeline)
    assert any("plan made by alice" in row[2] for row in timeline)


def test_a_report_passes_whole_and_promotes_nothing(practice: Any, page: Any) -> None:
    practice.sealed()
    stage = page()
    stage.show(report.verdicts)
    stage.enforce()

    verdict = stage.verdict()

    assert (verdict.exit_code, verdict.mode, verdict.items) == (ExitCode.PASSED, "plan", ())


def test_an_announcement_that_cannot_be_made_stops_no_recovery(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is a finding, and what goes back goes on."""

    def missing(context: Any) -> str:
        raise SourceError("halt.txt", "expected a template, got none")

    monkeypatch.setattr(recovery, "halt_text", missing)
    monkeypatch.setattr(recovery, "halted_attempt", lambda context: "v1/testnet/0001")
    site = SimpleNamespace(commands=None)
    context: Any = Bare(
        params=SimpleNamespace(release="v1"), site=site, scope=None, stage="testnet"
    )
    recovery.announce_halt(context, cast(Any, None))

    [found] = context.findings
    assert (found.subject, found.what, found.outcome) == (
        "halt.txt",
        "halt announced",
        Outcome.INCONCLUSIVE,
    )
