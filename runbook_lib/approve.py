"""``runbook approve``: a signed file of somebody's word; a comment is written by hand.

What is written is read back by the reader that will judge it, so that it counts or is refused here.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .canonical import canonical, digest, digest_file
from .commands.printing import say
from .errors import ParameterError
from .files import replace_file
from .reach import Clock, Command, Rpc
from .site import Cluster, Commands, Node, Site, read_site
from .sources.commands import SiteCommands
from .sources.keys import M, Signed, read_signed
from .sources.node import Fleet, Rollout
from .sources.scope import live_scope, read_clock
from .sources.words import FENCE, NodeReport, Refused, Statement, verify
from .strict import validate

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def node_report(args: argparse.Namespace) -> int:
    """Sign a report of a node; print it, or write it to ``--output``. Raises ParameterError,
    SourceError.
    """
    key = private_key(args.key, args.passphrase_env)
    rollout, accepted, now = _ask(args)
    said = {
        "kind": "node-report",
        "node": args.node,
        "release": args.release,
        "stage": args.stage,
        "plan": args.plan,
        "phase": args.phase,
        "channel": rollout.release_channel,
        "gates": rollout.feature_gates,
        "config": digest_file(args.config),
        "binary": digest_file(args.binary),
        "target": digest_file(args.target),
        "dry_run": accepted,
        "at": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    data, signed = _sign(key, said, NodeReport)
    comment = f"```{FENCE}\n{data.decode().strip()}\n```\n"
    shown = comment.rstrip()
    if args.output is not None:
        args.output.write_bytes(data)
        shown = f"wrote {args.output}: hand it to the release engineers, or comment what it says"
    document = {"statement": said, "signature": signed.signature, "comment": comment}
    return say(args.json, document, shown)


def _sign(key: Ed25519PrivateKey, said: dict[str, Any], model: type[M]) -> tuple[bytes, Signed[M]]:
    """A signed statement, and how its reader will read it. Raises ParameterError."""
    signature = base64.b64encode(key.sign(canonical(said))).decode()
    data = canonical({"statement": said, "signature": signature}) + b"\n"
    try:
        return data, read_signed(data, model)
    except ValueError as error:
        raise ParameterError(f"{said['kind']}: {error}") from error


def _ask(args: argparse.Namespace) -> tuple[Rollout, bool | None, datetime]:
    """What the node runs, whether the dry run takes the target (None: not asked), and the instant."""
    where = "node-report"
    node = validate(Node, {"name": args.node, "url": args.url}, f"{where}: --url")
    rpc = validate(Rpc, {"token_env": args.token_env}, f"{where}: --token-env")
    cluster = Cluster(chain_id="", nodes=[node], rpc=rpc)
    clock = Clock(source="offset-file", path=str(args.clock.absolute())) if args.clock else Clock()
    secrets = frozenset({args.token_env} if args.token_env else ())
    with live_scope(where, secrets=secrets, clock=clock) as scope:
        rollout = Fleet(scope, cluster).rollout()[args.node]
        accepted = None
        if args.dry_run:
            if not any("{config}" in word for word in args.dry_run):
                raise ParameterError("--dry-run: expected {config} where the target goes, got none")
            commands = Commands(dry_run=Command(argv=args.dry_run))
            accepted = SiteCommands(scope, commands).dry_run(args.target.absolute()).ok
        return rollout, accepted, scope.now().astimezone(UTC)


def approve(args: argparse.Namespace) -> int:
    """Sign an approval, acknowledgement, sign-off or withdrawal. Raises ParameterError."""
    site, key = read_site(args.site), private_key(args.key, args.passphrase_env)
    now, _ = read_clock(site.clock)
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    said = {
        "kind": args.kind,
        "withdraw": args.withdraw,
        "release": args.release,
        "stage": args.stage,
        "window": args.window,
        "plan": args.digest.lower(),
        **_speaker(site, args, f"ed25519:{public}"),
        "at": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    statement = {name: value for name, value in said.items() if value}
    data, signed = _sign(key, statement, Statement)
    word = verify(site, signed, str(args.key), now)
    if isinstance(word, Refused):
        raise ParameterError(f"{args.key}: {word.why}")
    who = statement.get("account") or statement["validator"]
    if (path := args.output) is None:
        # In the site's folder of that release, else here; named by what it says.
        said_by = re.sub(r"[^\w.-]", "_", who)
        name = f"{statement['kind']}-{said_by}-{digest(statement)[7:15]}.json"
        if (folder := site.words_folder(statement.get("release", ""))) is not None:
            if not site.words_root.is_dir():
                raise ParameterError(
                    f"{site.words_root}: expected the site's folder of words, got none;"
                    " mount it, or write elsewhere with --output"
                )
            folder.mkdir(parents=True, exist_ok=True)
        path = (folder or Path()) / name
    if os.path.lexists(path):
        raise ParameterError(f"{path}: expected a new file, got one that is there")
    # Whole or not at all: half a file would be read as one that nobody signed.
    replace_file(path, data, 0o644)
    document = {"path": str(path), "said": str(word), "by": who, "statement": statement}
    return say(args.json, document, f"wrote {path}\n{word}\nby {who} at {statement['at']}")


def private_key(path: Path, passphrase_env: str) -> Ed25519PrivateKey:
    """An Ed25519 key of a PEM file, or of its 32 raw bytes. Raises ParameterError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    expected = f"{path}: expected an Ed25519 private key, PEM or 32 raw bytes"
    passphrase = os.environ.get(passphrase_env, "") if passphrase_env else ""
    if passphrase_env and not passphrase:
        raise ParameterError(
            f"{passphrase_env}: expected the passphrase of {path}, got none; export it"
        )
    try:
        with path.open("rb") as file:
            data = file.read(65_537)
        if len(data) == 32:
            return Ed25519PrivateKey.from_private_bytes(data)
        key = load_pem_private_key(data, passphrase.encode() or None)
    except TypeError as error:  # encrypted and no passphrase, or the other way round
        hint = (
            "a plain one" if passphrase else "an encrypted one; name its variable, --passphrase-env"
        )
        raise ParameterError(f"{expected}, got {hint}") from error
    except Exception as error:
        # No word of the library: what it could not read may be a secret.
        raise ParameterError(f"{expected}, got one that cannot be read") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ParameterError(f"{expected}, got a key of another kind")
    return key


def _speaker(site: Site, args: argparse.Namespace, public: str) -> dict[str, Any]:
    """Whose key it is: a person's for an approval, else a validator's, or its operator's."""
    accounts = [person.account for person in site.people if person.key == public]
    by_people = args.kind in ("approve", "accept-policy")
    clusters = [site.clusters[name] for at, name in site.stages.items() if at == args.stage]
    nodes = [
        node
        for cluster in ([] if by_people else clusters)
        for node in cluster.nodes
        if node.signoff_key == public and node.validator
        if args.validator in ("", node.name, node.validator)
    ]
    if len(nodes) > 1:
        names = ", ".join(node.name for node in nodes)
        raise ParameterError(f"--validator: expected one of {names}: all have this key, got none")
    if nodes:
        return {"validator": nodes[0].validator}
    if accounts and not args.validator:
        return {"account": accounts[0]}
    known = "people" if by_people else f"people or of {args.validator or 'validators'}"
    raise ParameterError(
        f"{args.key}: expected a key of the site's {known}, got nobody's: {public}"
    )
