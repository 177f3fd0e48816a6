"""From `runbook recover` to the first gate off, the whole process, on the rehearsal network.

A canary apply is made in this process, then taken back by the command, a process of its own. The
instant is the journal's: the first node restarted on its previous configuration.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.stages.recovering import entries, fresh, recovering

RUNS, AIM_S = 3, 5.0


def first_gate_off(folder: Path) -> float:
    """When the first node was restarted, in seconds since 1970."""
    done = [e for e in entries(folder) if e["kind"] == "step" and e["body"]["phase"] == "done"]
    restarted = next(e for e in done if e["body"]["step"].startswith("restart"))
    return datetime.fromisoformat(restarted["at"]).timestamp()


def main() -> None:
    taken = []
    with tempfile.TemporaryDirectory(prefix="runbook-bench-") as scratch:
        root = Path(scratch) / "network"
        with recovering(root) as network:
            for number in range(RUNS):
                made = fresh(network, "mainnet", number)
                _, folder = made.apply("canary")
                params = folder / "recovery" / "params.yaml"
                command = [Path(sys.executable).parent / "runbook", "recover", "canary"]
                begun = time.time()
                subprocess.run([*command, "-f", params], capture_output=True, check=False)
                recovery = folder.parents[1] / "canary_recovery" / "0001"
                taken.append(first_gate_off(recovery) - begun)
    median = statistics.median(taken)
    print(f"runbook recover canary, to the first gate off: {median:.2f} s (aim: under {AIM_S:g} s)")


if __name__ == "__main__":
    main()
