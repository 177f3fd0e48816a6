"""What GitHub's REST API does alike everywhere (docs.github.com/rest), and its releases."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .layout import REPOSITORY

Json = dict[str, Any]
MAX_BODY = 65536
ACCOUNT = "rehearsal"  # whose token it is
DOCUMENTATION = "https://docs.github.com/rest"
HOME, API = f"https://forge.invalid/{REPOSITORY}", f"/repos/{REPOSITORY}"


class Invalid(HTTPException):
    def __init__(self, resource: str, field: str, code: str, **message: str) -> None:
        super().__init__(422, "Validation Failed")
        self.errors = [{"resource": resource, "code": code, "field": field, **message}]


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
    assert isinstance(raised, HTTPException)
    errors = getattr(raised, "errors", None)
    return problem(raised.status_code, raised.detail, dict(raised.headers or {}), errors)


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


def find(table: dict[int, Json], request: Request, key: str = "id") -> Json:
    if (known := table.get(request.path_params[key])) is None:
        raise HTTPException(404, "Not Found")
    return known


def fitting(text: str, resource: str, field: str) -> str:
    if len(text) > MAX_BODY:
        said = f"Body is too long (maximum is {MAX_BODY} characters)"
        raise Invalid(resource, field, "unprocessable", message=said)
    return text


def paged(
    request: Request, rows: list[Json], *known: str, wrap: Callable[[list[Json]], Any] = list
) -> Response:
    """One page of rows, and the Link header that leads to the others."""
    allow_query(request, "per_page", "page", *known)
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
    page = wrap(rows[start : start + size])
    return JSONResponse(page, headers={"link": links} if links else {})


class Releases:
    """The releases of one repository; ``contents`` holds the assets' bytes by their id."""

    def __init__(self, now: Callable[[], str], ids: Iterator[int]) -> None:
        self._now, self._ids = now, ids
        self.releases: dict[int, Json] = {}
        self.assets: dict[int, list[Json]] = {}
        self.contents: dict[int, bytes] = {}

    def routes(self) -> list[Route]:
        assets = "releases/{id:int}/assets"
        return [
            route(f"{API}/releases/tags/{{tag:path}}", GET=self._by_tag),
            route(f"{API}/{assets}", GET=self._assets),
            route(f"{API}/releases", POST=self._create),
            route(f"/uploads{API}/{assets}", POST=self._upload),
        ]

    async def _by_tag(self, request: Request) -> Response:
        allow_query(request)
        for one in self.releases.values():
            if one["tag_name"] == request.path_params["tag"]:
                return JSONResponse({**one, "assets": self.assets[one["id"]][:30]})
        raise HTTPException(404, "Not Found")

    async def _create(self, request: Request) -> Response:
        body = await json_body(
            request, tag_name=str, target_commitish=str, name=str, body=str, prerelease=bool,
            make_latest=str,
        )  # fmt: skip
        tag = body.get("tag_name", "")
        if not tag:
            raise Invalid("Release", "tag_name", "missing_field")
        if re.search(r"[\s~^:?*\[\\]|\.\.|^[-./]|[./]$|@\{", tag):
            raise Invalid("Release", "tag_name", "custom", message="not a valid tag")
        if body.get("prerelease") and body.get("make_latest") != "false":
            raise Invalid("Release", "make_latest", "custom", message="not for prereleases")
        if any(one["tag_name"] == tag for one in self.releases.values()):
            raise Invalid("Release", "tag_name", "already_exists")
        key, base = next(self._ids), f"{request.url.scheme}://{request.url.netloc}"
        assets = f"{API}/releases/{key}/assets"
        self.assets[key] = []
        self.releases[key] = {
            "id": key,
            **{field: body.get(field) for field in ("tag_name", "name", "body", "prerelease")},
            "target_commitish": body.get("target_commitish", "main"),
            "draft": False,
            "created_at": self._now(),
            "published_at": self._now(),
            "author": {"login": ACCOUNT},
            "assets_url": f"{base}{assets}",
            "upload_url": f"{base}/uploads{assets}{{?name,label}}",
            "html_url": f"{HOME}/releases/tag/{tag}",
        }
        return JSONResponse({**self.releases[key], "assets": []}, 201)

    async def _assets(self, request: Request) -> Response:
        return paged(request, self.assets[find(self.releases, request)["id"]])

    async def _upload(self, request: Request) -> Response:
        allow_query(request, "name", "label")
        release = find(self.releases, request)
        listed = self.assets[release["id"]]
        given = request.query_params.get("name", "")
        if not given:
            raise Invalid("ReleaseAsset", "name", "missing_field")
        if not request.headers.get("content-type"):
            raise Invalid("ReleaseAsset", "content_type", "missing_field")
        data = await request.body()
        if not data:
            raise HTTPException(400, "Bad Content-Length: 0")
        # It renames what holds special characters, or dots at an end.
        name = re.sub(r"[^A-Za-z0-9._-]+", ".", given).strip(".")
        if any(asset["name"] == name for asset in listed):
            raise Invalid("ReleaseAsset", "name", "already_exists")
        key = next(self._ids)
        self.contents[key] = data
        listed.append(
            {
                "id": key,
                "name": name,
                "label": request.query_params.get("label", ""),
                "state": "uploaded",
                "content_type": request.headers["content-type"],
                "size": len(data),
                "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
                "created_at": self._now(),
                "updated_at": self._now(),
                "uploader": {"login": ACCOUNT},
                "browser_download_url": f"{HOME}/releases/download/{release['tag_name']}/{name}",
            }
        )
        return JSONResponse(listed[-1], 201)
