"""Publishing a sealed apply: its files attached to the release's evidence, its summary updated.

A recovery's outbox is sent first, sealed or not.

A notification outside item, guard and tape: whatever becomes of it, the verdict and its exit code
stand. Until all of it is done a note lies in the attempt's outbox, which no seal covers;
``runbook publish`` tries again. Everything is looked up before it is written, so that trying again
adds nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from ..canonical import canonical, digest_bytes
from ..errors import ParameterError, RecordDamaged, RunbookError, SourceError, StoreError
from ..files import keep_file
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..playbook import RECOVERY
from ..recording import recorded_site
from ..site import Site
from ..sources import wire
from ..sources.github import GitHub, complete
from ..sources.http import Http
from ..sources.local import recorded
from ..sources.notices import Governance
from ..sources.redact import Redactor
from ..sources.running import tell
from ..sources.scope import Scope, live_scope, read_clock
from ..sources.wire import Wire
from ..sources.words import read_words, withdrawn
from ..wording import utc
from . import incidents, outbox
from .comment import (
    Account,
    Filed,
    account_of,
    comments_of,
    compose,
    find,
    marker,
    other_stages,
    read_back,
    seal_marker,
    sealed_text,
    stands,
    write,
)
from .events import Event, IncidentFiled, Opened, Sealed, of
from .incident_issues import Issues, Report
from .order import undone_by
from .record import Record, opened_by
from .seal import FOLDER, OUTBOX, Seal, facts_of, seals
from .store import Store


def send(folder: Path, site: Site, opened: Opened, http: Http | None = None) -> list[Row]:
    """Send all that is kept; one row for each. Raises nothing for what cannot be sent."""
    rows = list[Row]()
    with live_scope("publish", site.secret_names(), clock=site.clock, http=http) as scope:
        for path in outbox.pending(folder):
            rows += _one(scope, site, folder, path, opened)
    return rows or [check_row("outbox", "kept", "nothing", "nothing", ok=True)]


def _one(scope: Scope, site: Site, folder: Path, path: Path, opened: Opened) -> list[Row]:
    try:
        document = outbox.read(path, Record(folder / "record.jsonl").events())
        what = _BY_KIND[document["kind"]]
        if document.get("until") and (late := _too_late(scope, site, document, opened)):
            return [unknown_row(path.name, "sent", "while it may be followed", late)]
        rows = what(scope, site, document, opened.operator)
    except SourceError as error:
        return [unknown_row(path.name, "sent", "done", str(error))]
    except (ValueError, KeyError, TypeError, OSError, ParameterError) as error:
        return [check_row(path.name, "sent", "what the record names", str(error), ok=False)]
    if all(row.outcome is Outcome.PASS for row in rows):
        outbox.drop(folder, outbox.kind_of(path))
    return rows


def _too_late(scope: Scope, site: Site, document: Mapping[str, Any], opened: Opened) -> str:
    """Why an instruction must not be followed any more; empty while it may."""
    stage = (opened.release, opened.stage, opened.attempt)
    if by := undone_by(Store(site.store_path), *stage):
        return f"undone by {by}"
    plan, issue = opened.params.get("approved_plan", ""), opened.issue
    if plan and (issue or site.words):
        heard = read_words(scope, site, issue=issue, release=stage[0])
        said = [w for w in heard.words if (w.kind, w.plan) == ("approve", plan)]
        gone = [w for w in said if withdrawn(w, heard) is not None]
        if lost := {w.account for w in gone} - {w.account for w in said if w not in gone}:
            return f"its approval was withdrawn by {', '.join(sorted(lost))}"
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
    forge = Issues(scope, site.forge, writes="notify")
    found = find(report.board(forge), report.marker)
    number = write(found, report.body).number
    rows = [*found.rows(), *read_back(found, number, report.body)]
    if all(row.outcome is Outcome.PASS for row in rows):
        rows += _filed(site, report, number, by)
    return rows


def _filed(site: Site, report: Report, number: int, by: str) -> list[Row]:
    """Say so in the incident."""
    store, at = Store(site.store_path), read_clock(site.clock)[0]
    event = IncidentFiled(audience=report.audience, number=number, by=by, at=at)
    try:
        if number not in incidents.load(store, report.incident).filed:
            incidents.add(store, report.incident, event)
    except RunbookError as error:
        return [unknown_row(report.incident, "says where", f"issue {number}", str(error))]
    return []


def _halt(scope: Scope, site: Site, document: dict[str, Any], by: str) -> list[Row]:
    values = {name: str(document["values"][name]) for name in ("release", "stage", "reference")}
    wanted = ("halt", *values.values())

    def announced() -> bool:
        found = Governance(scope, site.commands).announced()
        return wanted in [(one.kind, one.release, one.stage, one.reference) for one in found]

    if not announced():
        _by_command(scope, site, "announce_halt", "text", document, **values)
    there = announced()
    got = values["reference"] if there else "not among those that stand"
    return [check_row("halt", "stands in the channel", values["reference"], got, there)]


def _by_command(
    scope: Scope, site: Site, name: str, file: str, document: Mapping[str, Any], **values: str
) -> None:
    """Run a site's command over the text of a document, in a ``file``. Raises SourceError."""
    with tempfile.NamedTemporaryFile("w", suffix=".md", encoding="utf-8") as text:
        text.write(str(document["text"]))
        text.flush()
        tell(scope, site.commands, name, **values, **{file: text.name})


