"""The one place that opens a socket: concurrent HTTP with the site's TLS, headers and limits.

Measured for a fleet: a semaphore of 64 and no keep-alive pool is the fastest httpx gets; more
connections or its own queue are slower (a pool of 500 takes ten times as long).
"""

import asyncio
import logging
import re
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field, replace
from io import BytesIO
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import httpx
import stamina

from ..errors import ParameterError
from ..reach import ClientCertificate, Reached
from ..strict import project_path
from .redact import Redactor

# It logs the URL of each request, a secret webhook's too, and papermill shows what is logged.
logging.getLogger("httpx").setLevel(logging.WARNING)

Purpose = Literal["read", "change", "notify"]
T = TypeVar("T")
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
_URL = re.compile(r"https?://[^\s/:@?#]+(:[0-9]{1,5})?([/?]\S*)?", re.IGNORECASE)
_ERRORS = (httpx.TransportError, httpx.DecodingError, httpx.TooManyRedirects)
FAILURES = {"TooLarge", "GivenUp"} | {
    name
    for name, kind in vars(httpx).items()
    if isinstance(kind, type) and issubclass(kind, _ERRORS)
}


@dataclass(frozen=True)
class Request:
    """One request, with the token, headers, TLS files and time-out that the site names in ``reach``.

    Of a webhook whose URL the environment holds, ``url`` is what the tape calls it. ``pace`` is
    (server, per minute, burst): the rate limit of that server's own, which is not the host's where a
    gateway stands before many. ``purpose`` tells reads from changes and notifications, whatever the
    method is.
    """

    method: str
    url: str
    reach: Reached = PLAIN
    _: KW_ONLY
    params: Pairs = ()
    body: bytes = b""
    headers: Pairs = ()
    pace: tuple[str, int, int] | None = None
    purpose: Purpose = "read"
    max_bytes: int = MAX_BODY

    @property
    def source(self) -> str:
        """Who answers: the server that is paced, the endpoint, or the host."""
        named = self.pace[0] if self.pace else getattr(self.reach, "url", "")
        return named or urlsplit(self.url).netloc


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
    """What came back, whatever its status. ``headers`` are lower case and few.

    Where nothing did, ``status`` is 0, ``failure`` is one of FAILURES, and ``text`` says more.
    """

    status: int = 0
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    failure: str = ""
    text: str = ""

    def kept(self) -> tuple[dict[str, Any], bytes]:
        """What the tape holds of it."""
        if self.failure:
            return {"failure": self.failure, "text": self.text}, b""
        return {"status": self.status, "headers": self.headers}, self.body

    @property
    def again(self) -> bool | float:
        """Whether to ask again, and after how many seconds where the server says so.

        A server that wants a longer wait than ours is not asked again.
        """
        if self.failure in ("TooLarge", "GivenUp") or self.status not in (0, *RETRIED_STATUS):
            return False
        wanted = self.headers.get("retry-after", "")
        return not wanted.isdecimal() or (float(wanted) <= LONGEST_WAIT_S and float(wanted))


class Again(Exception):
    """An answer worth asking for again."""


async def with_retries(
    once: Callable[[], Awaitable[Answer]], attempts: int, *, live: bool
) -> Answer:
    """The last answer of so many attempts; a replay waits for none."""
    got = Answer()

    def wait(error: Exception) -> bool | float:
        return isinstance(error, Again) and (got.again if live or got.again is False else 0.0)

    with suppress(Again):
        async for attempt in stamina.retry_context(
            on=wait, attempts=attempts, timeout=None, wait_initial=FIRST_WAIT_S, wait_jitter=0.0
        ):
            with attempt:
                got = await once()
                if got.again is not False:
                    raise Again
    return got


