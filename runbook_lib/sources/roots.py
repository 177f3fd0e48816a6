"""Trusted roots: which logs, certificate and timestamp authorities count, and for which times.

sigstore's own verifier takes a log or authority of any time, and leaves the end of a timestamp
authority's validity out; by its specification a validity is closed and binds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..errors import ParameterError
from .keys import Refused, said
from .statements import parse_object

if TYPE_CHECKING:
    from sigstore.models import TrustedRoot

_PRODUCTION = "https://tuf-repo-cdn.sigstore.dev"


def trusted_root(data: bytes) -> TrustedRoot:
    """A sigstore trusted root; of no bytes, the one embedded in the library: no network, no cache.

    Raises ParameterError.
    """
    from sigstore._utils import read_embedded
    from sigstore.models import TrustedRoot
    from sigstore_models.trustroot.v1 import TrustedRoot as Model

    value = parse_object(data or read_embedded("trusted_root.json", _PRODUCTION), "trusted root")
    empty: dict[str, list[Any]] = {"tlogs": [], "certificateAuthorities": [], "ctlogs": []}
    try:
        return _closed(TrustedRoot(Model.from_json(json.dumps(empty | value))))
    except Exception as error:
        raise ParameterError(
            f"trusted root: expected sigstore's JSON, got: {said(error)}"
        ) from error


def valid_at(
    root: TrustedRoot, times: Sequence[datetime], *, authorities: bool = True
) -> TrustedRoot:
    """Of a root, the logs and certificate authorities that were valid at all of ``times``.

    Raises Refused when no log (or, where they are wanted, no authority) is left.
    """
    inner = root._inner
    logs = [log for log in inner.tlogs if _holds(log.public_key.valid_for, times)]
    issuers = [a for a in inner.certificate_authorities if _holds(a.valid_for, times)]
    for what, valid in (("log", logs), ("certificate authority", issuers or not authorities)):
        if not valid:
            shown = ", ".join(time.isoformat() for time in times)
            raise Refused(f"no {what} of the trusted root was valid at {shown}")
    return _with(root, tlogs=logs, certificate_authorities=issuers)


def _holds(window: Any, times: Sequence[datetime]) -> bool:
    """Whether a validity, if there is one, covers every time."""
    if window is None:
        return True
    return all(window.start <= time and (not window.end or time <= window.end) for time in times)


def _with(root: TrustedRoot, **changes: Any) -> TrustedRoot:
    return type(root)(root._inner.model_copy(update=changes))


def _closed(root: TrustedRoot) -> TrustedRoot:
    """The library takes a timestamp authority's end as open: the next instant is none of it."""
    authorities = []
    for authority in root._inner.timestamp_authorities:
        window = authority.valid_for
        if window.end:
            window = window.model_copy(update={"end": window.end + timedelta(microseconds=1)})
        authorities.append(authority.model_copy(update={"valid_for": window}))
    return _with(root, timestamp_authorities=authorities)
