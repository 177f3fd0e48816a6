"""What one stage alone asks of a site's commands: fresh nodes, probes, test suites, soak jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, Field

from .. import reach
from ..errors import SourceError
from . import wire
from .commands import SiteCommands
from .process import Ended
from .running import execute, filled, require_well
from .wire import Wire


class Provisioned(Wire):
    """A fresh node: its name, and the URL of its RPC."""

    node: str
    url: reach.Url


class Probe(Wire):
    """Whether a telemetry backend answers inside the VPC; ``status`` is null when nothing came."""

    backend: str
    reachable: bool
    status: int | None
    latency_ms: Annotated[float, Field(ge=0)] | None


class SoakJob(Wire):
    """The newest soak job that ended: its commit, whether it passed, and when it ran."""

    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    passed: bool
    started: AwareDatetime
    ended: AwareDatetime


class StageCommands(SiteCommands):
    """A site's commands, those of single stages too. Every method that reads raises SourceError."""

    def provision(
        self, cluster: str, name: str, config: Path, *, lock: int, outputs: Path
    ) -> Ended:
        """Make a fresh node; ``provisioned`` reads what it printed."""
        values = {"cluster": cluster, "name": name, "config": str(config)}
        return self.change("provision", name, **values)(lock, outputs)

    def deprovision(self, cluster: str, name: str, *, lock: int, outputs: Path) -> Ended:
        """Remove a node that ``provision`` made."""
        return self.change("deprovision", name, cluster=cluster, name=name)(lock, outputs)

    def probe(self, backend: str) -> Probe:
        """What the probe inside the VPC saw of a backend; a mix-up of backends is an error."""
        found = wire.decode(
            f"probe {backend}", self._read("probe", backend, backend=backend).stdout, Probe
        )
        if found.backend != backend:
            raise SourceError(f"probe {backend}", f"expected {backend!r}, got {found.backend!r}")
        return found

    def soak(self) -> SoakJob:
        """The site's newest soak job of the development cluster."""
        return wire.decode("soak", self._read("soak").stdout, SoakJob)

    def suite(self, name: str) -> Ended:
        """Run a test suite by the playbook's name; how it ended, red or green."""
        source = f"suite {name}"
        command = self._commands.suites.get(name)
        if command is None:
            raise SourceError(source, f"expected commands.suites.{name} in the site file, got none")
        suite = filled(f"commands.suites.{name}", command)
        return execute(self._scope, source, suite, codes=None)


def provisioned(name: str, ended: Ended) -> Provisioned:
    """What ``provision`` printed. Raises SourceError when it failed or printed something else."""
    source = f"provision {name}"
    return wire.decode(source, require_well(source, ended), Provisioned)
