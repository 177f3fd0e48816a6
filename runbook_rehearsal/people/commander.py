"""Who is told: every notification is kept, and the release commander and the council act on theirs.

They acknowledge at once, unless a fault keeps them silent, and decide as the fault that is on would
have a person decide. Two of the council's three members approve what they are asked to.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ..files import write_atomically
from ..layout import COMMANDER, COUNCILLORS, ISSUE

if TYPE_CHECKING:
    from ..network import RehearsalNetwork

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
    if role == "governance-council" and subject.startswith("council convened"):
        _approve(network, text)
    found = re.search(r"\bA[0-9a-f]{8}\b", subject)
    if role != "release-commander" or found is None or network.faults.is_on("commander-silent"):
        return
    network.forge.say(COMMANDER, f"acknowledge-anomaly {found[0]}", issue=ISSUE)
    for active in network.faults:
        if active.name in DECISIONS:
            network.forge.say(COMMANDER, f"decide {found[0]} {DECISIONS[active.name]}", issue=ISSUE)


def _approve(network: RehearsalNetwork, text: str) -> None:
    """The council's word in the release issue: at once, a day and an hour later, or never."""
    asked = re.search(r"approve sha256:[0-9a-f]{64}", text)
    if asked is None or network.faults.is_on("council-silent"):
        return
    at = datetime.fromtimestamp(network.world.clock.now(), UTC)
    if network.faults.is_on("council-late"):
        at += timedelta(hours=25)
    for account in COUNCILLORS:
        network.forge.say(account, asked[0], at=at, issue=ISSUE)
