"""A cluster of two nodes and files of our own, staged for a rollback."""

import base64
import json
import shutil
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runbook_lib.canonical import digest_bytes as sha
from runbook_lib.checks.rollback import rollback_assets
from runbook_lib.context import Context
from runbook_lib.errors import Answers, SourceError
from runbook_lib.evidence.store import Store
from runbook_lib.outcomes import CheckResult, Outcome
from runbook_lib.plan import NodeState
from runbook_lib.sources.node import Status

from ..conftest import named, not_passed
from ..events import event

ITEM = "preflight.rollback-assets"
PREVIOUS, CANDIDATE = b"the previous build", b"the candidate"
CHUNKS = {"chunk-0": b"zero" * 100, "chunk-1": b"one" * 100}
TIP = 1000
PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


class Fleet:
    """Nodes that tell their heights."""

    def __init__(self, heights: dict[str, int | None]) -> None:
        self.heights = heights

    def status(self) -> Answers[str, Status]:
        return Answers(self._status, self.heights)

    def _status(self, name: str) -> Status:
        if (height := self.heights[name]) is None:
            raise SourceError(name, "expected an answer, got none")
        return Status.model_construct(height=height)


class Staging:
    """A site, what is staged for it, and what its nodes are known to have been."""

    def __init__(self, practice: Any) -> None:
        self.practice, self.root = practice, practice.root
        self.key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
        self.heights: dict[str, int | None] = {"dev-1": TIP, "dev-2": TIP}
        self.rollback: dict[str, Any] = {
            "release": str(self.root / "staged" / "release"),
            "snapshots": [str(self.root / "snapshots")],
            "keys": [{"key": named(self.key)}],
        }
        self.artifact = self.root / "artifacts" / "rpp-node"
        for folder in ("staged", "artifacts", "probe", "snapshots"):
            (self.root / folder).mkdir()
        self.artifact.write_bytes(CANDIDATE)
        self.release = self.root / "staged" / "release"
        self.release.write_bytes(PREVIOUS)
        self.bundle = self.back_up("one")
        self.good("dev-1", "dev-2")

    # --- the world ------------------------------------------------------------------------------

    def good(self, *nodes: str, build: bytes = PREVIOUS) -> None:
        """Nodes taken over as they are."""
        log = Store(self.root / "store").adopt(event("adopting")).log
        state = NodeState(
            gates={}, channel="development", binary=sha(b"binary of " + build), config=sha(b""),
            artifact=sha(build) if build else "",
        )  # fmt: skip
        for node in nodes:
            at = self.practice.now()
            log.append(event("state", item="adopt", node=node, state=state, at=at))

    def back_up(
        self, name: str, manifest: dict[str, Any] | None = None, age_h: float = 1.0, **about: Any
    ) -> Path:
        bundle: Path = self.root / "snapshots" / name
        (bundle / "manifest").mkdir(parents=True)
        (bundle / "chunks").mkdir()
        for chunk, data in CHUNKS.items():
            (bundle / "chunks" / chunk).write_bytes(data)
        segments = [
            {"segment_name": chunk, "size_bytes": len(data), "checksum": sha(data)[7:]}
            for chunk, data in CHUNKS.items()
        ]
        text = json.dumps({"version": 1, "segments": segments, **(manifest or {})}).encode()
        self.sign(bundle / "manifest" / "chunks.json", text)
        created = int(self.practice.now().timestamp() - age_h * 3600)
        said = {"version": 1, "chain_id": "rpp-practice", "height": TIP - 10, "created_at": created}
        self.sign(
            bundle / "bundle.json", json.dumps({**said, "manifest": sha(text), **about}).encode()
        )
        return bundle

    def sign(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        signature = base64.b64encode(self.key.sign(content)).decode()
        path.with_name(f"{path.name}.sig").write_text(f"1:{signature}")

    def probe(self, node: str, **changes: Any) -> None:
        """What a node can fetch: all there is, unless said otherwise."""
        files = [self.release, self.artifact]
        files += (self.root / "snapshots").glob("*/manifest/chunks.json")
        digests = [sha(path.read_bytes()) for path in files if path.is_file()]
        answer = {"node": node, "fetchable": digests, "free_bytes": 10**9, **changes}
        (self.root / "probe" / node).write_text(json.dumps(answer))

    # --- the check ------------------------------------------------------------------------------

    def context(self) -> Context:
        for node in ("dev-1", "dev-2"):
            if not (self.root / "probe" / node).exists():
                self.probe(node)
        cluster = {
            "chain_id": "rpp-practice",
            "nodes": [{"name": name, "url": f"http://127.0.0.1:{9 + n}"} for n, name in enumerate(self.heights)],
            **({"rollback": self.rollback} if self.rollback else {}),
        }  # fmt: skip
        argv = ["cat", str(self.root / "probe" / "{node}")]
        self.practice.write_site(
            clusters={"development": cluster},
            commands={"assets": {"argv": argv, "timeout_s": 10}},
            artifacts={"node": str(self.artifact)},
        )
        context: Context = self.practice.open().context(ITEM, 1)
        context.__dict__["fleet"] = Fleet(self.heights)
        return context

    def judge(self) -> CheckResult:
        return rollback_assets(self.context())

    def wrong(self) -> list[tuple[Any, ...]]:
        return not_passed(self.judge().rows, "subject", "what", "observed", "outcome")

    def never(self) -> list[str]:
        """What of the rows that are not PASS no waiver can cover."""
        rows = self.judge().rows
        assert all(row.waivable for row in rows if row.outcome is PASS)
        return [row.what.partition(" (")[0] for row in rows if not row.waivable]


BUILD = "artifact of the last good state of dev-1, dev-2"
ONE = "snapshots/one"


def again(staging: Staging, **changes: Any) -> None:
    """The one bundle, written otherwise."""
    shutil.rmtree(staging.bundle)
    staging.bundle = staging.back_up("one", **changes)
