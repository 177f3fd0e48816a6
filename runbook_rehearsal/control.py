"""The control API: what the site's commands ask of a running network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .loopback import App
from .nodes.fleet import StartupError
from .people import notified

if TYPE_CHECKING:
    from .network import RehearsalNetwork

Json = dict[str, Any]


def control_app(network: RehearsalNetwork) -> App:
    """POST to the paths below. An answer other than 200 is {"error", "exit_code"?}."""

    def restart(body: Json) -> Json:
        return {"node": body["node"], "digest": network.restart(body["node"]).build.digest}

    def stop_node(body: Json) -> Json:
        network.fleet.stop(network.fleet.spec(body["node"]).name)
        return {"node": body["node"]}

    def start_node(body: Json) -> Json:
        network.start_node(body["node"])
        return {"node": body["node"]}

    def verify_snapshot(body: Json) -> Json:
        return network.assets.verified(Path(body["bundle"]), network.faults, body["node"])

    def instruct(body: Json) -> Json:
        network.operators.see(Path(body["file"]).read_text(), "notify")
        return {"operator": body["operator"]}

    def provision(body: Json) -> Json:
        spec = network.provision(body["cluster"], body["name"], body["config"])
        return {"node": spec.name, "url": spec.url}

    def deprovision(body: Json) -> Json:
        network.fleet.deprovision(body["cluster"], body["name"])
        return {"node": body["name"], "removed": True}

    def fast_forward(body: Json) -> Json:
        network.fast_forward(float(body["seconds"]))
        return {"offset_s": network.world.clock.offset}

    def notify(body: Json) -> Json:
        notified(network, body["role"], body["subject"], body["text"])
        return {"told": body["role"]}

    actions = (restart, stop_node, start_node, verify_snapshot, instruct, provision, deprovision,
               fast_forward, notify)  # fmt: skip
    return Starlette(
        routes=[
            Route(f"/{action.__name__.replace('_', '-')}", _post(action), methods=["POST"])
            for action in actions
        ]
    )


def _post(action: Callable[[Json], Json]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        try:
            body = json.loads(await request.body() or b"{}")
            # In a thread: these wait for the loop that runs this very coroutine.
            return JSONResponse(await asyncio.to_thread(action, body))
        except StartupError as error:
            return JSONResponse({"error": str(error), "exit_code": error.exit_code}, 409)
        except KeyError as error:
            return JSONResponse({"error": f"unknown or missing: {error}"}, 404)
        except (ValueError, TypeError) as error:
            return JSONResponse({"error": str(error)}, 400)

    return endpoint
