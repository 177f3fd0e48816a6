"""A stand-in for the part of GitHub's REST API that a rollout uses, strict and in memory.

Shapes, paging (``per_page`` up to 100, ``Link``), error bodies and rate-limit answers follow
docs.github.com/rest. Whatever a client sends beyond what is documented is refused.
"""

import copy
import hashlib
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

from .chain.world import Clock
from .faults.table import FaultBoard
from .github import (
    ACCOUNT,
    API,
    HOME,
    Invalid,
    Json,
    Releases,
    allow_query,
    error,
    find,
    fitting,
    json_body,
    paged,
    problem,
    route,
)
from .layout import ISSUE, REQUIRED_CHECKS, Release
from .loopback import Loopback, Scope

LONGEST_TITLE = 256
WRITES_A_MINUTE = 80  # the secondary limit of requests that make content
TOO_MANY = "You have exceeded a secondary rate limit and have been temporarily blocked."
SOON = {"retry-after": "60"}
BRANCHES = ("main", "release/v1.3", "hotfix/gossip-backoff", "hotfix/typo-in-metrics")
HOTFIXES = {
    43: ("Gossip backs off too slowly", "hotfix/gossip-backoff"),
    44: ("Typo in a metric's help", "hotfix/typo-in-metrics"),
}
"""What a release leaves open: two low-risk issues, their branches one commit ahead of it."""
FIRST, FIRST_BRANCH = 43, "hotfix/gossip-backoff"  # what faults are about
PULL_REQUEST, MILESTONE, BEFORE = 45, 2, 1
CHECKS: dict[str, Json] = {
    "ci-red": {"conclusion": "failure"},
    "ci-skipped": {"conclusion": "skipped"},
    "ci-neutral": {"conclusion": "neutral"},
    "ci-cancelled": {"conclusion": "cancelled"},
    "ci-pending": {"conclusion": None, "status": "in_progress", "completed_at": None},
    "ci-wrong-app": {"app": {"id": 99, "slug": "somebody-else", "name": "Other"}},
}
"""What faults make of the last required check."""
TWICE: dict[str, Json] = {
    "ci-suite-red": {"check_suite": {"id": 7}},
    "ci-app-red": CHECKS["ci-wrong-app"],
}
"""Who reports the last required check too, and red."""
HOTFIX_CHECKS = {"hotfix-ci-red": CHECKS["ci-red"], "hotfix-ci-pending": CHECKS["ci-pending"]}
SHOWN: dict[str, Json] = {
    "hotfix-not-low-risk": {"labels": [{"name": "high-risk"}]},
    "hotfix-unlabelled": {"labels": []},
    "hotfix-unlinked": {"body": "Someone is on it."},
}
"""What faults make of the first open issue."""
Refused = dict[str, tuple[int, str, dict[str, str]]]
NO_ACCESS = "Resource not accessible by personal access token"
COMMENTS_REFUSED: Refused = {"comment-refused": (403, NO_ACCESS, {})}
ISSUES_REFUSED: Refused = {
    "incident-issue-refused": (403, NO_ACCESS, {}),
    "incident-issue-limited": (403, "You have exceeded a secondary rate limit.", SOON),
    "incident-issue-unavailable": (503, "Service Unavailable", {}),
    "report-unsent": (502, "Bad Gateway", {}),
}
"""How faults answer whoever files or edits an issue."""