def _instruct(scope: Scope, site: Site, document: dict[str, Any], by: str) -> list[Row]:
    """An operator's instruction by the site's command."""
    operator = str(document["operator"])
    _by_command(scope, site, "instruct", "file", document, operator=operator)
    return [check_row(operator, "instructed", "exit 0", "exit 0", ok=True)]


def _notice(scope: Scope, site: Site, document: dict[str, Any], by: str) -> list[Row]:
    role, subject = str(document["role"]), str(document["subject"])
    _by_command(scope, site, "notify", "text", document, role=role, subject=subject)
    return [check_row(role, "told", subject, subject, ok=True)]


def _comment(scope: Scope, site: Site, document: dict[str, Any], by: str) -> list[Row]:
    """An operator's instruction in the release issue, once; by its first line."""
    issue, marker = int(document["issue"]), str(document["marker"])
    forge = GitHub(scope, site.forge, writes="notify")
    if not stands(forge, issue, marker):
        forge.create_comment(issue, str(document["text"]))
    there = stands(forge, issue, marker)
    got = f"issue {issue}" if there else "not among its comments"
    return [check_row(str(document["operator"]), "instructed", f"issue {issue}", got, there)]


_BY_KIND = {
    "issue": _issue,
    "halt": _halt,
    "notice": _notice,
    "comment": _comment,
    "instruct": _instruct,
}

KINDS = {".ipynb": "application/x-ipynb+json", ".json": "application/json"}
MAX_ASSET = 2 * 1024**3
PUBLISHED = ("live", "rehearsal")


@dataclass(frozen=True)
class Attempt:
    """A sealed apply as its folder holds it."""

    folder: Path
    entries: list[Event]
    sealed: Seal
    facts: dict[str, Any]
    site: Site
    issue: int

    @property
    def name(self) -> str:
        facts = self.facts
        return f"{facts['release']}/{facts['stage']}/{facts['attempt']:04d}"


def at_sealing(folder: Path, http: Http | None = None) -> list[str]:
    """Publish what was just sealed, if it is a live apply with a release issue; what went wrong.

    Raises nothing: a failure of any kind leaves the note in the outbox, for ``runbook publish``.
    """
    try:
        opened = opened_by(Record(folder / "record.jsonl").events(), folder.name)
        publishes = opened.source in PUBLISHED and opened.mode == "apply"
        due = opened.issue
        if not (publishes and (due or outbox.pending(folder))):
            return []
        rows = publish(folder, http)
    except (Exception, KeyboardInterrupt) as error:  # the verdict stands, whatever becomes of this
        said = str(error) if isinstance(error, RunbookError | OSError) else repr(error)
        interrupted = isinstance(error, KeyboardInterrupt)
        return [_later(folder, "it was interrupted" if interrupted else said)]
    open_rows = [row for row in rows if row.outcome is not Outcome.PASS]
    return [_later(folder, f"{row.subject}: {row.what}: {row.observed}") for row in open_rows[:1]]


