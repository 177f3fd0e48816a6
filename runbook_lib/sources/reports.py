"""Node reports: what an operator says of a node that only they can look into, signed with its key.

A report is ``{"statement": {...}, "signature": BASE64}``: Ed25519 over the canonical JSON of the
statement, by the node's ``signoff_key``. It lies as a ``.json`` file in ``reports`` below the
site's folder of words for the release, or stands in a comment of the release issue, in a fenced
block that is named ``node-report``. A comment counts only by the operator's own or a listed account:
a stranger could stop a rollout otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from ..clusters import Node
from ..errors import SourceError
from ..markup import visible
from ..outcomes import Model
from ..playbook import NOW_SOURCE_LAG
from ..site import Site
from .github import GitHub
from .keys import MAX_SIGNED, Signed, read_signed
from .scope import Scope
from .words import known

MAX_FILES = 2000
FOLDER, FENCE = "reports", "node-report"
_BLOCK = re.compile(rf"^```{FENCE}[ \t]*\r?\n(.*?)\r?\n```[ \t]*$", re.S | re.M)
_Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
_Short = Annotated[str, Field(max_length=200)]


class NodeReport(Model):
    """What runs on a node, said beside it. ``plan`` and ``phase`` are empty outside a rollout.

    ``target`` is the file that ``dry_run``, strict, was about; None: it was not run.
    """

    kind: Literal["node-report"] = "node-report"
    node: _Short
    release: _Short
    stage: Literal["development", "testnet", "canary", "mainnet"]
    plan: _Digest | Literal[""] = ""
    phase: _Short = ""
    channel: _Short
    gates: dict[_Short, bool] = Field(max_length=100)
    config: _Digest
    binary: _Digest
    target: _Digest
    dry_run: bool | None
    at: AwareDatetime


@dataclass(frozen=True)
class Received:
    """A report and where it was found; ``fault`` is empty when its node's key signed it."""

    report: NodeReport
    grounds: str
    fault: str = ""


@dataclass(frozen=True)
class Reports:
    """All reports of a release; ``unreadable`` says of the rest where they are and why."""

    received: tuple[Received, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()

    def of(self, node: str, stage: str) -> list[Received]:
        """Those in a node's name, oldest first."""
        mine = [r for r in self.received if (r.report.node, r.report.stage) == (node, stage)]
        return sorted(mine, key=lambda one: one.report.at)


def comment_text(data: bytes) -> str:
    """A report as the text of a comment."""
    return f"```{FENCE}\n{data.decode().strip()}\n```\n"


def read_reports(scope: Scope, site: Site, *, issue: int, release: str) -> Reports:
    """Every node report of a release. Raises SourceError when a place cannot be read."""
    received: list[Received] = []
    unreadable: list[tuple[str, str]] = []
    for grounds, data in _places(scope, site, issue, release):
        try:
            signed = read_signed(data, NodeReport)
        except ValueError as error:
            unreadable.append((grounds, f"expected a node report, got: {error}"))
            continue
        if signed.statement.release == release:
            fault = _fault(site, signed, scope.now())
            received.append(Received(signed.statement, grounds, fault))
    return Reports(tuple(received), tuple(unreadable))


def _places(scope: Scope, site: Site, issue: int, release: str) -> Iterator[tuple[str, bytes]]:
    if issue:
        for comment in GitHub(scope, site.forge).comments(issue):
            if known(site, comment.author):
                for text in _BLOCK.findall(comment.body):
                    yield comment.html_url, text.encode("utf-8", "backslashreplace")
    folder = site.words_folder(release)
    if folder is None:
        return
    names = [name for name in scope.listing(folder / FOLDER) if name.endswith(".json")]
    if len(names) > MAX_FILES:
        raise SourceError(FOLDER, f"expected at most {MAX_FILES} files, got {len(names)}")
    for name in names:
        shown = visible(name, 120)
        try:
            yield shown, scope.read(folder / FOLDER / name, limit=MAX_SIGNED, follow=False)
        except SourceError as error:
            yield shown, error.problem.encode()


def _fault(site: Site, signed: Signed[NodeReport], now: datetime) -> str:
    """Why a report does not count; empty when it does."""
    report = signed.statement
    node = _node(site, report)
    if node is None or not node.signoff_key:
        return "no signoff_key: expected one for this node in the site file, got none"
    if not signed.is_by(node.signoff_key):
        return "forged: expected the signature of this node's signoff_key, got another"
    if report.at > now + NOW_SOURCE_LAG:
        return f"ahead: expected an instant that has come, got {report.at.isoformat()}"
    return ""


def _node(site: Site, report: NodeReport) -> Node | None:
    if report.stage not in site.stages:
        return None
    nodes: Iterable[Node] = site.cluster_of(report.stage).nodes
    return next((node for node in nodes if node.name == report.node), None)
