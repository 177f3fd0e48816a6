"""The development baseline: captured after the deploy, pinned by digest, and drawn."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from .. import playbook
from ..context import Context, judges
from ..errors import SourceError
from ..evidence.order import effect
from ..fields import parse_instant
from ..files import replace_file
from ..metrics.catalogue import Catalogue, parse_catalogue
from ..outcomes import CheckResult, Outcome, unknown_row, worst
from ..strict import project_path

if TYPE_CHECKING:
    from ..metrics.baseline import Captured

CATALOGUE = "params/metrics.yaml"
FILE = "metrics/baseline.parquet"
DEPLOY = "development.activate.deploy"


@judges("development.activate.baseline")
def baseline(context: Context) -> CheckResult:
    """Consensus latency, proof queue depth and VRF participation of the new build.

    The window is anchored at the instant the journal says the last node took the build, past its
    restart, so that a later return judges the same window. Playbook: activation, 3.
    """
    from ..metrics import baseline as capturing

    start = effect(context.journal, DEPLOY) + capturing.SETTLE
    end = start + timedelta(hours=context.params.baseline_hours)
    if context.now < end:
        expected = f"over at {end:%Y-%m-%d %H:%M:%S} UTC"
        row = unknown_row("baseline", "window", expected, "still open", return_at=end)
        return context.conclude([row], passed="", empty="")
    if context.params.as_of and parse_instant(context.params.as_of) < end:
        raise SourceError(
            "as_of", f"expected an instant after {end.isoformat()}, got an earlier one"
        )
    catalogue = read_catalogue(context)
    captured, rows = capturing.capture(
        context.prometheus, catalogue, playbook.BASELINE_TOPICS, context.matchers, start, end
    )
    for one in captured:
        rows += capturing.judge(one, context.params.max_missing)
    load = load_of(context, catalogue, start, end)
    captured += load
    digest = capturing.content_digest(captured, start, end)
    about: dict[str, Any] = {
        "release": context.params.release,
        "cluster": context.cluster_name,
        "start": start.isoformat(),
        "end": end.isoformat(),
        "digest": digest,
        "epoch_length": context.cluster.epoch_length,
        "validators": len(context.cluster.nodes),
    }
    if load:
        about["load"] = capturing.mean(load[0], context.params.max_missing)
    path = context.folder / FILE
    capturing.write(captured, path, about)
    if worst(row.outcome for row in rows) is Outcome.PASS:
        context.store.pin(context.cluster_name, digest, path)
    unknown = (
        ""
        if load or catalogue.load is None
        else "; its load is unknown, so that it compares with none"
    )
    return context.conclude(
        rows,
        passed=f"{len(captured)} metrics captured over {end - start}, pinned as {digest[:19]}{unknown}",
        empty="the catalogue names no metric of the playbook's topics",
        data={**about, "metrics": {one.metric.name: one.query for one in captured}},
    )


def load_of(
    context: Context, catalogue: Catalogue, start: datetime, end: datetime
) -> list[Captured]:
    """What the cluster was asked to do; nothing where that cannot be told.

    No item of the playbook asks for it, so that its absence blocks nothing: it only leaves the
    baseline comparable with no other.
    """
    from ..metrics import baseline as capturing
    from ..metrics.catalogue import LOAD

    if catalogue.load is None:
        return []
    found, _ = capturing.capture(
        context.prometheus, catalogue, (LOAD,), context.matchers, start, end
    )
    allowed = context.params.max_missing
    return [one for one in found if capturing.mean(one, allowed) is not None]


def baseline_figure(context: Context) -> tuple[bytes, str, dict[str, object]] | None:
    """What was captured, each metric with its limit, and what happened; None when nothing was."""
    from ..metrics import baseline as capturing
    from ..metrics import pinned
    from .marks import happened

    path = context.folder / FILE
    if not path.exists():
        return None
    names = {node.validator: node.name for node in context.cluster.nodes}
    about, frames = pinned.parse(path.read_bytes(), FILE)
    if not frames:
        return None
    marks, note = happened(context, about.start, about.end)
    drawn = capturing.draw(frames, read_catalogue(context), names, marks, note)
    figures = context.folder / "figures"
    figures.mkdir(exist_ok=True)
    replace_file(figures / "baseline.png", drawn.png)
    return drawn.png, drawn.text, drawn.data


def read_catalogue(context: Context) -> Catalogue:
    """The metric catalogue. Raises ParameterError, SourceError."""
    return parse_catalogue(context.scope.read(project_path(CATALOGUE)), CATALOGUE)
