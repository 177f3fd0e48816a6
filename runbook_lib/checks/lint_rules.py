"""Rule files judged offline: would Prometheus load them, and could their alerts ever fire.

Structure by ``sources.rulefiles``, expressions by promql-parser, and where promtool is on PATH by
promtool too: it refuses what it refuses, and what only promql-parser dislikes becomes a warning.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ParameterError, SourceError
from ..metrics import queries
from ..metrics.catalogue import parse_catalogue
from ..sources import process
from ..sources.rulefiles import MAX_FILE, METRIC, Finding, Rule, RuleFile, read_rules
from ..sources.yamlnodes import shown

SUFFIXES = frozenset({".yaml", ".yml", ".rules"})
ALWAYS = frozenset({"ALERTS", "ALERTS_FOR_STATE", "up"})
"""Series that Prometheus makes itself."""

PROMTOOL_S = 30.0
_REASON = re.compile(r"^(\d+):\d+: group .*: could not parse expression: (.*)$", re.MULTILINE)
Parsed = dict[str, tuple[frozenset[str], str]]
"""Expression -> (names of the series it asks for, what is wrong with it)."""


@dataclass(frozen=True)
class Linted:
    """All files of a folder and everything said of them, in the files' order."""

    files: tuple[RuleFile, ...]
    findings: tuple[Finding, ...]
    promtool: str

    @property
    def refused(self) -> bool:
        return any(finding.refuses for finding in self.findings)

    def summary(self) -> str:
        """One line: how many files, how many of them would not load, who judged."""
        rules = sum(len(file.rules) for file in self.files)
        bad = sum(file.refused for file in self.files)
        by = "promql-parser and promtool" if self.promtool else "promql-parser; no promtool on PATH"
        warnings = sum(not finding.refuses for finding in self.findings)
        return (
            f"{len(self.files)} files, {rules} rules: {bad} files would not load, "
            f"{warnings} warnings (judged by {by})"
        )

    def document(self) -> dict[str, Any]:
        """The same as one JSON document."""
        return {
            "outcome": "FAIL" if self.refused else "PASS",
            "promtool": bool(self.promtool),
            "files": [
                {
                    "file": file.file,
                    "form": file.form,
                    "rules": len(file.rules),
                    "loads": not file.refused,
                }
                for file in self.files
            ],
            "findings": [asdict(finding) for finding in self.findings],
        }


def lint(path: Path, emitted: Iterable[str], promtool: str | None = None) -> Linted:
    """Lint a file, or every rule file below a folder.

    ``emitted`` are the names of series that a configured source emits; what the files record and
    what Prometheus makes itself is added. ``promtool`` is the program, "" for none, None for the
    one on PATH. Raises ParameterError without such a path, SourceError without a rule file in it.
    """
    promtool = shutil.which("promtool") or "" if promtool is None else promtool
    paths = {name: each for each, name in _paths(path)}
    files = [_read(each, name) for name, each in paths.items()]
    parsed = {rule.expr: parse(rule.expr) for file in files for rule in file.rules if rule.expr}
    for file in files:
        file.findings += _judge(file, paths[file.file], parsed, promtool)
    names = {*emitted, *ALWAYS}
    names |= {rule.name for file in files for rule in file.rules if rule.kind == "record"}
    for file in files:
        file.findings += _unseen(file, parsed, names)
    for finding in _repeated(files):
        next(file for file in files if file.file == finding.file).findings.append(finding)
    ordered = (finding for file in files for finding in sorted(file.findings, key=_order))
    return Linted(tuple(files), tuple(dict.fromkeys(ordered)), promtool)


def _paths(path: Path) -> list[tuple[Path, str]]:
    """Rule files with the name they are reported by."""
    if path.is_file():
        return [(path, path.name)]
    if not path.is_dir():
        raise ParameterError(f"{path}: expected a folder of rule files, got none")
    found = sorted(each for each in path.rglob("*") if each.suffix in SUFFIXES and each.is_file())
    if not found:
        names = ", ".join(f"*{suffix}" for suffix in sorted(SUFFIXES))
        raise SourceError(str(path), f"expected rule files ({names}), got none")
    return [(each, each.relative_to(path).as_posix()) for each in found]


def _read(path: Path, name: str) -> RuleFile:
    try:
        with path.open("rb") as opened:
            return read_rules(opened.read(MAX_FILE + 1), name)
    except OSError as error:
        finding = Finding(name, "", "file", "a readable file", str(error.strerror))
        return RuleFile(name, findings=[finding])


def _judge(file: RuleFile, path: Path, parsed: Parsed, promtool: str) -> list[Finding]:
    """What is wrong with a file's expressions, and what promtool says of the whole."""
    wrong = [
        Finding(file.file, rule.place, "expr", "PromQL", problem, rule.line)
        for rule in file.rules
        if rule.expr and (problem := parsed[rule.expr][1])
    ]
    if not promtool or not path.is_file() or path.stat().st_size > MAX_FILE:
        return wrong
    loads, said = _ask(promtool, path, file)
    if loads and wrong and not file.refused:
        got = "; promtool loads it"
        return [replace(each, got=each.got + got, refuses=False) for each in wrong]
    if loads is None or loads == (file.refused or bool(wrong)):
        return [*wrong, _disagreement(file.file, loads, said)]
    reasons = {int(line): reason for line, reason in _REASON.findall(said)}
    return [replace(each, got=reasons.get(each.line, each.got)) for each in wrong]


