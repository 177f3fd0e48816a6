"""Publishing a sealed apply: attached, told in the issue, kept in the outbox when it cannot be."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import httpx
import nbformat
import pytest

from runbook_lib import cli
from runbook_lib.canonical import digest_file
from runbook_lib.checks import preflight
from runbook_lib.errors import ParameterError, StoreError
from runbook_lib.evidence import publish as publishing
from runbook_lib.evidence.comment import heads_told, marker
from runbook_lib.evidence.log import Log, opened_by
from runbook_lib.evidence.publish import at_sealing, publish
from runbook_lib.evidence.replay import seal_by_hand
from runbook_lib.evidence.verify import verify
from runbook_lib.opening import require_heads
from runbook_lib.outcomes import Outcome
from runbook_lib.params import StageParams
from runbook_lib.site import read_site
from runbook_lib.sources.github import Comment
from runbook_rehearsal.layout import ISSUE
from runbook_rehearsal.network import RehearsalNetwork

from ..conftest import blank, not_passed, trust_of
from .conftest import NOTEBOOK, ended, ready_to_post

RELEASE, OUTBOX = "v1.4.0", "outbox/release-issue.json"

ATTESTATION = Path("attestations/0001.rehearsal.json")


def seal_again(folder: Path) -> Path:
    """The shipped notebook without outputs, sealed by hand."""
    nbformat.write(blank(NOTEBOOK), folder / NOTEBOOK)
    seal_by_hand(folder)
    return folder


def sealed(network: RehearsalNetwork, **changes: Any) -> Path:
    """The folder of an attempt, sealed and not yet published."""
    with ready_to_post(network, **changes) as stage:
        stage.change(preflight.release_issue)
        ended(stage)
    return seal_again(stage.folder)


def assets(network: RehearsalNetwork) -> dict[str, bytes]:
    releases = network.forge.releases
    (release,) = releases.releases.values()
    listed = releases.assets[release["id"]]
    return {asset["name"]: releases.contents[asset["id"]] for asset in listed}


def asset_name(folder: Path, name: str) -> str:
    path = folder / name
    digest = digest_file(path).removeprefix("sha256:")[:12]
    return f"development-{folder.name}-{path.stem}.{digest}{path.suffix}"


def summary(network: RehearsalNetwork) -> str:
    """The release's one summary."""
    told = [comment["body"] for comment in network.forge.comments.values()]
    (found,) = [body for body in told if body.startswith(marker(RELEASE))]
    return str(found)


def green(folder: Path) -> bool:
    return {row.outcome for row in verify(folder, trust_of(folder))[0]} == {Outcome.PASS}


def test_a_sealed_apply_is_attached_and_told(network: RehearsalNetwork) -> None:
    """Notebook and attestation are assets of a pre-release; the section links to them; it verifies."""
    folder = sealed(network)
    number = int(folder.name)
    problems = at_sealing(folder)
    comment, short = network.forge.comments.values()
    (release,) = network.forge.releases.releases.values()
    names = [asset_name(folder, name) for name in (NOTEBOOK, str(ATTESTATION))]

    assert problems == []
    assert (release["tag_name"], release["prerelease"]) == (f"evidence-{RELEASE}", True)
    assert release["target_commitish"] == network.release.commit
    assert assets(network) == {
        names[0]: (folder / NOTEBOOK).read_bytes(),
        names[1]: (folder / ATTESTATION).read_bytes(),
    }
    assert f"### ✓ PASS · development · attempt {number}" in comment["body"]
    assert f"**✓ PASS · development · attempt {number}** · sealed, head `sha256:" in short["body"]
    for name, path in zip(names, (folder / NOTEBOOK, folder / ATTESTATION), strict=True):
        assert f"/evidence-{RELEASE}/{name})" in comment["body"]
        assert name not in short["body"]  # which is never edited
        assert f"`{digest_file(path)}`" in comment["body"]
    assert not (folder / "outbox").exists()
    assert green(folder)


def test_to_publish_again_adds_nothing_but_a_later_seal(network: RehearsalNetwork) -> None:
    """It is kept beside the earlier: an asset of one name is never replaced by other content."""
    folder = sealed(network)
    at_sealing(folder)
    first, told = assets(network), dict(network.forge.comments)
    assert {row.outcome for row in publish(folder)} == {Outcome.PASS}
    assert cli.main(["publish", str(folder)]) == 0
    assert (assets(network), dict(network.forge.comments)) == (first, told)
    seal_again(folder)
    at_sealing(folder)
    second = assets(network)

    later = asset_name(folder, "attestations/0002.rehearsal.json")
    assert set(second) - set(first) == {later}
    assert {name: second[name] for name in first} == first
    comment, *shorts = network.forge.comments.values()
    assert f"{later})" in comment["body"]
    assert len(shorts) == 2


