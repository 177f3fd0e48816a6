"""Errors: the exit code each one ends with, and their way between processes."""

from __future__ import annotations

import pickle

import pytest

from runbook_lib.errors import (
    LockHeld,
    NotebookError,
    ParameterError,
    RecordDamaged,
    RunbookError,
    SourceError,
    SourceRefused,
    StageRefused,
    StoreError,
    TapeMiss,
)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ParameterError("p.yaml: a: expected 1, got 2"), 3, "p.yaml: a: expected 1, got 2"),
        (ParameterError(["one", "two"]), 3, "one\ntwo"),
        (NotebookError("altered"), 3, "altered"),
        (SourceError("n1", "expected an answer, got none"), 2, "n1: expected an answer, got none"),
        (SourceRefused("forge", "it will not"), 2, "forge: it will not"),
        (TapeMiss("never recorded"), 3, "never recorded"),
        (StoreError("full"), 3, "full"),
        (LockHeld("by ada"), 3, "by ada"),
        (RecordDamaged("line 3"), 3, "line 3"),
        (StageRefused("1 item failed", 1), 1, "1 item failed"),
    ],
)
def test_an_error_keeps_its_code_and_message_when_pickled(
    error: RunbookError, code: int, message: str
) -> None:
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert (type(each), each.exit_code, str(each)) == (type(error), code, message)


def test_a_person_and_a_mistake_need_no_traceback() -> None:
    error = ParameterError(["release: expected a value", "commit: expected a value"])

    assert error._render_traceback_() == [
        "ParameterError: release: expected a value\ncommit: expected a value"
    ]
