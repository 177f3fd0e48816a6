"""Several nodes at once, as only a recovery takes them: nothing waits for anything then."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ..context import AT_ONCE, Context
from ..outcomes import Row
from .apply import Applier


def lanes(
    context: Context,
    applier: Applier,
    names: Sequence[str],
    about: str,
    do: Callable[[Context, Applier, str], list[Row]],
) -> dict[str, list[Row]]:
    """``do`` of several nodes at a time, each in a lane of its own, so that a replay tells them
    apart: named by the node and what it is ``about``.
    """

    def one(name: str) -> list[Row]:
        mine = replace(context, scope=context.scope.lane(f"{name}{about}"))
        return do(mine, replace(applier, context=mine, rows=[]), name)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(names, pool.map(one, names), strict=True))
