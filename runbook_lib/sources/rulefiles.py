"""Rule files read the way Prometheus 2.42 does, every problem with its line.

Prometheus decodes strictly into ``groups: [{name, interval, limit, rules}]``; a PrometheusRule
resource holds the same below ``spec``. The tree of YAML nodes is walked to that fixed depth, so
neither aliases nor nesting can make it grow; expressions are left to the caller.
Source: prometheus/model/rulefmt/rulefmt.go, v2.42.0.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field

import yaml

from . import ruletemplates
from .yamlnodes import Hostile, documents, is_null, kind_of, line_of, pairs, scalar, shown, whole

MAX_FILE = 4_000_000
MAX_ENTRIES = 100_000
_GROUP = ("name", "interval", "limit", "rules")
_RULE = ("record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations")
_UNITS_MS = {
    "y": 31_536_000_000,
    "w": 604_800_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1000,
    "ms": 1,
}
_DURATION = re.compile("".join(rf"(?:([0-9]+){unit})?" for unit in _UNITS_MS))
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


@dataclass(frozen=True)
class Finding:
    """One problem of a file. ``refuses``: the file would not load; else it is a warning."""

    file: str
    place: str
    what: str
    expected: str
    got: str
    line: int = 0
    refuses: bool = True

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        parts = [where, self.place, "" if self.refuses else "warning", self.what]
        text = f"{': '.join(filter(None, parts))}: expected {self.expected}, got {self.got}"
        return "".join(c if c.isprintable() else " " for c in text)


@dataclass(frozen=True)
class Rule:
    """A rule as far as it could be read. ``kind`` is ``alert`` or ``record``; ``wait_ms`` its ``for``."""

    kind: str
    name: str
    expr: str
    labels: dict[str, str]
    place: str
    line: int
    wait_ms: int = 0


@dataclass
class RuleFile:
    """What one file holds and what is wrong with it."""

    file: str
    rules: list[Rule] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        return any(finding.refuses for finding in self.findings)


def read_rules(text: bytes, file: str) -> RuleFile:
    """The rules of a file and its structural problems; never raises for what the file holds."""
    found = RuleFile(file)
    if len(text) > MAX_FILE:
        problem = Finding(file, "", "size", f"at most {MAX_FILE} bytes", "more; split the file")
        found.findings.append(problem)
        return found
    try:
        _Reader(found).file(text)
    except Hostile as error:
        found.findings.append(Finding(file, "", "YAML", error.expected, error.got, error.line))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        got = ", ".join(filter(None, [error.context, error.problem]))
        found.findings.append(Finding(file, "", "YAML", "YAML", got, mark.line + 1 if mark else 0))
    except RecursionError:  # a merge key that leads back to itself
        found.findings.append(Finding(file, "", "YAML", "aliases that end", "one inside itself"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        found.findings.append(Finding(file, "", "YAML", "YAML", shown(str(error))))
    return found


def milliseconds(text: str) -> int:
    """A Prometheus duration such as ``1h30m``. Raises ValueError."""
    if text == "0":
        return 0
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise ValueError("a duration such as 5m or 1h30m")
    counts = zip(match.groups("0"), _UNITS_MS.values(), strict=True)
    total = sum(int(count.lstrip("0")[:20] or "0") * size for count, size in counts)
    if total * 1_000_000 >= 2**63:  # it is kept in nanoseconds
        raise ValueError("a duration below 292y")
    return total


class _Reader:
    """One walk over one file, which notes what is wrong and goes on."""

    def __init__(self, found: RuleFile) -> None:
        self._found = found
        self._left = MAX_ENTRIES

    def file(self, text: bytes) -> None:
        read = documents(text)
        for document in read:
            if is_null(document):
                continue
            resource = self._resource(document)
            top = self._spec(document) if resource else document
            if top is not None:
                self._groups(top, resource=resource)
            if not resource:
                break
        # Of a plain file Prometheus reads the first document only, whatever follows it.
        with suppress(yaml.YAMLError, Hostile):
            if next(read, None) is None:
                return
        self._warn("document", "one document", "another, which Prometheus never reads")

    def _resource(self, document: yaml.Node) -> bool:
        """Whether a document is a PrometheusRule, by its kind."""
        if not isinstance(document, yaml.MappingNode):
            return False
        kinds = {key.value: value.value for key, value in document.value if scalar(key, value)}
        return bool(kinds.get("kind") == "PrometheusRule")

    def _spec(self, document: yaml.Node) -> yaml.Node | None:
        fields = self._fields(document, "", None)
        if "spec" not in fields:
            self._add(document, "", "spec", "the rules' groups below spec", "none")
        return fields.get("spec")

    def _groups(self, node: yaml.Node, *, resource: bool) -> None:
        fields = self._fields(node, "", ("groups",))
        groups = fields.get("groups")
        if groups is None:
            if resource:
                self._add(node, "", "groups", "a list of groups", "none")
            return
        seen: set[str] = set()
        for group in self._items(groups, "", "groups"):
            self._group(group, seen)

    def _group(self, node: yaml.Node, seen: set[str]) -> None:
        fields = self._fields(node, "", _GROUP, what="group")
        name = self._text(fields.get("name"), "", "name")
        if not name:
            self._add(node, "", "group", "a name", "none")
        elif name in seen:
            self._add(node, name, "group", "every name once in a file", "it again")
        seen.add(name)
        place = name or "(no name)"
        self._duration(fields.get("interval"), place, "interval")
        limit = fields.get("limit")
        if limit is not None and not is_null(limit) and not whole(limit):
            self._add(limit, place, "limit", "a whole number", kind_of(limit))
        if "rules" in fields:
            for number, rule in enumerate(self._items(fields["rules"], place, "rules"), 1):
                self._rule(rule, place, number)

    def _rule(self, node: yaml.Node, group: str, number: int) -> None:
        # The name is wanted before anything is said about the rule.
        names = {k.value: v.value for k, v in pairs(node) if scalar(k, v)}
        name = str(names.get("alert") or names.get("record") or f"rule {number}")
        place = f"{group}/{name}"
        fields = self._fields(node, place, _RULE, what="rule")
        # These three are read as they stand: what is no scalar counts as empty.
        record, alert, expr = (
            str(each.value) if isinstance(each := fields.get(key), yaml.ScalarNode) else ""
            for key in ("record", "alert", "expr")
        )
        if bool(record) == bool(alert):
            got = "both" if record else "neither"
            self._add(node, place, "rule", "either alert or record", got)
        if not expr:
            self._add(node, place, "expr", "an expression", "none")
        pause = self._duration(fields.get("for"), place, "for")
        keep = self._duration(fields.get("keep_firing_for"), place, "keep_firing_for")
        labels = self._labels(fields.get("labels"), place, "label")
        notes = self._labels(fields.get("annotations"), place, "annotation")
        if record:
            for what, given in (("for", pause), ("keep_firing_for", keep), ("annotations", notes)):
                if given:
                    self._add(fields[what], place, what, "none in a recording rule", "one")
            if not _METRIC.fullmatch(record):
                self._add(fields["record"], place, "record", "a metric name", shown(record))
        if alert:
            self._templates(fields, place, {"labels": labels, "annotations": notes})
        line = line_of(fields.get("expr", node))
        kind = "record" if record else "alert"
        self._found.rules.append(Rule(kind, record or alert, expr, labels, place, line, pause))

    def _templates(
        self, fields: dict[str, yaml.Node], place: str, texts: dict[str, dict[str, str]]
    ) -> None:
        for key, values in texts.items():
            for name, text in values.items():
                if problem := ruletemplates.problem(text):
                    what = f"{key[:-1]} {shown(name)}"
                    self._add(fields[key], place, what, "a template", problem)

    def _labels(self, node: yaml.Node | None, place: str, what: str) -> dict[str, str]:
        """Names to texts."""
        texts = {}
        for name, value in self._fields(node, place, None, what=f"{what}s").items():
            if not _LABEL.fullmatch(name) or (name == "__name__" and what == "label"):
                self._add(value, place, what, "a name of letters, digits and _", shown(name))
            texts[name] = self._text(value, place, f"{what} {shown(name)}")
        return texts

    def _duration(self, node: yaml.Node | None, place: str, what: str) -> int:
        if node is None or is_null(node):
            return 0
        try:
            return milliseconds(node.value if isinstance(node, yaml.ScalarNode) else "")
        except ValueError as error:
            self._add(node, place, what, str(error), kind_of(node))
            return 0

    def _text(self, node: yaml.Node | None, place: str, what: str) -> str:
        if node is None or is_null(node):
            return ""
        if not isinstance(node, yaml.ScalarNode):
            self._add(node, place, what, "text", kind_of(node))
            return ""
        return str(node.value)

    def _items(self, node: yaml.Node, place: str, what: str) -> list[yaml.Node]:
        """A list's entries; Prometheus drops those that are null."""
        if is_null(node):
            return []
        if not isinstance(node, yaml.SequenceNode):
            self._add(node, place, what, "a list", kind_of(node))
            return []
        self._spend(node, len(node.value))
        return [each for each in node.value if not is_null(each)]

    def _fields(
        self,
        node: yaml.Node | None,
        place: str,
        known: tuple[str, ...] | None,
        what: str = "file",
    ) -> dict[str, yaml.Node]:
        """A mapping's values by name, merge keys resolved; unknown and repeated keys are noted."""
        if node is None or is_null(node):
            return {}
        if not isinstance(node, yaml.MappingNode):
            self._add(node, place, what, "a mapping", kind_of(node))
            return {}
        self._spend(node, len(node.value))
        own: dict[str, yaml.Node] = {}
        merged: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    merged = {**self._fields(each, place, known, what), **merged}
            elif not isinstance(key, yaml.ScalarNode):
                self._add(key, place, what, "keys that are text", kind_of(key))
            elif key.value in own:
                self._add(key, place, what, "every key once", f"{shown(key.value)} again")
            elif known is not None and key.value not in known:
                expected = f"only {', '.join(known)}"
                self._add(key, place, what, expected, f"the unknown field {shown(key.value)}")
            else:
                own[str(key.value)] = value
        return {**merged, **own}

    def _spend(self, node: yaml.Node, entries: int) -> None:
        """Aliases of lists of aliases expand without bound: what is visited is counted."""
        self._left -= 1 + entries
        if self._left < 0:
            raise Hostile(f"at most {MAX_ENTRIES} entries, aliases expanded", "more", line_of(node))

    def _add(self, node: yaml.Node, place: str, what: str, expected: str, got: str) -> None:
        finding = Finding(self._found.file, place, what, expected, got, line_of(node))
        self._found.findings.append(finding)

    def _warn(self, what: str, expected: str, got: str) -> None:
        self._found.findings.append(
            Finding(self._found.file, "", what, expected, got, refuses=False)
        )
