"""Prometheus and Alertmanager of the rehearsal, real or embedded, on the same data.

History is laid from a fixed origin up to the wall's now, with what every loaded rule would have
made of it, and goes on from then: the embedded Prometheus holds it, the real one reads it from us.
The sample of rehearsal time t lies at wall time t - offset.
"""

from __future__ import annotations

import json
import math
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol

import httpx
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ..chain.world import World
from ..loopback import Loopback
from . import backends, rules
from .alertmanager import default_config
from .embedded import SCRAPE_MS
from .history import History
from .recorder import Recorder

Servers = Literal["embedded", "real"]
SPAN_S = 6 * 3600.0
STEP_S = 60.0
SETTLED_S = 15.0


class Backend(Protocol):
    """What serves the data; ``name`` is prometheus or alertmanager."""

    urls: dict[str, str]

    def publish(self, history: History) -> None:
        """Serve this history from now on, also when Prometheus was down."""

    def up(self, name: str) -> None: ...

    def down(self, name: str) -> None:
        """Refuse connections; the URL stays the same."""

    def stop(self) -> None: ...


class TelemetryServers:
    """Serves the world's telemetry under ``urls``; ``kind`` says by which servers.

    History begins at ``origin``, by default ``span_s`` ago, with a sample each ``step_s``. The rule
    files are all of ``<root>/prometheus/rules``; the rehearsal's own and the one that we ship for a
    rollout are written when they are missing.
    """

    def __init__(
        self,
        world: World,
        kind: Servers = "embedded",
        *,
        span_s: float = SPAN_S,
        step_s: float = STEP_S,
        origin: float | None = None,
    ) -> None:
        self.kind = kind
        self.world = world
        self.step_s = step_s
        genesis = min(cluster.genesis for cluster in world.clusters.values())
        self.origin = max(world.clock.now() - span_s if origin is None else origin, genesis)
        self._recorder = Recorder(world, self.origin)
        self._loopback = Loopback()
        self._down: set[str] = set()
        self._lock = threading.RLock()
        self._read: tuple[dict[str, bytes], list[rules.Rule]] = {}, []
        self._backend: Backend
        self._history: History

    @property
    def urls(self) -> dict[str, str]:
        """Where ``prometheus`` and ``alertmanager`` answer; the same until ``stop``."""
        return dict(self._backend.urls)

    def start(self) -> None:
        """Write configurations and rules, lay the history, answer. Raises ValueError for a rule
        that cannot be evaluated."""
        root = self.world.root
        for folder in ("prometheus/rules", "alertmanager/data"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for name, source in (("rehearsal", rules.OWN_RULES), ("rollout", rules.SHIPPED_RULES)):
            loaded = root / "prometheus" / "rules" / f"{name}.yaml"
            if not loaded.exists():
                loaded.write_bytes(source.read_bytes())
        self._loopback.start()
        host, port = self._loopback.listen(self._own_app())
        own = f"http://{host}:{port}"
        config = yaml.safe_dump(default_config(f"{own}/pager"), sort_keys=False)
        (root / "alertmanager" / "alertmanager.yml").write_text(config)
        try:
            if self.kind == "real":
                self._backend = backends.Real(self.world, own)
            else:
                self._backend = backends.Embedded(self._loopback, root)
            self._lay()
            self._settle(0)
        except BaseException:
            self.stop()
            raise

    def forget_silences(self) -> None:
        """Drop every silence that the embedded Alertmanager remembers, those that ended as well."""
        if isinstance(self._backend, backends.Embedded):
            self._backend.forget_silences()

    def stop(self) -> None:
        """End every process, thread and listener."""
        if hasattr(self, "_backend"):
            self._backend.stop()
        self._loopback.stop()

    def relay(self, seconds: float = 0.0) -> None:
        """Let the clock run ahead by ``seconds``, made whole, and lay what lies between.

        The whole history is laid again where the past has changed: with 0, with other rules, and as
        a fault of what is measured has been on for a while when it is declared. Silences that ended
        meanwhile expire, and alerts that did are posted as resolved. Raises ValueError before
        anything changes when a rule cannot be read.
        """
        seconds = math.ceil(seconds)
        with self._lock:
            loaded = self._rules()
            if seconds and "prometheus" not in self._down and self._history.holds(loaded):
                self._history.skip(seconds)
                self._backend.publish(self._history)
            else:
                rules.check(loaded)
                self.world.clock.advance(seconds)
                self._lay()
            if "alertmanager" not in self._down:
                self._settle(seconds)

    def settle(self) -> None:
        """Wait until a real Prometheus has found its Alertmanager and evaluated its rules.

        For some seconds after a start it sends alerts to nobody.
        """
        deadline = time.monotonic() + SETTLED_S
        while self.kind == "real" and not self._down and time.monotonic() < deadline:
            api = f"{self._backend.urls['prometheus']}/api/v1"
            with httpx.Client(trust_env=False, timeout=5) as client:
                known = client.get(f"{api}/alertmanagers").json()["data"]["activeAlertmanagers"]
                groups = client.get(f"{api}/rules").json()["data"]["groups"]
            if known and all(r["health"] != "unknown" for g in groups for r in g["rules"]):
                return
            time.sleep(0.2)

    def down(self, name: str) -> None:
        """Take ``prometheus`` or ``alertmanager`` away: connections are refused."""
        with self._lock:
            self._down.add(name)
            self._backend.down(name)

    def up(self, name: str) -> None:
        """Bring it back, with the history it missed."""
        with self._lock:
            self._down.discard(name)
            if name == "prometheus":
                self._lay()
            else:
                self._backend.up(name)

    def _rules(self) -> list[rules.Rule]:
        """Those of all files, read when one has changed."""
        folder = self.world.root / "prometheus" / "rules"
        texts = {path.name: path.read_bytes() for path in folder.glob("*.y*ml")}
        if texts != self._read[0]:
            self._read = texts, rules.load(folder)
        return self._read[1]

    def _lay(self) -> None:
        """History and alerts from the origin to now, served unless Prometheus is down."""
        loaded = self._rules()
        rules.check(loaded)
        self._history = History(self._recorder, loaded, self.step_s)
        if "prometheus" not in self._down:
            self._backend.publish(self._history)

    def _settle(self, seconds: int) -> None:
        """Tell the Alertmanager what ended in the time skipped, and what fires.

        The latter it would hear from Prometheus too, but not before Prometheus has found it.
        """
        now, skipped, engine = datetime.now(UTC), timedelta(seconds=seconds), self._history.engine
        with self._history.lock:
            firing = [replace(each) for each in engine.active.values() if each.firing]
        fires = [alert.labels for alert in firing]
        known = {rule.name for rule in engine.rules}

        def ended(alert: dict[str, Any]) -> bool:
            if alert["labels"].get("alertname") in known:
                return alert["labels"] not in fires
            return datetime.fromisoformat(alert["endsAt"]) - skipped <= now

        api = self._backend.urls["alertmanager"] + "/api/v2"
        # On loopback and without TLS: reading the authorities would take longer than all of this.
        with httpx.Client(base_url=api, trust_env=False, timeout=10, verify=False) as client:  # noqa: S501 - no TLS
            for silence in client.get("/silences").raise_for_status().json():
                ends = datetime.fromisoformat(silence["endsAt"])
                if silence["status"]["state"] != "expired" and ends - skipped <= now:
                    client.delete(f"/silence/{silence['id']}").raise_for_status()
            there = client.get("/alerts").raise_for_status().json()
            over = [
                {"labels": alert["labels"], "endsAt": now.isoformat()}
                for alert in there
                if ended(alert)
            ]
            holds = [backends.posted(alert, now, self._backend.urls) for alert in firing]
            client.post("/alerts", json=over + holds).raise_for_status()

    def _own_app(self) -> Starlette:
        """What the servers themselves need: nodes, the history, and a pager that takes notes."""

        async def metrics(request: Request) -> Response:
            up = self._recorder.is_up(request.path_params["node"])
            return PlainTextResponse("", status_code=200 if up else 503)

        async def read(request: Request) -> Response:
            from .remote import HEADERS, read  # pyarrow: only when a real Prometheus asks

            # Not in threads: each would keep the memory that one takes.
            answer = read(self._history, SCRAPE_MS, await request.body())
            return Response(answer, headers=HEADERS)

        async def pager(request: Request) -> Response:
            page = json.loads(await request.body())
            with (self.world.root / "alertmanager" / "pages.jsonl").open("a") as file:
                file.write(json.dumps(page) + "\n")
            return Response(status_code=200)

        routes: list[Any] = [
            Route("/metrics/{node}", metrics),
            Route("/read", read, methods=["POST"]),
            Route("/pager", pager, methods=["POST"]),
        ]
        return Starlette(routes=routes)
