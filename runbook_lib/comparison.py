"""Two windows side by side: a table, and the same as figures. It is shown, and judges no item."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from . import display
from .context import Context
from .errors import ParameterError, SourceError
from .files import replace_file

if TYPE_CHECKING:
    from .metrics.compare import Windows
    from .metrics.plots import Drawn


class Compare(Protocol):
    """Compares two windows metric by metric. Raises SourceError where there is nothing to compare."""

    __name__: str

    def __call__(self, context: Context) -> Windows: ...


@dataclass(frozen=True)
class Comparison:
    """What a comparison shows: a table, and the same as figures: ``overview`` and ``plot``."""

    card: display.Card
    folder: Path
    windows: Windows | None = None

    @classmethod
    def of(cls, compare: Compare, context: Context) -> Comparison:
        """What ``compare`` finds; its figures are kept in the attempt as well."""
        folder = context.folder / "figures"
        try:
            windows = compare(context)
        except SourceError as error:
            card = display.table_card("Nothing to compare with", ("why",), [(str(error),)])
            return cls(card, folder)
        columns = ("metric", "change", "interval", "tolerance", "outcome", "reason")
        rows = [one.row() for one in windows.compared]
        return cls(display.table_card("Now against before", columns, rows), folder, windows)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:
        return self.card._repr_mimebundle_()

    def overview(self) -> display.Card:
        """All metrics on one axis, each against its tolerance; without a comparison, why not."""
        return self._figure("overview", lambda windows: windows.overview())

    def plot(self, family: str = "") -> display.Card:
        """Each metric, or each of a family, over time and as judged; without a comparison, why not.

        Raises ParameterError for a family that no compared metric is of.
        """
        if family and self.windows is not None and family not in self.windows.families:
            known = ", ".join(self.windows.families) or "none"
            raise ParameterError(f"plot: family: expected one of {known}, got {family}")
        name = f"comparison-{family}" if family else "comparison"
        return self._figure(name, lambda windows: windows.figure(family))

    def _figure(self, name: str, draw: Callable[[Windows], Drawn]) -> display.Card:
        if self.windows is None or not self.windows.compared:
            return self.card
        png, text, data = draw(self.windows)
        self.folder.mkdir(exist_ok=True)
        replace_file(self.folder / f"{name}.png", png)
        return display.figure_card(png, text, data)
