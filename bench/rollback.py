"""A snapshot of 4 GiB checked as the preflight does, against hashlib.file_digest per core used.

Where the disk is short the snapshot is smaller, and the output says so. Each side runs in a process
of its own, in turn. "Per core used" is processor time: what other work on the machine takes is none
of either side's.
"""

import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from runbook_lib.sources import snapshots
from runbook_lib.sources.scope import Scope
from runbook_lib.sources.tape import LiveTape
from runbook_lib.sources.wire import decode

WHOLE, CHUNK, RUNS = 4 * 1024**3, 64 * 1024**2, 3
AIM, AIM_MIB = 1.15, 200


Times = tuple[float, float]
"""Wall time and processor time of all threads, in seconds."""


def now() -> Times:
    return time.perf_counter(), time.process_time()


def since(begun: Times) -> Times:
    wall, processor = now()
    return wall - begun[0], processor - begun[1]


def write(bundle: Path, size: int) -> None:
    """Chunks that differ, and their manifest."""
    (bundle / "chunks").mkdir(parents=True)
    (bundle / "manifest").mkdir()
    block, segments = os.urandom(CHUNK - 8), []
    for number in range(size // CHUNK):
        name, head = f"chunk-{number:05d}.bin", number.to_bytes(8)
        hashed = hashlib.sha256(head)
        hashed.update(block)
        with (bundle / "chunks" / name).open("wb") as file:
            file.write(head)
            file.write(block)
        segments.append({"segment_name": name, "size_bytes": CHUNK, "checksum": hashed.hexdigest()})
    document = {"version": 1, "segments": segments}
    (bundle / "manifest" / "chunks.json").write_text(json.dumps(document))


def ours(bundle: Path) -> Times:
    with tempfile.TemporaryDirectory() as folder:
        scope = Scope(LiveTape(Path(folder)), "bench", 1)
        begun = now()
        found = snapshots.Bundle(bundle, cast(Any, None), cast(Any, None))
        text = scope.read(bundle / snapshots.MANIFEST)
        manifest = decode(snapshots.MANIFEST, text, snapshots.Manifest, once=True)
        wrong = list(snapshots.wrong_chunks(scope, found, manifest))
        taken = since(begun)
    assert not wrong, wrong[0]
    return taken


def theirs(bundle: Path) -> Times:
    begun = now()
    for path in sorted((bundle / "chunks").iterdir()):
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256").hexdigest()
    return since(begun)


def measured(side: str, bundle: Path) -> tuple[float, float, float]:
    """Wall and processor time in seconds, and the most memory resident in MiB."""
    argv = [sys.executable, __file__, side, str(bundle)]
    env = {**os.environ, "RUNBOOK_HEADLESS": "1"}
    done = subprocess.run(argv, check=True, capture_output=True, text=True, env=env)
    wall, processor, mib = json.loads(done.stdout)
    return wall, processor, mib


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="runbook-bench-") as scratch:
        room = shutil.disk_usage(scratch).free // 3 // CHUNK * CHUNK
        size = min(WHOLE, max(room, CHUNK))
        bundle = Path(scratch) / "bundle"
        write(bundle, size)
        pairs = [(measured("ours", bundle), measured("theirs", bundle)) for _ in range(RUNS + 1)][
            1:
        ]
    mine, other = (
        [statistics.median(part) for part in zip(*side, strict=True)]
        for side in zip(*pairs, strict=True)
    )
    less = "" if size == WHOLE else f" (the disk is short: not {WHOLE // 1024**2:,} MiB)"
    print(f"snapshot of {size // 1024**2:,} MiB{less}; median of {RUNS}:")
    print(
        f"  ours                 {mine[0]:6.2f} s, {mine[1]:6.2f} s of processors, {mine[2]:.0f} MiB resident"
    )
    print(f"  hashlib.file_digest  {other[0]:6.2f} s, {other[1]:6.2f} s of processors")
    print(
        f"  ratio per core used {mine[1] / other[1]:.2f} (aim: at most {AIM}), {other[0] / mine[0]:.2f}x as fast"
    )
    print(f"  resident {mine[2]:.0f} MiB (aim: under {AIM_MIB})")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        taken = {"ours": ours, "theirs": theirs}[sys.argv[1]](Path(sys.argv[2]))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps([*taken, peak / 1024 if sys.platform != "darwin" else peak / 1024**2]))
    else:
        main()
