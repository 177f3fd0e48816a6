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

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(processes.binary("prometheus") is None, reason="no prometheus on PATH"),
]
OWNER = """
import sys, time
from pathlib import Path
from runbook_rehearsal.telemetry import processes
server = processes.prometheus(Path(sys.argv[1]), processes.free_port())
server.start()
print(server.url, flush=True)
time.sleep(60)
"""


def test_a_server_answers_from_start_to_stop_or_says_why_not(tmp_path: Path) -> None:
    """It can be started again at the same place; stopping twice is no error."""
    (tmp_path / "prometheus.yml").write_text("{}\n")
    server = processes.prometheus(tmp_path, processes.free_port())
    for _ in range(2):
        server.start()
        assert httpx.get(f"{server.url}/-/ready", trust_env=False).status_code == 200
        server.stop()
        server.stop()
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url, trust_env=False)
    (tmp_path / "prometheus.yml").write_text("scrape: often\n")
    with pytest.raises(RuntimeError, match=r"(?s)did not become ready: .*field scrape not found"):
        server.start()


def test_a_server_ends_with_its_owner(tmp_path: Path) -> None:
    """Even when the owner is killed outright."""
    (tmp_path / "prometheus.yml").write_text("{}\n")
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE)
    with owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().decode().strip()
        os.kill(owner.pid, signal.SIGKILL)

    deadline = time.monotonic() + 20
    with pytest.raises(httpx.ConnectError):
        while time.monotonic() < deadline:
            httpx.get(f"{url}/-/ready", trust_env=False)
            time.sleep(0.05)
