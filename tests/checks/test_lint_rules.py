"""A folder of rule files judged offline agrees with promtool, and says so where it does not."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runbook_lib import cli
from runbook_lib.checks.lint_rules import catalogue_names, lint, names_of, parse
from runbook_lib.errors import ParameterError, SourceError
from runbook_lib.strict import PROJECT

PROMTOOL = shutil.which("promtool")
CHAIN = os.environ.get("RPP_CHAIN_DIR", "")
needs_promtool = pytest.mark.skipif(not PROMTOOL, reason="needs promtool")
needs_chain = pytest.mark.skipif(not CHAIN, reason="RPP_CHAIN_DIR names no copy of its files")


def alert(name: str, expr: str, severity: str = "page") -> dict[str, object]:
    return {"alert": name, "expr": expr, "labels": {"severity": severity}}


def write(path: Path, *rules: dict[str, object]) -> Path:
    """A plain file with one group ``g``."""
    path.write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": list(rules)}]}, width=1000))
    return path


def said(path: Path, emitted: tuple[str, ...] = ("x",), promtool: str = "") -> list[str]:
    return [str(finding) for finding in lint(path, emitted, promtool).findings]


def program(path: Path, *lines: str) -> str:
    """A stand-in for promtool."""
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


# --- expressions ------------------------------------------------------------------------------------


def test_an_expression_that_does_not_parse_is_refused(tmp_path: Path) -> None:
    """The rule, its line, the expression and the parser's reason."""
    write(tmp_path / "a.yaml", alert("A", "max_over_time(x[5m]) by (node) > 1"))
    linted = lint(tmp_path, ["x"], "")

    assert [str(finding) for finding in linted.findings] == [
        "a.yaml:5: g/A: expr: expected PromQL, "
        "got 'max_over_time(x[5m]) by (node) > 1': invalid promql query"
    ]
    assert linted.refused


@pytest.mark.parametrize(
    ("expr", "names"),
    [
        ("x > 1", {"x"}),
        ('sum by (a) (rate({__name__="x"}[5m])) / on (a) -y offset 1h', {"x", "y"}),
        ("max_over_time((x + 1)[5m:1m]) and topk(scalar(k), z @ end())", {"x", "k", "z"}),
        ('{__name__=~"x.*"} or {job="a"} or vector(1)', set()),
    ],
)
def test_the_series_an_expression_asks_for(expr: str, names: set[str]) -> None:
    """Every selector counts, wherever it stands; a pattern names none."""
    assert parse(expr) == (names, "")


@pytest.mark.parametrize("expr", ["(" * 50_000, "1+" * 50_000 + "1", "sum(" * 4_000])
def test_expressions_without_end_are_refused(expr: str) -> None:
    """The parser would recurse until the process ends."""
    assert parse(expr) == (frozenset(), "more than 8000 characters")


@given(st.text(alphabet='xy(){}[]"=~,+-*/<> 15mbyonsum:@', max_size=60))
def test_no_expression_ends_in_a_traceback(expr: str) -> None:
    """Names or a problem, never both."""
    names, problem = parse(expr)

    assert not (names and problem)


# --- between files ----------------------------------------------------------------------------------


def test_duplicates_are_warned_of(tmp_path: Path) -> None:
    """The same rule twice in a file, and an alert's name in two files."""
    write(tmp_path / "a.yaml", alert("A", "x > 1"), alert("A", "x > 2"), alert("A", "x", "info"))
    write(tmp_path / "b.yml", alert("A", "x > 3", "warning"))
    linted = lint(tmp_path, ["x"], "")

    assert [str(finding) for finding in linted.findings] == [
        "a.yaml:9: g/A: warning: duplicate: expected every rule once, got it at line 5 too",
        "b.yml:5: g/A: warning: duplicate: expected every alert in one file, got it in 'a.yaml' too",
    ]
    assert not linted.refused


def test_alerts_on_series_that_nothing_emits_are_warned_of(tmp_path: Path) -> None:
    """Recorded names and Prometheus' own count as emitted; recording rules are not judged."""
    write(
        tmp_path / "a.yaml",
        {"record": "r", "expr": "nothing"},
        alert("A", "x + r + up > y"),
        alert("B", 'ALERTS{alertname="A"}'),
    )

    assert said(tmp_path) == [
        "a.yaml:7: g/A: warning: series: expected names that a configured source emits, got y"
    ]


def test_the_catalogue_names_series() -> None:
    """Every candidate query of the shipped catalogue counts."""
    path = PROJECT / "params" / "metrics.yaml"
    names = catalogue_names(path.read_bytes(), "metrics.yaml")

    assert {"finality_lag_slots", "rpp_stark_verify_duration_seconds_sum"} <= names


def test_a_list_of_names(tmp_path: Path) -> None:
    """One a line, comments and empty lines aside; anything else is refused."""
    path = tmp_path / "names.txt"
    path.write_text("# ours\nx\n\ny:z # recorded\n")

    assert names_of(path) == {"x", "y:z"}

    path.write_text("x y\nz\n")
    with pytest.raises(ParameterError) as refused:
        names_of(path)
    assert str(refused.value) == f"{path}: expected one series' name a line, got 'x y'"


