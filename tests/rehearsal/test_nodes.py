"""The rehearsal's nodes and forge: data, what is staged for them, and what they answer."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runbook_rehearsal.nodes import storage

from .conftest import Visitor

LABEL = "v1.4.0-development-1"


class Node:
    """A node of the shared network, and the site's commands on it."""

    def __init__(self, visitor: Visitor, name: str = "dev-3") -> None:
        self.visitor, self.network, self.name = visitor, visitor.network, name
        self.home = self.network.world.node_dir("development", name)

    def do(self, purpose: str, **values: Any) -> Any:
        values = {"bundle": self.bundle, "label": LABEL, "height": "0", **values}
        return self.visitor.command(purpose, node=self.name, **values)

    def said(self, purpose: str, **values: Any) -> dict[str, Any]:
        done = self.do(purpose, **values)
        assert (done.returncode, done.stderr) == (0, "")
        return dict(json.loads(done.stdout))

    @property
    def bundle(self) -> Path:
        return self.network.assets.bundle("development")

    def picture(self, folder: str = "data") -> dict[str, bytes]:
        files = sorted(path for path in (self.home / folder).rglob("*") if path.is_file())
        return {
            path.relative_to(self.home / folder).as_posix(): path.read_bytes() for path in files
        }


@pytest.fixture
def node(visitor: Visitor) -> Iterator[Node]:
    visitor.network.assets.back_up("development")
    made = Node(visitor)
    yield made
    for active in list(visitor.network.faults):
        visitor.network.clear(active.name)
    visitor.network.reinstall("development")


@pytest.mark.parametrize("purpose", ["keep_data", "restore_snapshot", "replay_proofs"])
def test_a_running_nodes_data_is_locked(node: Node, purpose: str) -> None:
    """Each command that would alter them refuses, and alters nothing."""
    before = node.picture()
    done = node.do(purpose)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "dev-3: the data are locked by a running node\n"
    assert node.picture() == before


def test_a_restore_needs_the_place_free(node: Node) -> None:
    """Data that were not kept aside are in the way; without a restore nothing is replayed."""
    node.said("stop")

    done = node.do("restore_snapshot")
    assert (done.returncode, done.stderr) == (
        1,
        "dev-3: data are in place: keep them aside first\n",
    )
    assert node.do("replay_proofs").stderr == "dev-3: nothing was restored here\n"
    node.said("keep_data")
    assert node.said("inspect_wal")["records"] == storage.RECORDS  # of what was kept
    assert node.do("keep_data", label="another").stderr == "dev-3: no data to keep\n"
    node.said("restore_snapshot")
    assert (
        "expected a record of height 7000000" in node.do("replay_proofs", height="7000000").stderr
    )


def test_a_node_without_data_does_not_start(node: Node) -> None:
    """Half a recovery must not pass for a whole one."""
    node.said("stop")
    node.said("keep_data")

    done = node.do("start")
    assert (done.returncode, done.stderr) == (
        3,
        "startup error: storage: no state to start from\n",
    )


def test_an_operators_node_is_the_operators(visitor: Visitor) -> None:
    """Nobody else stops it or touches its data."""
    done = visitor.command("stop", node="test-7")

    assert (done.returncode, "permission denied" in done.stderr) == (13, True)


# --- what is staged for a rollback is kept young, but for what a fault broke ----------------------


def staged(visitor: Visitor, cluster: str) -> bytes:
    [folder] = visitor.site["clusters"][cluster]["rollback"]["snapshots"]
    [found] = Path(folder).iterdir()
    return (found / "bundle.json").read_bytes()


def test_a_backup_does_not_repair_what_a_fault_broke(visitor: Visitor) -> None:
    """Only clearing it does; the other clusters go on."""
    visitor.network.fault("snapshot-too-old@development")
    broken = staged(visitor, "development")
    other = staged(visitor, "testnet")
    visitor.network.fast_forward(3600)

    assert staged(visitor, "development") == broken
    assert staged(visitor, "testnet") != other
    visitor.network.clear("snapshot-too-old")
    healed = json.loads(staged(visitor, "development"))
    assert abs(healed["created_at"] - visitor.network.world.clock.now()) < 60


