"""canary.ready.candidate-installed: canaries run the release, on a configuration it accepts."""

from __future__ import annotations

from ..changes.targets import artifact, keep
from ..context import Context, judges
from ..errors import SourceError
from ..outcomes import CheckResult, Row, Value, check_row, unknown_row


def expected(context: Context) -> tuple[str, Value]:
    """What must hold, and its threshold."""
    return "every canary runs the candidate on a valid configuration", "0 unknown keys"


@judges("canary.ready.candidate-installed")
def candidate_installed(context: Context) -> CheckResult:
    """Per canary: the digest of its binary is the release's, and the strict dry run of its TOML passes.

    The canaries' operators install it; this only looks. Playbook: canary, readiness, 2.
    """
    wanted = artifact(context).binary
    canaries = [node.name for node in context.cluster.nodes if node.canary]
    rows = [
        row for name in canaries for row in (_build(context, name, wanted), _dry(context, name))
    ]
    return context.conclude(
        rows,
        passed=f"{len(canaries)} canaries run {wanted} on valid configurations",
        empty=f"no node of {context.cluster_name} is a canary; mark them `canary: true` in the site",
        data={"canaries": canaries, "digest": wanted},
    )


def _build(context: Context, name: str, wanted: str) -> Row:
    try:
        build = context.commands.version(name)
    except SourceError as error:
        return unknown_row(name, "binary", wanted, error.problem)
    same = build.digest == wanted
    return check_row(name, "binary", wanted, build.digest, ok=same, waivable=False)


def _dry(context: Context, name: str) -> Row:
    """The chain's verdict on what lies on the node's disk: what its next start would read."""
    what, valid = "dry run of its configuration", "valid"
    try:
        config = context.commands.read_config(name)
        raw = config.raw if config.secret else None
        file = keep(context, f"candidate-{name}", "candidates", config.text, raw)
        verdict = context.commands.dry_run(file)
    except SourceError as error:
        return unknown_row(name, what, valid, error.problem)
    return check_row(name, what, valid, valid if verdict.ok else verdict.text[:300], ok=verdict.ok)
