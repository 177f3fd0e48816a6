"""Who the validators of a chain are, and whose word is theirs: chain and site side by side.

Source: /ui/bft/membership of every node, addresses and stake; the chain knows no operators, so the
site names them per node.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..clusters import Node
from ..context import Context
from ..errors import SourceError
from ..outcomes import Row, unknown_row
from ..playbook import SPEAKS_FOR_OURS
from ..site import Site
from ..sources.node import Membership
from ..sources.wordforms import Word
from ..sources.words import Refused

SET = "validator set"
AGREED = "the same to every node"


@dataclass(frozen=True)
class Voice:
    """A validator: its address, stake (the chain's unit) and share, its node, who speaks for it."""

    address: str
    stake: int
    share: float
    node: Node | None
    accounts: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.node.name if self.node is not None else self.address

    def says(self, word: Word) -> bool:
        return word.validator == self.address or word.account in self.accounts

    def claimed_by(self, one: Refused) -> bool:
        return one.who == self.address or one.who in self.accounts


def voices(context: Context) -> tuple[list[Voice], Row | None]:
    """The chain's validators, and what is wrong with what the nodes say of them, if anything."""
    answers = context.fleet.membership()
    views = {n: view for n, view in answers.items() if isinstance(view, Membership)}
    stakes: dict[str, int] = {}
    for view in views.values():
        for validator in view.validators:
            stakes.setdefault(validator.address, validator.stake)
    total = sum(stakes.values())
    nodes = {node.validator: node for node in context.cluster.nodes if node.validator}
    found = [
        Voice(address, stake, stake / total if total else 0.0, node, _accounts(context.site, node))
        for address, stake in stakes.items()
        for node in [nodes.get(address)]
    ]
    return found, _disputed(answers, views, stakes)


def _accounts(site: Site, node: Node | None) -> tuple[str, ...]:
    if node is None:
        return ()
    if node.operator:
        return (node.operator,)
    return tuple(person.account for person in site.people if SPEAKS_FOR_OURS in person.roles)


def _disputed(
    answers: dict[str, Membership | SourceError],
    views: dict[str, Membership],
    stakes: dict[str, int],
) -> Row | None:
    what, expected = AGREED, "one set, said by more than half of the nodes"
    failed = [str(error) for error in answers.values() if isinstance(error, SourceError)]
    if len(views) * 2 <= len(answers):
        got = f"{len(views)} of {len(answers)} nodes answer ({failed[0]})"
        return unknown_row(SET, what, expected, got)
    for name, view in views.items():
        if sorted((v.address, v.stake) for v in view.validators) != sorted(stakes.items()):
            return unknown_row(SET, what, expected, f"another one by {name}")
    if not sum(stakes.values()):
        return unknown_row(SET, what, "validators with stake", f"{len(stakes)} without any")
    return None
