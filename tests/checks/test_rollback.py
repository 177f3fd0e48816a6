"""preflight.rollback-assets: everything there, and the previous release."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runbook_lib.checks.rollback import rollback_assets
from runbook_lib.sources.tape import ReplayTape

from .staging import (
    BUILD,
    CANDIDATE,
    FAIL,
    INCONCLUSIVE,
    ITEM,
    PASS,
    PREVIOUS,
    TIP,
    Fleet,
    Staging,
    sha,
)


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


@pytest.mark.parametrize(
    ("content", "observed"),
    [(CANDIDATE, f"{sha(CANDIDATE)}: the candidate's own"), (b"another", sha(b"another")),
     (PREVIOUS[:-1], sha(PREVIOUS[:-1]))],
)  # fmt: skip
def test_another_file_is_refused(staging: Staging, content: bytes, observed: str) -> None:
    """The candidate's, another build's, a part of the right one: its digest is named."""
    staging.release.write_bytes(content)

    assert staging.wrong() == [("release", BUILD, observed, FAIL)]


def test_no_archive_is_no_proof(staging: Staging) -> None:
    """Nor can anybody fetch what is not there."""
    staging.release.unlink()
    gone = "expected a readable file, got: No such file or directory"

    assert staging.wrong() == [
        ("release", BUILD, gone, INCONCLUSIVE),
        ("dev-1", "fetchable", "no asset", INCONCLUSIVE),
        ("dev-2", "fetchable", "no asset", INCONCLUSIVE),
    ]


def test_an_image_must_be_fetchable_by_digest(staging: Staging) -> None:
    """A site without a file names none: what a node can fetch says whether its image is there."""
    del staging.rollback["release"]
    assert staging.wrong() == []

    manifest = sha((staging.bundle / "manifest/chunks.json").read_bytes())
    staging.probe("dev-2", fetchable=[manifest])
    assert staging.wrong() == [("dev-2", "fetchable", f"not image {sha(PREVIOUS)[:19]}", FAIL)]


def test_a_good_state_of_an_unknown_artifact_is_no_proof(staging: Staging) -> None:
    """A cluster that was taken over without the file its binary came in; it says what to do."""
    staging.good("dev-2", build=b"")

    assert staging.wrong() == [
        (
            "dev-2",
            "artifact of the last good state",
            "the artifact of its binary is not known; `runbook adopt --artifact FILE` tells it",
            INCONCLUSIVE,
        ),
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
    assert what == "artifact of the last good state of dev-2"
    assert (observed, outcome) == (sha(PREVIOUS), FAIL)

    staging.rollback["release"] = str(staging.root / "staged" / "{digest}")
    for build in (PREVIOUS, b"a third build"):
        (staging.root / "staged" / sha(build)[7:]).write_bytes(build)
    for node, build in (("dev-1", PREVIOUS), ("dev-2", b"a third build")):
        manifest = sha((staging.bundle / "manifest" / "chunks.json").read_bytes())
        staging.probe(node, fetchable=[sha(build), manifest])
    assert staging.wrong() == []