class Forge:
    """One repository: its checks, statuses, branches, issues and comments."""

    def __init__(
        self, release: Release, clock: Clock, faults: FaultBoard, token: str, loopback: Loopback
    ) -> None:
        self.faults, self._loopback = faults, loopback
        self._clock, self._token = clock, token
        self._ids = itertools.count(1001)
        self._writes: deque[float] = deque()
        self._died = False
        self.limited_once = False  # whether it refuses the next request, as too many at once
        self.comments: dict[int, Json] = {}
        self.issues: dict[int, Json] = {
            ISSUE: self._issue(ISSUE, "Release", "Progress of the rollout.", ["release"])
        }
        self.follow(release)
        self.on_comment: Callable[[str], None] = lambda text: None
        self.releases = Releases(self._now, self._ids)
        self._app = Starlette(
            routes=[
                route(f"{API}/commits/{{sha}}/check-runs", GET=self._check_runs),
                route(f"{API}/commits/{{sha}}/status", GET=self._combined_status),
                route(f"{API}/branches/{{branch:path}}", GET=self._branch),
                route(f"{API}/compare/{{base}}...{{head}}", GET=self._compare),
                route(f"{API}/milestones", GET=self._milestones),
                route(f"{API}/issues/comments/{{id:int}}",
                       GET=self._comment, PATCH=self._update_comment),
                route(f"{API}/issues/{{number:int}}/comments",
                       GET=self._issue_comments, POST=self._create_comment),
                route(f"{API}/issues/{{number:int}}",
                       GET=self._one_issue, PATCH=self._update_issue),
                route(f"{API}/issues", GET=self._all_issues, POST=self._create_issue),
                *self.releases.routes(),
                route("/user", GET=self._user),
            ],
            exception_handlers={HTTPException: error},
        )  # fmt: skip

    def follow(self, release: Release) -> None:
        self._release = release
        self.heads = {
            branch: hashlib.sha1(  # noqa: S324 - a commit's name
                f"{release.commit}/{branch}".encode()
            ).hexdigest()
            for _, branch in HOTFIXES.values()
        }
        self.issues[ISSUE]["title"] = f"Release {release.version}"
        for number, (title, branch) in HOTFIXES.items():
            body = f"Not worth a new candidate.\n\nbranch: {branch}\n"
            self.issues[number] = self._issue(number, title, body, ["low-risk"])
        self.issues[PULL_REQUEST] = self._issue(PULL_REQUEST, "Back off faster", "", [])
        self.issues[PULL_REQUEST]["pull_request"] = {"url": "https://forge.invalid/pull"}
        for number in (*HOTFIXES, PULL_REQUEST):
            self.issues[number]["milestone"] = {"number": MILESTONE, "title": release.version}

    def save(self) -> Callable[[], None]:
        """What restores issues, comments and releases as they are now, with the whole rate limit."""
        published = self.releases
        held = copy.deepcopy((self.comments, self.issues, published.releases, published.assets))

        def restore() -> None:
            again = copy.deepcopy(held)
            self.comments, self.issues, published.releases, published.assets = again
            self.refill()

        return restore

    def refill(self) -> None:
        self._writes.clear()

    async def app(self, scope: Scope, receive: Any, send: Any) -> None:
        writes = scope["method"] != "GET"
        refusal = self._refusal(dict(scope["headers"]), writes)
        self._died = self._died and self.faults.is_on("forge-dies-after-write")
        if refusal is not None:
            await refusal(scope, receive, send)
        elif self._died:
            await self._loopback.hang_up(scope)
        elif self.faults.is_on("forge-truncated"):
            headers = [(b"content-type", b"application/json"), (b"content-length", b"4096")]
            await self._loopback.break_off(scope, send, 200, headers, b'{"total_count": 3')
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
            return problem(429, "You have exceeded a secondary rate limit.", limit | SOON)
        if self.faults.is_on("forge-500"):
            return problem(500, "Server Error")
        if self.limited_once:
            self.limited_once = False
            return problem(403, TOO_MANY)
        return self._too_many_writes() if writes else None

    def _too_many_writes(self) -> Response | None:
        now = self._clock.now()
        while self._writes and self._writes[0] <= now - 60:
            self._writes.popleft()
        if len(self._writes) >= WRITES_A_MINUTE or self.faults.is_on("comments-limited"):
            return problem(403, TOO_MANY, SOON)
        self._writes.append(now)
        return None

    def _changed(self, changes: dict[str, Json]) -> Json:
        found: Json = {}
        for fault, change in changes.items():
            found |= change if self.faults.is_on(fault) else {}
        return found

    # --- checks and branches ------------------------------------------------------------------

    def _runs(self, sha: str) -> list[Json]:
        if sha == self._release.previous.commit or self.faults.is_on("ci-none"):
            return []
        names = [f"build and test ({number})" for number in range(1, 120)]
        runs = [
            {
                "id": number,
                "name": name,
                "head_sha": sha,
                "status": "completed",
                "conclusion": "success",
                "started_at": "2026-01-01T00:00:00Z",
                "completed_at": "2026-01-01T00:10:00Z",
                "html_url": f"{HOME}/runs/{number}",
                "app": {"id": 15368, "slug": "github-actions", "name": "GitHub Actions"},
            }
            for number, name in enumerate((*names, *REQUIRED_CHECKS), start=1)
        ]
        runs[-1] |= self._changed(CHECKS)
        if twice := self._changed(TWICE):
            runs.insert(0, {**runs[-1], "id": len(runs) + 1, "conclusion": "failure", **twice})
        if self.faults.is_on("ci-missing"):
            del runs[-1]
        if sha == self.heads[FIRST_BRANCH]:
            runs[-1] |= self._changed(HOTFIX_CHECKS)
        return runs

    def _known_commit(self, request: Request) -> str:
        sha = str(request.path_params["sha"])
        if sha not in (self._release.commit, self._release.previous.commit, *self.heads.values()):
            raise HTTPException(422, f"No commit found for SHA: {sha}")
        return sha

    async def _check_runs(self, request: Request) -> Response:
        runs = self._runs(self._known_commit(request))
        about = {"total_count": len(runs)}
        return paged(request, runs, "filter", wrap=lambda page: about | {"check_runs": page})

    async def _combined_status(self, request: Request) -> Response:
        state = "failure" if self.faults.is_on("ci-status-red") else "success"
        of_check = self.faults.is_on("ci-status-of-check-red")
        state = "failure" if of_check else state
        status = {
            "id": 1,
            "context": REQUIRED_CHECKS[-1] if of_check else "security/audit",
            "state": state,
            "description": "dependency audit",
            "target_url": None,
            "created_at": "2026-01-01T00:05:00Z",
            "updated_at": "2026-01-01T00:05:00Z",
        }
        about = {"state": state, "sha": self._known_commit(request), "total_count": 1}
        return paged(request, [status], wrap=lambda page: about | {"statuses": page})

    async def _branch(self, request: Request) -> Response:
        name = request.path_params["branch"]
        missing = name == FIRST_BRANCH and self.faults.is_on("hotfix-branch-missing")
        if name not in BRANCHES or missing:
            raise HTTPException(404, "Branch not found")
        sha = self.heads.get(name, self._release.commit)
        return JSONResponse({"name": name, "commit": {"sha": sha}, "protected": name == "main"})

    async def _compare(self, request: Request) -> Response:
        """A head against the release's commit; 404 for commits that the repository has not."""
        allow_query(request, "per_page", "page")
        base, head = request.path_params["base"], request.path_params["head"]
        ours, before = self._release.commit, self._release.previous.commit
        if base != ours or head not in (ours, before, *self.heads.values()):
            raise HTTPException(404, "Not Found")
        diverged = head == self.heads[FIRST_BRANCH] and self.faults.is_on("hotfix-diverged")
        ahead, behind = int(head in self.heads.values()), int(diverged or head == before)
        status = {(0, 0): "identical", (1, 0): "ahead", (0, 1): "behind"}
        return JSONResponse(
            {
                "status": status.get((ahead, behind), "diverged"),
                "ahead_by": ahead,
                "behind_by": behind,
                "total_commits": ahead,
                "base_commit": {"sha": base},
                "merge_base_commit": {"sha": before if behind else ours},
                "commits": [{"sha": head}][:ahead],
            }
        )

    async def _milestones(self, request: Request) -> Response:
        """Of this release and the one before, with how many issues each has."""
        titles = {MILESTONE: self._release.version, BEFORE: self._release.previous.version}
        if self.faults.is_on("milestone-missing"):
            del titles[MILESTONE]
        found = []
        for number, title in titles.items():
            states = [i["state"] for i in self.issues.values() if _milestone(i) == number]
            found.append(
                {
                    "number": number,
                    "title": title,
                    "state": "open" if number == MILESTONE else "closed",
                    "open_issues": states.count("open"),
                    "closed_issues": states.count("closed"),
                    "html_url": f"{HOME}/milestone/{number}",
                }
            )
        return paged(request, _in_state(request, found), "state", "sort", "direction")

    # --- people -------------------------------------------------------------------------------

    def say(
        self, account: str, text: str, *, at: datetime | None = None, issue: int = ISSUE
    ) -> int:
        """A comment by ``account``, now or as of ``at``; its id. KeyError for no such issue."""
        when = _text(at.timestamp()) if at else self._now()
        key = next(self._ids)
        self.comments[key] = {
            "id": key,
            "body": text,
            "user": {"login": account},
            "created_at": when,
            "updated_at": when,
            "issue_url": f"https://forge.invalid{API}/issues/{issue}",
            "html_url": f"{self.issues[issue]['html_url']}#issuecomment-{key}",
        }
        return key

    def edit(self, comment: int, text: str) -> None:
        """Its author writes a comment anew, at the earliest a second after it was written."""
        before = datetime.fromisoformat(self.comments[comment]["created_at"]).timestamp()
        now = _text(max(self._clock.now(), before + 1))
        self.comments[comment].update(body=text, updated_at=now)

    async def _user(self, request: Request) -> Response:
        return JSONResponse({"login": ACCOUNT, "id": 1, "type": "User"})

    # --- issues and comments ------------------------------------------------------------------

    def _now(self) -> str:
        return _text(self._clock.now())

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
            "html_url": f"{HOME}/issues/{number}",
        }

    async def _all_issues(self, request: Request) -> Response:
        since, milestone = (request.query_params.get(name, "") for name in ("since", "milestone"))
        issues = [
            issue | (self._changed(SHOWN) if issue["number"] == FIRST else {})
            for issue in self.issues.values()
            if not since or issue["updated_at"] >= since
            if not milestone or str(_milestone(issue)) == milestone
        ]
        known = ("state", "sort", "direction", "since", "milestone")
        return paged(request, _in_state(request, issues), *known)

    async def _create_issue(self, request: Request) -> Response:
        body = await json_body(request, title=str, body=str)
        self._may(ISSUES_REFUSED)
        if not body.get("title", "").strip():
            raise Invalid("Issue", "title", "missing_field")
        if len(body["title"]) > LONGEST_TITLE:
            said = f"title is too long (maximum is {LONGEST_TITLE} characters)"
            raise Invalid("Issue", "title", "custom", message=said)
        text = fitting(body.get("body", ""), "Issue", "body")
        number = max(self.issues) + 1
        made = self._issue(number, body["title"], text, [])
        if not self.faults.is_on("report-lost"):
            self.issues[number] = made
            self._read_by_others(number)
        return JSONResponse(made, 201)

    def _may(self, refused: Refused) -> None:
        for fault, answer in refused.items():
            if self.faults.is_on(fault):
                raise HTTPException(*answer)

    def _read_by_others(self, number: int) -> None:
        if self.faults.is_on("incident-issue-edited"):
            self.issues[number] |= {"body": self.issues[number]["body"] + "\n\nNot so bad."}

    def _issue_of(self, request: Request) -> Json:
        if self.faults.is_on("issue-missing"):
            raise HTTPException(404, "Not Found")
        return find(self.issues, request, "number")

    async def _one_issue(self, request: Request) -> Response:
        locked = self.faults.is_on("issue-locked")
        return JSONResponse(self._issue_of(request) | ({"locked": True} if locked else {}))

    async def _update_issue(self, request: Request) -> Response:
        issue = self._issue_of(request)
        body = await json_body(request, body=str)
        self._may(ISSUES_REFUSED)
        fitting(body.get("body", ""), "Issue", "body")
        issue.update(body, updated_at=self._now())
        answer = JSONResponse(issue)
        self._read_by_others(issue["number"])
        return answer

    async def _issue_comments(self, request: Request) -> Response:
        number = self._issue_of(request)["number"]
        comments = [c for c in self.comments.values() if c["issue_url"].endswith(f"/{number}")]
        return paged(request, comments, "since")

    async def _create_comment(self, request: Request) -> Response:
        issue = self._issue_of(request)
        self._may(COMMENTS_REFUSED)
        if self.faults.is_on("issue-locked"):
            raise HTTPException(403, "Unable to create comment because issue is locked.")
        text = await _comment_text(request)
        key = self.say(ACCOUNT, text, issue=issue["number"])
        self.on_comment(text)
        return self._written(key, 201)

    async def _comment(self, request: Request) -> Response:
        return JSONResponse(find(self.comments, request))

    async def _update_comment(self, request: Request) -> Response:
        comment = find(self.comments, request)
        self._may(COMMENTS_REFUSED)
        comment.update(body=await _comment_text(request), updated_at=self._now())
        return self._written(comment["id"], 200)

    def _written(self, key: int, status: int) -> Response:
        answer = JSONResponse(self.comments[key], status)
        if self.faults.is_on("comment-edited"):  # by somebody who has just read it
            self.comments[key]["body"] += "\n\nAll good, go ahead."
        return answer


async def _comment_text(request: Request) -> str:
    text = (await json_body(request, body=str)).get("body", "")
    if not text.strip():
        raise Invalid("IssueComment", "body", "missing_field")
    return fitting(text, "IssueComment", "data")


def _text(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _milestone(issue: Json) -> int | None:
    found: Json | None = issue.get("milestone")
    return int(found["number"]) if found else None


def _in_state(request: Request, rows: list[Json]) -> list[Json]:
    state = request.query_params.get("state", "open")
    return [row for row in rows if state in ("all", row["state"])]


async def _nowhere(message: Any) -> None:
    """Where an answer goes that gets lost."""
