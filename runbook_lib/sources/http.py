"""The one place that opens a socket: concurrent HTTP with the site's TLS, headers and limits.

Measured for a fleet: a semaphore of 64 and no keep-alive pool is the fastest httpx gets; more
connections or its own queue are slower (a pool of 500 takes ten times as long).
"""

import asyncio
import logging
import ssl
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Literal
from urllib.parse import urlencode, urlsplit

import httpx
from httpx import Request, Response

from ..canonical import digest_bytes
from ..errors import ParameterError, SourceError
from ..reach import ClientCertificate, Reached
from ..strict import project_path
from .redact import Redactor

# It logs the URL of each request, a secret webhook's too, and papermill shows what is logged.
logging.getLogger("httpx").setLevel(logging.WARNING)

Purpose = Literal["read", "change", "notify"]
Transport = httpx.AsyncBaseTransport
Pairs = tuple[tuple[str, str], ...]
PARALLEL = 64
RETRIED_STATUS = frozenset({429, 500, 502, 503, 504})
PLAIN = Reached()
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 20.0
MAX_NODE, MAX_BODY, MAX_SERIES, MAX_OF_ALL = (n * 1024 * 1024 for n in (2, 16, 256, 512))
"""Bytes: of a node's answer, of another's, of one that holds series, of all that a source gives at once."""
PATIENCE = 4
"""How many of its time-outs a source has for one answer, and for all that an item waits in vain."""
CODINGS = ("deflate", "gzip", "identity")
JSON: Pairs = (("content-type", "application/json"),)
KEPT_HEADERS = ("content-type", "retry-after", "link", "x-ratelimit-remaining", "x-ratelimit-reset")


class TooLarge(httpx.TransportError):
    """An answer of more bytes than we keep."""


class GivenUp(httpx.TransportError):
    """A source that kept us waiting so long that it is not asked again."""


ERRORS = (httpx.TransportError, httpx.DecodingError, httpx.InvalidURL)
FAILURES = {"TooLarge", "GivenUp"} | {
    name
    for name, kind in vars(httpx).items()
    if isinstance(kind, type) and issubclass(kind, ERRORS)
}


@dataclass(frozen=True)
class Terms:
    """How a request is sent: the token, headers, TLS files and time-out that the site names.

    ``pace`` is (server, per minute, burst): the rate limit of that server's own, which is not the
    host's where a gateway stands before many. ``purpose`` tells reads from changes and
    notifications, whatever the method is.
    """

    reach: Reached
    pace: tuple[str, int, int] | None
    purpose: Purpose
    max_bytes: int


def make_request(
    method: str,
    url: str,
    reach: Reached = PLAIN,
    *,
    params: Pairs = (),
    body: bytes = b"",
    headers: Pairs = (),
    pace: tuple[str, int, int] | None = None,
    purpose: Purpose = "read",
    max_bytes: int = MAX_BODY,
) -> Request:
    """A request and its terms. Raises SourceError for what is no URL."""
    terms = Terms(reach, pace, purpose, max_bytes)
    query = "?" + urlencode(sorted(params)) if params else ""
    try:
        return Request(
            method, url + query, content=body, headers=list(headers), extensions={"terms": terms}
        )
    except httpx.InvalidURL as error:
        raise SourceError(url, f"expected a URL, got: {error}") from error


def terms_of(request: Request) -> Terms:
    terms: Terms = request.extensions["terms"]
    return terms


def source_of(request: Request) -> str:
    """Who answers: the server that is paced, the endpoint, or the host."""
    terms = terms_of(request)
    named = terms.pace[0] if terms.pace else getattr(terms.reach, "url", "")
    return named or request.url.netloc.decode()


def key_of(request: Request) -> str:
    """What the tape calls a request: no headers, which hold tokens."""
    body = f" {digest_bytes(request.content)}" if request.content else ""
    return f"{request.method} {request.url}{body}"


def answered(status: int, headers: Mapping[str, str], body: bytes) -> Response:
    """An answer with the headers we keep, whatever they hold; by none of them its body is decoded."""
    kept = [
        (name.encode(), text.encode("utf-8", "backslashreplace"))
        for name, text in headers.items()
        if name in KEPT_HEADERS
    ]
    return Response(status, headers=kept, content=body)


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


def retry_wait(request: Request, got: Response) -> float | None:
    """After how many seconds it is worth asking again; None when it is not.

    A change may have happened. What was too large, or given up, stays so; a server may want a longer
    wait than ours.
    """
    lost = got.reason_phrase.startswith(("TooLarge", "GivenUp"))
    read = terms_of(request).purpose == "read"
    if not read or lost or got.status_code not in (0, *RETRIED_STATUS):
        return None
    wanted = got.headers.get("retry-after", "")
    seconds = float(wanted) if wanted.isdecimal() else 0.0
    return seconds if seconds <= LONGEST_WAIT_S else None


@dataclass
class Turn:
    """A request that may be sent now, with its secrets; ``answered`` once that was not in vain."""

    client: httpx.AsyncClient
    request: Request
    answered: bool = False