# --- the HTTP RPC: routes, shapes, token, rate limit ----------------------------------------------


@pytest.mark.parametrize("auth", ["", "Bearer wrong", "Basic eDp5", "wrong"])
@pytest.mark.parametrize("path", ["/health", "/status/node", "/no/such/route"])
def test_every_route_wants_the_token(visitor: Visitor, auth: str, path: str) -> None:
    """Health routes and unknown ones are no exception."""
    answer = visitor.rpc("dev-3", path, auth=auth)

    assert (answer.status_code, answer.json()) == (401, {"error": "unauthorized"})


@pytest.mark.parametrize("path", ["/status", "/status/storage", "/consensus/validators", "/"])
def test_routes_the_chain_lacks_are_absent(visitor: Visitor, path: str) -> None:
    """Routes that the chain's documents mention and its router does not have."""
    assert visitor.rpc("dev-1", path).status_code == 404


def test_rate_limit_refuses_after_the_burst_and_refills(visitor: Visitor) -> None:
    """The 121st request at once is 429 and says when to come back; a minute brings 60 more."""
    answers = [visitor.rpc("dev-4", "/health") for _ in range(125)]
    refused = [answer for answer in answers if answer.status_code == 429]

    assert 1 <= len(refused) <= 5
    assert refused[0].json() == {"error": "rate limit exceeded"}
    assert refused[0].headers["retry-after"] == "1"
    assert refused[0].headers["x-ratelimit-limit"] == "120"
    assert refused[0].headers["x-ratelimit-remaining"] == "0"
    visitor.network.world.clock.advance(60)
    assert visitor.rpc("dev-4", "/health").headers["x-ratelimit-remaining"] == "59"


# --- The forge stand-in, held to GitHub's documented answers --------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("GET", "/nope", None, 404, "Not Found"),
        ("GET", "/issues/9999", None, 404, "Not Found"),
        ("GET", "/issues/9999/comments", None, 404, "Not Found"),
        ("DELETE", "/issues/42", None, 405, "Method Not Allowed"),
        ("GET", f"/commits/{'0' * 40}/check-runs", None, 422, f"No commit found for SHA: {'0' * 40}"),
        ("GET", "/issues?colour=red", None, 422, "unknown query parameter(s): colour"),
        ("GET", "/issues?page=x", None, 422, "per_page and page: expected integers"),
        ("POST", "/issues/42/comments", {"body": ""}, 422, "Validation Failed"),
        ("POST", "/issues/42/comments", {"text": "x"}, 422, "Invalid request: unknown or mistyped field"),
        ("POST", "/issues/42/comments", {"body": 1}, 422, "Invalid request: unknown or mistyped field"),
        ("POST", "/issues/42/comments", [], 400, "Body should be a JSON object"),
        ("POST", "/issues", {"body": "x"}, 422, "Validation Failed"),
        ("PATCH", "/issues/42", {"state": "closed"}, 422, "Invalid request: unknown or mistyped field"),
        ("POST", "/issues", {"title": "x" * 257}, 422, "Validation Failed"),
        ("PATCH", "/issues/comments/1", {"body": "x"}, 404, "Not Found"),
        ("DELETE", "/releases", None, 405, "Method Not Allowed"),
        ("GET", "/releases/tags/nope", None, 404, "Not Found"),
        ("GET", "/releases/9999/assets", None, 404, "Not Found"),
        ("POST", "/releases", {"name": "x"}, 422, "Validation Failed"),
        ("POST", "/releases", {"tag_name": "a b"}, 422, "Validation Failed"),
        ("POST", "/releases", {"tag_name": "x", "prerelease": "yes"}, 422, "Invalid request: unknown or mistyped field"),
        ("POST", "/releases", {"tag_name": "x", "prerelease": True, "make_latest": "true"}, 422, "Validation Failed"),
    ],
)  # fmt: skip
def test_whatever_is_not_documented_is_refused(
    visitor: Visitor, method: str, path: str, body: object, status: int, message: str
) -> None:
    """Routes, methods, parameters and fields nobody promised."""
    options = {} if body is None else {"json": body}
    answer = visitor.forge(method, path, **options)

    assert (answer.status_code, answer.json()["message"]) == (status, message)


