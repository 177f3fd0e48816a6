"""How a part of the world is reached: by HTTP, by a command, and by which clock.

Secrets are never values: keys that end in ``_env`` name the environment variable that holds one.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from .signatures import KEY_ENV, PASSPHRASE_ENV
from .strict import Strict, matching


def _env_name(value: str) -> str:
    if value and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        # Whoever put the secret itself here must not find it in the message too.
        raise ValueError("expected the name of an environment variable, got something else")
    if value in (KEY_ENV, PASSPHRASE_ENV):  # whoever is handed these signs in our name
        raise ValueError("expected no variable of the signing key")
    return value


def _url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s?#]*)?", value):
        got = repr(value)
        if found := re.search("[@?#]", value):  # what stands there may be a secret
            got = f"one with {'credentials' if found[0] == '@' else 'a query or fragment'}"
        raise ValueError(
            f"expected an http(s) URL without credentials, query or fragment, got {got}"
        )
    return value.rstrip("/")


# One list for files, answers, text and names of variables; a space is any separator, or none.
SECRET_WORDS = (
    "token", "secret", "pass word", "passwd", "pass phrase", "api key", "private key", "access key",
    "signing key", "encryption key", "authorization", "cookie", "credential", "mnemonic", "seed phrase",
    "secret key",
)  # fmt: skip
SECRET_KEY = f"(?:{'|'.join(SECRET_WORDS).replace(' ', '[-_. ]?')})s?[0-9_]*"


def names_secret(key: str) -> bool:
    """Whether what stands under a key is a secret: one that ends in a word of the list does."""
    return re.search(SECRET_KEY + r"\Z", key, re.IGNORECASE) is not None


EnvName = Annotated[str, AfterValidator(_env_name)]
Url = Annotated[str, AfterValidator(_url)]
_KEY = "expected ed25519:BASE64 of a 32 byte public key"
PublicKey = Annotated[str, matching("ed25519:[A-Za-z0-9+/]{43}=", _KEY)]


class ClientCertificate(Strict):
    certificate: str
    key: str


class Reached(Strict):
    """How something that speaks HTTP is asked. Times in seconds."""

    token_env: EnvName = ""
    timeout_s: float = Field(default=30.0, gt=0, le=600)
    headers_env: dict[str, EnvName] = {}
    ca: str = ""


class Endpoint(Reached):
    """Something that is asked at one address."""

    url: Url
    client_certificate: ClientCertificate | None = None


class Rpc(Reached):
    """How the nodes of a cluster answer; limits are the node's own (requests per minute, burst)."""

    timeout_s: float = Field(default=5.0, gt=0, le=600)
    client_certificate: ClientCertificate | None = None
    per_minute: int = Field(default=60, gt=0)
    burst: int = Field(default=120, gt=0)


class Command(Strict):
    """An argv without a shell; ``{placeholders}`` are filled in per element.

    ``env`` names the variables that it gets beside PATH, HOME, TMPDIR and the locale.
    """

    argv: list[str] = Field(min_length=1)
    timeout_s: float = Field(default=60.0, gt=0, le=86_400)
    env: list[EnvName] = Field(default=[], exclude_if=lambda names: not names)


class Clock(Strict):
    """``utc``, or a file holding ``{"offset_s": N}``: the seconds a rehearsal's clock runs ahead.

    ``wait`` winds such a clock forward by ``{seconds}``, where others would wait.
    """

    source: Literal["utc", "offset-file"] = "utc"
    path: str = ""
    wait: Command | None = None

    @model_validator(mode="after")
    def _path(self) -> Clock:
        if (self.source == "offset-file") != bool(self.path):
            raise ValueError("expected a path with offset-file, and none with utc")
        if self.wait is not None and self.source == "utc":
            raise ValueError("expected no wait command with utc: it cannot be wound forward")
        return self
