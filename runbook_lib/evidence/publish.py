"""Publishing a sealed apply: its files attached to the release's evidence, its summary updated.

A recovery's outbox is sent first, sealed or not.

A notification outside item, guard and tape: whatever becomes of it, the verdict and its exit code
stand. Until all of it is done a note lies in the attempt's outbox, for ``runbook publish``.
Everything is looked up before it is written, so that trying again adds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote, urlsplit

from ..canonical import canonical, digest_bytes
from ..errors import LogDamaged, ParameterError, RunbookError, SourceError, StoreError
from ..files import keep_file
from ..findings import Findings
from ..outcomes import Outcome, Row, check_row
from ..playbook import RECOVERY
from ..site import Site, read_site
from ..sources import wire
from ..sources.github import GitHub, complete
from ..sources.http import Transport
from ..sources.local import recorded
from ..sources.quorum import anybody
from ..sources.redact import Redactor
from ..sources.scope import Scope, live_scope, read_clock
from ..sources.wire import Wire
from ..sources.words import read_words
from ..strict import project_path
from ..wording import utc
from . import comment, posts
from .events import Event, Opened, Sealed, of
from .incidents import IncidentFiled, Incidents
from .ledger import Ledger
from .log import Log, opened_by
from .posts import OnForge, Post
from .seal import FOLDER, Seal, facts_of, seals
from .store import Store


def send(folder: Path, site: Site, opened: Opened, transport: Transport | None = None) -> list[Row]:
    """Send all that is kept; a row for each thing done. Raises nothing for what cannot be sent."""
    rows, live = list[Row](), live_scope("publish", site, transport=transport)
    with live as scope, TemporaryDirectory() as texts:
        for path in posts.pending(folder):
            found = Findings()
            with found.reading("sent", "done", path.name, (RunbookError, OSError)):
                _send(found, path, scope, site, opened, Path(texts))
            if found.holds:
                posts.drop(folder, path.stem)
            rows += found.findings
    return rows or [check_row("outbox", "kept", "nothing", "nothing")]


def _send(
    found: Findings, path: Path, scope: Scope, site: Site, opened: Opened, texts: Path
) -> None:
    try:
        post = posts.read(path, Log(path.parent.with_name("log.jsonl")).events())
    except ValueError as error:
        found.judge(path.name, "sent", "what the log names", str(error), ok=False)
        return
    if post.until and (late := _too_late(scope, site, opened, post.until)):
        found.unknown(path.name, "sent", "while it may be followed", late)
        return
    one = posts.sending(post, scope, site, texts)
    found.findings += posts.send(one)
    if found.holds and isinstance(one, OnForge) and one.ours and post.incident:
        at = read_clock(site.clock)[0]
        filed = IncidentFiled(number=one.ours.number, by=opened.operator, at=at)
        Incidents(Store(site.store_path)).add(post.incident, filed)


def _too_late(scope: Scope, site: Site, opened: Opened, until: datetime) -> str:
    """Why an instruction must not be followed any more; empty while it may."""
    store, release = Store(site.store_path), opened.release
    if by := Ledger(store).undoing(release, opened.stage, opened.attempt):
        return f"undone by {by}"
    plan, issue = opened.params.get("approved_plan"), opened.issue
    if plan and (issue or site.words):
        heard = read_words(scope, site, issue=issue, release=release)
        count = anybody(site, "").count(heard, str(plan))
        if count.withdrawn:
            lost = sorted(word.account for word in count.withdrawn)
            return f"its approval was withdrawn by {', '.join(lost)}"
    return "" if read_clock(site.clock)[0] < until else f"its window ended {utc(until)}"


PUBLISHED = ("live", "rehearsal")


@dataclass
class Attempt(Findings):
    """A sealed apply as its folder holds it, and what comes of publishing it."""

    folder: Path
    opened: Opened
    entries: list[Event]
    seal: Seal
    sealed: Sealed
    site: Site


def at_sealing(folder: Path, transport: Transport | None = None) -> list[str]:
    """Publish what was just sealed, if it is a live apply with a release issue; what went wrong.

    Raises nothing: a failure of any kind leaves the note, for ``runbook publish``.
    """
    try:
        opened = opened_by(Log(folder / "log.jsonl").events(), folder.name)
        publishes = opened.source in PUBLISHED and opened.mode == "apply"
        if not (publishes and (opened.issue or posts.pending(folder))):
            return []
        open_rows = [row for row in publish(folder, transport) if row.outcome is not Outcome.PASS]
        problems = [f"{row.subject}: {row.what}: {row.observed}" for row in open_rows[:1]]
    except (Exception, KeyboardInterrupt) as error:  # the verdict stands, whatever becomes of this
        said = str(error) if isinstance(error, RunbookError | OSError) else repr(error)
        problems = ["it was interrupted" if isinstance(error, KeyboardInterrupt) else said]
    return [f"publish: {why}; the outbox keeps it: runbook publish {folder}" for why in problems]


def publish(folder: Path, transport: Transport | None = None) -> list[Row]:
    """Attach the files of a sealed apply and tell it in the issue; one row for each thing done.

    Raises ParameterError when there is nothing to publish, and StoreError.
    """
    events, kept = Log(folder / "log.jsonl").events(), list[Row]()
    opened = opened_by(events, folder.name)
    if opened.source not in PUBLISHED or opened.mode != "apply":
        got = f"{opened.source} {opened.mode}"
        raise ParameterError(
            f"{folder.name}: expected a live apply, got {got}; nothing else is published"
        )
    if opened.stage in RECOVERY or posts.pending(folder):  # what could not be sent, first
        kept = send(folder, _site_of(folder, opened), opened, transport)
    if kept and not (seals(folder) and opened.issue):
        return kept  # not sealed yet, or without a release issue
    attempt = _attempt(folder, opened, events)
    keep_file(folder, posts.NOTE, canonical({"issue": opened.issue}))
    with live_scope("publish", attempt.site, transport=transport) as scope:
        forge = Releases(scope, attempt.site.forge, "notify")
        _post(forge, attempt, _attach(forge, attempt))
    if attempt.holds:
        posts.drop(folder, Path(posts.NOTE).stem)
    return [*kept, *attempt.findings]


def _attempt(folder: Path, opened: Opened, entries: list[Event]) -> Attempt:
    if not opened.issue:
        raise ParameterError(
            f"{folder.name}: issue: expected the release issue the attempt was opened with, got none"
        )
    try:
        newest, sealed = seals(folder)[-1], of(entries, Sealed)[-1]
        head = facts_of(newest.payload)["log"]["head"]
    except (RunbookError, LookupError, ValueError, TypeError) as error:
        raise LogDamaged(
            f"{folder.name}: expected a sealed attempt, got: {error!r}; seal it first"
        ) from error
    if {head, sealed.hash} != {entries[-1].hash}:
        raise StoreError(
            f"{folder.name}: expected it as sealed, got more in its log; seal it again"
        )
    return Attempt(folder, opened, entries, newest, sealed, _site_of(folder, opened))


def _site_of(folder: Path, opened: Opened) -> Site:
    """The site file of an attempt that lies in its own store. Raises ParameterError.

    As it lies outside the store: whoever writes there must not say which command is run.
    """
    path = str(opened.params.get("site", ""))
    site = read_site(path)
    home = site.store_path / opened.name
    if project_path(path).resolve().is_relative_to(site.store_path.resolve()):
        raise ParameterError(f"{folder}: expected its site file outside the store, got {path}")
    if home.resolve() != folder.resolve():
        # A folder from elsewhere would say where the token goes.
        raise ParameterError(
            f"{folder}: expected an attempt in its own store, {home}, got another place"
        )
    return site


# --- files --------------------------------------------------------------------------------------------


def _attach(forge: Releases, attempt: Attempt) -> list[comment.Filed]:
    """The notebook and its attestations as assets of the release's evidence; where they are."""
    sealed, seal, opened = attempt.sealed, attempt.seal, attempt.opened
    attested = (f"{FOLDER}/{seal.number:04d}.{name}.json" for name in seal.envelopes)
    paths = {name: attempt.folder / name for name in (sealed.notebook, *attested)}
    found = {name: recorded(path) for name, path in paths.items() if path.is_file()}
    files = {name: comment.Filed(name, digest_bytes(data)) for name, data in found.items()}
    with attempt.reading("release", "done", "evidence"):
        release = forge.evidence(opened.release, opened.commit)
        assets = {asset.name: asset for asset in forge.assets(release)}
        for name, data in found.items():
            with attempt.reading("attached", "done", name):
                digest = files[name].digest
                if Redactor(attempt.site.secret_names()).found_in(data):
                    why = "expected no secret in it, got one; find out how it came there"
                    raise SourceError(name, why)
                if name == sealed.notebook and sealed.digest != digest:
                    raise SourceError(name, f"expected it as sealed, {sealed.digest}, got {digest}")
                # By its content: that of a later run is another.
                stem, suffix = Path(name).stem, f".{digest[7:19]}{Path(name).suffix}"
                named = f"{opened.stage}-{opened.attempt:04d}-{stem}{suffix}"
                asset = assets.get(named) or forge.upload(release, named, data)
                asset.require(digest, len(data))
                files[name] = comment.Filed(asset.name, digest, asset.browser_download_url)
                attempt.judge(name, "attached", digest, asset.name, ok=True)
    return list(files.values())


