"""Every source against every way of not answering: an error that names it, never a value."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from runbook_lib import reach, site
from runbook_lib.errors import SourceError
from runbook_lib.sources.alertmanager import Alertmanager
from runbook_lib.sources.github import GitHub
from runbook_lib.sources.node import Fleet
from runbook_lib.sources.prometheus import Prometheus
from runbook_lib.sources.scope import Scope

from .conftest import World
from .github_answers import COMMIT, SETTINGS
from .test_prometheus import AT

ENDPOINT = reach.Endpoint(url="http://server")
CLUSTER = site.Cluster(chain_id="c", nodes=[site.Node(name="n1", url="http://n1")])
pytestmark = pytest.mark.usefixtures("no_waiting", "forge_token")


NODES = {
    "rollout": "/status/rollout", "status": "/status/node", "consensus": "/status/consensus",
    "peers": "/p2p/peers", "membership": "/ui/bft/membership",
}  # fmt: skip


def prometheus(scope: Scope) -> Prometheus:
    return Prometheus(scope, ENDPOINT)


ASK: dict[str, tuple[str, Callable[[Scope], Any]]] = {
    **{
        what: (
            f"n1 {path}",
            lambda s, what=what: getattr(Fleet(s, CLUSTER), what)()["n1"],
        )  # type: ignore[misc]
        for what, path in NODES.items()
    },
    "instant": ("prometheus: up", lambda s: prometheus(s).instant("up", AT)),
    "range": ("prometheus: up", lambda s: prometheus(s).range("up", AT, AT, timedelta(seconds=60))),
    "newest": (
        "prometheus: timestamp(up)",
        lambda s: prometheus(s).newest(["up"], AT)["up"],
    ),
    "rules": ("prometheus: rules", lambda s: prometheus(s).rules()),
    "alertmanagers": ("prometheus: alertmanagers", lambda s: prometheus(s).alertmanagers()),
    "am status": ("alertmanager: status", lambda s: Alertmanager(s, ENDPOINT).config()),
    "am alerts": ("alertmanager: alerts", lambda s: Alertmanager(s, ENDPOINT).alerts()),
    "am silences": ("alertmanager: silences", lambda s: Alertmanager(s, ENDPOINT).silences()),
}
FORGES: dict[str, tuple[str, Callable[[GitHub], Any]]] = {
    "check runs": (f"check runs of {COMMIT[:12]}", lambda forge: forge.check_runs(COMMIT)),
    "statuses": (f"statuses of {COMMIT[:12]}", lambda forge: forge.statuses(COMMIT)),
    "issue": ("issue 7", lambda forge: forge.issue(7)),
    "comments": ("comments of issue 7", lambda forge: forge.comments(7)),
}
for what, (name, ask) in FORGES.items():
    ASK[what] = (f"forge: {name}", lambda s, ask=ask: ask(GitHub(s, SETTINGS)))  # type: ignore[misc]
every_source = pytest.mark.parametrize("source", ASK)


def problem(world: World, source: str, handler: Callable[[httpx.Request], httpx.Response]) -> str:
    """What a source says is wrong, without its own name; the same live and in replay."""
    name, ask = ASK[source]
    said = []
    for make in (lambda: world.scope(handler), world.replay):
        with pytest.raises(SourceError) as caught:
            ask(make())
        assert caught.value.source == name
        said.append(caught.value.problem)
    assert said[0] == said[1]
    return said[0]


@every_source
@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("silent"),
        httpx.RemoteProtocolError("cut"),
        httpx.DecodingError("no gzip"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_answer(world: World, source: str, error: httpx.TransportError) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error

    said = problem(world, source, fail)
    assert said == f"expected an answer, got {type(error).__name__}: {error}"
    assert len(world.asked) == 3


HINTS = {
    401: ("; check the token", "no luck; the token is wrong or expired"),
    403: ("; check what the token may do", "no luck; the token lacks a permission"),
    404: ("; check the URL", "no luck; it does not exist, or the token may not see it"),
    429: (
        "; it limits our rate, ask again later",
        "the rate limit is used up; ask again in 3600 s",
    ),
    500: ("", "no luck"),
    503: ("", "no luck"),
}


@every_source
@pytest.mark.parametrize("status", HINTS)
def test_another_status(world: World, source: str, status: int) -> None:
    headers = {"retry-after": "3600"} if status == 429 else {}
    answer = httpx.Response(status, headers=headers, json={"message": "no luck"})
    if (source, status) == ("alertmanagers", 404):  # a server that keeps no list of them
        assert ASK[source][1](world.scope(lambda _: answer)) is None
        return
    hint, forges = HINTS[status]
    got = forges if source in FORGES else '{"message":"no luck"}' + hint
    assert problem(world, source, lambda _: answer) == f"expected status 200, got {status}: {got}"


@every_source
@pytest.mark.parametrize(
    ("body", "said"),
    [
        *((body, "expected JSON, got: ") for body in ("", '{"status":"succ', "<html>", '[{"a":')),
        *((body, ", got ") for body in
          ("null", "[]", "{}", "7", '"text"', "[7]", '{"status":"success"}')),
    ],
)  # fmt: skip
def test_an_answer_of_no_json_or_another_shape(
    world: World, source: str, body: str, said: str
) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=body)

    if body == "[]" and source in ("am alerts", "am silences", "comments"):
        assert ASK[source][1](world.scope(handler)) == []
        return
    found = problem(world, source, handler)
    assert "expected " in found and said in found
