"""``runbook approve``: what it writes is read as that person's word, or nothing is written."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runbook_lib.site import read_site
from runbook_lib.sources.quorum import anybody
from runbook_lib.sources.words import hear, read_words

from .conftest import NOWHERE, Terminal, as_pem, named
from .sources.conftest import World, world

__all__ = ["world"]
DIGEST = "sha256:" + "a" * 64
WINDOW = "2026-12-01T12:00:00Z/2026-12-01T16:00:00Z"
NODE = Ed25519PrivateKey.from_private_bytes(b"n" * 32)
PASSPHRASE = "correct horse"


class Desk:
    """A person at a terminal with a key file, on Bob's site with one validator."""

    def __init__(self, practice: Any, terminal: Terminal, world: World) -> None:
        self.practice, self.terminal, self.world = practice, terminal, world
        self.root, self.key = practice.root, practice.root / "key"
        self.key.write_bytes(as_pem(practice.key))
        (self.root / "words").mkdir()
        self.write_site()

    def write_site(self, **changes: Any) -> None:
        node = {"name": "dev-1", "url": NOWHERE, "validator": "rpp1a", "signoff_key": named(NODE)}
        more = {"name": "dev-2", "url": "http://127.0.0.1:8", "validator": "rpp1b", **changes}
        clusters = {"development": {"chain_id": "rpp", "nodes": [{**node, **changes}, more]}}
        self.practice.write_site(words=str(self.root / "words" / "{release}"), clusters=clusters)

    def run(self, *words: str, key: Path | None = None) -> tuple[int, str, str]:
        whose = ("--site", self.practice.site, "--key", key or self.key)
        code = self.terminal.run("approve", *words, *whose)
        return code, self.terminal.out, self.terminal.err

    def refused(self, *words: str) -> str:
        """The message of a command that ends with 3 and writes nothing."""
        before = sorted(self.root.rglob("*"))
        code, out, err = self.run(*words)
        assert (code, out, sorted(self.root.rglob("*"))) == (3, "", before)
        return err


@pytest.fixture
def desk(practice: Any, terminal: Terminal, world: World) -> Desk:
    practice.patch.chdir(practice.root)
    return Desk(practice, terminal, world)


def test_an_approval_is_written_and_counts(desk: Desk) -> None:
    """Here, when no release is named; it says where."""
    code, out, _ = desk.run(DIGEST)
    written = Path(out.splitlines()[0].removeprefix("wrote "))
    site = read_site(str(desk.practice.site))
    heard = hear(desk.world.scope(), site, DIGEST, issues=[0], files=[str(written.absolute())])
    found = anybody(site, "").count(heard, DIGEST).words

    assert (code, out.splitlines()[1]) == (0, f"approve {DIGEST}")
    assert out.splitlines()[2].startswith("by bob at 20")
    assert [one.account for one in found] == ["bob"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--acknowledge", "--window", WINDOW], f"acknowledge v1.4.0 development {WINDOW}"),
        (["--sign-off", DIGEST, "--window", WINDOW],
         f"sign-off v1.4.0 development {WINDOW} {DIGEST}"),
        (["--sign-off", "--withdraw"], "withdraw sign-off v1.4.0 development"),
    ],
)  # fmt: skip
def test_a_validators_word_lies_in_the_sites_folder(
    desk: Desk, words: list[str], said: str
) -> None:
    """Named by what it says; the reader of the checks finds it there."""
    desk.key.write_bytes(NODE.private_bytes_raw())
    code, out, _ = desk.run(*words, "--release", "v1.4.0", "--stage", "development", "--json")
    document = json.loads(out)
    heard = read_words(
        desk.world.scope(), read_site(str(desk.practice.site)), issue=0, release="v1.4.0"
    )
    (found,) = (*heard.words, *heard.withdrawals)

    assert (code, document["said"], document["by"]) == (0, said, "rpp1a")
    assert Path(document["path"]).parent == desk.root / "words" / "v1.4.0"
    assert (str(found), found.validator) == (said, "rpp1a")
    assert found.grounds == Path(document["path"]).name
    assert heard.refused == ()


def test_a_listed_operator_may_sign_with_their_own_key(desk: Desk) -> None:
    words = ("--acknowledge", "--window", WINDOW, "--release", "v1.4.0", "--stage", "development")
    _, out, _ = desk.run(*words, "--json")

    assert json.loads(out)["by"] == "bob"