class Http:
    """Sends requests for real. One client per TLS set-up and side of the loopback boundary.

    On an event loop in a thread of its own: a kernel's main thread already runs one.
    """

    def __init__(
        self, redactor: Redactor, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.redactor = redactor
        self._transport = transport
        self._clients: dict[tuple[object, ...], httpx.AsyncClient] = {}
        self._slots = asyncio.Semaphore(PARALLEL)
        self._paces: dict[str, _Pace] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread, self._opening = threading.Thread(), threading.Lock()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``; an interrupt cancels it."""
        with self._opening:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
                self._thread.start()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End what an interrupt left unfinished, give back sockets and thread.

        What is asked later opens them again.
        """
        with self._opening:
            if (loop := self._loop) is None:
                return
            thread, self._loop = self._thread, None
            clients, self._clients = [*self._clients.values()], {}

        async def end() -> None:
            unfinished = asyncio.all_tasks() - {asyncio.current_task()}
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
            await asyncio.gather(*(client.aclose() for client in clients))
            await asyncio.sleep(0)  # a socket is let go of one round later
            loop.stop()

        asyncio.run_coroutine_threadsafe(end(), loop)
        thread.join()
        loop.close()

    async def send(self, request: Request, budget: Budget) -> Answer:
        """One answer. Raises ParameterError for an unset secret or unusable TLS file.

        What takes longer than its time-out, or was in vain, is spent of ``budget``.
        """
        reach, headers = request.reach, dict(request.headers)
        if name := getattr(reach, "url_env", ""):
            if not _URL.fullmatch(url := self.redactor.secret(name)):
                problem = "expected an http(s) URL, got something else"
                raise ParameterError(f"environment: {name}: {problem}")
            request = replace(request, url=url)
        if reach.token_env:
            headers["authorization"] = f"Bearer {self.redactor.secret(reach.token_env)}"
        for header, name in sorted(reach.headers_env.items()):
            headers[header] = self.redactor.secret(name)
        if request.pace:
            # Before a slot is taken: a server that limits us must not hold up the others.
            server, per_minute, burst = request.pace
            pace = self._paces.setdefault(server, _Pace(per_minute, burst))
            await asyncio.sleep(pace.wait())
        async with self._slots:
            begun = time.monotonic()
            try:
                got = await self._exchange(request, headers, budget)
                if got.status not in (0, *RETRIED_STATUS):
                    begun += reach.timeout_s
                return got
            except (*_ERRORS, httpx.InvalidURL) as error:
                kind = type(error).__name__
                text = self.redactor.clean_text(str(error) or kind)
                return Answer(
                    failure=kind if kind in FAILURES else "UnsupportedProtocol", text=text
                )
            finally:
                budget.spend(begun, time.monotonic())

    async def _exchange(self, request: Request, headers: dict[str, str], budget: Budget) -> Answer:
        whole = PATIENCE * request.reach.timeout_s
        if (left := whole - budget.waited) <= 0:
            return Answer(failure="GivenUp", text=f"no answer in {whole:g} s; not asked again")
        client = self._client(request)
        built = client.build_request(
            request.method, request.url, params=list(request.params) or None,
            content=request.body or None, headers=headers,
            timeout=httpx.Timeout(request.reach.timeout_s, pool=None),
        )  # fmt: skip
        # httpx limits each read, not the whole: a server that drips bytes must not hold us.
        try:
            async with asyncio.timeout(left):
                response = await client.send(built, stream=True)
                try:
                    # One layer grows a thousandfold at most, and chunk by chunk. Each further one,
                    # and a denser coding, multiplies that before a limit could be looked at.
                    coding = response.headers.get("content-encoding") or "identity"
                    if coding.strip().lower() not in CODINGS:
                        coded = f"expected a body coded once, by {' or '.join(CODINGS)}"
                        return Answer(failure="DecodingError", text=f"{coded}, got {coding[:80]!r}")
                    body = BytesIO()  # its value is its buffer: no second copy in memory
                    async for chunk in response.aiter_bytes():
                        body.write(chunk)
                        budget.received += len(chunk)
                        if (
                            alone := body.tell() > request.max_bytes
                        ) or budget.received > MAX_OF_ALL:
                            most = request.max_bytes if alone else MAX_OF_ALL
                            text = f"more than {most} bytes{'' if alone else ' in all'}"
                            return Answer(failure="TooLarge", text=text)
                finally:
                    await response.aclose()
        except TimeoutError:
            return Answer(failure="ReadTimeout", text=f"not complete after {whole:g} s")
        kept = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
        return Answer(response.status_code, body.getvalue(), kept)

    def _client(self, request: Request) -> httpx.AsyncClient:
        url = urlsplit(request.url)
        host = url.hostname or ""
        loopback = host == "localhost" or host == "::1" or host.startswith("127.")
        pair = getattr(request.reach, "client_certificate", None)
        tls = (request.reach.ca, pair) if url.scheme == "https" else None
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