def _later(folder: Path, problem: str) -> str:
    return f"publish: {problem}; the outbox keeps it: runbook publish {folder}"


def publish(folder: Path, http: Http | None = None) -> list[Row]:
    """Attach the files of a sealed apply and tell it in the issue; one row for each thing done.

    Raises ParameterError when there is nothing to publish, StoreError, and OSError for an outbox
    that cannot be written. ``http`` may be given a transport by tests.
    """
    opened = _opened(folder)
    kept: list[Row] = []
    if opened.stage in RECOVERY or outbox.pending(folder):  # what could not be sent, first
        kept = send(folder, _recorded(folder, opened), opened, http)
    if kept and not (seals(folder) and opened.issue):
        return kept  # not sealed yet, or without a release issue
    attempt = _attempt(folder)
    _note(folder, {"issue": attempt.issue, "problem": "it was begun and did not end"})
    secrets, clock = attempt.site.secret_names(), attempt.site.clock
    redactor = Redactor(secrets)
    with live_scope("publish", secrets, clock=clock, http=http) as scope:
        forge = Releases(scope, attempt.site.forge, writes="notify")
        rows, files = _attach(forge, attempt, redactor)
        rows += _post(forge, attempt, files, redactor)
    bad = [row for row in rows if row.outcome is not Outcome.PASS]
    if bad:
        _note(folder, {"issue": attempt.issue, "problem": f"{bad[0].subject}: {bad[0].observed}"})
    else:
        (folder / OUTBOX).unlink(missing_ok=True)
        with suppress(OSError):  # something else lies there
            (folder / OUTBOX).parent.rmdir()
    return [*kept, *rows]


def _attempt(folder: Path) -> Attempt:
    opened = _opened(folder)
    entries = Record(folder / "record.jsonl").events()
    if not (issue := opened.issue):
        raise ParameterError(
            f"{folder.name}: issue: expected the release issue the attempt was opened with, got none"
        )
    try:
        newest = seals(folder)[-1]
        facts = facts_of(newest.payload)
        sealed = (facts["record"]["head"], facts["release"], facts["stage"])
    except (RunbookError, LookupError, ValueError, TypeError) as error:
        raise RecordDamaged(
            f"{folder.name}: expected a sealed attempt, got: {error!r}; seal it first"
        ) from error
    if sealed != (entries[-1].hash, opened.release, opened.stage):
        raise StoreError(
            f"{folder.name}: expected it as sealed, got more in its record; seal it again"
        )
    return Attempt(folder, entries, newest, facts, _recorded(folder, opened), issue)


def _opened(folder: Path) -> Opened:
    """What a live apply was opened with. Raises ParameterError for any other."""
    got = "no record"
    for opened in of(Record(folder / "record.jsonl").events()[:1], Opened):
        if opened.source in PUBLISHED and opened.mode == "apply":
            return opened
        got = f"{opened.source} {opened.mode}"
    raise ParameterError(
        f"{folder.name}: expected a live apply, got {got}; nothing else is published"
    )


def _recorded(folder: Path, opened: Opened) -> Site:
    """The site of an attempt that lies in its own store. Raises ParameterError."""
    site = recorded_site(folder, "recorded site")
    home = site.store_path / opened.name
    if home.resolve() != folder.resolve():
        # A folder from elsewhere would say where the token goes.
        raise ParameterError(
            f"{folder}: expected an attempt in its own store, {home}, got another place"
        )
    return site