# --- the comments -------------------------------------------------------------------------------------


def _post(forge: GitHub, attempt: Attempt, files: list[comment.Filed]) -> None:
    """The summary, where no later attempt of the stage is told in it, and a comment on the seal."""
    opened = attempt.opened
    where, release, stage = f"issue {opened.issue}", opened.release, opened.stage
    store = Store(attempt.site.store_path)
    known = store.readable(release, stage)[0]
    later = [one.number for one in known if one.opened.mode == "apply"][-1:]
    with attempt.reading("comment", "done", where):
        made = comment.account_of(opened.name, attempt.entries)
        broken = tuple(dict.fromkeys([*attempt.sealed.broken, *made.verdict.broken]))
        verdict, head = made.verdict.model_copy(update={"broken": broken}), attempt.seal.digest
        account = replace(made, verdict=verdict, head=head, sealed=True, files=tuple(files))
        texts = [comment.sealed_text(account)]
        if later and later[0] > opened.attempt:
            kept = f"attempt {later[0]} stays, it is later"
            attempt.judge(where, "summary", kept, kept)
        else:
            others = comment.other_stages(store, release, stage)
            texts.append(comment.compose(account, others))
        for text in texts:
            body = Redactor(attempt.site.secret_names()).clean_text(text)
            post = Post(step="comment", subject=where, text=body, issue=opened.issue)
            attempt.findings += posts.send(OnForge(post, forge))


