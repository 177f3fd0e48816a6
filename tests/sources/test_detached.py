"""A signature beside its certificate proves nothing without its entry in the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runbook_lib.errors import SourceError
from runbook_lib.sources.signatures import Find, Material, Policy
from runbook_rehearsal.signing import b64

from .verifying import HEX, SIGNER, Authority, Detached, one


def test_a_detached_signature_with_its_log_entry_is_proof(
    authority: Authority, file: Path, policy: Policy
) -> None:
    made = Detached(authority)
    encoded = Material(signature=made.signature, certificate=b64(made.pem).encode())

    assert one(file, policy, made.material, find=made.find) == ("PASS", SIGNER)
    assert one(file, policy, encoded, find=made.find) == ("PASS", SIGNER)
    assert made.asked == [f"https://log.example {HEX}"] * 2


def _down(log: str, entry: dict[str, Any]) -> None:
    raise SourceError(log, "expected the log's answer, got ConnectError: refused")


@pytest.mark.parametrize(
    ("find", "problem"),
    [
        (None, "no log entry beside a detached signature: no proof of signing time"),
        (
            lambda log, entry: None,
            "the log has no entry of this signature: no proof of signing time",
        ),
        (
            _down,
            "no proof of signing time: https://log.example: expected the log's answer, got "
            "ConnectError: refused",
        ),
    ],
)
def test_a_detached_signature_without_its_log_entry_is_no_proof(
    authority: Authority, file: Path, policy: Policy, find: Find | None, problem: str
) -> None:
    made = Detached(authority)

    assert one(file, policy, made.material, find=find) == ("INCONCLUSIVE", problem)


@pytest.mark.parametrize(
    "answer",
    [
        {"x": {}},
        {"x": None},
        {"x": {"body": 7}},
        {"a": {}, "b": {}},
    ],
)
def test_what_a_log_answers_is_not_believed(
    authority: Authority, file: Path, policy: Policy, answer: dict[str, Any]
) -> None:
    made, other = Detached(authority), Detached(authority)

    assert one(file, policy, made.material, find=lambda log, entry: answer)[0] == "FAIL"
    assert one(file, policy, made.material, find=other.find)[0] == "FAIL"


def test_what_is_wrong_offline_is_refused_offline(
    authority: Authority, file: Path, policy: Policy
) -> None:
    for made in (
        Detached(authority, identity="https://x.example"),
        Detached(authority, issuer="https://x.example"),
        Detached(authority, b"another file"),
    ):
        assert one(file, policy, made.material)[0] == "FAIL"
