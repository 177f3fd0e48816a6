"""Faults by name: what each breaks, which item must notice, and with which outcome.

A fault without an entry in ``effects.EFFECTS`` is acted out by the layer that it names.
``NAME@STAGE`` breaks the cluster of that stage, ``NAME@STAGE/NODE`` another node than the default.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..chain.world import STAGE_CLUSTERS, Event, World

Layer = Literal[
    "config", "rpc", "forge", "command", "chain", "telemetry", "assets", "grafana", "release",
    "operator",
]  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """``outcome`` is what all ``items`` must come to, each at its own stage.

    ``layer`` is the part that acts it out; ``stage`` is one at which it shows. One of the chain or
    its telemetry is the whole cluster's unless ``node`` is given. No real server has ``embedded``.
    """

    name: str
    items: tuple[str, ...]
    outcome: Literal["PASS", "FAIL", "INCONCLUSIVE"]
    text: str
    layer: Layer
    stage: str = "development"
    node: str = ""
    embedded: bool = False

    @property
    def item(self) -> str:
        return self.items[0]

    def place(self, item: str) -> str:
        """The stage on whose cluster it comes, for ``item`` to notice it."""
        stage = item.partition(".")[0]
        return JUDGED_BEFORE.get(item) or (stage if stage in STAGE_CLUSTERS else self.stage)

    def turn(self, place: str) -> str:
        """The stage before which it begins when it comes at ``place``: the one that must notice."""
        for item, before in JUDGED_BEFORE.items():
            if item in self.items and before == place:
                return item.partition(".")[0]
        return place

    def comes_with_change(self, stage: str) -> bool:
        """Whether it begins with what the stage changes: from the start on it would be part of the
        past that is compared, or stop the stage before. A lasting dip would restart the watch."""
        mine = any(item.startswith(f"{stage}.") for item in self.items)
        return mine and self.item in _OBSERVING and self.name != "participation-dip"


JUDGED_BEFORE = {"testnet.ready.soak": "development", "canary.ready.epochs-clean": "testnet"}
"""Items that judge the stage before: their faults come on its cluster, once its time has passed."""

_DRIFT = ("preflight.config-drift",)
_BINARY = ("preflight.binary-verification",)
_WATCHED = ("preflight.observability",)
_ASSETS = ("preflight.rollback-assets",)
_ISSUE = ("preflight.release-issue",)
_CI = ("development.ready.ci-green",)
_REACHABLE = ("development.ready.telemetry-reachable",)
_PROVISION = ("development.ready.provision",)
_DEPLOY = ("development.activate.deploy",)
_SUITES = ("development.activate.smoke-suites",)
_BASELINE = ("development.activate.baseline",)
_SOAK = ("testnet.ready.soak",)
_GATE = ("testnet.activate.gate",)
_EPOCHS = ("canary.ready.epochs-clean",)
_CANDIDATE = ("canary.ready.candidate-installed",)
_ALERTS = ("canary.ready.alerts-active",)
_OBSERVE = ("canary.activate.observe",)
_CLIENTS = ("canary.activate.witness-clients",)
_REGRESSION = ("mainnet.ready.no-regression",)
_GATES = ("testnet.ready.gates",)
_REWARDS = ("canary.activate.rewards-gate",)
_ROLLED = ("testnet.activate.deploy",)
_WATCH = ("mainnet.activate.watch",)
_ANNOUNCE = ("mainnet.activate.announce",)
_WITNESS = ("mainnet.activate.witness-gate",)
_RESTORE = ("development.recover.restore-state",)
_STORAGE = ("testnet.recover.storage",)
_FALLBACK = ("canary.recover.halt-fallback",)
_AGAIN = ("mainnet.recover.restore",)
_ACK = ("testnet.ready.validators-acknowledged",)
_SIGN = ("mainnet.ready.validators-signed-off",)
_HOTFIX = ("mainnet.ready.hotfix-branches",)
_INCIDENT = ("development.recover.incident",)
_HALT = ("testnet.recover.halt",)
_GOVERNANCE = ("testnet.recover.governance-incident",)
_REPORT = ("canary.recover.public-report",)
_COUNCIL = ("mainnet.recover.council",)
_REVERT = ("development.recover.revert-build",)
_GATES_OFF = ("canary.recover.disable-gates",)
_STALL = ("mainnet.recover.stall",)
_CUT_OFF = _GATES_OFF + _REVERT + _STALL
_DEPLOYS = _DEPLOY + _REWARDS + _WITNESS
_EVERY_SUITE = (*_SUITES, "testnet.activate.regression-suites")

_OBSERVING = _BASELINE + _GATE + _OBSERVE + _CLIENTS + _WATCH
"""Items that look at what their stage's change brought."""

