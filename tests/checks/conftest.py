"""A rehearsal network without telemetry, and checks judged on it as a stage would judge them."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runbook_lib.context import Context, Judge
from runbook_lib.errors import SourceError
from runbook_lib.evidence.store import Store
from runbook_lib.findings import Findings
from runbook_lib.outcomes import CheckResult, Row, unknown_row
from runbook_lib.site import read_site
from runbook_lib.sources.scope import Scope
from runbook_lib.sources.tape import ReplayTape
from runbook_lib.sources.words import Window
from runbook_rehearsal.loopback import Loopback
from runbook_rehearsal.network import RehearsalNetwork

from ..sources.conftest import World
from .observing import Look
from .staging import Staging

PLAN = "sha256:" + "a" * 64
NUMBERS = count(1)


class Bench:
    """``window`` is one nobody spoke of before; ``params`` and ``plan`` are what a check is given."""

    def __init__(self, network: RehearsalNetwork, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.network, self.root, self.patch = network, root, patch
        now = datetime.fromtimestamp(network.world.clock.now(), UTC).replace(microsecond=0)
        start = now + timedelta(hours=2 + next(NUMBERS))
        self.window = Window(start, start + timedelta(hours=4))
        self.site = read_site(str(network.site))
        self.plan: Any = SimpleNamespace(digest=PLAN)
        self.params: dict[str, Any] = {
            "release": "v1.4.0", "commit": network.release.commit, "issue": 42,
            "window_start": start.isoformat(), "window_end": self.window.end.isoformat(),
            "notice_hours": 1.0, "as_of": "",
        }  # fmt: skip
        self._tries = count(1)
        self.scopes = World(root / "tape", self.site.secret_names())

    def change_site(self, **changes: Any) -> None:
        self.site = self.site.model_copy(update=changes)

    def pass_time(self, *, until: datetime) -> None:
        self.network.fast_forward((until.timestamp() - self.network.world.clock.now()) + 1)

    def judge(self, check: Judge, stage: str) -> CheckResult:
        """What the check comes to, and that its replay comes to the same."""
        number, item = next(self._tries), check.item
        scope = self.scopes.scope(None, item=item, number=number, clock=self.site.clock)
        live = _result(check, self._context(check, stage, scope))
        replayed = self.scopes.replay(item=item, judged=number)
        assert _result(check, self._context(check, stage, replayed)) == live
        return live

    def _context(self, check: Judge, stage: str, scope: Scope) -> Context:
        return Context(
            item=check.item, stage=stage, params=SimpleNamespace(**self.params), site=self.site,
            scope=scope, store=Store(self.site.store_path), folder=self.root,
            log=cast(Any, None), journal=(), plan=self.plan,
        )  # fmt: skip


def _result(check: Judge, context: Context) -> CheckResult:
    try:
        return check(context)
    except SourceError as error:  # as a stage does
        row = unknown_row(error.source, "readable", "an answer", error.problem)
        return context.conclude([row], passed="", empty="")


def offline(context: Context) -> Context:
    """The same, answered from its tape alone."""
    tape, scope = ReplayTape(context.folder / "tape", {context.item: 1}), context.scope
    replayed = Scope(tape, context.item, 9, aliases=scope._aliases)
    return replace(context, scope=replayed, findings=[])


class Bare(Findings):
    """A context of what is given alone, which keeps what is judged."""

    def __init__(self, **given: Any) -> None:
        super().__init__()
        vars(self).update(given)


def row(result: CheckResult, subject: str) -> Row:
    """The one row about ``subject``."""
    (found,) = [row for row in result.rows if row.subject == subject]
    return found


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalNetwork]:
    with RehearsalNetwork(
        tmp_path_factory.mktemp("checks") / "network", telemetry=False
    ) as network:
        yield network


@pytest.fixture
def bench(
    network: RehearsalNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    for name, value in network.env.items():
        monkeypatch.setenv(name, value)
    network.rpc.refill()  # many tests ask the same nodes, which count requests
    made = Bench(network, tmp_path, monkeypatch)
    yield made
    made.scopes.close()
    for active in list(network.faults):
        network.clear(active.name)
    network.forge.comments.clear()
    for path in (network.root / "words" / "v1.4.0").iterdir():
        path.unlink()


@pytest.fixture(scope="module")
def loopback() -> Iterator[Loopback]:
    made = Loopback()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def staging(practice: Any) -> Staging:
    return Staging(practice)


@pytest.fixture
def look(tmp_path: Path) -> Iterator[Look]:
    made = Look(tmp_path)
    yield made
    made.scopes.close()
