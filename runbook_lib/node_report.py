"""``runbook node-report``: run beside a node, by its operator; no site file is needed.

What the node says it runs, what lies on its disk, and the chain's own word on the target, signed
with the validator's sign-off key. The report is read back by the reader that will judge it.
"""

from __future__ import annotations

import argparse
import base64
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from .approve import private_key
from .canonical import canonical, digest_file
from .clusters import Cluster, Node
from .commands.printing import print_json
from .errors import ParameterError, SourceError
from .reach import Clock, Command, Rpc
from .site import Commands
from .sources.commands import SiteCommands
from .sources.node import Fleet, Rollout
from .sources.redact import Redactor
from .sources.reports import comment_text, parse_report
from .sources.scope import Outside, Scope
from .sources.tape import LiveTape
from .strict import validate


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
        "config": _digest(args.config, "--config"),
        "binary": _digest(args.binary, "--binary"),
        "target": _digest(args.target, "--target"),
        "dry_run": accepted,
        "at": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    signature = base64.b64encode(key.sign(canonical(said))).decode()
    data = canonical({"statement": said, "signature": signature}) + b"\n"
    try:
        parse_report(data)
    except ValueError as error:
        raise ParameterError(f"node-report: {error}") from error
    if args.output is not None:
        _write(args.output, data)
    if args.json:
        print_json({"statement": said, "signature": signature, "comment": comment_text(data)})
    elif args.output is not None:
        print(f"wrote {args.output}: hand it to the release engineers, or comment what it says")
    else:
        print(comment_text(data), end="")
    return 0


def _ask(args: argparse.Namespace) -> tuple[Rollout, bool | None, datetime]:
    """What the node runs, whether the dry run takes the target (None: not asked), and the instant."""
    where = "node-report"
    node = validate(Node, {"name": args.node, "url": args.url}, f"{where}: --url")
    rpc = validate(Rpc, {"token_env": args.token_env}, f"{where}: --token-env")
    cluster = Cluster(chain_id="", nodes=[node], rpc=rpc)
    clock = Clock(source="offset-file", path=str(args.clock.absolute())) if args.clock else Clock()
    redactor = Redactor(frozenset({args.token_env} if args.token_env else ()))
    outside = Outside(redactor)
    with tempfile.TemporaryDirectory(prefix="runbook-report-") as scratch:
        try:
            tape = LiveTape(Path(scratch), redactor)
            scope = Scope(tape, outside, where, 1, clock=clock)
            rollout = Fleet(scope, cluster).rollout()[args.node]
            if isinstance(rollout, SourceError):
                raise rollout
            return rollout, _dry_run(args, scope), scope.now().astimezone(UTC)
        finally:
            outside.close()


def _dry_run(args: argparse.Namespace, scope: Scope) -> bool | None:
    if not args.dry_run:
        return None
    if not any("{config}" in word for word in args.dry_run):
        raise ParameterError("--dry-run: expected {config} where the target goes, got none")
    commands = Commands(dry_run=Command(argv=args.dry_run))
    return SiteCommands(scope, commands).dry_run(args.target.absolute()).ok


def _digest(path: Path, option: str) -> str:
    try:
        return digest_file(path)
    except OSError as error:
        raise ParameterError(
            f"{option}: {path}: expected a readable file, got: {error.strerror}"
        ) from error


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ParameterError(f"{path}: expected to write it, got: {error.strerror}") from error
