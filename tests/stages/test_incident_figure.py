"""What happened over an incident, drawn in the notebook and said in the report."""

from datetime import datetime, timedelta
from typing import Any

from runbook_lib.canonical import digest_bytes
from runbook_lib.checks import recovery
from runbook_lib.checks import recovery as telling
from runbook_lib.stage import Stage
from runbook_rehearsal.network import RehearsalNetwork

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
    """The report is filed all the same; the next run draws."""
    drawing = Drawing(network, telling.public_report)
    network.fault("prometheus-down@canary")
    drawing.run()
    network.clear("prometheus-down")

    assert "image/png" not in drawing.card
    assert "No figure" in drawing.card["text/plain"]
    assert not (drawing.folder / recovery.FILE).exists()
