"""One path followed through the layers of an image: its file after the last of them.

Whiteouts are respected. Links on the way are refused, and so are entries that a runtime could write
through a link onto the path: what they lead to is no proof.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..errors import SourceError
from .tarfiles import DIRECTORY, REGULAR, SYMLINK, Member

MAX_NOTED = 16 * 1024 * 1024
OPAQUE, WHITEOUT = ".wh..wh..opq", ".wh."


@dataclass
class Search:
    """Follows one path through the layers, lowest first: its digest after the last one."""

    target: str
    digest: str = ""
    problem: str = ""
    _links: set[str] = field(default_factory=set)
    _near: set[str] = field(default_factory=set)
    _noted: int = 0

    def __post_init__(self) -> None:
        self.target = "/".join(part for part in self.target.split("/") if part not in ("", "."))
        parts = self.target.split("/")
        self._parts = set(parts)
        self._above = {"/".join(parts[:depth]) for depth in range(1, len(parts))}
        folders = ["", *(f"{above}/" for above in self._above)]
        self._hides = {folder + OPAQUE for folder in folders} | {
            f"{path.rpartition('/')[0]}/{WHITEOUT}{path.rpartition('/')[2]}".lstrip("/")
            for path in (*self._above, self.target)
        }

    def layer(self, entries: Iterable[Member]) -> None:
        """What a layer does to the path: a whiteout hides what lies below it, never its own."""
        found, hidden = "", False
        for entry in entries:
            if entry.kind == SYMLINK:
                self._note(self._links, entry.name)
            if entry.name == self.target:
                if found:
                    self.problem = self.problem or "stands twice in one layer"
                found = self._file(entry)
            elif entry.name in self._hides:
                hidden = True
            elif entry.name in self._above:
                if entry.kind != DIRECTORY:
                    self.problem = self.problem or "lies below a link or file"
            elif self._could_be(entry.name):
                self._note(self._near, entry.name)
        self.digest = found or ("" if hidden else self.digest)

    def _file(self, entry: Member) -> str:
        if entry.kind != REGULAR or entry.sparse:
            self.problem = self.problem or "is a link or a special file"
            return ""
        hashed = hashlib.sha256()
        for data in entry.content():
            hashed.update(data)
        return "sha256:" + hashed.hexdigest()

    def _could_be(self, name: str) -> bool:
        """Whether an entry, written through a link, could be a part of the path or hide one."""
        last = name.rpartition("/")[2]
        return "/" in name and (last == OPAQUE or last.removeprefix(WHITEOUT) in self._parts)

    def _note(self, notes: set[str], name: str) -> None:
        self._noted += 0 if name in notes else len(name) + 64
        if self._noted > MAX_NOTED:
            raise SourceError("image", f"expected at most {MAX_NOTED} bytes of links, got more")
        notes.add(name)

    def result(self) -> tuple[str, str]:
        """The digest of the path's file, or "" and why there is none that is proven."""
        for name in self._near:
            parts = name.split("/")
            above = {"/".join(parts[:depth]) for depth in range(1, len(parts))}
            if above & self._links:
                return "", f"{self.target}: expected a plain path, got an entry through a link"
        if self.problem:
            return "", f"{self.target}: expected a plain file, got one that {self.problem}"
        if not self.digest:
            return "", f"{self.target}: expected it in the image, got none"
        return self.digest, ""
