"""What the tests of commands share: a terminal, and a parameter file for the practice site."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from runbook_lib import cli


class Terminal:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def run(self, *argv: str | Path) -> int:
        """A command's exit code."""
        try:
            return cli.main([str(word) for word in argv])
        except SystemExit as left:
            return int(left.code or 0)
        finally:
            self.out, self.err = self._capsys.readouterr()

    def json(self, *argv: str | Path) -> Any:
        """The one document that a command prints with --json."""
        self.code = self.run(*argv, "--json")
        return json.loads(self.out)


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys)


@pytest.fixture
def params(practice: Any, tmp_path: Path) -> Path:
    """A parameter file for the practice site."""
    path = tmp_path / "development.yaml"
    keys = ("site", "release", "commit", "mode")
    path.write_text(yaml.safe_dump({key: practice.params[key] for key in keys}))
    return path
