"""The files of a rehearsal network: bundle, checkout, artifacts, nodes' folders, site, parameters."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from .chain.templates import node_config
from .chain.world import STAGE_CLUSTERS, ClusterSpec, World, profile
from .files import MEMBER, pack, unpack, write_atomically
from .nodes import assets, storage
from .nodes.fleet import Build, read_build

PROJECT = Path(__file__).resolve().parents[1]
RELEASE, PREVIOUS = "v1.4.0", "v1.3.0"
ISSUE = 42
OPERATOR, COMMANDER, SECOND = "rehearsal", "rehearsal-commander", "rehearsal-second"
COUNCILLORS = ("rehearsal-council-a", "rehearsal-council-b")
REPOSITORY = "HUBId/chain"
ARTIFACT = "rpp-node.tar.gz"
SECRETS = ("RPP_RPC_TOKEN", "GITHUB_TOKEN", "GRAFANA_TOKEN")
IDENTITY = f"https://github.com/{REPOSITORY}/.github/workflows/release.yml@refs/heads/main"
ISSUER = "https://token.actions.githubusercontent.com"
REQUIRED_CHECKS = ("integration tests", "property tests")
BEGINS_H = {"preflight": 0.0, "development": 0.0, "testnet": 50.0, "canary": 72.0, "mainnet": 120.0}
WINDOW = timedelta(hours=8)
SOAK = timedelta(hours=49)
NOTICE = timedelta(hours=25)
"""How long before its window validators are told of mainnet: a little more than the notice."""
EPOCHS = {"canary": 11, "mainnet": 18}
"""Whole epochs that pass since the stage before; on mainnet more than the playbook wants, as what
hardly ever moves needs them to prove that nothing got worse."""
TOLD = {
    "summary": "Rehearsed: the release is taken back after its change took effect.",
    "impact": "Blocks were late or missing on the affected cluster; no funds were at risk.",
    "mitigations": ["gates off on the affected nodes", "previous configuration redeployed"],
    "next_steps": ["find the cause on development", "carry the release from the start"],
}
"""What a rehearsal's commander tells people of an incident."""


@dataclass(frozen=True)
class Release:
    commit: str
    artifact: Path
    previous: Build
    version: str = RELEASE

    @property
    def previous_artifact(self) -> Path:
        return self.artifact.parent.parent / self.previous.version / ARTIFACT


def token(seed: int, name: str) -> str:
    return hashlib.sha256(f"rehearsal/{seed}/{name}".encode()).hexdigest()[:40]


def write_release(root: Path, seed: int) -> Release:
    before, commit = _write_checkout(root / "checkout", seed)
    previous = _write_artifact(root / "artifacts" / PREVIOUS, seed, PREVIOUS, before)
    artifact = _write_artifact(root / "artifacts" / RELEASE, seed, RELEASE, commit)
    return Release(commit, artifact, read_build(previous.name, unpack(previous)))


def write_next_release(root: Path, seed: int, before: Release, version: str) -> Release:
    """The release after ``before``: one more commit, checked out, and an artifact of it."""
    commit = _commit(root / "checkout", seed, version)
    artifact = _write_artifact(root / "artifacts" / version, seed, version, commit)
    return Release(commit, artifact, read_build(ARTIFACT, unpack(before.artifact)), version)


def _write_artifact(folder: Path, seed: int, version: str, commit: str) -> Path:
    folder.mkdir(parents=True)
    filler = "\n".join(f"# pad: {token(seed, f'{version}/{line}')}" for line in range(64))
    binary = (
        f"#!/bin/sh\n# A stand-in: only the rehearsal network can run it.\n"
        f"# version: {version}\n# commit: {commit}\n{filler}\necho rpp-node {version}\n"
    )
    path = folder / ARTIFACT
    path.write_bytes(pack(binary.encode()))
    return path


def _write_checkout(path: Path, seed: int) -> tuple[str, str]:
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    return _commit(path, seed, PREVIOUS), _commit(path, seed, RELEASE)


