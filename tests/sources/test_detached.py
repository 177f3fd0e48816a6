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


def down(log: str, entry: dict[str, Any]) -> None:
    raise SourceError(log, "expected the log's answer, got ConnectError: refused")


NO_PROOF = "no proof of signing time"


@pytest.mark.parametrize(
    ("find", "problem"),
    [
        (None, f"no log entry beside a detached signature: {NO_PROOF}"),
        (lambda log, entry: None, f"the log has no entry of this signature: {NO_PROOF}"),
        (
            down,
            f"{NO_PROOF}: https://log.example: expected the log's answer, got ConnectError: refused",
        ),
    ],
)
def test_a_detached_signature_without_its_log_entry_is_no_proof(
    authority: Authority, file: Path, policy: Policy, find: Find | None, problem: str
) -> None:
    found = one(file, policy, Detached(authority).material, find=find)

    assert found == ("INCONCLUSIVE", problem)


def test_what_a_log_answers_is_not_believed_and_what_is_wrong_needs_no_log(
    authority: Authority, file: Path, policy: Policy
) -> None:
    made, other = Detached(authority), Detached(authority)
    answers = ({"x": {}}, {"x": None}, {"x": {"body": 7}}, {"a": {}, "b": {}})
    judged = [one(file, policy, made.material, find=lambda log, entry, a=a: a) for a in answers]  # type: ignore[misc]
    judged.append(one(file, policy, made.material, find=other.find))
    wrong = {"identity": "https://x.example"}, {"issuer": "https://x.example"}
    judged += [one(file, policy, Detached(authority, **each).material) for each in wrong]
    judged.append(one(file, policy, Detached(authority, b"another file").material))

    assert {outcome for outcome, _ in judged} == {"FAIL"}
