"""The playbook as data: its 41 items, its numbers, and what each stage notebook declares.

The numbers are floors. Parameters may tighten them, never loosen them (``params`` refuses that).
An item is declared by a stage once it is built; the order of a stage's tuple is the order in its
notebook, and a change runs only when every item before it holds.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

Kind = Literal["check", "change", "attest"]
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
    waivable: bool = True


def _check(id: str, title: str, ages: Ages, *, waivable: bool = True) -> Item:
    return Item(id, "check", title, ages, waivable)


def _change(id: str, title: str) -> Item:
    # A change and its read-back can never be waived.
    return Item(id, "change", title, "closed", waivable=False)


_ALL = (
    _check("preflight.config-drift", "Configuration has not drifted", "clock"),
    _check(
        "preflight.binary-verification", "The release artifact is ours", "digest", waivable=False
    ),
    _check("preflight.observability", "Dashboards are green, alerting is armed", "clock"),
    _check("preflight.rollback-assets", "The way back is staged", "clock"),
    _change("preflight.release-issue", "The release issue holds the checks so far"),
    _check("development.ready.ci-green", "CI is green for the commit", "digest"),
    _check(
        "development.ready.telemetry-reachable", "Telemetry answers from inside the VPC", "clock"
    ),
    _change("development.ready.provision", "Automation provisions a fresh node"),
    _change("development.activate.deploy", "Nightly artifacts run on the cluster"),
    _check("development.activate.smoke-suites", "The smoke suites pass", "closed"),
    _check("development.activate.baseline", "The baseline is captured and pinned", "closed"),
    _change("development.recover.revert-build", "The previous build runs again"),
    _change("development.recover.restore-state", "Snapshots are restored, the WAL replayed"),
    _change("development.recover.incident", "An incident is open and blocks promotion"),
    _check("testnet.ready.soak", "Development soaked without a page", "closed"),
    _check("testnet.ready.validators-acknowledged", "Validators know the window", "clock"),
    _check("testnet.ready.gates", "Only malachite_consensus changes", "clock"),
    _change("testnet.activate.deploy", "The build runs on the public testnet"),
    _change("testnet.activate.gate", "malachite_consensus is on and gossip is stable"),
    _check("testnet.activate.regression-suites", "Witness and proof suites pass", "closed"),
    _change("testnet.recover.halt", "The rollout is paused and announced"),
    _change("testnet.recover.storage", "Corrupted snapshots are restored"),
    _change("testnet.recover.governance-incident", "A governance incident is filed"),
    _check("canary.ready.epochs-clean", "Testnet finalized its epochs undisturbed", "closed"),
    _check("canary.ready.candidate-installed", "Canaries run the candidate", "clock"),
    _check("canary.ready.alerts-active", "Reward and witness alerts would fire", "clock"),
    _change("canary.activate.rewards-gate", "Rewards are on for the canaries only"),
    _check("canary.activate.observe", "Rewards and votes held for three epochs", "closed"),
    _change("canary.activate.witness-clients", "The canary witness clients are on"),
    _change("canary.recover.disable-gates", "Rewards and witness gates are off again"),
    _change("canary.recover.halt-fallback", "The chain fell back to the prior snapshot"),
    _change("canary.recover.public-report", "A public incident report is out"),
    _check("mainnet.ready.no-regression", "Canary metrics show no regression", "closed"),
    _check("mainnet.ready.validators-signed-off", "All validators signed off", "clock"),
    _check("mainnet.ready.hotfix-branches", "Hotfix branches are queued", "clock"),
    _change("mainnet.activate.announce", "The window is announced, proposals are frozen"),
    _change("mainnet.activate.witness-gate", "Every gate matches the mainnet profile"),
    _check("mainnet.activate.watch", "The first 24 hours were watched", "closed"),
    _change("mainnet.recover.stall", "Reward and witness gates are off after a stall"),
    _change("mainnet.recover.restore", "The previous snapshot is restored and proven"),
    _change("mainnet.recover.council", "The governance council has decided"),
)
ITEMS: dict[str, Item] = {item.id: item for item in _ALL}

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
DECLARED: dict[str, tuple[str, ...]] = {
    REPORT: (),
    PREFLIGHT: (*COMMON, DOCUMENT),
    "development": (
        *COMMON,
        "development.ready.ci-green",
        "development.ready.telemetry-reachable",
        "development.ready.provision",
        DOCUMENT,
        "development.activate.deploy",
        "development.activate.smoke-suites",
        "development.activate.baseline",
    ),
    "testnet": (
        *COMMON,
        "testnet.ready.soak",
        "testnet.ready.validators-acknowledged",
        "testnet.ready.gates",
        DOCUMENT,
        "testnet.activate.deploy",
        "testnet.activate.gate",
        "testnet.activate.regression-suites",
    ),
    "canary": (
        *COMMON,
        "canary.ready.epochs-clean",
        "canary.ready.candidate-installed",
        "canary.ready.alerts-active",
        DOCUMENT,
        "canary.activate.rewards-gate",
        "canary.activate.observe",
        "canary.activate.witness-clients",
    ),
    "mainnet": (
        *COMMON,
        "mainnet.ready.no-regression",
        "mainnet.ready.validators-signed-off",
        "mainnet.ready.hotfix-branches",
        DOCUMENT,
        "mainnet.activate.announce",
        "mainnet.activate.witness-gate",
        "mainnet.activate.watch",
    ),
    **{
        runbook: tuple(item for item in ITEMS if item.startswith(f"{stage}.recover."))
        for runbook, stage in RECOVERY.items()
    },
}
PLAN_BEFORE: dict[str, str] = {stage: DOCUMENT for stage in STAGES if stage in DECLARED}
"""The change that may not start without the stage's plan."""
