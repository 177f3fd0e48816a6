"""``mode: plan`` on every notebook: it reads, and changes, tells and posts nothing.

The notebooks' own cells run against one network. Whatever readiness says, every change is asked
what it would do, so that this holds for all of them.
"""

import hashlib
import json
from contextlib import suppress
from typing import Any

import pytest

from runbook_lib import notebook, playbook, runs
from runbook_lib.changes.adopt import adopt
from runbook_lib.errors import StageRefused
from runbook_lib.runs import blocker
from runbook_lib.session import Session
from runbook_lib.site import Commands, Site, read_site
from runbook_lib.sources.tape import Entry, read_entries
from runbook_lib.stage import Stage
from runbook_lib.strict import parse_yaml
from runbook_rehearsal.network import RehearsalNetwork

from .conftest import practised

READS = frozenset({
    "version", "read_config", "dry_run", "probe", "test_rules", "assets", "soak", "revision",
    "tree_status", "suites", "announced", "proposals", "stopped", "inspect_wal", "verify_snapshot",
})  # fmt: skip
ACTS = frozenset({
    "announce", "instruct", "freeze_proposals", "unfreeze_proposals", "deploy", "restart",
    "provision", "deprovision", "notify", "announce_halt", "stop", "keep_data", "restore_snapshot",
    "replay_proofs", "start",
})  # fmt: skip
LOCAL = ("CLOCK", "READ ", "LOG ", "LIST ", "DIGEST ", "MEMBER ", "DERIVE ")


@practised(history_s=2 * 3600.0)
def network(net: RehearsalNetwork, patch: pytest.MonkeyPatch) -> None:
    """Adopted, with the candidate on its canaries: every stage can make its plan."""
    net.install_candidate()
    for cluster in net.world.clusters:
        adopt(str(net.site), cluster, artifacts=[net.release.previous_artifact])


def run(network: RehearsalNetwork, runbook: str) -> Stage:
    """Every code cell of a notebook, with the network's parameters and ``mode: plan``."""
    book = notebook.read(notebook.NOTEBOOKS / playbook.NOTEBOOKS[runbook])
    file = network.params.get(runbook, network.params["preflight"])
    given = parse_yaml(file.read_bytes(), file.name) | {"mode": "plan"}
    given |= {"summary": "it was practised", "impact": "blocks came late for a minute"}
    given |= {"mitigations": ["gates are off"], "next_steps": ["find the cause"]}
    known = {one.name for one in notebook.parameters(book)}
    names: dict[str, Any] = {}
    parameters, *cells = notebook.code_cells(book)
    exec(notebook.source(parameters), names)
    names |= {name: value for name, value in given.items() if name in known}
    with suppress(StageRefused):
        for cell in cells:
            exec(notebook.source(cell), names)
    (stage,) = (value for value in names.values() if isinstance(value, Stage))
    stage.close()
    return stage


SERVERS_OWN = (("prometheus", "data"), ("alertmanager", "data"))
"""What real servers write to all the time."""


def whole(network: RehearsalNetwork) -> dict[str, str]:
    """What a change would move: nodes' files and power, the forge, announcements, instructions."""
    files = sorted(
        path
        for path in network.root.rglob("*")
        if path.is_file() and "store" not in path.relative_to(network.root).parts
        if path.name != "clock.json" and "log" not in path.name
        if path.relative_to(network.root).parts[:2] not in SERVERS_OWN
    )
    found = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    forge = network.forge
    return found | {
        "up": str(sorted(network.fleet.running)),
        "forge": repr((forge.comments, forge.issues, forge.releases.releases)),
    }


def of_a_reading_command(site: Site, argv: list[str]) -> bool:
    """Whether the site names it among those that only read."""
    for purpose in READS:
        command = getattr(site.commands, purpose)
        for one in command.values() if isinstance(command, dict) else [command]:
            same = one is not None and len(one.argv) == len(argv)
            if same and all("{" in a or a == b for a, b in zip(one.argv, argv, strict=True)):
                return True
    return False


def strays(site: Site, tape: list[Entry]) -> list[str]:
    """Entries that are anything but a question."""
    queries = f"POST {site.telemetry.prometheus.url}/api/v1/query"
    questions = (*LOCAL, "GET ", f"{queries} ", f"{queries}_range ")
    if site.artifact_signing.log is not None:  # a signature is looked up by what it is of
        questions += (f"POST {site.artifact_signing.log.url}/api/v1/log/entries/retrieve ",)
    found = []
    for entry in tape:
        asks = entry.key.startswith(questions)
        if entry.key.startswith("RUN "):
            asks = of_a_reading_command(site, json.JSONDecoder().raw_decode(entry.key[4:])[0])
        if entry.purpose != "read" or not asks:
            found.append(f"{entry.item}: {entry.purpose}: {entry.key}")
    return found


def test_each_command_of_a_site_is_known_to_read_or_to_act() -> None:
    """A new one must be put on one side before a plan is trusted with it."""
    assert set(Commands.model_fields) == READS | ACTS


def test_what_is_no_question_is_noticed(network: RehearsalNetwork) -> None:
    """The measure itself: a restart, a post, a silence, and a read that calls itself a change."""
    site = read_site(str(network.site))
    assert site.commands.restart is not None
    assert site.commands.version is not None
    restart, version = (
        f"RUN {json.dumps([word.replace('{node}', 'dev-1') for word in command.argv])}"
        for command in (site.commands.restart, site.commands.version)
    )
    told = [
        (restart, "read"),
        (version, "change"),
        ("POST http://forge/repos/a/b/issues/1/comments", "read"),
        (f"POST {site.telemetry.alertmanager.url}/api/v2/silences", "read"),
        (f"POST {site.telemetry.prometheus.url}/api/v1/admin/tsdb/delete_series", "read"),
        (version, "read"),
    ]
    tape = [Entry("item", 1, 1, key, purpose, "", {}, "") for key, purpose in told]

    assert len(strays(site, tape)) == len(told) - 1


@pytest.mark.parametrize("runbook", playbook.NOTEBOOKS)
def test_a_plan_asks_and_nothing_more(
    network: RehearsalNetwork, runbook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GET, queries, files and reading commands; nodes and forge are as they were."""
    network.rpc.refill()

    def for_checks(session: Session, item: str) -> Any:
        return None if playbook.ITEMS[item].kind == "change" else blocker(session, item)

    monkeypatch.setattr(runs, "blocker", for_checks)
    before = whole(network)

    stage = run(network, runbook)
    tape = read_entries(stage.folder / "tape")

    assert strays(read_site(str(network.site)), tape) == []
    assert whole(network) == before
    changes = [i for i in playbook.DECLARED[runbook] if playbook.ITEMS[i].kind == "change"]
    said = {one.item: one.reason for one in stage.verdict().items if one.kind == "change"}
    assert said == dict.fromkeys(changes, "planned; nothing was changed")