_ALL = (
    Fault("gate-flipped", _DRIFT, "FAIL", "a node runs with a gate on", "config"),
    Fault("channel-wrong", _DRIFT, "FAIL", "a node runs on another release channel", "config"),
    Fault("config-edited", _DRIFT, "FAIL", "a node's file differs in another key", "config"),
    Fault("extra-config-key", _DRIFT, "FAIL", "a node's file holds an unknown key", "config"),
    Fault("misplaced-scalar", _DRIFT, "FAIL", "a scalar fell into the table above", "config"),
    Fault("bundle-not-monotonic", _DRIFT, "FAIL", "the bundle turns a gate off again", "config"),
    Fault("worm-contradiction", _DRIFT, "FAIL", "no node can obey the bundle", "config", "canary"),
    Fault("peers-disagree", _DRIFT, "FAIL", "peers advertise another gate of a node", "rpc"),
    Fault("node-down", _DRIFT, "INCONCLUSIVE", "a node refuses connections", "config"),
    Fault("rpc-timeout", _DRIFT, "INCONCLUSIVE", "a node never answers", "rpc"),
    Fault("rpc-401", _DRIFT, "INCONCLUSIVE", "a node refuses the token", "rpc"),
    Fault("rpc-429", _DRIFT, "INCONCLUSIVE", "a node's rate limit is spent", "rpc"),
    Fault("rpc-500", _DRIFT, "INCONCLUSIVE", "a node answers with an error", "rpc"),
    Fault("rpc-truncated", _DRIFT, "INCONCLUSIVE", "a node's answers break off", "rpc"),
    Fault("rpc-wrong-shape", _DRIFT, "INCONCLUSIVE", "a node's answers lack every field", "rpc"),
    Fault("no-nodes-in-peers", _DRIFT, "INCONCLUSIVE", "a node is missing among peers", "rpc"),
    Fault("config-unreadable", _DRIFT + _GATES, "INCONCLUSIVE", "read-config fails", "command"),
    Fault("dry-run-broken", _DRIFT, "INCONCLUSIVE", "the dry run itself breaks", "command"),
    Fault("dry-run-lenient", _DRIFT, "INCONCLUSIVE", "the dry run takes any key", "command"),
    Fault("no-dry-run", _DRIFT, "INCONCLUSIVE", "no binary to ask about a table's keys", "command"),
    Fault("artifact-tampered", _BINARY, "FAIL", "the artifact was patched", "release"),
    Fault("artifact-wrong-identity", _BINARY, "FAIL", "another workflow signed it", "release"),
    Fault("artifact-wrong-issuer", _BINARY, "FAIL", "another issuer vouched for it", "release"),
    Fault("artifact-other-commit", _BINARY, "FAIL", "it was built of another commit", "release"),
    Fault("signature-tampered", _BINARY, "FAIL", "its signature is of something else", "release"),
    Fault("signature-missing", _BINARY, "INCONCLUSIVE", "it has no signature", "release"),
    Fault("manifest-wrong-digest", _BINARY, "FAIL", "its checksum is another", "release"),
    Fault("manifest-line-missing", _BINARY, "FAIL", "no checksum is of it", "release"),
    Fault("manifest-missing", _BINARY, "INCONCLUSIVE", "there are no checksums", "release"),
    Fault("manifest-unsigned", _BINARY, "INCONCLUSIVE", "checksums are unsigned", "release"),
    Fault("provenance-other-subject", _BINARY, "FAIL", "provenance of another file", "release"),
    Fault("manifest-as-bsd", _BINARY, "PASS", "its checksums are written as BSD does", "release"),
    Fault("provenance-other-kind", _BINARY, "FAIL", "a statement of another kind", "release"),
    Fault("provenance-commit-of-tool", _BINARY, "INCONCLUSIVE", "a tool's commit", "release"),
    Fault("provenance-in-envelope", _BINARY, "PASS", "its provenance is enveloped", "release"),
    Fault("provenance-among-others", _BINARY, "PASS", "another's provenance is first", "release"),
    Fault("provenance-missing", _BINARY, "INCONCLUSIVE", "there is no provenance", "release"),
    Fault("provenance-unsigned", _BINARY, "INCONCLUSIVE", "provenance is unsigned", "release"),
    Fault("sbom-invalid", _BINARY, "FAIL", "the SBOM breaks its schema", "release"),
    Fault("sbom-other-artifact", _BINARY, "FAIL", "the SBOM is of another file", "release"),
    Fault("sbom-other-hash", _BINARY, "FAIL", "one hash of the SBOM is another file's", "release"),
    Fault("sbom-other-version", _BINARY, "FAIL", "the SBOM is of another version", "release"),
    Fault("sbom-other-name", _BINARY, "INCONCLUSIVE", "another name, without a hash", "release"),
    Fault("sbom-missing", _BINARY, "INCONCLUSIVE", "there is no SBOM", "release"),
    Fault("sbom-unsigned", _BINARY, "INCONCLUSIVE", "the SBOM is unsigned", "release"),
    Fault("log-down", _BINARY, "INCONCLUSIVE", "the log refuses connections", "release"),
    Fault("log-entry-missing", _BINARY, "INCONCLUSIVE", "the log knows no signature", "release"),
    Fault("tree-dirty", _BINARY, "FAIL", "the checkout is not clean", "release"),
    Fault("tree-other-commit", _BINARY, "FAIL", "another commit is checked out", "release"),
    Fault("panel-red", _WATCHED, "FAIL", "a panel is in a red step", "grafana"),
    Fault("panel-no-data", _WATCHED, "INCONCLUSIVE", "a panel asks what nobody emits", "grafana"),
    Fault("panel-stale", _WATCHED, "INCONCLUSIVE", "a panel's series ended", "telemetry"),
    Fault("panel-parse-error", _WATCHED, "INCONCLUSIVE", "a panel's query is none", "grafana"),
    Fault("panel-variable-unset", _WATCHED, "INCONCLUSIVE", "a variable has no value", "grafana"),
    Fault("panel-mapped-red", _WATCHED, "FAIL", "a value is mapped to red", "grafana"),
    Fault("panel-graph-red", _WATCHED, "FAIL", "a graph is coloured by its value", "grafana"),
    Fault("panel-colour-written-out", _WATCHED, "FAIL", "red is written as a number", "grafana"),
    Fault("panel-override-red", _WATCHED, "INCONCLUSIVE", "an override colours red", "grafana"),
    Fault("panel-legacy", _WATCHED, "INCONCLUSIVE", "a panel of Grafana 7", "grafana"),
    Fault("panel-shows-maximum", _WATCHED, "INCONCLUSIVE", "it shows its maximum", "grafana"),
    Fault("panel-without-query", _WATCHED, "INCONCLUSIVE", "a panel asks nothing", "grafana"),
    Fault("panels-uncoloured", _WATCHED, "PASS", "panels show no colour", "grafana"),
    Fault("panels-as-exported", _WATCHED, "PASS", "rows, variables, empty keys", "grafana"),
    Fault("series-short-lived", _WATCHED, "PASS", "a series that ended has no number", "grafana"),
    Fault("dashboard-missing", _WATCHED, "INCONCLUSIVE", "Grafana lacks a dashboard", "grafana"),
    Fault("dashboard-empty", _WATCHED, "INCONCLUSIVE", "a dashboard has no panel", "grafana"),
    Fault("topic-cannot-be-red", _WATCHED, "INCONCLUSIVE", "no panel has a limit", "grafana"),
    Fault("grafana-down", _WATCHED, "INCONCLUSIVE", "Grafana refuses connections", "grafana"),
    Fault("grafana-unwell", _WATCHED, "INCONCLUSIVE", "Grafana's database fails", "grafana"),
    Fault("grafana-401", _WATCHED, "INCONCLUSIVE", "Grafana refuses the token", "grafana"),
    Fault("rule-not-loaded", _WATCHED, "FAIL", "a shipped rule is not loaded", "telemetry"),
    Fault("rule-unhealthy", _WATCHED, "FAIL", "a rule cannot be evaluated", "telemetry"),
    Fault("rule-never-evaluated", _WATCHED, "INCONCLUSIVE", "rules await evaluation", "telemetry"),
    Fault("rule-cannot-fire", _WATCHED, "INCONCLUSIVE", "it asks for no series", "telemetry"),
    Fault("rule-of-same-name", _WATCHED, "INCONCLUSIVE", "one may not page", "telemetry"),
    Fault("rules-below-unread", _WATCHED, "FAIL", "a folder's rules are not loaded", "telemetry"),
    Fault("rules-nowhere", _WATCHED, "INCONCLUSIVE", "the site names no folder of rules", "config"),
    Fault("paging-alert-firing", _WATCHED, "FAIL", "a paging alert fires", "telemetry"),
    Fault("watchdog-missing", _WATCHED, "INCONCLUSIVE", "no watchdog fires", "telemetry"),
    Fault("alertmanager-not-in-prometheus", _WATCHED, "FAIL", "alerts go elsewhere", "telemetry"),
    Fault("alertmanagers-unlisted", _WATCHED, "PASS", "no list", "telemetry", embedded=True),
    Fault("alertmanager-down", _WATCHED, "INCONCLUSIVE", "it refuses connections", "telemetry"),
    Fault("watchdog-stale", _WATCHED, "INCONCLUSIVE", "it is stale", "telemetry", embedded=True),
    Fault("route-to-nowhere", _WATCHED, "FAIL", "pages go to the dashboard", "telemetry"),
    Fault("receiver-without-notifier", _WATCHED, "FAIL", "the pager has no way out", "telemetry"),
    Fault("route-by-series-label", _WATCHED, "INCONCLUSIVE", "by a label of series", "telemetry"),
    Fault("silence-elsewhere", _WATCHED, "PASS", "a host of no cluster is silenced", "telemetry"),
    Fault("silence-on-paging", _WATCHED, "FAIL", "pages of the cluster are silenced", "telemetry"),
    Fault("mute-interval", _WATCHED, "INCONCLUSIVE", "pages are muted at times", "telemetry"),
    Fault("inhibited-by-watchdog", _WATCHED, "INCONCLUSIVE", "pages may be kept back", "telemetry"),
    Fault("archive-missing", _ASSETS, "INCONCLUSIVE", "no previous release is staged", "assets"),
    Fault("archive-damaged", _ASSETS, "FAIL", "the previous release breaks off", "assets"),
    Fault("archive-of-candidate", _ASSETS, "FAIL", "the candidate is staged instead", "assets"),
    Fault("archive-other-build", _ASSETS, "FAIL", "another build is staged instead", "assets"),
    Fault("snapshots-missing", _ASSETS, "INCONCLUSIVE", "there is no snapshot", "assets"),
    Fault("snapshot-unsigned", _ASSETS, "INCONCLUSIVE", "a manifest has no signature", "assets"),
    Fault("snapshot-nameless", _ASSETS, "INCONCLUSIVE", "a bundle names no chain", "assets"),
    Fault("snapshot-forged", _ASSETS, "FAIL", "a manifest is signed by another key", "assets"),
    Fault("snapshot-chunk-missing", _ASSETS, "FAIL", "a chunk is missing", "assets"),
    Fault("snapshot-chunk-corrupt", _ASSETS, "FAIL", "a chunk's content is damaged", "assets"),
    Fault("snapshot-chunk-short", _ASSETS, "FAIL", "a chunk breaks off", "assets"),
    Fault("snapshot-too-old", _ASSETS, "FAIL", "the newest snapshot is days old", "assets"),
    Fault("snapshot-behind", _ASSETS, "FAIL", "the newest snapshot is far behind", "assets"),
    Fault("snapshot-other-chain", _ASSETS, "FAIL", "the snapshot is another chain's", "assets"),
    Fault("assets-not-fetchable", _ASSETS, "FAIL", "a node can fetch nothing", "command"),
    Fault("assets-no-space", _ASSETS, "FAIL", "a node has no room for a restore", "command"),
    Fault("assets-probe-broken", _ASSETS, "INCONCLUSIVE", "the assets probe fails", "command"),
    Fault("issue-locked", _ISSUE, "FAIL", "the release issue is locked", "forge"),
    Fault("comment-refused", _ISSUE, "FAIL", "the token may not comment", "forge"),
    Fault("comment-edited", _ISSUE, "FAIL", "somebody edits the comment at once", "forge"),
    Fault("issue-missing", _ISSUE, "INCONCLUSIVE", "there is no such issue", "forge"),
    Fault("comments-limited", _ISSUE, "INCONCLUSIVE", "writes exceed a rate limit", "forge"),
    Fault("forge-dies-after-write", _ISSUE, "INCONCLUSIVE", "no answer after a write", "forge"),
    Fault("comment-answer-lost", _ISSUE, "PASS", "a write lands, its answer does not", "forge"),
    Fault("ci-red", _CI, "FAIL", "a required check failed", "forge"),
    Fault("ci-status-red", _CI, "FAIL", "a commit status is a failure", "forge"),
    Fault("ci-status-of-check-red", _CI, "FAIL", "a required check's status is red", "forge"),
    Fault("ci-suite-red", _CI, "FAIL", "a required check of a second suite failed", "forge"),
    Fault("ci-app-red", _CI, "FAIL", "a required check of a second app failed", "forge"),
    Fault("ci-pending", _CI, "INCONCLUSIVE", "a required check still runs", "forge"),
    Fault("ci-missing", _CI, "INCONCLUSIVE", "a required check never ran", "forge"),
    Fault("ci-none", _CI, "INCONCLUSIVE", "no check ran at all", "forge"),
    Fault("ci-skipped", _CI, "INCONCLUSIVE", "a required check was skipped", "forge"),
    Fault("ci-neutral", _CI, "INCONCLUSIVE", "a required check is neutral", "forge"),
    Fault("ci-cancelled", _CI, "INCONCLUSIVE", "a required check was cancelled", "forge"),
    Fault("ci-wrong-app", _CI, "INCONCLUSIVE", "a required check is another app's", "forge"),
    Fault("forge-down", _CI, "INCONCLUSIVE", "the forge refuses connections", "forge"),
    Fault("forge-401", _CI, "INCONCLUSIVE", "the forge refuses the token", "forge"),
    Fault("forge-429", _CI, "INCONCLUSIVE", "the forge's rate limit is spent", "forge"),
    Fault("forge-limited-once", _CI, "PASS", "the forge wants a minute of quiet", "forge"),
    Fault("forge-403", _CI, "INCONCLUSIVE", "the forge's hourly limit is spent", "forge"),
    Fault("forge-500", _CI, "INCONCLUSIVE", "the forge answers with an error", "forge"),
    Fault("forge-truncated", _CI, "INCONCLUSIVE", "the forge's answers break off", "forge"),
    Fault("backend-unreachable", _REACHABLE, "FAIL", "a backend is unreachable", "command"),
    Fault("prometheus-down", _REACHABLE, "FAIL", "Prometheus refuses connections", "telemetry"),
    Fault("probe-broken", _REACHABLE, "INCONCLUSIVE", "the probe ends with an error", "command"),
    Fault("probe-garbage", _REACHABLE, "INCONCLUSIVE", "the probe prints no JSON", "command"),
    Fault("probe-hangs", _REACHABLE, "INCONCLUSIVE", "the probe never ends", "command"),
    Fault("provision-fails", _PROVISION, "FAIL", "the automation ends with an error", "command"),
    Fault("provision-wrong-gates", _PROVISION, "FAIL", "the node has a gate on", "command"),
    Fault("provision-no-answer", _PROVISION, "INCONCLUSIVE", "the node is silent", "command"),
    Fault("deploy-fails", _DEPLOYS, "FAIL", "the deploy command ends with an error", "command"),
    Fault("wrong-binary", _DEPLOY, "FAIL", "another binary is put in place", "command"),
    Fault("node-stays-down", _DEPLOY + _REWARDS, "FAIL", "a node does not come back", "command"),
    Fault("version-unreadable", _DEPLOYS, "INCONCLUSIVE", "no version after a restart", "command"),
    Fault("slow-deploy", _DEPLOY, "PASS", "each deploy takes seconds", "command"),
    Fault("restart-returns-at-once", _DEPLOY, "PASS", "the process before answers on", "command"),
    Fault("suite-fails", _EVERY_SUITE, "FAIL", "a test of the suite fails", "command"),
    Fault("suite-skips", _EVERY_SUITE, "FAIL", "the suite says it skipped its test", "command"),
    Fault("suite-empty", _EVERY_SUITE, "FAIL", "the suite ran no test", "command"),
    Fault("suite-warns", _SUITES, "PASS", "the compiler says that it skips something", "command"),
    Fault("suite-by-nextest", _SUITES, "PASS", "another program runs the tests", "command"),
    Fault("suite-dirty-tree", _SUITES, "FAIL", "the suite leaves the tree dirty", "command"),
    Fault("suite-other-commit", _SUITES, "FAIL", "the suite checks out another commit", "command"),
    Fault("suite-no-summary", _EVERY_SUITE, "INCONCLUSIVE", "the output breaks off", "command"),
    Fault("suite-hangs", _SUITES, "INCONCLUSIVE", "the suite never ends", "command"),
    Fault("consensus-slow", _BASELINE, "FAIL", "rounds take five times as long", "chain"),
    Fault("vrf-low", _BASELINE, "FAIL", "half of the VRF pool takes part", "chain"),
    Fault("proof-backlog", _BASELINE, "FAIL", "the proof queue is jammed", "chain"),
    Fault("metrics-missing", _BASELINE, "INCONCLUSIVE", "series do not exist", "telemetry"),
    Fault("metrics-stale", _BASELINE, "INCONCLUSIVE", "series ended a while ago", "telemetry"),
    Fault("metrics-nan", _BASELINE, "INCONCLUSIVE", "series hold NaN", "telemetry"),
    Fault("metrics-gap", _BASELINE, "INCONCLUSIVE", "series have holes", "telemetry"),
    Fault("soak-job-failed", _SOAK, "FAIL", "the soak job did not pass", "command"),
    Fault("soak-job-other-commit", _SOAK, "FAIL", "the soak job ran another commit", "command"),
    Fault("soak-job-missing", _SOAK, "INCONCLUSIVE", "no soak job has run", "command"),
    Fault("page-during-soak", _SOAK, "FAIL", "rounds were slow for an hour", "chain"),
    Fault("no-transactions", _SOAK, "FAIL", "nobody submits a transaction", "chain"),
    Fault("binary-changed", _SOAK, "FAIL", "a node runs another binary", "command"),
    Fault("silence-during-soak", _SOAK, "FAIL", "pages of the cluster are silenced", "telemetry"),
    Fault("telemetry-gap-during-soak", _SOAK + _GATE, "INCONCLUSIVE", "series paused", "telemetry"),
    Fault("watchdog-missing-in-window", _SOAK, "INCONCLUSIVE", "no watchdog fires", "telemetry"),
    Fault("restart-during-soak", _SOAK, "INCONCLUSIVE", "a node restarted by itself", "chain"),
    Fault("bundle-rewards-early", _GATES, "FAIL", "the bundle has rewards on", "config", "testnet"),
    Fault("gossip-silent", _GATE, "FAIL", "no gossip is seen", "chain"),
    Fault("gossip-drops", _GATE, "FAIL", "gossip is dropped", "chain"),
    Fault("gossip-slow", _GATE, "FAIL", "votes take three times as long", "chain"),
    Fault("halt-during-epochs", _EPOCHS, "FAIL", "no block is committed any more", "chain"),
    Fault("gate-reversed", _EPOCHS, "FAIL", "a node has malachite_consensus off", "config"),
    Fault("halted-once", _EPOCHS, "INCONCLUSIVE", "no block for twenty minutes", "chain"),
    Fault("mass-restart", _EPOCHS, "INCONCLUSIVE", "two nodes restarted at once", "chain"),
    Fault("gap-during-epochs", _EPOCHS, "INCONCLUSIVE", "series had a hole", "telemetry"),
    Fault("silence-during-epochs", _EPOCHS, "INCONCLUSIVE", "pages are silenced", "telemetry"),
    Fault("candidate-missing", _CANDIDATE, "FAIL", "a canary runs the build before", "config"),
    Fault("candidate-dry-run-fails", _CANDIDATE, "FAIL", "a canary's file is invalid", "config"),
    Fault("candidate-unreadable", _CANDIDATE, "INCONCLUSIVE", "a canary tells no build", "command"),
    Fault("alert-never-fires", _ALERTS, "FAIL", "a paging alert can never fire", "telemetry"),
    Fault("alert-without-guard", _ALERTS, "FAIL", "no alert sees series vanish", "telemetry"),
    Fault("alert-not-paging", _ALERTS, "FAIL", "the alerts are mere warnings", "telemetry"),
    Fault("alert-unhealthy", _ALERTS, "FAIL", "an alert cannot be evaluated", "telemetry"),
    Fault("alerts-not-loaded", _ALERTS, "INCONCLUSIVE", "no such alert is loaded", "telemetry"),
    Fault("promtool-missing", _ALERTS, "INCONCLUSIVE", "no program tests the rules", "command"),
    Fault("rewards-stall", _OBSERVE + _WITNESS, "INCONCLUSIVE", "no rewards", "chain", "canary"),
    Fault("reward-on-other-node", _OBSERVE, "FAIL", "gate off, paid", "chain", "canary", "main-3"),
    Fault("reward-too-large", _OBSERVE, "FAIL", "rewards are tripled", "chain", "canary"),
    Fault("canary-does-not-vote", _OBSERVE, "FAIL", "it never votes", "chain", "canary", "main-1"),
    Fault("hash-split", _OBSERVE, "FAIL", "a node has another block", "rpc", "canary"),
    Fault("slashing", _OBSERVE, "FAIL", "a validator is slashed", "chain", "canary"),
    Fault("witness-silent", _CLIENTS + _WITNESS, "INCONCLUSIVE", "no messages", "chain", "canary"),
    Fault("relay-drops", _CLIENTS, "FAIL", "a relay drops gossip", "telemetry", "canary", "main-2"),
    Fault("canary-slow", _REGRESSION, "FAIL", "slower by half", "telemetry", "mainnet", "main-1"),
    Fault("canary-noisy", _REGRESSION, "INCONCLUSIVE", "swings", "telemetry", "mainnet", "main-1"),
    Fault("announce-fails", _ANNOUNCE, "FAIL", "the channel refuses the announcement", "command"),
    Fault("announce-lost", _ANNOUNCE, "FAIL", "the announcement never shows", "command"),
    Fault("freeze-fails", _ANNOUNCE, "FAIL", "the freeze is refused", "command"),
    Fault("freeze-lost", _ANNOUNCE, "FAIL", "the freeze never shows", "command"),
    Fault("proposals-unreadable", _ANNOUNCE, "INCONCLUSIVE", "proposals are unreadable", "command"),
    Fault("proposal-slips-in", _WITNESS, "FAIL", "a proposal came after the freeze", "command"),
    Fault("ack-missing", _ACK, "INCONCLUSIVE", "an operator says nothing", "forge"),
    Fault("ack-late", _ACK, "INCONCLUSIVE", "an operator acknowledges after the window", "forge"),
    Fault("ack-other-window", _ACK, "INCONCLUSIVE", "an operator names the next day", "forge"),
    Fault("ack-quoted", _ACK, "INCONCLUSIVE", "an operator's word is a quotation", "forge"),
    Fault("ack-withdrawn", _ACK, "FAIL", "an operator takes its word back", "forge"),
    Fault("ack-forged", _ACK, "INCONCLUSIVE", "a validator's word has another key", "forge"),
    Fault("signoff-missing", _SIGN, "INCONCLUSIVE", "an operator says nothing", "forge"),
    Fault("signoff-other-plan", _SIGN, "INCONCLUSIVE", "an operator quotes another plan", "forge"),
    Fault("signoff-quoted", _SIGN, "INCONCLUSIVE", "an operator's word is a quotation", "forge"),
    Fault("signoff-withdrawn", _SIGN, "FAIL", "an operator takes its word back", "forge"),
    Fault("signoff-forged", _SIGN, "INCONCLUSIVE", "a validator's word has another key", "forge"),
    Fault("hotfix-branch-missing", _HOTFIX, "FAIL", "a hotfix branch does not exist", "forge"),
    Fault("hotfix-not-low-risk", _HOTFIX, "FAIL", "an open issue is of high risk", "forge"),
    Fault("hotfix-diverged", _HOTFIX, "FAIL", "a hotfix branch lacks the release", "forge"),
    Fault("hotfix-ci-red", _HOTFIX, "FAIL", "a hotfix branch's check failed", "forge"),
    Fault("hotfix-ci-pending", _HOTFIX, "INCONCLUSIVE", "a hotfix's check still runs", "forge"),
    Fault("hotfix-unlabelled", _HOTFIX, "INCONCLUSIVE", "an open issue has no risk", "forge"),
    Fault("hotfix-unlinked", _HOTFIX, "INCONCLUSIVE", "an open issue names no branch", "forge"),
    Fault("milestone-missing", _HOTFIX, "INCONCLUSIVE", "the release has no milestone", "forge"),
    Fault("node-lags", _ROLLED, "FAIL", "a node stays three blocks behind", "rpc", "testnet"),
    Fault("operator-silent", _ROLLED, "INCONCLUSIVE", "an operator does nothing", "operator"),
    Fault("operator-no-report", _ROLLED, "INCONCLUSIVE", "an operator reports nothing", "operator"),
    Fault("report-forged", _ROLLED, "INCONCLUSIVE", "a node report has another key", "operator"),
    Fault("report-other-binary", _ROLLED, "FAIL", "a report names another binary", "operator"),
    Fault("operator-slow", _ROLLED, "PASS", "an operator takes their time", "operator"),
    Fault("replay-stall", _WATCH, "FAIL", "timetoke replay stands still", "chain"),
    Fault("consensus-stall", _WATCH, "FAIL", "no block is committed", "chain"),
    Fault("proof-slow", _WATCH, "FAIL", "proofs take a second and more for a while", "chain"),
    Fault("participation-dip", _WATCH, "INCONCLUSIVE", "half of the VRF pool is away", "chain"),
    Fault("commander-silent", _WATCH, "FAIL", "a dip, and nobody acknowledges it", "chain"),
    Fault("notify-down", _WATCH, "FAIL", "a dip, and the pager is broken", "chain"),
    Fault("previous-artifact-missing", _REVERT, "FAIL", "the build before is gone", "command"),
    Fault("build-sticks", _HALT, "FAIL", "a node keeps the new binary", "command"),
    Fault("node-cut-off", _CUT_OFF, "INCONCLUSIVE", "a host cannot be reached", "command"),
    Fault("gate-sticks", _STALL + _GATES_OFF, "FAIL", "a node keeps its configuration", "command"),
    Fault("wal-corrupt", _RESTORE, "PASS", "a node's log breaks off, it is down", "command"),
    Fault("node-will-not-stop", _RESTORE, "FAIL", "a node runs on after a stop", "command"),
    Fault("node-half-stopped", _RESTORE, "FAIL", "a silent node's process lives on", "command"),
    Fault("node-will-not-start", _RESTORE, "FAIL", "a restored node does not start", "command"),
    Fault("stop-fails", _RESTORE, "FAIL", "the stop command ends with an error", "command"),
    Fault("stopped-unreadable", _RESTORE, "INCONCLUSIVE", "nobody can tell if it runs", "command"),
    Fault("snapshot-corrupt-at-node", _STORAGE, "FAIL", "a node fetched damaged chunks", "command"),
    Fault("snapshot-forged-at-node", _STORAGE, "FAIL", "a node fetched a forged one", "command"),
    Fault("snapshot-verify-breaks", _STORAGE, "INCONCLUSIVE", "a node cannot verify it", "command"),
    Fault("chain-halt", _FALLBACK, "PASS", "no block until a quorum is restored", "chain"),
    Fault("restore-command-fails", _FALLBACK, "FAIL", "a restore ends with an error", "command"),
    Fault("wal-unreadable", _FALLBACK, "INCONCLUSIVE", "a node's log is unreadable", "command"),
    Fault("wrong-state-root", _AGAIN, "FAIL", "a restored node has another root", "command"),
    Fault("proof-replay-fails", _AGAIN, "FAIL", "a node's proofs do not verify", "command"),
    Fault("replay-unreadable", _AGAIN, "INCONCLUSIVE", "a replay prints no report", "command"),
    Fault("incident-issue-refused", _INCIDENT, "FAIL", "the token may file no issue", "forge"),
    Fault("incident-issue-limited", _INCIDENT, "INCONCLUSIVE", "issues exceed a limit", "forge"),
    Fault("halt-announce-lost", _HALT, "FAIL", "the halt never shows in the channel", "command"),
    Fault("halt-announce-fails", _HALT, "INCONCLUSIVE", "the channel takes no halt", "command"),
    Fault("incident-issue-edited", _GOVERNANCE, "FAIL", "somebody edits it at once", "forge"),
    Fault("incident-issue-unavailable", _GOVERNANCE, "INCONCLUSIVE", "issues are off", "forge"),
    Fault("report-lost", _REPORT, "FAIL", "the report is taken, and not there", "forge"),
    Fault("report-unsent", _REPORT, "INCONCLUSIVE", "the report is not taken", "forge"),
    Fault("council-late", _COUNCIL, "FAIL", "the council decides after 25 hours", "forge"),
    Fault("council-silent", _COUNCIL, "INCONCLUSIVE", "the council says nothing", "forge"),
    Fault("telemetry-gap-in-watch", _WATCH, "INCONCLUSIVE", "no proof metrics", "telemetry"),
    Fault("store-gone", _GATES_OFF, "PASS", "the store is away", "config", "canary"),
    Fault("kit-target-tampered", _GATES_OFF, "PASS", "a kit's file was edited", "config", "canary"),
)
FAULTS = {fault.name: fault for fault in _ALL}
"""Every fault by name."""
_NODES = {"development": "dev-2", "testnet": "test-2", "canary": "main-1", "mainnet": "main-3"}


