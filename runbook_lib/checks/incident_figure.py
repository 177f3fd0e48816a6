"""What happened over an incident, as a figure: the chain and the gates from before the apply until now.

It judges nothing. Drawn before the report is filed, the report says the same in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from .. import playbook
from ..canonical import digest_bytes
from ..changes.undone import Undone, undone
from ..context import Context
from ..errors import SourceError
from ..evidence.record import Entry
from ..files import replace_file
from .baselines import read_catalogue
from .marks import happened
from .pinning import names_of

if TYPE_CHECKING:
    from ..metrics.plotdata import Mark, PlotSeries
    from ..metrics.plots import Drawn

FILE = "figures/incident.png"
TOPICS = ("block_production", "finality_lag", "vrf_participation")
BEFORE, LONGEST = timedelta(minutes=30), timedelta(hours=6)


def what_happened(context: Context) -> Drawn:
    """The figure, kept in the attempt as well. Raises SourceError when no metric can be read.

    Of what took longer the last six hours are drawn. A metric without data is named under the panels.
    """
    from ..metrics.baseline import capture, plotted
    from ..metrics.plots import baseline_figure

    end = context.at
    made, problem = _undone(context)
    entries = _until(end, [*(made.entries if made is not None else ()), *context.journal])
    start = max(datetime.fromisoformat(entries[0].body["now"]) - BEFORE, end - LONGEST)
    captured, missing = capture(
        context.prometheus, read_catalogue(context), TOPICS, context.matchers, start, end
    )
    if not captured:
        raise SourceError("the figure", f"{missing[0].subject}: {missing[0].observed}")
    series = [plotted(one.metric, one.frame.values, names_of(context)) for one in captured]
    series += _gates(context, made, entries, start, end)
    marks, note = happened(replace(context, journal=entries), start, end)
    lost = [f"{row.subject}: no data" for row in missing]
    notes = "; ".join(filter(None, [note, problem, *lost]))
    drawn = baseline_figure(series, marks=[*_opened(context), *marks], note=notes)
    path = context.folder / FILE
    path.parent.mkdir(exist_ok=True)
    replace_file(path, drawn.png)
    body = {"file": FILE, "digest": digest_bytes(drawn.png), "text": drawn.text}
    context.record.append("figure", {**body, "from": start.isoformat(), "to": end.isoformat()})
    return drawn


def _undone(context: Context) -> tuple[Undone | None, str]:
    """The apply that is undone, and why it is not known."""
    try:
        return undone(context), ""
    except SourceError as error:
        return None, str(error).splitlines()[0][:160]


def _until(end: datetime, entries: Sequence[Entry]) -> list[Entry]:
    """What had happened by then: a replay has the record to its end."""
    return [
        e
        for e in entries
        if e.kind not in ("state", "step") or datetime.fromisoformat(e.body["at"]) <= end
    ]


def _opened(context: Context) -> list[Mark]:
    from ..metrics.plotdata import Mark

    body = context.journal[0].body
    return [Mark(datetime.fromisoformat(body["now"]), f"recovery opened by {body['operator']}")]


def _gates(
    context: Context,
    made: Undone | None,
    entries: Sequence[Entry],
    start: datetime,
    end: datetime,
) -> list[PlotSeries]:
    """On how many nodes of the undone plan each gate is on, as they were read back."""
    import numpy as np

    from ..metrics.baseline import STEP
    from ..metrics.plotdata import PlotSeries

    gates = playbook.GATE_STEPS[context.stage]
    if made is None or not gates:
        return []
    now = {name: state.gates for name, state in made.plan.recovery().items()}
    seen = [
        (datetime.fromisoformat(e.body["at"]), e.body["node"], e.body["state"]["gates"])
        for e in entries
        if e.kind == "state"
    ]
    instants = [start + STEP * number for number in range((end - start) // STEP + 1)]
    values: dict[str, list[int]] = {gate: [] for gate in gates}
    for at in instants:
        now |= {node: found for when, node, found in seen if when <= at and node in now}
        for gate in gates:
            values[gate].append(sum(bool(found.get(gate)) for found in now.values()))
    times = np.array([at.replace(tzinfo=None) for at in instants], dtype="datetime64[ms]")
    title = f"Nodes of the undone plan with the gate on, of {len(now)}"
    return [PlotSeries(title, "nodes", times, values, step=STEP.total_seconds())]
