"""What all sources share: answers as typed values, or errors.

Answers may hold keys we do not know (servers grow), but a key we read must be there and of the
right type: valid JSON of another shape is a SourceError, never a default.
"""

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, TypeVar

from httpx import Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from ..canonical import load_once
from ..errors import SourceError
from ..reach import Endpoint
from ..strict import sentence
from .http import make_request
from .scope import Scope


class Wire(BaseModel):
    """Part of an answer from outside: frozen, strict about types, unknown keys passed over."""

    # Built when first used: a stage reads through few of the models it imports.
    # JSON has no NaN and nothing infinite: a number that means something else is text.
    model_config = ConfigDict(
        frozen=True, extra="ignore", strict=True, defer_build=True, allow_inf_nan=False
    )


MOST = 2**53 - 1
"""The largest whole number that all readers of JSON agree on."""
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Height = Annotated[int, Field(ge=0, le=MOST)]
T = TypeVar("T")
_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def _whole(value: object) -> object:
    # u128 travels as a decimal string; anything but plain digits is another type.
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    raise ValueError("expected a decimal string")


DecimalString = Annotated[int, BeforeValidator(_whole)]


_HINTS = {
    401: "; check the token",
    403: "; check what the token may do",
    404: "; check the URL",
    429: "; it limits our rate, ask again later",
}


def content(source: str, got: Response, *, expected: tuple[int, ...] = (200,)) -> bytes:
    """The body of a good answer. Raises SourceError for any other status, or none at all."""
    if not got.status_code:
        raise SourceError(source, f"expected an answer, got {got.reason_phrase}")
    if got.status_code not in expected:
        text = " ".join(got.content[:300].decode("utf-8", "replace").split())
        said = f": {text}" if text else ""
        wanted = " or ".join(map(str, expected))
        hint = _HINTS.get(got.status_code, "")
        raise SourceError(source, f"expected status {wanted}, got {got.status_code}{said}{hint}")
    return got.content


def ask(
    scope: Scope, source: str, request: Request, *, expected: tuple[int, ...] = (200,)
) -> bytes:
    """The body of the answer to one request. Raises SourceError as ``content``."""
    return content(source, scope.http([request])[0], expected=expected)


class Service:
    """What is asked at one address. Every method raises SourceError."""

    def __init__(self, scope: Scope, settings: Endpoint) -> None:
        self._scope, self._settings = scope, settings

    def _get(self, path: str) -> Request:
        return make_request("GET", f"{self._settings.url}/{path}", self._settings)


def decode(source: str, body: bytes, model: type[T], *, once: bool = False) -> T:
    """JSON bytes as ``model``. Raises SourceError naming the first key that does not fit.

    ``once``: of what other readers read as well, a key that stands twice is refused. Some take the
    first and some the last, some tell case apart and some do not.
    """
    try:
        found: T = _adapter(model).validate_json(body)
        if once:
            load_once(body, fold=True)
    except ValueError as error:
        raise SourceError(source, complaint(error)) from error
    return found


_KNOWN = {"missing": "expected a value, got none", "extra_forbidden": "expected no such key"}


def complaint(error: Exception) -> str:
    """Of what a model found, the first as ``key: expected X, got Y``, and how many more there are."""
    if not isinstance(error, ValidationError):
        return str(error)
    first, *more = error.errors(include_url=False)
    if first["type"] == "json_invalid":
        return f"expected JSON, got: {first['msg'].removeprefix('Invalid JSON: ')}"
    message = first["msg"].replace("Input should have", "a value with")
    first["msg"] = message.replace("String should match pattern", "text matching")
    got = first["input"]
    shown = "an object" if isinstance(got, dict) else f"a {type(got).__name__}"
    shown = repr(got)[:80] if isinstance(got, str | int | float | None) else shown
    return sentence(first, _KNOWN, shown) + (f" (and {len(more)} more)" if more else "")
