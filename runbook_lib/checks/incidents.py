"""What each recovery tells: the incident, the governance incident, the public report, the council."""

from __future__ import annotations

from collections.abc import Callable

from ..changes.apply import Applier, Change
from ..changes.convening import convene, plan_council
from ..changes.incident_report import Audience, file_incident, plan_incident
from ..context import Context
from ..outcomes import CheckResult, Row

Tell = Callable[[Context, Applier], list[Row]]


def _change(item: str, plan: Callable[[Context], list[Row]], tell: Tell, passed: str) -> Change:
    def apply(context: Context, applier: Applier) -> CheckResult:
        rows = tell(context, applier)
        return context.conclude(rows, passed=passed, empty="nothing was told")

    return Change(item, plan, apply, exclusive=False)


def _filed(item: str, audience: Audience, passed: str) -> Change:
    def plan(context: Context) -> list[Row]:
        return plan_incident(context, audience)

    def tell(context: Context, applier: Applier) -> list[Row]:
        return file_incident(context, applier, audience)

    return _change(item, plan, tell, passed)


incident = _filed(
    "development.recover.incident",
    "internal",
    "an incident is open with its metrics, filed and read back; it blocks promotion",
)
governance_incident = _filed(
    "testnet.recover.governance-incident",
    "governance",
    "filed with its impact and the gates of every node, read back",
)
public_report = _filed(
    "canary.recover.public-report",
    "public",
    "the report is out with mitigations and next steps, read back",
)
council = _change(
    "mainnet.recover.council",
    plan_council,
    convene,
    "the council was convened, its decision is recorded",
)
