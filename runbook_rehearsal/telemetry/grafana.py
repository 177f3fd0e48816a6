"""A stand-in for the part of Grafana's HTTP API that a rollout reads.

Source: grafana.com/docs/grafana/latest/developers/http_api.
"""

import hmac
import json
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..faults.table import FaultBoard
from ..loopback import App

FOLDER = Path(__file__).with_name("dashboards")
PANELS = Path(__file__).with_name("panels.json")
"""By fault: panels added to the faulty dashboard, or in place of those with their id, and so on."""
FAULTY = "vrf-participation"


def grafana_app(faults: FaultBoard, token: str) -> App:
    async def health(request: Request) -> Response:
        status, said = (503, "failing") if faults.is_on("grafana-unwell") else (200, "ok")
        return JSONResponse({"commit": "0" * 7, "database": said, "version": "11.0.0"}, status)

    async def dashboard(request: Request) -> Response:
        given = request.headers.get("authorization", "")
        if faults.is_on("grafana-401") or not hmac.compare_digest(given, f"Bearer {token}"):
            return JSONResponse({"message": "Invalid API key"}, status_code=401)
        uid = request.path_params["uid"]
        path = FOLDER / f"{uid}.json"
        if not path.exists() or (uid == FAULTY and faults.is_on("dashboard-missing")):
            return JSONResponse({"message": "Dashboard not found"}, status_code=404)
        found = json.loads(path.read_text())
        for name, other in json.loads(PANELS.read_text()).items():
            if uid == FAULTY and faults.is_on(name):
                panels = {one["id"]: one for one in found["panels"] + other.get("panels", [])}
                found["panels"] = [panels[n] for n in panels if n not in other.get("without", [])]
                found["templating"]["list"] += other.get("templating", [])
        meta = {"type": "db", "canSave": False, "slug": uid, "url": f"/d/{uid}", "version": 1}
        return JSONResponse({"meta": meta, "dashboard": found})

    return Starlette(
        routes=[Route("/api/health", health), Route("/api/dashboards/uid/{uid}", dashboard)]
    )
