"""Prometheus and Alertmanager of the rehearsal, real or embedded, on the same data.

History is laid from a fixed origin up to now, and goes on from then: the embedded Prometheus holds
it, the real one reads it from us.
"""

import math
import shutil
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import httpx
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ..chain.world import World
from ..loopback import Listener, Loopback
from . import processes, rules
from .alertmanager import EmbeddedAlertmanager, default_config
from .embedded import EmbeddedPrometheus, ready
from .history import History
from .recorder import JOB, Recorder
from .rules import Alert
from .tsdb import Key, key_of

Servers = Literal["embedded", "real"]
SETTLED_S = 15.0
HOLDS = timedelta(minutes=3)  # how long an alert is active without being posted again


class Real:
    """Server processes; Prometheus reads the history from us, at ``own``. It scrapes whether nodes
    are up; what it keeps is dropped when the clock runs ahead. Alerts need it started anew."""

    def __init__(self, world: World, own: str) -> None:
        self._world, self._own = world, own.removeprefix("http://")
        self._root, self._home = world.root / "prometheus", world.root / "alertmanager"
        self.servers = {
            "prometheus": processes.prometheus(self._root, processes.free_port()),
            "alertmanager": processes.alertmanager(self._home, processes.free_port()),
        }
        self._served: tuple[History | None, frozenset[Key]] = None, frozenset()
        self.servers["alertmanager"].start()

    def publish(self, history: History) -> None:
        """Serve this history from now on, also when Prometheus was down."""
        server, before = self.servers["prometheus"], self._served
        with history.lock:
            active = list(history.engine.active.values())
            states = history.store.select("ALERTS_FOR_STATE", {})
        waits = [alert for alert in active if alert.rule.wait_s]
        self._served = history, frozenset(key_of(alert.labels) for alert in active)
        if self._served == before and not waits:
            url = f"{server.url}/api/v1/admin/tsdb/delete_series"
            everything = {"match[]": '{__name__=~".+"}'}
            httpx.post(url, params=everything, timeout=10, trust_env=False).raise_for_status()
            return
        server.stop()
        shutil.rmtree(self._root / "data", ignore_errors=True)
        if waits:  # alone: a rule evaluated before it knows since when would begin to wait
            (self._root / "prometheus.yml").write_text("{}\n")
            server.start()
            from .remote import push  # pyarrow: only for a real Prometheus

            push(states, server.url)
            server.stop()
        config = yaml.safe_dump(self._config(), sort_keys=False)
        (self._root / "prometheus.yml").write_text(config)
        server.start()

    def _config(self) -> dict[str, Any]:
        targets = [
            {
                "targets": [self._own],
                "labels": {
                    "cluster": node.cluster,
                    "instance": node.name,
                    "__metrics_path__": f"/metrics/{node.name}",
                },
            }
            for node in self._world.nodes()
        ]
        alertmanager = self.servers["alertmanager"].url.removeprefix("http://")
        if "alertmanager-not-in-prometheus" in self._world.faults:
            alertmanager = "127.0.0.1:9"
        evaluated = "1d" if "rule-never-evaluated" in self._world.faults else "2s"
        return {
            "global": {"scrape_interval": "5s", "evaluation_interval": evaluated},
            "rule_files": ["rules/*.y*ml"],
            "remote_read": [{"url": f"http://{self._own}/read", "read_recent": True}],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
            "scrape_configs": [{"job_name": JOB, "static_configs": targets}],
        }


class Embedded:
    def __init__(self, loopback: Loopback, world: World) -> None:
        self.alertmanager = EmbeddedAlertmanager(world, self._firing)
        self.servers = {"alertmanager": Listener(loopback, self.alertmanager.app())}
        self._prometheus = EmbeddedPrometheus(world, self.servers["alertmanager"].url)
        self._loopback = loopback

    def publish(self, history: History) -> None:
        self._prometheus.history = history
        if "prometheus" in self.servers:
            self.servers["prometheus"].start()
        else:
            self.servers["prometheus"] = Listener(self._loopback, self._prometheus.app())

    def _firing(self) -> list[dict[str, Any]]:
        url, now = self.servers["prometheus"].url, datetime.now(UTC)
        return [_posted(alert, now, url) for alert in self._prometheus.firing()]


def _posted(alert: Alert, now: datetime, url: str) -> dict[str, Any]:
    """A firing alert as Prometheus posts it: over in a while unless it is posted again."""
    starts = datetime.fromtimestamp(alert.since / 1000 + alert.rule.wait_s, UTC)
    return {
        "labels": alert.labels,
        "annotations": alert.annotations(),
        "startsAt": starts.isoformat(),
        "endsAt": (now + HOLDS).isoformat(),
        "generatorURL": f"{url}/graph",
    }


