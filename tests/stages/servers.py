"""Which Prometheus and Alertmanager the stages' networks run on: embedded ones, or the real ones.

``make torture SERVERS=real`` runs every fault once more over the real ones.
"""

from __future__ import annotations

import os
from typing import Literal

REAL = os.environ.get("RUNBOOK_TEST_SERVERS", "embedded") == "real"
SERVERS: Literal["real", "embedded"] = "real" if REAL else "embedded"
