"""Rule files are read as Prometheus reads them; whatever a file holds, it is said in a line."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runbook_lib.sources import ruletemplates
from runbook_lib.sources.rulefiles import Rule, RuleFile, milliseconds, read_rules

PLAIN = b"""\
groups:
  - name: consensus
    interval: 30s
    rules:
      - record: lag:max
        expr: max(lag)
      - alert: Lag
        expr: lag:max > 4
        for: 5m
        labels: {severity: page}
        annotations: {summary: "{{ $value | humanize }} behind on {{ $labels.node }}"}
"""


def read(text: str | bytes) -> RuleFile:
    return read_rules(text.encode() if isinstance(text, str) else text, "f.yaml")


def said(text: str | bytes) -> list[str]:
    """Every finding of a file as its line."""
    return [str(finding) for finding in read(text).findings]


def rule(fields: str) -> str:
    """A file with one rule."""
    return f"groups: [{{name: g, rules: [{{{fields}}}]}}]"


def alert(fields: str) -> str:
    """A file with one alert that has further fields."""
    return rule(f"alert: A, expr: up, {fields}")


def test_a_plain_file_gives_its_rules_with_their_lines() -> None:
    """What Prometheus would load is read without a word."""
    found = read(PLAIN)

    assert found.rules == [
        Rule("record", "lag:max", "max(lag)", {}, "consensus/lag:max", 6),
        Rule("alert", "Lag", "lag:max > 4", {"severity": "page"}, "consensus/Lag", 8, 300_000),
    ]
    assert found.findings == []


def test_a_resource_is_unwrapped_to_its_groups() -> None:
    """A PrometheusRule holds below spec what a plain file holds, in every document."""
    inner = b"".join(b"  " + line + b"\n" for line in PLAIN.splitlines())
    resource = b"apiVersion: v1\nkind: PrometheusRule\nspec:\n" + inner
    found = read(resource + b"---\n" + resource)

    assert [(rule.name, rule.line) for rule in found.rules] == [
        ("lag:max", 9),
        ("Lag", 11),
        ("lag:max", 24),
        ("Lag", 26),
    ]
    assert found.findings == []


@pytest.mark.parametrize("text", ["", "# nothing\n", "~", "groups:", "groups: [~]", "groups: []"])
def test_a_file_without_rules_loads(text: str) -> None:
    """Prometheus takes nothing for no rules."""
    assert said(text) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("groups: [", "f.yaml:2: YAML: expected YAML, got while parsing a flow node, did not find expected node content"),
        ("[]", "f.yaml:1: file: expected a mapping, got a list"),
        ("groups: {a: b}", "f.yaml:1: groups: expected a list, got a mapping"),
        ("Groups: []", "f.yaml:1: file: expected only groups, got the unknown field 'Groups'"),
        ("kind: PrometheusRule", "f.yaml:1: spec: expected the rules' groups below spec, got none"),
        ("kind: PrometheusRule\nspec: {}", "f.yaml:2: groups: expected a list of groups, got none"),
        ("groups: [{rules: []}]", "f.yaml:1: group: expected a name, got none"),
        ("groups:\n- {name: a}\n- {name: a}", "f.yaml:3: a: group: expected every name once in a file, got it again"),
        ("groups: [{name: a, interval: 5}]", "f.yaml:1: a: interval: expected a duration such as 5m or 1h30m, got '5'"),
        ("groups: [{name: a, limit: x}]", "f.yaml:1: a: limit: expected a whole number, got 'x'"),
        ("groups: [{name: a, lmit: 1}]", "f.yaml:1: group: expected only name, interval, limit, rules, got the unknown field 'lmit'"),
        (rule("expr: up"), "f.yaml:1: g/rule 1: rule: expected either alert or record, got neither"),
        (rule("alert: A, record: a, expr: up"), "f.yaml:1: g/A: rule: expected either alert or record, got both"),
        (rule("alert: A"), "f.yaml:1: g/A: expr: expected an expression, got none"),
        (rule("alert: A, expr: [up]"), "f.yaml:1: g/A: expr: expected an expression, got none"),
        (rule("record: a b, expr: up"), "f.yaml:1: g/a b: record: expected a metric name, got 'a b'"),
        (rule("record: a, expr: up, for: 5m"), "f.yaml:1: g/a: for: expected none in a recording rule, got one"),
        (rule("record: a, expr: up, annotations: {a: b}"), "f.yaml:1: g/a: annotations: expected none in a recording rule, got one"),
        (alert("runbook_url: x"), "f.yaml:1: g/A: rule: expected only record, alert, expr, for, keep_firing_for, labels, annotations, got the unknown field 'runbook_url'"),
        (alert("expr: up"), "f.yaml:1: g/A: rule: expected every key once, got 'expr' again"),
        (alert("for: 1h1d"), "f.yaml:1: g/A: for: expected a duration such as 5m or 1h30m, got '1h1d'"),
        (alert("keep_firing_for: 400y"), "f.yaml:1: g/A: keep_firing_for: expected a duration below 292y, got '400y'"),
        (alert("labels: [a]"), "f.yaml:1: g/A: labels: expected a mapping, got a list"),
        (alert("labels: {a: [b]}"), "f.yaml:1: g/A: label 'a': expected text, got a list"),
        (alert("labels: {__name__: b}"), "f.yaml:1: g/A: label: expected a name of letters, digits and _, got '__name__'"),
        (alert("annotations: {a-b: c}"), "f.yaml:1: g/A: annotation: expected a name of letters, digits and _, got 'a-b'"),
        (alert("annotations: {a: '{{ nope }}'}"), "f.yaml:1: g/A: annotation 'a': expected a template, got the unknown function nope"),
    ],
)  # fmt: skip
def test_what_prometheus_refuses_is_named_with_its_line(text: str, line: str) -> None:
    """One problem, one line: where, what, expected, got."""
    assert said(text) == [line]


def test_only_the_first_document_of_a_plain_file_counts() -> None:
    """Prometheus never sees the others, not even broken ones; that deserves a warning."""
    found = read(PLAIN + b"---\n[")

    assert [str(finding) for finding in found.findings] == [
        "f.yaml: warning: document: expected one document, got another, which Prometheus never reads"
    ]
    assert not found.refused


def test_aliases_and_merge_keys_are_followed() -> None:
    """They are legal in a rule file; what is written wins over what is merged."""
    text = (
        "groups: [{name: g, rules: [{alert: A, expr: up, labels: &l {a: b, c: d}},"
        " {alert: B, expr: up, labels: {<<: *l, c: e}}]}]"
    )
    found = read(text)

    assert [rule.labels for rule in found.rules] == [{"a": "b", "c": "d"}, {"a": "b", "c": "e"}]
    assert found.findings == []


MANY = "{alert: A, expr: up}," * 400


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[" * 1_000_000, "f.yaml:1: YAML: expected at most 100 levels of nesting, got more"),
        ("- " * 100_000, "f.yaml:1: YAML: expected at most 100 levels of nesting, got more"),
        ("[" + "a," * 300_000, "f.yaml:1: YAML: expected at most 200000 values, got more; split the file"),
        ("a" * 4_000_001, "f.yaml: size: expected at most 4000000 bytes, got more; split the file"),
        (alert("labels: &l {<<: *l}"), "f.yaml: YAML: expected aliases that end, got one inside itself"),
        ("groups: &g [*g]", "f.yaml:1: group: expected a mapping, got a list"),
        ("*x", "f.yaml:1: YAML: expected YAML, got found undefined alias"),
    ],
)  # fmt: skip
def test_hostile_files_are_refused_in_a_line(text: str, line: str) -> None:
    """Neither depth nor size nor a circle costs more than a look."""
    assert said(text)[0] == line


def test_aliases_cannot_multiply_without_bound() -> None:
    """A short file whose aliases stand for millions of rules is refused, not expanded."""
    groups = "".join(f"{{name: g{number}, rules: *r}}," for number in range(2000))
    found = read(f"groups: [{{name: a, rules: &r [{MANY}]}}, {groups}]")

    assert str(found.findings[-1]) == (
        "f.yaml:1: YAML: expected at most 100000 entries, aliases expanded, got more"
    )
    assert len(found.rules) < 100_000


@given(st.binary(max_size=300) | st.text(alphabet="groups: []{}&*a,-\n\t'\"<|>!%", max_size=80))
def test_no_file_ends_in_a_traceback(text: bytes | str) -> None:
    """Whatever the bytes, the answer is findings of one printable line each."""
    assert all(line.isprintable() for line in said(text))


SKELETON = (
    'groups: [{name: a, rules: [{alert: A, expr: up, for: 5m, labels: {a: "{{ $value }}"}}]}]'
)


@given(st.integers(0, len(SKELETON)), st.integers(0, 6), st.text(max_size=6))
def test_no_damaged_file_ends_in_a_traceback(at: int, gone: int, put: str) -> None:
    """The same for a good file with a hole in it."""
    text = SKELETON[:at] + put + SKELETON[at + gone :]

    assert all(line.isprintable() for line in said(text.encode(errors="replace")))


NAMES = st.sampled_from(["a", "a", "b", "a:b", "a-b", "__name__", "é", "", None, 5, "{{ x }}"])
TEXTS = st.sampled_from(
    ["x", "", None, 5, True, "{{ $value }}", "{{ $v }}", "{{ f }}", "{{", "{{ end }}", ["x"], {}]
)
DURATIONS = st.sampled_from(["5m", "0", 0, "", None, 5, "1h1m", "1m1h", "1.5h", "300y", ["5m"]])


def some(good: list[dict[str, object]], **fields: st.SearchStrategy[object]) -> Any:
    """A good mapping with some of its fields replaced, so that single mistakes are common."""
    changed = st.fixed_dictionaries({}, optional=fields)
    return st.builds(lambda kept, new: {**kept, **new}, st.sampled_from([*good, {}]), changed)


MAPS = st.one_of(st.none(), st.lists(NAMES, max_size=1), st.dictionaries(NAMES, TEXTS, max_size=2))
RULES = some(
    [{"alert": "A", "expr": "x"}, {"record": "r", "expr": "x"}],
    **{"alert": NAMES, "record": NAMES, "for": DURATIONS, "keep_firing_for": DURATIONS},
    expr=st.sampled_from(["rate(x[5m])", "", None, ["x"], "1 == bool 1"]),
    labels=MAPS,
    annotations=MAPS,
    other=TEXTS,
)
GROUPS = some(
    [{"name": "g"}, {"name": "h"}],
    interval=DURATIONS,
    limit=st.sampled_from([1, "1", "x", None, 1.5, -1, "0x1f", "010"]),
    rules=st.one_of(st.none(), st.lists(st.one_of(st.none(), RULES), max_size=2)),
)


@pytest.mark.servers
@given(groups=st.lists(GROUPS, max_size=2))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_files_are_refused_exactly_when_promtool_refuses_them(
    tmp_path: Path, groups: list[object]
) -> None:
    """Generated files with every kind of mistake but in their PromQL."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({"groups": groups}, allow_unicode=True))
    done = subprocess.run([promtool, "check", "rules", path], capture_output=True, check=False)

    assert read(path.read_bytes()).refused == (done.returncode != 0), path.read_text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("5m", 300_000), ("1h30m", 5_400_000), ("1y1w1d1ms", 32_227_200_001), ("00s", 0)],
)
def test_durations_are_those_of_prometheus(text: str, expected: int) -> None:
    """Units from the largest to the smallest, each once."""
    assert milliseconds(text) == expected


