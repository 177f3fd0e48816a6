"""What is read back of a node: the whole of it against the plan, waited for while it is silent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runbook_lib.changes.apply import read_back, runs_as_planned
from runbook_lib.changes.plan import NodePlan
from runbook_lib.changes.state import NodeState
from runbook_lib.context import Context
from runbook_lib.errors import SourceError
from runbook_lib.outcomes import Outcome

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
BEFORE = NodeState(gates={"a": False}, channel="canary", binary="sha256:1", config="sha256:1")
AFTER = NodeState(gates={"a": True}, channel="canary", binary="sha256:2", config="sha256:2")
NODE = NodePlan(node="n1", control="ours", before=BEFORE, after=AFTER)
UNREAD = SourceError("n1", "it is silent")


def context(answers_after: float = 0, **shown: Any) -> Any:
    """A node that answers after so many seconds, and differs from the plan in what is given."""
    made = SimpleNamespace(patience_s=10, slept=0.0)
    rollout = SimpleNamespace(
        feature_gates=shown.get("gates", AFTER.gates),
        release_channel=shown.get("channel", AFTER.channel),
    )

    def digest(what: str) -> Any:
        found = shown.get(what, "sha256:2")
        if isinstance(found, SourceError):
            raise found
        return SimpleNamespace(digest=found)

    def sleep(seconds: float) -> None:
        made.slept += seconds

    start = datetime(2026, 1, 1, tzinfo=UTC)
    asked = iter(range(100))
    made.scope = SimpleNamespace(reread=lambda: start + timedelta(seconds=made.slept), sleep=sleep)
    made.fleet = SimpleNamespace(
        rollout=lambda names: {
            names[0]: UNREAD if made.slept < answers_after and next(asked) >= 0 else rollout
        }
    )
    made.commands = SimpleNamespace(
        version=lambda node: digest("binary"), read_config=lambda node: digest("config")
    )
    return cast(Context, made)


@pytest.mark.parametrize(
    ("shown", "wrong"),
    [
        ({}, []),
        ({"channel": "mainnet"}, [("rollout.release_channel", FAIL)]),
        ({"gates": {"a": False}}, [("rollout.feature_gates.a", FAIL)]),
        ({"gates": {}}, [("rollout.feature_gates.a", FAIL)]),
        ({"gates": {"a": True, "b": False}}, [("rollout.feature_gates.b", FAIL)]),
        ({"binary": "sha256:1"}, [("binary", FAIL)]),
        ({"config": "sha256:1"}, [("config", FAIL)]),
        ({"binary": UNREAD}, [("binary", INCONCLUSIVE)]),
        ({"config": UNREAD}, [("config", INCONCLUSIVE)]),
    ],
)
def test_a_node_is_as_planned_only_with_all_of_it(
    shown: dict[str, Any], wrong: list[tuple[str, Outcome]]
) -> None:
    rows = read_back(context(**shown), NODE)

    assert [(row.what, row.outcome) for row in rows if row.outcome is not PASS] == wrong
    assert runs_as_planned(context(**shown), NODE) is (not wrong)


@pytest.mark.parametrize("silent", [FAIL, INCONCLUSIVE])
def test_a_node_that_is_silent_is_asked_again_until_the_patience_is_used_up(
    silent: Outcome,
) -> None:
    assert {row.outcome for row in read_back(context(answers_after=9), NODE, silent=silent)} == {
        PASS
    }
    (row,) = read_back(context(answers_after=11), NODE, silent=silent)

    assert (row.what, row.outcome) == ("comes back", silent)
    assert row.observed == "no answer within 10 s: it is silent"
    assert runs_as_planned(context(answers_after=1), NODE) is False
