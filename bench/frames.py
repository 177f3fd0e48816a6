"""A range answer of two million samples to a DataFrame, recorded on a tape.

Against prometheus-pandas, and against the bare read of the same bytes. From a real Prometheus when
`prometheus` and `promtool` are on PATH, else from a local server with made-up data. Medians, in
turn; the size of our memory is that of a fresh process.
"""

import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import requests
from prometheus_pandas.query import Prometheus as PrometheusPandas

from runbook_lib import reach
from runbook_lib.metrics.frames import Frame, fetch
from runbook_lib.sources.prometheus import Prometheus
from runbook_lib.sources.scope import Scope
from runbook_lib.sources.tape import LiveTape

SERIES, POINTS, STEP = 200, 10_000, timedelta(seconds=60)
END = datetime.fromtimestamp(int(time.time()) // 60 * 60 - 60, UTC)
START = END - (POINTS - 1) * STEP
RUNS = 5
AIM_PANDAS, AIM_READ, AIM_MEMORY = 5.0, 1.8, 2.0
SERVER = Path(__file__).with_name("range_server.py")


def samples(number: int) -> np.ndarray:
    """A latency in ms that wanders, with the digits that real means have."""
    noise = np.random.default_rng(number).normal(size=POINTS)
    return 400 + 10 * np.cumsum(noise) / np.sqrt(np.arange(1, POINTS + 1))


@contextmanager
def server(root: Path) -> Iterator[tuple[str, str]]:
    """(name, URL) of what answers range queries."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if shutil.which("prometheus") and shutil.which("promtool"):
        name, argv = "prometheus", _prometheus(root, port)
    else:
        name, argv = "made-up server", [sys.executable, str(SERVER), str(port)]
    url = f"http://127.0.0.1:{port}"
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            _until_ready(url, process)
            yield name, url
        finally:
            process.terminate()
            process.wait()


def _prometheus(root: Path, port: int) -> list[str]:
    text, data, config = root / "history", root / "data", root / "prometheus.yml"
    seconds = [int(START.timestamp()) + 60 * point for point in range(POINTS)]
    with text.open("w") as file:
        file.write("# TYPE latency gauge\n")
        for number in range(SERIES):
            for at, value in zip(seconds, samples(number).tolist(), strict=True):
                file.write(f'latency{{instance="n{number}"}} {value!r} {at}\n')
        file.write("# EOF\n")
    make = ["promtool", "tsdb", "create-blocks-from", "openmetrics"]
    subprocess.run(
        [*make, "--max-block-duration=240h", str(text), str(data)], check=True, capture_output=True
    )
    text.unlink()
    config.write_text("{}\n")
    return [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=30d",
        f"--web.listen-address=127.0.0.1:{port}",
    ]


def _until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit("the server ended before it was ready")
        try:
            if httpx.get(f"{url}/-/ready", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise SystemExit("the server was not ready in 30 s")


def ours(url: str, points: int = POINTS) -> Frame:
    """As a stage does it: through a tape that is written, into an aligned frame."""
    start = END - (points - 1) * STEP
    with tempfile.TemporaryDirectory() as folder:
        tape = LiveTape(Path(folder))
        scope = Scope(tape, "bench", 1)
        frame = fetch(Prometheus(scope, reach.Endpoint(url=url)), "latency", start, END)
    tape.close()
    return frame


def theirs(url: str) -> object:
    with requests.Session() as session:
        session.headers["accept-encoding"] = "identity"  # as we ask on loopback
        client = PrometheusPandas(url, session)
        return client.query_range("latency", START.timestamp(), END.timestamp(), 60.0)


def bare(url: str) -> int:
    form = {
        "query": "latency",
        "start": str(START.timestamp()),
        "end": str(END.timestamp()),
        "step": "60",
    }
    with httpx.Client(trust_env=False, headers={"accept-encoding": "identity"}) as client:
        return len(client.post(f"{url}/api/v1/query_range", data=form, timeout=60).content)


def measure(url: str, what: Callable[[str], object]) -> float:
    begin = time.perf_counter()
    what(url)
    return time.perf_counter() - begin


def extra_memory(url: str) -> int:
    """Bytes by which one frame raises a fresh process's peak, libraries loaded before."""
    argv = [sys.executable, __file__, url, END.isoformat()]
    return int(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)


def peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main() -> bool:
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (name, url):
        size = bare(url)
        frame, other = ours(url), theirs(url)
        assert np.allclose(frame.values.to_numpy(), other.to_numpy(), rtol=0, atol=0)
        times: dict[str, list[float]] = {"ours": [], "prometheus-pandas": [], "bare read": []}
        for _ in range(RUNS):
            for key, what in zip(times, (ours, theirs, bare), strict=True):
                times[key].append(measure(url, what))
        memory = extra_memory(url)
    print(f"{SERIES * POINTS:,} samples, {size / 1e6:.0f} MB from {name}; medians of {RUNS}:")
    medians = {key: statistics.median(values) for key, values in times.items()}
    for key, median in medians.items():
        print(f"  {key:<18} {median:6.2f} s")
    against_pandas = medians["prometheus-pandas"] / medians["ours"]
    against_read = medians["ours"] / medians["bare read"]
    print(f"  {against_pandas:.1f}x as fast as prometheus-pandas (aim at least {AIM_PANDAS:g})")
    print(f"  {against_read:.2f}x the bare read (aim at most {AIM_READ:g})")
    print(f"  {memory / size:.2f}x the body in memory (aim at most {AIM_MEMORY:g})")
    return against_pandas >= AIM_PANDAS and against_read <= AIM_READ and memory <= AIM_MEMORY * size


if __name__ == "__main__":
    if len(sys.argv) == 3:
        END = datetime.fromisoformat(sys.argv[2])
        ours(sys.argv[1], points=2)  # what is loaded on first use is not counted
        before = peak()
        ours(sys.argv[1])
        print(peak() - before)
    else:
        main()
