"""PromQL handled as a tree: label matchers injected, selectors listed, never by text substitution.

promql-parser prints what it parsed with small losses (escapes, milliseconds); every expression is
therefore parsed again after printing and compared, and one that does not survive is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MAX_LENGTH = 8_000  # the parser recurses without a limit of its own: more may end the process
_INNER = ("vector_selector", "expr", "param", "lhs", "rhs", "args")


def selected(expr: str) -> list[Any]:
    """Every vector selector of an expression of others, for reading only. Raises ValueError."""
    import promql_parser as promql

    if len(expr) > MAX_LENGTH:
        raise ValueError(f"more than {MAX_LENGTH} characters")
    found: list[Any] = []
    pending: list[Any] = [promql.parse(expr)]
    while pending:
        node = pending.pop()
        if isinstance(node, promql.VectorSelector):
            found.append(node)
        for inner in _INNER:
            value = getattr(node, inner, None)
            pending += value if isinstance(value, list) else [value] if value is not None else []
    return found


def check(query: str) -> str:
    """``query`` itself. Raises ValueError unless it parses and has a selector we can narrow."""
    if not list(_selectors(_parsed(query))):
        raise ValueError(f"expected a query with a selector, got {query!r}")
    return query


def inject(query: str, matchers: Mapping[str, str], *, beside: bool = False) -> str:
    """``query`` with ``label="value"`` in every selector.

    Raises ValueError when a selector already matches one of the labels in another way; with
    ``beside`` only when it wants another value, as a dashboard's ``label=~"$variable"`` may stay.
    """
    import promql_parser as promql

    tree = _parsed(query)
    printed, before = str(tree), [selector.matchers for selector in _selectors(tree)]
    for selector in _selectors(tree):
        own = list(selector.matchers.matchers)
        for label, value in matchers.items():
            if any(character in value for character in '"\\\n'):
                raise ValueError(f"expected a plain value of {label}, got {value!r}")
            there = [each for each in own if each.name == label]
            equal = [each for each in there if each.op == promql.MatchOp.Equal]
            if any(each.value != value for each in equal) or (there != equal and not beside):
                raise ValueError(f'expected {label}="{value}", got the selector {selector}')
            if not equal:
                own.append(promql.Matcher(promql.MatchOp.Equal, label, value))
        selector.matchers = promql.Matchers(own)
    injected = str(tree)
    again = promql.parse(injected)
    for selector, matchers_before in zip(_selectors(again), before, strict=True):
        narrowed = {(each.name, each.value) for each in selector.matchers.matchers}
        if not narrowed >= set(matchers.items()):
            raise ValueError(f"expected every selector narrowed, got {injected!r}")
        selector.matchers = matchers_before
    if str(again) != printed:
        raise ValueError(f"expected nothing changed but matchers, got {injected!r}")
    return injected


def selectors(query: str) -> list[str]:
    """The plain selectors of a query, without range, offset and ``@``; each once."""
    found = []
    for selector in _selectors(_parsed(query)):
        selector.offset = selector.at = None
        found.append(str(selector))
    return list(dict.fromkeys(found))


def _parsed(query: str) -> Any:
    import promql_parser as promql

    if len(query) > MAX_LENGTH:
        raise ValueError(f"expected at most {MAX_LENGTH} characters of PromQL, got {len(query)}")
    try:
        tree = promql.parse(query)
        survives = promql.parse(str(tree)).prettify() == tree.prettify()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected PromQL, got {query!r}: {error}") from error
    if not survives:
        raise ValueError(f"expected PromQL without escapes and milliseconds, got {query!r}")
    if any(selector.matchers.or_matchers for selector in _selectors(tree)):
        raise ValueError(f"expected selectors without 'or', got {query!r}")
    return tree


def _selectors(node: Any) -> Iterator[Any]:
    """Every vector selector below ``node``, the object in the tree, not a copy."""
    kind = type(node).__name__
    if kind == "VectorSelector":
        yield node
        return
    inner = {
        "MatrixSelector": ("vector_selector",),
        "AggregateExpr": ("expr", "param"),
        "UnaryExpr": ("expr",),
        "ParenExpr": ("expr",),
        "SubqueryExpr": ("expr",),
        "BinaryExpr": ("lhs", "rhs"),
        "Call": ("args",),
        "NumberLiteral": (),
        "StringLiteral": (),
    }.get(kind)
    if inner is None:
        raise ValueError(f"expected a known kind of expression, got {kind}")
    for name in inner:
        value = getattr(node, name)
        for each in value if isinstance(value, list) else [value]:
            if each is not None:
                yield from _selectors(each)
