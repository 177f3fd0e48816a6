"""preflight.rollback-assets, fault by fault, on a cluster of two nodes and files of our own."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runbook_lib.changes import manifests
from runbook_lib.changes.state import NodeState
from runbook_lib.checks import rollback
from runbook_lib.checks.rollback import rollback_assets
from runbook_lib.context import Context
from runbook_lib.errors import SourceError
from runbook_lib.evidence.store import Store
from runbook_lib.outcomes import CheckResult, Outcome
from runbook_lib.rehearsal.assets import image
from runbook_lib.sources.node import Status
from runbook_lib.sources.tape import ReplayTape

ITEM = "preflight.rollback-assets"
PREVIOUS, CANDIDATE = b"the previous build", b"the candidate"
CHUNKS = {"chunk-0": b"zero" * 100, "chunk-1": b"one" * 100}
TIP = 1000
PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Fleet:
    """Nodes that tell their heights."""

    def __init__(self, heights: dict[str, int | None]) -> None:
        self.heights = heights

    def status(self) -> dict[str, Status | SourceError]:
        return {
            name: SourceError(name, "expected an answer, got none")
            if height is None
            else Status.model_construct(height=height)
            for name, height in self.heights.items()
        }


class Staging:
    """A site, what is staged for it, and what its nodes are known to have been."""

    def __init__(self, practice: Any) -> None:
        self.practice, self.root = practice, practice.root
        self.key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
        self.heights: dict[str, int | None] = {"dev-1": TIP, "dev-2": TIP}
        public = base64.b64encode(self.key.public_key().public_bytes_raw()).decode()
        self.rollback: dict[str, Any] = {
            "release": str(self.root / "staged" / "release"),
            "snapshots": [str(self.root / "snapshots")],
            "keys": [{"key": f"ed25519:{public}"}],
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
        record = (
            Store(self.root / "store")
            .adopt("development", {"cluster": "development", "mode": "adopt", "source": "live"})
            .record
        )
        state = NodeState(gates={}, channel="development", binary=sha(build), config=sha(b""))
        for node in nodes:
            at = self.practice.now().isoformat()
            body = {"item": "adopt", "node": node, "state": state.model_dump(mode="json"), "at": at}
            record.append("state", body)

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
        context: Context = self.practice.open()._tries.context(ITEM, 1)
        context.__dict__["fleet"] = Fleet(self.heights)
        return context

    def judge(self) -> CheckResult:
        return rollback_assets(self.context())

    def wrong(self) -> list[tuple[str, str, object, Outcome]]:
        """The rows that are not PASS: subject, what, observed, outcome."""
        return [
            (row.subject, row.what, row.observed, row.outcome)
            for row in self.judge().rows
            if row.outcome is not PASS
        ]

    def never(self) -> list[str]:
        """What of the rows that are not PASS no waiver can cover."""
        rows = self.judge().rows
        assert all(row.waivable for row in rows if row.outcome is PASS)
        return [row.what.partition(" (")[0] for row in rows if not row.waivable]


@pytest.fixture
def staging(practice: Any) -> Staging:
    return Staging(practice)


BUILD = "build of the last good state (file)"
ONE = "snapshots/one"


def test_everything_there_passes_and_is_replayed_from_its_tape(staging: Staging) -> None:
    """With no file left to read, the same rows again."""
    context = staging.context()
    live = rollback_assets(context)
    for path in (staging.release, staging.artifact, *staging.bundle.rglob("*.*")):
        path.unlink()
    scope = context.scope
    replay = replace(
        context,
        scope=type(scope)(
            ReplayTape(context.folder / "tape", {ITEM: 1}),
            scope.outside,
            ITEM,
            1,
            clock=context.site.clock,
            aliases=scope._aliases,
        ),
    )
    replay.__dict__["fleet"] = Fleet(staging.heights)

    assert (live.outcome, live.reason) == (
        PASS,
        "1 build and 1 snapshot staged whole, signed, and fetchable by 2 nodes",
    )
    assert live.data["releases"] == [sha(PREVIOUS)]
    assert rollback_assets(replay).rows == live.rows


# --- the previous release ---------------------------------------------------------------------------


def test_an_image_of_the_good_build_passes(staging: Staging) -> None:
    """By the binary in its layers."""
    staging.release.write_bytes(image(PREVIOUS))

    assert staging.wrong() == []


def test_a_binary_elsewhere_in_the_image_proves_nothing(staging: Staging) -> None:
    """The site must say where it lies."""
    staging.release.write_bytes(image(PREVIOUS))
    staging.rollback["binary"] = "opt/rpp-node"

    assert staging.wrong() == [
        (
            "release",
            "build of the last good state (OCI layout)",
            "opt/rpp-node: expected it in the image, got none",
            INCONCLUSIVE,
        )
    ]


@pytest.mark.parametrize("wrap", [bytes, image])
def test_the_candidate_is_not_what_one_falls_back_on(staging: Staging, wrap: Any) -> None:
    """Neither as a file nor inside an image."""
    staging.release.write_bytes(wrap(CANDIDATE))
    [(subject, what, observed, outcome)] = staging.wrong()

    assert (subject, what.partition(" (")[0], outcome) == ("release", BUILD[:28], FAIL)
    assert observed == f"{sha(CANDIDATE)}: the candidate's own"


@pytest.mark.parametrize("wrap", [bytes, image])
def test_another_build_is_refused(staging: Staging, wrap: Any) -> None:
    """Its digest is named."""
    staging.release.write_bytes(wrap(b"another"))
    [(_, _, observed, outcome)] = staging.wrong()

    assert (observed, outcome) == (sha(b"another"), FAIL)


def test_no_archive_is_no_proof(staging: Staging) -> None:
    """Nor can anybody fetch what is not there."""
    staging.release.unlink()
    what = "build of the last good state of dev-1, dev-2"
    gone = "expected a readable file or OCI layout, got: No such file or directory"

    assert staging.wrong() == [
        ("release", what, f"release: {gone}", INCONCLUSIVE),
        ("dev-1", "fetchable", "no asset", INCONCLUSIVE),
        ("dev-2", "fetchable", "no asset", INCONCLUSIVE),
    ]


def test_without_a_candidate_nothing_is_told_from_it(staging: Staging) -> None:
    """ "Never the candidate's" needs the candidate."""
    staging.context()
    staging.artifact.unlink()
    first = staging.wrong()[0]

    assert first[1:] == (
        "digest of the candidate",
        "expected a readable file, got: No such file or directory",
        INCONCLUSIVE,
    )


def test_nodes_of_no_good_state_must_be_adopted(staging: Staging, practice: Any) -> None:
    """Where to go back to is nobody's guess."""
    staging.heights["dev-3"] = TIP
    staging.probe("dev-3")

    assert staging.wrong() == [
        (
            "dev-3",
            "last good state",
            "none; take development over with `runbook adopt`",
            INCONCLUSIVE,
        ),
        ("dev-3", "fetchable", "no asset", INCONCLUSIVE),
    ]