def _note(folder: Path, body: dict[str, Any]) -> None:
    keep_file(folder, OUTBOX, canonical({"what": "release-issue", **body}) + b"\n")


# --- files --------------------------------------------------------------------------------------------


def _attach(forge: Releases, attempt: Attempt, redactor: Redactor) -> tuple[list[Row], list[Filed]]:
    """The notebook and its attestations as assets of the release's evidence; rows, and where they are."""
    number = attempt.sealed.number
    attested = [f"{FOLDER}/{number:04d}.{name}.json" for name in attempt.sealed.envelopes]
    names = [str(attempt.facts["notebook"]), *attested]
    found = {
        name: recorded(attempt.folder / name) for name in names if (attempt.folder / name).is_file()
    }
    files = {name: Filed(name, digest_bytes(data)) for name, data in found.items()}
    try:
        release = _release(forge, attempt)
        assets = forge.assets(release)
    except SourceError as error:
        return [_unsent("evidence", "release", error)], list(files.values())
    rows = []
    for name, data in found.items():
        try:
            _may_be_sent(attempt, name, data, redactor)
            named = f"{attempt.facts['stage']}-{attempt.facts['attempt']:04d}-{Path(name).name}"
            asset = _asset(forge, release, assets, named, data)
        except SourceError as error:
            rows.append(_unsent(name, "attached", error))
            continue
        files[name] = Filed(asset.name, files[name].digest, asset.browser_download_url)
        rows.append(check_row(name, "attached", files[name].digest, asset.name, ok=True))
    return rows, list(files.values())


def _unsent(subject: str, what: str, error: SourceError) -> Row:
    return unknown_row(subject, what, "done", f"{error.source}: {error.problem}")


def _may_be_sent(attempt: Attempt, name: str, data: bytes, redactor: Redactor) -> None:
    if redactor.found_in(data):
        raise SourceError(name, "expected no secret in it, got one; find out how it came there")
    sealed = of(attempt.entries, Sealed)[-1].digest
    if name == attempt.facts["notebook"] and sealed != digest_bytes(data):
        raise SourceError(name, f"expected it as sealed, {sealed}, got {digest_bytes(data)}")
    if not 0 < len(data) < MAX_ASSET:
        raise SourceError(name, f"expected 1 to {MAX_ASSET - 1} bytes, got {len(data)}")


def _release(forge: Releases, attempt: Attempt) -> Release:
    release, commit = str(attempt.facts["release"]), str(attempt.facts["commit"])
    tag = f"evidence-{release}"
    found = forge.release(tag)
    if found is None:
        text = f"Executed runbooks of the rollout of `{release}`. Not a release to install."
        found = forge.create_release(tag, commit, f"Evidence of {release}", text)
    if not found.prerelease:
        raise SourceError(f"forge: release {tag}", "expected a pre-release, got a release")
    return found


def _asset(forge: Releases, release: Release, assets: list[Asset], name: str, data: bytes) -> Asset:
    """The asset with this content; another one of the name (a later try's) is kept beside it."""
    digest, stem, suffix = digest_bytes(data), Path(name).stem, Path(name).suffix
    taken = {asset.name: asset for asset in assets}
    number = 1
    while (there := taken.get(name)) is not None:
        # A forge that tells no digest still tells the label, which ends in ours.
        known = there.digest or (there.label or "").rpartition(" ")[2]
        if (there.state, known, there.size) == ("uploaded", digest, len(data)):
            return there
        number += 1
        name = f"{stem}.{number}{suffix}"
    kind = KINDS.get(suffix, "application/octet-stream")
    return forge.upload(release, name, f"{name} {digest}", data, kind)


# --- the comments -------------------------------------------------------------------------------------


