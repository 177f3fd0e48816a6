"""Rule files: every rule read as it is shipped, or a problem that names file and key."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from runbook_lib.checks.observability import read_rules
from runbook_lib.errors import ParameterError
from runbook_lib.metrics.catalogue import selectors
from runbook_lib.sources.dashboards import read_dashboard

PLAIN = b"""\
groups:
  - name: consensus
    interval: 30s
    labels: {team: consensus, severity: info}
    rules:
      - record: lag:max
        expr: max(lag)
      - alert: Lag
        expr: lag:max > 4
        for: 1h5m
        labels: {severity: page}
        annotations: {summary: "{{ $value | humanize }} behind on {{ $labels.node }}"}
"""
INNER = b"".join(b"  " + line + b"\n" for line in PLAIN.splitlines())


@pytest.mark.parametrize("text", [PLAIN, b"kind: PrometheusRule\nmetadata: {}\nspec:\n" + INNER])
def test_a_file_gives_its_rules(text: bytes) -> None:
    recorded, alert = read_rules(text, "f.yaml")
    assert (recorded.record, recorded.expr, recorded.wait) == ("lag:max", "max(lag)", 0)
    assert (alert.alert, alert.name, alert.wait) == ("Lag", "Lag", 3_900_000)
    assert alert.labels == {"team": "consensus", "severity": "page"}
    assert list(alert.annotations) == ["summary"]


def rule(fields: str) -> str:
    return f"groups: [{{name: g, rules: [{{{fields}}}]}}]"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expected a mapping of names, got an empty file"),
        ("groups: [", "line 2: expected YAML, got: did not find expected node content"),
        ("groups: []\n---\ngroups: []", "line 2: expected YAML, got: but found another document"),
        ("groups: &a []\nx: *a", "line 2: expected YAML, got: an alias; write it out"),
        ("groups: []", "expected at least one rule, got none"),
        ("kind: PrometheusRule", "groups: expected a value, got none"),
        ("Groups: []\ngroups: []", "Groups: expected no such key; remove it or correct its spelling"),
        ("groups: [{name: a, rules: []}, {name: a, rules: []}]", "expected every group's name once, got one again"),
        ("groups: [{name: a, interval: 5, rules: []}]", "groups.0.interval: expected a duration such as 5m or 1h30m, got 5"),
        (rule("expr: up"), "groups.0.rules.0: expected either alert or record, got both or neither"),
        (rule("alert: A"), "groups.0.rules.0.expr: expected a value, got none"),
        (rule("alert: A, expr: up, for: 5x"), "groups.0.rules.0.for: expected a duration such as 5m or 1h30m, got '5x'"),
        (rule("alert: A, expr: up, labels: {a: 1}"), "groups.0.rules.0.labels.a: expected text in quotes, got 1"),
        (rule("alert: A, alert: B, expr: up"), "line 1: expected YAML, got: key 'alert' is given twice"),
        ("a: " + "[" * 60 + "]" * 60, "line 1: expected YAML, got: nesting deeper than 50"),
        (" " * 1_000_001, "expected at most 1000000 bytes, got 1000001"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_named(text: str, problem: str) -> None:
    with pytest.raises(ParameterError) as caught:
        read_rules(text.encode(), "f.yaml")
    first = caught.value.problems[0].removeprefix("f.yaml: ").removeprefix("f.yaml:").strip()
    assert first == problem


CHAIN = sorted(Path(os.environ.get("RPP_CHAIN_DIR", "/nowhere")).glob("ops/alerts/**/*.yaml"))


@pytest.mark.skipif(not CHAIN, reason="RPP_CHAIN_DIR names no chain")
def test_the_chains_known_defects_are_named_and_nothing_else() -> None:
    unread, unasked, odd = set(), set(), set()
    docs = Path(os.environ["RPP_CHAIN_DIR"]) / "docs"
    for path in [*CHAIN, *docs.glob("observability/alerts/*.yaml")]:
        try:
            rules = read_rules(path.read_bytes(), path.name)
        except ParameterError as error:
            assert "runbook_url: expected no such key" in error.problems[0]
            unread.add(path.stem)
            continue
        for rule in rules:
            try:
                selectors(rule.expr)
            except ValueError:
                unasked.add(rule.name)
    for path in [*docs.glob("dashboards/*.json"), *docs.parent.glob("ops/alerts/*/*_grafana.json")]:
        found = read_dashboard(path.read_bytes(), path.name, {"environment": "canary"})
        odd |= {(panel.title, panel.problem) for panel in found.panels if panel.problem}
        assert not [query for panel in found.panels for query in panel.queries if query.problem]
    assert unread == {"liveness", "proposer_share", "reputation"}
    assert unasked == {
        "NetworkReplayGuardWindowFillWarning", "NetworkReplayGuardWindowFillCritical",
        "FinalityProverBacklogCorrelation", "UptimeProverLatencyCorrelation",
    }  # fmt: skip
    assert odd == {("Replay window fill", "expected absolute thresholds, got percentage")}


@pytest.mark.parametrize("path", CHAIN, ids=lambda path: path.stem)
def test_the_chains_own_files_are_read_as_promtool_reads_them(path: Path, tmp_path: Path) -> None:
    document, plain = yaml.safe_load(path.read_bytes()), tmp_path / "rules.yaml"
    plain.write_text(yaml.safe_dump(document.get("spec", document)))
    try:
        said = f"SUCCESS: {len(read_rules(path.read_bytes(), path.name))} rules found"
    except ParameterError:
        said = "a refusal"
    if promtool := shutil.which("promtool"):
        done = subprocess.run([promtool, "check", "rules", plain], capture_output=True, text=True)
        assert said in done.stdout or done.returncode
