"""What the commands of ``cli`` do; each returns its exit code and prints a table or one document."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import display
from .errors import NotebookError, ParameterError, StoreError
from .outcomes import ExitCode, Outcome, Row, Standing, Value, Verdict, worst
from .params import STAGE_PARAMS, StageParams, stage_params
from .playbook import NOTEBOOKS, STAGES
from .strict import MAX_FILE, PROJECT, parse_yaml
from .wording import standing_word, utc

# --- running a stage ------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    """Run a stage headless; the verdict's exit code."""
    from .launch import run_stage

    params, where = read_parameters(args)
    if args.drop:
        dropped = [{"node": node, "reason": args.reason, "approval": args.approval}
                   for node in args.drop]  # fmt: skip
        params["drops"] = [*params.get("drops", []), *dropped]
        params.setdefault("retry_reason", args.reason)
    if args.go_on:
        params["attempt"] = newest_attempt(args.stage, stage_params(args.stage, params, where))
    report = run_stage(
        args.stage,
        params,
        params_file=where,
        output=args.output,
        shown=None if args.json else print_standing,
        told=None if args.json else print_line,
    )
    return tell(report, as_json=args.json)


def tell(report: Any, *, as_json: bool) -> int:
    """Print how a run ended: the verdict, where the evidence is, what to do next."""
    verdict: Verdict | None = report.verdict
    if as_json:
        print_json(report_document(report))
    elif verdict is not None:
        from .next_steps import verdict_card

        print(verdict_card(verdict, report.folder).text)
        if plan := _plan_of(report):
            print(f"plan      {plan}")
        if report.folder is not None:
            print(f"evidence  {report.folder}")
    return int(report.exit_code)


def report_document(report: Any) -> dict[str, Any]:
    """The one JSON document of a run."""
    verdict: Verdict | None = report.verdict
    items = verdict.items if verdict is not None else ()
    return {
        "outcome": verdict.outcome.value if verdict is not None else "INCONCLUSIVE",
        "exit_code": int(report.exit_code),
        "return_at": verdict.return_at.isoformat() if verdict and verdict.return_at else None,
        "items": [
            {
                "id": item.item,
                "outcome": item.outcome.value,
                "state": item.state,
                "waived": bool(item.waived),
                "reason": item.reason,
            }
            for item in items
        ],
        "plan": _plan_of(report),
        "evidence": str(report.folder) if report.folder is not None else None,
        "problems": list(report.problems),
    }


def _plan_of(report: Any) -> str | None:
    """The digest of the plan that a run made or applied: what an approval quotes."""
    from .evidence.posting import plan_digest
    from .evidence.record import Record

    if report.folder is None:
        return None
    return plan_digest(Record(report.folder / "record.jsonl").entries()) or None


def print_standing(standing: Standing) -> None:
    """One line of progress."""
    print(f"{standing_word(standing)[0]:<14} {standing.item}: {standing.reason}", flush=True)


def print_line(text: str) -> None:
    """What a watch says every hour."""
    print(f"{'':<14} {text}", flush=True)


