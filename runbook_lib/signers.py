"""Who may sign evidence, and whose signatures count for an attempt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .errors import ParameterError
from .playbook import STAGES
from .signatures import KEY_ENV, Envelope, SigningKey, public_key, read_signer
from .strict import Instant, OwnName, Strict, parse_instant

StageName = Literal["development", "testnet", "canary", "mainnet"]
CI = "CI"
"""All keys that are no person's speak as this one."""


class Signer(Strict):
    """A key that may sign: a person's (an account of ``people``), or CI's.

    It counts from ``since`` to ``until``; once ``revoked``, for nothing: others sign what it signed.
    """

    name: OwnName
    person: str = ""
    key: Annotated[str, SigningKey] = Field(min_length=1)
    stages: list[StageName] = ["development", "testnet", "canary", "mainnet"]
    since: Instant = ""
    until: Instant = ""
    revoked: bool = False

    @property
    def speaks_as(self) -> str:
        return self.person.casefold() or CI

    def problem(self, stage: str, sealed: datetime) -> str:
        """Why its signature of that instant counts for nothing; empty when it does.

        What promotes nothing (a preflight, a report) may be signed by everyone who signs a stage.
        """
        if stage in STAGES and stage not in self.stages:
            return f"{self.name} may not sign {stage}"
        if self.since and sealed < parse_instant(self.since):
            return f"{self.name} signed before {self.since}"
        if self.until and sealed >= parse_instant(self.until):
            return f"{self.name} signed after {self.until}"
        if self.revoked:
            return f"{self.name} is revoked: have another sign"
        return ""


class Signers(Strict):
    """``threshold`` is how many persons must have signed; of the stages in ``ci``, CI among them."""

    threshold: int = Field(default=1, ge=1, le=20)
    ci: list[StageName] = []
    keys: list[Signer] = Field(min_length=1)

    @model_validator(mode="after")
    def _apart(self) -> Signers:
        """One key would be two persons, one name two files."""
        names = {one.name for one in self.keys}
        keys = {public_key(one.key).keyid for one in self.keys}
        if len(names) < len(self.keys) or len(keys) < len(self.keys):
            raise ValueError("expected every name and every key once")
        return self


@dataclass(frozen=True)
class Signing:
    """With whose key what is sealed is signed; ``signer`` None: nobody's."""

    name: str = "unsigned"
    signer: Any = None
    wanted: bool = False


class Trust(Strict):
    """What a reader needs to judge evidence without the site: who may sign, and known versions."""

    signing: Literal["required", "none"] = "required"
    signers: Signers | None = None
    versions: list[str] = []

    def own(self) -> Signing:
        """With whose key this process signs. Raises ParameterError for one that is not listed."""
        if self.signers is None or (signer := read_signer()) is None:
            return Signing(wanted=self.signers is not None)
        mine = signer.public_key.keyid
        found = [one.name for one in self.signers.keys if public_key(one.key).keyid == mine]
        if not found:
            known = ", ".join(one.name for one in self.signers.keys)
            raise ParameterError(f"{KEY_ENV}: expected the key of a signer ({known}), got another")
        return Signing(found[0], signer)

    def judge(
        self, envelopes: Iterable[Envelope], stage: str, sealed: datetime
    ) -> tuple[list[str], str]:
        """Who signed, each person once, and what is missing; empty when those are enough."""
        speakers, refused = dict[str, str](), list[str]()
        signers = self.signers or Signers.model_construct(keys=[])
        made = list(envelopes)
        signed = [k for k in signers.keys if any(e.is_by(public_key(k.key)) for e in made)]
        for one in signed:
            if problem := one.problem(stage, sealed):
                refused.append(problem)
            else:
                speakers.setdefault(one.speaks_as, one.name)
        lacks = "" if len(speakers) >= signers.threshold else "too few"
        if stage in signers.ci and CI not in speakers:
            lacks = "none by CI"
        if lacks:
            got = ", ".join([*speakers.values(), *refused]) or "no signature of a listed key"
            wanted = " with CI's" if stage in signers.ci else ""
            lacks = f"expected signatures of {signers.threshold} of those who may sign{wanted}, got {got}"
        return list(speakers.values()), lacks


def signed_text(signing: Signing) -> str:
    """Who signs, in words."""
    if signing.signer is not None:
        return f"Signed by {signing.name}"
    how = f": `runbook seal --sign FOLDER` signs it with the key of {KEY_ENV}"
    return f"Unsigned{how if signing.wanted else ''}"
