"""The one place that opens a socket: concurrent HTTP with the site's TLS, headers and limits.

Measured for a fleet: a semaphore of 64 and no keep-alive pool is the fastest httpx gets; more
connections or its own queue are slower (a pool of 500 takes ten times as long).
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import httpx

from ..errors import ParameterError
from .redact import Redactor

# It logs the URL of each request, a secret webhook's too, and papermill shows what is logged.
logging.getLogger("httpx").setLevel(logging.WARNING)

Purpose = Literal["read", "change", "notify"]
T = TypeVar("T")
Pairs = tuple[tuple[str, str], ...]
PARALLEL = 64
RETRIED_STATUS = frozenset({429, 500, 502, 503, 504})
MAX_NODE, MAX_BODY, MAX_SERIES, MAX_OF_ALL = (n * 1024 * 1024 for n in (2, 16, 256, 512))
"""Bytes: of a node's answer, of another's, of one that holds series, of all that a source gives at once."""
PATIENCE = 4
"""How many of its time-outs a source has for one answer, and for all that an item waits in vain."""
CODINGS = frozenset({"deflate", "gzip", "identity"})
KEPT_HEADERS = ("content-type", "retry-after", "link", "x-ratelimit-remaining", "x-ratelimit-reset")
_URL = re.compile(r"https?://[^\s/:@?#]+(:[0-9]{1,5})?([/?]\S*)?", re.IGNORECASE)
_ERRORS = (httpx.TransportError, httpx.DecodingError, httpx.TooManyRedirects)
FAILURES = {"TooLarge", "GivenUp"} | {
    name
    for name, kind in vars(httpx).items()
    if isinstance(kind, type) and issubclass(kind, _ERRORS)
}


@dataclass(frozen=True)
class Tls:
    """PEM paths of a private CA and a client certificate; empty for the system's own."""

    ca: str = ""
    certificate: str = ""
    key: str = ""


@dataclass(frozen=True)
class Request:
    """One request. ``secrets`` maps a header to the environment name of its value.

    With ``url_env`` the environment holds where it goes, and ``url`` is what the tape calls it.
    ``pace`` is (server, per minute, burst): the rate limit of that server's own, which is not the
    host's where a gateway stands before many. ``purpose`` tells reads from changes and
    notifications, whatever the method is. ``source`` is who answers; without, the host does.
    """

    method: str
    url: str
    url_env: str = field(default="", kw_only=True)
    params: Pairs = ()
    body: bytes = b""
    headers: Pairs = ()
    bearer: str = ""
    secrets: Pairs = ()
    tls: Tls = Tls()
    timeout_s: float = 30.0
    pace: tuple[str, int, int] | None = None
    purpose: Purpose = "read"
    max_bytes: int = MAX_BODY
    source: str = ""


@dataclass
class Budget:
    """What a source may still cost an item: seconds it kept us waiting in vain, bytes in memory."""

    waited: float = 0.0
    counted: float = 0.0
    received: int = 0

    def spend(self, begun: float, until: float) -> None:
        """Count a wait once, however many requests were waiting."""
        if until > begun:
            self.waited += max(0.0, until - max(begun, self.counted))
            self.counted = max(until, self.counted)


