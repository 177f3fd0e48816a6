"""A JupyterLab of a test's own: its folders, and where it answers."""

import json
import time
from pathlib import Path

import pytest

PLACES = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
}


def places(root: Path) -> dict[str, str]:
    """The environment that keeps it below ``root``."""
    return {name: str(root / place) for name, place in PLACES.items()}


def address(root: Path) -> str:
    """The server's address, once it has written it down; its output is ``lab.log``."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for path in (root / "runtime").glob("jpserver-*.json"):
            if text := path.read_text():
                return str(json.loads(text)["url"])
        time.sleep(0.05)
    pytest.fail(f"JupyterLab did not start: {(root / 'lab.log').read_text()[-2000:]}")
