"""The plans of canary and mainnet for 500 validators, from the world as it is to the digest."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from runbook_lib.changes.phases import make_plan
from runbook_lib.changes.plan import Plan
from runbook_lib.changes.state import kept_config
from runbook_lib.context import Context
from runbook_lib.evidence.record import Record
from runbook_lib.evidence.store import Store
from runbook_lib.params import STAGE_PARAMS
from runbook_lib.site import Site
from runbook_lib.sources.http import Http
from runbook_lib.sources.redact import Redactor
from runbook_lib.sources.scope import Outside, Scope
from runbook_lib.sources.tape import LiveTape
from runbook_rehearsal.large import ARTIFACT, LargeFleet

NODES, AIM_S = 500, 10.0
NOWHERE = "http://127.0.0.1:9"


def site_of(fleet: LargeFleet) -> Site:
    root = fleet.root
    read = {"argv": ["cat", str(root / "nodes" / "{node}.toml")], "timeout_s": 10.0}
    values: dict[str, Any] = {
        "name": "large",
        "store": str(root / "store"),
        "single_operator": True,
        "bundle": {"path": str(root / "bundle.toml")},
        "people": [{"name": "Ada", "account": "ada"}],
        "stages": {"canary": "mainnet", "mainnet": "mainnet"},
        "clusters": {
            "mainnet": {"chain_id": "rpp", "nodes": fleet.nodes(), "rpc": {"per_minute": 6000}}
        },
        "telemetry": {
            "prometheus": {"url": NOWHERE},
            "alertmanager": {"url": NOWHERE},
            "backends": ["prometheus"],
        },
        "forge": {
            "kind": "github",
            "url": NOWHERE,
            "repository": "a/b",
            "ci": {"app": "ci", "required": ["tests"]},
        },
        "commands": {"read_config": read},
        "artifacts": {"node": str(root / ARTIFACT)},
    }
    return Site.model_validate(values)


def adopt(fleet: LargeFleet, store: Store) -> None:
    """Every node is known as it is."""
    opened = {"cluster": "mainnet", "mode": "adopt", "source": "live"}
    attempt = store.adopt("mainnet", opened)
    at = datetime.now(UTC).isoformat()
    for name, state in fleet.states().items():
        path = kept_config(attempt.folder, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((fleet.root / "nodes" / f"{name}.toml").read_bytes())
        attempt.record.append("state", {"item": "adopt", "node": name, "state": state, "at": at})


@contextmanager
def opened(fleet: LargeFleet, stage: str) -> Iterator[Context]:
    """A context in which a stage plans."""
    folder, now = fleet.root / stage, datetime.now(UTC)
    folder.mkdir()
    redactor = Redactor()
    outside = Outside(redactor, Http(redactor, transport=fleet.transport()))
    given = STAGE_PARAMS[stage]().model_dump() | {
        "site": "large",
        "release": "v1.4.0",
        "commit": "a" * 40,
        "window_start": now.isoformat(),
        "window_end": (now + timedelta(days=30)).isoformat(),
    }
    site = site_of(fleet)
    try:
        yield Context(
            item="stage.plan",
            stage=stage,
            params=STAGE_PARAMS[stage].model_validate(given),
            site=site,
            scope=Scope(LiveTape(folder / "tape", redactor), outside, "stage.plan", 1),
            store=Store(site.store_path),
            folder=folder,
            record=Record(folder / "record.jsonl"),
            journal=(),
            private=folder,
        )
    finally:
        outside.close()


def planned(fleet: LargeFleet, stage: str) -> tuple[Plan, float]:
    """The plan, and the seconds that it took."""
    with opened(fleet, stage) as context:
        begun = time.perf_counter()
        made = make_plan(context)
        _ = made.digest
        return made, time.perf_counter() - begun


def main() -> bool:
    with tempfile.TemporaryDirectory(prefix="runbook-bench-") as scratch:
        fleet = LargeFleet(Path(scratch) / "fleet", NODES)
        adopt(fleet, Store(site_of(fleet).store_path))
        taken = {}
        for stage in ("canary", "mainnet"):
            plan, taken[stage] = planned(fleet, stage)
            waves = sum(len(phase.waves) for phase in plan.phases)
            print(f"{stage}: {len(plan.nodes)} of {NODES} nodes in {waves} waves:"
                  f" {taken[stage]:.2f} s (aim: at most {AIM_S:g} s)")  # fmt: skip
    return max(taken.values()) <= AIM_S


if __name__ == "__main__":
    main()
