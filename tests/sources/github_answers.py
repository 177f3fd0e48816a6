"""What GitHub answers, as its API shapes it, and a site that asks it."""

from typing import Any

import httpx

from runbook_lib import site
from runbook_lib.evidence.publish import Release

COMMIT = "c" * 40
SETTINGS = site.Forge(
    kind="github", url="https://forge/api", repository="o/r", token_env="FORGE_TOKEN",
    ci=site.Ci(app="github-actions", required=["test"]),
)  # fmt: skip


def run(number: int, **keys: Any) -> dict[str, Any]:
    return {
        "id": number, "name": f"test {number}", "head_sha": COMMIT, "status": "completed",
        "conclusion": "success", "app": {"slug": "github-actions", "name": "GitHub Actions"},
        "html_url": "https://forge/run", "started_at": "2026-01-01T00:00:00Z", "completed_at": None,
        **keys,
    }  # fmt: skip


def comment(number: int, **keys: Any) -> dict[str, Any]:
    return {
        "id": number, "user": {"login": "ada"}, "body": "approved",
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-02T00:00:00Z",
        "html_url": "https://forge/comment", **keys,
    }  # fmt: skip


def spoken(number: int, body: str, by: str, at: str, edited: str = "") -> dict[str, Any]:
    """A comment of that account."""
    times = {"created_at": at, "updated_at": edited or at}
    url = f"https://forge/{number}"
    return comment(number, body=body, user={"login": by}, html_url=url, **times)


class Pages:
    """Answers page by page, each linking to the next at ``host``."""

    def __init__(self, *pages: Any, host: str = "https://forge/api") -> None:
        self.pages, self.host = pages, host

    def __call__(self, request: httpx.Request) -> httpx.Response:
        number = int(request.url.params.get("page", "1"))
        links = [f'<{self.host}{request.url.path.removeprefix("/api")}?page=9>; rel="last"']
        if number < len(self.pages):
            path = request.url.path.removeprefix("/api")
            links.append(f'<{self.host}{path}?per_page=100&page={number + 1}>; rel="next"')
        return httpx.Response(200, json=self.pages[number - 1], headers={"link": ", ".join(links)})


def issue(number: int, **keys: Any) -> dict[str, Any]:
    return {**comment(number), "number": number, "title": "t", "state": "open", **keys}


RELEASE = Release(
    id=5, tag_name="evidence-v1", prerelease=True,
    upload_url="https://forge/up/releases/5/assets{?name,label}", html_url="https://forge/r",
)  # fmt: skip


def asset(**keys: Any) -> dict[str, Any]:
    return {
        "id": 9, "name": "a.txt", "state": "uploaded", "size": 5, "digest": None,
        "browser_download_url": "https://forge/a.txt", **keys,
    }  # fmt: skip