def _commit(path: Path, seed: int, version: str) -> str:
    (path / "VERSION").write_text(f"{version} {token(seed, version)}\n")
    git(path, "add", "VERSION")
    git(path, "commit", "-q", "-m", f"Release {version}")
    return git(path, "rev-parse", "HEAD").strip()


def git(path: Path, *args: str) -> str:
    """git in that repository, free of the user's configuration. Raises CalledProcessError."""
    by = {"DATE": "2026-01-01T00:00:00Z", "NAME": "Rehearsal", "EMAIL": "rehearsal@example.invalid"}
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": by[what] for who in ("AUTHOR", "COMMITTER") for what in by},
    }
    done = subprocess.run(
        ["git", "-C", path, *args], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def spoil_checkout(root: Path, fault: str) -> None:
    """A file that nobody committed, or the commit before."""
    if "dirty" in fault:
        (root / "checkout" / "local-change.patch").write_text("not committed\n")
    else:
        git(root / "checkout", "checkout", "-q", "--detach", "main~1")


def write_nodes(world: World, release: Release, cluster: str) -> None:
    """Each node's folder: its configuration of the past, and the previous binary."""
    binary = unpack(release.previous_artifact)
    spec, gates = world.clusters[cluster], profile("development")
    for node in spec.nodes:
        folder = world.node_dir(cluster, node.name)
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        (folder / "config.toml").write_text(node_config(node, spec, cluster, gates))
        write_atomically(folder / "bin" / "rpp-node", binary, 0o755)
        write_data(world, cluster, folder)


def write_data(world: World, cluster: str, folder: Path) -> None:
    """A node's data, as those of one that has followed its chain; whole ones stay."""
    spec, data = world.clusters[cluster], folder / "data"
    shutil.rmtree(folder / "kept", ignore_errors=True)
    if storage.problem(data) or (data / storage.RESTORED).exists():
        shutil.rmtree(data, ignore_errors=True)
        height = int((world.clock.now() - spec.genesis) / spec.block_time_s)
        storage.write(data, storage.key_of(world.seed, spec.chain_id), height)


def site(world: World, urls: Mapping[str, str], keys: Mapping[str, str]) -> dict[str, Any]:
    """The site file but for people and commands; ``urls`` by server, validators' ``keys`` by node."""
    root = world.root
    return {
        "name": "rehearsal",
        "clock": {"source": "offset-file", "path": shown(world.clock.path)},
        "store": shown(root / "store"),
        "kits": shown(root / "kits"),
        "bundle": {"path": shown(root / "bundle" / "mainnet.toml")},
        "words": shown(root / "words" / "{release}"),
        "stages": dict(STAGE_CLUSTERS),
        "clusters": {name: _cluster(world, spec, keys) for name, spec in world.clusters.items()},
        "telemetry": {
            "prometheus": {"url": urls["prometheus"], "timeout_s": 10.0},
            "alertmanager": {"url": urls["alertmanager"], "timeout_s": 10.0},
            "matchers": {name: {"cluster": name} for name in world.clusters},
            "node_label": "instance",
            "watchdog": "Watchdog",
            "paging_severities": ["critical", "page"],
            "paging_labels": {"team": "consensus"},
            "rules": [shown(root / "prometheus" / "rules")],
            "backends": ["prometheus", "alertmanager"],
        },
        "dashboards": {
            "grafana": {"url": urls["grafana"], "token_env": "GRAFANA_TOKEN", "timeout_s": 5.0},
            "topics": {
                "consensus_health": ["consensus-health"],
                "proof_latency": ["proof-latency"],
                "vrf_participation": ["vrf-participation"],
                "network_churn": ["params/dashboards/network_churn.json"],
            },
        },
        "forge": {
            "kind": "github",
            "url": urls["forge"],
            "repository": REPOSITORY,
            "token_env": "GITHUB_TOKEN",
            "timeout_s": 5.0,
            "ci": {"app": "github-actions", "required": list(REQUIRED_CHECKS)},
            "risk": {"low": "low-risk", "above": ["medium-risk", "high-risk"]},
        },
        "artifacts": {"node": shown(root / "artifacts" / "{release}" / ARTIFACT)},
        "binary_member": MEMBER,
        "artifact_signing": {
            "identity": IDENTITY,
            "issuer": ISSUER,
            "trusted_root": shown(trusted_root(root)),
            "log": {"url": urls["log"], "timeout_s": 5.0},
            "manifest": shown(root / "artifacts" / "{release}" / "SHA256SUMS.txt"),
            "provenance": "{path}.intoto.jsonl",
            "sbom": shown(root / "artifacts" / "{release}" / "sbom-rpp-node.json"),
        },
    }  # fmt: skip


def trusted_root(root: Path) -> Path:
    return root / "signing" / "trusted_root.json"


def _cluster(world: World, spec: ClusterSpec, keys: Mapping[str, str]) -> dict[str, Any]:
    nodes = [
        {
            "name": node.name,
            "validator": node.validator,
            "peer": node.peer,
            "control": node.control,
            "signoff_key": keys[node.name],
            "url": node.url,
            **({"operator": node.operator} if node.operator else {}),
            **({"canary": True} if node.canary else {}),
        }
        for node in spec.nodes
    ]
    return {
        "chain_id": spec.chain_id,
        "epoch_length": spec.epoch_length,
        "block_time_ms": round(spec.block_time_s * 1000),
        "rpc": {"token_env": "RPP_RPC_TOKEN", "timeout_s": 1.0},
        "rollback": assets.section(world, spec.name, shown),
        "nodes": nodes,
    }


def shown(path: Path) -> str:
    """A path as the site file writes it: relative to the project, below which commands run."""
    return str(path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path)


def parameters(world: World, release: Release, stage: str) -> dict[str, Any]:
    """The papermill parameters of a runbook, for a window that begins in some hours."""
    start = _now(world) + timedelta(hours=BEGINS_H[stage])
    if BEGINS_H[stage]:
        return rollout(world, release, start, start + WINDOW)
    if stage == "preflight":
        return {**common(world, release), "stage": "development"}
    return {**_about(world, release, "apply"), "baseline_hours": 1.0}


def common(world: World, release: Release) -> dict[str, Any]:
    about = {"release": release.version, "commit": release.commit, "issue": ISSUE}
    return {"site": shown(world.root / "site.yaml"), **about}


def _about(world: World, release: Release, mode: str) -> dict[str, Any]:
    before = release.previous.version
    return {**common(world, release), "mode": mode, "previous_release": before}


def schedule(world: World, stage: str) -> tuple[datetime, datetime, datetime]:
    """When a stage that comes next is to be planned, and its change window."""
    spec = world.clusters["mainnet"]
    seconds = EPOCHS.get(stage, 0) * spec.epoch_length * spec.block_time_s
    wait = timedelta(seconds=seconds) + timedelta(minutes=10) if seconds else SOAK
    due = _now(world) + wait
    start = due + (NOTICE if stage == "mainnet" else timedelta())
    return due, start, start + WINDOW


def _now(world: World) -> datetime:
    return datetime.fromtimestamp(world.clock.now(), UTC).replace(microsecond=0)


def rollout(
    world: World, release: Release, start: datetime, end: datetime, **more: Any
) -> dict[str, Any]:
    window = {"window_start": start.isoformat(), "window_end": end.isoformat()}
    stage = {"minutes_per_node": 5.0, "baseline_hours": 18.0}
    return {**_about(world, release, "plan"), **stage, **window, **more}


def recovery(world: World, release: Release) -> dict[str, Any]:
    return {**_about(world, release, "apply"), **TOLD}


def write_yaml(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(dict(document), sort_keys=False))
