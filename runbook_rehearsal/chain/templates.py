"""The TOML files of the network: the nodes' configurations and the rollout bundle."""

from collections.abc import Mapping

from .node_config import ADMISSION_TIERS, CHANNELS, GATES
from .world import ClusterSpec, NodeSpec, profile

_WINDOWS = ("daily", "twice-weekly", "weekly", "scheduled-maintenance")


def _export(on: bool, *target: str) -> str:
    flag, lines = str(on).lower(), "\n".join(target)
    return f"""\
[network.admission.worm_export]
enabled = {flag}
required = {flag}
retention_days = 90
require_signatures = true

[network.admission.worm_export.target]
{lines}
"""


NO_EXPORT = _export(False, 'kind = "command"', 'program = "tools/worm-export/worm-export"')


def node_config(
    node: NodeSpec, cluster: ClusterSpec, channel: str, gates: Mapping[str, bool]
) -> str:
    """A node's commented configuration; every root scalar stands before the first table header."""
    gate_lines = "\n".join(f"{gate} = {str(gates[gate]).lower()}" for gate in GATES)
    export = NO_EXPORT
    if channel in ("canary", "mainnet"):  # the node refuses these without an s3 target
        endpoint = f'endpoint = "https://worm.{cluster.name}.internal"'
        keys = ('access_key = "rehearsal"', 'secret_key = "rehearsal-throwaway"')
        export = _export(True, 'kind = "s3"', endpoint, 'bucket = "admission-audit"', *keys)
    accounts = "\n".join(
        f'[[genesis.accounts]]\naddress = "{peer.validator}"\nbalance = 1000000000\n'
        f'stake = "{peer.stake}"\n'
        for peer in cluster.nodes
    )
    return f"""\
# {node.name}: validator of {cluster.chain_id}. Change it by deploying a new file, then restart.
config_version = "1.0"

data_dir = "./data"
key_path = "./keys/node.toml"
p2p_key_path = "./keys/p2p.toml"
vrf_key_path = "./keys/vrf.toml"
snapshot_dir = "./data/snapshots"
proof_cache_dir = "./data/proofs"
block_time_ms = {round(cluster.block_time_s * 1000)} # the whole cluster shares it
max_block_transactions = 512
max_block_identity_registrations = 32
mempool_limit = 8192
epoch_length = {cluster.epoch_length} # blocks
target_validator_count = 100
max_proof_size_bytes = 4194304

[rollout]
release_channel = "{channel}"

# Gates graduate from development to mainnet; a restart makes a change effective.
[rollout.feature_gates]
{gate_lines}

[rollout.telemetry]
enabled = true
endpoint = "http://collector.{cluster.name}.internal:4317"
sample_interval_secs = 15 # validators are sampled more often than plain nodes

[network.rpc]
listen = "{node.host}:{node.port}"

[network.limits.per_ip_token_bucket]
enabled = true
burst = 120
replenish_per_minute = 60

[network.p2p]
listen_addr = "/ip4/{node.host}/tcp/7600"
heartbeat_interval_ms = 3000 # faster than the default, for leader sync
gossip_enabled = true

{_admission(export)}
[genesis]
chain_id = "{cluster.chain_id}"

{accounts}"""


def bundle() -> str:
    """A rollout bundle of the chain's schema. It leaves worm_export to each node's file: with the
    table of the chain's own bundle (``NO_EXPORT``) nodes refuse to start on canary and mainnet."""
    stages = "\n".join(map(_stage, CHANNELS, _WINDOWS))
    return f"""\
version = 1
bundle = "mainnet-rollout"
description = "Stages of a rollout to mainnet, as the rehearsal network practises it"
node_template = "../validator.toml"
wallet_template = "../wallet.toml"
notes = ["Gates only ever turn on from one stage to the next."]

{stages}
{_admission("")}"""


def _stage(stage: str, window: str) -> str:
    gates = ", ".join(f"{gate} = {str(on).lower()}" for gate, on in profile(stage).items())
    page = "docs/deployment/staged_rollout.md"
    return f"""\
[[stages]]
name = "{stage}"
release_channel = "{stage}"
change_window = "{window}"
feature_gates = {{ {gates} }}
release_checks = ["{page}#{stage}-readiness", "{page}#common-preflight-checks"]
recovery_playbook = "{page}#{stage}-recovery"
"""


def _admission(worm_export: str) -> str:
    topics = "\n".join(
        f'[network.admission.defaults.{topic}]\nsubscribe = "tl0"\npublish = "{tier}"\n'
        for topic, tier in ADMISSION_TIERS.items()
    )
    return f"""\
[network.admission]
policy_path = "./data/p2p/admission_policies.json"
audit_retention_days = 30

[network.admission.signing]
enabled = false
key_path = "./secrets/admission_signing.toml"
active_key = "admission_dev"

[network.admission.signing.trust_store]
admission_dev = "{"0" * 64}"

{worm_export}
{topics}
[admission_reconciler]
cadence_secs = 60
drift_alert_threshold = 1
max_audit_lag_secs = 300
"""