def test_a_node_whose_good_build_is_the_candidates_needs_that(staging: Staging) -> None:
    """It has nothing older; the artifact is its asset, and must be fetchable as well."""
    staging.good("dev-2", build=CANDIDATE)
    assert staging.wrong() == []

    staging.probe("dev-2", fetchable=[sha(PREVIOUS), sha((staging.bundle / "manifest/chunks.json").read_bytes())])  # fmt: skip
    assert staging.wrong() == [("dev-2", "fetchable", "not rpp-node", FAIL)]


def test_each_good_build_needs_an_archive_of_its_own(staging: Staging) -> None:
    """One for all is another build for some."""
    staging.good("dev-2", build=b"a third build")
    [(_, what, observed, outcome)] = staging.wrong()
    assert (what, observed, outcome) == (BUILD, sha(PREVIOUS), FAIL)

    staging.rollback["release"] = str(staging.root / "staged" / "{digest}")
    for build in (PREVIOUS, b"a third build"):
        (staging.root / "staged" / sha(build)[7:]).write_bytes(build)
    for node, build in (("dev-1", PREVIOUS), ("dev-2", b"a third build")):
        manifest = sha((staging.bundle / "manifest" / "chunks.json").read_bytes())
        staging.probe(node, fetchable=[sha(build), manifest])
    assert staging.wrong() == []


# --- snapshots --------------------------------------------------------------------------------------


