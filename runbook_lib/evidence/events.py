"""The events of a log: one class a kind, versioned, each line checked as it is read.

A kind, a version or a key that is not known here makes a log unreadable; it is never passed over.
Instants that are judged are fields of their own: ``written`` is the machine's clock.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar, Union

from pydantic import AwareDatetime, Field, JsonValue, PrivateAttr, TypeAdapter

from ..canonical import canonical, digest_bytes, load_once
from ..outcomes import CheckResult, Model, Outcome, Row
from ..plan import NodeState, Plan
from ..verdicts import Mode, RunKind, Source

HEADER = {"v", "seq", "prev", "written"}
StepPhase = Literal["intent", "done", "failed", "inspected"]


class Event(Model):
    """``seq`` counts from 0, ``prev`` is the hash of the line before."""

    kind: str = ""
    v: Literal[1] = 1
    seq: int = 0
    prev: str = ""
    written: str = ""
    _hash: str = PrivateAttr("")

    def __init_subclass__(cls, kind: str = "", **more: Any) -> None:
        if kind:
            cls.__annotations__["kind"] = Literal[kind]
            cls.kind = kind
        super().__init_subclass__(**more)

    @property
    def hash(self) -> str:
        """``sha256:HEX`` of the line it was read from."""
        return self._hash

    @property
    def content(self) -> dict[str, Any]:
        """Its fields as JSON, without those that tell where in a log it stands."""
        return self.model_dump(mode="json", exclude=HEADER)

    def line(self) -> bytes:
        """Its line in a log."""
        return canonical(self.model_dump(mode="json"))


E = TypeVar("E", bound=Event)


def of(events: Iterable[Event], *kinds: type[E]) -> list[E]:
    """The events of some kinds, in their order."""
    return [event for event in events if isinstance(event, kinds)]


def last(events: Iterable[Event], *kinds: type[E]) -> E | None:
    """The newest event of some kinds."""
    return next(iter(of(events, *kinds)[-1:]), None)


# --- an attempt, an adoption ----------------------------------------------------------------------


class Opening(Event):
    """What a log begins with; ``heads`` are those of all earlier attempts of the release."""

    attempt: int = Field(default=0, ge=0, lt=10**9)
    cluster: str
    heads: Mapping[str, str] = {}
    operator: str
    site: str
    source: Source


class Undoes(Model):
    """The apply that a recovery undoes: its number, the digest of its plan, its name."""

    attempt: int
    plan: str
    name: str


class Opened(Opening, kind="opened"):
    """An attempt; ``damage`` is what was wrong with the store when a recovery was opened."""

    release: str
    commit: str
    stage: str
    chain_id: str
    mode: Mode
    params: Mapping[str, JsonValue]
    policy: str
    declared: tuple[str, ...]
    run: RunKind
    single_operator: bool
    now: AwareDatetime
    version: str
    damage: tuple[str, ...] = ()
    undoes: Undoes | None = None

    @property
    def name(self) -> str:
        return f"{self.release}/{self.stage}/{self.attempt:04d}"

    @property
    def issue(self) -> int:
        """The release issue; 0 for none."""
        issue = self.params.get("issue")
        return issue if isinstance(issue, int) else 0


class Adopting(Opening, kind="adopting"):
    """A cluster is taken over as it is."""


class Adopted(Event, kind="adopted"):
    """Its state, by the digest of all nodes' states, was approved."""

    digest: str
    approved_by: tuple[str, ...]


class SessionOpened(Event, kind="session"):
    """A kernel begins or continues an attempt; ``params`` are those that a run may change."""

    number: int
    params: Mapping[str, JsonValue]
    operator: str
    policy: str
    run: RunKind
    source: Source
    now: AwareDatetime
    version: str
    package: str


class PolicyAccepted(Event, kind="policy"):
    """Somebody else accepted the site's policy after the one ``before``."""

    before: str
    policy: str
    moved: str
    by: str
    at: AwareDatetime
    grounds: str


class ByAnother(Event):
    """What somebody approved by its digest, the operator alone where the site has no other."""

    digest: str
    approved_by: tuple[str, ...]
    self_approved: bool


class WaiverAccepted(ByAnother, kind="waiver"):
    """Rows of an item that may stay as they are, until ``expires``."""

    item: str
    subjects: tuple[str, ...]
    outcome: Outcome
    reason: str
    expires: AwareDatetime
    grounds: tuple[str, ...]


class NodeDropped(ByAnother, kind="dropped"):
    """A node that is left out of the plan from now on."""

    node: str
    reason: str
    plan: str


class Note(Event, kind="note"):
    """What a reader of the verdict is to know."""

    text: str


class Status(Event, kind="status"):
    """What is going on, for whoever follows a run."""

    text: str


class Attached(Event, kind="attached"):
    """A file that was kept unparsed: the journal of a recovery kit."""

    kit: str
    file: str
    digest: str


class Enforced(Event, kind="enforced"):
    """The last cell ran in session ``number``."""

    number: int


class Sealed(Event, kind="sealed"):
    """The executed notebook was filed; ``foreign``: its code is not ours."""

    notebook: str
    digest: str
    code: str
    foreign: bool
    outcome: Outcome
    exit_code: int
    broken: tuple[str, ...]
    number: int