def read_parameters(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Parameters of a file and of ``-p``/``-r``, and where they come from. Raises ParameterError."""
    values: dict[str, Any] = {}
    where = args.parameters_file or "command line"
    if args.parameters_file:
        try:
            with Path(args.parameters_file).open("rb") as file:
                values = parse_yaml(file.read(MAX_FILE + 1), args.parameters_file)
        except OSError as error:
            raise ParameterError(
                f"{args.parameters_file}: expected a parameter file, got: {error.strerror}"
            ) from error
    values |= {name: _typed(text) for name, text in args.parameter}
    values |= dict(args.raw)
    return values, where


def _typed(text: str) -> Any:
    """As papermill reads ``-p``: true/false, whole numbers and numbers; all else is text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def newest_attempt(stage: str, params: StageParams) -> int:
    """The number of the release's newest attempt at a stage in this mode. Raises StoreError.

    A plan made meanwhile does not hide the apply that waits.
    """
    from .evidence.store import Store
    from .site import read_site

    store = Store(read_site(params.site).store_path)
    attempts = store.attempts(params.release, stage)
    mine = [one for one in attempts if store.opened(one)["mode"] == params.mode]
    if not mine:
        what = f"expected an attempt with mode: {params.mode} to continue, got none yet"
        raise StoreError(f"{params.release}/{stage}: {what}")
    return mine[-1].number


def lab(args: argparse.Namespace) -> int:
    """A copy of the notebook in a new attempt's folder, parameters filled in, open in JupyterLab."""
    from .launch import prepare_copy
    from .opening import prepare_attempt

    params, where = read_parameters(args)
    if args.go_on:
        params["attempt"] = newest_attempt(args.stage, stage_params(args.stage, params, where))
    attempt = prepare_attempt(args.stage, params, where)
    path = prepare_copy(args.stage, {**params, "attempt": attempt.number}, attempt.folder)
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={path.parent}", path.name]
    if args.json:
        print_json({"attempt": attempt.number, "notebook": str(path), "command": command})
        return 0
    print(f"attempt {attempt.number}: {path}")
    print(f"seal it afterwards with: runbook seal {path.parent}")
    if args.no_browser:
        print("open it with:", " ".join(command))
        return 0
    return subprocess.call(command)


# --- evidence -------------------------------------------------------------------------------------


def attempt_folder(path: Path) -> Path:
    """``path``, which must be a folder. Raises ParameterError."""
    if not path.is_dir():
        raise ParameterError(f"{path}: expected the folder of an attempt, got none")
    return path


def verify(args: argparse.Namespace) -> int:
    """Verify an attempt from its files alone."""
    from .evidence.verify import verify as procedure

    rows, verdict = procedure(attempt_folder(args.path))
    return tell_rows(
        "verify",
        rows,
        args.json,
        {
            "verdict": verdict.outcome.value if verdict is not None else None,
            "exit_code_of_run": int(verdict.exit_code) if verdict is not None else None,
        },
    )


def replay(args: argparse.Namespace) -> int:
    """Run our notebook over an attempt's tape, and compare every result."""
    from .evidence.replay import replay as procedure
    from .launch import run_stage
    from .session import VERSION

    rows, version = procedure(attempt_folder(args.path), lambda stage: run_stage(stage, {}))
    more = {"recorded_by": version, "replayed_by": VERSION}
    return tell_rows("replay", rows, args.json, more)


def seal(args: argparse.Namespace) -> int:
    """Seal an attempt that was stepped through by hand."""
    from .evidence.by_hand import seal_by_hand
    from .evidence.publish import at_sealing

    verdict = seal_by_hand(attempt_folder(args.path))
    for problem in at_sealing(args.path):
        print(problem, file=sys.stderr)
    if args.json:
        print_json({"outcome": verdict.outcome.value, "exit_code": int(verdict.exit_code)})
    else:
        print(display.verdict_card(verdict).text)
    return int(verdict.exit_code)


def publish(args: argparse.Namespace) -> int:
    """Attach a sealed apply's files to its release, and update its section in the release issue."""
    from .evidence.publish import publish as procedure

    return tell_rows("publish", procedure(attempt_folder(args.path)), args.json, {})


def render(args: argparse.Namespace) -> int:
    """An executed notebook as one self-contained page."""
    from .evidence.render import render as page

    path = args.path
    if path.is_dir():
        found = [path / name for name in NOTEBOOKS.values() if (path / name).exists()]
        if len(found) != 1:
            raise NotebookError(f"{path.name}: expected one executed notebook, got {len(found)}")
        path = found[0]
    output = args.output or path.with_suffix(".html")
    text = page(path)
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ParameterError(
            f"{output}: expected a file that can be written, got: {error.strerror}"
        ) from error
    if args.json:
        print_json({"page": str(output)})
    else:
        print(output)
    return 0


def verify_artifact(args: argparse.Namespace) -> int:
    """Verify a release artifact against the signer that is named."""
    from .sources.artifacts import Request, examine
    from .sources.files import Disk
    from .sources.rekor import finder
    from .sources.signatures import Material, Policy

    given = {name for name in ("bundle", "signature", "certificate", "key") if getattr(args, name)}
    forms = ({"bundle"}, {"bundle", "key"}, {"signature", "certificate"}, {"signature", "key"})
    if given not in forms:
        raise ParameterError(
            "verify-artifact: expected --bundle, --signature and --certificate, or --signature "
            f"and --key, got {' '.join(f'--{name}' for name in sorted(given)) or 'none'}"
        )

    def read(path: Path | None) -> bytes:
        if path is None:
            return b""
        if not (data := Disk().read(path)):
            raise ParameterError(f"{path}: expected a file with content, got an empty one")
        return data

    request = Request(
        artifact=args.artifact,
        material=Material(read(args.bundle), read(args.signature), read(args.certificate)),
        policy=Policy(args.identity, args.issuer, read(args.key), read(args.trusted_root)),
        provenance=args.provenance,
        sbom=args.sbom,
        commit=args.commit,
        find=None if args.offline else finder(),
    )
    return tell_rows("verify-artifact", examine(request), args.json, {})


def judge(args: argparse.Namespace) -> int:
    """Judge a file of samples against its baseline, every series they have in common."""
    from .metrics.judge_files import judge_files

    report = judge_files(
        args.baseline,
        args.current,
        direction=args.direction,
        tolerance=args.tolerance,
        relative=not args.absolute,
        column=args.column,
        looks=args.looks,
        look=args.look,
        statistics=("location", "tail") if args.tail else ("location",),
    )
    if args.json:
        print_json(report.document())
    else:
        rows = [(each.outcome.value, each.subject, each.reason) for each in report.judgements]
        title = f"judge: {report.outcome}"
        print(display.table_card(title, ("outcome", "series", "reason"), rows).text)
    return int(report.exit_code)


# --- the site -------------------------------------------------------------------------------------


def adopt(args: argparse.Namespace) -> int:
    """Take a cluster over as it is; 4 while the approval is missing."""
    from .changes.adopt import adopt as take_over

    done = take_over(args.site, args.cluster, issue=args.issue, approval=args.approval)
    document = {
        "cluster": args.cluster,
        "digest": done.digest,
        "nodes": {name: state.model_dump(mode="json") for name, state in done.states.items()},
        "approved_by": list(done.approved_by),
        "self_approved": done.self_approved,
    }
    if args.json:
        print_json(document)
    else:
        rows: list[Sequence[Value]] = [
            (
                name,
                state.channel,
                ", ".join(g for g, on in state.gates.items() if on),
                state.binary[:19],
            )
            for name, state in done.states.items()
        ]
        columns = ("node", "channel", "gates on", "binary")
        print(display.table_card(f"{args.cluster}: {done.digest}", columns, rows).text)
        by = ", ".join(done.approved_by)
        print(
            f"adopted, approved by {by}" if by else f"not adopted: comment `approve {done.digest}`"
        )
    return 0 if done.approved_by else int(ExitCode.WAITING)


def status(args: argparse.Namespace) -> int:
    """Where a release stands, computed from its attempts, and when the next stage can open."""
    from .evidence.incidents import blocking, incidents_of
    from .evidence.status import attempts_of, next_opening
    from .evidence.store import Store
    from .site import read_site

    site = read_site(args.site)
    store = Store(site.store_path)
    found = attempts_of(store, args.release)
    rows: list[dict[str, Value]] = [
        {
            "stage": one.attempt.stage,
            "attempt": one.attempt.number,
            "mode": one.verdict.mode,
            "source": one.verdict.source,
            "outcome": one.verdict.outcome.value,
            "exit_code": int(one.verdict.exit_code),
            "sealed": one.sealed,
            "blocks": one.blocks,
            "since": one.since.isoformat(timespec="seconds") if one.since else "",
        }
        for one in found
    ]
    opening = next_opening(store, site, args.release)
    following: dict[str, Any] | None = None
    if opening is not None:
        at = opening.at.isoformat(timespec="seconds") if opening.at else None
        following = {
            "stage": opening.stage,
            "earliest": at,
            "item": opening.item,
            "why": opening.why,
            "missing": list(opening.missing),
        }
    open_ones = blocking(store, args.release, single_operator=site.single_operator)
    problems = {one.name: one.problem for one in open_ones}
    known = {one.id: one.standing for one in incidents_of(store, args.release)}
    incidents = [
        {"id": name, "standing": known.get(name, "missing"), "blocks": problems.get(name, "")}
        for name in dict.fromkeys([*known, *problems])
    ]
    if args.json:
        print_json(
            {
                "release": args.release,
                "attempts": rows,
                "incidents": incidents,
                "next": following,
            }
        )
    else:
        columns = ("stage", "attempt", "mode", "source", "outcome", "sealed", "blocks", "since")
        table: list[Sequence[Value]] = [[row[column] for column in columns] for row in rows]
        print(display.table_card(args.release, columns, table or [("no attempt yet",)]).text)
        for one in incidents:
            print(f"incident  {one['id']}: {one['blocks'] or one['standing']}")
        if opening is not None and following is not None:
            when = following["earliest"] or "not before that is mended"
            print(f"next: {opening.stage}, at the earliest {when}: {opening.item}: {opening.why}")
            for line in opening.missing[: display.SHOWN]:
                print(f"  missing  {line}")
    newest = {one.attempt.stage: one for one in found if one.verdict.mode == "apply"}
    passed = {stage for stage, one in newest.items() if one.passed}
    built = {stage for stage in STAGES if stage in NOTEBOOKS and stage in site.stages}
    whole = passed.issuperset(built) and not problems
    return 0 if whole else int(ExitCode.INCONCLUSIVE)


def doctor(args: argparse.Namespace) -> int:
    """Is this machine, and this site, able to run a stage."""
    from .doctor import examine

    return tell_rows("doctor", examine(args.site), args.json, {})


def watch(args: argparse.Namespace) -> int:
    """One look of mainnet's watch; 4 when nothing is wrong and it is not over."""
    from .watching import look

    site, release = args.site, args.what
    if args.parameters_file:
        if args.what != "mainnet" or args.site:
            raise ParameterError("watch: expected `mainnet -f PARAMS` or `--site SITE RELEASE`")
        args.parameter, args.raw = [], []
        values, where = read_parameters(args)
        params = stage_params("mainnet", values, where)
        site, release = params.site, params.release
    if not site:
        raise ParameterError("watch: expected --site or a parameter file that names one, got none")
    found = look(site, release)
    result, due = found.standing.result, found.standing.return_at
    if args.json:
        rows = result.rows if result is not None else ()
        document = {
            "attempt": found.attempt.name,
            "outcome": found.standing.outcome.value,
            "exit_code": int(found.exit_code),
            "return_at": due.isoformat() if due else None,
            "status": found.line,
            "rows": [row.model_dump(mode="json") for row in rows],
        }
        print_json(document)
    else:
        print(found.line)
        print_standing(found.standing)
        if due is not None:
            print(f"look again at {utc(due)}")
    return int(found.exit_code)


def lint_rules(args: argparse.Namespace) -> int:
    """Judge rule files offline; 1 when one of them would not load, warnings alone are 0."""
    from .checks.lint_rules import catalogue_names, lint, names_of

    emitted = catalogue_names((PROJECT / "params/metrics.yaml").read_bytes(), "params/metrics.yaml")
    if args.series is not None:
        emitted |= names_of(args.series)
    linted = lint(args.path, emitted)
    if args.json:
        print_json(linted.document())
    else:
        for finding in linted.findings:
            print(finding)
        print(linted.summary())
    return int(ExitCode.REFUSED if linted.refused else ExitCode.PASSED)


def schema(args: argparse.Namespace) -> int:
    """The JSON Schema of a file we read, for editors to complete it."""
    from .site import Site

    model = Site if args.which == "site" else STAGE_PARAMS[args.which]
    print_json(
        {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    )
    return 0


# --- printing -------------------------------------------------------------------------------------


def tell_rows(title: str, rows: Sequence[Row], as_json: bool, more: Mapping[str, Any]) -> int:
    """Print rows as a table or a document; 0, 1 or 2 by the worst of them."""
    outcome = worst(row.outcome for row in rows)
    if as_json:
        dumped = [row.model_dump(mode="json") for row in rows]
        print_json({"outcome": outcome.value, "rows": dumped, **more})
    else:
        columns = ("outcome", "subject", "what", "expected", "observed")
        table: list[Sequence[Value]] = [
            (row.outcome.value, row.subject, row.what, row.expected, row.observed) for row in rows
        ]
        print(display.table_card(f"{title}: {outcome}", columns, table).text)
    codes = {Outcome.PASS: ExitCode.PASSED, Outcome.FAIL: ExitCode.REFUSED}
    return int(codes.get(outcome, ExitCode.INCONCLUSIVE))


def print_json(document: Any) -> None:
    """The one document that a command prints with ``--json``."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + os.linesep)
