"""A release carried through the practice network, which can be put back to any point it passed.

Each point is saved once, when the walk reaches it: the store, the nodes, the forge and the clock as
they were. A test asks for a point, breaks something and runs a notebook; the next one begins where
nothing of that has happened.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from runbook_rehearsal import layout
from runbook_rehearsal.network import RehearsalNetwork
from runbook_rehearsal.rehearse import take_over
from runbook_rehearsal.saved import Saved

from . import seam

STAGES = ("development", "testnet", "canary", "mainnet")
SAMPLES = {"testnet.activate.gate": 6 * 3600.0, "canary.activate.witness-clients": 3600.0}
THREE_LOOKS_S = 46 * 60.0
SESSIONS = 12


class Practice:
    """One release, one network, and the points that the walk has passed."""

    def __init__(self, root: Path) -> None:
        self.network = RehearsalNetwork(
            root / "network", servers="embedded", history_s=36 * 3600.0, team=True
        )
        self.given: dict[str, dict[str, Any]] = {}
        self.healthy: dict[str, seam.Run] = {}
        self._points: dict[str, tuple[Saved, dict[str, Any]]] = {}
        self._root, self._walk = root, self._steps()

    def __enter__(self) -> Practice:
        self.network.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.network.stop()

    def at(self, name: str) -> None:
        """Put everything back to that point; the walk goes on to it when it is the first time."""
        if name not in self._points:
            if self._points:
                self._restore([*self._points][-1])
            for reached in self._walk:
                saved = self.network.save(self._root / reached)
                self._points[reached] = saved, copy.deepcopy(self.given)
                if reached == name:
                    return
            raise KeyError(name)
        self._restore(name)

    def _restore(self, name: str) -> None:
        saved, given = self._points[name]
        saved.restore()
        self.given = copy.deepcopy(given)

    @property
    def now(self) -> datetime:
        return self.network.now.replace(microsecond=0)

    def run(self, stage: str, **more: Any) -> seam.Run:
        """The stage's notebook with what this point gives it."""
        keywords = {name: more.pop(name) for name in ("item", "begin", "twice") if name in more}
        return seam.run(stage, {**self.given[stage], **more}, **keywords)

    def session(self, stage: str, **more: Any) -> seam.Run:
        """Run a stage, again as long as people do meanwhile what it waits for."""
        made, seen = self.run(stage, **more), set[tuple[str, ...]]()
        while made.exit_code in (2, 4) and (waits := made.waits) not in seen:
            seen.add(waits)
            self.network.operators.settle()
            made = self.run(stage, **{**more, "attempt": made.attempt})
        return made

    def come_back(self, run: seam.Run) -> None:
        """Let pass the time that a stage waits for and a minute, and what gives enough samples."""
        least = SAMPLES.get(run.blocking, 0.0)
        due = run.return_at or self.now
        self.network.fast_forward(max((due - self.now).total_seconds() + 61.0, least))

    # --- the walk -------------------------------------------------------------------------------

    def _steps(self) -> Iterator[str]:
        """Every point, in order; what happens before each is done when it is reached."""
        take_over(self.network)  # on the commander's word
        self.given |= {name: self._file(name) for name in ("preflight", "development")}
        yield "development.apply"
        yield from self._sessions("development")
        yield "development.recover"
        for stage in STAGES[1:]:
            yield from self._stage(stage)

    def _stage(self, stage: str) -> Iterator[str]:
        network = self.network
        due, start, end = layout.schedule(network.world, stage)
        self.given[stage] = layout.rollout(network.world, network.release, start, end)
        if stage == "canary":
            network.install_candidate()
        yield f"{stage}.silent"
        if stage == "testnet":
            network.speak("acknowledge", stage, start, end)
        self.pass_until(due)
        yield f"{stage}.plan"
        self.healthy[f"{stage} plan"] = planned = self.run(stage)
        digest = planned.plan
        self.given[stage] |= {"mode": "apply", "approved_plan": digest}
        for account in (layout.COMMANDER, *([layout.SECOND] if stage == "mainnet" else [])):
            network.say(account, f"approve {digest}")
        yield f"{stage}.unsigned"
        if stage == "mainnet":
            network.speak("sign-off", stage, start, end, digest)
        yield f"{stage}.apply"
        yield from self._sessions(stage)
        yield f"{stage}.recover"

    def _sessions(self, stage: str) -> Iterator[str]:
        """The apply until it passes; a point, named after what waits, each time that time passed."""
        for _ in range(SESSIONS):
            made = self.session(stage)
            self.given[stage]["attempt"] = made.attempt
            if made.exit_code != 4:
                break
            waiting = seam.short(made.blocking)
            if waiting == "watch":
                self.come_back(made)
                self.network.fast_forward(THREE_LOOKS_S)
                yield "mainnet.watch"
                self.network.fast_forward(24 * 3600.0)
            else:
                self.come_back(made)
                known = f"{stage}.{waiting}" in self._points
                yield f"{stage}.{waiting}" + ("+" if known else "")
        self._seal(made)

    def _seal(self, run: seam.Run) -> None:
        seam.save(run)
        code, said = seam.command("seal", run.folder)
        assert (run.exit_code, code) == (0, 0), said
        self.healthy[run.stage] = run
        network = self.network
        self.given[f"{run.stage}_recovery"] = layout.recovery(network.world, network.release)

    def pass_until(self, instant: datetime) -> None:
        left = (instant - self.now).total_seconds()
        if left > 0:
            self.network.fast_forward(left)

    def _file(self, stage: str) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(self.network.params[stage].read_text())
        return found
