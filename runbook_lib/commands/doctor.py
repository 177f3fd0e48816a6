"""Is this machine able to run a stage, and can it reach the site: what is missing, how to get it."""

import argparse
import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator

from ..errors import ParameterError, RunbookError, StoreError
from ..evidence.store import Store
from ..machine import require_kernel
from ..notebook import KERNEL
from ..opening import find_operator
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..reach import Command, Endpoint, Reached
from ..site import Forge, Site, read_site
from ..sources import process
from ..sources.http import make_request
from ..sources.redact import SHORTEST
from ..sources.scope import live_scope
from .printing import tell_rows


def doctor(args: argparse.Namespace) -> int:
    """Is this machine, and a site where one is named, able to run a stage."""
    return tell_rows("doctor", [*_machine(), *_site(args.site)], args.json, {})


def _site(path: str) -> Iterator[Row]:
    if not path:
        return
    try:
        site = read_site(path)
    except ParameterError as error:
        for problem in error.problems:
            yield check_row(path, "readable", "valid", problem, ok=False)
        return
    for look in (_secrets, _store, _people, _programs, _endpoints):
        yield from look(site)


def _machine() -> Iterator[Row]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield check_row("python", "version", "3.11 or newer", version, sys.version_info >= (3, 11))
    engines = importlib.metadata.entry_points(group="papermill.engine", name="runbook")
    got = "registered" if engines else "missing: pip install --no-deps -e ."
    yield check_row("papermill", "engine runbook", "registered", got, bool(engines))
    got = "registered"
    try:
        require_kernel()
    except RunbookError as error:
        got = str(error)
    yield check_row("jupyter", f"kernel {KERNEL}", "registered", got, got == "registered")
    for program in ("prometheus", "promtool", "alertmanager", "amtool"):
        found = shutil.which(program) or shutil.which(f"prometheus-{program}")
        got = "found" if found else "not found; a rehearsal uses its embedded one"
        yield check_row(program, "program (optional)", "found", got, Outcome.PASS)


def _secrets(site: Site) -> Iterator[Row]:
    for name in sorted(site.secret_names()):
        length = len(os.environ.get(name, ""))
        got = "not set; export it" if not length else f"{length} characters"
        yield check_row(name, "secret", f"at least {SHORTEST} characters", got, length >= SHORTEST)


def _store(site: Site) -> Iterator[Row]:
    path = site.store_path
    where = next((parent for parent in (path, *path.parents) if parent.exists()), path)
    ok = os.access(where, os.W_OK)
    yield check_row("store", "writable", "yes", "yes" if ok else f"no: {where}", ok)
    if path.is_dir():
        yield _locks(Store(path))


SECOND = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"


def _locks(store: Store) -> Row:
    """Whether a lock of the store holds against a second process."""
    what, expected = "locks", "held against a second process"
    try:
        with store.cluster_lock(".doctor", "runbook doctor") as lock:
            argv = [sys.executable, "-I", "-c", SECOND, str(lock.path)]
            ended = process.run(argv, timeout_s=30)
            got = ended.problem or ended.stderr.decode()[-300:]
        if ended.code == 0:
            got = "taken by both: two applies would run side by side"
    except (StoreError, OSError) as error:
        got = str(error)
    held = "BlockingIOError" in got
    return check_row("store", what, expected, expected if held else got, held)


def _people(site: Site) -> Iterator[Row]:
    try:
        account = find_operator(site, "apply")
        yield check_row("operator", "listed in people", "yes", account, ok=True)
    except ParameterError as error:
        yield check_row("operator", "listed in people", "yes", str(error), ok=False)


def _programs(site: Site) -> Iterator[Row]:
    commands: dict[str, Command] = {**site.commands.suites}
    for purpose in type(site.commands).model_fields:
        command = getattr(site.commands, purpose)
        if isinstance(command, Command):
            commands[purpose] = command
        elif command is None:
            yield unknown_row(purpose, "command", "named in the site file", "none")
    for purpose, command in commands.items():
        program = command.argv[0]
        found = shutil.which(program) is not None
        got = program if found else f"{program}: not on PATH"
        yield check_row(purpose, "command", "on PATH", got, found)


def _endpoints(site: Site) -> Iterator[Row]:
    places: dict[str, Endpoint | Forge | None] = {
        "prometheus": site.telemetry.prometheus,
        "alertmanager": site.telemetry.alertmanager,
        "forge": site.forge,
        "grafana": site.dashboards.grafana,
    }
    with live_scope("doctor", site) as scope:
        for name, place in places.items():
            if place is None:
                continue
            reach = Reached(timeout_s=min(place.timeout_s, 5.0))
            [got] = scope.http([make_request("GET", place.url, reach)], retries=1)
            text = f"status {got.status_code}" if got.status_code else got.reason_phrase
            yield check_row(name, "reachable", "an answer", text, bool(got.status_code))
