"""The command: 0 verified, 1 refused, 2 no proof, 3 malformed or wrong usage."""

import json
from pathlib import Path
from typing import Any

import pytest

from ..conftest import Terminal
from .verifying import AUTHORITY, COMMIT, DATA, HEX, IDENTITY, ISSUER, OTHER, Detached


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: Any, capsys: Any) -> Terminal:
    """In a folder with the files of a release."""
    monkeypatch.chdir(tmp_path)
    detached = Detached(AUTHORITY)
    files = {
        "node": DATA, "bundle": json.dumps(AUTHORITY.sign(DATA)).encode(),
        "other": json.dumps(AUTHORITY.sign(b"another file")).encode(), "root": AUTHORITY.root,
        "sig": detached.signature, "pem": detached.pem, "junk": b"{", "deep": b"[" * 100_000,
        "empty": b"",
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return Terminal(capsys)


WHO = ("--identity", IDENTITY, "--issuer", ISSUER, "--trusted-root", "root", "--offline")


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("--artifact", "node", "--bundle", "bundle", *WHO), 0),
        (("--artifact", f"sha256:{HEX}", "--bundle", "bundle", *WHO), 0),
        (("--artifact", "node", "--bundle", "other", *WHO), 1),
        (("--artifact", f"sha256:{OTHER}", "--bundle", "bundle", *WHO), 1),
        (("--artifact", "node", "--signature", "sig", "--certificate", "pem", *WHO), 2),
        (("--artifact", "node", "--bundle", "junk", *WHO), 3),
        (("--artifact", "node", "--bundle", "deep", *WHO), 3),
        (("--artifact", "node", "--bundle", "empty", *WHO), 3),
        (("--artifact", "node", "--bundle", "none", *WHO), 3),
        (("--artifact", "none", "--bundle", "bundle", *WHO), 3),
        (("--artifact", ".", "--bundle", "bundle", *WHO), 3),
        (("--artifact", "sha256:12", "--bundle", "bundle", *WHO), 3),
        (("--artifact", "node", "--bundle", "bundle"), 3),
        (("--artifact", "node", "--bundle", "bundle", "--identity", IDENTITY), 3),
        (("--artifact", "node", "--bundle", "bundle", *WHO[:4], "--offline"), 3),
        (("--artifact", "node", "--bundle", "bundle", "--issuer", ISSUER), 3),
        (("--artifact", "node", "--bundle", "bundle", "--key", "pem", *WHO), 3),
        (("--artifact", "node", "--bundle", "bundle", "--key", "junk"), 3),
        (("--artifact", "node", "--signature", "sig", *WHO), 3),
        (("--artifact", "node", "--bundle", "bundle", "--commit", "v1", *WHO), 3),
        (("--artifact", "node", "--bundle", "bundle", *WHO[:4], "--trusted-root", "junk"), 3),
        (("--artifact", "node", "--signature", "sig", "--certificate", "junk", *WHO), 3),
        (("--artifact", "node", "--bundle", "bundle", *WHO, "--sbom", "junk"), 3),
        (("--artifact", "node", "--bundle", "bundle", *WHO, "--provenance", "junk"), 3),
    ],
)
def test_the_command_ends_with_what_it_found(
    terminal: Terminal, argv: tuple[str, ...], code: int
) -> None:
    assert terminal.run("verify-artifact", *argv) == code
    assert ("expected" in terminal.err) == (code == 3)
    assert "Traceback" not in terminal.err + terminal.out


def test_the_command_prints_one_document(terminal: Terminal) -> None:
    argv = ("--artifact", "node", "--bundle", "bundle", *WHO, "--commit", COMMIT)
    document = terminal.json("verify-artifact", *argv)

    assert document["outcome"] == "PASS"
    assert [row["what"] for row in document["rows"]] == ["signature", "commit"]
