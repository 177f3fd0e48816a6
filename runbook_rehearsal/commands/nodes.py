"""On nodes: what is in place, what runs, and what an operator is told."""

from __future__ import annotations

import time
from pathlib import Path

from .site import Site, fail, show

SLOW_DEPLOY_S = 3.0


def dry_run(site: Site, config: str, strict_config_validation: str = "") -> None:
    """As the node's own binary judges a file, with its options."""
    from runbook_rehearsal.chain.node_config import (
        EXIT_CONFIGURATION,
        ConfigurationError,
        parse,
    )

    if site.is_on("dry-run-broken"):
        fail("thread 'main' panicked at rpp/node/src/main.rs: out of memory")
    try:
        strict = bool(strict_config_validation) and not site.is_on("dry-run-lenient")
        parse(Path(config).read_text(), strict=strict)
    except ConfigurationError as error:
        fail(str(error), EXIT_CONFIGURATION)
    except (OSError, UnicodeDecodeError) as error:
        fail(f"configuration error: unable to read config: {error}", EXIT_CONFIGURATION)
    show({"level": "INFO", "fields": {"message": "dry run completed"}})


def restart(site: Site, node: str) -> None:
    site.require(node)
    show(site.ask("/restart", {"node": node}))


def stop(site: Site, node: str) -> None:
    """End a node's process; nothing when it has ended already."""
    site.require(node)
    if site.is_on("stop-fails", node):
        fail(f"{node}: systemctl: job timed out", 5)
    show(site.ask("/stop-node", {"node": node}))


def start(site: Site, node: str) -> None:
    """Start a node on what is in place; nothing when it runs."""
    site.require(node)
    show(site.ask("/start-node", {"node": node}))


def deploy(site: Site, node: str, artifact: str, digest: str, config: str) -> None:
    """Binary, then configuration, each put in place in one step; the node goes on as it runs."""
    from runbook_rehearsal.files import digest_of, unpack, write_atomically

    directory = site.directory(node)
    site.require(node)
    if site.is_on("deploy-fails", node):
        fail(f"{node}: rsync: write failed: no space left on device (28)", 11)
    try:
        actual = digest_of(Path(artifact))
        target = Path(config).read_bytes()
    except OSError as error:
        fail(f"{node}: {error}")
    if actual != digest:
        fail(f"{artifact}: expected {digest}, got {actual}")
    binary = unpack(Path(artifact))
    if site.is_on("wrong-binary", node):
        binary += b"# patched\n"
    if not site.is_on("build-sticks", node):
        write_atomically(directory / "bin" / "rpp-node", binary, 0o755)
    if site.is_on("slow-deploy"):
        time.sleep(SLOW_DEPLOY_S)
    if not site.is_on("gate-sticks", node):
        write_atomically(directory / "config.toml", target)
    in_place = digest_of(directory / "config.toml")
    show({"node": node, "digest": digest, "config": in_place})


def provision(site: Site, cluster: str, name: str, config: str) -> None:
    if site.is_on("provision-fails"):
        fail(f"{name}: quota exceeded for instance type", 1)
    try:
        text = Path(config).read_text()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{name}: {error}")
    show(site.ask("/provision", {"cluster": cluster, "name": name, "config": text}))


def deprovision(site: Site, cluster: str, name: str) -> None:
    show(site.ask("/deprovision", {"cluster": cluster, "name": name}))


def instruct(site: Site, operator: str, file: str) -> None:
    """Hand an operator the instruction in a file."""
    where = str(Path(file).absolute())
    show(site.ask("/instruct", {"operator": operator, "file": where}))
