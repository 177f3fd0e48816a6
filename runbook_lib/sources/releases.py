"""GitHub's releases and their assets."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from ..errors import SourceError
from . import wire
from .github import GitHub, complete
from .wire import Wire


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
        return self._written(f"forge: release {tag}", "POST", "/releases", given, Release)

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
