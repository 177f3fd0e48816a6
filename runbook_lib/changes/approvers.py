"""Whether the right people approved a plan: ``playbook.APPROVERS`` held against what was said."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

from .. import playbook
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..site import Site
from ..sources.words import Heard
from .approvals import in_force, withdrawn

SUBJECT = "approval"


def approved(site: Site, heard: Heard, author: str, stage: str, *, digest: str) -> list[Row]:
    """One row per seat that must approve ``digest``, one per forged or withdrawn approval, and one
    per file that cannot be read.

    An account fills one seat. On a ``single_operator`` site the author fills what others leave
    open; the row says *self-approved*. A stage without a policy is INCONCLUSIVE.
    """
    policy = playbook.APPROVERS.get(stage)
    if policy is None:
        return [
            unknown_row(SUBJECT, stage, "a policy that says who approves", "none for this stage")
        ]
    given = {word.account: word.grounds for word in in_force(site, heard, digest)}
    alone = set(given) <= {author}
    if not policy.author or alone:
        given.pop(author, None)
    seated = _seat(site, policy, list(given))
    rows = [
        _row(site, seat, account, given, author, f"seat {number} of {len(seated)}", digest)
        for number, (seat, account) in enumerate(zip(policy.seats, seated, strict=True), 1)
    ]
    return rows + _objections(site, heard, digest, full=all(seated))


def _seat(site: Site, policy: playbook.Approvers, accounts: list[str]) -> tuple[str, ...]:
    """Who fills which seat, so that as many as can be are filled; empty where nobody can."""

    def fits(account: str, seat: frozenset[str]) -> bool:
        person = site.person(account)
        return person is not None and not seat.isdisjoint(person.roles)

    def filled(order: tuple[str, ...]) -> tuple[str, ...]:
        pairs = zip(order, policy.seats, strict=True)
        return tuple(account if fits(account, seat) else "" for account, seat in pairs)

    nobody = [""] * len(policy.seats)
    orders = permutations([*accounts, *nobody], len(policy.seats))
    return max(map(filled, orders), key=lambda seats: sum(map(bool, seats)))


def _row(
    site: Site,
    seat: frozenset[str],
    account: str,
    given: Mapping[str, str],
    author: str,
    what: str,
    digest: str,
) -> Row:
    expected = f"by {' or '.join(sorted(seat))}, not {author} alone"
    if account:
        return check_row(SUBJECT, what, expected, f"{account} ({given[account]})", ok=True)
    if site.single_operator:
        return check_row(SUBJECT, what, expected, f"{author} (self-approved)", ok=True)
    can = sorted(p.account for p in site.people if seat & set(p.roles) and p.account != author)
    how = f"`approve {digest}` in the release issue, or `runbook approve`"
    got = f"nobody yet; {how}, by {' or '.join(can) or 'somebody the site must list'}"
    return unknown_row(SUBJECT, what, expected, got)


def _objections(site: Site, heard: Heard, digest: str, *, full: bool) -> list[Row]:
    rows = [
        check_row(SUBJECT, one.who, "signed with its own key", f"forged: {one.grounds}", ok=False)
        for one in heard.refused
        if one.fault == "forged" and one.said is not None
        if (one.said.kind, one.said.plan) == ("approve", digest)
    ]
    # It may be somebody's withdrawal.
    rows += [
        unknown_row(SUBJECT, f"signed word {one.who}", "readable", one.why)
        for one in heard.refused
        if one.fault == "unreadable"
    ]
    standing = {word.account for word in in_force(site, heard, digest)}
    for word in () if full else heard.words:
        mine = (word.kind, word.plan) == ("approve", digest) and site.person(word.account)
        back = withdrawn(word, heard)
        if mine and back is not None and word.account not in standing:
            got = f"withdrawn: {back.grounds}"
            rows.append(
                check_row(SUBJECT, word.account, "an approval that stands", got, Outcome.FAIL)
            )
    return rows
