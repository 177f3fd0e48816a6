"""Commands that judge files of others offline: an artifact, samples; and our schemas."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import display
from ..errors import ParameterError, SourceError
from ..outcomes import Outcome, Row, worst
from ..params import STAGE_PARAMS
from ..verdicts import ExitCode
from .printing import print_json, say, tell_rows

if TYPE_CHECKING:
    from ..sources.scope import Scope
    from ..sources.signatures import Find, Material, Policy


def verify_artifact(args: argparse.Namespace) -> int:
    """Verify a release artifact against the signer that is named."""
    from ..sources.scope import live_scope
    from ..sources.signatures import Material, Policy, finder

    given = {name for name in ("bundle", "signature", "certificate", "key") if getattr(args, name)}
    forms = ({"bundle"}, {"bundle", "key"}, {"signature", "certificate"}, {"signature", "key"})
    if given not in forms:
        raise ParameterError(
            "verify-artifact: expected --bundle, --signature and --certificate, or --signature "
            f"and --key, got {' '.join(f'--{name}' for name in sorted(given)) or 'none'}"
        )

    with live_scope("verify-artifact") as scope:

        def read(path: Path | None) -> bytes:
            data = scope.read(path) if path is not None else b""
            if path is not None and not data:
                raise ParameterError(f"{path}: expected a file with content, got an empty one")
            return data

        try:
            found = examine(
                scope,
                args.artifact,
                Material(read(args.bundle), read(args.signature), read(args.certificate)),
                Policy(args.identity, args.issuer, read(args.key), read(args.trusted_root)),
                provenance=args.provenance,
                sbom=args.sbom,
                commit=args.commit,
                find=None if args.offline else finder(lambda asked: scope.http([asked])[0]),
            )
        except SourceError as error:  # a file, which is the user's mistake
            raise ParameterError(str(error)) from error
    return tell_rows("verify-artifact", found, args.json, {})


def judge(args: argparse.Namespace) -> int:
    """Judge a file of samples against its baseline, every series they have in common."""
    from ..metrics.judge_files import judge_files

    given = ("column", "direction", "tolerance", "looks", "look")
    options: dict[str, Any] = {name: getattr(args, name) for name in given}
    options["statistics"] = ("location", "tail") if args.tail else ("location",)
    judgements = judge_files(args.baseline, args.current, relative=not args.absolute, **options)
    outcome = worst(each.outcome for each in judgements)
    codes = {Outcome.PASS: ExitCode.PASSED, Outcome.FAIL: ExitCode.REFUSED}
    code = int(codes.get(outcome, ExitCode.INCONCLUSIVE))
    series = [
        {"outcome": each.outcome.value, "reason": each.reason, **each.model_dump(mode="json")}
        for each in judgements
    ]
    rows = [(each.outcome.value, each.subject, each.reason) for each in judgements]
    card = display.table_card(f"judge: {outcome}", ("outcome", "series", "reason"), rows)
    say(args.json, {"outcome": outcome.value, "exit_code": code, "series": series}, card.text)
    return code


def schema(args: argparse.Namespace) -> int:
    """The JSON Schema of a file we read, for editors to complete it."""
    from ..site import Site

    model = Site if args.which == "site" else STAGE_PARAMS[args.which]
    print_json(
        {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    )
    return 0


def examine(
    scope: Scope,
    artifact: str,
    material: Material,
    policy: Policy,
    *,
    provenance: Path | None = None,
    sbom: Path | None = None,
    commit: str = "",
    find: Find | None = None,
) -> list[Row]:
    """One row per question about an artifact. Raises ParameterError, SourceError."""
    from ..sources.artifacts import Examination, Trust, read_artifact
    from ..sources.signatures import COMMIT

    if commit and not COMMIT.fullmatch(commit):
        raise ParameterError(f"commit: expected 40 or 64 hex digits, got {commit!r}")
    found = Examination(read_artifact(artifact, scope), Trust(policy, scope, find))
    rows = [found.signature(material)]
    if provenance is not None:
        rows += found.provenance(provenance)
    if commit:
        rows.append(found.commit(commit))
    return rows + found.sbom(sbom) if sbom is not None else rows
