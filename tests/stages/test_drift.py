"""Config drift at every stage, on the rehearsal network: what is named, and what is let through."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from runbook_lib import playbook
from runbook_lib.changes.adopt import adopt
from runbook_lib.checks import preflight
from runbook_lib.outcomes import CheckResult, Outcome
from runbook_lib.params import STAGE_PARAMS
from runbook_lib.strict import parse_yaml
from runbook_rehearsal.chain.world import STAGE_CLUSTERS
from runbook_rehearsal.files import unpack
from runbook_rehearsal.network import RehearsalNetwork

from ..conftest import not_passed
from .conftest import alone, fault, practised

DRIFT = "preflight.config-drift"
MALACHITE, REWARDS, WITNESS = (
    f"rollout.feature_gates.{gate}"
    for gate in ("malachite_consensus", "timetoke_rewards", "witness_network")
)
needs_chain = pytest.mark.skipif(
    "RPP_CHAIN_DIR" not in os.environ, reason="needs the chain's files"
)


@practised(telemetry=False, sizes={"testnet": 5, "mainnet": 5})
def network(net: RehearsalNetwork, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(playbook.DECLARED, "preflight", (DRIFT,))
    for cluster in set(STAGE_CLUSTERS.values()):
        adopt(str(net.site), cluster, artifacts=[net.release.previous_artifact])


def drift(network: RehearsalNetwork, stage: str, **changes: str) -> CheckResult:
    file = network.params["preflight"]
    given = STAGE_PARAMS["preflight"]().model_dump() | parse_yaml(file.read_bytes(), file.name)
    return alone("preflight", preflight.config_drift, {**given, "stage": stage, **changes})[1]


def site_with(
    network: RehearsalNetwork, path: Path, *, bundle: str = "", canaries: Any = None
) -> str:
    """The network's site with another bundle, other canaries."""
    site = yaml.safe_load(network.site.read_text())
    if bundle:
        site["bundle"]["path"] = bundle
    for node in site["clusters"]["mainnet"]["nodes"] if canaries is not None else ():
        node["canary"] = node["name"] in canaries
    path.write_text(yaml.safe_dump(site))
    return str(path)


def wrong(result: CheckResult) -> list[tuple[Any, ...]]:
    return not_passed(result.rows, "subject", "what", "expected", "observed")


def targets(result: CheckResult) -> dict[str, Any]:
    return {row.subject: row.observed for row in result.rows if row.what == "target"}


# --- what each stage makes of each node -----------------------------------------------------------


CANARY = (
    f"profile canary; changes: {MALACHITE}, {REWARDS}, {WITNESS}, rollout.release_channel;"
    " beyond the profile, in the last step: witness_network;"
    " by the bundle alone, no step of the playbook: malachite_consensus"
)


@pytest.mark.parametrize("canaries", [("main-1", "main-2"), ("main-3", "main-5")])
def test_canary_touches_its_members_alone(
    network: RehearsalNetwork, tmp_path: Path, canaries: tuple[str, ...]
) -> None:
    """What goes beyond the profile, and what no step of the playbook turns on, is said so."""
    site = site_with(network, tmp_path / "site.yaml", canaries=canaries)
    result = drift(network, "canary", site=site)

    assert result.outcome is Outcome.PASS
    assert targets(result) == {
        f"main-{n}": CANARY if f"main-{n}" in canaries else "left as it is" for n in range(1, 6)
    }


# --- the candidate, ahead of its stage ------------------------------------------------------------


@contextmanager
def candidate_on(network: RehearsalNetwork, node: str) -> Iterator[str]:
    """The release's binary runs on a node; its digest."""
    path = network.world.node_dir("mainnet", node) / "bin" / "rpp-node"
    before = path.with_name("before")
    shutil.copy2(path, before)
    try:
        path.write_bytes(unpack(network.release.artifact))
        yield network.fleet.restart(node).build.digest
    finally:
        before.rename(path)
        network.fleet.restart(node)


def test_a_canary_may_run_the_candidate_before_its_stage(network: RehearsalNetwork) -> None:
    """Its operator installs it; nobody else's node may, and no other stage."""
    with candidate_on(network, "main-1") as digest:
        canary, mainnet = drift(network, "canary"), drift(network, "mainnet")
        known = [row.expected for row in mainnet.rows if row.what == "binary"]

    text = f"the release's, installed ahead of the stage: {digest}"
    assert canary.outcome is Outcome.PASS
    assert [row.observed for row in canary.rows if row.what == "binary"] == [text]
    assert wrong(mainnet) == [("main-1", "binary", known[0], digest)]
    assert not_passed(mainnet.rows, "waivable") == [(False,)]
    with candidate_on(network, "main-4") as digest:
        assert wrong(drift(network, "canary")) == [("main-4", "binary", known[0], digest)]


# --- what is named --------------------------------------------------------------------------------


def test_a_node_that_peers_cannot_name_lacks_its_second_witness(
    network: RehearsalNetwork, tmp_path: Path
) -> None:
    site = yaml.safe_load(network.site.read_text())
    del site["clusters"]["development"]["nodes"][0]["peer"]
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(site))
    result = drift(network, "development", site=str(path))

    text = "its peer id is not in the site file: set `peer`"
    assert (result.outcome, wrong(result)) == (
        Outcome.INCONCLUSIVE,
        [("dev-1", "gates its peers see", "its own", text)],
    )


