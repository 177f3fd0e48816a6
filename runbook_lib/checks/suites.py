"""The playbook's test suites, run on a clean tree of the very commit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..context import Context
from ..findings import Findings
from ..outcomes import CheckResult
from ..sources.process import Ended
from ..sources.stage_commands import StageCommands
from ..wording import count
from .ci import checkout


def run_suites(context: Context, suites: Sequence[str]) -> CheckResult:
    """Every suite passes, with the commit of a clean tree before and after.

    Zero tests run, a test that says it skipped, and a commit that moved meanwhile are failures.
    """
    context.findings += checkout(context, "before the suites")
    if not context.holds:
        return context.conclude()
    ran, commands = [], StageCommands(context.scope, context.site.commands)
    for suite in suites:
        with context.reading("runs", "to its end", suite):
            ran.append(run := read_suite(commands.suite(suite)))
            judge_suite(context, suite, run)
    context.findings += checkout(context, "after the suites")
    passed = sum(run.passed for run in ran)
    return context.conclude(
        passed=f"{count(passed, 'test')} of {count(len(ran), 'suite')} passed at {context.params.commit[:12]}",
        data={"commit": context.params.commit, "passed": passed},
    )


def judge_suite(context: Findings, suite: str, run: SuiteRun) -> None:
    """What a suite's run amounts to; one that broke off neither passed nor failed."""
    context.judge(suite, "exit code", 0, run.code)
    if run.complete:
        context.judge(suite, "tests passed", "more than 0", run.passed, run.passed > 0)
    else:
        got = f"{run.announced} announced, {run.passed + run.failed + run.ignored} reported"
        context.unknown(suite, "every test reported", "all", got)
    context.judge(suite, "tests failed", 0, run.failed)
    context.judge(suite, "tests ignored", 0, run.ignored)
    for line in run.skipped_lines[:1]:
        context.judge(suite, "skipped its work", "never", line, ok=False)


_RUNNING = re.compile(r"^running (\d+) tests?$", re.M)
_RESULT = re.compile(
    r"^test result: (?:ok|FAILED)\. (\d+) passed; (\d+) failed; (\d+) ignored; (\d+) measured;",
    re.M,
)
_ONE_TEST = re.compile(r"test .+ \.\.\. (ok|FAILED|ignored(, .*)?)")


@dataclass(frozen=True)
class SuiteRun:
    """libtest's own count over all test binaries of a suite.

    ``announced`` sums "running N tests"; ``skipped_lines`` are lines in which a test says that it
    skipped its work (libtest counts such a test as passed). A suite that ran nothing is all zeros.
    """

    code: int
    announced: int
    passed: int
    failed: int
    ignored: int
    complete: bool
    skipped_lines: tuple[str, ...]


def read_suite(ended: Ended) -> SuiteRun:
    """The count of a suite that ended, red or green."""
    text = b"\n".join((ended.stdout, ended.stderr)).decode("utf-8", "replace").replace("\r\n", "\n")
    announced = [int(count) for count in _RUNNING.findall(text)]
    results = [tuple(map(int, counts)) for counts in _RESULT.findall(text)]
    passed, failed, ignored, measured = (sum(part[n] for part in results) for n in range(4))
    assert ended.code is not None
    # A test's name may hold the word as well; libtest's own line about it is no confession.
    lines = [line.strip() for line in text.splitlines() if "skipping" in line.lower()]
    return SuiteRun(
        code=ended.code,
        announced=sum(announced),
        passed=passed,
        failed=failed,
        ignored=ignored,
        complete=len(announced) == len(results)
        and sum(announced) == passed + failed + ignored + measured,
        skipped_lines=tuple(line for line in lines if not _ONE_TEST.fullmatch(line)),
    )
