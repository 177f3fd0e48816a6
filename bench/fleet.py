"""`/status/rollout` of 500 nodes that each answer after 20 ms, against asking one after the other."""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from runbook_lib import site
from runbook_lib.errors import SourceError
from runbook_lib.sources.node import Fleet
from runbook_lib.sources.scope import Scope
from runbook_lib.sources.tape import LiveTape
from runbook_rehearsal.loopback import Loopback, free_addresses

NODES, DELAY_S, RUNS = 500, 0.02, 5
AIM = 12.0


def ours(cluster: site.Cluster) -> float:
    """As a stage does it, the tape included."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        tape = LiveTape(Path(folder))
        scope = Scope(tape, "bench", 1)
        found = Fleet(scope, cluster).rollout()
        taken = time.perf_counter() - begin
    tape.close()
    failed = [str(each) for each in found.values() if isinstance(each, SourceError)]
    assert not failed, failed[0]
    return taken


def one_at_a_time(urls: list[str]) -> float:
    with httpx.Client(trust_env=False) as client:
        begin = time.perf_counter()
        for url in urls:
            client.get(f"{url}/status/rollout").json()
        return time.perf_counter() - begin


@contextmanager
def listeners() -> Iterator[list[str]]:
    """URLs of nodes in a process of their own, which ends with our end of its input."""
    argv = [sys.executable, __file__, "serve"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.stdin.close()


async def node(scope: Any, receive: Any, send: Any) -> None:
    """Answers /status/rollout, and nothing else is asked for."""
    body = b'{"release_channel":"testnet","feature_gates":{},"telemetry":{"enabled":false}}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await asyncio.sleep(DELAY_S)
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve() -> None:
    loopback = Loopback()
    loopback.start()
    hosts = [f"127.2.{number // 250}.{number % 250 + 1}" for number in range(NODES)]
    heard = [loopback.listen(node, *address) for address in free_addresses([hosts])[0]]
    print(json.dumps([f"http://{host}:{port}" for host, port in heard]), flush=True)
    sys.stdin.read()
    loopback.stop()


def main() -> bool:
    with listeners() as urls:
        nodes = [site.Node(name=f"n{number}", url=url) for number, url in enumerate(urls)]
        cluster = site.Cluster(chain_id="bench", nodes=nodes)
        ours(cluster)
        fleet = statistics.median(ours(cluster) for _ in range(RUNS))
        serial = one_at_a_time(urls)
    print(f"{NODES} nodes, {DELAY_S * 1000:g} ms each; median of {RUNS} against one run:")
    print(f"  ours             {fleet:6.2f} s")
    print(f"  one at a time    {serial:6.2f} s")
    print(f"  {serial / fleet:.1f}x as fast (aim at least {AIM:g})")
    return serial / fleet >= AIM


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
