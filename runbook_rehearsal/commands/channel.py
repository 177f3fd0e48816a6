"""To people: the board that validators read, the freeze of proposals, the pager."""

from __future__ import annotations

from pathlib import Path

from .site import Site, fail, show


def announce(site: Site, release: str, stage: str, start: str, end: str, text: str) -> None:
    """Put a window on the board that validators read."""
    if site.is_on("announce-fails"):
        fail("channel: 503 Service Unavailable", 22)
    entry = {"release": release, "stage": stage, "start": start, "end": end, "at": site.now()}
    entry["text"] = Path(text).read_text()
    if not site.is_on("announce-lost"):
        site.board("announced", lambda board: [*board, entry], [])


def announce_halt(site: Site, release: str, stage: str, reference: str, text: str) -> None:
    """Put the halt of a rollout on the same board."""
    if site.is_on("halt-announce-fails"):
        fail("channel: 503 Service Unavailable", 22)
    entry = {"kind": "halt", "at": site.now(), "release": release, "stage": stage}
    entry |= {"reference": reference, "text": Path(text).read_text()}
    if not site.is_on("halt-announce-lost"):
        site.board("announced", lambda board: [*board, entry], [])


def announced(site: Site) -> None:
    show({"announced": site.board("announced", lambda board: board, [])})


def freeze(site: Site, release: str) -> None:
    if site.is_on("freeze-fails"):
        fail("governance: multisig refused", 4)
    if not site.is_on("freeze-lost"):
        site.board("frozen", lambda since: since or site.now(), "")


def unfreeze(site: Site, release: str) -> None:
    site.board("frozen", lambda since: "", "")


def proposals(site: Site) -> None:
    if site.is_on("proposals-unreadable"):
        fail("explorer: 502 Bad Gateway", 22)
    since = site.board("frozen", lambda known: known, "")
    found = [{"id": "rpp-41", "created_at": "2026-01-01T00:00:00+00:00"}]
    if since and site.is_on("proposal-slips-in"):
        found.append({"id": "rpp-42", "created_at": site.now()})
    show({"frozen": bool(since), "since": since or None, "open": found})


def notify(site: Site, role: str, subject: str, text: str) -> None:
    """Page somebody."""
    if site.is_on("notify-down"):
        fail("pager: 503 Service Unavailable", 22)
    told = Path(text).read_text()
    show(site.ask("/notify", {"role": role, "subject": subject, "text": told}))