@pytest.mark.parametrize("auth", [None, "Bearer wrong", "Basic eDp5"])
def test_forge_wants_its_token(visitor: Visitor, auth: str | None) -> None:
    """401 with GitHub's body."""
    url = visitor.site["forge"]["url"] + "/repos/HUBId/chain/issues"
    answer = visitor.http.get(url, headers={"authorization": auth} if auth else {})

    assert answer.status_code == 401
    assert answer.json() == {
        "message": "Bad credentials",
        "documentation_url": "https://docs.github.com/rest",
        "status": "401",
    }


def test_a_comment_is_limited_in_size(visitor: Visitor) -> None:
    """65,536 characters and not one more; the refusal says so as GitHub does."""
    fits = visitor.forge("POST", "/issues/42/comments", json={"body": "é" * 65536})
    too_long = visitor.forge("POST", "/issues/42/comments", json={"body": "é" * 65537})

    assert (fits.status_code, too_long.status_code) == (201, 422)
    assert too_long.json()["errors"] == [
        {
            "resource": "IssueComment",
            "code": "unprocessable",
            "field": "data",
            "message": "Body is too long (maximum is 65536 characters)",
        }
    ]


def test_writes_have_a_rate_limit_of_their_own(visitor: Visitor) -> None:
    """80 a minute; reads go on, and a minute later so do writes."""
    one = {"json": {"body": "x"}}
    for _ in range(80):
        assert visitor.forge("POST", "/issues/42/comments", **one).status_code == 201
    refused = visitor.forge("POST", "/issues/42/comments", **one)
    read = visitor.forge("GET", "/issues/42")
    visitor.network.world.clock.advance(61)

    assert (refused.status_code, refused.headers["retry-after"]) == (403, "60")
    assert refused.json()["message"].startswith("You have exceeded a secondary rate limit")
    assert read.status_code == 200
    assert visitor.forge("POST", "/issues/42/comments", **one).status_code == 201


def release(visitor: Visitor, tag: str) -> dict[str, Any]:
    body = {"tag_name": tag, "name": "Evidence", "prerelease": True, "make_latest": "false"}
    answer = visitor.forge("POST", "/releases", json=body)
    assert answer.status_code == 201
    made: dict[str, Any] = answer.json()
    return made


def upload(visitor: Visitor, made: dict[str, Any], query: str, data: bytes, **more: Any) -> Any:
    headers = {
        "authorization": f"Bearer {visitor.network.env['GITHUB_TOKEN']}",
        "content-type": "text/plain",
    }
    url = made["upload_url"].removesuffix("{?name,label}") + query
    return visitor.http.post(url, content=data, headers={**headers, **more})


@pytest.mark.parametrize(
    ("query", "data", "more", "status", "message"),
    [
        ("?name=there", b"x", {}, 422, "Validation Failed"),
        ("?label=x", b"x", {}, 422, "Validation Failed"),
        ("?name=x&size=1", b"x", {}, 422, "unknown query parameter(s): size"),
        ("?name=x", b"x", {"content-type": ""}, 422, "Validation Failed"),
        ("?name=x", b"", {}, 400, "Bad Content-Length: 0"),
        ("?name=x", b"x", {"authorization": "Bearer wrong"}, 401, "Bad credentials"),
    ],
)
def test_an_upload_that_breaks_the_rules_is_refused(
    visitor: Visitor, query: str, data: bytes, more: dict[str, str], status: int, message: str
) -> None:
    """A name that is taken or missing, no type, no content, no right."""
    made = release(visitor, f"evidence-{len(visitor.network.forge.releases.releases)}")
    upload(visitor, made, "?name=there", b"first")
    answer = upload(visitor, made, query, data, **more)

    assert (answer.status_code, answer.json()["message"]) == (status, message)
    assert len(visitor.forge("GET", f"/releases/{made['id']}/assets").json()) == 1
