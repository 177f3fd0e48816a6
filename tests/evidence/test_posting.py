"""What the section says of the stage before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runbook_lib.evidence import posting
from runbook_lib.evidence.order import Earlier
from runbook_lib.evidence.posting import plan_digest, previous_stage
from runbook_lib.evidence.record import Entry
from runbook_lib.evidence.store import Store

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            Earlier(stage="testnet", attempt=2, outcome="PASS", manifest=DIGEST),
            f"testnet, attempt 2: PASS, manifest `{DIGEST}`",
        ),
        (
            Earlier(stage="testnet", attempt=2, outcome="FAIL", problem="expected PASS @all"),
            "testnet, attempt 2: FAIL; expected PASS &#64;&#8203;all",
        ),
        (Earlier(stage="testnet", problem="expected one, got none"), "testnet; expected one, got none"),
    ],
)  # fmt: skip
def test_the_stage_before_is_told_with_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Earlier, said: str
) -> None:
    """Its verdict, its manifest, and what keeps it from permitting this stage."""
    monkeypatch.setattr(posting, "earlier", lambda *given: found)
    scope: Any = None
    store = Store(tmp_path)

    assert previous_stage(scope, store, "v1", "c", "canary", "live") == said
    assert previous_stage(scope, store, "v1", "c", "development", "live") == (
        "none: development is the first"
    )


def test_the_newest_plan_counts() -> None:
    """An attempt may have none yet."""
    plans = [Entry(n, "", "", "plan", {"digest": f"sha256:{n}"}, "") for n in (1, 2)]

    assert (plan_digest([]), plan_digest(plans)) == ("", "sha256:2")
