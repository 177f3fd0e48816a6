"""Commands over an attempt's files: verify, replay, seal, publish, render."""

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from .. import display, launch, notebook
from ..errors import NotebookError, ParameterError
from ..evidence import publish as publishing
from ..evidence import release, sealing
from ..evidence import replay as replaying
from ..evidence import verify as verifying
from ..evidence.events import SessionOpened, of
from ..evidence.log import Log
from ..evidence.seal import heads
from ..outcomes import Outcome, Row, Value, worst
from ..package import VERSION
from ..playbook import NOTEBOOKS
from ..recording import recorded_site
from ..signatures import KEY_ENV
from ..signers import Trust
from ..site import read_site
from ..strict import PROJECT, parse_yaml, project_path, validate
from .printing import say, tell_rows

LOG, ATTESTATIONS = "log.jsonl", "attestations"
SHIPPED, NOT_PROVEN = PROJECT / "notebooks", "NOT PROVEN"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
 style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 sans-serif; }}
header {{ border-bottom: 4px double #000; }} main {{ contain: content; overflow-x: auto; }}
pre {{ white-space: pre-wrap; overflow-wrap: break-word; background: #f6f6f6; padding: .6rem; }}
table {{ border-collapse: collapse; }} img {{ max-width: 100%; }}
th, td {{ border-bottom: 1px solid #ccc; padding: .25rem .6rem; vertical-align: top; }}
main a[href]::after {{ content: " (" attr(href) ")"; }}
</style></head><body>
<header>{head}</header>
<main>
{body}
</main></body></html>
"""
_IMAGE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]*")


def verify(args: argparse.Namespace) -> int:
    """Verify an attempt from its files and the trusted keys, signature first."""
    trust = read_trust(args.trust) if args.trust else None
    rows, verdict = verifying.verify(attempt_folder(args.path), trust, head=args.head)
    rows += release.stages_before(args.path, trust) if trust is not None else []
    more = {"verdict": None, "exit_code_of_run": None} | (
        {"verdict": verdict.outcome.value, "exit_code_of_run": int(verdict.exit_code)}
        if verdict
        else {}
    )
    return tell_rows("verify", rows, args.json, more)


def read_trust(path: str) -> Trust:
    """Who may sign, out of a site file or one that holds that alone. Raises ParameterError."""
    value = parse_yaml(project_path(path).read_bytes(), path)
    whole = set(value) & {"store", "people"}
    return read_site(path).trust if whole else validate(Trust, value, path)


def head(args: argparse.Namespace) -> int:
    """The head of an attempt: what an auditor compares with ``verify --head``."""
    folder = attempt_folder(args.path)
    entries = Log(folder / LOG).events()
    newest = heads(folder, entries)[-1:]
    if not newest:
        raise NotebookError(f"{folder.name}: expected a log, got none")
    sealed = bool(entries) and newest[0] != entries[-1].hash
    return say(args.json, {"head": newest[0], "sealed": sealed}, newest[0])


def replay(args: argparse.Namespace) -> int:
    """Run our notebook over an attempt's tape, and compare every result."""
    rows, version = _judged_again(attempt_folder(args.path))
    more = {"recorded_by": version, "replayed_by": VERSION}
    return tell_rows("replay", rows, args.json, more)


def _judged_again(folder: Path) -> tuple[list[Row], str]:
    return replaying.replay(folder, lambda stage: launch.run_stage(stage, {}))


def seal(args: argparse.Namespace) -> int:
    """Seal an attempt that was stepped through by hand, judged again by a fresh kernel."""
    folder = attempt_folder(args.path)
    if args.sign:
        return countersign(folder, as_json=args.json)
    entries = Log(folder / LOG).events()
    by_hand = any(one.run == "interactive" for one in of(entries, SessionOpened))
    rows = _judged_again(folder)[0] if by_hand else []
    verdict = replaying.seal_by_hand(folder, rows)
    for problem in publishing.at_sealing(args.path):
        print(problem, file=sys.stderr)
    document = {"outcome": verdict.outcome.value, "exit_code": int(verdict.exit_code)}
    say(args.json, document, display.verdict_card(verdict).text)
    return int(verdict.exit_code)


def countersign(folder: Path, *, as_json: bool) -> int:
    """One more signature over a sealed attempt that holds, with the key that the environment names."""
    trust = recorded_site(folder, "recorded site").trust
    signing = trust.own()
    if signing.signer is None:
        raise ParameterError(f"{KEY_ENV}: expected the key of one of the site's signers, got none")
    rows = [row for row in verifying.verify(folder, trust)[0] if row.outcome is not Outcome.PASS]
    if wrong := [row for row in rows if row.what != "2 signers"]:
        raise NotebookError(
            f"{folder.name}: {wrong[0].what}: expected {wrong[0].expected}, got {wrong[0].observed};"
            " nobody should sign that"
        )
    path = sealing.countersign(folder, signing)
    return say(as_json, {"attestation": str(path)}, path)


def publish(args: argparse.Namespace) -> int:
    """Attach a sealed apply's files to its release, and tell it in the release issue."""
    return tell_rows("publish", publishing.publish(attempt_folder(args.path)), args.json, {})


def diff(args: argparse.Namespace) -> int:
    """What two attempts differ in; 0 also where they do."""
    rows = release.diff(attempt_folder(args.first), attempt_folder(args.second))
    columns = ("where", "what", "first", "second")
    shown: list[Sequence[Value]] = [
        [v if isinstance(v, str | int | float) else "" if v is None else json.dumps(v) for v in row]
        for row in rows
    ]
    card = display.table_card(f"diff: {len(rows)}", columns, shown or [("nothing",)])
    return say(args.json, [dict(zip(columns, row, strict=True)) for row in rows], card.text)


def render(args: argparse.Namespace) -> int:
    """An executed notebook as one self-contained page."""
    path = args.path
    if path.is_dir():
        found = [path / name for name in NOTEBOOKS.values() if (path / name).exists()]
        if len(found) != 1:
            raise NotebookError(f"{path.name}: expected one executed notebook, got {len(found)}")
        path = found[0]
    output = args.output or _page(path)
    if _attempt_of(output) is not None or output.resolve().is_relative_to(SHIPPED):
        raise ParameterError(
            f"{output}: expected a page outside the attempt's folder, whose files are sealed, and of"
            " the shipped notebooks, got one in it; name another with -o"
        )
    text = page_of(path, read_trust(args.trust) if args.trust else None)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with os.fdopen(os.open(output, flags, 0o644), "w", encoding="utf-8") as file:
        file.write(text)
    return say(args.json, {"page": str(output)}, output)


def page_of(path: Path, trust: Trust | None = None) -> str:
    """An executed notebook as one self-contained, inert HTML page.

    Result and verdict stand above the notebook's part, which may be hostile: of that only inert
    tags are kept, and no style that could pass for ours. Without ``trust`` no signature is compared,
    and nothing proven. Raises NotebookError for what is none.
    """
    from nbconvert import HTMLExporter
    from nbformat import ValidationError

    left_out = ("exclude_input_prompt", "exclude_output_prompt", "exclude_anchor_links")
    exporter = HTMLExporter(template_name="basic", **dict.fromkeys(left_out, True))
    try:
        body, _ = exporter.from_notebook_node(notebook.read(path))
    except (ValidationError, Warning) as error:
        problem = str(error).splitlines()[0][:200]
        raise NotebookError(f"{path.name}: expected a valid notebook, got: {problem}") from error
    word, head = _head(path, trust)
    return _PAGE.format(title=escape(f"{word} · {path.stem}"), head=head, body=_inert(body))


def _head(path: Path, trust: Trust | None) -> tuple[str, str]:
    """What is known of a notebook, but by itself: in a word, and as HTML."""
    folder = path.resolve().parent
    if not (folder / LOG).exists() or path.name not in NOTEBOOKS.values():
        text = "nothing was verified: this is no sealed notebook in an attempt's folder"
        return NOT_PROVEN, display.why_card(NOT_PROVEN, text).html
    rows, verdict = verifying.verify(folder, trust)
    outcome = worst(row.outcome for row in rows)
    table = display.rows_card(f"evidence: {outcome}", rows).html
    if outcome is not Outcome.PASS or verdict is None:
        log = verdict.outcome.value if verdict is not None else "nothing that can be read"
        why = "the evidence does not verify: nothing below is proven"
        unproven = [row.what for row in rows if row.outcome is not Outcome.PASS]
        if trust is None and unproven == ["2 signers"]:
            why = "the signature was not compared, name who may sign (--trust FILE): nothing is proven"
        card = display.table_card(NOT_PROVEN, ("why", "its log says"), [(why, log)])
        return NOT_PROVEN, card.html + table
    return verdict.outcome.value, display.verdict_card(verdict).html + table


def _inert(body: str) -> str:
    import nh3

    def kept(tag: str, name: str, value: str) -> str | None:
        if name == "src":
            return value if _IMAGE.fullmatch(value) else None
        return None if name == "href" and not value.startswith(("https://", "http://")) else value

    return nh3.clean(
        body,
        tags=nh3.ALLOWED_TAGS - {"header", "hgroup", "footer", "nav", "area", "map"},
        attributes={"*": {"align", "style", "open", "colspan", "rowspan"},
                    "a": {"href"}, "img": {"src", "alt"}},
        attribute_filter=kept,
        filter_style_properties={"text-align", "white-space"},
        url_schemes={"http", "https", "data"},
    )  # fmt: skip


def _page(notebook: Path) -> Path:
    """In the working directory: an attempt's folder is sealed, and we ship those of ours."""
    folder = _attempt_of(notebook)
    return Path(f"{notebook.stem}-{folder.name}.html" if folder else f"{notebook.stem}.html")


def _attempt_of(path: Path) -> Path | None:
    """The attempt's folder that ``path`` lies in."""
    return next((above for above in path.resolve().parents if (above / LOG).exists()), None)


def attempt_folder(path: Path) -> Path:
    """``path``, which must be an attempt's folder, however damaged. Raises ParameterError."""
    got = "a file" if path.exists() else "none"
    if path.is_dir():
        got = f"one without {LOG} and {ATTESTATIONS}; name the numbered one, as in"
        got += " <store>/v1.4.0/canary/0002"
    if not any((path / name).exists() for name in (LOG, ATTESTATIONS)):
        raise ParameterError(f"{path}: expected the folder of an attempt, got {got}")
    return path
