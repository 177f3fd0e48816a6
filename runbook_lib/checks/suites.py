"""The playbook's test suites, run on a clean tree of the very commit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..context import Context
from ..findings import Findings
from ..outcomes import CheckResult
from ..sources.process import Ended
from ..wording import count
from .ci import checkout


def run_suites(context: Context, suites: Sequence[str]) -> CheckResult:
    """Every suite passes, with the commit of a clean tree before and after.

    Zero tests run, a test that says it skipped, and a commit that moved meanwhile are failures.
    """
    checkout(context, "before the suites")
    if not context.holds:
        return context.conclude()
    ran = []
    for suite in suites:
        with context.reading("runs", "to its end", suite):
            ran.append(run := read_suite(context.commands.suite(suite)))
            judge_suite(context, suite, run)
    checkout(context, "after the suites")
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


_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_STARTED = re.compile(r"^(?:running (\d+) tests?$| *Starting (\d+) tests? across )", re.M)
_RESULT = re.compile(
    r"^test result: (?:ok|FAILED)\. (\d+) passed; (\d+) failed; (\d+) ignored; (\d+) measured;",
    re.M,
)
_SUMMARY = re.compile(r"^ *Summary \[[^]]*\] +[0-9/]+ tests? run: (.*)$", re.M)
_COUNT = re.compile(r"(\d+) (passed|failed|timed out|exec failed|skipped)")
_BEGUN = re.compile(rf"{_STARTED.pattern}|^ +(?:Running|Doc-tests) ", re.M)
_DIAGNOSTIC = re.compile(r"^(?:warning|error)\b.*(?:\n *\d* *(?:\||-->|=).*)*", re.M)
_ONE_TEST = re.compile(
    r"test .+ \.\.\. (ok|FAILED|ignored(, .*)?)|(Running|Doc-tests) .+|[A-Z0-9/ ]+ \[[^]]*\] .+"
)
"""A line about one test, by libtest, cargo or nextest: its name may hold any word."""


@dataclass(frozen=True)
class SuiteRun:
    """The count of libtest and nextest, by their summary lines, over all test binaries of a suite.

    ``announced`` sums what was started; ``skipped_lines`` are lines in which a test says that it
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
    streams = [each.decode("utf-8", "replace") for each in (ended.stdout, ended.stderr)]
    streams = [_ANSI.sub("", text).replace("\r\n", "\n") for text in streams]
    text = "\n".join(streams)
    announced = [int(one or other) for one, other in _STARTED.findall(text)]
    results = [tuple(map(int, counts)) for counts in _RESULT.findall(text)]
    for said in _SUMMARY.findall(text):
        counts = {word: int(number) for number, word in _COUNT.findall(said)}
        failed = sum(counts.get(word, 0) for word in ("failed", "timed out", "exec failed"))
        ignored = counts.get("skipped", 0)  # nextest announces what is left without them
        results.append((counts.get("passed", 0), failed, ignored, -ignored))
    passed, failed, ignored, measured = (sum(part[n] for part in results) for n in range(4))
    assert ended.code is not None
    # What a compiler says before any test began is no test's confession.
    begun = [(text, _BEGUN.search(text)) for text in streams]
    heard = [text[at.start() :] if at else _DIAGNOSTIC.sub("", text) for text, at in begun]
    lines = [line.strip() for text in heard for line in text.splitlines()]
    return SuiteRun(
        code=ended.code, announced=sum(announced), passed=passed, failed=failed, ignored=ignored,
        complete=len(announced) == len(results)
        and sum(announced) == passed + failed + ignored + measured,
        skipped_lines=tuple(
            line for line in lines if "skipping" in line.lower() and not _ONE_TEST.fullmatch(line)
        ),
    )  # fmt: skip
