"""The command: 0 verified, 1 refused, 2 no proof, 3 malformed or wrong usage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runbook_lib import cli

from .verifying import COMMIT, DATA, HEX, IDENTITY, ISSUER, OTHER, Authority, Detached


class Shell:
    """Files of a release in one folder, and the command on them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys, self.out, self.err = folder, capsys, "", ""

    def write(self, **files: bytes) -> None:
        for name, data in files.items():
            (self.folder / name).write_bytes(data)

    def run(self, *argv: str) -> int:
        code = cli.main(["verify-artifact", *argv])
        self.out, self.err = self._capsys.readouterr()
        return code


@pytest.fixture
def shell(
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Shell:
    monkeypatch.chdir(tmp_path)
    made = Shell(tmp_path, capsys)
    detached = Detached(authority)
    made.write(
        node=DATA, bundle=json.dumps(authority.sign(DATA)).encode(),
        other=json.dumps(authority.sign(b"another file")).encode(), root=authority.root,
        sig=detached.signature, pem=detached.pem, junk=b"{", deep=b"[" * 100_000, empty=b"",
    )  # fmt: skip
    return made


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
    shell: Shell, argv: tuple[str, ...], code: int
) -> None:
    assert shell.run(*argv) == code
    assert ("expected" in shell.err) == (code == 3)
    assert "Traceback" not in shell.err + shell.out


def test_the_command_prints_one_document(shell: Shell) -> None:
    shell.run("--artifact", "node", "--bundle", "bundle", *WHO, "--commit", COMMIT, "--json")
    document = json.loads(shell.out)

    assert document["outcome"] == "PASS"
    assert [row["what"] for row in document["rows"]] == ["signature", "commit"]