def test_a_refused_run_is_documented_too(network: RehearsalNetwork) -> None:
    """Release-issue was never reached; the section is there all the same, what blocks first."""
    network.fault("config-edited@development")
    folder = sealed(network)
    network.clear("config-edited")
    problems = at_sealing(folder)
    text = summary(network)

    assert problems == []
    assert "### ✗ FAIL · development" in text
    assert "**What blocks (1 of 2 items):**" in text
    assert "**Not reached behind it (1):** `preflight.release-issue`" in text
    assert len(assets(network)) == 2


@pytest.mark.parametrize(
    ("fault", "attached"),
    [
        ("forge-down", 0),
        ("comment-refused", 2),
        ("comment-edited", 2),
        ("comments-limited", 0),
        ("forge-dies-after-write", 0),
    ],
)
def test_what_cannot_be_sent_lies_in_the_outbox(
    network: RehearsalNetwork, fault: str, attached: int
) -> None:
    """One line says so, the evidence verifies with it, and the command sends it later, once."""
    folder = sealed(network)
    network.forge.comments.clear()
    network.fault(f"{fault}@development")
    (problem,) = at_sealing(folder)
    there = len(assets(network)) if network.forge.releases.releases else 0
    kept = json.loads((folder / OUTBOX).read_bytes())
    verified = green(folder)
    network.clear(fault)
    code = cli.main(["publish", str(folder)])

    assert problem.startswith("publish: ")
    assert problem.endswith(f"; the outbox keeps it: runbook publish {folder}")
    assert "\n" not in problem
    assert (there, kept["issue"]) == (attached, ISSUE)
    assert verified
    assert (code, (folder / "outbox").exists()) == (0, False)
    assert (len(assets(network)), len(network.forge.comments)) == (2, 2)
    assert "All good" not in summary(network)
    told = [one for one in network.forge.comments.values() if "sealed, head" in one["body"]]
    assert [one["created_at"] == one["updated_at"] for one in told] == [True]  # or it tells none


def test_an_answer_that_is_lost_adds_nothing_twice(network: RehearsalNetwork) -> None:
    """Each write lands and looks lost: what landed is found again, until all of it is there."""
    folder = sealed(network)
    network.forge.comments.clear()
    network.fault("comment-answer-lost@development")
    for _ in range(5):
        at_sealing(folder)
    network.clear("comment-answer-lost")

    assert publish(folder)
    assert (len(assets(network)), len(network.forge.comments)) == (2, 2)
    assert green(folder)


