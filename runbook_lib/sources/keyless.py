"""Keyless bundles: sigstore's own procedure, and where it stops short of its specification.

A log or certificate authority counts only at times at which the trusted root says so; an envelope
may be logged as hashedrekord/0.0.1 or intoto/0.0.2, too. Everything else is the library's.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding
from sigstore import dsse
from sigstore._internal.timestamp import TimestampSource, TimestampVerificationResult
from sigstore.models import Bundle
from sigstore.verify import Verifier

from .logged import agree, kind_of
from .roots import valid_at

if TYPE_CHECKING:
    from sigstore.verify.policy import VerificationPolicy

LIBRARYS = ("dsse/0.0.1", "hashedrekord/0.0.2")
"""The kinds of an envelope's entry that the library compares itself."""


class Keyless(Verifier):
    """Verifies one bundle, once."""

    def statement(self, bundle: Bundle, who: VerificationPolicy) -> tuple[str, bytes]:
        """Kind and payload of the bundle's envelope. Raises whatever is wrong with it."""
        envelope = bundle._dsse_envelope
        if kind_of(bundle.log_entry) in LIBRARYS or envelope is None:
            return self.verify_dsse(bundle, who)
        self._verify_common_signing_cert(bundle, who)
        certificate = bundle.signing_certificate
        payload = dsse._verify(certificate.public_key(), envelope)  # type: ignore[arg-type]
        hashed = hashlib.sha256(envelope.pae()).digest()
        verifier = certificate.public_bytes(Encoding.DER)
        agree(bundle.log_entry, hashed, payload, envelope.signature, verifier)
        return envelope._inner.payload_type, payload

    def _establish_time(self, bundle: Bundle) -> list[TimestampVerificationResult]:
        """As the library; from here on only what was valid at these times is trusted."""
        logged = kind_of(bundle.log_entry) == "intoto/0.0.2"
        times = self._logged_time(bundle) if logged else super()._establish_time(bundle)
        self._trusted_root = valid_at(self._trusted_root, [each.time for each in times])
        self._fulcio_certificate_chain = self._trusted_root.get_fulcio_certs()
        return times

    def _logged_time(self, bundle: Bundle) -> list[TimestampVerificationResult]:
        """The time of an entry of a kind that the library knows no time of; its promise signs it."""
        entry, times = bundle.log_entry._inner, self._verify_timestamp_authority(bundle)
        if entry.integrated_time and entry.inclusion_promise:
            time = datetime.fromtimestamp(entry.integrated_time, UTC)
            source = TimestampSource.TRANSPARENCY_SERVICE
            times.append(TimestampVerificationResult(source, time))
        return times