# --- promtool ---------------------------------------------------------------------------------------


def test_what_promtool_loads_is_not_refused_for_its_promql(tmp_path: Path) -> None:
    """Prometheus' own parser outranks ours, and the difference is said."""
    tool = program(tmp_path / "tool", "exit 0")
    path = write(tmp_path / "a.yaml", alert("A", "holt_winters(x[5m], 0.1, 0.1)"))

    assert said(path, promtool=tool) == [
        "a.yaml:5: g/A: warning: expr: expected PromQL, got 'holt_winters(x[5m], 0.1, 0.1)': "
        "unknown function with name 'holt_winters'; promtool loads it"
    ]


def test_what_only_promtool_refuses_is_refused(tmp_path: Path) -> None:
    """With its reason, and without the file's folder."""
    path = write(tmp_path / "a.yaml", alert("A", "x"))
    tool = program(tmp_path / "tool", f"echo '  FAILED:\n{path}: 1:2: no' >&2; exit 1")

    assert said(path, promtool=tool) == [
        "a.yaml: promtool: expected loaded, as nothing here is wrong, got refused: 1:2: no"
    ]


def test_structure_that_promtool_would_load_stays_refused(tmp_path: Path) -> None:
    """A newer promtool knows fields that Prometheus 2.42 refuses: both are said."""
    path = tmp_path / "a.yaml"
    path.write_text("groups: [{name: g, query_offset: 1m, rules: []}]\n")
    tool = program(tmp_path / "tool", "exit 0")

    assert (
        said(path, promtool=tool)
        == [
            "a.yaml: warning: promtool: expected refused as above, got loaded",
            "a.yaml:1: group: expected only name, interval, limit, rules, "
            "got the unknown field 'query_offset'",
        ][::-1]
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [("echo 'unknown flag' >&2; exit 1", "unknown flag"), ("exit 3", "no word, exit code 3")],
)
def test_a_promtool_without_a_verdict_is_said(tmp_path: Path, line: str, problem: str) -> None:
    """What it prints is no verdict unless it says so; ours stands."""
    path = write(tmp_path / "a.yaml", alert("A", "x"))
    tool = program(tmp_path / "tool", line)

    assert said(path, promtool=tool) == [
        f"a.yaml: warning: promtool: expected a verdict, got {problem}"
    ]


@needs_promtool
def test_promtool_gives_its_own_reason(tmp_path: Path) -> None:
    """Where it names the same rule, its words replace the parser's."""
    path = write(tmp_path / "a.yaml", alert("A", "max_over_time(x[5m]) by (node) > 1"))

    assert said(path, promtool=str(PROMTOOL)) == [
        "a.yaml:5: g/A: expr: expected PromQL, got 1:22: parse error: unexpected <by>"
    ]


NAMES = st.sampled_from(["a", "a", "b", "a:b", "a-b", "__name__", "é", "", None, 5, "{{ x }}"])
TEXTS = st.sampled_from(
    ["x", "", None, 5, True, "{{ $value }}", "{{ $v }}", "{{ f }}", "{{", "{{ end }}", ["x"], {}]
)
DURATIONS = st.sampled_from(["5m", "0", 0, "", None, 5, "1h1m", "1m1h", "1.5h", "300y", ["5m"]])
EXPRESSIONS = st.sampled_from(
    ["x", "rate(x[5m])", "rate(x)", "x by (a)", "1 == 1", "", " ", None, 5, ["x"], "{}", 'x{a="}']
)


