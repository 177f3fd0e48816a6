"""Node reports: signed beside the node, read from comments and files, or refused with why."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runbook_lib.canonical import digest_file
from runbook_lib.cli import main
from runbook_lib.site import read_site
from runbook_lib.sources.words import read_reports
from runbook_rehearsal.network import RehearsalNetwork

from ..conftest import NOWHERE, named, signed_file
from .conftest import World

KEY = Ed25519PrivateKey.from_private_bytes(b"n" * 32)
DIGEST = "sha256:" + "a" * 64


def report(key: Ed25519PrivateKey = KEY, **changes: Any) -> bytes:
    said: dict[str, Any] = {
        "kind": "node-report", "node": "dev-1", "release": "v1.4.0", "stage": "development",
        "plan": DIGEST, "phase": "build", "channel": "development", "gates": {"pruning": True},
        "config": DIGEST, "binary": DIGEST, "target": DIGEST, "dry_run": True,
        "at": datetime.now(UTC).isoformat(), **changes,
    }  # fmt: skip
    return signed_file(key, **said).encode()


@pytest.fixture
def read(practice: Any, world: World) -> Any:
    """What is found of reports that lie as files in the site's folder."""
    node = {"name": "dev-1", "url": NOWHERE, "signoff_key": named(KEY)}
    clusters = {"development": {"chain_id": "rpp", "nodes": [node]}}
    practice.write_site(words=str(practice.root / "words" / "{release}"), clusters=clusters)

    def found(*files: bytes) -> Any:
        folder = practice.root / "words" / "v1.4.0" / "reports"
        folder.mkdir(parents=True)
        for number, data in enumerate(files):
            (folder / f"{number}.json").write_bytes(data)
        site = read_site(str(practice.site))
        return read_reports(world.scope(), site, issue=0, release="v1.4.0")

    return found


def test_a_signed_report_counts(read: Any) -> None:
    older = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    reports = read(report(), report(at=older), report(release="v1.3.0"))

    mine = reports.of("dev-1", "development")
    assert [(one.fault, one.grounds) for one in mine] == [("", "1.json"), ("", "0.json")]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (report(Ed25519PrivateKey.from_private_bytes(b"m" * 32)), "forged: expected the signature of this node's signoff_key, got another"),
        (report(node="dev-9"), "stranger: expected a signoff_key of this node in the site file, got none"),
        (report(at="2099-01-01T00:00:00Z"), "ahead: expected an instant that has come, got 2099"),
        (b"{", "expected a node report, got: Invalid JSON"),
        (report(gates={"pruning": 1}), "expected a node report, got: gates.pruning: expected a valid"),
    ],
    ids=["forged", "stranger", "ahead", "no JSON", "no report"],
)  # fmt: skip
def test_what_does_not_count_says_why(read: Any, data: bytes, fault: str) -> None:
    found = read(data)
    [(where, why)] = found.unreadable or [(one.grounds, one.fault) for one in found.received]
    assert (where, why.startswith(fault)) == ("0.json", True)


def test_the_command_signs_what_runs_beside_it(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    with RehearsalNetwork(tmp_path / "network", telemetry=False) as network:
        for name, value in network.env.items():
            monkeypatch.setenv(name, value)
        spec = network.world.node("test-6")
        folder = network.world.node_dir("testnet", "test-6")
        site = read_site(str(network.site))
        assert site.commands.dry_run is not None
        (network.root / "refused.toml").write_text("no = such_key")

        def run(target: Path, *more: str) -> tuple[int, str]:
            words = [
                "node-report", "--node", spec.name, "--url", spec.url,
                "--token-env", "RPP_RPC_TOKEN", "--config", str(folder / "config.toml"),
                "--binary", str(folder / "bin" / "rpp-node"), "--target", str(target),
                "--key", str(network.root / "keys" / "test-6.pem"), "--release", "v1.4.0",
                "--stage", "testnet", "--plan", DIGEST, "--phase", "build",
                "--clock", str(network.world.clock.path), *more,
            ]  # fmt: skip
            code = main(words)
            got = capsys.readouterr()
            return code, got.out + got.err

        dry = ("--dry-run", *site.commands.dry_run.argv)
        code, text = run(folder / "config.toml", *dry)
        network.say(spec.operator, text)
        refused, bad = run(network.root / "refused.toml", *dry)
        nowhere, said = run(folder / "config.toml", "--dry-run", "rpp-node")
        scope = world.scope(None, clock=site.clock)
        found = read_reports(scope, site, issue=42, release="v1.4.0").of("test-6", "testnet")

    assert (code, refused) == (0, 0)
    assert [one.fault for one in found] == [""]
    told = found[0].report
    assert (told.dry_run, told.channel) == (True, "testnet")
    assert told.config == told.target == digest_file(folder / "config.toml")
    assert '"dry_run":false' in bad
    assert (nowhere, said) == (
        3,
        "--dry-run: expected {config} where the target goes, got none\n",
    )
