"""A storage recovery in a process of its own, which a test kills as in ``activation.py``.

``python restoring.py STAGE PARAMS.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from runbook_lib.checks import restoring
from runbook_lib.stage import open_stage

CHANGES = {
    "development": restoring.restore_state,
    "testnet": restoring.storage,
    "canary": restoring.halt_fallback,
    "mainnet": restoring.restore,
}


def main() -> int:
    from activation import watch_appends  # beside this file

    name, params = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    stage = open_stage(f"{name}_recovery", **params)
    watch_appends()
    try:
        stage.change(CHANGES[name])
    finally:
        stage.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
