"""A test suite's own count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.checks.suites import SuiteRun, read_suite
from runbook_lib.errors import SourceError
from runbook_lib.sources.process import Ended

from .conftest import World, commands, says

GREEN = "running 3 tests\ntest a ... ok\ntest skipping_b ... ok\ntest c ... ignored, skipping it\n\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s\n"
RED = "running 1 test\ntest d ... FAILED\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n"


@pytest.mark.parametrize(
    ("out", "code", "expected"),
    [
        (GREEN, 0, SuiteRun(0, 3, 2, 0, 1, True, ())),
        (GREEN + RED, 101, SuiteRun(101, 4, 2, 1, 1, True, ())),
        (GREEN + RED.split("\n\n")[0], 101, SuiteRun(101, 4, 2, 0, 1, False, ())),
        (GREEN.replace("running 3", "running 5"), 0, SuiteRun(0, 5, 2, 0, 1, False, ())),
        (
            GREEN + "Skipping: cluster cannot start\n",
            0,
            SuiteRun(0, 3, 2, 0, 1, True, ("Skipping: cluster cannot start",)),
        ),
        ("", 0, SuiteRun(0, 0, 0, 0, 0, True, ())),
        ("error: no test target named `x`", 101, SuiteRun(101, 0, 0, 0, 0, True, ())),
    ],
    ids=["green", "red", "crashed", "cut", "skipping", "silent", "not built"],
)
def test_a_suites_own_count(world: World, out: str, code: int, expected: SuiteRun) -> None:
    """Sums over all test binaries; a test that confesses to skip is named."""
    ended = commands(world, suites={"tests/x": says(out, code=code)}).suite("tests/x")
    assert read_suite(ended) == expected


@given(st.lists(st.tuples(*[st.integers(0, 99)] * 3), max_size=4))
def test_counts_add_up_over_any_number_of_binaries(counts: list[tuple[int, int, int]]) -> None:
    """The counts of every binary are found in the noise between them."""
    text = "".join(
        f"running {sum(each)} test{'' if sum(each) == 1 else 's'}\nnoise\ntest result: "
        f"{'FAILED' if each[1] else 'ok'}. {each[0]} passed; {each[1]} failed; {each[2]} ignored;"
        " 0 measured; 0 filtered out; finished in 1.00s\n\n"
        for each in counts
    )
    run = read_suite(Ended(0, text.encode(), b""))
    sums = tuple(sum(each[n] for each in counts) for n in range(3))
    assert (run.passed, run.failed, run.ignored, run.complete) == (*sums, True)
    assert run.announced == sum(sums)


def test_a_suite_the_site_does_not_name_is_an_error(world: World) -> None:
    """A missing suite is not a green one."""
    with pytest.raises(SourceError) as caught:
        commands(world).suite("tests/x")
    assert str(caught.value) == (
        "suite tests/x: expected commands.suites.tests/x in the site file, got none"
    )