def some(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    """A mapping that has some of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


MAPS = st.one_of(st.none(), st.lists(NAMES, max_size=1), st.dictionaries(NAMES, TEXTS, max_size=2))
# A good rule with some of its fields replaced, so that single mistakes are common.
RULES = st.builds(
    lambda good, changed: {**good, **changed},
    st.sampled_from([{"alert": "A", "expr": "x"}, {"record": "r", "expr": "x"}, {}]),
    some(
        **{"alert": NAMES, "record": NAMES, "expr": EXPRESSIONS, "for": DURATIONS},
        keep_firing_for=DURATIONS,
        labels=MAPS,
        annotations=MAPS,
        other=TEXTS,
    ),
)
GROUPS = st.builds(
    lambda good, changed: {**good, **changed},
    st.sampled_from([{"name": "g"}, {"name": "h"}, {}]),
    some(
        interval=DURATIONS,
        limit=st.sampled_from([1, "1", "x", None, 1.5, -1, "0x1f", "010"]),
        rules=st.one_of(st.none(), st.lists(st.one_of(st.none(), RULES), max_size=2)),
    ),
)


@needs_promtool
@given(st.one_of(GROUPS.map(lambda group: [group]), st.lists(GROUPS, max_size=2)))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_files_are_refused_exactly_when_promtool_refuses_them(
    tmp_path: Path, groups: list[object]
) -> None:
    """Generated files with every kind of mistake: without asking it, we say what it says."""
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({"groups": groups}, allow_unicode=True))

    assert lint(path, ["x"], "").refused == refused_by_promtool(path), path.read_text()


def refused_by_promtool(path: Path) -> bool:
    done = subprocess.run([str(PROMTOOL), "check", "rules", str(path)], capture_output=True)
    return done.returncode != 0


# --- the chain's own files --------------------------------------------------------------------------


@needs_chain
@needs_promtool
@pytest.mark.parametrize("promtool", ["", PROMTOOL])
def test_the_chains_plain_files_are_refused_when_promtool_refuses_them(promtool: str) -> None:
    """And no other; with promtool at hand or without."""
    folder = Path(CHAIN) / "ops" / "alerts"
    linted = lint(folder, [], promtool)
    plain = [file for file in linted.files if file.form == "plain"]

    assert {file.file: file.refused for file in plain} == {
        file.file: refused_by_promtool(folder / file.file) for file in plain
    }
    assert {file.file for file in plain if file.refused} == {
        "consensus/liveness.yaml",
        "consensus/proposer_share.yaml",
        "networking/replay_guard.yaml",
        "uptime/prover.yaml",
        "uptime/reputation.yaml",
    }


@needs_chain
@needs_promtool
@pytest.mark.parametrize("folder", ["ops/alerts", "docs/observability/alerts"])
def test_the_chains_resources_are_judged_on_their_groups(folder: str, tmp_path: Path) -> None:
    """As promtool judges what lies below their spec."""
    linted = lint(Path(CHAIN) / folder, [], "")
    resources = [file for file in linted.files if file.form == "PrometheusRule"]
    asked = {}
    for file in resources:
        unwrapped = tmp_path / Path(file.file).name
        spec = yaml.safe_load((Path(CHAIN) / folder / file.file).read_bytes())["spec"]
        unwrapped.write_text(yaml.safe_dump(spec))
        asked[file.file] = refused_by_promtool(unwrapped)

    assert resources
    assert {file.file: file.refused for file in resources} == asked


@needs_chain
def test_the_chains_mistakes_are_named_by_rule_and_reason() -> None:
    """Among them one that promtool cannot see yet, behind an unknown field of the same file."""
    lines = said(Path(CHAIN) / "ops" / "alerts")

    assert (
        "consensus/liveness.yaml:41: consensus-liveness/ConsensusLivenessStall: rule: expected only "
        "record, alert, expr, for, keep_firing_for, labels, annotations, "
        "got the unknown field 'runbook_url'"
    ) in lines
    assert (
        "uptime/reputation.yaml:21: uptime-baselines/timetoke:accrual_rate_per_second:30d_p50: expr: "
        "expected PromQL, got 'quantile_over_time(0.5, rate(timetoke_accrual_hours_total[15m]))': "
        "expected type matrix in call to function 'quantile_over_time', got vector"
    ) in lines


# --- the command ------------------------------------------------------------------------------------


def test_a_folder_without_rule_files_is_inconclusive(tmp_path: Path) -> None:
    """Nothing judged is not nothing wrong."""
    (tmp_path / "notes.txt").write_text("groups: []")
    with pytest.raises(SourceError) as refused:
        lint(tmp_path, [])

    assert str(refused.value) == (
        f"{tmp_path}: expected rule files (*.rules, *.yaml, *.yml), got none"
    )
    assert cli.main(["lint-rules", str(tmp_path)]) == 2


def test_a_missing_folder_is_wrong_usage(tmp_path: Path) -> None:
    """A misspelt path must not look like a judged one."""
    assert cli.main(["lint-rules", str(tmp_path / "nope")]) == 3


def test_the_command_prints_a_line_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warnings alone end with 0, a file that would not load with 1."""
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = tmp_path / "rules"
    folder.mkdir()
    write(folder / "a.yaml", alert("A", "x"))
    argv = ["lint-rules", str(folder)]

    assert cli.main(argv) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a.yaml:5: g/A: warning: series: expected names that a configured source emits, got x",
        "1 files, 1 rules: 0 files would not load, 1 warnings "
        "(judged by promql-parser; no promtool on PATH)",
    ]

    names = tmp_path / "names"
    names.write_text("x\n")
    assert cli.main([*argv, "--series", str(names)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "1 files, 1 rules: 0 files would not load, 0 warnings "
        "(judged by promql-parser; no promtool on PATH)"
    ]

    write(folder / "b.yaml", {"alert": "B"})
    assert cli.main([*argv, "--series", str(names), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document == {
        "outcome": "FAIL",
        "promtool": False,
        "files": [
            {"file": "a.yaml", "form": "plain", "rules": 1, "loads": True},
            {"file": "b.yaml", "form": "plain", "rules": 1, "loads": False},
        ],
        "findings": [
            {
                "file": "b.yaml",
                "place": "g/B",
                "what": "expr",
                "expected": "an expression",
                "got": "none",
                "line": 4,
                "refuses": True,
            }
        ],
    }
