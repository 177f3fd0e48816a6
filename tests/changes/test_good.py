"""The good state: what a passed attempt or an adoption left, and nothing else."""

from typing import Any

import pytest

from runbook_lib import playbook
from runbook_lib.errors import SourceError
from runbook_lib.evidence.ledger import Ledger
from runbook_lib.evidence.log import Log
from runbook_lib.evidence.store import Store
from runbook_lib.plan import NodeState

from ..events import event
from ..messages import saying

OLD = NodeState(gates={}, channel="development", binary="sha256:1", config="sha256:1")
NEW = OLD.model_copy(update={"binary": "sha256:2"})
RELEASE = "v1.3.0"


class Journals:
    """Attempts written by hand: what their logs say is all that counts."""

    def __init__(self, practice: Any) -> None:
        self.stage = practice.open()
        self.scope = self.stage._session.scope("preflight.rollback-assets", 1)
        self.store: Store = self.stage._session.store

    def attempt(self, state: NodeState, hour: int, outcome: str = "PASS", **opened: Any) -> None:
        """An attempt that changed dev-1 and ended with ``outcome`` for its only item."""
        item = "development.activate.deploy"
        about = {"source": "rehearsal", "declared": [item], **opened}
        enforced = about.pop("enforced", True)
        log = self.store.create(event("opened", release=RELEASE, **about)).log
        log.append(event("session", source=about["source"]))
        log.append(event("started", item=item, number=1))
        at = self._verified(log, item, state, hour)
        row = {"subject": "dev-1", "what": "x", "expected": 1, "observed": 1, "outcome": outcome}
        result = {"item": item, "outcome": outcome, "reason": "", "rows": [row]}
        result |= {"started": at, "ended": at}
        log.append(event("result", item=item, number=1, result=result))
        if enforced:
            log.append(event("enforced", number=1))

    def adopted(self, state: NodeState, hour: int) -> None:
        log = self.store.adopt(event("adopting", source="rehearsal")).log
        self._verified(log, "adopt", state, hour)

    def _verified(self, log: Log, item: str, state: NodeState, hour: int) -> str:
        at = f"2026-11-23T{hour:02d}:00:00+00:00"
        log.append(event("state", item=item, state=state, at=at))
        return at

    def good(self) -> dict[str, NodeState]:
        found = Ledger(self.store, self.scope).good("development")
        return {node: known.state for node, known in found.items()}

    def known(self) -> NodeState:
        return Ledger(self.store, self.scope).known("development")["dev-1"].state


@pytest.fixture
def journals(practice: Any) -> Journals:
    return Journals(practice)


def test_a_pass_and_an_adoption_replace_what_was_before(journals: Journals) -> None:
    journals.adopted(OLD, 1)
    journals.attempt(NEW, 2)
    assert journals.good() == {"dev-1": NEW}

    journals.adopted(OLD, 3)
    assert journals.good() == {"dev-1": OLD}


@pytest.mark.parametrize(
    ("outcome", "opened", "known"),
    [
        ("FAIL", {}, NEW),
        ("INCONCLUSIVE", {}, NEW),
        ("PASS", {"enforced": False}, NEW),
        (
            "PASS",
            {"declared": ["development.activate.deploy", "development.activate.baseline"]},
            NEW,
        ),
        ("PASS", {"mode": "plan"}, OLD),
        ("PASS", {"source": "replay"}, OLD),
        ("PASS", {"cluster": "testnet"}, OLD),
    ],
)
def test_what_did_not_pass_whole_and_live_is_not_good(
    journals: Journals, outcome: str, opened: dict[str, Any], known: NodeState
) -> None:
    journals.attempt(NEW, 2, outcome, **opened)
    assert journals.good() == {}

    journals.adopted(OLD, 1)
    assert journals.good() == {"dev-1": OLD}
    assert journals.known() == known


def test_a_playbook_that_grew_does_not_undo_a_pass(
    journals: Journals, monkeypatch: pytest.MonkeyPatch
) -> None:
    journals.attempt(NEW, 1)
    monkeypatch.setitem(playbook.DECLARED, "development", ())
    assert journals.good() == {"dev-1": NEW}

    journals.attempt(OLD, 2, declared=["development.activate.renamed"])
    with saying(
        SourceError,
        "v1.3.0/development/0002: expected items of this version's playbook, got"
        " 'development.activate.renamed'",
    ):
        journals.good()


def test_an_attempt_without_its_log_is_named_and_not_taken_for_an_empty_one(
    journals: Journals,
) -> None:
    journals.attempt(NEW, hour=1)
    gone = journals.store.attempt(RELEASE, "development", 1).folder / "log.jsonl"
    gone.unlink()

    where = "{store}/v1.3.0/development/0001/log.jsonl"
    with saying(SourceError, f"{where}: expected a log, got: No such file or directory"):
        journals.known()
