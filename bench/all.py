"""`make bench`: every benchmark in turn, each in a process of its own; figures and ratios, no verdict."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BENCHES = (
    "stage",
    "rehearsal",
    "fleet",
    "plan",
    "frames",
    "judge",
    "rollback",
    "recover",
    "evidence",
)


def main() -> int:
    worst = 0
    for name in BENCHES:
        print(f"== {name}", flush=True)
        worst = max(worst, subprocess.call([sys.executable, str(HERE / f"{name}.py")]))
    return worst


if __name__ == "__main__":
    raise SystemExit(main())