def test_a_missing_token_leaves_it_in_the_outbox_and_nothing_else_may_lie_there(
    network: RehearsalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is outside the seal, so it must not become a place to hide things."""
    folder = sealed(network)
    monkeypatch.delenv("GITHUB_TOKEN")
    (problem,) = at_sealing(folder)

    assert problem.startswith("publish: environment: GITHUB_TOKEN: expected a secret, got nothing")
    assert (folder / OUTBOX).exists()
    assert green(folder)
    (folder / "outbox" / "more.json").write_text("{}")
    rows, _ = verify(folder, trust_of(folder))
    assert not_passed(rows, "observed") == [("not attested: outbox/more.json",)]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt(), OSError("full")])
def test_nothing_that_goes_wrong_is_raised_at_sealing(
    network: RehearsalNetwork, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Not a mistake of ours, and not an interrupt either; the note is there from the beginning."""
    folder = sealed(network)

    def broken(*given: Any) -> Any:
        raise error

    monkeypatch.setattr(publishing, "_attach", broken)
    (problem,) = at_sealing(folder)

    assert any(word in problem for word in ("a bug", "interrupted", "full"))
    assert (folder / OUTBOX).exists()


@pytest.mark.parametrize("changes", [{"mode": "plan"}, {"issue": 0}])
def test_a_plan_or_an_attempt_without_issue_is_never_published(
    network: RehearsalNetwork, changes: dict[str, Any]
) -> None:
    """At sealing silently; by hand the command says why."""
    folder = sealed(network, **changes)

    assert at_sealing(folder) == []
    with pytest.raises(ParameterError):
        publish(folder)
    assert (network.forge.comments, network.forge.releases.releases) == ({}, {})
    assert not (folder / "outbox").exists()


def test_the_summary_of_a_later_attempt_stays(network: RehearsalNetwork) -> None:
    """What lay in the outbox for long must not hide what came since; its files are attached."""
    first = sealed(network)
    second = sealed(network)
    at_sealing(second)
    rows = publish(first)

    assert {row.outcome for row in rows} == {Outcome.PASS}
    assert f"attempt {int(second.name)} stays, it is later" in [row.observed for row in rows]
    assert f"· attempt {int(second.name)}\n" in summary(network)
    assert len(assets(network)) == 4


@pytest.mark.parametrize(
    ("more", "said"),
    [("{}", "expected it as sealed, sha256:"), ("", "expected no secret in it, got one")],
    ids=["altered", "secret"],
)
def test_a_file_that_must_not_be_sent_is_not(
    network: RehearsalNetwork, more: str, said: str
) -> None:
    """Altered since the seal, or with a secret in it: the rest is published, and it is said."""
    folder = sealed(network)
    with (folder / NOTEBOOK).open("a") as book:
        book.write(more or os.environ["GITHUB_TOKEN"])
    (problem,) = at_sealing(folder)

    assert said in problem
    assert [name for name in assets(network) if name.endswith(".ipynb")] == []
    assert "not attached yet: `runbook publish" in summary(network)


def test_what_is_not_sealed_is_not_published(network: RehearsalNetwork) -> None:
    with ready_to_post(network) as stage:
        stage.change(preflight.release_issue)
    with pytest.raises(StoreError, match=r"; seal it first$"):
        publish(stage.folder)

    folder = sealed(network)
    with ready_to_post(network, attempt=int(folder.name)):
        pass
    with pytest.raises(StoreError, match=r"seal it again$"):
        publish(folder)


def test_a_folder_from_elsewhere_is_not_published(
    network: RehearsalNetwork, tmp_path: Path
) -> None:
    """Its recorded site would say where the token goes."""
    copy = shutil.copytree(sealed(network), tmp_path / "0001")
    with pytest.raises(ParameterError, match="expected an attempt in its own store"):
        publish(copy)


def test_a_site_file_in_the_store_says_no_command(network: RehearsalNetwork) -> None:
    """Whoever writes the store would say what is run."""
    folder = sealed(network)
    inside = shutil.copy(network.site, folder.parents[2] / "site.yaml")
    opened = opened_by(Log(folder / "log.jsonl").events(), "log")
    moved = opened.model_copy(update={"params": {**opened.params, "site": str(inside)}})
    with pytest.raises(ParameterError, match="expected its site file outside the store, got "):
        publishing._site_of(folder, moved)


@pytest.mark.parametrize("how", ["removed", "yesterday's put back", "another seal"])
def test_what_the_issue_was_told_of_is_missed_in_the_store(
    network: RehearsalNetwork, capsys: Any, how: str
) -> None:
    """A newest attempt removed, an older store put back, a seal replaced: open and status name it."""
    folder = sealed(network)
    name = "/".join(folder.parts[-3:])
    older = shutil.copytree(folder, folder.parents[4] / how)
    seal_again(folder)
    at_sealing(folder)
    held = shutil.copytree(folder, folder.parents[4] / f"{how}, held")
    shutil.rmtree(folder)
    if how == "yesterday's put back":
        shutil.copytree(older, folder)
    elif how == "another seal":
        shutil.copytree(held, folder)
        shutil.copy(folder / ATTESTATION, folder / "attestations" / "0002.rehearsal.json")
    with pytest.raises(StoreError) as refused, ready_to_post(network):
        pass
    code = cli.main(["status", RELEASE, "--site", str(network.site)])
    said = capsys.readouterr().out
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(held, folder)

    expected = (
        "the attempt that the release issue tells of" if how == "removed" else "it to hold head"
    )
    assert str(refused.value).startswith(f"{name}: expected {expected}")
    assert f"heads     {name}: expected {expected}" in said
    assert code == 2


def test_a_strangers_head_is_not_believed(network: RehearsalNetwork) -> None:
    """Nor one that was edited, which anybody can; one by the runbooks or a person of the site is."""
    site, attempt = read_site(str(network.site)), f"{RELEASE}/development/0099"
    text = f"<!-- rpp-runbook seal={attempt} head=sha256:{'0' * 64} -->"
    written = {"id": 1, "body": text, "html_url": "x", "created_at": "2026-03-02T09:00:00Z"}

    def believed(author: str, updated: str = "2026-03-02T09:00:00Z") -> list[str]:
        comment = {**written, "user": {"login": author}, "updated_at": updated}
        read = Comment.model_validate_json(json.dumps(comment))
        return [name for name, _ in heads_told([read], "bot", site)]

    assert believed("stranger") == believed("bot", updated="2026-03-02T09:00:01Z") == []
    assert believed("bot") == believed(site.people[0].account) == [attempt]
    network.forge.say("stranger", text)
    with ready_to_post(network):
        pass


def test_a_recovery_waits_for_no_forge_and_no_missing_attempt(network: RehearsalNetwork) -> None:
    site = read_site(str(network.site))
    params = StageParams(release=RELEASE, issue=ISSUE)
    bot = site.people[0].account
    head = f"{RELEASE}/development/0099 head=sha256:{'0' * 64}"
    network.forge.say(bot, f"<!-- rpp-runbook seal={head} -->")
    with pytest.raises(StoreError, match="0099: expected the attempt that the release issue"):
        require_heads("testnet", params, site)

    assert require_heads("testnet_recovery", params, site) == ""


def test_a_release_that_is_no_evidence_is_not_added_to(network: RehearsalNetwork) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if "/releases/tags/" in request.url.path:
            named = dict.fromkeys(("tag_name", "upload_url", "html_url"), "x")
            return httpx.Response(200, json={"id": 1, "prerelease": False, **named})
        return httpx.Response(404, json={"message": "Not Found"})

    folder = sealed(network)
    rows = publish(folder, httpx.MockTransport(answer))

    assert rows[0].outcome is Outcome.INCONCLUSIVE
    assert str(rows[0].observed).endswith("expected a pre-release, got a release")