@dataclass(frozen=True)
class Answer:
    """What came back, whatever its status. ``headers`` are lower case and few."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """No answer: the kind of failure (one of FAILURES) and its text."""

    kind: str
    text: str


class Loop:
    """An event loop of our own in a thread: the kernel's main thread already runs one."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``; an interrupt cancels it."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name="sources", daemon=True
            )
            self._thread.start()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End what an interrupt left unfinished, then the thread."""
        if self._loop is None:
            return
        loop, self._loop = self._loop, None
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        if unfinished := asyncio.all_tasks(loop):
            for task in unfinished:
                task.cancel()
            loop.run_until_complete(asyncio.wait(unfinished))
        loop.close()


class Http:
    """Sends requests for real. One client per TLS set-up and side of the loopback boundary."""

    def __init__(
        self, redactor: Redactor, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._redactor = redactor
        self._transport = transport
        self._clients: dict[tuple[Tls | None, bool], httpx.AsyncClient] = {}
        self._slots = asyncio.Semaphore(PARALLEL)
        self._paces: dict[str, _Pace] = {}

    async def send(self, request: Request, budget: Budget | None = None) -> Answer | Failure:
        """One answer or failure. Raises ParameterError for an unset secret or unusable TLS file.

        What takes longer than its time-out, or was in vain, is spent of ``budget``.
        """
        budget = Budget() if budget is None else budget
        headers = dict(request.headers)
        if request.url_env:
            request = replace(request, url=self._address(request.url_env))
        if request.bearer:
            headers["authorization"] = f"Bearer {self._redactor.secret(request.bearer)}"
        for header, name in request.secrets:
            headers[header] = self._redactor.secret(name)
        if request.pace:
            # Before a slot is taken: a server that limits us must not hold up the others.
            server, per_minute, burst = request.pace
            pace = self._paces.setdefault(server, _Pace(per_minute, burst))
            await asyncio.sleep(pace.wait())
        async with self._slots:
            begun = time.monotonic()
            try:
                got = await self._exchange(request, headers, budget)
                if isinstance(got, Answer) and got.status not in RETRIED_STATUS:
                    begun += request.timeout_s
                return got
            except httpx.InvalidURL as error:
                return Failure("UnsupportedProtocol", self._redactor.clean_text(str(error)))
            except _ERRORS as error:
                kind = type(error).__name__
                return Failure(kind, self._redactor.clean_text(str(error) or kind))
            finally:
                budget.spend(begun, time.monotonic())

    def _address(self, name: str) -> str:
        url = self._redactor.secret(name)
        if not _URL.fullmatch(url):
            raise ParameterError(
                f"environment: {name}: expected an http(s) URL, got something else"
            )
        return url

    async def _exchange(
        self, request: Request, headers: dict[str, str], budget: Budget
    ) -> Answer | Failure:
        whole = PATIENCE * request.timeout_s
        if (left := whole - budget.waited) <= 0:
            return Failure("GivenUp", f"no answer in {whole:g} s; not asked again")
        client = self._client(request)
        built = client.build_request(
            request.method, request.url, params=list(request.params) or None,
            content=request.body or None, headers=headers,
            timeout=httpx.Timeout(request.timeout_s, pool=None),
        )  # fmt: skip
        # httpx limits each read, not the whole: a server that drips bytes must not hold us.
        try:
            async with asyncio.timeout(left):
                response = await client.send(built, stream=True)
                try:
                    if problem := _coded(response.headers.get("content-encoding", "")):
                        return Failure("DecodingError", problem)
                    body = BytesIO()  # its value is its buffer: no second copy in memory
                    async for chunk in response.aiter_bytes():
                        body.write(chunk)
                        budget.received += len(chunk)
                        if body.tell() > request.max_bytes:
                            return Failure("TooLarge", f"more than {request.max_bytes} bytes")
                        if budget.received > MAX_OF_ALL:
                            return Failure("TooLarge", f"more than {MAX_OF_ALL} bytes in all")
                finally:
                    await response.aclose()
        except TimeoutError:
            return Failure("ReadTimeout", f"not complete after {whole:g} s")
        kept = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
        return Answer(response.status_code, body.getvalue(), kept)

    def _client(self, request: Request) -> httpx.AsyncClient:
        url = urlsplit(request.url)
        host = url.hostname or ""
        loopback = host == "localhost" or host == "::1" or host.startswith("127.")
        key = (request.tls if url.scheme == "https" else None, loopback)
        if key not in self._clients:
            self._clients[key] = httpx.AsyncClient(
                transport=self._transport,
                verify=_context(key[0]),
                limits=httpx.Limits(max_connections=PARALLEL * 2, max_keepalive_connections=0),
                trust_env=not loopback,  # a proxy never stands before loopback
                # Compressing costs five times the time on loopback; a network is slower than gzip.
                headers={"accept-encoding": "identity" if loopback else "gzip, deflate"},
            )
        return self._clients[key]

    async def close(self) -> None:
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose()


def _coded(codings: str) -> str:
    """What is wrong with how a body is coded; empty for nothing.

    One layer grows a thousandfold at most, and chunk by chunk. Each further one, and a denser
    coding, multiplies that before a limit could be looked at.
    """
    named = [each.strip().lower() for each in codings.split(",") if each.strip()]
    if len(named) > 1 or not CODINGS.issuperset(named):
        return (
            f"expected a body coded once, by {' or '.join(sorted(CODINGS))}, got {codings[:80]!r}"
        )
    return ""


class _Pace:
    """A token bucket as the node's own: ``burst`` at once, then ``per_minute``."""

    def __init__(self, per_minute: int, burst: int) -> None:
        self._rate, self._burst = per_minute / 60, burst
        self._tokens, self._at = float(burst), time.monotonic()

    def wait(self) -> float:
        """Take a token; seconds to wait for it."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate) - 1
        self._at = now
        return max(0.0, -self._tokens / self._rate)


def _context(tls: Tls | None) -> ssl.SSLContext:
    if tls is None:  # plain HTTP: reading the system's CAs takes a tenth of a second
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context = ssl.create_default_context(cafile=tls.ca or None)
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key or None)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(path for path in (tls.ca, tls.certificate, tls.key) if path)
        raise ParameterError(f"site: {files}: expected readable PEM files, got: {error}") from error
    return context
