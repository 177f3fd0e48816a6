"""Who of those who must say something said it: votes are counted here, whatever they are about."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..playbook import APPROVERS, COUNCIL
from ..site import Site
from .words import FORMS, Heard, Kind, Said, Word, taken_back


@dataclass(frozen=True)
class Spoken:
    """What a speaker said of one thing: the words that stand, oldest first; each that was taken
    back, by which; and words of the kind that say something else.
    """

    standing: list[Word]
    taken: dict[Word, Word]
    other: list[Word]


def spoken(heard: Heard, said: Said, speaks: Callable[[Word], bool]) -> Spoken:
    """What who ``speaks`` said of ``said``."""
    words = [word for word in heard.words if word.kind == said.kind and speaks(word)]
    mine = [word for word in words if not differs(word, said)]
    back = [word for word in heard.withdrawals if speaks(word)]
    taken = {word: one for word in mine if (one := taken_back(word, back)) is not None}
    standing = sorted((word for word in mine if word not in taken), key=lambda word: word.at)
    return Spoken(standing, taken, [word for word in words if word not in mine])


def differs(word: Said, said: Said) -> str:
    """In what a word is another than the one asked for; empty when in nothing."""
    return ", ".join(n for n in FORMS[said.kind] if getattr(word, n) != getattr(said, n))


@dataclass(frozen=True)
class Count:
    """The words that count, one of each speaker, oldest first; who fills which seat; the withdrawals
    of those who said it and took it back; the ``author``, where they fill what others leave open.
    """

    words: list[Word]
    seats: list[Word | None]
    withdrawn: list[Word]
    author: str

    @property
    def at(self) -> datetime | None:
        """When the last seat was filled by another; None while one is open."""
        filled = [word.at for word in self.seats if word is not None]
        return max(filled) if filled and len(filled) == len(self.seats) else None

    @property
    def self_approved(self) -> bool:
        """Whether its author alone fills a seat."""
        return self.at is None and bool(self.author)

    @property
    def by(self) -> tuple[str, ...]:
        """The accounts whose agreement is enough; nobody while it is not."""
        names = tuple(word.account for word in self.words)
        if self.self_approved:
            return (*names, self.author)
        return names if self.at is not None else ()

    def __str__(self) -> str:
        return ", ".join(word.account for word in self.words)


@dataclass(frozen=True)
class Quorum:
    """Who can fill each seat, by account; an account fills one.

    The ``author`` of what is said fills none, but ``beside`` others. One who works ``alone`` fills
    what others leave open, without a word.
    """

    seats: Sequence[Sequence[str]]
    author: str = ""
    beside: bool = False
    alone: bool = False

    def count(self, heard: Heard, digest: str, kind: Kind = "approve") -> Count:
        """Who said ``kind`` of ``digest`` and did not take it back."""
        said, first, withdrawn = Said(kind=kind, plan=digest), list[Word](), list[Word]()
        for account in dict.fromkeys(account for seat in self.seats for account in seat):
            found = spoken(heard, said, _by(account))
            if found.standing:
                first.append(found.standing[0])
            elif found.taken:
                withdrawn.append(max(found.taken.values(), key=lambda word: word.at))
        words = [w for w in first if w.account.casefold() != self.author.casefold()]
        if self.beside and words:
            words = first
        words = sorted(words, key=lambda word: (word.at, word.account))
        return Count(words, self._seated(words), withdrawn, self.author if self.alone else "")

    def _seated(self, words: Sequence[Word]) -> list[Word | None]:
        """As many seats as can be, each filled by somebody else."""
        seats = dict[int, Word]()

        def fill(word: Word, full: set[int]) -> bool:
            for number, holders in enumerate(self.seats):
                if word.account in holders and number not in full:
                    full.add(number)
                    if number not in seats or fill(seats[number], full):
                        seats[number] = word
                        return True
            return False

        for word in words:
            fill(word, set())
        return [seats.get(number) for number in range(len(self.seats))]


def _by(account: str) -> Callable[[Word], bool]:
    return lambda word: word.account == account


def anybody(site: Site, author: str) -> Quorum:
    """One of the site's people other than the author, who may be alone."""
    everybody = [person.account for person in site.people]
    return Quorum([everybody], author, alone=site.single_operator)


def approvers(site: Site, stage: str, author: str) -> Quorum:
    """Who must approve a plan of a stage that has a policy."""
    policy = APPROVERS[stage]
    seats = [site.holders(*seat) for seat in policy.seats]
    return Quorum(seats, author, beside=policy.author, alone=site.single_operator)


def council(site: Site) -> Quorum:
    """Two thirds of the governance council."""
    members = site.holders(COUNCIL)
    return Quorum([members] * -(-2 * len(members) // 3))
