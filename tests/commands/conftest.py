"""What the tests of commands share: a parameter file for the practice site."""

from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def params(practice: Any, tmp_path: Path) -> Path:
    """A parameter file for the practice site."""
    path = tmp_path / "development.yaml"
    keys = ("site", "release", "commit", "mode")
    path.write_text(yaml.safe_dump({key: practice.params[key] for key in keys}))
    return path
