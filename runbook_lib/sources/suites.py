"""What libtest says of a test suite: its own count, and the tests that say they did nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .process import Ended

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
    return SuiteRun(
        code=ended.code,
        announced=sum(announced),
        passed=passed,
        failed=failed,
        ignored=ignored,
        complete=len(announced) == len(results)
        and sum(announced) == passed + failed + ignored + measured,
        skipped_lines=tuple(line.strip() for line in text.splitlines() if _says_skipped(line)),
    )


def _says_skipped(line: str) -> bool:
    # A test's name may hold the word as well; libtest's own line about it is no confession.
    return "skipping" in line.lower() and not _ONE_TEST.fullmatch(line.strip())
