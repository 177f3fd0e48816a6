"""An executed notebook as one HTML page for readers without Jupyter: self-contained and inert.

The notebook may be hostile: the page's policy forbids scripts and every request, so that what
stands in it is shown and nothing runs.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from .. import notebook

# A page's policy stops scripts and requests, not a <meta> that leads elsewhere.
_ACTIVE = re.compile(
    r"<(?=/?(?:script|meta|base|link|iframe|frame|object|embed|form|input|button)\b)", re.I
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none';
 base-uri 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif;
  color: #1a1a1a; background: #fff; }}
pre {{ white-space: pre-wrap; overflow-wrap: break-word; background: #f6f6f6; padding: .6rem .8rem; border-radius: 4px;
  font-size: .85rem; line-height: 1.4; }}
table {{ border-collapse: collapse; font-size: .9rem; }}
th, td {{ border-bottom: 1px solid #ccc; padding: .25rem .6rem; vertical-align: top;
  overflow-wrap: break-word; }}
th, td strong, td:first-child:not(:last-child) {{ white-space: nowrap; }}
img {{ max-width: 100%; }}
.prompt, .jp-InputPrompt, .jp-OutputPrompt, .anchor-link {{ display: none; }}
.output_area, .jp-OutputArea {{ overflow-x: auto; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def render(path: Path) -> str:
    """The page. Raises NotebookError when the file is no notebook."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="basic")
    body, _ = exporter.from_notebook_node(notebook.read(path))
    return _PAGE.format(title=escape(path.stem), body=_ACTIVE.sub("&lt;", body))
