"""The one reader of words: who may speak, what counts, and what is named instead."""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runbook_lib.canonical import canonical
from runbook_lib.errors import SourceError
from runbook_lib.site import Site, parse_site
from runbook_lib.sources.words import MAX_FILES, Heard, read_words, taken_back
from runbook_lib.strict import PROJECT

from .conftest import World

WINDOW = "2026-12-01T12:00:00Z/2026-12-01T16:00:00Z"
ACK = f"acknowledge v1.4.0 development {WINDOW}"
PLAN = "sha256:" + "a" * 64
AT, LATER = "2026-11-23T12:00:00Z", "2026-11-23T12:00:01Z"
ADA = Ed25519PrivateKey.from_private_bytes(b"a" * 32)
DEV_2 = Ed25519PrivateKey.from_private_bytes(b"d" * 32)


def public(key: Ed25519PrivateKey) -> str:
    return "ed25519:" + base64.b64encode(key.public_key().public_bytes_raw()).decode()


class Release:
    """A release issue and a folder of signed words, read by one reader."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder, self.comments = world, folder / "v1.4.0", list[dict[str, Any]]()
        self.folder.mkdir(parents=True)
        self.values = yaml.safe_load((PROJECT / "params/sites/example.yaml").read_bytes())
        self.values["words"] = str(folder / "{release}")
        self.values["people"][0]["key"] = public(ADA)
        node = self.values["clusters"]["development"]["nodes"][1]
        node.update(signoff_key=public(DEV_2), operator="harbor")

    @property
    def site(self) -> Site:
        return parse_site(yaml.safe_dump(self.values).encode(), "site.yaml")

    def say(self, body: str, by: str = "harbor", at: str = AT, edited: str = "") -> None:
        number = len(self.comments) + 1
        self.comments.append(
            {
                "id": number,
                "body": body,
                "user": {"login": by},
                "created_at": at,
                "updated_at": edited or at,
                "html_url": f"https://forge/{number}",
            }
        )

    def sign(self, key: Ed25519PrivateKey = DEV_2, name: str = "one.json", **changes: Any) -> Path:
        statement = {"kind": "acknowledge", "release": "v1.4.0", "stage": "development",
                     "window": WINDOW, "validator": "rpp1dev2", "at": AT, **changes}  # fmt: skip
        statement = {key: value for key, value in statement.items() if value is not None}
        signature = base64.b64encode(key.sign(canonical(statement))).decode()
        path = self.folder / name
        path.write_text(json.dumps({"statement": statement, "signature": signature}))
        return path

    def read(self, issue: int = 7) -> Heard:
        def answer(request: httpx.Request) -> httpx.Response:
            assert request.url.path == "/repos/HUBId/chain/issues/7/comments"
            return httpx.Response(200, json=self.comments)

        return read_words(self.world.scope(answer), self.site, issue=issue, release="v1.4.0")

    def refused(self) -> list[tuple[str, str, str, str]]:
        heard = self.read()
        assert heard.words == heard.withdrawals == ()
        return [(one.who, one.why, one.grounds, one.fault) for one in heard.refused]


@pytest.fixture
def release(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    monkeypatch.setenv("GITHUB_TOKEN", "token-of-forge")
    return Release(world, tmp_path / "words")


def test_comments_and_files_are_one_list(release: Release) -> None:
    """Each word with who, when and where; of an operator who is no listed person as well."""
    release.say(f"{ACK}\n{ACK}")
    release.say(f"approve {PLAN}", "ada", LATER)
    release.sign()
    release.sign(ADA, "two.json", account="ada", validator=None)
    found = [(str(w), w.account, w.validator, w.at.second, w.grounds) for w in release.read().words]

    assert found == [
        (ACK, "harbor", "", 0, "https://forge/1"),
        (f"approve {PLAN}", "ada", "", 1, "https://forge/2"),
        (ACK, "", "rpp1dev2", 0, "one.json"),
        (ACK, "ada", "", 0, "two.json"),
    ]


def test_the_same_is_read_again_in_replay(release: Release) -> None:
    """From the tape alone: issue and folder are gone."""
    release.say(ACK)
    release.sign().chmod(0o600)
    live = release.read()
    (release.folder / "one.json").unlink()

    scope = release.world.replay()
    assert read_words(scope, release.site, issue=7, release="v1.4.0") == live


@pytest.mark.parametrize(
    ("say", "refused"),
    [
        (
            {"body": ACK, "by": "mallory"},
            ("mallory", "expected an account the site lists, got 'mallory'", "stranger"),
        ),
        (
            {"body": ACK, "by": "Harbor"},
            ("Harbor", "expected an account the site lists, got 'Harbor'", "stranger"),
        ),
        (
            {"body": ACK, "edited": LATER},
            ("harbor", "edited since, at 2026-11-23 12:00:01Z; say it anew", "edited"),
        ),
        (
            {"body": "approve it"},
            (
                "harbor",
                "'approve it': expected sha256: and 64 hex digits, got 'it' in"
                " `approve sha256:DIGEST`",
                "malformed",
            ),
        ),
    ],
)
def test_a_comment_that_does_not_count_is_named(
    release: Release, say: dict[str, str], refused: tuple[str, str, str]
) -> None:
    """With its author, the reason and its address."""
    release.say(**say)
    who, why, fault = refused

    assert release.refused() == [(who, why, "https://forge/1", fault)]


def test_an_edited_withdrawal_withdraws_all_that_was_said_until_its_edit(release: Release) -> None:
    """Whatever it said before: when in doubt somebody has not agreed."""
    release.say(ACK, at=AT)
    release.say("withdraw acknowledge", at=AT, edited=LATER)
    release.say(ACK, at="2026-11-23T12:00:02Z")
    heard = release.read()

    taken = [taken_back(word, heard.withdrawals) for word in heard.words]
    assert [one and one.grounds for one in taken] == ["https://forge/2", None]
    assert heard.withdrawals[0].at == datetime(2026, 11, 23, 12, 0, 1, tzinfo=UTC)


def test_a_withdrawal_of_the_same_instant_counts(release: Release) -> None:
    """A forge knows seconds only."""
    release.say(f"{ACK}\nwithdraw {ACK}")
    heard = release.read()

    assert taken_back(heard.words[0], heard.withdrawals) is not None


FORGED = ("rpp1dev2", "expected a signature by rpp1dev2, got another", "one.json", "forged")


def _alter(path: Path, **changes: Any) -> None:
    document = json.loads(path.read_text())
    document["statement"].update(changes)
    path.write_text(json.dumps(document))


def _resign(path: Path, signature: str) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "signature": signature}))


def test_a_file_that_its_key_did_not_sign_is_forged(release: Release) -> None:
    """Another key, an altered statement, no signature at all."""
    release.sign(ADA)
    assert release.refused() == [FORGED]
    _alter(release.sign(), at=LATER)
    assert release.refused() == [FORGED]
    _resign(release.sign(), "no base64")
    assert release.refused() == [FORGED]
    _resign(release.sign(), base64.b64encode(b"x" * 64).decode())
    assert release.refused() == [FORGED]


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        (
            {"validator": "rpp1dev1"},
            ("rpp1dev1", "expected a signoff_key in the site, got 'rpp1dev1'", "stranger"),
        ),
        (
            {"validator": None, "account": "grace"},
            ("grace", "expected a listed person with a key, got 'grace'", "stranger"),
        ),
        (
            {"validator": None, "account": "<b>"},
            ("<b>", "expected a listed person with a key, got '<b>'", "stranger"),
        ),
    ],
)
def test_a_file_of_nobody_we_can_check_is_named(
    release: Release, changes: dict[str, Any], refused: tuple[str, str, str]
) -> None:
    """Whoever signed it."""
    release.sign(**changes)
    who, why, fault = refused

    assert release.refused() == [(who, why, "one.json", fault)]


def test_a_file_of_an_instant_to_come_does_not_count(release: Release) -> None:
    """It could not be withdrawn before then."""
    at = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    release.sign(at=at.isoformat())
    why = f"expected an instant that has come, got {at:%Y-%m-%d %H:%M:%SZ}"

    assert release.refused() == [("rpp1dev2", why, "one.json", "ahead")]


def test_a_withdrawal_of_an_instant_to_come_counts_at_once(release: Release) -> None:
    """The clock that it was signed by may be fast; until then nothing else could be taken back."""
    release.sign()
    at = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    release.sign(name="two.json", withdraw=True, at=at.isoformat())
    heard = release.read()

    assert heard.refused == ()
    assert taken_back(heard.words[0], heard.withdrawals) is heard.withdrawals[0]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.write_text("{"), "expected a signed word, got: Invalid JSON: Expecting"),
        (lambda path: path.write_bytes(b" " * 70_000), "expected at most 65536 bytes, got 70000"),
        (lambda path: path.write_text("[" * 60_000), "expected a signed word, got: Invalid JSON: "),
        (lambda path: path.symlink_to("/etc/hostname"), "expected a readable file, got: Too many"),
        (lambda path: path.mkdir(), "expected a readable file, got: not a regular file"),
        (os.mkfifo, "expected a readable file, got: not a regular file"),
    ],
)
def test_a_hostile_file_is_named_and_hides_no_other(release: Release, make: Any, why: str) -> None:
    """Broken, huge, deep, a link out of the folder, a pipe that never ends."""
    make(release.folder / "bad.json")
    release.sign()
    heard = release.read()

    assert [str(word) for word in heard.words] == [ACK]
    assert [(one.who, one.fault) for one in heard.refused] == [("bad.json", "unreadable")]
    assert heard.refused[0].why.startswith(why)


def test_only_json_files_are_read(release: Release) -> None:
    """An editor's or a transfer's leftovers are no words."""
    (release.folder / ".one.json").write_text("{")
    (release.folder / "README").write_text("put signed words here")

    assert release.read() == Heard()


def test_a_place_that_cannot_be_read_is_an_error(release: Release) -> None:
    """A withdrawal may lie in a folder that is not mounted; a flood of files is refused."""
    release.folder.rmdir()
    assert release.read() == Heard()
    release.folder.parent.rmdir()
    with pytest.raises(SourceError, match=r"words: expected a folder, even an empty one; create"):
        release.read()
    release.folder.mkdir(parents=True)
    for number in range(MAX_FILES + 1):
        (release.folder / f"{number}.json").touch()
    with pytest.raises(SourceError, match=r": expected at most 1000 files, got 1001$"):
        release.read()


def test_nowhere_to_read_is_an_error(release: Release) -> None:
    """Nobody is asked, and nobody agreed."""
    release.values["words"] = ""
    with pytest.raises(SourceError) as caught:
        release.read(issue=0)

    expected = "words: expected a release issue (issue) or the site's folder (words)"
    assert str(caught.value) == expected
