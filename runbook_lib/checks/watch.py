"""mainnet.activate.watch: 24 h of looks at most 15 min apart, then the whole window judged once."""

from __future__ import annotations

from ..context import Context, judges
from ..outcomes import CheckResult
from ..params import MainnetParams
from .rounds import Watching

ITEM = "mainnet.activate.watch"


def expected(context: Context) -> tuple[str, str]:
    """What must hold, and its threshold."""
    params: MainnetParams = context.params
    looks = f"looks at most {params.look_minutes:g} min apart"
    return "the cluster is watched and nothing is undecided", f"{params.watch_hours:g} h, {looks}"


@judges(ITEM)
def watch(context: Context) -> CheckResult:
    """Make the looks that are due, engage who must know, and at the end judge the whole window.

    Playbook: mainnet, activation, 3.
    """
    watching = Watching(context)
    while True:
        rows = watching.look(judge=True)
        due = watching.due()
        if due is None or not context.wait_until(due, watching.waits_for()):
            break
    hours = f"{context.params.watch_hours:g} h"
    return context.conclude(
        rows,
        passed=f"{hours} watched in {len(watching.all)} looks, nothing left undecided",
        empty="no look",
        data={"anchor": watching.slots.anchor.isoformat(), "end": watching.slots.end.isoformat()},
    )
