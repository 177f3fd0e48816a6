"""The site file: strict, consistent, and without secrets in it."""

from typing import Any

import pytest
import yaml

from runbook_lib.errors import ParameterError
from runbook_lib.site import Site, parse_site

from .conftest import example_site, put
from .messages import saying


def parse(values: dict[str, Any]) -> Site:
    return parse_site(yaml.safe_dump(values).encode(), "s.yaml")


def test_the_example_is_a_site_and_names_its_secrets() -> None:
    """Every key in it is one we read; what holds secrets is known by name."""
    site = parse(example_site())
    assert site.secret_names() == {
        "RPP_RPC_TOKEN", "PROXY_TOKEN", "PROMETHEUS_TOKEN", "TENANT", "GRAFANA_TOKEN",
        "CHAT_WEBHOOK", "RUNBOOK_SIGNING_PASSPHRASE", "GITHUB_TOKEN",
    }  # fmt: skip
    assert site.cluster_of("canary") is site.clusters["mainnet"]
    person = site.person("ada")
    assert person is not None
    assert (person.name, site.person("nobody")) == ("Ada Lovelace", None)


MAINNET_ID = example_site()["clusters"]["mainnet"]["chain_id"]
URL = "expected an http(s) URL without credentials, query or fragment"
ENV = "expected the name of an environment variable, got something else"


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("telemetry.prometheus.url", "https://user:pw@host", f"telemetry.prometheus.url: {URL}, got one with credentials"),
        ("forge.url", "https://host/?token=s3cret@x", f"forge.url: {URL}, got one with a query or fragment"),
        ("secrets_env.0", "https://hooks.example/x", f"secrets_env.0: {ENV}"),
        ("forge.url", "ftp://host", f"forge.url: {URL}, got 'ftp://host'"),
        ("forge.token_env", "ghp_secret-token!", f"forge.token_env: {ENV}"),
        ("stages.canary", "main", "stages.canary: expected one of ['development', 'mainnet', 'testnet'], got 'main'"),
        *(
            (f"stages.{stage}", cluster, f"stages.{stage}: expected {said}, got '{cluster}'")
            for stage, cluster, said in (
                ("canary", "testnet", "another cluster than testnet"),
                ("testnet", "development", "another cluster than development"),
                ("mainnet", "testnet", "the cluster of canary"),
            )
        ),
        ("clusters.testnet.chain_id", MAINNET_ID, "clusters: expected every chain_id once"),
        ("telemetry.matchers", {"prod": {}}, "telemetry.matchers.prod: expected a cluster, got 'prod'"),
        ("people.1.account", "Ada", "people: expected every account once"),
        ("people.1.key", "ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "people: expected every key once"),
        ("words", "/srv/words", "words: expected a folder with {release} in it, got '/srv/words'"),
        ("clusters.development.nodes.1.signoff_key", "x", "clusters.development.nodes.1.signoff_key: expected ed25519:BASE64 of a 32 byte public key, got 'x'"),
        ("people.0.key", "ed25519:AAAA", "people.0.key: expected ed25519:BASE64 of a 32 byte public key, got 'ed25519:AAAA'"),
        ("clock", {"source": "offset-file"}, "clock: expected a path with offset-file, and none with utc, got dict"),
        ("clusters.development.nodes.1.name", "dev-1", "clusters.development: expected every name once, got dev-1 twice"),
        ("clusters.development.nodes.1.url", "http://host", "clusters.development.nodes.1: expected either url or rpc_command, got dict"),
        ("clusters.development.nodes.1.operator", "", "clusters.development.nodes.1: expected the operator's account for an operator's node, got dict"),
        ("clusters.development.epoch_length", 0, "clusters.development.epoch_length: expected greater than 0, got 0"),
        ("telemetry.armed_hours", 1.0, "telemetry.armed_hours: expected greater than or equal to 24, got 1.0"),
        ("dashboards.topics.consensus_health", [], "dashboards.topics.consensus_health: expected List should have at least 1 item after validation, not 0, got list"),
        ("telemetry.prometheus.timeout_s", "30", "telemetry.prometheus.timeout_s: expected a number, got '30'"),
        ("clusters.development.rollback.keys", [], "clusters.development.rollback.keys: expected List should have at least 1 item after validation, not 0, got list"),
        ("clusters.development.rollback.keys.0.key", "", "clusters.development.rollback.keys.0.key: expected String should have at least 1 character, got ''"),
        ("clusters.development.rollback.release", "/srv/{release}/node", "clusters.development.rollback: expected {cluster} and {digest}, got {release}"),
        ("clusters.development.rollback.at_least", 0, "clusters.development.rollback.at_least: expected greater than or equal to 1, got 0"),
        ("clusters.development.rollback.max_age_hours", float("inf"), "clusters.development.rollback.max_age_hours: expected less than or equal to 8760, got inf"),
        ("artifacts.node", "/srv/{version}/node", "artifacts.node: expected placeholders among {release}, {commit}, got {version}"),
        ("artifact_signing.identity", "", "artifact_signing: expected identity and issuer together, got dict"),
        ("artifact_signing.issuer", "", "artifact_signing: expected identity and issuer together, got dict"),
        ("artifact_signing.key", "release.pub", "artifact_signing: expected a key, or identity and issuer, not both, got dict"),
        ("artifact_signing.signature", "node.sig", "artifact_signing: expected {path} in signature, got dict"),
        ("artifact_signing.sbom", "{tag}/sbom.json", "artifact_signing.sbom: expected placeholders among {release}, {commit}, {name}, {path}, got {tag}"),
        (
            "kits",
            "/srv/releases/store/../store/kits",
            "kits: expected a folder outside the store, got '/srv/releases/store/../store/kits'",
        ),
        ("artifact_signing.log.url", "log.example", f"artifact_signing.log.url: {URL}, got 'log.example'"),
        ("commands.version.shell", True, "commands.version.shell: expected no such key; remove it or correct its spelling"),
    ],
)  # fmt: skip
def test_a_wrong_site_is_refused_naming_the_key(key: str, value: Any, problem: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parse(put(example_site(), key, value))
    assert f"s.yaml: {problem}" in caught.value.problems
    assert len(caught.value.problems) == 1 or key.startswith("stages.")


def test_an_empty_set_of_people_or_nodes_is_refused() -> None:
    for key in ("people", "clusters.testnet.nodes", "forge.ci.required", "telemetry.backends"):
        with saying(ParameterError, f"s.yaml: {key}: expected ", whole=False):
            parse(put(example_site(), key, []))


def test_trailing_slashes_do_not_make_another_url() -> None:
    """A path prefix is kept, its last slash is not."""
    site = parse(put(example_site(), "telemetry.prometheus.url", "https://host/path/"))
    assert site.telemetry.prometheus.url == "https://host/path"
