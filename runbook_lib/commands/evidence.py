"""Commands over an attempt's files: verify, replay, seal, publish, render."""

from __future__ import annotations

import argparse
import os
import re
import sys
from html import escape
from pathlib import Path

from .. import display
from ..errors import NotebookError, ParameterError
from ..outcomes import Outcome, worst
from ..playbook import NOTEBOOKS
from ..strict import PROJECT
from .printing import Verbs, print_json, rows_card, tell_rows

RECORD, MANIFEST = "record.jsonl", "manifest.json"
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
main a::after {{ content: " (" attr(href) ")"; }}
</style></head><body>
<header>{head}</header>
<main>
{body}
</main></body></html>
"""
_IMAGE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]*")


def options(verbs: Verbs) -> None:
    """``verify``, ``replay``, ``seal``, ``publish`` and ``render``."""
    for name, function, text in (
        ("verify", verify, "verify an attempt from its files alone"),
        ("replay", replay, "run our notebook over an attempt's tape and compare"),
        ("seal", seal, "seal an attempt that was stepped through by hand"),
        ("publish", publish, "attach a sealed apply to its release, update its issue"),
    ):
        verbs.add(name, function, text).add_argument(
            "path", type=Path, help="folder of the attempt"
        )
    made = verbs.add("render", render, "an executed notebook as one HTML page")
    made.add_argument("path", type=Path, help="folder of the attempt, or a notebook")
    made.add_argument(
        "-o",
        "--output",
        type=Path,
        help="the page (default: in this folder)",
    )


def verify(args: argparse.Namespace) -> int:
    """Verify an attempt from its files alone."""
    from ..evidence.verify import verify as procedure

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
    from ..evidence.replay import replay as procedure
    from ..launch import run_stage
    from ..session import VERSION

    rows, version = procedure(attempt_folder(args.path), lambda stage: run_stage(stage, {}))
    more = {"recorded_by": version, "replayed_by": VERSION}
    return tell_rows("replay", rows, args.json, more)


def seal(args: argparse.Namespace) -> int:
    """Seal an attempt that was stepped through by hand."""
    from ..evidence.publish import at_sealing
    from ..evidence.replay import seal_by_hand

    verdict = seal_by_hand(attempt_folder(args.path))
    for problem in at_sealing(args.path):
        print(problem, file=sys.stderr)
    if args.json:
        print_json({"outcome": verdict.outcome.value, "exit_code": int(verdict.exit_code)})
    else:
        print(display.verdict_card(verdict).text)
    return int(verdict.exit_code)


def publish(args: argparse.Namespace) -> int:
    """Attach a sealed apply's files to its release, and tell it in the release issue."""
    from ..evidence.publish import publish as procedure

    return tell_rows("publish", procedure(attempt_folder(args.path)), args.json, {})


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
    text = page_of(path)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(output, flags, 0o644), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ParameterError(
            f"{output}: expected a file that can be written, got: {error.strerror}"
        ) from error
    if args.json:
        print_json({"page": str(output)})
    else:
        print(output)
    return 0


def page_of(path: Path) -> str:
    """An executed notebook as one self-contained, inert HTML page.

    Result and verdict stand above the notebook's part, which may be hostile: of that only inert
    tags are kept, and no style that could pass for ours. Raises NotebookError for what is none.
    """
    from nbconvert import HTMLExporter

    from .. import notebook

    left_out = ("exclude_input_prompt", "exclude_output_prompt", "exclude_anchor_links")
    exporter = HTMLExporter(template_name="basic", **dict.fromkeys(left_out, True))
    body, _ = exporter.from_notebook_node(notebook.read(path))
    word, head = _head(path)
    return _PAGE.format(title=escape(f"{word} · {path.stem}"), head=head, body=_inert(body))


def _head(path: Path) -> tuple[str, str]:
    """What is known of a notebook, but by itself: in a word, and as HTML."""
    folder = path.resolve().parent
    if not (folder / RECORD).exists() or path.name not in NOTEBOOKS.values():
        text = "nothing was verified: this is no sealed notebook in an attempt's folder"
        return NOT_PROVEN, display.table_card(NOT_PROVEN, ("why",), [(text,)]).html
    from ..evidence.verify import verify as procedure

    rows, verdict = procedure(folder)
    outcome = worst(row.outcome for row in rows)
    table = rows_card(f"evidence: {outcome}", rows).html
    if outcome is not Outcome.PASS or verdict is None:
        log = verdict.outcome.value if verdict is not None else "nothing that can be read"
        why = "the evidence does not verify: nothing below is proven"
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
    return next((above for above in path.resolve().parents if (above / RECORD).exists()), None)


def attempt_folder(path: Path) -> Path:
    """``path``, which must be an attempt's folder, however damaged. Raises ParameterError."""
    if not path.is_dir():
        raise ParameterError(
            f"{path}: expected the folder of an attempt, got {'a file' if path.exists() else 'none'}"
        )
    if not any((path / name).exists() for name in (RECORD, MANIFEST)):
        raise ParameterError(
            f"{path}: expected the folder of an attempt, got one without {RECORD} and {MANIFEST};"
            " name the numbered one, as in <store>/v1.4.0/canary/0002"
        )
    return path
