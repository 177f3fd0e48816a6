"""The playbook as data: its 41 items, its numbers, and what each stage notebook declares.

The numbers are floors. Parameters may tighten them, never loosen them (``params`` refuses that).
An item is declared by a stage once it is built; the order of a stage's tuple is the order in its
notebook, and a change runs only when every item before it holds.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

Kind = Literal["check", "change"]
Ages = Literal["clock", "digest", "closed"]

# --- the playbook's numbers ---------------------------------------------------------------------
SOAK = timedelta(hours=48)
TESTNET_EPOCHS = 10
CANARY_OBSERVE_EPOCHS = 3
CANARY_CLEAN_EPOCHS = 7
CANARY_EPOCHS_AFTER_LAST_CHANGE = 3
MAINNET_WATCH = timedelta(hours=24)
WATCH_LOOK_EVERY = timedelta(minutes=15)
ENGAGE_WITHIN = timedelta(minutes=5)
COUNCIL_WITHIN = timedelta(hours=24)
CANARY_POWER_BELOW = 1 / 3
PAGING_SEVERITIES = frozenset({"page", "critical"})
DEVELOPMENT_SUITES = ("tests/pipeline", "tests/observability")
TESTNET_SUITES = ("tests/firewood_lifecycle",)
# --- ours, where the playbook names none --------------------------------------------------------
VALID_FOR = timedelta(minutes=60)  # a check that ages is judged again before a change
NOW_SOURCE_LAG = timedelta(minutes=5)  # sources without a past cannot be asked about older instants
MAX_MISSING = 0.02  # share of points a judged window may lack
BASELINE_WINDOW = timedelta(hours=1)  # the shortest baseline worth pinning
MAX_DOWN = 0.3  # share of the voting power that one wave may take down
MINUTES_PER_NODE = 10.0  # what a node's restart and read-back may take, until a site knows better
NOTICE = timedelta(hours=24)  # how long before a window validators must have been told
BASELINE_TOPICS = ("consensus_latency", "proof_queue_depth", "vrf_participation")


# --- whose word counts --------------------------------------------------------------------------
COMMANDER, ENGINEER = "release-commander", "release-engineer"
COUNCIL = "governance-council"
SPEAKS_FOR_OURS = ENGINEER  # for nodes of ours that name no operator


@dataclass(frozen=True)
class Approvers:
    """Seats that different people must fill, each with one of its roles.

    ``author``: whether the plan's author may fill one; never all of them.
    """

    seats: tuple[frozenset[str], ...]
    author: bool = False


_ANY = frozenset({COMMANDER, ENGINEER, COUNCIL, "sre-lead", "security-steward"})
APPROVERS: dict[str, Approvers] = {
    "testnet": Approvers((frozenset({COMMANDER, ENGINEER}),)),
    "canary": Approvers((frozenset({COMMANDER, ENGINEER}),)),
    "mainnet": Approvers((frozenset({COMMANDER}), _ANY), author=True),
}


@dataclass(frozen=True)
class Item:
    """One sentence of the playbook. ``ages`` says when a PASS must be judged again."""

    id: str
    kind: Kind
    title: str
    ages: Ages = "closed"

    @property
    def waivable(self) -> bool:
        """A change and its read-back never are, nor is whose build it is."""
        return self.kind == "check" and self.id != "preflight.binary-verification"


_ALL = (
    Item("preflight.config-drift", "check", "Configuration has not drifted", "clock"),
    Item("preflight.binary-verification", "check", "The release artifact is ours", "digest"),
    Item("preflight.observability", "check", "Dashboards are green, alerting is armed", "clock"),
    Item("preflight.rollback-assets", "check", "The way back is staged", "clock"),
    Item("preflight.release-issue", "change", "The release issue holds the checks so far"),
    Item("development.ready.ci-green", "check", "CI is green for the commit", "digest"),
    Item(
        "development.ready.telemetry-reachable",
        "check",
        "Telemetry answers from inside the VPC",
        "clock",
    ),
    Item("development.ready.provision", "change", "Automation provisions a fresh node"),
    Item("development.activate.deploy", "change", "Nightly artifacts run on the cluster"),
    Item("development.activate.smoke-suites", "check", "The smoke suites pass"),
    Item("development.activate.baseline", "check", "The baseline is captured and pinned"),
    Item("development.recover.revert-build", "change", "The previous build runs again"),
    Item("development.recover.restore-state", "change", "Snapshots are restored, the WAL replayed"),
    Item("development.recover.incident", "change", "An incident is open and blocks promotion"),
    Item("testnet.ready.soak", "check", "Development soaked without a page"),
    Item("testnet.ready.validators-acknowledged", "check", "Validators know the window", "clock"),
    Item("testnet.ready.gates", "check", "Only malachite_consensus changes", "clock"),
    Item("testnet.activate.deploy", "change", "The build runs on the public testnet"),
    Item("testnet.activate.gate", "change", "malachite_consensus is on and gossip is stable"),
    Item("testnet.activate.regression-suites", "check", "Witness and proof suites pass"),
    Item("testnet.recover.halt", "change", "The rollout is paused and announced"),
    Item("testnet.recover.storage", "change", "Corrupted snapshots are restored"),
    Item("testnet.recover.governance-incident", "change", "A governance incident is filed"),
    Item("canary.ready.epochs-clean", "check", "Testnet finalized its epochs undisturbed"),
    Item("canary.ready.candidate-installed", "check", "Canaries run the candidate", "clock"),
    Item("canary.ready.alerts-active", "check", "Reward and witness alerts would fire", "clock"),
    Item("canary.activate.rewards-gate", "change", "Rewards are on for the canaries only"),
    Item("canary.activate.observe", "check", "Rewards and votes held for three epochs"),
    Item("canary.activate.witness-clients", "change", "The canary witness clients are on"),
    Item("canary.recover.disable-gates", "change", "Rewards and witness gates are off again"),
    Item("canary.recover.halt-fallback", "change", "The chain fell back to the prior snapshot"),
    Item("canary.recover.public-report", "change", "A public incident report is out"),
    Item("mainnet.ready.no-regression", "check", "Canary metrics show no regression"),
    Item("mainnet.ready.validators-signed-off", "check", "All validators signed off", "clock"),
    Item("mainnet.ready.hotfix-branches", "check", "Hotfix branches are queued", "clock"),
    Item("mainnet.activate.announce", "change", "The window is announced, proposals are frozen"),
    Item("mainnet.activate.witness-gate", "change", "Every gate matches the mainnet profile"),
    Item("mainnet.activate.watch", "check", "The first 24 hours were watched"),
    Item("mainnet.recover.stall", "change", "Reward and witness gates are off after a stall"),
    Item("mainnet.recover.restore", "change", "The previous snapshot is restored and proven"),
    Item("mainnet.recover.council", "change", "The governance council has decided"),
)
ITEMS = {item.id: item for item in _ALL}

STAGES = ("development", "testnet", "canary", "mainnet")
GATE_STEPS: dict[str, tuple[str, ...]] = {
    "development": (),
    "testnet": ("malachite_consensus",),
    "canary": ("timetoke_rewards", "witness_network"),
    "mainnet": ("timetoke_rewards", "witness_network"),
}
"""The gates that a sentence of a stage's activation turns on."""
PREFLIGHT = "preflight"
"""The runbook of the common preflight alone, for any stage: it plans, and changes nothing."""
REPORT = "report"
"""The runbook that shows a release's stages on one page: it declares no item and judges nothing."""
RECOVERY: dict[str, str] = {f"{stage}_recovery": stage for stage in STAGES}
"""The runbook of a stage's recovery section -> that stage."""
NOTEBOOKS: dict[str, str] = {
    PREFLIGHT: "00_preflight.ipynb",
    "development": "10_development.ipynb",
    "development_recovery": "15_development_recovery.ipynb",
    "testnet": "20_testnet.ipynb",
    "testnet_recovery": "25_testnet_recovery.ipynb",
    "canary": "30_canary.ipynb",
    "canary_recovery": "35_canary_recovery.ipynb",
    "mainnet": "40_mainnet.ipynb",
    "mainnet_recovery": "45_mainnet_recovery.ipynb",
    REPORT: "50_release_report.ipynb",
}
COMMON = (
    "preflight.config-drift",
    "preflight.binary-verification",
    "preflight.observability",
    "preflight.rollback-assets",
)
"""The checks that open every stage."""
DOCUMENT = "preflight.release-issue"
"""Documents the checks so far; it stands between readiness and activation, after the plan."""


def _items(*prefixes: str) -> tuple[str, ...]:
    return tuple(item for item in ITEMS if item.startswith(prefixes))


DECLARED: dict[str, tuple[str, ...]] = {
    REPORT: (),
    PREFLIGHT: (*COMMON, DOCUMENT),
    **{
        stage: (*COMMON, *_items(f"{stage}.ready."), DOCUMENT, *_items(f"{stage}.activate."))
        for stage in STAGES
    },
    **{runbook: _items(f"{stage}.recover.") for runbook, stage in RECOVERY.items()},
}
PLAN_BEFORE: dict[str, str] = dict.fromkeys(STAGES, DOCUMENT)
"""The change that may not start without the stage's plan."""
