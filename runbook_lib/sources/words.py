"""What people said of a release: comments of its issue and signed files, one reader for all kinds.

A comment counts when an account that the site knows wrote it and it was not edited since (an
edited withdrawal still withdraws). A file counts when the key of the person or validator it names
signed it. What does not count is named, with why. Forms: ``wordforms``.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from ..clusters import Node
from ..errors import SourceError
from ..markup import visible
from ..playbook import NOW_SOURCE_LAG
from ..site import Site
from .forge import Comment
from .github import GitHub
from .scope import Scope
from .wordforms import MAX_FILE, Malformed, Said, Signed, Word, lines, parse_signed

MAX_FILES = 1000
Fault = Literal["malformed", "stranger", "edited", "forged", "unreadable", "ahead"]


@dataclass(frozen=True)
class Refused:
    """A word that does not count. ``who`` is the account or validator it names, or its file.

    ``said`` is what it claims; None where it cannot be read.
    """

    who: str
    why: str
    grounds: str
    fault: Fault
    said: Said | None = None


@dataclass(frozen=True)
class Heard:
    """All that was said of a release, in no order."""

    words: tuple[Word, ...] = ()
    withdrawals: tuple[Word, ...] = ()
    refused: tuple[Refused, ...] = ()


def taken_back(word: Word, withdrawals: Iterable[Word]) -> Word | None:
    """The withdrawal, of those by its speakers, that took it back; of the same instant too."""
    return next((one for one in withdrawals if one.at >= word.at and one.covers(word)), None)


def read_words(scope: Scope, site: Site, *, issue: int, release: str) -> Heard:
    """All words in the release issue (0: none) and in the site's folder for this release.

    Raises SourceError when a place cannot be read, or there is none.
    """
    folder = site.words_folder(release) if release else None
    if not issue and folder is None:
        raise SourceError("words", "expected a release issue (issue) or the site's folder (words)")
    found: list[Word | Refused] = []
    if issue:
        for comment in GitHub(scope, site.forge).comments(issue):
            found += _comment(site, comment)
    if folder is not None:
        for name in _names(scope, site.words_root, folder):
            found.append(_file(scope, site, folder / name))
    once = tuple(dict.fromkeys(found))
    words = [one for one in once if isinstance(one, Word)]
    return Heard(
        tuple(word for word in words if not word.withdraws),
        tuple(word for word in words if word.withdraws),
        tuple(one for one in once if isinstance(one, Refused)),
    )


def _comment(site: Site, comment: Comment) -> Iterator[Word | Refused]:
    who, grounds = comment.author, comment.html_url
    edited = comment.updated_at != comment.created_at
    for said in lines(comment.body):
        claim = said if isinstance(said, Said) else None
        if not _known(site, who):
            shown = visible(who, 80)
            why = f"expected an account the site lists, got {shown!r}"
            yield Refused(shown, why, grounds, "stranger", claim)
        elif isinstance(said, Malformed):
            yield Refused(who, f"{said.line!r}: {said.why}", grounds, "malformed")
        elif edited and not said.withdraws:
            why = f"edited since, at {comment.updated_at:%Y-%m-%d %H:%M:%SZ}; say it anew"
            yield Refused(who, why, grounds, "edited", said)
        else:
            at = comment.updated_at if said.withdraws else comment.created_at
            yield Word(**vars(said), account=who, at=at, grounds=grounds)


def _known(site: Site, account: str) -> bool:
    operators = {node.operator for node in _nodes(site) if node.operator}
    return site.person(account) is not None or account in operators


def _nodes(site: Site) -> Iterator[Node]:
    for cluster in site.clusters.values():
        yield from cluster.nodes


def _names(scope: Scope, root: Path, folder: Path) -> list[str]:
    # A folder that is not there may be one that is not mounted: a withdrawal may lie in it.
    if root.name not in scope.listing(root.parent):
        raise SourceError(str(root), "expected a folder, even an empty one; create or mount it")
    names = [n for n in scope.listing(folder) if n.endswith(".json") and not n.startswith(".")]
    if len(names) > MAX_FILES:
        raise SourceError(str(folder), f"expected at most {MAX_FILES} files, got {len(names)}")
    return names


def _file(scope: Scope, site: Site, path: Path) -> Word | Refused:
    name = visible(path.name, 120)
    try:
        signed = parse_signed(scope.read(path, limit=MAX_FILE, follow=False))
    except SourceError as error:
        return Refused(name, error.problem, name, "unreadable")
    except ValueError as error:
        return Refused(name, f"expected a signed word, got: {error}", name, "unreadable")
    return verify(site, signed, name, scope.now())


def verify(site: Site, signed: Signed, name: str, now: datetime) -> Word | Refused:
    """A signed file as a word, once its signature is that of whom it names. Judged at ``now``."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    statement = signed.statement
    who, said = visible(statement.account or statement.validator, 80), statement.said()
    keys = _keys(site, statement.account, statement.validator)
    if not keys:
        kind = "a listed person with a key" if statement.account else "a signoff_key in the site"
        return Refused(who, f"expected {kind}, got {who!r}", name, "stranger", said)
    for key in keys:
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.removeprefix("ed25519:")))
        try:
            public.verify(base64.b64decode(signed.signature, validate=True), signed.content)
            break
        except (InvalidSignature, ValueError):
            continue
    else:
        return Refused(who, f"expected a signature by {who}, got another", name, "forged", said)
    # A withdrawal counts whatever its clock says: it may have been signed by one that is fast.
    if statement.at > now + NOW_SOURCE_LAG and not said.withdraws:
        why = f"expected an instant that has come, got {statement.at:%Y-%m-%d %H:%M:%SZ}"
        return Refused(who, why, name, "ahead", said)
    return Word(
        **vars(said),
        account=statement.account,
        validator=statement.validator,
        at=statement.at,
        grounds=name,
    )


def _keys(site: Site, account: str, validator: str) -> set[str]:
    if account:
        person = site.person(account)
        return {person.key} if person is not None and person.key else set()
    return {n.signoff_key for n in _nodes(site) if n.validator == validator and n.signoff_key}