class TelemetryServers:
    """Serves the world's telemetry since ``origin`` under ``urls``, by servers of ``kind``, with
    all rules of ``<root>/prometheus/rules``; those of ours and the shipped ones are put there."""

    def __init__(self, world: World, kind: Servers, origin: float) -> None:
        self.kind, self.world = kind, world
        genesis = min(cluster.genesis for cluster in world.clusters.values())
        self._recorder = Recorder(world, max(origin, genesis))
        self._loopback = Loopback()
        self._down: set[str] = set()
        self._lock = threading.RLock()
        self._read: tuple[dict[str, bytes], list[rules.Rule]] = {}, []
        self._backend: Real | Embedded
        self._history: History
        self._kept: tuple[object, History | None] = None, None

    @property
    def urls(self) -> dict[str, str]:
        """Where ``prometheus`` and ``alertmanager`` answer; the same until ``stop``."""
        return {name: server.url for name, server in self._backend.servers.items()}

    def start(self) -> None:
        """Write configurations and rules, lay the history, answer. Raises ValueError for a rule
        that cannot be evaluated."""
        root = self.world.root
        for folder in ("prometheus/rules", "alertmanager/data"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for name, source in (("rehearsal", rules.OWN_RULES), ("rollout", rules.SHIPPED_RULES)):
            (root / "prometheus/rules" / f"{name}.yaml").write_bytes(source.read_bytes())
        self._loopback.start()
        own = Listener(self._loopback, self._own_app()).url
        config = yaml.safe_dump(default_config(f"{own}/pager"), sort_keys=False)
        (root / "alertmanager" / "alertmanager.yml").write_text(config)
        try:
            real = self.kind == "real"
            self._backend = Real(self.world, own) if real else Embedded(self._loopback, self.world)
            self._lay()
            self._settle(0)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if hasattr(self, "_backend"):
            for server in self._backend.servers.values():
                server.stop()
        self._loopback.stop()

    def relay(self, seconds: float = 0.0) -> None:
        """Let the clock run ahead by ``seconds``, made whole, and lay what lies between; the whole
        history again where the past has changed: with 0, other rules, or a fault with a past.
        Silences and alerts that ended meanwhile end. Raises ValueError, before anything changes,
        when a rule cannot be read."""
        seconds = math.ceil(seconds)
        with self._lock:
            if seconds and "prometheus" not in self._down and self._history.holds(self._rules()):
                self._history.skip(seconds)
                self._backend.publish(self._history)
            else:
                self._lay(seconds)
            if "alertmanager" not in self._down:
                self._settle(seconds)

    def back_to(self, point: object) -> None:
        """Lay the history again as it is at ``point``, once for as long as nobody asks for another.

        The embedded Alertmanager forgets its silences, those that ended as well.
        """
        with self._lock:
            if isinstance(self._backend, Embedded):
                self._backend.alertmanager.silences.clear()
            before, kept = self._kept
            if kept is not None and before is point and kept.holds(self._rules()):
                self._history = kept.copy()
                self._backend.publish(self._history)
            else:
                self._lay()
                self._kept = point, self._history.copy()
            self._settle(0)

    def settle(self) -> None:
        """Wait until a real Prometheus has found its Alertmanager and evaluated its rules: for some
        seconds after a start it sends alerts to nobody."""
        deadline = time.monotonic() + SETTLED_S
        while self.kind == "real" and not self._down and time.monotonic() < deadline:
            api = f"{self.urls['prometheus']}/api/v1"
            with httpx.Client(trust_env=False, timeout=5) as client:
                known = client.get(f"{api}/alertmanagers").json()["data"]["activeAlertmanagers"]
                groups = client.get(f"{api}/rules").json()["data"]["groups"]
            if known and all(r["health"] != "unknown" for g in groups for r in g["rules"]):
                return
            time.sleep(0.2)

    def down(self, name: str) -> None:
        with self._lock:
            self._down.add(name)
            self._backend.servers[name].stop()

    def up(self, name: str) -> None:
        with self._lock:
            self._down.discard(name)
            if name == "prometheus":
                self._lay()
            else:
                self._backend.servers[name].start()

    def _rules(self) -> list[rules.Rule]:
        folder = self.world.root / "prometheus" / "rules"
        texts = {path.name: path.read_bytes() for path in folder.glob("*.y*ml")}
        if texts != self._read[0]:
            self._read = texts, rules.load(folder)
        return self._read[1]

    def _lay(self, seconds: int = 0) -> None:
        loaded = self._rules()
        rules.check(loaded)
        self.world.clock.advance(seconds)
        self._history = History(self._recorder, loaded)
        if "prometheus" not in self._down:
            self._backend.publish(self._history)

    def _settle(self, seconds: int) -> None:
        """Tell the Alertmanager what ended in the time skipped, and what fires, which it would hear
        from Prometheus too, but not before Prometheus has found it."""
        now, skipped, engine = datetime.now(UTC), timedelta(seconds=seconds), self._history.engine
        with self._history.lock:
            firing = [replace(each) for each in engine.active.values() if each.firing]
        fires = [alert.labels for alert in firing]
        known = {rule.name for rule in engine.rules}

        def ended(alert: dict[str, Any]) -> bool:
            if alert["labels"].get("alertname") in known:
                return alert["labels"] not in fires
            return datetime.fromisoformat(alert["endsAt"]) - skipped <= now

        api = self.urls["alertmanager"] + "/api/v2"
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
            holds = [_posted(alert, now, self.urls["prometheus"]) for alert in firing]
            posted = over + holds if self.kind == "real" else over
            client.post("/alerts", json=posted).raise_for_status()

    def _own_app(self) -> Starlette:
        async def metrics(request: Request) -> Response:
            up = self._recorder.is_up(request.path_params["node"])
            return PlainTextResponse("", status_code=200 if up else 503)

        async def read(request: Request) -> Response:
            from .remote import HEADERS, read

            # Not in threads: each would keep the memory that one takes.
            answer = read(self._history, await request.body())
            return Response(answer, headers=HEADERS)

        return Starlette(
            routes=[
                Route("/metrics/{node}", metrics),
                Route("/read", read, methods=["POST"]),
                Route("/pager", ready, methods=["POST"]),
            ]
        )
