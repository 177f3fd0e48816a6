"""The site file: where the clusters are and how each part of that world is reached.

``params/sites/example.yaml`` explains every key. Secrets are never values: keys that end in
``_env`` name the environment variable that holds one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from functools import cached_property, lru_cache
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from .canonical import digest
from .errors import ParameterError
from .playbook import MAINNET_WATCH, STAGES
from .reach import (
    Clock,
    Command,
    Endpoint,
    EnvName,
    PublicKey,
    Reached,
    Rpc,
    Url,
    names_secret,
)
from .signatures import PASSPHRASE_ENV
from .signers import Signers, Trust
from .strict import (
    Instant,
    Name,
    OwnName,
    Range,
    Strict,
    parse_yaml,
    project_path,
    refused,
    validate,
)

POLICY = frozenset(
    {"people", "single_operator", "signers", "signing", "artifact_signing", "versions", "stages"}
    | {"clusters", "commands", "forge", "telemetry", "dashboards"}
)
"""Keys that say who counts, what is run, and where words and measurements come from."""
SECRETS = frozenset({"token_env", "url_env", "headers_env", "secrets_env"})
_ARMED_HOURS = MAINNET_WATCH / timedelta(hours=1)  # the longest watch: alerts must reach us for it


class Node(Strict):
    name: OwnName
    validator: str = ""
    peer: str = ""
    control: Literal["ours", "operator"] = "ours"
    operator: Name = ""
    signoff_key: PublicKey = ""
    canary: bool = False
    url: Url | None = None
    rpc_command: Command | None = None

    @model_validator(mode="after")
    def _reachable(self) -> Node:
        if (self.url is None) == (self.rpc_command is None):
            raise ValueError("expected either url or rpc_command")
        if self.control == "operator" and not self.operator:
            raise ValueError("expected the operator's account for an operator's node")
        return self


class SnapshotKey(Strict):
    """A public key of snapshot signatures, and the number the chain knows it by."""

    version: int = Field(default=1, ge=0, lt=2**31)
    key: PublicKey = Field(min_length=1)


class Rollback(Strict):
    """What a cluster falls back on: the previous release, snapshot bundles, and their limits.

    ``release`` is the file of an artifact; empty where builds are images in a registry.
    """

    release: str = ""
    snapshots: list[str] = Field(min_length=1)
    keys: list[SnapshotKey] = Field(min_length=1)
    at_least: int = Field(default=1, ge=1, le=100)
    max_age_hours: float = Field(default=24.0, gt=0, le=8760)
    max_lag_blocks: int = Field(default=17_280, gt=0)

    @property
    def by_version(self) -> dict[int, str]:
        """The public keys of snapshots."""
        return {key.version: key.key for key in self.keys}

    @model_validator(mode="after")
    def _usable(self) -> Rollback:
        if len(self.by_version) != len(self.keys):
            raise ValueError("expected every key version once")
        unknown = set(re.findall(r"\{(.*?)\}", self.release)) - {"cluster", "digest"}
        if unknown:  # a candidate's release or commit is none of it
            raise ValueError(f"expected {{cluster}} and {{digest}}, got {{{min(unknown)}}}")
        return self


class Cluster(Strict):
    chain_id: str
    epoch_length: int = Field(default=720, gt=0)
    block_time_ms: int = Field(default=5000, gt=0)
    rpc: Rpc = Rpc()
    rollback: Rollback | None = None
    nodes: list[Node] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> Cluster:
        for key in ("name", "validator", "peer", "url"):
            values = [getattr(node, key) for node in self.nodes if getattr(node, key)]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"expected every {key} once, got {', '.join(twice)} twice")
        return self


class Telemetry(Strict):
    prometheus: Endpoint
    alertmanager: Endpoint
    matchers: dict[str, dict[str, str]] = {}
    node_label: str = "instance"
    watchdog: str = "Watchdog"
    paging_severities: list[str] = ["critical", "page"]
    paging_labels: dict[str, str] = {}
    alertmanager_as: str = ""
    armed_hours: float = Field(default=_ARMED_HOURS, ge=_ARMED_HOURS, le=7 * 24)
    rules: list[str] = []
    backends: list[str] = Field(default=[], min_length=1)


Topic = Literal["consensus_health", "proof_latency", "vrf_participation", "network_churn"]


class Dashboards(Strict):
    """Dashboards by topic: uids in Grafana, or JSON files, whose names end in ``.json``.

    ``limits`` are of panels, named ``DASHBOARD: PANEL`` by their titles, in place of their colours.
    """

    grafana: Endpoint | None = None
    topics: dict[Topic, Annotated[list[str], Field(min_length=1)]] = {}
    variables: dict[str, str | list[str]] = {}
    limits: dict[str, Range] = {}
    max_age_s: float = Field(default=180.0, gt=0, le=300)


class Ci(Strict):
    """CI whose checks must all be green: the reporting app and the names that must be there."""

    app: str
    required: list[str] = Field(min_length=1)


class Risk(Strict):
    """Labels of issues: the one of low risk, and those above it."""

    low: str = Field(min_length=1)
    above: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _apart(self) -> Risk:
        if self.low in self.above:
            raise ValueError(f"expected {self.low!r} to be low or above it, got both")
        return self


class Forge(Reached):
    """``account`` is whose token it is, for one that may not ask (an app's)."""

    kind: Literal["github"]
    url: Url
    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    account: str = ""
    ci: Ci
    risk: Risk | None = None


class Commands(Strict):
    """The site's commands by purpose. The first block only reads; the second changes the world.

    ``notify`` tells people, and does neither.
    """

    version: Command | None = None
    read_config: Command | None = None
    dry_run: Command | None = None
    probe: Command | None = None
    test_rules: Command | None = None
    assets: Command | None = None
    stopped: Command | None = None
    inspect_wal: Command | None = None
    verify_snapshot: Command | None = None
    soak: Command | None = None
    revision: Command | None = None
    tree_status: Command | None = None
    suites: dict[str, Command] = {}

    announced: Command | None = None
    proposals: Command | None = None

    announce: Command | None = None
    announce_halt: Command | None = None
    instruct: Command | None = None
    freeze_proposals: Command | None = None
    unfreeze_proposals: Command | None = None
    deploy: Command | None = None
    restart: Command | None = None
    stop: Command | None = None
    keep_data: Command | None = None
    restore_snapshot: Command | None = None
    replay_proofs: Command | None = None
    start: Command | None = None
    provision: Command | None = None
    deprovision: Command | None = None

    notify: Command | None = None


class Person(Strict):
    """Somebody who may act: account on the forge, key of signed files, roles."""

    name: str
    account: str = Field(min_length=1)
    key: PublicKey = ""
    roles: list[str] = []


class Bundle(Strict):
    path: str


class Freeze(Strict):
    """A time in which no change window may lie."""

    start: Instant = Field(min_length=1)
    end: Instant = Field(min_length=1)
    reason: str


def _template(*known: str) -> AfterValidator:
    """A text whose ``{placeholders}`` are among ``known``."""

    def check(value: str) -> str:
        unknown = sorted(set(re.findall(r"\{(.*?)\}", value)) - set(known))
        if unknown:
            among = ", ".join(f"{{{name}}}" for name in known)
            raise ValueError(f"expected placeholders among {among}, got {{{unknown[0]}}}")
        return value

    return AfterValidator(check)


ReleaseText = Annotated[str, _template("release", "commit")]
OfArtifact = Annotated[str, _template("release", "commit", "name", "path")]
Beside = Annotated[str, _template("path")]


class Signing(Strict):
    """Who signs releases, and which files prove it. Nobody is trusted by default.

    ``identity`` is exact; ``manifest``, ``provenance`` and ``sbom`` are of one artifact; the last
    three lie beside any signed file.
    """

    identity: ReleaseText = ""
    issuer: str = ""
    key: str = ""
    trusted_root: str = ""
    log: Endpoint | None = None
    manifest: OfArtifact = ""
    provenance: OfArtifact = ""
    sbom: OfArtifact = ""
    bundle: Beside = "{path}.sigstore.json"
    signature: Beside = "{path}.sig"
    certificate: Beside = "{path}.pem"

    @model_validator(mode="after")
    def _one_signer(self) -> Signing:
        if bool(self.identity) != bool(self.issuer):
            raise ValueError("expected identity and issuer together")
        if self.key and self.identity:
            raise ValueError("expected a key, or identity and issuer, not both")
        for name in ("bundle", "signature", "certificate"):
            if "{path}" not in getattr(self, name):
                raise ValueError(f"expected {{path}} in {name}")
        return self


class Site(Strict):
    name: OwnName
    clock: Clock = Clock()
    store: str
    kits: str = ".kits"
    single_operator: bool = False
    bundle: Bundle
    people: list[Person] = Field(min_length=1)
    words: str = ""
    stages: dict[Literal["development", "testnet", "canary", "mainnet"], str]
    clusters: dict[OwnName, Cluster]
    telemetry: Telemetry
    dashboards: Dashboards = Dashboards()
    forge: Forge
    commands: Commands
    artifacts: dict[OwnName, ReleaseText] = {}
    binary_member: str = ""
    artifact_signing: Signing = Signing()
    signing: Literal["required", "none"] = "required"
    signers: Signers | None = None
    versions: list[str] = []
    freezes: list[Freeze] = []
    # Left out when there are none: what limits a stage is compared by its digest.
    secrets_env: list[EnvName] = Field(default=[], exclude_if=lambda names: not names)

    @model_validator(mode="after")
    def _consistent(self) -> Site:
        problems = [
            f"stages.{stage}: expected one of {sorted(self.clusters)}, got {cluster!r}"
            for stage, cluster in self.stages.items()
            if cluster not in self.clusters
        ]
        problems += [
            f"stages.{two}: expected {'the' if shared else 'another'} cluster"
            f" {'of' if shared else 'than'} {one}, got {self.stages[two]!r}"
            for one, two in combinations((each for each in STAGES if each in self.stages), 2)
            if {self.stages[one], self.stages[two]} <= self.clusters.keys()
            and (shared := {one, two} == {"canary", "mainnet"})
            != (self.stages[one] == self.stages[two])
        ]
        chains = [cluster.chain_id for cluster in self.clusters.values()]
        if len(set(chains)) != len(chains):
            problems.append("clusters: expected every chain_id once")
        problems += [
            f"telemetry.matchers.{name}: expected a cluster, got {name!r}"
            for name in self.telemetry.matchers
            if name not in self.clusters
        ]
        # A forge tells no accounts apart by case, and two people with one key would be one approver.
        for key, values in (
            ("account", [person.account.casefold() for person in self.people]),
            ("key", [person.key for person in self.people if person.key]),
        ):
            if len(set(values)) != len(values):
                problems.append(f"people: expected every {key} once")
        if (self.signing == "required") != (self.signers is not None):
            problems.append("signers: expected them unless signing is none, and not beside it")
        if self.words and "{release}" not in self.words:
            problems.append(f"words: expected a folder with {{release}} in it, got {self.words!r}")
        if self.kits_path.resolve().is_relative_to(self.store_path.resolve()):
            problems.append(f"kits: expected a folder outside the store, got {self.kits!r}")
        # A suite is the candidate's own code.
        problems += [
            f"commands.suites.{name}.env: expected no secret, got {variable}"
            for name, suite in self.commands.suites.items()
            for variable in sorted(self.secret_names() & set(suite.env))
        ]
        return refused(self, problems)

    @property
    def trust(self) -> Trust:
        """Who may sign evidence here, for whoever reads it."""
        return Trust(signing=self.signing, signers=self.signers, versions=self.versions)

    @property
    def policy(self) -> dict[str, Any]:
        """What of it must not move during a release unless somebody else accepts that."""
        return self.model_dump(mode="json", include=set(POLICY), exclude_defaults=True)

    @cached_property
    def policy_digest(self) -> str:
        return digest(self.policy)

    @property
    def source(self) -> Literal["live", "rehearsal"]:
        """What a run here is: where the clock runs ahead it is a rehearsal."""
        return "rehearsal" if self.clock.source == "offset-file" else "live"

    @property
    def kits_path(self) -> Path:
        """Where recovery kits lie: they must be there when the store is not."""
        return project_path(self.kits)

    @property
    def store_path(self) -> Path:
        return project_path(self.store)

    def cluster_of(self, stage: str) -> Cluster:
        """The cluster a stage works on. Raises KeyError for a stage the site has not."""
        return self.clusters[self.cluster_name(stage)]

    def cluster_name(self, stage: str) -> str:
        """The name of that cluster. Raises KeyError for a stage the site has not."""
        return self.stages[stage]  # type: ignore[index] # any other text is the KeyError

    def person(self, account: str) -> Person | None:
        """The person of an account, which a forge knows in any case of its letters."""
        folded = account.casefold()
        return next((one for one in self.people if one.account.casefold() == folded), None)

    def holders(self, *roles: str) -> list[str]:
        """The accounts of the people who have one of these roles."""
        return [one.account for one in self.people if not set(one.roles).isdisjoint(roles)]

    def words_folder(self, release: str) -> Path | None:
        """Where signed words about a release lie; None when the site names no such folder."""
        named = self.words and release
        return project_path(self.words.replace("{release}", release)) if named else None

    @property
    def words_root(self) -> Path:
        """The folder that must be there, whether or not a release has words already."""
        return project_path(self.words.partition("{release}")[0] + "_").parent

    def secret_names(self) -> frozenset[str]:
        """Every environment variable the file names as holding a secret."""
        return frozenset({*_secrets(self.model_dump()), PASSPHRASE_ENV})


def _secrets(value: Any, key: str = "") -> Iterator[str]:
    """The variables that stand under a ``key`` of secrets, and those of a command by their names."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _secrets(inner, key if key == "headers_env" else name)
    elif isinstance(value, list):
        for inner in value:
            yield from _secrets(inner, key)
    elif (key in SECRETS and value) or (key == "env" and names_secret(value)):
        yield value


@lru_cache(maxsize=16)  # the same file is read again before each node
def parse_site(text: bytes, where: str) -> Site:
    """A site file's content. Raises ParameterError listing every problem."""
    return validate(Site, parse_yaml(text, where), where)


def read_site(path: str) -> Site:
    """The site file at ``path``. Raises ParameterError, naming every problem."""
    where = project_path(path)
    try:
        text = where.read_bytes()
    except OSError as error:
        do = "copy params/sites/example.yaml and name yours in `site`"
        if where.is_relative_to(project_path(".rehearsal")):
            do = "`runbook rehearse --serve` brings the practice network up"
        said = f"expected a site file, got: {error.strerror}; {do}"
        raise ParameterError(f"{where}: {said}") from error
    return parse_site(text, path)