def _post(forge: GitHub, attempt: Attempt, files: list[Filed], redactor: Redactor) -> list[Row]:
    """The summary, where no later attempt of the stage is told in it, and a comment on the seal."""
    where, facts = f"issue {attempt.issue}", attempt.facts
    release, board = str(facts["release"]), comments_of(forge, attempt.issue)
    store = Store(attempt.site.store_path)
    stage = str(facts["stage"])
    known = store.readable(release, stage)[0]
    later = [one.number for one in known if store.opened(one).mode == "apply"][-1:]
    try:
        account = _account(attempt, files)
        texts = {seal_marker(account): sealed_text(account)}
        rows = []
        if later and later[0] > facts["attempt"]:
            kept = f"attempt {later[0]} stays, it is later"
            rows.append(check_row(where, "summary", kept, kept, ok=True))
        else:
            texts[marker(release)] = compose(account, other_stages(store, release, stage))
        for first, text in texts.items():
            body, found = redactor.clean_text(text), find(board, first)
            rows += [*found.rows(), *read_back(found, write(found, body).number, body)]
        return rows
    except SourceError as error:
        return [_unsent(where, "comment", error)]


def _account(attempt: Attempt, files: list[Filed]) -> Account:
    facts, made = attempt.facts, account_of(attempt.name, attempt.entries)
    broken = tuple(dict.fromkeys([*facts["broken"], *made.verdict.broken]))
    return replace(
        made,
        verdict=made.verdict.model_copy(update={"broken": broken}),
        head=attempt.sealed.digest,
        sealed=True,
        files=tuple(files),
    )


class Release(Wire):
    """A release of the repository; ``upload_url`` is a template that ends in ``{?name,label}``."""

    id: int
    tag_name: str
    prerelease: bool
    upload_url: str
    html_url: str


class Asset(Wire):
    """A file of a release. ``digest`` is ``sha256:HEX`` where the forge tells it."""

    id: int
    name: str
    label: str | None = None
    state: str
    size: int
    digest: str | None = None
    browser_download_url: str


class Releases(GitHub):
    """Reads and writes the releases of one repository."""

    def release(self, tag: str) -> Release | None:
        """The release of a tag; None when there is none."""
        source = f"forge: release {tag}"
        url = f"{self.base}/releases/tags/{quote(tag, safe='')}"
        got = self.get(source, url, absent=True)
        return None if got.status == 404 else wire.decode(source, got.body, Release)

    def create_release(self, tag: str, commit: str, name: str, body: str) -> Release:
        """A pre-release with a tag of its own at ``commit``; it never becomes the latest."""
        given = {
            "tag_name": tag,
            "target_commitish": commit,
            "name": name,
            "body": body,
            "prerelease": True,
            "make_latest": "false",
        }
        return self.written(f"forge: release {tag}", "POST", "/releases", given, Release)

    def assets(self, release: Release) -> list[Asset]:
        """All files of a release."""
        source = f"forge: assets of {release.tag_name}"
        assets = self.listed(source, f"/releases/{release.id}/assets", Asset)
        complete(source, len(assets), [asset.id for asset in assets])
        return assets

    def upload(self, release: Release, name: str, label: str, data: bytes, kind: str) -> Asset:
        """Add a file of media type ``kind`` to a release."""
        source = f"forge: asset {name}"
        url, ours = urlsplit(release.upload_url.partition("{")[0]), urlsplit(self._settings.url)
        # The token goes along, and github.com takes uploads at a host of their own.
        hosts = {ours.netloc, f"uploads.{ours.netloc.removeprefix('api.')}"}
        if url.scheme != ours.scheme or url.netloc not in hosts:
            expected = f"expected an upload address at {ours.netloc}, got {release.upload_url}"
            raise SourceError(source, expected)
        params = (("label", label), ("name", name))
        got = self._write(source, "POST", url.geturl(), data, params=params, kind=kind)
        asset = wire.decode(source, got, Asset)
        if (asset.name, asset.size, asset.state) != (name, len(data), "uploaded"):
            found = f"{asset.name} of {asset.size} bytes, {asset.state}"
            raise SourceError(source, f"expected {len(data)} bytes uploaded, got {found}")
        return asset