def test_an_encrypted_key_takes_its_passphrase_from_the_environment(desk: Desk) -> None:
    """Never from the command line, and it is printed nowhere."""
    desk.key.write_bytes(as_pem(desk.practice.key, PASSPHRASE.encode()))
    without = desk.refused(DIGEST)
    unset = desk.refused(DIGEST, "--passphrase-env", "KEY_PASSPHRASE")
    desk.practice.patch.setenv("KEY_PASSPHRASE", "wrong")
    wrong = desk.refused(DIGEST, "--passphrase-env", "KEY_PASSPHRASE")
    desk.practice.patch.setenv("KEY_PASSPHRASE", PASSPHRASE)
    code, out, _ = desk.run(DIGEST, "--passphrase-env", "KEY_PASSPHRASE")

    expected = f"{desk.key}: expected an Ed25519 private key, PEM or 32 raw bytes"
    assert without == f"{expected}, got an encrypted one; name its variable, --passphrase-env\n"
    assert unset == f"KEY_PASSPHRASE: expected the passphrase of {desk.key}, got none; export it\n"
    assert wrong == f"{expected}, got one that cannot be read\n"
    assert code == 0
    assert PASSPHRASE not in out


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"", "got one that cannot be read"),
        (b"x" * 33, "got one that cannot be read"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "got one that cannot be read"),
        (as_pem(generate_private_key(SECP256R1())), "got a key of another kind"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_such_key_is_refused(desk: Desk, content: bytes, got: str) -> None:
    desk.key.write_bytes(content)
    expected = f"{desk.key}: expected an Ed25519 private key, PEM or 32 raw bytes, {got}\n"

    assert desk.refused(DIGEST) == expected


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "approve: expected `approve sha256:DIGEST`, got no plan"),
        (["sha256:12"], "approve: plan: expected sha256: and 64 hex digits, got 'sha256:12'"),
        (["--acknowledge", "--stage", "development"], "acknowledge: expected `acknowledge RELEASE STAGE START/END`, got no release"),
        (["--acknowledge", "--release", "v1.4.0", "--stage", "development", "--window", "now"], "acknowledge: window: expected START/END, got 'now'"),
        ([DIGEST, "--release", "../x"], "approve: release: expected a name of letters, digits, '.', '_', '+' or '-', got '../x'"),
    ],
)  # fmt: skip
def test_what_is_no_word_is_not_signed(desk: Desk, words: list[str], problem: str) -> None:
    assert desk.refused(*words) == f"{problem}\n"


def test_a_key_of_nobody_is_refused(desk: Desk) -> None:
    """For an approval a validator's key is nobody's; it names the public key to list."""
    desk.key.write_bytes(NODE.private_bytes_raw())

    assert desk.refused(DIGEST) == (
        f"{desk.key}: expected a key of the site's people, got nobody's: {named(NODE)}\n"
    )


def test_a_key_of_several_validators_asks_which(desk: Desk) -> None:
    desk.write_site(signoff_key=named(NODE))
    desk.key.write_bytes(NODE.private_bytes_raw())
    words = ("--acknowledge", "--window", WINDOW, "--release", "v1.4.0", "--stage", "development")

    said = "--validator: expected one of dev-1, dev-2: all have this key, got none\n"
    assert desk.refused(*words) == said
    _, out, _ = desk.run(*words, "--validator", "dev-2", "--json")
    assert json.loads(out)["by"] == "rpp1b"
    assert "validators, got nobody's" not in out
    assert "people or of dev-3, got nobody's" in desk.refused(*words, "--validator", "dev-3")


def test_where_a_word_cannot_lie_nothing_is_written(desk: Desk) -> None:
    """Not over another file, nor in a folder that is not mounted."""
    target, words = desk.root / "mine.json", desk.root / "words"
    target.write_text("before")
    said = f"{target}: expected a new file, got one that is there\n"
    assert desk.refused(DIGEST, "--output", str(target)) == said
    assert target.read_text() == "before"

    words.rmdir()
    assert desk.refused(DIGEST, "--release", "v1.4.0") == (
        f"{words}: expected the site's folder of words, got none;"
        " mount it, or write elsewhere with --output\n"
    )


def test_kinds_exclude_each_other(desk: Desk) -> None:
    assert desk.run("--acknowledge", "--sign-off")[0] == 3
