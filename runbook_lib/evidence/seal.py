"""The seals of an attempt, read: a statement about every file, in an envelope for each who signed it.

``attestations/NNNN.SIGNER.json`` is an envelope around an in-toto statement whose subjects are the
attempt's files. A later seal is NNNN+1 and names the payload before it. A counter-signature is
another file over the same payload. Of an attempt that nobody signs, SIGNER is ``unsigned``.

Source: in-toto Statement v1, https://in-toto.io/attestation/test-result/v0.1
"""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..canonical import digest_bytes, digest_file, load_once
from ..errors import LogDamaged
from ..files import is_left_of
from ..outcomes import Outcome
from ..signatures import Envelope, read_envelope
from ..sources.local import MAX_FILE, plain_files, recorded
from . import posts
from .events import Event, Sealed, SessionOpened, last
from .log import opened_by
from .status import verdict as verdict_of

FOLDER = "attestations"
SEALED = {"outcome", "exit_code", "broken", "notebook", "code", "foreign"}
"""What the ``sealed`` event and the statement both say."""
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
FACTS = "https://github.com/HUBId/chain/runbook/v1"
"""The key of our own fields beside the predicate's."""
MAX_SEALS = 1000
_NAME = re.compile(r"(\d{4})\.([A-Za-z0-9][A-Za-z0-9._+-]{0,79})\.json")


@dataclass
class Seal:
    """One seal of an attempt: its payload, and the envelopes around it by who is said to sign."""

    number: int
    payload: bytes
    envelopes: dict[str, Envelope] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The head of a sealed attempt."""
        return digest_bytes(self.payload)


def seals(folder: Path) -> list[Seal]:
    """Every seal, oldest first, no signature checked. Raises LogDamaged for what is none."""
    found = dict[int, Seal]()
    names = sorted(p.name for p in (folder / FOLDER).glob("*") if not _is_half(p.name))
    if len(names) > MAX_SEALS:
        raise LogDamaged(f"{FOLDER}: expected at most {MAX_SEALS} files, got {len(names)}")
    for name in names:
        if (parts := _NAME.fullmatch(name)) is None:
            raise LogDamaged(f"{FOLDER}: expected NNNN.SIGNER.json, got {name!r}")
        try:
            envelope = read_envelope(recorded(folder / FOLDER / name, MAX_FILE))
        except (ValueError, OSError) as error:
            raise LogDamaged(f"{FOLDER}/{name}: {error}") from error
        one = found.setdefault(int(parts[1]), Seal(int(parts[1]), envelope.payload))
        if one.payload != envelope.payload:
            raise LogDamaged(f"{FOLDER}/{name}: expected the payload of its seal, got another")
        one.envelopes[parts[2]] = envelope
    if list(found) != list(range(1, len(found) + 1)):
        raise LogDamaged(
            f"{FOLDER}: expected seals 1 to {len(found)} without a gap, got {list(found)};"
            " one was removed: restore it"
        )
    return list(found.values())


def heads(folder: Path, events: Sequence[Event]) -> list[str]:
    """Every head that an attempt ever had, the one it has now last."""
    return [*(event.hash for event in events), *(one.digest for one in seals(folder))]


def statement(events: Sequence[Event], files: Mapping[str, str], previous: str) -> dict[str, Any]:
    """What is attested: nothing that does not follow from the log and the files.

    ``events`` end with the ``sealed`` one. Raises LogDamaged when they do not.
    """
    sealed = events[-1] if events else None
    if not isinstance(sealed, Sealed):
        raise LogDamaged("log: expected it to end with its seal, it does not")
    final, session = verdict_of(events), last(events, SessionOpened)
    judged = {item.item: item for item in final.items}
    good = [name for name, item in judged.items() if item.outcome is Outcome.PASS]
    warned = [name for name in good if judged[name].waived]
    passed = "WARNED" if warned else "PASSED"
    return {
        "_type": STATEMENT,
        "subject": [
            {"name": name, "digest": {"sha256": value.removeprefix("sha256:")}}
            for name, value in files.items()
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "result": passed if sealed.outcome is Outcome.PASS else "FAILED",
            "configuration": [{"name": "commit", "digest": {"gitCommit": final.commit}}],
            "passedTests": [name for name in good if name not in warned],
            "warnedTests": warned,
            "failedTests": [name for name in judged if name not in good],
            FACTS: {
                "release": final.release,
                "commit": final.commit,
                "stage": final.stage,
                "attempt": final.attempt,
                "mode": final.mode,
                "source": final.source,
                "run": final.run,
                **sealed.model_dump(mode="json", include=SEALED),
                "log": {"events": len(events), "head": sealed.hash},
                "sealed_at": sealed.written,
                "policy": session.policy if session else "",
                "package": {
                    "version": session.version if session else "",
                    "digest": session.package if session else "",
                },
                "earlier": dict(opened_by(events, "log").heads),
                "previous": previous,
            },
        },
    }


def facts_of(payload: bytes) -> dict[str, Any]:
    """Our own fields of a statement. Raises ValueError, KeyError, TypeError for another's."""
    about = load_once(payload)
    kinds = (about["_type"], about["predicateType"])
    if kinds != (STATEMENT, PREDICATE):
        raise ValueError(f"expected a test result as in-toto states it, got {kinds[1]!r:.80}")
    return dict(about["predicate"][FACTS])


def file_digests(folder: Path) -> dict[str, str]:
    """Relative path -> digest of every file but attestations. Raises LogDamaged for links."""
    found = plain_files(folder).items()
    paths = {k: v for k, v in found if not (k.startswith(f"{FOLDER}/") or _passing(k))}
    with ThreadPoolExecutor() as pool:  # hashing lets go of the lock
        return dict(zip(paths, pool.map(digest_file, paths.values()), strict=True))


def _passing(name: str) -> bool:
    """What Jupyter leaves beside a notebook that was looked at, and the outbox."""
    jupyter = ".ipynb_checkpoints/" in f"/{name}" or name.split("/")[-1].startswith(".~")
    return jupyter or posts.is_ours(name)


def _is_half(name: str) -> bool:
    """What a killed process left of an attestation that it was writing."""
    target = name.removeprefix(".").rsplit(".", 2)[0]
    return bool(_NAME.fullmatch(target)) and is_left_of(name, target)
