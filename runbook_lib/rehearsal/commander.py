"""Who is told of an anomaly: every notification is kept, and the release commander acts on theirs.

They acknowledge at once, unless a fault keeps them silent, and decide as the fault that is on would
have a person decide.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from .files import write_atomically
from .layout import COMMANDER, ISSUE

if TYPE_CHECKING:
    from .network import RehearsalNetwork

DECISIONS = {
    "participation-dip": "restart the pool was moved to another zone",
    "proof-slow": "continue a batch of large proofs, it is over",
    "consensus-stall": "recover the chain stands still",
    "replay-stall": "recover replay stands still",
}


def notified(network: RehearsalNetwork, role: str, subject: str, text: str) -> None:
    """Keep it in ``notifications.json``, and act as the commander would."""
    path = network.root / "notifications.json"
    before = json.loads(path.read_text()) if path.exists() else []
    told = {"role": role, "subject": subject, "text": text}
    write_atomically(path, json.dumps([*before, told], indent=1))
    found = re.search(r"\bA[0-9a-f]{8}\b", subject)
    if role != "release-commander" or found is None or network.faults.is_on("commander-silent"):
        return
    network.forge.say(COMMANDER, f"acknowledge-anomaly {found[0]}", issue=ISSUE)
    for active in network.faults:
        if active.name in DECISIONS:
            network.forge.say(COMMANDER, f"decide {found[0]} {DECISIONS[active.name]}", issue=ISSUE)
