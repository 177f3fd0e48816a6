"""The processes of a real Prometheus and Alertmanager: start, wait until ready, stop."""

import shutil
import subprocess
import time
from functools import partial
from pathlib import Path

import httpx

from ..loopback import bind

READY_TIMEOUT_S = 20.0
KEEP = "90d"
# The program ends with us, however we end: a watcher kills it when our end of the pipe closes.
_WATCHED = 'exec 3<&0; (read _line <&3; kill $$) & exec "$@" 3<&- </dev/null'
BINARIES = {
    "prometheus": ("prometheus",),
    "alertmanager": ("alertmanager", "prometheus-alertmanager"),  # Debian's name
}


def binary(program: str) -> str | None:
    """The path of a program under any of its names, None when it is not installed."""
    found = (shutil.which(name) for name in BINARIES[program])
    return next((path for path in found if path), None)


def free_port() -> int:
    listener = bind("127.0.0.1", 0)
    port: int = listener.getsockname()[1]
    listener.close()
    return port


class Server:
    """One server process on a loopback port; its output goes to a log file."""

    def __init__(self, command: list[str], url: str, log: Path) -> None:
        self.command, self.url, self.log = command, url, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["/bin/sh", "-c", _WATCHED, "sh", *self.command]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                tail = self.log.read_text(errors="replace")[-800:]
                raise RuntimeError(f"{self.command[0]}: did not become ready: {tail}")
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is None:
            return
        try:
            self._process.communicate(timeout=10)  # closes the pipe
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._process = None

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready", timeout=1, trust_env=False).is_success
        except httpx.TransportError:
            return False


OPTIONS = {
    "prometheus": (
        "--config.file={root}/prometheus.yml",
        "--storage.tsdb.path={root}/data",
        f"--storage.tsdb.retention.time={KEEP}",
        # One block holds it all, so that samples may come in series by series.
        f"--storage.tsdb.min-block-duration={KEEP}",
        f"--storage.tsdb.max-block-duration={KEEP}",
        "--web.enable-remote-write-receiver",
        "--web.enable-admin-api",
        "--web.listen-address=127.0.0.1:{port}",
        "--web.enable-lifecycle",
        # An alert that was pending or firing before a restart is so at once again.
        "--rules.alert.for-grace-period=0s",
        # The first notification comes before the Alertmanager is known, and is lost.
        "--rules.alert.resend-delay=2s",
        "--log.level=warn",
    ),
    "alertmanager": (
        "--config.file={root}/alertmanager.yml",
        "--storage.path={root}/data",
        "--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ),
}


def _server(program: str, root: Path, port: int) -> Server:
    path = binary(program)
    assert path is not None
    command = [path, *(option.format(root=root, port=port) for option in OPTIONS[program])]
    return Server(command, f"http://127.0.0.1:{port}", root / "log")


prometheus, alertmanager = partial(_server, "prometheus"), partial(_server, "alertmanager")
