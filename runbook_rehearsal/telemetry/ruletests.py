"""Unit tests of alert rules without promtool: ``python -m runbook_rehearsal.telemetry.ruletests FILE``.

Reads promtool's own files, as far as they hold input series and queries with the samples they must
give, and answers in its words: exit code 0 and SUCCESS, or 1 and FAILED. Anything else in them is
refused with exit code 2, never passed over.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import promql_parser as pql
import yaml

from ..arrays import Instants
from .promql import Vector, evaluate
from .rules import Rule, RuleEngine, read
from .tsdb import STALE, Store

_FILE = {"rule_files", "evaluation_interval", "tests"}
_TEST = {"name", "interval", "input_series", "promql_expr_test"}
_RUN = re.compile(r"(?P<start>\d+)(?:(?P<step>[+-]\d+)?x(?P<times>\d+))?")
Samples = dict[tuple[tuple[str, str], ...], float]


class Refused(ValueError):
    """A file that this stand-in does not read."""


def failures(path: Path) -> list[str]:
    """What each query gave in place of what it must. Raises Refused and what reading raises."""
    document = _known(yaml.safe_load(path.read_text()), _FILE)
    rules = [rule for name in document["rule_files"] for rule in read(path.parent / name)]
    interval = _ms(document.get("evaluation_interval", "1m"))
    return [
        line
        for test in document["tests"]
        for line in _failures(_known(test, _TEST), rules, interval)
    ]


def _failures(test: dict[str, Any], rules: list[Rule], interval: int) -> Iterator[str]:
    store, queries = Store(), test["promql_expr_test"]
    for series in test["input_series"]:
        values = np.array(list(_values(series["values"])))
        times: Instants = np.arange(len(values), dtype=np.int64) * _ms(test["interval"])
        there = ~np.isnan(values) | (values.view(np.uint64) == STALE.view(np.uint64))
        store.append(_labels(series["series"]), times[there], values[there])
    engine = RuleEngine(rules)
    until = max(_ms(query["eval_time"]) for query in queries)
    engine.run(store, np.arange(0, until + 1, interval))
    yield from (f"{rules[number].name}: {error}" for number, error in engine.errors.items())
    for query in queries:
        value = evaluate(store, query["expr"], np.array([_ms(query["eval_time"])]))
        if not isinstance(value, Vector):
            raise Refused(f"expected a query for series, got {query['expr']}")
        got = {_key(labels): float(row[0]) for labels, row, present in value.rows() if present[0]}
        wanted: Samples = {
            _key(_labels(sample["labels"])): float(sample["value"])
            for sample in query["exp_samples"]
        }
        if got != wanted:
            told = f"expr: {query['expr']}, time: {query['eval_time']}"
            yield f"{told},\n        exp: {wanted or 'nil'}\n        got: {got or 'nil'}"


def _values(text: str) -> Iterator[float]:
    """promtool's notation: ``_x3 0+2x5 7 stale``."""
    for word in text.split():
        if word == "stale":
            yield float(STALE)
        elif found := re.fullmatch(r"_(?:x(\d+))?", word):
            yield from [np.nan] * int(found[1] or 1)
        elif found := _RUN.fullmatch(word):
            start, step = int(found["start"]), int(found["step"] or 0)
            yield from (float(start + step * n) for n in range(int(found["times"] or 0) + 1))
        else:
            raise Refused(f"expected a value such as 0+1x5, got {word!r}")


def _labels(text: str) -> dict[str, str]:
    if text == "{}":
        return {}
    selector: Any = pql.parse(text)
    labels = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
    return labels | ({"__name__": selector.name} if selector.name else {})


def _key(labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def _known(table: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    if unknown := sorted(set(table) - keys):
        raise Refused(f"expected {', '.join(sorted(keys))}, got {unknown[0]}")
    return table


def _ms(text: str) -> int:
    return round(pql.parse_duration(text).total_seconds() * 1000)


def main() -> int:
    try:
        failed = failures(Path(sys.argv[1]))
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        sys.stderr.write(f"{sys.argv[1]}: {error}\n")
        return 2
    said = "".join(f"    {line}\n" for line in failed)
    sys.stdout.write(f"  FAILED:\n{said}" if failed else "  SUCCESS (without promtool)\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
