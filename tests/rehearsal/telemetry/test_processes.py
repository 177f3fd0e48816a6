"""Server processes: ready when started, gone when stopped, gone when their owner dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from runbook_rehearsal.telemetry import processes

pytestmark = pytest.mark.servers

OWNER = """
import sys, time
from pathlib import Path
from runbook_rehearsal.telemetry import processes
server = processes.prometheus(Path(sys.argv[1]), processes.free_port())
server.start()
print(server.url, flush=True)
time.sleep(60)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    if processes.binary("prometheus") is None:
        pytest.skip("prometheus is not installed")
    (tmp_path / "prometheus.yml").write_text("{}\n")
    return tmp_path


def test_a_server_answers_from_start_to_stop(root: Path) -> None:
    """It can be started again at the same place; stopping twice is no error."""
    server = processes.prometheus(root, processes.free_port())
    for _ in range(2):
        server.start()
        assert httpx.get(f"{server.url}/-/ready", trust_env=False).status_code == 200
        server.stop()
        server.stop()
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url, trust_env=False)


def test_a_server_that_cannot_start_says_why(root: Path) -> None:
    """The end of its log is in the message."""
    (root / "prometheus.yml").write_text("scrape: often\n")
    server = processes.prometheus(root, processes.free_port())

    with pytest.raises(RuntimeError, match=r"(?s)did not become ready: .*field scrape not found"):
        server.start()


def test_a_server_ends_with_its_owner(root: Path) -> None:
    """Even when the owner is killed outright."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(root)], stdout=subprocess.PIPE)
    with owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().decode().strip()
        os.kill(owner.pid, signal.SIGKILL)

    deadline = time.monotonic() + 20
    with pytest.raises(httpx.ConnectError):
        while time.monotonic() < deadline:
            httpx.get(f"{url}/-/ready", trust_env=False)
            time.sleep(0.05)
