"""Two servers, dashboards and rules of our own, looked at as the preflight does."""

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs

import httpx
import yaml

from runbook_lib.checks.observability import observability
from runbook_lib.context import Context
from runbook_lib.outcomes import CheckResult, Outcome
from runbook_lib.params import StageParams
from runbook_lib.reach import Endpoint
from runbook_lib.site import Dashboards, Site, Telemetry, parse_site
from runbook_lib.strict import PROJECT, Range

from ..conftest import not_passed
from ..sources.conftest import World as Scopes

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
TOPICS = ("consensus_health", "proof_latency", "vrf_participation", "network_churn")
PAGER = {"name": "pager", "webhook_configs": [{"url": "http://pager"}]}
NEVER = "0001-01-01T00:00:00Z"


def iso(age_s: float = 0.0) -> str:
    return (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat()


class World:
    """What the two servers hold; a test changes it before the check looks."""

    def __init__(self, root: Path) -> None:
        self.root, self.posted = root, cast(list[dict[str, Any]], [])
        self.value, self.age, self.values = "1", 5.0, cast(dict[str, list[Any]], {})
        self.rules = [
            self.rule("Watchdog", "vector(1)", "none", self.alert("none")),
            self.rule("Stall", "rate(x[2m]) == 0", "critical"),
        ]
        self.alertmanagers = ["http://am/api/v2/alerts"]
        self.config: dict[str, Any] = {
            "route": {"receiver": "null", "routes": [
                {"receiver": "pager", "matchers": ['severity=~"page|critical"']}]},
            "receivers": [{"name": "null"}, PAGER],
        }  # fmt: skip
        self.alerts = [self.held({"alertname": "Watchdog"})]
        self.silences: list[dict[str, Any]] = []
        self.panel: dict[str, Any] = {"title": "P", "type": "stat", "targets": [{"expr": "x"}]}
        self.steps("green", None, "red", 80)
        (root / "rules.yaml").write_text(
            "groups: [{name: g, rules: [{alert: Stall, expr: 'rate(x[2m])==0',"
            " labels: {severity: critical}}]}]"
        )

    def steps(self, *parts: Any) -> None:
        steps = [{"color": c, "value": v} for c, v in zip(parts[::2], parts[1::2], strict=True)]
        self.panel["fieldConfig"] = {"defaults": {"thresholds": {"steps": steps}}}

    def rule(self, name: str, query: str, severity: str, *alerts: Any, **more: Any) -> Any:
        return {"name": name, "type": "alerting", "query": query, "health": "ok", "state": "inactive",
                "lastEvaluation": iso(), "labels": {"severity": severity}, "annotations": {},
                "alerts": list(alerts), "duration": 0, **more}  # fmt: skip

    def alert(self, severity: str, **more: Any) -> Any:
        return {"labels": {"severity": severity, **more.pop("labels", {})}, "annotations": {},
                "state": "firing", "activeAt": iso(60), **more}  # fmt: skip

    def held(self, labels: dict[str, str], **more: Any) -> Any:
        status = {"state": "active", "silencedBy": [], "inhibitedBy": []}
        return {"labels": labels, "annotations": {}, "startsAt": iso(99), "endsAt": iso(-99),
                "updatedAt": iso(9), "status": status, "receivers": [{"name": "pager"}], **more}  # fmt: skip

    def silence(self, *matchers: tuple[str, str], starts: float = 60, ends: float = -3600) -> None:
        state = "pending" if starts < 0 else "active" if ends < 0 else "expired"
        self.silences.append({
            "id": "0123456789", "status": {"state": state}, "createdBy": "ada", "comment": "",
            "matchers": [{"name": n, "value": v, "isRegex": False} for n, v in matchers],
            "startsAt": iso(starts), "endsAt": iso(ends),
        })  # fmt: skip

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("/query"):
            return self._query(parse_qs(request.content.decode())["query"][0])
        if path.endswith("/rules"):
            group = {"name": "g", "file": "f", "interval": 15.0, "rules": self.rules}
            return _success({"groups": [group]})
        if path.endswith("/alertmanagers"):
            return _success({"activeAlertmanagers": [{"url": url} for url in self.alertmanagers]})
        if request.method == "POST":
            [alert] = json.loads(request.content)
            self.posted.append(alert)
            self.alerts.append(self.held(alert["labels"]))
            return httpx.Response(200)
        bodies = {
            "status": {"versionInfo": {"version": "0.25.0"},
                       "config": {"original": yaml.safe_dump(self.config)}},
            "alerts": self.alerts,
            "silences": self.silences,
        }  # fmt: skip
        return httpx.Response(200, json=bodies[path.rpartition("/")[2]])

    def _query(self, query: str) -> httpx.Response:
        now = datetime.now(UTC).timestamp()
        if query.startswith("count(present_over_time("):
            values = [] if "gone" in query else [1.0]
        elif query.startswith("timestamp("):
            values = [now - self.age] if self.age < 300 else []
        elif query.startswith("present_over_time("):
            values = [1.0] if self.age < 3600 else []
        else:
            values = self.values.get(query, [self.value])
        result = [{"metric": {"i": str(i)}, "value": [now, str(v)]} for i, v in enumerate(values)]
        return _success({"resultType": "vector", "result": result})


def _success(data: Any) -> httpx.Response:
    return httpx.Response(200, json={"status": "success", "data": data})


@cache
def example() -> Site:
    return parse_site((PROJECT / "params/sites/example.yaml").read_bytes(), "example.yaml")


class Look:
    """The check over such a world; ``rows`` of what is not PASS."""

    def __init__(self, root: Path) -> None:
        self.world, self.tape, self.root = World(root), root / "tape", root
        self.scopes = Scopes(self.tape)

    def site(self, limits: dict[str, Range] | None = None, **telemetry: Any) -> Site:
        given = {
            "prometheus": Endpoint(url="http://prom"),
            "alertmanager": Endpoint(url="http://am"),
            "matchers": {"development": {"cluster": "dev"}, "testnet": {"cluster": "dev"}},
            "paging_labels": {"team": "a"},
            "rules": [str(self.root / "rules.yaml")],
            "backends": ["prometheus"],
        }
        path = self.root / "d.json"
        path.write_text(json.dumps({"title": "D", "panels": [self.world.panel]}))
        topics: Any = {key: [str(path)] for key in TOPICS}
        boards = Dashboards(topics=topics, limits=limits or {})
        changes = {"telemetry": Telemetry(**{**given, **telemetry}), "dashboards": boards}
        return example().model_copy(update=changes)

    def __call__(self, **given: Any) -> CheckResult:
        return observability(self.context(**given))

    def context(
        self,
        *,
        site: Site | None = None,
        stage: str = "development",
        replay: bool = False,
        params: StageParams | None = None,
        **given: Any,
    ) -> Context:
        item, nothing = "preflight.observability", cast(Any, None)
        live = None if replay else self.scopes.scope(lambda r: self.world.answer(r), item=item)
        return Context(
            item=item, stage=stage, params=params or StageParams(release="v1", **given),
            site=site or self.site(), scope=live or self.scopes.replay(item=item),
            store=nothing, folder=self.root, log=nothing,
            journal=(), attempt_name="v1/testnet/0001",
        )  # fmt: skip

    def bad(self, **more: Any) -> list[Any]:
        return not_passed(self(**more).rows, "outcome", "subject", "what", "observed")
