"""Bundles over a public key, which sigstore's own verifier does not cover.

The steps of its client specification for a key: (1) the entry is in the log, (2) the signature is
the key's over this content, (3) the entry is about this signature, key and content. The library's
parts prove (1). Where the trusted root names no log, (1) and (3) have nothing to be about.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .envelopes import require_in_toto, statement_about
from .files import Whole
from .keys import Refused, check_signature, public_key, said, spki
from .logged import agree
from .roots import valid_at
from .statements import Statement

if TYPE_CHECKING:
    from sigstore.models import TransparencyLogEntry, TrustedRoot
    from sigstore_models.bundle.v1 import Bundle
    from sigstore_models.intoto import Envelope


def by_key(
    bundle: Bundle, digest: bytes, content: Whole | None, key: bytes, root: TrustedRoot
) -> Statement | None:
    """What ``key`` (PEM) signed: a statement about the artifact, or (None) the artifact itself.

    ``digest`` is the artifact's sha256. Raises Refused, ParameterError.
    """
    if bundle.verification_material.public_key is None:
        raise Refused("a certificate, no public key, in the bundle")
    logged = bool(bundle.verification_material.tlog_entries or root._inner.tlogs)
    entry = _included(bundle, root) if logged else None  # (1)
    if (envelope := bundle.dsse_envelope) is not None:
        payload = _signed(envelope, entry, key)
        return statement_about(payload, digest, content)
    signed = bundle.message_signature
    assert signed is not None  # the model holds one of the two
    if signed.message_digest is not None and signed.message_digest.digest != digest:
        raise Refused("the bundle's digest is another file's")
    check_signature(key, signed.signature, digest, content)  # (2)
    if entry is not None:
        agree(entry, digest, None, signed.signature, spki(public_key(key)))  # (3)
    return None


def _signed(envelope: Envelope, entry: TransparencyLogEntry | None, key: bytes) -> bytes:
    """The payload that the key signed."""
    from sigstore.dsse import _pae

    if len(envelope.signatures) != 1:
        raise Refused(f"{len(envelope.signatures)} signatures in the envelope, expected 1")
    require_in_toto(envelope.payload_type)
    encoded = _pae(envelope.payload_type, envelope.payload)
    hashed, signature = hashlib.sha256(encoded).digest(), envelope.signatures[0].sig
    check_signature(key, signature, hashed, encoded)  # (2)
    if entry is not None:
        agree(entry, hashed, envelope.payload, signature, spki(public_key(key)))  # (3)
    return bytes(envelope.payload)


def _included(bundle: Bundle, root: TrustedRoot) -> TransparencyLogEntry:
    """The one log entry, its inclusion proof, checkpoint and promise verified. Raises Refused."""
    from sigstore._internal.trust import KeyringPurpose
    from sigstore.models import TransparencyLogEntry

    entries = bundle.verification_material.tlog_entries
    if len(entries) != 1:
        raise Refused(f"{len(entries)} log entries in the bundle, expected 1")
    try:
        entry = TransparencyLogEntry(entries[0])
        if entry._inner.inclusion_promise and (seconds := entry._inner.integrated_time):
            root = valid_at(root, [datetime.fromtimestamp(seconds, UTC)], authorities=False)
        entry._verify(root.rekor_keyring(KeyringPurpose.VERIFY))
    except Refused:
        raise
    except Exception as error:
        raise Refused(said(error)) from error
    return entry