def again(staging: Staging, **changes: Any) -> None:
    """The one bundle, written otherwise."""
    for path in sorted(staging.bundle.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    staging.bundle.rmdir()
    staging.bundle = staging.back_up("one", **changes)


SEGMENT = {"segment_name": "chunk-0", "size_bytes": 400}
BLAKE = hashlib.blake2b(CHUNKS["chunk-0"], digest_size=32).hexdigest()


@pytest.mark.parametrize(
    "manifest",
    [
        {"checksum_algorithm": "blake2b", "segments": [{**SEGMENT, "checksum": BLAKE}]},
        {"segments": [{**SEGMENT, "sha256": sha(CHUNKS["chunk-0"])[7:].upper()}]},
    ],
)
def test_chunks_are_checked_by_either_algorithm(staging: Staging, manifest: Any) -> None:
    """And by the older key."""
    again(staging, manifest=manifest)
    assert staging.wrong() == []

    (staging.bundle / "chunks" / "chunk-0").write_bytes(b"ZERO" * 100)
    [(_, what, _, outcome)] = staging.wrong()
    assert (what, outcome) == ("chunk chunk-0", FAIL)


AHEAD = "expected an instant of the past, got one 2.0 h ahead"
SAID = {
    "another chain": ({"chain_id": "rpp-mainnet"}, ("chain", "rpp-mainnet", FAIL)),
    "too old": ({"age_h": 30.0}, ("age", 30.0, FAIL)),
    "of the future": ({"age_h": -2.0}, ("age", AHEAD, INCONCLUSIVE)),
    "ahead of the chain": ({"height": TIP + 1}, ("behind the chain", -1, FAIL)),
}


@pytest.mark.parametrize(("changes", "wrong"), SAID.values(), ids=SAID)
def test_what_a_bundle_says_is_held_against_it(staging: Staging, changes: Any, wrong: Any) -> None:
    """Chain, age and height, each in a row of its own."""
    again(staging, **changes)
    [(subject, *row)] = staging.wrong()

    assert (subject, tuple(row)) == (ONE, wrong)


def test_a_bundle_far_behind_the_chain_is_refused(staging: Staging) -> None:
    """Counted from the highest node."""
    staging.heights["dev-2"] = TIP + 20_000

    assert staging.wrong() == [(ONE, "behind the chain", 20_010, FAIL)]


def test_an_unknown_height_proves_no_lag(staging: Staging) -> None:
    """The node that is silent may be the highest."""
    staging.heights["dev-2"] = None

    assert staging.wrong() == [
        ("dev-2", "height", "expected an answer, got none", INCONCLUSIVE),
        (ONE, "behind the chain", "the chain's height is unknown", INCONCLUSIVE),
    ]


@pytest.mark.parametrize(
    ("height", "wrong"),
    [(990, []), (991, [(ONE, "pruning checkpoint", 991, FAIL)])],
)
def test_the_checkpoint_must_agree(staging: Staging, height: int, wrong: object) -> None:
    """The chain's own word on the height, where it is there."""
    path = staging.bundle / f"snapshot-{height}.json"
    path.write_text(json.dumps({"plan": {}, "metadata": {"height": height}}))

    assert staging.wrong() == wrong


def test_pruning_proofs_must_be_whole_and_of_the_past(staging: Staging) -> None:
    """Where the bundle has them: what the chain's restore would refuse half way is refused here."""
    for folder in ("manifests", "proofs"):
        (staging.bundle / folder).mkdir()

    def prune(height: int, proof: bytes, checksum: str) -> None:
        said = {"block_height": height, "proof_file": f"{height}.bin", "proof_checksum": checksum}
        (staging.bundle / "manifests" / f"{height:020d}.json").write_text(json.dumps(said))
        (staging.bundle / "proofs" / f"{height}.bin").write_bytes(proof)

    prune(500, b"proof", sha(b"proof")[7:])
    assert staging.wrong() == []

    prune(501, b"proof", sha(b"other")[7:])
    prune(TIP - 9, b"", sha(b"")[7:])
    (staging.bundle / "proofs" / "500.bin").unlink()
    missing = "expected a readable file, got: No such file or directory"
    assert staging.wrong() == [
        (ONE, "newest pruning proof", TIP - 9, FAIL),
        (ONE, "pruning proof 500.bin", missing, INCONCLUSIVE),
        (ONE, "pruning proof 501.bin", sha(b"proof"), FAIL),
    ]
    (staging.bundle / "manifests" / "notes.txt").touch()
    problem = "expected a height of 20 digits, got another name"
    assert staging.wrong() == [(ONE, "pruning data (manifests/notes.txt)", problem, INCONCLUSIVE)]


def test_a_bundle_bound_to_another_manifest_is_refused(staging: Staging) -> None:
    """A young bundle.json beside an old snapshot."""
    manifest = staging.bundle / "manifest" / "chunks.json"
    staging.sign(manifest, manifest.read_bytes() + b"\n")

    assert [row[1:] for row in staging.wrong()] == [
        ("manifest named by bundle.json", sha(manifest.read_bytes()), FAIL)
    ]


@pytest.mark.parametrize("name", ["manifest/chunks.json", "bundle.json"])
def test_signatures_are_needed_and_must_be_right(staging: Staging, name: str) -> None:
    """Of the manifest, and of what tells its chain: wrong is FAIL, none and unreadable is not."""
    path = staging.bundle / f"{name}.sig"
    path.write_text(Ed25519PrivateKey.from_private_bytes(b"x" * 32).sign(b"").hex())
    forged = "the signature is no listed key's over this content"
    assert staging.wrong() == [(ONE, f"signature of {name}", forged, FAIL)]

    path.write_text("not a signature")
    [(_, _, _, outcome)] = staging.wrong()
    assert outcome is INCONCLUSIVE

    path.unlink()
    missing = "expected a readable file, got: No such file or directory"
    assert staging.wrong() == [(ONE, f"signature of {name}", missing, INCONCLUSIVE)]


def test_damaged_chunks_are_named(staging: Staging) -> None:
    """Missing, short, or of other content."""
    chunks = staging.bundle / "chunks"
    (chunks / "chunk-0").unlink()
    (chunks / "chunk-1").write_bytes(b"one" * 99)
    assert staging.wrong() == [
        (ONE, "chunk chunk-0", "missing", FAIL),
        (ONE, "chunk chunk-1", 297, FAIL),
    ]

    (chunks / "chunk-0").mkdir()
    (chunks / "chunk-1").write_bytes(b"eno" * 100)
    assert staging.wrong() == [
        (ONE, "chunk chunk-0", "expected a readable file, got: not a regular file", INCONCLUSIVE),
        (ONE, "chunk chunk-1", sha(b"eno" * 100), FAIL),
    ]


def test_many_damaged_chunks_are_counted(staging: Staging) -> None:
    """The card stays readable, and the rest still blocks."""
    segments = [
        {"segment_name": f"c{number}", "size_bytes": 1, "checksum": "0" * 64}
        for number in range(50)
    ]
    again(staging, manifest={"segments": segments})
    wrong = staging.wrong()

    assert len(wrong) == manifests.SHOWN + 1
    assert wrong[-1] == (ONE, "further chunks", "30 are not", FAIL)


def test_a_bundle_that_says_nothing_blocks(staging: Staging) -> None:
    """It could be the newest."""
    staging.back_up("two")
    (staging.bundle / "bundle.json").unlink()
    [(subject, what, _, outcome)] = staging.wrong()

    assert (subject, what, outcome) == (
        ONE,
        "chain, height and instant (bundle.json)",
        INCONCLUSIVE,
    )


def test_no_bundles_and_too_few(staging: Staging) -> None:
    """None is no data; fewer than the site wants is a refusal."""
    staging.rollback["at_least"] = 2
    assert staging.wrong() == [("snapshots", "snapshot bundles", 1, FAIL)]

    staging.rollback["snapshots"] = [str(staging.root / "elsewhere")]
    assert staging.wrong()[0] == ("elsewhere", "snapshot bundles", "none", INCONCLUSIVE)


def test_only_the_newest_are_judged_as_many_as_wanted(staging: Staging) -> None:
    """An old one may rot; when two are wanted it may not."""
    staging.back_up("two", height=TIP - 1)
    (staging.bundle / "chunks" / "chunk-0").unlink()
    assert staging.wrong() == []

    staging.rollback["at_least"] = 2
    assert staging.wrong() == [(ONE, "chunk chunk-0", "missing", FAIL)]


# --- the nodes --------------------------------------------------------------------------------------


def test_every_node_must_be_able_to_fetch_everything(staging: Staging) -> None:
    """What it lacks is named."""
    staging.probe("dev-1", fetchable=[])
    staging.probe("dev-2", fetchable=[sha(PREVIOUS)])

    assert staging.wrong() == [
        ("dev-1", "fetchable", f"not release, {ONE}", FAIL),
        ("dev-2", "fetchable", f"not {ONE}", FAIL),
    ]


def test_a_restore_needs_room(staging: Staging) -> None:
    """For the build and the largest snapshot, to the byte."""
    room = len(PREVIOUS) + sum(map(len, CHUNKS.values()))
    staging.probe("dev-1", free_bytes=room)
    staging.probe("dev-2", free_bytes=room - 1)

    assert staging.wrong() == [("dev-2", "free space", room - 1, FAIL)]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("", "expected JSON, got: EOF while parsing a value at line 1 column 0"),
        ('{"node": "dev-1", "fetchable": [], "free_bytes": 1}', "expected 'dev-2', got 'dev-1'"),
        ('{"node": "dev-2", "fetchable": [], "free_bytes": -1}', "free_bytes: expected greater than or equal to 0, got -1"),
        ('{"node": "dev-2", "fetchable": ["x"], "free_bytes": 1}', "fetchable.0: expected text matching '^sha256:[0-9a-f]{64}$', got 'x'"),
        ('{"node": "dev-2", "free_bytes": 1}', "fetchable: expected a value, got none"),
    ],
)  # fmt: skip
def test_an_answer_of_another_shape_proves_nothing(
    staging: Staging, answer: str, problem: str
) -> None:
    """Nor does another node's."""
    (staging.root / "probe" / "dev-2").write_text(answer)

    assert staging.wrong() == [("dev-2", "fetchable", problem, INCONCLUSIVE)]


