"""Errors: the exit code each one ends with, and what a person is told of others."""

from pathlib import Path

import pytest

from runbook_lib.errors import (
    Defect,
    LockHeld,
    LogDamaged,
    MachineError,
    NotebookError,
    ParameterError,
    RunbookError,
    SourceError,
    SourceRefused,
    StageRefused,
    StoreError,
    TapeMiss,
    guarded,
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
        (LogDamaged("line 3"), 3, "line 3"),
        (StageRefused("1 item failed", 1), 1, "1 item failed"),
    ],
)
def test_an_error_has_a_code_and_a_message(error: RunbookError, code: int, message: str) -> None:
    assert (error.exit_code, str(error)) == (code, message)
    with pytest.raises(type(error)) as raised, guarded():
        raise error
    assert raised.value is error


def under_guard(error: Exception, kind: type[RunbookError]) -> str:
    """What a person is told of an error."""
    with pytest.raises(kind) as raised, guarded():
        raise error
    assert raised.value.exit_code == 3
    return str(raised.value)


def test_what_the_system_refuses_names_the_file() -> None:
    said = under_guard(OSError(28, "No space left", "/x"), MachineError)
    assert said == "/x: expected a file or folder that can be used, got: No space left"
    said = under_guard(OSError(24, "Too many"), MachineError)
    assert said == "this machine: expected it usable, got: Too many"


def test_a_bug_says_that_it_is_one_and_where_its_traceback_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = under_guard(KeyError("x"), Defect)
    (kept,) = tmp_path.iterdir()

    assert said == f"this is a bug of runbook: KeyError: 'x'; please report it with {kept}"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "raise error" in kept.read_text()
