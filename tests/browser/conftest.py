"""Debian's chromium, and a JupyterLab that belongs to one test."""

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from ..conftest import unmeasured
from ..jupyter import address, places

TOKEN = "only-for-this-test"
SETTINGS = {
    # A pop-up that asks for news from outside; and cells out of view that are not in the page.
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}


@dataclass
class Watched:
    """A page, with what it asked for elsewhere and what its console complained of."""

    page: Page
    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", self._requested)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _requested(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob", "file") and parts.hostname != "127.0.0.1":
            self.outside.append(request.url)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    page.set_default_timeout(60_000)
    yield Watched(page)
    page.close()


def run_all(page: Page, address: str, notebook: str) -> None:
    """Opens a notebook of the lab and runs all of its cells."""
    page.goto(f"{address}/{notebook}?token={TOKEN}&reset")
    page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for()
    page.get_by_text("Runbook | Idle").wait_for()  # else it asks for a kernel
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator("li[data-command='runmenu:run-all']").click()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A JupyterLab: the folder it serves, and the start of its notebooks' addresses."""
    root = tmp_path / "work"
    root.mkdir()
    for name, values in SETTINGS.items():
        path = tmp_path / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    kept = "RUNBOOK_OPERATOR"
    ours = {
        n: value for n, value in unmeasured().items() if n == kept or not n.startswith("RUNBOOK_")
    }
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--ServerApp.port={port}", f"--ServerApp.root_dir={root}"),
        f"--IdentityProvider.token={TOKEN}",
    ]
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(
            argv,
            env=ours | places(tmp_path),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield root, f"{address(tmp_path)}lab/tree"
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
