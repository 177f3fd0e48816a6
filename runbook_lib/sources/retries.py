"""Asking again: which answers are worth it, how often, and after how long."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import stamina

from .http import Answer, Failure

RETRIED_STATUS = frozenset({429, 500, 502, 503, 504})
RETRIES = 3
LONGEST_WAIT_S = 20.0

# Each retry is on the tape; on stderr it would stand in a notebook's output.
logging.getLogger("stamina").addHandler(logging.NullHandler())


class _Again(Exception):
    def __init__(self, last: Answer | Failure) -> None:
        self.last = last


async def with_retries(
    once: Callable[[], Awaitable[Answer | Failure]], attempts: int, *, live: bool
) -> Answer | Failure:
    """What ``once`` gave last; a server that asks for a longer wait is not asked again.

    A replay waits for nothing.
    """

    def backoff(error: Exception) -> bool | float:
        if not isinstance(error, _Again):
            return False
        wait = _retry_after(error.last)
        if wait is not None and wait > LONGEST_WAIT_S:
            return False
        if not live:
            return 0.0
        return True if wait is None else wait

    last: Answer | Failure | None = None
    with suppress(_Again):
        async for attempt in stamina.retry_context(
            on=backoff,
            attempts=attempts,
            timeout=None,
            wait_initial=0.2 if live else 0.0,
            wait_jitter=0.0,
        ):
            with attempt:
                last = await once()
                if _worth_retrying(last):
                    raise _Again(last)
    assert last is not None
    return last


def _worth_retrying(got: Answer | Failure) -> bool:
    if isinstance(got, Failure):
        return got.kind != "TooLarge"
    return got.status in RETRIED_STATUS


def _retry_after(got: Answer | Failure) -> float | None:
    text = got.headers.get("retry-after", "") if isinstance(got, Answer) else ""
    return float(text) if text.isdigit() else None
