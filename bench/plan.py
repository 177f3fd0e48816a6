"""The plans of canary and mainnet for 500 validators, from the world as it is to the digest."""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from runbook_lib.changes.targets import make_plan
from runbook_lib.context import Context
from runbook_lib.evidence.events import Adopting, NodeVerified
from runbook_lib.evidence.ledger import kept_config
from runbook_lib.evidence.log import Log
from runbook_lib.evidence.store import Store
from runbook_lib.params import STAGE_PARAMS
from runbook_lib.plan import NodeState, Plan
from runbook_lib.site import Site
from runbook_lib.sources.scope import Scope
from runbook_lib.sources.tape import LiveTape
from runbook_rehearsal.chain.templates import bundle, node_config, profile
from runbook_rehearsal.chain.world import ClusterSpec, make_cluster
from runbook_rehearsal.files import digest_of

NODES, AIM_S = 500, 10.0
NOWHERE = "http://127.0.0.1:9"
ARTIFACT, BEFORE = "artifacts/rpp-node", "artifacts/previous"


class LargeFleet:
    """A mainnet of hundreds of validators without a listener: their files, and what each would answer.

    ``size`` nodes below ``root``: ``sizes`` over 5 have three operators', as every rehearsal.
    """

    def __init__(self, root: Path, size: int) -> None:
        self.root = root
        addresses = [(f"127.3.{n // 250}.{n % 250 + 1}", 7070) for n in range(size)]
        self.cluster: ClusterSpec = make_cluster("mainnet", addresses, 1, 0.0)
        self._channel, self._gates = "mainnet", profile("development")
        # Validators joined since: the genesis accounts in a file are no more than elsewhere.
        genesis = replace(self.cluster, nodes=self.cluster.nodes[:7])
        (root / "nodes").mkdir(parents=True)
        (root / "artifacts").mkdir()
        (root / "bundle.toml").write_text(bundle())
        (root / ARTIFACT).write_text("the release\n")
        (root / BEFORE).write_text("the release before\n")
        for node in self.cluster.nodes:
            text = node_config(node, genesis, self._channel, self._gates)
            (root / "nodes" / f"{node.name}.toml").write_text(text)
        self._answers = {path: json.dumps(answer()).encode() for path, answer in self._views()}

    def states(self) -> dict[str, dict[str, Any]]:
        """What every node is: gates, channel, binary and config digest."""
        return {
            node.name: {
                "gates": self._gates,
                "channel": self._channel,
                "binary": digest_of(self.root / BEFORE),
                "config": digest_of(self.root / "nodes" / f"{node.name}.toml"),
                "artifact": digest_of(self.root / BEFORE),
            }
            for node in self.cluster.nodes
        }

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes as a site file lists them."""
        return [
            {"name": n.name, "url": n.url, "validator": n.validator, "peer": n.peer,
             "control": n.control, "operator": n.operator, "canary": n.canary}
            for n in self.cluster.nodes
        ]  # fmt: skip

    def transport(self) -> httpx.MockTransport:
        """Answers every node's RPC in this process."""

        def answer(request: httpx.Request) -> httpx.Response:
            body = self._answers.get(request.url.path)
            headers = {"content-type": "application/json"}
            return httpx.Response(
                404 if body is None else 200, content=body or b"", headers=headers
            )

        return httpx.MockTransport(answer)

    def _views(self) -> list[tuple[str, Callable[[], Any]]]:
        return [
            ("/ui/bft/membership", self._membership),
            ("/status/consensus", self._consensus),
            ("/status/rollout", self._rollout),
        ]

    def _membership(self) -> Any:
        validators = [
            {"address": n.validator, "stake": str(n.stake), "reputation_score": n.reputation,
             "tier": "Tl5", "timetoke_hours": n.timetoke_hours}
            for n in self.cluster.nodes
        ]  # fmt: skip
        return {"height": 1, "epoch": 0, "validators": validators, "observers": []}

    def _consensus(self) -> Any:
        total = sum(
            n.stake * (round(n.reputation * 1000) + 1000) * (n.timetoke_hours + 1)
            for n in self.cluster.nodes
        )
        quorum = -(-2 * total // 3) + 1
        return {
            "height": 1, "block_hash": "00", "round": 0, "epoch": 0, "total_power": str(total),
            "quorum_threshold": str(quorum), "commit_power": str(total), "quorum_reached": True,
            "round_latencies_ms": [1], "leader_changes": 0, "witness_events": 0,
            "slashing_events": 0, "failed_votes": 0,
        }  # fmt: skip

    def _rollout(self) -> Any:
        telemetry = {"enabled": True, "endpoint": None}
        gates = dict(self._gates)
        return {"release_channel": self._channel, "feature_gates": gates, "telemetry": telemetry}


def site_of(fleet: LargeFleet) -> Site:
    root = fleet.root
    read = {"argv": ["cat", str(root / "nodes" / "{node}.toml")], "timeout_s": 10.0}
    values: dict[str, Any] = {
        "name": "large",
        "signing": "none",
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
    opened = Adopting(cluster="mainnet", source="live", site="large", operator="bench")
    attempt, at = store.adopt(opened), datetime.now(UTC)
    for name, state in fleet.states().items():
        path = kept_config(attempt.folder, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((fleet.root / "nodes" / f"{name}.toml").read_bytes())
        read = NodeState.model_validate(state)
        attempt.log.append(NodeVerified(item="adopt", node=name, state=read, at=at))


@contextmanager
def opened(fleet: LargeFleet, stage: str) -> Iterator[Context]:
    """A context in which a stage plans."""
    folder, now = fleet.root / stage, datetime.now(UTC)
    folder.mkdir()
    tape = LiveTape(folder / "tape", transport=fleet.transport())
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
            scope=Scope(tape, "stage.plan", 1),
            store=Store(site.store_path),
            folder=folder,
            log=Log(folder / "log.jsonl"),
            journal=(),
            private=folder,
        )
    finally:
        tape.close()


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
