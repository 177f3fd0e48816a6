"""preflight.rollback-assets: what nodes can fetch, and what no waiver covers."""

from __future__ import annotations

from typing import Any

import pytest

from runbook_lib.checks import rollback

from .staging import BUILD, CANDIDATE, CHUNKS, FAIL, INCONCLUSIVE, ONE, PREVIOUS, Staging, sha


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


def bind_another(staging: Staging) -> None:
    """A manifest that is signed, and not the one that bundle.json names."""
    path = staging.bundle / "manifest" / "chunks.json"
    staging.sign(path, path.read_bytes() + b"\n")


@pytest.mark.parametrize(
    ("spoil", "never"),
    [
        (lambda s: s.release.write_bytes(CANDIDATE), [BUILD]),
        (lambda s: s.release.write_bytes(b"another"), [BUILD]),
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
