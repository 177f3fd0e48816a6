"""Keyless bundles: sigstore's own procedure, and where it stops short of its specification.

A log or certificate authority counts only at times at which the trusted root says so; every
timestamp that came along must hold; a chain holds no root of its own; an envelope may be logged in
other kinds, too. Everything else is the library's.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate
from sigstore import dsse
from sigstore._internal.timestamp import TimestampSource, TimestampVerificationResult
from sigstore._utils import cert_is_root_ca
from sigstore.models import Bundle
from sigstore.verify import Verifier

from .keys import Refused
from .logged import agree, kind_of
from .roots import valid_at

if TYPE_CHECKING:
    from sigstore.hashes import Hashed
    from sigstore.verify.policy import VerificationPolicy

# What the library remarks on a bundle would stand in a notebook's output; we refuse or say it.
logging.getLogger("sigstore").addHandler(logging.NullHandler())

LIBRARYS = ("dsse/0.0.1", "hashedrekord/0.0.2")
"""The kinds of an envelope's entry that the library compares itself."""


class Keyless(Verifier):
    """Verifies one bundle, once."""

    def file(self, digest: Hashed, bundle: Bundle, who: VerificationPolicy) -> None:
        """That the bundle signs the file of that digest. Raises whatever is wrong with it."""
        _require_no_root(bundle)
        self.verify_artifact(digest, bundle, who)

    def statement(self, bundle: Bundle, who: VerificationPolicy) -> tuple[str, bytes]:
        """Kind and payload of the bundle's envelope. Raises whatever is wrong with it."""
        _require_no_root(bundle)
        envelope = bundle._dsse_envelope
        if kind_of(bundle.log_entry) in LIBRARYS or envelope is None:
            return self.verify_dsse(bundle, who)
        self._verify_common_signing_cert(bundle, who)
        certificate = bundle.signing_certificate
        # Any other kind of key raises, too.
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

    def _verify_timestamp_authority(self, bundle: Bundle) -> list[TimestampVerificationResult]:
        """As the library, but one that does not hold is not passed over."""
        found = super()._verify_timestamp_authority(bundle)
        given = bundle.verification_material.timestamp_verification_data
        if given is not None and len(found) != len(given.rfc3161_timestamps):
            raise Refused("a timestamp is of no authority that the trusted root knows at its time")
        return found

    def _logged_time(self, bundle: Bundle) -> list[TimestampVerificationResult]:
        """The time of an entry of a kind that the library knows no time of; its promise signs it."""
        entry, times = bundle.log_entry._inner, self._verify_timestamp_authority(bundle)
        if entry.integrated_time and entry.inclusion_promise:
            time = datetime.fromtimestamp(entry.integrated_time, UTC)
            source = TimestampSource.TRANSPARENCY_SERVICE
            times.append(TimestampVerificationResult(source, time))
        return times


def _require_no_root(bundle: Bundle) -> None:
    """Roots come from the trusted root alone: one in the bundle invites to trust the bundle."""
    chain = bundle._inner.verification_material.x509_certificate_chain
    for each in chain.certificates if chain is not None else ():
        if cert_is_root_ca(load_der_x509_certificate(each.raw_bytes)):
            raise Refused("a root certificate in the bundle's chain")
