"""What a person may except, on somebody else's word: rows of an item, a node of a plan under way."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from . import playbook
from .canonical import digest
from .fields import Instant
from .strict import Strict


class Waiver(Strict):
    """A recorded acceptance of named rows of one item, until it expires.

    Its digest is what an approval must quote (``approval``: a file signed by a listed person, else
    a comment in the release issue is looked for).
    """

    item: str
    subjects: list[str] = Field(min_length=1)
    outcome: Literal["FAIL", "INCONCLUSIVE"]
    reason: str = Field(min_length=10)
    expires: Instant = Field(min_length=1)
    approval: str = ""

    @model_validator(mode="after")
    def _waivable(self) -> Waiver:
        item = playbook.ITEMS.get(self.item)
        if item is None:
            raise ValueError(f"expected an item of the playbook, got {self.item!r}")
        if not item.waivable:
            raise ValueError(f"expected an item that may be waived; {self.item} never is")
        if any(not subject.strip() for subject in self.subjects):
            raise ValueError("expected the subject of every row it covers, got an empty one")
        return self

    def digest(self, release: str, stage: str) -> str:
        """What an approval quotes: the whole waiver, bound to one release and stage."""
        body = self.model_dump(exclude={"approval"})
        return digest({"waiver": body, "release": release, "stage": stage})


class Drop(Strict):
    """A node left out of a plan under way, for a reason, on somebody else's word.

    Its digest is what the approval must quote, as a waiver's.
    """

    node: str = Field(min_length=1)
    reason: str = Field(min_length=10)
    approval: str = ""

    def digest(self, plan: str, release: str, stage: str) -> str:
        """What an approval quotes: the node and the reason, bound to one plan."""
        body = self.model_dump(exclude={"approval"})
        return digest({"drop": body, "plan": plan, "release": release, "stage": stage})
