"""What happened over an incident, drawn in the notebook and said in the report."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from runbook_lib.canonical import digest_bytes
from runbook_lib.checks import recovery
from runbook_lib.checks import recovery as telling
from runbook_lib.context import Context
from runbook_lib.evidence.events import Event
from runbook_lib.plan import NodeState
from runbook_lib.stage import Stage
from runbook_rehearsal.network import RehearsalNetwork

from ..events import event
from .conftest import entries
from .telling import Recovery, made, network

__all__ = ["made", "network"]


class Drawing(Recovery):
    """A recovery whose notebook draws before it tells."""

    card: dict[str, Any]

    def _walk(self, stage: Stage) -> Any:
        self.card = stage.plot(recovery.what_happened)._repr_mimebundle_()[0]
        return super()._walk(stage)


def test_the_notebook_draws_what_happened(network: RehearsalNetwork) -> None:
    """From before the apply until now, kept in the attempt; replayed it is the same."""
    drawing = Drawing(network, telling.public_report)
    drawing.run()
    [drawn] = [e for e in entries(drawing.folder) if e["kind"] == "figure"]
    begun = datetime.fromisoformat(entries(drawing.folder)[0]["now"])

    assert "image/png" in drawing.card  # that of the replay
    assert digest_bytes((drawing.folder / drawn["file"]).read_bytes()) == drawn["digest"]
    assert datetime.fromisoformat(drawn["start"]) <= begun - timedelta(minutes=30)
    for title in ("Blocks produced per scheduled slot", "VRF participation", "recovery opened by"):
        assert title in drawn["text"]


def test_without_telemetry_it_says_why_there_is_none(network: RehearsalNetwork) -> None:
    """The report is filed all the same; the next try draws."""
    drawing = Drawing(network, telling.public_report)
    network.fault("prometheus-down@canary")
    drawing.run()
    network.clear("prometheus-down")

    assert "image/png" not in drawing.card
    assert "No figure" in drawing.card["text/plain"]
    assert not (drawing.folder / recovery.FILE).exists()


def test_the_gates_are_drawn_as_they_were_read_back() -> None:
    """A node counts from the instant that the journal says; what comes later is not known yet."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    off, on = ({"timetoke_rewards": value, "witness_network": False} for value in (False, True))
    made = SimpleNamespace(plan=SimpleNamespace(recovery=lambda: {"a": state(off), "b": state(on)}))
    journal = [
        seen("a", start + timedelta(minutes=2), on),
        seen("b", start + timedelta(minutes=9), off),
    ]
    context = SimpleNamespace(stage="canary")
    until = recovery._until(start + timedelta(minutes=5), journal)
    [drawn] = recovery._gates(
        cast(Context, context), cast(Any, made), until, start, start + timedelta(minutes=5)
    )

    assert drawn.title == "Nodes of the undone plan with the gate on, of 2"
    assert np.array_equal(drawn.lines["timetoke_rewards"], [1, 1, 2, 2, 2, 2])
    assert not drawn.lines["witness_network"].any()


def state(gates: dict[str, bool]) -> NodeState:
    return NodeState(gates=gates, channel="canary", binary="sha256:b", config="sha256:c")


def seen(node: str, at: datetime, gates: dict[str, bool]) -> Event:
    return event("state", node=node, at=at, state=state(gates))
