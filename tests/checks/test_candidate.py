"""The rows of canary.ready.candidate-installed, answer by answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runbook_lib.canonical import digest_bytes
from runbook_lib.checks.canary import _dry
from runbook_lib.errors import SourceError
from runbook_lib.outcomes import Outcome
from runbook_lib.sources.commands import DryRun, NodeConfig
from runbook_lib.sources.redact import MARK

PASS, INCONCLUSIVE = Outcome.PASS, Outcome.INCONCLUSIVE
TOML = b"block_time_ms = 5000\n"
PLAIN = NodeConfig(TOML, digest_bytes(TOML), TOML)


def context(tmp_path: Path, **answers: Any) -> Any:
    """A context whose commands give these answers; an error is raised."""

    def answer(purpose: str) -> Any:
        def given(subject: Any) -> Any:
            answered.append((purpose, subject))
            if isinstance(answers[purpose], SourceError):
                raise answers[purpose]
            return answers[purpose]

        return given

    answered: list[tuple[str, Any]] = []
    for folder in ("attempt", "private"):
        (tmp_path / folder).mkdir(exist_ok=True)
    commands = SimpleNamespace(**{purpose: answer(purpose) for purpose in answers})
    return SimpleNamespace(
        commands=commands,
        folder=tmp_path / "attempt",
        private=tmp_path / "private",
        answered=answered,
    )


@pytest.mark.parametrize(
    ("config", "verdict", "observed"),
    [
        (SourceError("read_config main-1", "no answer"), DryRun(True, (), ""), "no answer"),
        (PLAIN, SourceError("dry_run main-1", "it broke"), "it broke"),
    ],
)
def test_a_configuration_nobody_judged_is_no_proof(
    tmp_path: Path, config: Any, verdict: Any, observed: str
) -> None:
    row = _dry(context(tmp_path, read_config=config, dry_run=verdict), "main-1")

    assert (row.subject, row.outcome, row.observed) == ("main-1", INCONCLUSIVE, observed)


def test_a_configuration_with_secrets_is_judged_outside_the_evidence(tmp_path: Path) -> None:
    raw, text = b'secret_key = "hunter22"\n', f'secret_key = "{MARK}"\n'.encode()
    config = NodeConfig(text, digest_bytes(raw), raw)
    made = context(tmp_path, read_config=config, dry_run=DryRun(True, (), ""))

    assert _dry(made, "main-1").outcome is PASS
    file = made.answered[-1][1]
    assert file.parent == tmp_path / "private"
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (raw, 0o600)
    assert (tmp_path / "attempt" / "candidates" / "candidate-main-1.toml").read_bytes() == text