class Torn(Event, kind="torn"):
    """What a power cut left of a line."""

    text: str


# --- runs of items --------------------------------------------------------------------------------


class OfRun(Event):
    """Of one run of an item."""

    item: str
    number: int


class RunStarted(OfRun, kind="started"):
    """It begins; one that has no end was interrupted."""


class RunStopped(OfRun, kind="stopped"):
    """A person interrupted it."""


class RunEnded(OfRun, kind="result"):
    """What it came to."""

    result: CheckResult
    retry_reason: str = ""


class Planned(OfRun, kind="planned"):
    """What a change would do."""

    reason: str
    rows: tuple[Row, ...] = ()


class NotReached(OfRun, kind="not-reached"):
    """Nothing was asked: ``due`` is when to come back."""

    reason: str
    due: AwareDatetime | None


# --- plans and changes ----------------------------------------------------------------------------


class PlanMade(Event, kind="plan"):
    """``digest`` stays that of the whole plan when nodes were dropped from it since."""

    digest: str
    plan: Plan
    author: str
    approved_by: tuple[str, ...]
    rows: tuple[Row, ...]


class PlanRefused(Event, kind="plan-refused"):
    rows: tuple[Row, ...]
    reason: str
    outcome: Outcome


class LockTaken(Event, kind="lock"):
    cluster: str
    owner: str


class LockReleased(Event, kind="unlock"):
    cluster: str


class TakenOver(Event, kind="takeover"):
    """A recovery ended processes that a stopped run had left behind."""

    holder: str
    ended: tuple[int, ...]
    waited_s: int


class KitWritten(Event, kind="kit"):
    """The recovery kit, kept outside the store: digest of each of its files."""

    folder: str
    files: Mapping[str, str]


class StepTaken(Event, kind="step"):
    """``stem`` names its outputs, ``fence`` the event by which the lock was taken."""

    item: str
    node: str
    step: str
    phase: StepPhase
    stem: str
    at: AwareDatetime
    fence: int
    code: int | None = None
    problem: str = ""
    found: bool | None = None


class NodeVerified(Event, kind="state"):
    """A node was read back as planned."""

    item: str
    node: str
    phase: str = ""
    state: NodeState
    at: AwareDatetime


class Captured(Event, kind="captured"):
    """What was kept before the first step of a change."""

    item: str
    data: Mapping[str, JsonValue]


class SnapshotChosen(Event, kind="snapshot"):
    """The snapshot that a storage recovery goes back to."""

    item: str
    path: str
    name: str
    height: int
    root: str
    label: str


class Restoring(Event, kind="restore"):
    """The nodes that an attempt has to finish restoring."""

    item: str
    nodes: tuple[str, ...]


class FigureDrawn(Event, kind="figure"):
    file: str
    digest: str
    text: str
    start: AwareDatetime
    end: AwareDatetime


class Queued(Event, kind="outbox"):
    """What is not sent and read back yet lies in the outbox."""

    name: str
    digest: str


class IncidentNamed(Event, kind="incident"):
    """The incident that a recovery opened or joined, and the hash of its first line."""

    id: str
    first: str


# --- the watch: appends are idempotent by kind and key --------------------------------------------


class WatchBegun(Event, kind="watching"):
    """A look by ``runbook watch``; ``number`` tells its questions apart on the tape."""

    number: int
    operator: str
    run: RunKind


class Keyed(Event):
    key: str
    at: AwareDatetime


class Looked(Keyed, kind="look"):
    """Somebody looked at the window up to ``at``."""


class AnomalyOpened(Keyed, kind="anomaly"):
    """``at`` is when it was, ``opened`` when it was found; ``query`` is for a person to look with."""

    subject: str
    query: str
    opened: AwareDatetime
    row: Row


class Notified(Keyed, kind="notified"):
    """Somebody was told of an anomaly, one way."""


class Answered(Keyed):
    """To an anomaly, by a release commander."""

    by: str
    grounds: str


class Acknowledged(Answered, kind="acknowledged"):
    """Somebody deals with an anomaly."""


class Decided(Answered, kind="decided"):
    decision: Literal["continue", "restart", "recover"]
    reason: str


def kind_of(event: type[Event]) -> str:
    """How a log names a class of events; empty for one that only others are made of."""
    return str(event.model_fields["kind"].default)


def _kinds(base: type[E]) -> Iterator[type[E]]:
    if kind_of(base):
        yield base
    for each in base.__subclasses__():
        yield from _kinds(each)


def reader(*bases: type[E]) -> Callable[[bytes], E]:
    """What reads a line of a log that holds events of ``bases``.

    It raises ValueError for anything else, and for a key that stands twice.
    """
    kinds = tuple(kind for base in bases for kind in _kinds(base))
    union = Annotated[Union[kinds], Field(discriminator="kind")]  # type: ignore[valid-type] # noqa: UP007
    adapter: TypeAdapter[E] = TypeAdapter(union)

    @lru_cache(4096)  # logs are read again for each item, and their events are frozen
    def read(line: bytes) -> E:
        event = adapter.validate_json(line)
        load_once(line)
        if "v" not in event.model_fields_set:
            raise ValueError("v: expected the version of its kind, got none")
        event._hash = digest_bytes(line)
        return event

    return read


read_line = reader(Event)
"""Reads a line of an attempt's or an adoption's log."""