@pytest.mark.parametrize("text", ["", "5", "-5m", "1.5h", "1m1h", "5 m", "m", "5m\n", "٣m"])
def test_other_durations_are_refused(text: str) -> None:
    """A number alone is none, nor is one with a fraction, nor units out of order."""
    with pytest.raises(ValueError, match=r"^a duration such as 5m or 1h30m$"):
        milliseconds(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "}} { $x",
        "{{ $labels.node }} {{- $value -}}",
        '{{ range query "up" }}{{ .Labels.node }}{{ else }}none{{ end }}',
        "{{ with $x := 5 }}{{ $x }}{{ end }}",
        "{{/* why */}}{{ `}}` | len }}",
        '{{ if and (gt $value 1.5) (eq $labels.a "b") }}x{{ end }}',
    ],
)
def test_templates_that_load(text: str) -> None:
    """What Go's parser takes is taken."""
    assert ruletemplates.problem(text) == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{{ $labels.a", "an action without its }}"),
        ("{{ $labels.a }", "an unexpected '}' in an action"),
        ("{{ }}", "an empty action"),
        ("{{ $nope }}", "the undefined variable $nope"),
        ("{{ nope }}", "the unknown function nope"),
        ("{{ if $value }}", "a block without its {{ end }}"),
        ("{{ end }}", "{{ end }} outside a block"),
        ("{{ else }}", "{{ else }} outside a block"),
        ("{{ 'a }}", 'an unexpected "\'" in an action'),
    ],
)
def test_templates_that_do_not_load(text: str, problem: str) -> None:
    """What is certainly wrong is said."""
    assert ruletemplates.problem(text) == problem
