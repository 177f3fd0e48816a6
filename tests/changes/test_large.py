"""Plans of a large fleet: every node in exactly one wave of a phase, and nothing lost on the way."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import display
from runbook_lib.evidence.store import Store
from runbook_lib.outcomes import check_row, unknown_row
from runbook_lib.tries import plan_card
from runbook_lib.verdicts import Standing

from ..cards import judged, verdict
from ..conftest import benchmark

NODES = 60
LIMIT = 300_000


@pytest.fixture(scope="module")
def bench() -> Any:
    """The benchmark that times the same for 500 nodes."""
    return benchmark("plan")


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
    cards = [plan_card(plan, (), ()) for plan in (canary, mainnet)]
    assert "12 keys on 2 nodes will change" in cards[0].text
    assert f"{changed} keys on {NODES} nodes will change" in cards[1].text
    assert {change[0] for change in cards[0].data["changes"]} == {"main-1", "main-2"}
    assert max(len(card.html.encode()) for card in cards) < LIMIT


# --- what a person reads of 500 -------------------------------------------------------------------


WRONG, SILENT, LARGE = 30, 12, 500
GOOD, OTHER = "sha256:" + "1" * 64, "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def drifted() -> Standing:
    """Config drift on 500 nodes: 30 run another build, 12 do not tell which, of none peers tell."""
    rows = [
        check_row("bundle stages", "order", "as in the playbook", "as in the playbook", ok=True)
    ]
    for number in range(LARGE):
        name = f"main-{number + 1}"
        peers = unknown_row(name, "gates its peers see", "its own", "seen by 0 of 3 peers only")
        keys = "not checked: admission_reconciler, network; set commands.dry_run"
        rows += [peers, unknown_row(name, "unknown keys", "none", keys)]
        if number < WRONG:
            rows.append(check_row(name, "binary", GOOD, OTHER, ok=False, waivable=False))
        elif number < WRONG + SILENT:
            rows.append(
                unknown_row(name, "binary", GOOD, "expected exit code 0, got 1: No such file")
            )
        else:
            rows.append(check_row(name, "live state", "as verified", "as verified", ok=True))
    return judged(*rows)


def test_the_worst_comes_first_and_every_row_is_counted(drifted: Standing) -> None:
    """30 wrong builds, 12 untold; of none do peers or the list of keys tell: 458 are as verified."""
    card = display.result_card(drifted)
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
    told = Counter((r["outcome"], r["what"]) for r in card.data["standing"]["result"]["rows"])
    assert drifted.result is not None
    assert told == Counter((row.outcome.value, row.what) for row in drifted.result.rows)


def test_no_card_of_a_large_fleet_is_too_large_to_read(drifted: Standing) -> None:
    """Each form of each card; a forge renders a notebook of that size."""
    cards = [display.result_card(drifted), display.verdict_card(verdict(drifted))]
    forms = [(card.html, card.text, json.dumps(card.data)) for card in cards]

    assert [len(form) for card in forms for form in card if len(form.encode()) >= LIMIT] == []
    assert sum(len(html.encode()) for html, _, _ in forms) < LIMIT
