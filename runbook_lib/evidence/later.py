"""Sending what an attempt kept in its outbox: in order, each once, whatever becomes of the others.

Outside item, guard and tape: the attempt's own result changes with its next try, which reads back
what stands there. What an operator is to do is not told once its window is over, or its apply undone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import ParameterError, RunbookError, SourceError
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..reach import Command
from ..site import Site
from ..sources import notices
from ..sources.clock import read_clock
from ..sources.github import GitHub
from ..sources.governance import Governance
from ..sources.http import Http
from ..sources.redact import Redactor
from ..sources.running import fill, reason
from ..sources.scope import Outside, Scope
from ..sources.tape import LiveTape
from ..wording import utc
from . import incidents, outbox
from .posts import Report, find, read_back, write
from .record import Record
from .store import Store
from .undoing import undone_by


def send(
    folder: Path, site: Site, opened: Mapping[str, Any], http: Http | None = None
) -> list[Row]:
    """Send all that is kept; one row for each. Raises nothing for what cannot be sent."""
    redactor, rows = Redactor(site.secret_names()), list[Row]()
    outside = Outside(redactor, http)
    with tempfile.TemporaryDirectory(prefix="runbook-outbox-") as scratch:
        # A tape of its own that goes away: nothing of this is evidence.
        scope = Scope(LiveTape(Path(scratch), redactor), outside, "publish", 1, clock=site.clock)
        try:
            for path in outbox.pending(folder):
                rows += _one(scope, site, folder, path, opened)
        finally:
            outside.close()
    return rows or [check_row("outbox", "kept", "nothing", "nothing", ok=True)]


def _one(
    scope: Scope, site: Site, folder: Path, path: Path, opened: Mapping[str, Any]
) -> list[Row]:
    try:
        document = outbox.read(path, Record(folder / "record.jsonl").entries())
        what = _BY_KIND[document["kind"]]
        if document.get("until") and (late := _too_late(site, document, opened)):
            return [unknown_row(path.name, "sent", "while it may be followed", late)]
        rows = what(scope, site, document, str(opened["operator"]))
    except SourceError as error:
        return [unknown_row(path.name, "sent", "done", str(error))]
    except (ValueError, KeyError, TypeError, OSError, ParameterError) as error:
        return [check_row(path.name, "sent", "what the record names", str(error), ok=False)]
    if all(row.outcome is Outcome.PASS for row in rows):
        outbox.drop(folder, outbox.kind_of(path))
    return rows


def _too_late(site: Site, document: Mapping[str, Any], opened: Mapping[str, Any]) -> str:
    """Why an instruction must not be followed any more; empty while it may."""
    stage = (str(opened["release"]), str(opened["stage"]), int(opened["attempt"]))
    if by := undone_by(Store(site.store_path), *stage):
        return f"undone by {by}"
    until = datetime.fromisoformat(document["until"])
    return "" if read_clock(site.clock)[0] < until else f"its window ended {utc(until)}"


def _issue(scope: Scope, site: Site, document: dict[str, Any], by: str) -> list[Row]:
    report = Report(
        incident=str(document["incident"]),
        audience=str(document["audience"]),
        title=str(document["title"]),
        text=str(document["text"]),
        since=datetime.fromisoformat(document["since"]),
    )
    forge = GitHub(scope, site.forge, writes="notify")
    found = find(report.board(forge), report.marker)
    number = write(found, report.body).number
    rows = [*found.rows(), *read_back(found, number, report.body)]
    if all(row.outcome is Outcome.PASS for row in rows):
        rows += _filed(site, report, number, by)
    return rows


def _filed(site: Site, report: Report, number: int, by: str) -> list[Row]:
    """Say so in the incident."""
    store, at = Store(site.store_path), read_clock(site.clock)[0].isoformat()
    body = {"audience": report.audience, "number": number, "by": by, "at": at}
    try:
        if number not in incidents.load(store, report.incident).filed:
            incidents.add(store, report.incident, "filed", body)
    except RunbookError as error:
        return [unknown_row(report.incident, "says where", f"issue {number}", str(error))]
    return []


def _halt(scope: Scope, site: Site, document: dict[str, Any], by: str) -> list[Row]:
    values = {name: str(document["values"][name]) for name in ("release", "stage", "reference")}
    wanted = ("halt", *values.values())

    def stands() -> bool:
        found = Governance(scope, site.commands).announced()
        return wanted in [(one.kind, one.release, one.stage, one.reference) for one in found]

    if not stands():
        _by_command(scope, site, "announce_halt", "text", document, values)
    there = stands()
    got = values["reference"] if there else "not among those that stand"
    return [check_row("halt", "stands in the channel", values["reference"], got, there)]


def _by_command(
    scope: Scope,
    site: Site,
    name: str,
    file: str,
    document: Mapping[str, Any],
    values: Mapping[str, str],
) -> None:
    """Run a site's command over the text of a document, in a ``file``. Raises SourceError."""
    command: Command | None = getattr(site.commands, name)
    if command is None:
        raise SourceError(name, f"expected commands.{name} in the site, got none")
    with tempfile.NamedTemporaryFile("w", suffix=".md", encoding="utf-8") as text:
        text.write(str(document["text"]))
        text.flush()
        argv = fill(f"commands.{name}", command.argv, **values, **{file: text.name})
        ended = scope.run(argv, timeout_s=command.timeout_s, purpose="notify")
    if ended.code != 0:
        got = ended.problem or f"{ended.code}: {reason(ended)}"
        raise SourceError(name, f"expected exit code 0, got {got}")


def _instruct(scope: Scope, site: Site, document: dict[str, Any], by: str) -> list[Row]:
    """An operator's instruction by the site's command."""
    operator = str(document["operator"])
    _by_command(scope, site, "instruct", "file", document, {"operator": operator})
    return [check_row(operator, "instructed", "exit 0", "exit 0", ok=True)]


def _notice(scope: Scope, site: Site, document: dict[str, Any], by: str) -> list[Row]:
    role, subject = str(document["role"]), str(document["subject"])
    if site.commands.notify is None:
        raise SourceError("commands.notify", "expected commands.notify in the site, got none")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as text:
        text.write(str(document["text"]))
        text.flush()
        notices.by_command(scope, site.commands.notify, role, subject, Path(text.name))
    return [check_row(role, "told", subject, subject, ok=True)]


def _comment(scope: Scope, site: Site, document: dict[str, Any], by: str) -> list[Row]:
    """An operator's instruction in the release issue, once; by its first line."""
    issue, marker = int(document["issue"]), str(document["marker"])
    forge = GitHub(scope, site.forge, writes="notify")
    if not notices.stands(forge, issue, marker):
        forge.create_comment(issue, str(document["text"]))
    there = notices.stands(forge, issue, marker)
    got = f"issue {issue}" if there else "not among its comments"
    return [check_row(str(document["operator"]), "instructed", f"issue {issue}", got, there)]


_BY_KIND = {
    "issue": _issue,
    "halt": _halt,
    "notice": _notice,
    "comment": _comment,
    "instruct": _instruct,
}