def test_a_site_without_the_section_is_told_which_key_to_set(staging: Staging) -> None:
    """Nothing is assumed to be staged."""
    staging.rollback = {}

    assert staging.wrong() == [
        (
            "rollback assets",
            "settings",
            "none; set clusters.development.rollback",
            INCONCLUSIVE,
        )
    ]
    assert rollback.expected(staging.context())[1] == (
        "clusters.development.rollback in the site file: missing"
    )


def test_what_is_expected_names_the_limits(staging: Staging) -> None:
    """Before any data is read."""
    assert rollback.expected(staging.context()) == (
        "previous release and snapshots are staged, whole, signed and fetchable by every node",
        "1 of at most 24 h and 17,280 blocks",
    )


# --- what no waiver covers --------------------------------------------------------------------------


def bind_another(staging: Staging) -> None:
    """A manifest that is signed, and not the one that bundle.json names."""
    path = staging.bundle / "manifest" / "chunks.json"
    staging.sign(path, path.read_bytes() + b"\n")


@pytest.mark.parametrize(
    ("spoil", "never"),
    [
        (lambda s: s.release.write_bytes(CANDIDATE), [BUILD[:28]]),
        (lambda s: s.release.write_bytes(b"another"), [BUILD[:28]]),
        (lambda s: s.release.write_bytes(image(b"another")), [BUILD[:28]]),
        (
            lambda s: s.release.write_bytes(image(PREVIOUS).replace(b"amd64", b"arm64")),
            [f"{BUILD[:28]} of dev-1, dev-2"],
        ),
        (lambda s: (s.bundle / "bundle.json.sig").unlink(), ["signature of bundle.json"]),
        (
            lambda s: (s.bundle / "manifest" / "chunks.json.sig").write_text("1:" + "A" * 88),
            ["signature of manifest/chunks.json"],
        ),
        (bind_another, ["manifest named by bundle.json"]),
        (
            lambda s: (s.bundle / "chunks" / "chunk-1").write_bytes(b"eno" * 100),
            ["chunk chunk-1"],
        ),
        (lambda s: (s.bundle / "chunks" / "chunk-1").write_bytes(b"one"), ["chunk chunk-1"]),
    ],
)  # fmt: skip
def test_a_wrong_signature_or_digest_is_never_waivable(
    staging: Staging, spoil: Any, never: list[str]
) -> None:
    """Whatever else of the way back somebody accepts to be without."""
    staging.context()
    spoil(staging)

    assert staging.never() == never


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s.release.unlink(),
        lambda s: (s.bundle / "chunks" / "chunk-0").unlink(),
        lambda s: s.heights.update({"dev-2": None}),
        lambda s: s.probe("dev-1", free_bytes=0),
    ],
)
def test_what_is_missing_may_be_accepted(staging: Staging, spoil: Any) -> None:
    """A risk that somebody else may take on, row by row."""
    staging.context()
    spoil(staging)

    assert staging.wrong()
    assert staging.never() == []