def _disagreement(name: str, loads: bool | None, said: str) -> Finding:
    """promtool's word against ours, or no word at all."""
    if loads is None:
        return Finding(name, "", "promtool", "a verdict", said, refuses=False)
    if loads:
        return Finding(name, "", "promtool", "refused as above", "loaded", refuses=False)
    return Finding(name, "", "promtool", "loaded, as nothing here is wrong", f"refused: {said}")


def _ask(promtool: str, path: Path, file: RuleFile) -> tuple[bool | None, str]:
    """(promtool's verdict, why not); a resource's groups are unwrapped for it."""
    if file.form == "plain":
        return _check([path.absolute()], promtool)
    with tempfile.TemporaryDirectory() as folder:
        unwrapped = []
        for number, groups in enumerate(file.groups):
            unwrapped.append(Path(folder, f"{number}.yaml"))
            unwrapped[-1].write_text(_plain(groups), encoding="utf-8")
        return _check(unwrapped, promtool) if unwrapped else (False, "no groups below spec")


def _plain(groups: Any) -> str:
    """Groups of a resource as the plain file that Prometheus is given."""
    import yaml

    key = yaml.ScalarNode("tag:yaml.org,2002:str", "groups")
    top = yaml.MappingNode("tag:yaml.org,2002:map", [(key, groups)])
    return str(yaml.serialize(top, Dumper=yaml.CSafeDumper, allow_unicode=True))


def _check(paths: list[Path], promtool: str) -> tuple[bool | None, str]:
    argv = [promtool, "check", "rules", "--lint=none", *map(str, paths)]
    ended = process.run(argv, timeout_s=PROMTOOL_S)
    if ended.code is None:
        return None, ended.problem
    lines = ended.stderr.decode(errors="replace").splitlines()
    said = "\n".join(line.strip() for line in lines if line.strip() and "FAILED:" not in line)
    for path in paths:
        said = said.replace(f"{path}: ", "")
    if ended.code == 0:
        return True, ""
    if any("FAILED:" in line for line in lines):
        return False, said
    return None, said or f"no word, exit code {ended.code}"


def parse(expr: str) -> tuple[frozenset[str], str]:
    """(names of the series an expression asks for, what is wrong with it).

    A selector that gives no name, or matches names by a pattern, adds none.
    """
    import promql_parser as promql

    try:
        found = queries.selected(expr)
    except ValueError as error:
        said = " ".join(str(error).split())
        if len(expr) > queries.MAX_LENGTH:
            return frozenset(), said
        return frozenset(), f"{shown(' '.join(expr.split()))}: {said}"
    names = {selector.name for selector in found if selector.name}
    for selector in found:
        matchers = [each for each in selector.matchers.matchers if each.name == "__name__"]
        names |= {each.value for each in matchers if each.op == promql.MatchOp.Equal}
    return frozenset(names), ""


def _unseen(file: RuleFile, parsed: Parsed, emitted: set[str]) -> Iterator[Finding]:
    for rule in file.rules:
        asked = parsed[rule.expr][0] if rule.kind == "alert" and rule.expr else frozenset()
        if missing := sorted(asked - emitted):
            yield Finding(
                file.file,
                rule.place,
                "series",
                "names that a configured source emits",
                ", ".join(missing),
                rule.line,
                refuses=False,
            )


def _repeated(files: list[RuleFile]) -> Iterator[Finding]:
    """The same rule twice in a file, and an alert of one name in several files."""
    first: dict[tuple[str, str], str] = {}
    for file in files:
        within: dict[tuple[Any, ...], list[Rule]] = defaultdict(list)
        for rule in file.rules:
            within[rule.kind, rule.name, *sorted(rule.labels.items())].append(rule)
            other = first.setdefault((rule.kind, rule.name), file.file)
            if other != file.file and rule.kind == "alert":
                yield _twice(file, rule, "every alert in one file", f"it in {shown(other)} too")
        for rules in within.values():
            for rule in rules[1:] if rules[0].name else []:
                yield _twice(file, rule, "every rule once", f"it at line {rules[0].line} too")


def _twice(file: RuleFile, rule: Rule, expected: str, got: str) -> Finding:
    return Finding(file.file, rule.place, "duplicate", expected, got, rule.line, refuses=False)


def _order(finding: Finding) -> tuple[bool, int]:
    return not finding.refuses, finding.line


def catalogue_names(text: bytes, where: str) -> set[str]:
    """Names of the series that a metric catalogue asks for. Raises ParameterError."""
    metrics = parse_catalogue(text, where).metrics
    return {name for metric in metrics for query in metric.queries for name in parse(query)[0]}


def names_of(path: Path) -> set[str]:
    """Names of series from a list, one a line; ``#`` begins a comment. Raises ParameterError."""
    try:
        with path.open(encoding="utf-8") as opened:
            lines = opened.read(MAX_FILE).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path}: expected a list of series' names, got: {error}") from error
    names = {line.split("#")[0].strip() for line in lines} - {""}
    if wrong := sorted(name for name in names if not METRIC.fullmatch(name)):
        raise ParameterError(
            [f"{path}: expected one series' name a line, got {n!r}" for n in wrong]
        )
    return names
