"""What GitHub's REST API does alike everywhere: routes, bodies, paging and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Json = dict[str, Any]
MAX_BODY = 65536
DOCUMENTATION = "https://docs.github.com/rest"


class Invalid(HTTPException):
    """422 with GitHub's list of errors."""

    def __init__(self, resource: str, field: str, code: str, message: str = "") -> None:
        super().__init__(422, "Validation Failed")
        said = {"message": message} if message else {}
        self.errors = [{"resource": resource, "code": code, "field": field, **said}]


def route(path: str, **handlers: Callable[[Request], Any]) -> Route:
    async def endpoint(request: Request) -> Response:
        response: Response = await handlers[request.method](request)
        return response

    made = Route(path, endpoint, methods=list(handlers))
    made.methods = set(handlers)  # no HEAD beside GET: nobody here asks for it
    return made


def problem(
    status: int,
    message: str,
    headers: dict[str, str] | None = None,
    errors: list[Json] | None = None,
) -> Response:
    document: Json = {"message": message, "documentation_url": DOCUMENTATION}
    more = {"errors": errors} if errors else {}
    return JSONResponse(document | more | {"status": str(status)}, status, headers)


async def error(request: Request, raised: Exception) -> Response:
    """The documented body of a refusal."""
    assert isinstance(raised, HTTPException)
    errors = getattr(raised, "errors", None)
    return problem(raised.status_code, raised.detail, dict(raised.headers or {}), errors)


def base(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}"


def allow_query(request: Request, *known: str) -> None:
    unknown = sorted(set(request.query_params) - set(known))
    if unknown:
        raise HTTPException(422, f"unknown query parameter(s): {', '.join(unknown)}")


async def json_body(request: Request, **fields: type) -> Json:
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise HTTPException(400, "Problems parsing JSON") from error
    if not isinstance(body, dict):
        raise HTTPException(400, "Body should be a JSON object")
    unknown = sorted(set(body) - set(fields))
    if unknown or any(not isinstance(body[key], fields[key]) for key in body):
        raise HTTPException(422, "Invalid request: unknown or mistyped field")
    return body


async def comment_text(request: Request) -> str:
    text = (await json_body(request, body=str)).get("body", "")
    if not text.strip():
        raise Invalid("IssueComment", "body", "missing_field")
    if len(text) > MAX_BODY:
        said = f"Body is too long (maximum is {MAX_BODY} characters)"
        raise Invalid("IssueComment", "data", "unprocessable", said)
    return str(text)


def page_of(request: Request, rows: list[Json]) -> tuple[list[Json], dict[str, str]]:
    """One page of rows, and the Link header that leads to the others."""
    try:
        size = min(max(int(request.query_params.get("per_page", 30)), 1), 100)
        number = max(int(request.query_params.get("page", 1)), 1)
    except ValueError as error:
        raise HTTPException(422, "per_page and page: expected integers") from error
    last = max(-(-len(rows) // size), 1)
    targets = {"prev": number - 1, "next": number + 1, "last": last, "first": 1}
    if number >= last:
        del targets["next"], targets["last"]
    if number == 1:
        del targets["prev"], targets["first"]
    links = ", ".join(
        f'<{request.url.include_query_params(page=page)}>; rel="{name}"'
        for name, page in targets.items()
    )
    start = (number - 1) * size
    return rows[start : start + size], {"link": links} if links else {}