def test_without_the_release_nothing_is_known_of_its_stage(network: RehearsalNetwork) -> None:
    """A canary that runs another build may run the release's: nobody can tell."""
    with candidate_on(network, "main-1") as digest:
        result = drift(network, "canary", release="v9")
    found = wrong(result)

    assert (result.outcome, [row[:2] for row in found]) == (
        Outcome.INCONCLUSIVE,
        [(found[0][0], "the stage's delta"), ("main-1", "binary")],
    )
    assert found[1][3] == f"{digest}, and what the stage installs is not known"


@contextmanager
def taken_over(network: RehearsalNetwork, old: str, new: str) -> Iterator[None]:
    """A development node that runs on an edited file, and is known to."""
    path = network.world.node_dir("development", "dev-2") / "config.toml"
    before = path.read_text()
    assert old in before

    def run(text: str) -> None:
        path.write_text(text)
        network.fleet.restart("dev-2")
        adopt(str(network.site), "development", artifacts=[network.release.previous_artifact])

    try:
        run(before.replace(old, new))
        yield
    finally:
        run(before)


ON, ALONE = "witness_network = true", "profile development; changes: the build only"
PRUNING = "rollout.feature_gates.pruning (different in the target)"


@pytest.mark.parametrize(
    ("old", "new", "missing", "made"),
    [
        ("witness_network = false", ON, [], f"{ALONE}; ahead of the profile: witness_network"),
        ("pruning = true", "pruning = false", [("dev-2", PRUNING, True, False)], None),
        ("pruning = true\n", "", [], ALONE),
    ],
    ids=["ahead of its profile", "off", "left to its default"],
)
def test_a_gate_in_the_file_is_drift_only_where_it_lacks_its_profile(
    network: RehearsalNetwork, old: str, new: str, missing: list[Any], made: str | None
) -> None:
    """Known or not: the delta of development is the build, which mends none. The table may be
    partial; the node itself says what is in force.
    """
    with taken_over(network, old, new):
        result = drift(network, "development")

    assert wrong(result) == missing
    assert targets(result).get("dev-2") == made


# --- the chain's own bundle -----------------------------------------------------------------------


@needs_chain
@pytest.mark.parametrize(
    ("stage", "canaries"),
    [
        ("development", None),
        ("testnet", None),
        ("canary", ("main-1", "main-2")),
        ("canary", ("main-4",)),
        ("mainnet", None),
    ],
)
def test_the_chains_own_bundle_fails_by_its_own_contradiction_alone(
    network: RehearsalNetwork, tmp_path: Path, stage: str, canaries: Any
) -> None:
    """On canary and mainnet its export is refused by every node; all the rest holds."""
    bundle = f"{os.environ['RPP_CHAIN_DIR']}/config/defaults/mainnet.toml"
    site = site_with(network, tmp_path / "site.yaml", bundle=bundle, canaries=canaries)
    result = drift(network, stage, site=site)

    at, said = "network.admission.worm_export", "(or no node starts)"
    contradiction = [
        ("bundle worm_export", f"{at}.enabled on channel {stage}", f"true {said}", False),
        ("bundle worm_export", f"{at}.target.kind on channel {stage}", f"s3 {said}", "command"),
    ]
    assert wrong(result) == (contradiction if canaries or stage == "mainnet" else [])
    assert len(targets(result)) == len(network.world.clusters[STAGE_CLUSTERS[stage]].nodes)


def test_a_secret_of_the_bundle_proves_nothing(network: RehearsalNetwork, tmp_path: Path) -> None:
    """Secrets are taken out of all that is read, so two different ones look the same."""
    at = "network.admission.worm_export.target"
    bundle = tmp_path / "bundle.toml"
    own = (network.root / "bundle" / "mainnet.toml").read_text()
    bundle.write_text(f'{own}\n[{at}]\nkind = "s3"\nsecret_key = "not the nodes own"\n')
    site = site_with(network, tmp_path / "site.yaml", bundle=str(bundle))
    result = drift(network, "mainnet", site=site)

    text = "a secret, which is compared nowhere; leave it to the node's file"
    assert (result.outcome, wrong(result)) == (
        Outcome.INCONCLUSIVE,
        [(f"main-{n}", f"{at}.secret_key", "as in the bundle", text) for n in range(1, 6)],
    )


# --- again, offline -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lies", "outcome", "said"),
    [
        (None, Outcome.INCONCLUSIVE, "lumen-nodes must report it"),
        ({}, Outcome.PASS, ""),
        ({"config": "sha256:" + "0" * 64}, Outcome.FAIL, "test-5: config (reported): expected"),
        ({"binary": "sha256:" + "0" * 64}, Outcome.FAIL, "test-5: binary: expected"),
        ({"channel": "mainnet"}, Outcome.FAIL, "test-5: rollout.release_channel (reported, as it"),
        ({"at": "2026-01-01T00:00:00Z"}, Outcome.INCONCLUSIVE, "lumen-nodes must report it"),
    ],
    ids=["none", "fresh", "other-config", "other-binary", "not-as-it-runs", "stale"],
)
def test_a_fresh_report_stands_in_for_what_we_cannot_read(
    network: RehearsalNetwork, lies: dict[str, str] | None, outcome: Outcome, said: str
) -> None:
    """The file and the build of an operator's node; it must be young, and agree with the rest."""
    folder = network.root / "words" / "v1.4.0" / "reports"
    if lies is not None:
        network.operators.report("test-5", "testnet", **lies)
    unread = "config-unreadable", "candidate-unreadable"
    try:
        with (
            fault(network, f"{unread[0]}@testnet/test-5"),
            fault(network, f"{unread[1]}@testnet/test-5"),
        ):
            result = drift(network, "testnet")
    finally:
        shutil.rmtree(folder, ignore_errors=True)

    assert (result.outcome, said in result.reason) == (outcome, True), result.reason
