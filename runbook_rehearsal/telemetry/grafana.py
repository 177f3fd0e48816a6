"""A stand-in for the part of Grafana's HTTP API that a rollout reads.

Source: grafana.com/docs/grafana/latest/developers/http_api.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..faults.table import FaultBoard
from ..loopback import App

Json = dict[str, Any]
FOLDER = Path(__file__).with_name("dashboards")
FAULTY = "vrf-participation"
GONE = "sum(rate(rpp_crypto_vrf_selection_withdrawn_total[$__rate_interval]))"


def dashboards() -> dict[str, Json]:
    found = (json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json")))
    return {dashboard["uid"]: dashboard for dashboard in found}


def grafana_app(faults: FaultBoard, token: str) -> App:
    async def health(request: Request) -> Response:
        if faults.is_on("grafana-unwell"):
            body = {"commit": "0" * 7, "database": "failing", "version": "11.0.0"}
            return JSONResponse(body, status_code=503)
        return JSONResponse({"commit": "0" * 7, "database": "ok", "version": "11.0.0"})

    async def dashboard(request: Request) -> Response:
        given = request.headers.get("authorization", "")
        if faults.is_on("grafana-401") or not hmac.compare_digest(given, f"Bearer {token}"):
            return JSONResponse({"message": "Invalid API key"}, status_code=401)
        uid = request.path_params["uid"]
        found = dashboards().get(uid)
        if found is None or (uid == FAULTY and faults.is_on("dashboard-missing")):
            return JSONResponse({"message": "Dashboard not found"}, status_code=404)
        for name, spoil in _SPOILT.items():
            if uid == FAULTY and faults.is_on(name):
                found["panels"] = spoil(found["panels"])
        meta = {"type": "db", "canSave": False, "slug": uid, "url": f"/d/{uid}", "version": 1}
        return JSONResponse({"meta": meta, "dashboard": found})

    return Starlette(
        routes=[Route("/api/health", health), Route("/api/dashboards/uid/{uid}", dashboard)]
    )


def _asks(expr: str) -> Callable[[list[Json]], list[Json]]:
    def spoil(panels: list[Json]) -> list[Json]:
        panels[0]["targets"][0]["expr"] = expr
        return panels

    return spoil


def _all_red(panels: list[Json]) -> list[Json]:
    steps = [{"color": "red", "value": None}]
    panels[0]["fieldConfig"]["defaults"]["thresholds"]["steps"] = steps
    return panels


_SPOILT: dict[str, Callable[[list[Json]], list[Json]]] = {
    "panel-no-data": _asks(GONE),
    "panel-parse-error": _asks("sum(rate("),
    "panel-variable-unset": _asks('sum(up{shard="$shard"})'),
    "panel-red": _all_red,
    "topic-cannot-be-red": lambda panels: panels[1:],
    "dashboard-empty": lambda panels: [],
}
