"""A closed world: whatever a reader does not know, where it may change the outcome, never gives PASS."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import tomlkit
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from runbook_lib.checks.ci import required_row, status_row
from runbook_lib.checks.observability import read_rules
from runbook_lib.checks.suites import judge_suite, read_suite
from runbook_lib.errors import ParameterError, SourceError
from runbook_lib.findings import Findings
from runbook_lib.metrics.judge_files import judge_files
from runbook_lib.outcomes import Outcome
from runbook_lib.sources.alertmanager import AlertState, Matcher, read_config
from runbook_lib.sources.artifacts import parse_checksums, parse_sbom
from runbook_lib.sources.config import GATES, parse_bundle
from runbook_lib.sources.dashboards import read_dashboard
from runbook_lib.sources.github import CheckRun, CommitStatus
from runbook_lib.sources.keys import read_signed
from runbook_lib.sources.process import Ended
from runbook_lib.sources.signatures import parse_statement
from runbook_lib.sources.words import NodeReport, Said, Statement, lines

from .github_answers import run
from .verifying import HEX, sbom, statement

REFUSED = (ParameterError, SourceError, ValidationError, ValueError)
PLAN, AT = f"sha256:{HEX}", "2026-11-23T12:00:00Z"
Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Reader:
    """``passes`` raises, or is false, for all but PASS. At ``keys`` another key is put, at ``values`` another value."""

    valid: Any
    passes: Callable[[Any], object]
    keys: Sequence[Place] = ()
    values: Sequence[Place] = ()


def dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def panel_is_understood(panel: Any) -> bool:
    document = {"title": "D", "panels": [panel], "templating": {"list": []}}
    return not read_dashboard(dump(document), "d.json", {}).panels[0].problem


def suite_passes(said: dict[str, str]) -> bool:
    text = f"running 3 tests\ntest result: {said['end']}. 3 {said['counted']}; 0 failed; 0 ignored; 0 measured;\n"
    judge_suite(found := Findings(), "suite", read_suite(Ended(0, text.encode(), b"")))
    return found.holds


def are_judged(names: dict[str, int]) -> object:
    with TemporaryDirectory() as folder:
        one, two = Path(folder, "one.csv"), Path(folder, "two.csv")
        for path, columns in ((one, ("time", "x")), (two, names)):
            rows = [
                ",".join(columns),
                *(",".join(str(1.7e9 + n) for _ in columns) for n in range(9)),
            ]
            path.write_text("\n".join(rows))
        return judge_files(one, two, direction="lower", tolerance=0.5)


FIELDS = ("fieldConfig", "defaults")
PANEL = {
    "id": 1, "title": "P", "type": "stat", "targets": [{"refId": "A", "expr": "up"}], "options": {"reduceOptions": {"calcs": ["last"]}},
    "fieldConfig": {
        "defaults": {"color": {"mode": "thresholds"}, "custom": {"align": "left"}, "thresholds": {"mode": "absolute", "steps": [{"color": "green", "value": None}]},
                     "mappings": [{"type": "value", "options": {"0": {"text": "no", "color": "red"}}}]},
        "overrides": [{"matcher": {}, "properties": [{"id": "unit", "value": "s"}]}],
    },
}  # fmt: skip
RULES = {
    "groups": [{"name": "g", "rules": [{"alert": "A", "expr": "up", "for": "5m", "labels": {}}]}]
}
ROUTES = {
    "route": {"receiver": "a", "routes": [{"matchers": ['a="b"'], "match": {"c": "d"}}]},
    "receivers": [{"name": "a"}], "inhibit_rules": [{"source_matchers": ['a="b"'], "equal": []}],
}  # fmt: skip
STAGE = {"name": "testnet", "release_channel": "testnet", "change_window": "", "feature_gates": dict.fromkeys(GATES, True),
         "release_checks": [], "recovery_playbook": ""}  # fmt: skip
APPROVAL = {"kind": "approve", "plan": PLAN, "account": "bob", "at": AT}
REPORT = {"node": "n", "release": "v1", "stage": "testnet", "channel": "c", "gates": {}, "config": PLAN, "binary": PLAN,
          "target": PLAN, "dry_run": True, "at": AT}  # fmt: skip


def signed(statement: Any) -> Any:
    return {"statement": statement, "signature": ""}


READERS = {
    "panel": Reader(
        PANEL, panel_is_understood,
        [(), ("fieldConfig",), FIELDS, *((*FIELDS, name) for name in ("color", "custom", "thresholds")), (*FIELDS, "thresholds", "steps", 0),
         (*FIELDS, "mappings", 0), (*FIELDS, "mappings", 0, "options", "0"), ("fieldConfig", "overrides", 0),
         ("fieldConfig", "overrides", 0, "properties", 0), ("options", "reduceOptions")],
        [("type",), (*FIELDS, "color", "mode"), (*FIELDS, "thresholds", "mode"), (*FIELDS, "thresholds", "steps", 0, "color"),
         (*FIELDS, "mappings", 0, "type"), (*FIELDS, "mappings", 0, "options", "0", "color"),
         ("fieldConfig", "overrides", 0, "properties", 0, "id"), ("options", "reduceOptions", "calcs", 0)],
    ),
    "rules": Reader(RULES, lambda d: read_rules(yaml.safe_dump(d).encode(), "r"), [(), ("groups", 0), ("groups", 0, "rules", 0)],
                    [("groups", 0, "rules", 0, "for")]),
    "routes": Reader(ROUTES, lambda d: read_config(yaml.safe_dump(d)), [("route",), ("route", "routes", 0), ("inhibit_rules", 0)],
                     [("route", "routes", 0, "matchers", 0), ("inhibit_rules", 0, "source_matchers", 0)]),
    "matcher": Reader({"name": "a", "value": "b", "isRegex": False}, Matcher.model_validate, [()], [("isRegex",)]),
    "alert": Reader({"state": "active", "silencedBy": [], "inhibitedBy": []}, AlertState.model_validate, [()], [("state",)]),
    "sbom": Reader(sbom(hashes=[{"alg": "SHA-256", "content": HEX}]), lambda d: not parse_sbom(dump(d), "s").problem,
                   [(), ("metadata",), ("metadata", "component"), ("metadata", "component", "hashes", 0)],
                   [("bomFormat",), ("specVersion",), ("metadata", "component", "type"), ("metadata", "component", "hashes", 0, "alg")]),
    "provenance": Reader(json.loads(statement(HEX)), lambda d: parse_statement(d, "p").is_provenance, [(), ("subject", 0)],
                         [("_type",), ("predicateType",), ("subject", 0, "digest", "sha256")]),
    "checksums": Reader([f"{HEX}  f", f"SHA256 (g) = {HEX}"], lambda d: parse_checksums("\n".join(d).encode(), "s"), values=[(0,), (1,)]),
    "check run": Reader(run(1), lambda d: required_row("test 1", "github-actions", [CheckRun.model_validate_json(dump(d))], []).outcome is Outcome.PASS,
                        values=[("status",), ("conclusion",), ("app", "slug")]),
    "commit status": Reader({"context": "x", "state": "success"}, lambda d: status_row(CommitStatus.model_validate(d)).outcome is Outcome.PASS,
                            values=[("state",)]),
    "comment": Reader(["decide", "A0b1c2d3e", "restart", "it"], lambda d: any(isinstance(each, Said) for each in lines(" ".join(d))),
                      values=[(0,), (1,), (2,)]),
    "signed word": Reader(signed(APPROVAL), lambda d: read_signed(dump(d), Statement), [(), ("statement",)],
                          [("statement", name) for name in ("kind", "plan", "at")]),
    "node report": Reader(signed(REPORT), lambda d: read_signed(dump(d), NodeReport), [(), ("statement",)],
                          [("statement", name) for name in ("stage", "binary", "dry_run")]),
    "bundle": Reader({"version": 1, "bundle": "b", "stages": [STAGE]}, lambda d: parse_bundle(tomlkit.dumps(d).encode(), "b"),
                     [(), ("stages", 0), ("stages", 0, "feature_gates")], [("stages", 0, "name"), ("stages", 0, "feature_gates", GATES[0])]),
    "test output": Reader({"end": "ok", "counted": "passed"}, suite_passes, values=[("end",), ("counted",)]),
    "samples": Reader({"time": 0, "x": 0}, are_judged, [()]),
}  # fmt: skip


def passes(reader: Reader, document: Any) -> bool:
    try:
        return bool(reader.passes(document))
    except REFUSED:
        return False


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_is_not_known_never_passes(name: str, data: st.DataObject) -> None:
    reader, word = READERS[name], "x" + data.draw(st.text("abcxyz0_", min_size=12, max_size=20))
    place, value = data.draw(
        st.sampled_from([(p, word) for p in reader.values])
        if not reader.keys or (reader.values and data.draw(st.booleans()))
        else st.tuples(
            st.sampled_from([(*p, word) for p in reader.keys]), st.sampled_from(["x", 1])
        )
    )
    document = at = copy.deepcopy(reader.valid)
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    assert not passes(reader, document)


@pytest.mark.parametrize("name", READERS)
def test_what_is_known_does(name: str) -> None:
    assert passes(READERS[name], READERS[name].valid)
