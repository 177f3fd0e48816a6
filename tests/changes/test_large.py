"""Plans of a large fleet: every node in exactly one wave of a phase, and nothing lost on the way."""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from runbook_lib import display, opening, playbook
from runbook_lib.checks import canary, preflight
from runbook_lib.errors import StageRefused
from runbook_lib.evidence.store import Store
from runbook_lib.params import STAGE_PARAMS
from runbook_lib.sources import process
from runbook_lib.sources.http import Http
from runbook_lib.sources.process import Ended
from runbook_lib.sources.redact import Redactor
from runbook_lib.sources.scope import Outside
from runbook_lib.stage import Stage, open_stage
from runbook_lib.strict import PROJECT
from runbook_lib.tries import plan_card

NODES = 60


@pytest.fixture(scope="module")
def bench() -> Any:
    """The benchmark that times the same for 500 nodes."""
    spec = importlib.util.spec_from_file_location("bench_plan", PROJECT / "bench" / "plan.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_large_plan_counts_every_node_once(bench: Any, tmp_path: Path) -> None:
    """Ours first, no wave of ours and operators', no wave above the limit; the card counts exactly."""
    fleet = bench.LargeFleet(tmp_path / "fleet", NODES)
    bench.adopt(fleet, Store(bench.site_of(fleet).store_path))

    canary, _ = bench.planned(fleet, "canary")
    mainnet, _ = bench.planned(fleet, "mainnet")

    assert (len(canary.nodes), len(canary.untouched)) == (2, NODES - 2)
    assert (len(mainnet.nodes), len(mainnet.untouched)) == (NODES, 0)
    theirs = {node.name for node in fleet.cluster.nodes if node.operator}
    for phase in mainnet.phases:
        order = [name for wave in phase.waves for name in wave]
        assert Counter(order) == dict.fromkeys((node.name for node in fleet.cluster.nodes), 1)
        assert set(order[-len(theirs) :]) == theirs
        assert all(set(wave) <= theirs or not set(wave) & theirs for wave in phase.waves)
    changed = sum(len(node.changes()) for _, node in mainnet.changes())
    said = f"{changed} keys on {NODES} nodes will change"
    assert said in plan_card(mainnet, (), ()).text


# --- what a person reads of 500 -------------------------------------------------------------------


LARGE, WRONG, SILENT = 500, 30, 12
DRIFT = "preflight.config-drift"
GATE = "canary.activate.rewards-gate"
LIMIT = 300_000


@pytest.fixture(scope="module")
def carried(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, Any]]:
    """A canary plan run on 500 nodes: 30 run another build, 12 do not tell which; its cards."""
    root = tmp_path_factory.mktemp("large") / "fleet"
    fleet = bench.LargeFleet(root, LARGE)
    bench.adopt(fleet, Store(bench.site_of(fleet).store_path))
    for number, (name, state) in enumerate(fleet.states().items()):
        digest = state["binary"] if number >= WRONG else "sha256:" + "0" * 64
        build = {"digest": digest, "commit": "a" * 40, "version": "v1.3.0"}
        if not WRONG <= number < WRONG + SILENT:
            (root / "nodes" / f"{name}.json").write_text(json.dumps(build))
    site = bench.site_of(fleet).model_dump(mode="json", exclude_unset=True)
    argv = ["cat", str(root / "nodes" / "{node}.json")]
    site["commands"]["version"] = {"argv": argv, "timeout_s": 10.0}
    (root / "site.yaml").write_text(yaml.safe_dump(site))
    now = datetime.now(UTC)
    given = STAGE_PARAMS["canary"]().model_dump() | {
        "site": str(root / "site.yaml"),
        "release": "v1.4.0",
        "commit": "a" * 40,
        "window_start": now.isoformat(),
        "window_end": (now + timedelta(days=30)).isoformat(),
    }

    def shown(argv: list[str], **given: Any) -> Ended:
        """``cat`` without a process each."""
        try:
            return Ended(0, Path(argv[1]).read_bytes(), b"")
        except FileNotFoundError:
            return Ended(1, b"", b"No such file")

    def outside(redactor: Redactor) -> Outside:
        return Outside(redactor, Http(redactor, transport=fleet.transport()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNBOOK_OPERATOR", "ada")
        patch.setattr(opening, "Outside", outside)
        patch.setattr(process, "run", shown)
        patch.setattr("os.fsync", lambda descriptor: None)  # of thousands of recorded answers
        patch.setitem(playbook.DECLARED, "canary", (DRIFT, GATE))
        patch.setitem(playbook.PLAN_BEFORE, "canary", GATE)
        stage = open_stage("canary", given)
        cards = [
            stage.check(preflight.config_drift),
            stage.plan(canary.plan),
            stage.change(canary.rewards_gate),
        ]
        with suppress(StageRefused):
            stage.enforce()
        yield stage, [*cards, display.verdict_card(stage.verdict())]
        stage.close()


def test_the_worst_comes_first_and_every_row_is_counted(carried: tuple[Stage, Any]) -> None:
    """30 wrong builds, 12 untold; of none do peers or the list of keys tell: 458 are as verified."""
    card = carried[1][0]
    lines = [line.strip() for line in card.text.splitlines()]
    words = [line.split()[:3] for line in lines if line.startswith(("✗ FAIL,", "? INC"))]

    assert lines[0] == "✗ FAIL preflight.config-drift"
    assert lines[1].startswith("main-1: binary: expected sha256:")
    assert lines[1].endswith(" (and 29 more)")
    assert [line for line in lines if re.search(r"rows?(:| PASS:| not listed)|, on 5", line)] == [
        "1,042 of 1,501 rows not PASS, on 500 of 501 subjects:",
        "1,022 more rows:",
        "822 more rows not listed here, kept in this card's JSON",
        "459 of 1,501 rows PASS:",
        "399 more rows not listed here, kept in this card's JSON",
    ]
    assert [word for _, word, _ in words] == ["FAIL,"] * WRONG + ["INCONCLUSIVE"] * 190
    assert card.html.count("<details open") == 1


def test_the_record_and_the_card_hold_every_row(carried: tuple[Stage, Any]) -> None:
    stage, (card, *_) = carried
    result = stage.verdict().items[0].result
    assert result is not None
    counted = Counter((row.outcome.value, row.what) for row in result.rows)
    told = Counter((r["outcome"], r["what"]) for r in card.data["standing"]["result"]["rows"])

    assert counted == told
    assert counted["FAIL", "binary"] == WRONG
    assert counted["INCONCLUSIVE", "binary"] == SILENT
    assert counted["PASS", "live state"] == LARGE - WRONG - SILENT
    assert sum(counted.values()) == 1_501


def test_no_card_of_a_large_fleet_is_too_large_to_read(carried: tuple[Stage, Any]) -> None:
    """Each form of each card; a forge renders a notebook of that size."""
    _, cards = carried
    forms = [(card.html, card.text, json.dumps(card.data)) for card in cards]

    assert [len(form) for card in forms for form in card if len(form.encode()) >= LIMIT] == []
    assert sum(len(html.encode()) for html, _, _ in forms) < LIMIT


def test_the_plan_of_a_canary_names_its_two_nodes_alone(carried: tuple[Stage, Any]) -> None:
    plan = carried[1][1]

    assert "12 keys on 2 nodes will change" in plan.text
    assert {change[0] for change in plan.data["changes"]} == {"main-1", "main-2"}
