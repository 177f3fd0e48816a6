"""What a check or change gets: its parameters, its site, and sources bound to its own tape scope.

One context lives for one try of one item. Everything it learns of the outside goes through
``scope``; everything it keeps goes into the attempt's folder or the record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import SourceError
from .evidence.record import Entry, Record
from .evidence.store import Store
from .outcomes import CheckResult, Row, Standing, explain, unknown_row, worst
from .site import Cluster, Site
from .sources.tape import Scope

if TYPE_CHECKING:
    from .changes.plan import Plan
    from .sources.commands import SiteCommands
    from .sources.forge import Forge
    from .sources.node import Fleet
    from .sources.prometheus import Prometheus


@dataclass
class Context:
    """``journal`` holds the record's entries this try may rely on; ``record`` is where it writes."""

    item: str
    stage: str
    params: Any  # the stage's own model; checks of a stage know which
    site: Site
    scope: Scope
    store: Store
    folder: Path
    record: Record
    journal: Sequence[Entry]
    standing: Callable[[str], Standing]
    plan: Plan | None = None
    attempt_name: str = ""

    @property
    def cluster_name(self) -> str:
        return self.site.stages[self.stage]  # type: ignore[index]

    @property
    def cluster(self) -> Cluster:
        return self.site.clusters[self.cluster_name]

    @property
    def now(self) -> datetime:
        """The instant this try judges at."""
        return self.scope.now()

    @cached_property
    def fleet(self) -> Fleet:
        from .sources.node import Fleet

        return Fleet(self.scope, self.cluster)

    @cached_property
    def commands(self) -> SiteCommands:
        from .sources.commands import SiteCommands

        return SiteCommands(self.scope, self.site.commands)

    @cached_property
    def forge(self) -> Forge:
        from .sources.forge import GitHub

        return GitHub(self.scope, self.site.forge)

    @cached_property
    def prometheus(self) -> Prometheus:
        from .sources.prometheus import Prometheus

        return Prometheus(self.scope, self.site.telemetry.prometheus)

    @property
    def matchers(self) -> Mapping[str, str]:
        """Labels that pick this cluster's series."""
        return self.site.telemetry.matchers.get(self.cluster_name, {})

    def conclude(
        self,
        rows: Sequence[Row],
        *,
        passed: str,
        empty: str,
        data: Mapping[str, Any] | None = None,
    ) -> CheckResult:
        """The result over ``rows``: the worst of them; of none, INCONCLUSIVE with ``empty``."""
        started = self.scope.now()
        return CheckResult(
            item=self.item,
            outcome=worst(row.outcome for row in rows),
            reason=explain(rows, passed, empty),
            rows=tuple(rows),
            started=started,
            ended=self.scope.reread(),
            inputs=self.scope.inputs,
            data=dict(data or {}),
        )

    def unreadable(self, what: str, expected: str, error: SourceError) -> Row:
        """The row for a source that could not be read."""
        return unknown_row(error.source, what, expected, error.problem)
