"""Releases and their assets, as the forge stand-in documents them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .documented import Invalid, Json, allow_query, base, json_body, page_of, route

MAX_ASSET = 2 * 1024**3
MAX_ASSETS = 1000


class Releases:
    """The releases of one repository; ``contents`` holds the assets' bytes by their id."""

    def __init__(self, repository: str, now: Callable[[], str], ids: Iterator[int]) -> None:
        self._repository, self._now, self._ids = repository, now, ids
        self.releases: dict[int, Json] = {}
        self.assets: dict[int, list[Json]] = {}
        self.contents: dict[int, bytes] = {}

    def routes(self) -> list[Route]:
        prefix = f"/repos/{self._repository}/releases"
        assets = "{id:int}/assets"
        return [
            route(f"{prefix}/tags/{{tag:path}}", GET=self._by_tag),
            route(f"{prefix}/{assets}", GET=self._assets),
            route(prefix, POST=self._create),
            route(f"/uploads{prefix}/{assets}", POST=self._upload),
        ]

    def _find(self, request: Request) -> Json:
        key = request.path_params["id"]
        if key not in self.releases:
            raise HTTPException(404, "Not Found")
        return self.releases[key]

    async def _by_tag(self, request: Request) -> Response:
        allow_query(request)
        for found in self.releases.values():
            if found["tag_name"] == request.path_params["tag"] and not found["draft"]:
                return JSONResponse({**found, "assets": self.assets[found["id"]][:30]})
        raise HTTPException(404, "Not Found")

    async def _create(self, request: Request) -> Response:
        body = await json_body(
            request, tag_name=str, target_commitish=str, name=str, body=str, draft=bool,
            prerelease=bool, generate_release_notes=bool, make_latest=str,
            discussion_category_name=str,
        )  # fmt: skip
        tag = body.get("tag_name", "")
        if not tag:
            raise Invalid("Release", "tag_name", "missing_field")
        if re.search(r"[\s~^:?*\[\\]|\.\.|^[-./]|[./]$|@\{", tag):
            raise Invalid("Release", "tag_name", "custom", "tag_name is not a valid tag")
        if body.get("make_latest", "true") not in ("true", "false", "legacy"):
            raise Invalid("Release", "make_latest", "invalid")
        if body.get("prerelease") and body.get("make_latest") == "true":
            raise Invalid("Release", "make_latest", "custom", "prereleases cannot be the latest")
        if any(found["tag_name"] == tag for found in self.releases.values()):
            raise Invalid("Release", "tag_name", "already_exists")
        key, home = next(self._ids), f"https://forge.invalid/{self._repository}"
        url = f"{base(request)}/repos/{self._repository}/releases/{key}"
        upload = f"{base(request)}/uploads/repos/{self._repository}/releases/{key}/assets"
        self.assets[key] = []
        self.releases[key] = {
            "id": key,
            "tag_name": tag,
            "target_commitish": body.get("target_commitish", "main"),
            "name": body.get("name"),
            "body": body.get("body"),
            "draft": body.get("draft", False),
            "prerelease": body.get("prerelease", False),
            "created_at": self._now(),
            "published_at": self._now(),
            "author": {"login": "rehearsal"},
            "url": url,
            "assets_url": f"{url}/assets",
            "upload_url": f"{upload}{{?name,label}}",
            "html_url": f"{home}/releases/tag/{tag}",
        }
        return JSONResponse({**self.releases[key], "assets": []}, 201)

    async def _assets(self, request: Request) -> Response:
        allow_query(request, "per_page", "page")
        page, links = page_of(request, self.assets[self._find(request)["id"]])
        return JSONResponse(page, headers=links)

    async def _upload(self, request: Request) -> Response:
        allow_query(request, "name", "label")
        release = self._find(request)
        listed = self.assets[release["id"]]
        given = request.query_params.get("name", "")
        if not given:
            raise Invalid("ReleaseAsset", "name", "missing_field")
        if not request.headers.get("content-type"):
            raise Invalid("ReleaseAsset", "content_type", "missing_field")
        if int(request.headers.get("content-length", "0")) >= MAX_ASSET:
            raise Invalid("ReleaseAsset", "size", "custom", "size must be less than 2147483648")
        data = await request.body()
        if not data:
            raise HTTPException(400, "Bad Content-Length: 0")
        if len(listed) >= MAX_ASSETS:
            raise Invalid("ReleaseAsset", "release", "custom", "file count limited to 1000 assets")
        # It renames what holds special characters, or dots at an end.
        name = re.sub(r"[^A-Za-z0-9._-]+", ".", given).strip(".")
        if any(asset["name"] == name for asset in listed):
            raise Invalid("ReleaseAsset", "name", "already_exists")
        key = next(self._ids)
        self.contents[key] = data
        home = f"https://forge.invalid/{self._repository}/releases/download"
        listed.append(
            {
                "id": key,
                "name": name,
                "label": request.query_params.get("label", ""),
                "state": "uploaded",
                "content_type": request.headers["content-type"],
                "size": len(data),
                "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
                "download_count": 0,
                "created_at": self._now(),
                "updated_at": self._now(),
                "uploader": {"login": "rehearsal"},
                "browser_download_url": f"{home}/{release['tag_name']}/{name}",
            }
        )
        return JSONResponse(listed[-1], 201)
