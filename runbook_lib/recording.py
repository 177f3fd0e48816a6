"""Replaying a recorded attempt from its tape.

What the replay writes goes to a store of its own that goes away with it.
"""

import os
import tempfile
import zipfile
from contextlib import ExitStack
from pathlib import Path

from .errors import LogDamaged, StoreError
from .evidence.events import SessionOpened, of
from .evidence.log import opened_by, parse
from .evidence.store import Store
from .package import VERSION
from .params import stage_params
from .session import OPEN, Session, hand_over, last_runs, params_in, run_kind
from .site import Site, parse_site
from .sources.local import Folder, plain_files
from .sources.local import recorded as read
from .sources.tape import ReplayTape, read_body, read_entries
from .strict import PROJECT

RECORDINGS = PROJECT / "notebooks" / "recordings"


def open_replay(stage: str, folder: Folder) -> Session:
    """Replay a recorded attempt into a store that goes away with the session."""
    if isinstance(folder, Path):
        plain_files(folder)
    try:
        recorded = parse(read(folder / "log.jsonl"), "log.jsonl")[0]
    except FileNotFoundError:
        recorded = []
    opened, sessions = opened_by(recorded, folder.name), of(recorded, SessionOpened)
    if opened.stage != stage:
        raise LogDamaged(f"{folder.name}: expected a {stage} attempt, got one of {opened.stage}")
    if not sessions:
        raise LogDamaged(f"{folder.name}: expected a session in the log, got none")
    tape = ReplayTape(folder / "tape", last_runs(recorded))
    params = stage_params(stage, params_in(recorded), "recording")
    site = recorded_site(folder, params.site)
    # A folder of its own below the engine's, which reads it and takes it away.
    given, folders = os.environ.get("RUNBOOK_SCRATCH"), ExitStack()
    scratch = tempfile.TemporaryDirectory(prefix="runbook-replay-") if not given else None
    where = folders.enter_context(scratch) if scratch else tempfile.mkdtemp(dir=given)
    store = Store(Path(where))
    # Under its own number: cards show it, and paths on the tape are told apart by it.
    attempt = store.recreate(opened.model_copy(update={"source": "replay"}))
    session = Session(
        site=site,
        store=store,
        attempt=attempt,
        tape=tape,
        number=len(sessions),
        source="replay",
        operator=sessions[-1].operator,
        params=params,
        recorded=recorded,
        folders=folders,
    )
    now = {"source": "replay", "run": run_kind(), "version": VERSION}
    session.log.append(sessions[-1].model_copy(update=now))
    hand_over(session)
    return session


def recorded_site(folder: Folder, path: str) -> Site:
    """The site file as an attempt's tape holds it. Raises LogDamaged."""
    for entry in read_entries(folder / "tape"):
        if entry.item == OPEN and entry.key.startswith("READ "):
            return parse_site(read_body(folder / "tape", entry.body), path)
    raise LogDamaged(f"{folder.name}: tape: expected the site file, got none")


def recording(stage: str) -> zipfile.Path:
    """The recording that ships with us, read in place. Raises StoreError, LogDamaged."""
    archive = RECORDINGS / f"{stage}.zip"
    try:
        return zipfile.Path(archive)
    except FileNotFoundError:
        raise StoreError(
            f"{stage}: expected a shipped recording, got none; run `make recording`"
        ) from None
    except zipfile.BadZipFile as error:
        raise LogDamaged(f"{archive.name}: expected an archive, got: {error}") from error
