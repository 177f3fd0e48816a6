"""What a check or change gets: its parameters, its site, and sources bound to its own tape scope.

One context lives for one run of one item. Everything it learns of the outside goes through
``scope``; everything it keeps goes into the attempt's folder or the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from .canonical import digest, digest_bytes
from .errors import Answers, SourceError
from .evidence.events import Event, Opened, PolicyAccepted, of
from .evidence.ledger import Earlier, Ledger
from .evidence.log import Log, opened_by
from .evidence.store import Store
from .findings import Findings
from .outcomes import CheckResult, Row, explain, worst
from .playbook import NOW_SOURCE_LAG
from .site import POLICY, Cluster, Site
from .sources.alertmanager import Alertmanager
from .sources.commands import SiteCommands
from .sources.github import GitHub
from .sources.node import Fleet
from .sources.prometheus import Prometheus
from .sources.scope import Scope
from .strict import parse_instant, project_path

if TYPE_CHECKING:
    from .plan import Plan


T = TypeVar("T")
AT_ONCE = 16


@dataclass
class Context(Findings):
    """``journal`` holds the log's events this run may rely on; ``log`` is where it writes.

    ``private`` is a folder of ours alone, outside the evidence, for files that hold secrets.
    ``require_going_on`` raises Stopped once a recovery undoes this attempt, LockHeld once the
    cluster's lock is not ours.
    """

    item: str
    stage: str
    params: Any  # the stage's own model; checks of a stage know which
    site: Site
    scope: Scope
    store: Store
    folder: Path
    log: Log
    journal: Sequence[Event]
    plan: Plan | None = None
    attempt_name: str = ""
    source: str = "live"
    private: Path = Path()
    require_going_on: Callable[[], None] = lambda: None

    @property
    def so_far(self) -> list[Event]:
        """The journal and what was recorded since, newest last; may contain duplicates.

        In a replay the log holds nothing of earlier runs, and live the journal nothing of now.
        """
        return [*self.journal, *self.log.events()]

    @property
    def opened(self) -> Opened:
        """What this attempt was opened with. Raises LogDamaged."""
        return opened_by(self.journal or self.log.events(), self.attempt_name)

    @property
    def cluster_name(self) -> str:
        return self.site.cluster_name(self.stage)

    @property
    def cluster(self) -> Cluster:
        return self.site.clusters[self.cluster_name]

    def on(self, stage: str) -> Context:
        """The same run, looking at the cluster of another stage; it has no plan for that one."""
        return replace(self, stage=stage, plan=None)

    @property
    def now(self) -> datetime:
        """The instant this run judges at."""
        return self.scope.now()

    def require_now(self, what: str) -> None:
        """Raises SourceError when ``as_of`` asks for the past of what has none."""
        as_of = self.params.as_of
        if as_of and self.now - parse_instant(as_of) > NOW_SOURCE_LAG:
            raise SourceError(
                "as_of",
                f"expected an instant of the last {NOW_SOURCE_LAG}, got {as_of}: {what} have no past",
            )

    @cached_property
    def fleet(self) -> Fleet:
        """The cluster's nodes. They have no past: SourceError when ``as_of`` asks for one."""
        self.require_now("nodes")
        return Fleet(self.scope, self.cluster)

    @property
    def at(self) -> datetime:
        """The instant to judge metrics at."""
        return parse_instant(self.params.as_of) if self.params.as_of else self.now

    @cached_property
    def commands(self) -> SiteCommands:
        return SiteCommands(self.scope, self.site.commands)

    @cached_property
    def forge(self) -> GitHub:
        return GitHub(self.scope, self.site.forge)

    @cached_property
    def prometheus(self) -> Prometheus:
        return Prometheus(self.scope, self.site.telemetry.prometheus)

    @cached_property
    def ledger(self) -> Ledger:
        """What the store's logs say, by the tape."""
        return Ledger(self.store, self.scope)

    @cached_property
    def earlier_stage(self) -> Earlier:
        """The attempt of the stage before that permits this one. Raises SourceError for none."""
        params, trust = self.params, self.site.trust
        found = self.ledger.earlier(params.release, params.commit, self.stage, self.source, trust)
        if problem := found.refused(self.policies):
            raise SourceError(f"{params.release}/{found.stage}", problem)
        return found

    @property
    def policies(self) -> frozenset[str]:
        """The site's policy digest, and those after which somebody else accepted it."""
        changes = of(self.journal, PolicyAccepted)
        return frozenset({self.site.policy_digest, *(change.before for change in changes)})

    @cached_property
    def alertmanager(self) -> Alertmanager:
        """Where alerts go. It has no past: SourceError when ``as_of`` asks for one."""
        self.require_now("alerts")
        return Alertmanager(self.scope, self.site.telemetry.alertmanager)

    @property
    def matchers(self) -> Mapping[str, str]:
        """Labels that pick this cluster's series."""
        return self.site.telemetry.matchers.get(self.cluster_name, {})

    @property
    def patience_s(self) -> float:
        """How long a node may take to answer after a restart: what the site allows the restart."""
        restart = self.site.commands.restart
        return restart.timeout_s if restart is not None else 60.0

    def limits(self) -> str:
        """The digest of what else limits this stage: parameters, site and metric catalogue."""
        catalogue = digest_bytes(self.scope.read(project_path("params/metrics.yaml")))
        site = self.site.model_dump(mode="json", exclude=set(POLICY))
        return digest({"params": self.params.policy(), "site": site, "metrics": catalogue})

    def conclude(
        self,
        rows: Sequence[Row] | None = None,
        *,
        passed: str = "",
        empty: str = "",
        data: Mapping[str, Any] | None = None,
    ) -> CheckResult:
        """The result over the findings, or ``rows``: the worst; of none INCONCLUSIVE: ``empty``."""
        started, rows = self.scope.now(), self.findings if rows is None else rows
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

    def each(self, ask: Callable[[str], T], names: Sequence[str] | None = None) -> Answers[str, T]:
        """``ask`` of every node (or of ``names``), several at a time."""
        if names is None:
            names = [node.name for node in self.cluster.nodes]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return Answers(ask, names, pool.map)


class Judge(Protocol):
    """A check function; ``item`` is the playbook's id of what it judges."""

    item: str

    def __call__(self, context: Context) -> CheckResult: ...


def judges(item: str) -> Callable[[Callable[[Context], CheckResult]], Judge]:
    """Names the item a check function judges."""

    def named(function: Callable[[Context], CheckResult]) -> Judge:
        judge = cast(Judge, function)
        judge.item = item
        return judge

    return named