class Release(Wire):
    """A release of the repository; ``upload_url`` is a template that ends in ``{?name,label}``."""

    id: int
    tag_name: str
    prerelease: bool
    upload_url: str


class Asset(Wire):
    """A file of a release. ``digest`` is ``sha256:HEX`` where the forge tells it."""

    id: int
    name: str
    state: str
    size: int
    digest: str | None = None
    browser_download_url: str

    def require(self, digest: str, size: int) -> None:
        """Raises SourceError unless it is there, whole, with this content."""
        if (self.state, self.size, self.digest or digest) != ("uploaded", size, digest):
            got = f"{self.size} bytes, {self.digest or 'no digest'}, {self.state}; delete it there"
            raise SourceError(
                f"forge: asset {self.name}", f"expected {size} bytes, {digest}, got {got}"
            )


class Releases(GitHub):
    """Reads and writes the releases of one repository."""

    def evidence(self, release: str, commit: str) -> Release:
        """The pre-release that holds a release's evidence, made where there is none."""
        tag = f"evidence-{release}"
        found = self.release(tag) or self.create_release(
            tag,
            commit,
            f"Evidence of {release}",
            f"Executed runbooks of the rollout of `{release}`. Not a release to install.",
        )
        if not found.prerelease:
            raise SourceError(f"forge: release {tag}", "expected a pre-release, got a release")
        return found

    def release(self, tag: str) -> Release | None:
        """The release of a tag; None when there is none."""
        source = f"forge: release {tag}"
        return self.find(source, f"/releases/tags/{quote(tag, safe='')}", Release)

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

    def upload(self, release: Release, name: str, data: bytes) -> Asset:
        """Add a file to a release."""
        source = f"forge: asset {name}"
        url, ours = urlsplit(release.upload_url.partition("{")[0]), urlsplit(self._settings.url)
        # The token goes along, and github.com takes uploads at a host of their own.
        hosts = {ours.netloc, f"uploads.{ours.netloc.removeprefix('api.')}"}
        if url.scheme != ours.scheme or url.netloc not in hosts:
            expected = f"expected an upload address at {ours.netloc}, got {release.upload_url}"
            raise SourceError(source, expected)
        params, kind = (("name", name),), "application/json"
        got = self.ask(source, "POST", url.geturl(), data, params=params, kind=kind)
        asset = wire.decode(source, got.content, Asset)
        if asset.name != name:
            raise SourceError(source, f"expected it under that name, got {asset.name}")
        return asset