@dataclass(frozen=True)
class Active:
    """A fault that is on ``since`` (wall); ``node`` is the one it concerns."""

    name: str
    stage: str
    cluster: str
    node: str
    since: float


class FaultBoard:
    """The faults that are on; faults of the chain and its telemetry become events."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._active: dict[str, Active] = {}

    def __iter__(self) -> Iterator[Active]:
        return iter(tuple(self._active.values()))

    def switch_on(self, text: str) -> Active:
        """Raises ValueError for an unknown fault, stage or node, and for one that is on."""
        active = parse(text, self._world)
        if active.name in self._active:
            raise ValueError(f"fault {text!r}: expected one that is off; clear it first")
        self._active[active.name] = active
        self._record("fault-on", active)
        return active

    def switch_off(self, name: str) -> Active | None:
        active = self._active.pop(name, None)
        if active is not None:
            self._record("fault-off", active)
        return active

    def is_on(self, name: str, cluster: str = "", node: str = "") -> bool:
        """Whether it is on, for this cluster and this node when they are given."""
        active = self._active.get(name)
        if active is None or (cluster and active.cluster != cluster):
            return False
        return not node or active.node == node

    def _record(self, kind: Literal["fault-on", "fault-off"], active: Active) -> None:
        self._world.faults = set(self._active)
        if FAULTS[active.name].layer in ("chain", "telemetry"):
            now = self._world.clock.now()
            node = active.node if FAULTS[active.name].node else ""
            self._world.append(Event(now, active.cluster, node, kind, {"name": active.name}))


def parse(text: str, world: World) -> Active:
    """``NAME@STAGE`` or ``NAME@STAGE/NODE``. Raises ValueError saying what would be known."""
    name, _, place = text.partition("@")
    stage, _, node = place.partition("/")
    if name not in FAULTS:
        raise ValueError(f"fault {text!r}: expected one of {', '.join(FAULTS)}, got {name!r}")
    if stage not in STAGE_CLUSTERS:
        raise ValueError(f"fault {text!r}: expected NAME@{'|'.join(STAGE_CLUSTERS)}, got {stage!r}")
    cluster = STAGE_CLUSTERS[stage]
    names = [spec.name for spec in world.clusters[cluster].nodes]
    theirs = names[-1] if FAULTS[name].layer == "operator" else _NODES[stage]
    usual = FAULTS[name].node or theirs
    node = node or (usual if usual in names else names[0])
    if node not in names:
        raise ValueError(f"fault {text!r}: expected one of {', '.join(names)}, got {node!r}")
    return Active(name, stage, cluster, node, time.time())
