"""The two ways to serve a history: real server processes, or the embedded ones."""

from __future__ import annotations

import contextlib
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import yaml

from ..chain.world import World
from ..loopback import Address, Loopback, Scope, bind
from . import processes, remote
from .alertmanager import EmbeddedAlertmanager
from .embedded import EmbeddedPrometheus
from .history import History
from .recorder import JOB
from .rules import Alert

TICK_S = 1.0
HOLDS = timedelta(minutes=3)  # how long an alert is active without being posted again


class Real:
    """Server processes on random ports; Prometheus reads the history from us, at ``own_url``.

    It scrapes no more than whether nodes are up, and what it keeps is dropped when the clock runs
    ahead. For the state of its alerts it must be started anew.
    """

    def __init__(self, world: World, own_url: str) -> None:
        self._world = world
        self._own = own_url.removeprefix("http://")
        self._root = world.root / "prometheus"
        self._servers = {
            "prometheus": processes.prometheus(self._root, free_port()),
            "alertmanager": processes.alertmanager(world.root / "alertmanager", free_port()),
        }
        self.urls = {name: server.url for name, server in self._servers.items()}
        self._served: tuple[History | None, frozenset[str]] = None, frozenset()
        self.up("alertmanager")

    def publish(self, history: History) -> None:
        server, before = self._servers["prometheus"], self._served
        with history.lock:
            active = list(history.engine.active.values())
            states = history.store.select("ALERTS_FOR_STATE", {})
        waits = [alert for alert in active if alert.rule.wait_s]
        self._served = history, frozenset(str(sorted(alert.labels.items())) for alert in active)
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
            remote.push(states, server.url)
            server.stop()
        config = yaml.safe_dump(self._config(), sort_keys=False)
        (self._root / "prometheus.yml").write_text(config)
        server.start()

    def up(self, name: str) -> None:
        self._servers[name].start()

    def down(self, name: str) -> None:
        self._servers[name].stop()

    def stop(self) -> None:
        for server in self._servers.values():
            server.stop()

    def _config(self) -> dict[str, Any]:
        targets = [
            {
                "targets": [self._own],
                "labels": {
                    "cluster": cluster.name,
                    "instance": node.name,
                    "__metrics_path__": f"/metrics/{node.name}",
                },
            }
            for cluster in self._world.clusters.values()
            for node in cluster.nodes
        ]
        elsewhere = self._faulty("alertmanager-not-in-prometheus")
        alertmanager = "127.0.0.1:9" if elsewhere else self.urls["alertmanager"][len("http://") :]
        evaluated = "1d" if self._faulty("rule-never-evaluated") else "2s"
        return {
            "global": {"scrape_interval": "5s", "evaluation_interval": evaluated},
            "rule_files": ["rules/*.y*ml"],
            "remote_read": [{"url": f"http://{self._own}/read", "read_recent": True}],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
            "scrape_configs": [{"job_name": JOB, "static_configs": targets}],
        }

    def _faulty(self, name: str) -> bool:
        return any((self._world.root / "faults").glob(f"{name}.*"))


class Embedded:
    """Both APIs in this process, and a thread that scrapes, evaluates, notifies and pages."""

    def __init__(self, loopback: Loopback, root: Path) -> None:
        self._loopback = loopback
        self._alertmanager = EmbeddedAlertmanager(root / "alertmanager" / "alertmanager.yml")
        self._apps: dict[str, Any] = {"alertmanager": self._alertmanager.app()}
        self._addresses: dict[str, Address] = dict.fromkeys(
            ("prometheus", "alertmanager"), ("127.0.0.1", 0)
        )
        self._listening: set[str] = set()
        self.urls: dict[str, str] = {}
        self._prometheus: EmbeddedPrometheus | None = None
        self._notified: dict[str, Alert] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rehearsal-rules", daemon=True)
        self.up("alertmanager")

    def publish(self, history: History) -> None:
        if self._prometheus is None or self._prometheus.history is not history:
            self._prometheus = EmbeddedPrometheus(history, self.urls["alertmanager"])
            self._apps["prometheus"] = self._prometheus.app()
        if "prometheus" not in self._listening:
            self.up("prometheus")
        if not self._thread.is_alive():
            self._thread.start()

    def up(self, name: str) -> None:
        async def app(scope: Scope, receive: Any, send: Any) -> None:
            await self._apps[name](scope, receive, send)

        self._addresses[name] = self._loopback.listen(app, *self._addresses[name])
        self._listening.add(name)
        host, port = self._addresses[name]
        self.urls[name] = f"http://{host}:{port}"

    def down(self, name: str) -> None:
        self._loopback.close(self._addresses[name])
        self._listening.discard(name)

    def forget_silences(self) -> None:
        self._alertmanager.forget_silences()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._tick()
            self._stopping.wait(TICK_S)

    def _tick(self) -> None:
        if self._prometheus is not None:
            self._prometheus.advance()
            self._notify(self._prometheus.firing())
        for url, page in self._alertmanager.take_pages():
            with contextlib.suppress(httpx.HTTPError):
                httpx.post(url, json=page, timeout=5, trust_env=False)

    def _notify(self, firing: list[Alert]) -> None:
        """Tell the Alertmanager what fires, and once of what no longer does."""
        now = datetime.now(UTC)
        before, self._notified = self._notified, {str(sorted(a.labels.items())): a for a in firing}
        ended = [alert for key, alert in before.items() if key not in self._notified]
        self._alertmanager.post(
            [posted(alert, now, self.urls) for alert in firing]
            + [{**posted(alert, now, self.urls), "endsAt": now.isoformat()} for alert in ended]
        )


def posted(alert: Alert, now: datetime, urls: dict[str, str]) -> dict[str, Any]:
    """A firing alert as Prometheus posts it: over in a while unless it is posted again."""
    starts = datetime.fromtimestamp(alert.since / 1000 + alert.rule.wait_s, UTC)
    return {
        "labels": alert.labels,
        "annotations": alert.annotations(),
        "startsAt": starts.isoformat(),
        "endsAt": (now + HOLDS).isoformat(),
        "generatorURL": f"{urls['prometheus']}/graph",
    }


def free_port() -> int:
    listener = bind("127.0.0.1", 0)
    port: int = listener.getsockname()[1]
    listener.close()
    return port
