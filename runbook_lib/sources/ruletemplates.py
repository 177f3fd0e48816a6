"""Templates of labels and annotations, as far as Prometheus refuses them when a file is loaded.

Not a parser of Go's language: actions are cut into words, and what is certainly wrong is said:
unfinished actions and blocks, unknown functions, undefined variables.
Source: prometheus/template/template.go, v2.42.0, and Go's text/template.
"""

from __future__ import annotations

import re

_OURS = """args externalURL first graphLink humanize humanize1024 humanizeDuration humanizePercentage
humanizeTimestamp label match parseDuration pathPrefix query reReplaceAll safeHtml sortByLabel
stripDomain stripPort strvalue tableLink title tmpl toLower toTime toUpper value"""
_GO = """and call eq false ge gt html index js le len lt ne nil not or print printf println slice true
urlquery"""
_OPENING = frozenset({"if", "with", "range", "define", "block"})
_WORDS = frozenset(f"{_OURS} {_GO} template break continue else end".split()) | _OPENING
_VARIABLES = frozenset({"$", "$labels", "$externalLabels", "$externalURL", "$value"})
_ACTION = re.compile(r"\{\{(?:- )?")
_COMMENT = re.compile(r"\{\{(?:-\s)?/\*.*?\*/(?:\s-)?\}\}", re.DOTALL)
_END = re.compile(r"(?:\s-)?\}\}")
_TOKEN = re.compile(
    r"""\s+|"(?:\\.|[^"\\\n])*"|`[^`]*`|'(?:\\.|[^'\\\n])*'|\$\w*|\.\w*|[^\W\d]\w*"""
    r"""|[-+]?\d[\d_.]*(?:[eE][-+]?\d+)?(?!\w)|0[xX][0-9a-fA-F_]+|:=|=|,|\||\(|\)"""
)


def problem(text: str) -> str:
    """What is certainly wrong with a template, or nothing."""
    blocks, variables, position = 0, set(_VARIABLES), 0
    while (start := text.find("{{", position)) >= 0:
        if comment := _COMMENT.match(text, start):
            position = comment.end()
            continue
        words, position, wrong = _action(text, start)
        if wrong:
            return wrong
        blocks += words[0] in _OPENING
        blocks -= words[0] == "end"
        if blocks < 0 or (words[0] == "else" and not blocks):
            return f"{{{{ {words[0]} }}}} outside a block"
        variables.update(words[: words.index(":=")] if ":=" in words else ())
        for word in words:
            if word[0] == "$" and word not in variables:
                return f"the undefined variable {word}"
            if (word[0].isalpha() or word[0] == "_") and word not in _WORDS:
                return f"the unknown function {word}"
    return "a block without its {{ end }}" if blocks else ""


def _action(text: str, start: int) -> tuple[list[str], int, str]:
    """(words, where the action ends, what is wrong with it)."""
    opening = _ACTION.match(text, start)
    assert opening is not None
    words: list[str] = []
    position = opening.end()
    while position < len(text):
        if end := _END.match(text, position):
            return words, end.end(), "" if words else "an empty action"
        token = _TOKEN.match(text, position)
        if token is None:
            return words, position, f"an unexpected {text[position]!r} in an action"
        words += [token.group()] if not token.group().isspace() else []
        position = token.end()
    return words, position, "an action without its }}"