class Http:
    """What requests are sent with. One client per TLS set-up and side of the loopback boundary.

    On an event loop in a thread of its own: a kernel's main thread already runs one.
    """

    def __init__(self, redactor: Redactor, transport: Transport | None = None) -> None:
        self.redactor = redactor
        self._transport = transport
        self._clients: dict[tuple[object, ...], httpx.AsyncClient] = {}
        self._slots = asyncio.Semaphore(PARALLEL)
        self._paces: dict[str, _Pace] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread, self._opening = threading.Thread(), threading.Lock()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that requests are sent on, opened when it is first asked for."""
        with self._opening:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
                self._thread.start()
            return self._loop

    def close(self) -> None:
        """End what is unfinished, give back sockets and thread; what is asked later opens them."""
        with self._opening:
            if (loop := self._loop) is None:
                return
            thread, self._loop = self._thread, None
            clients, self._clients = [*self._clients.values()], {}

        async def end() -> None:
            try:
                unfinished = asyncio.all_tasks() - {asyncio.current_task()}
                for task in unfinished:
                    task.cancel()
                await asyncio.gather(*unfinished, return_exceptions=True)
                await asyncio.gather(*(client.aclose() for client in clients))
                await asyncio.sleep(0)  # a socket is let go of one round later
            finally:  # or who closes waits for ever
                loop.stop()

        asyncio.run_coroutine_threadsafe(end(), loop)
        thread.join()
        loop.close()

    @asynccontextmanager
    async def turn(self, request: Request, budget: Budget) -> AsyncIterator[Turn]:
        """Wait until ``request`` may be sent; what it waits in vain in here is spent of ``budget``.

        Raises GivenUp, ReadTimeout, and ParameterError for an unset secret or unusable TLS file.
        """
        terms = terms_of(request)
        turn = self._signed(request, terms.reach)
        if terms.pace:
            # Before a slot is taken: a server that limits us must not hold up the others.
            server, per_minute, burst = terms.pace
            pace = self._paces.setdefault(server, _Pace(per_minute, burst))
            await asyncio.sleep(pace.wait())
        async with self._slots:
            begun, most = time.monotonic(), PATIENCE * terms.reach.timeout_s
            if (left := most - budget.waited) <= 0:
                raise GivenUp(f"no answer in {most:g} s; not asked again")
            try:
                # httpx limits each read, not the whole: a server that drips bytes must not hold us.
                async with asyncio.timeout(left):
                    yield turn
            except TimeoutError as error:
                raise httpx.ReadTimeout(f"not complete after {most:g} s") from error
            finally:
                begun += terms.reach.timeout_s if turn.answered else 0.0
                budget.spend(begun, time.monotonic())

    def _signed(self, request: Request, reach: Reached) -> Turn:
        headers, url = dict(request.headers), str(request.url)
        if reach.token_env:
            headers["authorization"] = f"Bearer {self.redactor.secret(reach.token_env)}"
        for header, name in sorted(reach.headers_env.items()):
            headers[header] = self.redactor.secret(name)
        client = self._client(url, reach)
        made = client.build_request(
            request.method, url, content=request.content or None, headers=headers,
            timeout=httpx.Timeout(reach.timeout_s, pool=None),
        )  # fmt: skip
        return Turn(client, made)

    def _client(self, address: str, reach: Reached) -> httpx.AsyncClient:
        url = urlsplit(address)
        host = url.hostname or ""
        loopback = host == "localhost" or host == "::1" or host.startswith("127.")
        pair = getattr(reach, "client_certificate", None)
        tls = (reach.ca, pair) if url.scheme == "https" else None
        if (key := (tls, loopback)) not in self._clients:
            self._clients[key] = httpx.AsyncClient(
                transport=self._transport,
                verify=_context(*tls) if tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                limits=httpx.Limits(max_connections=PARALLEL * 2, max_keepalive_connections=0),
                trust_env=not loopback,  # a proxy never stands before loopback
                # Compressing costs five times the time on loopback; a network is slower than gzip.
                headers={"accept-encoding": "identity" if loopback else "gzip, deflate"},
            )
        return self._clients[key]


async def read_body(response: Response, most: int, budget: Budget) -> bytes:
    """A response's whole body, decoded. Raises TooLarge, and DecodingError.

    One layer of a coding grows a thousandfold at most, and chunk by chunk. Each further one, and a
    denser coding, multiplies that before a limit could be looked at.
    """
    coding = response.headers.get("content-encoding") or "identity"
    if coding.strip().lower() not in CODINGS:
        coded = f"expected a body coded once, by {' or '.join(CODINGS)}"
        raise httpx.DecodingError(f"{coded}, got {coding[:80]!r}")
    body = BytesIO()  # its value is its buffer: no second copy in memory
    async for chunk in response.aiter_bytes():
        body.write(chunk)
        budget.received += len(chunk)
        if body.tell() > most:
            raise TooLarge(f"more than {most} bytes")
        if budget.received > MAX_OF_ALL:
            raise TooLarge(f"more than {MAX_OF_ALL} bytes in all")
    return body.getvalue()


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


def _context(ca: str, pair: ClientCertificate | None) -> ssl.SSLContext:
    paths = (ca, pair.certificate, pair.key) if pair else (ca, "", "")
    files = [str(project_path(path)) if path else "" for path in paths]
    try:
        context = ssl.create_default_context(cafile=files[0] or None)
        if files[1]:
            context.load_cert_chain(files[1], files[2] or None)
    except (OSError, ssl.SSLError) as error:
        named = ", ".join(filter(None, files))
        raise ParameterError(f"site: {named}: expected readable PEM files, got: {error}") from error
    return context
