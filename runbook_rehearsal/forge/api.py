"""A stand-in for the part of GitHub's REST API that a rollout uses, strict and in memory.

Shapes, paging (``per_page`` up to 100, ``Link``), error bodies and rate-limit answers follow
docs.github.com/rest. Whatever a client sends beyond what is documented is refused.
"""

from __future__ import annotations

import hmac
import itertools
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..chain.world import Clock
from ..faults.board import FaultBoard
from ..layout import ISSUE, REPOSITORY, REQUIRED_CHECKS, Release
from ..loopback import App, Loopback, Scope
from .backlog import HOTFIXES, MILESTONE, PULL_REQUEST, Backlog, of_milestone
from .documented import (
    MAX_BODY,
    Invalid,
    Json,
    allow_query,
    comment_text,
    error,
    json_body,
    page_of,
    problem,
    route,
)
from .releases import Releases

ACCOUNT = "rehearsal"  # whose token it is
LONGEST_TITLE = 256
WRITES_A_MINUTE = 80  # the secondary limit of requests that make content
BRANCHES = ("main", "release/v1.3", "hotfix/gossip-backoff", "hotfix/typo-in-metrics")


class Forge:
    """One repository: its checks, statuses, branches, issues and comments."""

    def __init__(
        self, release: Release, clock: Clock, faults: FaultBoard, token: str, loopback: Loopback
    ) -> None:
        self.faults = faults
        self._clock, self._token = clock, token
        self._loopback = loopback
        self._ids = itertools.count(1001)
        self._writes: deque[float] = deque()
        self._died = False
        self.comments: dict[int, Json] = {}
        self.issues: dict[int, Json] = {
            ISSUE: self._issue(ISSUE, "Release", "Progress of the rollout.", ["release"])
        }
        self.follow(release)
        self.on_comment: Callable[[str], None] = lambda text: None
        self.releases = Releases(REPOSITORY, self._now, self._ids)
        prefix = f"/repos/{REPOSITORY}"
        self._app = Starlette(
            routes=[
                route(f"{prefix}/commits/{{sha}}/check-runs", GET=self._check_runs),
                route(f"{prefix}/commits/{{sha}}/status", GET=self._combined_status),
                route(f"{prefix}/branches/{{branch:path}}", GET=self._branch),
                route(f"{prefix}/compare/{{base}}...{{head}}", GET=self._compare),
                route(f"{prefix}/milestones", GET=self._milestones),
                route(f"{prefix}/issues/comments/{{id:int}}",
                       GET=self._comment, PATCH=self._update_comment),
                route(f"{prefix}/issues/{{number:int}}/comments",
                       GET=self._issue_comments, POST=self._create_comment),
                route(f"{prefix}/issues/{{number:int}}",
                       GET=self._one_issue, PATCH=self._update_issue),
                route(f"{prefix}/issues", GET=self._all_issues, POST=self._create_issue),
                *self.releases.routes(),
                route("/user", GET=self._user),
            ],
            exception_handlers={HTTPException: error},
        )  # fmt: skip

    def follow(self, release: Release) -> None:
        """A release as the repository has it: its checks, its milestone, what it leaves open."""
        self._release, self.backlog = release, Backlog(release, self.faults)
        self.issues[ISSUE]["title"] = f"Release {release.version}"
        self._leave_open()

    @property
    def app(self) -> App:
        return self._serve

    async def _serve(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        writes = scope["method"] != "GET"
        refusal = self._refusal(dict(scope["headers"]), writes)
        self._died = self._died and self.faults.is_on("forge-dies-after-write")
        if refusal is not None:
            await refusal(scope, receive, send)
        elif self._died:
            await self._loopback.hang_up(scope)
        elif self.faults.is_on("forge-truncated"):
            await self._break_off(scope, send)
        elif writes and self.faults.is_on("comment-answer-lost"):
            await self._app(scope, receive, _nowhere)
            await self._loopback.hang_up(scope)
        else:
            await self._app(scope, receive, send)
            self._died = writes and self.faults.is_on("forge-dies-after-write")

    def _refusal(self, headers: dict[bytes, bytes], writes: bool) -> Response | None:
        given = headers.get(b"authorization", b"").decode("latin-1")
        scheme, _, rest = given.partition(" ")
        known = scheme.lower() in ("bearer", "token") and hmac.compare_digest(
            rest.encode(), self._token.encode()
        )
        if self.faults.is_on("forge-401") or not known:
            return problem(401, "Bad credentials")
        limit = {
            "x-ratelimit-limit": "5000",
            "x-ratelimit-remaining": "0",
            "x-ratelimit-reset": str(int(self._clock.now()) + 60),
        }
        if self.faults.is_on("forge-403"):
            return problem(403, "API rate limit exceeded for user ID 1.", limit)
        if self.faults.is_on("forge-429"):
            message = "You have exceeded a secondary rate limit."
            return problem(429, message, limit | {"retry-after": "60"})
        if self.faults.is_on("forge-500"):
            return problem(500, "Server Error")
        return self._too_many_writes() if writes else None

    def _too_many_writes(self) -> Response | None:
        now = self._clock.now()
        while self._writes and self._writes[0] <= now - 60:
            self._writes.popleft()
        if len(self._writes) >= WRITES_A_MINUTE or self.faults.is_on("comments-limited"):
            message = "You have exceeded a secondary rate limit and have been temporarily blocked."
            return problem(403, message, {"retry-after": "60"})
        self._writes.append(now)
        return None

    async def _break_off(self, scope: Scope, send: Any) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"4096")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"total_count": 3', "more_body": True})
        await self._loopback.hang_up(scope)

    # --- checks -------------------------------------------------------------------------------

    def _runs(self) -> list[Json]:
        """More than a page of green checks; the required ones stand on the last page."""
        if self.faults.is_on("ci-none"):
            return []
        names = [f"build and test ({number})" for number in range(1, 120)]
        runs = [self._run(number, name) for number, name in enumerate(names, start=1)]
        for number, name in enumerate(REQUIRED_CHECKS, start=200):
            runs.append(self._run(number, name))
        last = runs[-1]
        for fault, change in (
            ("ci-red", {"conclusion": "failure"}),
            ("ci-skipped", {"conclusion": "skipped"}),
            ("ci-neutral", {"conclusion": "neutral"}),
            ("ci-cancelled", {"conclusion": "cancelled"}),
            ("ci-pending", {"conclusion": None, "status": "in_progress", "completed_at": None}),
            ("ci-wrong-app", {"app": {"id": 99, "slug": "somebody-else", "name": "Other"}}),
        ):
            if self.faults.is_on(fault):
                last.update(change)
        return runs[:-1] if self.faults.is_on("ci-missing") else runs

    def _run(self, number: int, name: str) -> Json:
        return {
            "id": number,
            "name": name,
            "head_sha": self._release.commit,
            "status": "completed",
            "conclusion": "success",
            "started_at": "2026-01-01T00:00:00Z",
            "completed_at": "2026-01-01T00:10:00Z",
            "html_url": f"https://forge.invalid/{REPOSITORY}/runs/{number}",
            "app": {"id": 15368, "slug": "github-actions", "name": "GitHub Actions"},
        }

    def _known_commit(self, request: Request) -> None:
        sha = request.path_params["sha"]
        known = (self._release.commit, self._release.previous.commit)
        if sha not in (*known, *self.backlog.heads.values()):
            raise HTTPException(422, f"No commit found for SHA: {sha}")

    async def _check_runs(self, request: Request) -> Response:
        allow_query(request, "per_page", "page", "filter")
        self._known_commit(request)
        sha = request.path_params["sha"]
        runs = self._runs() if sha != self._release.previous.commit else []
        if sha in self.backlog.heads.values():
            runs = self.backlog.runs([{**run, "head_sha": sha} for run in runs], sha)
        page, links = page_of(request, runs)
        return JSONResponse({"total_count": len(runs), "check_runs": page}, headers=links)

    async def _combined_status(self, request: Request) -> Response:
        allow_query(request, "per_page", "page")
        self._known_commit(request)
        state = "failure" if self.faults.is_on("ci-status-red") else "success"
        status = {
            "id": 1,
            "context": "security/audit",
            "state": state,
            "description": "dependency audit",
            "target_url": None,
            "created_at": "2026-01-01T00:05:00Z",
            "updated_at": "2026-01-01T00:05:00Z",
        }
        page, links = page_of(request, [status])
        document = {"state": state, "sha": request.path_params["sha"], "total_count": 1}
        return JSONResponse(document | {"statuses": page}, headers=links)

    # --- what the release leaves open ---------------------------------------------------------

    def _leave_open(self) -> None:
        for number, (title, branch) in HOTFIXES.items():
            body = f"Not worth a new candidate.\n\nbranch: {branch}\n"
            self.issues[number] = self._issue(number, title, body, ["low-risk"])
        self.issues[PULL_REQUEST] = self._issue(PULL_REQUEST, "Back off faster", "", [])
        self.issues[PULL_REQUEST]["pull_request"] = {"url": "https://forge.invalid/pull"}
        for number in (*HOTFIXES, PULL_REQUEST):
            milestone = {"number": MILESTONE, "title": self._release.version}
            self.issues[number]["milestone"] = milestone

    async def _milestones(self, request: Request) -> Response:
        allow_query(request, "per_page", "page", "state", "sort", "direction")
        state = request.query_params.get("state", "open")
        found = self.backlog.milestones(self.issues)
        page, links = page_of(request, [one for one in found if state in ("all", one["state"])])
        return JSONResponse(page, headers=links)

    async def _compare(self, request: Request) -> Response:
        allow_query(request, "per_page", "page")
        found = self.backlog.compare(request.path_params["base"], request.path_params["head"])
        if found is None:
            raise HTTPException(404, "Not Found")
        return JSONResponse(found)

    # --- branches -----------------------------------------------------------------------------

    async def _branch(self, request: Request) -> Response:
        name = request.path_params["branch"]
        if name not in BRANCHES or not self.backlog.exists(name):
            raise HTTPException(404, "Branch not found")
        sha = self.backlog.heads.get(name, self._release.commit)
        return JSONResponse({"name": name, "commit": {"sha": sha}, "protected": name == "main"})

    # --- people -------------------------------------------------------------------------------

    def say(self, account: str, text: str, *, at: datetime | None = None, issue: int) -> int:
        """A comment by ``account``, now or as of ``at``; its id. KeyError for no such issue."""
        when = at.strftime("%Y-%m-%dT%H:%M:%SZ") if at else self._now()
        key = next(self._ids)
        self.comments[key] = {
            "id": key,
            "body": text,
            "user": {"login": account},
            "created_at": when,
            "updated_at": when,
            "issue_url": f"https://forge.invalid/repos/{REPOSITORY}/issues/{issue}",
            "html_url": f"{self.issues[issue]['html_url']}#issuecomment-{key}",
        }
        return key

    def edit(self, comment: int, text: str) -> None:
        """Its author writes a comment anew, at the earliest a second after it was written."""
        before = datetime.fromisoformat(self.comments[comment]["created_at"]).timestamp()
        now = datetime.fromtimestamp(max(self._clock.now(), before + 1), UTC)
        self.comments[comment].update(body=text, updated_at=now.strftime("%Y-%m-%dT%H:%M:%SZ"))

    # --- issues and comments ------------------------------------------------------------------

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _issue(self, number: int, title: str, body: str, labels: list[str]) -> Json:
        now = self._now()
        return {
            "id": next(self._ids),
            "number": number,
            "title": title,
            "body": body,
            "state": "open",
            "locked": False,
            "user": {"login": ACCOUNT},
            "labels": [{"name": label} for label in labels],
            "created_at": now,
            "updated_at": now,
            "html_url": f"https://forge.invalid/{REPOSITORY}/issues/{number}",
        }

    def _find(self, table: dict[int, Json], key: int) -> Json:
        if key not in table:
            raise HTTPException(404, "Not Found")
        return table[key]

    async def _all_issues(self, request: Request) -> Response:
        allow_query(request, "per_page", "page", "state", "labels", "sort", "direction", "since",
                    "milestone")  # fmt: skip
        state = request.query_params.get("state", "open")
        labels = {label for label in request.query_params.get("labels", "").split(",") if label}
        since = _instant(request.query_params.get("since", ""))
        shown = [
            self.backlog.shown(issue)
            for issue in self.issues.values()
            if not since or datetime.fromisoformat(issue["updated_at"]) >= since
        ]
        issues = [
            issue
            for issue in of_milestone(shown, request.query_params.get("milestone"))
            if state in ("all", issue["state"])
            and labels <= {label["name"] for label in issue["labels"]}
        ]
        page, links = page_of(request, issues)
        return JSONResponse(page, headers=links)

    async def _create_issue(self, request: Request) -> Response:
        body = await json_body(request, title=str, body=str, labels=list)
        self._may_file()
        if not body.get("title", "").strip():
            raise Invalid("Issue", "title", "missing_field")
        if len(body["title"]) > LONGEST_TITLE:
            said = f"title is too long (maximum is {LONGEST_TITLE} characters)"
            raise Invalid("Issue", "title", "custom", said)
        text = self._fitting(body.get("body", ""))
        number = max(self.issues) + 1
        labels = [str(label) for label in body.get("labels", [])]
        made = self._issue(number, body["title"], text, labels)
        if not self.faults.is_on("report-lost"):
            self.issues[number] = made
            self._read_by_others(number)
        return JSONResponse(made, 201)

    def _may_file(self) -> None:
        if self.faults.is_on("incident-issue-refused"):
            raise HTTPException(403, "Resource not accessible by personal access token")
        if self.faults.is_on("incident-issue-limited"):
            message = "You have exceeded a secondary rate limit."
            raise HTTPException(403, message, {"retry-after": "60"})
        if self.faults.is_on("incident-issue-unavailable"):
            raise HTTPException(503, "Service Unavailable")
        if self.faults.is_on("report-unsent"):
            raise HTTPException(502, "Bad Gateway")

    def _read_by_others(self, number: int) -> None:
        if self.faults.is_on("incident-issue-edited"):
            self.issues[number] |= {"body": self.issues[number]["body"] + "\n\nNot so bad."}

    @staticmethod
    def _fitting(text: str) -> str:
        if len(text) > MAX_BODY:
            said = f"body is too long (maximum is {MAX_BODY} characters)"
            raise Invalid("Issue", "body", "custom", said)
        return text

    def _issue_of(self, request: Request) -> Json:
        if self.faults.is_on("issue-missing"):
            raise HTTPException(404, "Not Found")
        return self._find(self.issues, request.path_params["number"])

    async def _one_issue(self, request: Request) -> Response:
        locked = self.faults.is_on("issue-locked")
        return JSONResponse(self._issue_of(request) | ({"locked": True} if locked else {}))

    async def _update_issue(self, request: Request) -> Response:
        issue = self._issue_of(request)
        body = await json_body(request, title=str, body=str, state=str, labels=list)
        self._may_file()
        self._fitting(body.get("body", ""))
        if body.get("state", "open") not in ("open", "closed"):
            raise HTTPException(422, "Validation Failed")
        if "labels" in body:
            body["labels"] = [{"name": str(label)} for label in body["labels"]]
        issue.update(body, updated_at=self._now())
        answer = JSONResponse(issue)
        self._read_by_others(issue["number"])
        return answer

    async def _issue_comments(self, request: Request) -> Response:
        allow_query(request, "per_page", "page", "since")
        number = self._issue_of(request)["number"]
        comments = [c for c in self.comments.values() if c["issue_url"].endswith(f"/{number}")]
        page, links = page_of(request, comments)
        return JSONResponse(page, headers=links)

    async def _user(self, request: Request) -> Response:
        return JSONResponse({"login": ACCOUNT, "id": 1, "type": "User"})

    async def _create_comment(self, request: Request) -> Response:
        issue = self._issue_of(request)
        self._may_comment()
        if self.faults.is_on("issue-locked"):
            raise HTTPException(403, "Unable to create comment because issue is locked.")
        text = await comment_text(request)
        key = self.say(ACCOUNT, text, issue=issue["number"])
        self.on_comment(text)
        return self._written(key, 201)

    async def _comment(self, request: Request) -> Response:
        return JSONResponse(self._find(self.comments, request.path_params["id"]))

    async def _update_comment(self, request: Request) -> Response:
        comment = self._find(self.comments, request.path_params["id"])
        self._may_comment()
        comment.update(body=await comment_text(request), updated_at=self._now())
        return self._written(comment["id"], 200)

    def _may_comment(self) -> None:
        if self.faults.is_on("comment-refused"):
            raise HTTPException(403, "Resource not accessible by personal access token")

    def _written(self, key: int, status: int) -> Response:
        answer = JSONResponse(self.comments[key], status)
        if self.faults.is_on("comment-edited"):  # by somebody who has just read it
            self.comments[key]["body"] += "\n\nAll good, go ahead."
        return answer


def _instant(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError as error:
        raise HTTPException(422, "since: expected an ISO 8601 instant") from error


async def _nowhere(message: Any) -> None:
    """Where an answer goes that gets lost."""
