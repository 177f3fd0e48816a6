"""The log keeps what was appended, whoever died meanwhile, and notices what was altered."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook_lib.canonical import digest_bytes
from runbook_lib.errors import LogDamaged, StoreError
from runbook_lib.evidence.events import Captured, Event, Note, of
from runbook_lib.evidence.log import GENESIS, Log, parse

from ..events import event

APPENDER = """
import sys
from pathlib import Path
from runbook_lib.evidence.events import Note
from runbook_lib.evidence.log import Log
log = Log(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    log.append(Note(text=f"{sys.argv[3]} {number} " + "x" * 500))
    print(number, flush=True)
"""


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log.jsonl")


def appender(log: Log, count: int, who: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", APPENDER, str(log.path), str(count), who]
    return subprocess.Popen(argv, stdout=subprocess.PIPE)


def said_by(events: Sequence[Event], who: str) -> list[int]:
    words = [note.text.split() for note in of(events, Note)]
    return [int(said[1]) for said in words if said[0] == who]


def test_each_entry_names_the_hash_of_the_one_before(log: Log) -> None:
    """The chain starts at nothing and each hash is that of the very line in the file."""
    first, second = log.append(event("opened")), log.append(Note(text=""))
    lines = log.path.read_bytes().splitlines()

    assert [first.prev, second.prev] == [GENESIS, first.hash]
    assert [first.hash, second.hash] == [digest_bytes(line) for line in lines]
    assert log.head == second.hash
    assert log.events() == Log(log.path).events() == [first, second]


def test_a_torn_last_line_is_kept_as_an_entry_of_its_own(log: Log) -> None:
    """What a crash left of an entry is no entry; the next append keeps its bytes readable."""
    first = log.append(event("opened"))
    with log.path.open("ab") as file:
        file.write(b'{"seq": 1, "torn \xff')

    assert log.events() == [first]

    log.append(Note(text=""))

    assert [entry.kind for entry in log.events()] == ["opened", "torn", "note"]
    assert log.events()[1].text == '{"seq": 1, "torn \ufffd'


def test_every_entry_acknowledged_before_a_kill_is_there(log: Log) -> None:
    """After kill -9 in the middle of appends the log reads on, and can be appended to."""
    process = appender(log, 10_000, "victim")
    assert process.stdout is not None
    for _ in range(5):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    acknowledged = 5 + len(process.stdout.read().splitlines())
    process.wait()
    process.stdout.close()
    log.append(Note(text="survivor"))

    numbers = said_by(log.events(), "victim")

    assert process.returncode == -signal.SIGKILL
    assert len(numbers) >= acknowledged
    assert numbers == list(range(len(numbers)))
    assert log.events()[-1].text == "survivor"


def test_two_processes_append_to_one_chain(log: Log) -> None:
    """No entry of either is lost, and each finds its own in order."""
    both = [appender(log, 40, who) for who in ("one", "two")]
    for process in both:
        process.communicate()
    entries = log.events()

    assert [process.returncode for process in both] == [0, 0]
    for who in ("one", "two"):
        assert said_by(entries, who) == list(range(40))


@pytest.mark.parametrize(
    ("line", "instead", "got"),
    [
        (0, b'{"seq":0}', "line 1: expected an event, got: expected "),
        (1, b"no JSON", "line 2: expected an event, got: expected JSON, got: "),
        (1, b"[" * 100_000, "line 2: expected an event, got: expected JSON, got: "),
        (1, b'[1, "a"]', "line 2: expected an event, got: expected "),
        (0, b'{"kind":"x","seq":0}', "line 1: expected an event, got: kind 'x', unknown here"),
        (0, b'{"kind":"note","text":"","v":2}', "got: note.v: expected 1, got 2"),
        (0, b'{"kind":"note","text":"","more":1}', "got: note.more: expected no such key"),
        (0, b'{"kind":"note","text":""}', "got: v: expected the version of its kind, got none"),
        (0, b'{"kind":"note","v":1,"text":"a","text":"b"}', "expected every key once, got one"),
    ],
)
def test_a_line_that_is_no_entry_is_named(log: Log, line: int, instead: bytes, got: str) -> None:
    """Whatever stands there, the reader gets an error that names the line."""
    for number in range(3):
        log.append(Note(text=f"{number}"))
    lines = log.path.read_bytes().splitlines()
    lines[line] = instead
    log.path.write_bytes(b"\n".join(lines) + b"\n")

    with pytest.raises(LogDamaged) as caught:
        Log(log.path).events()

    assert str(caught.value).startswith("log.jsonl: line ")
    assert got in str(caught.value)


@pytest.mark.parametrize("order", [(0, "altered", 2, 3), (0, 2, 3), (0, 2, 1, 3), (0, 1, 1, 2, 3)])
def test_an_altered_history_breaks_the_chain(log: Log, order: tuple[Any, ...]) -> None:
    """A line altered, removed, moved or repeated no longer fits the one after it."""
    for number in range(4):
        log.append(Note(text=f"{number}"))
    lines = dict[Any, bytes](enumerate(log.path.read_bytes().splitlines(keepends=True)))
    lines["altered"] = lines[1].replace(b'"text":"1"', b'"text":"7"')
    log.path.write_bytes(b"".join(lines[each] for each in order))

    with pytest.raises(LogDamaged, match=r"expected event \d after sha256:.*altered$"):
        Log(log.path).events()


def test_a_full_disk_is_said_and_believed_by_nobody(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short write is an error, and what it left is no entry."""
    log.append(event("opened"))
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:9], at))

    with pytest.raises(StoreError) as caught:
        log.append(Note(text=""))

    assert str(caught.value).startswith("log.jsonl: expected room for an event of ")
    assert str(caught.value).endswith(" bytes, got less; the disk is full")
    monkeypatch.undo()
    assert [entry.kind for entry in log.events()] == ["opened"]
    log.append(Note(text=""))
    assert [entry.kind for entry in log.events()] == ["opened", "torn", "note"]


JSON: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-1e15, 1e15)  # a larger one is written as a whole number
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=50)
@given(
    bodies=st.lists(
        st.dictionaries(st.text(st.characters(codec="utf-8")), JSON, max_size=3), max_size=4
    )
)
def test_what_is_appended_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[dict[str, Any]]
) -> None:
    """Any JSON object comes back equal, from memory and from the file."""
    log = Log(tmp_path_factory.mktemp("log") / "log.jsonl")
    made = [log.append(Captured(item="x", data=body)) for body in bodies]

    assert [event.data for event in made] == bodies
    assert Log(log.path).events() == made


@given(st.binary(max_size=200))
def test_any_bytes_are_entries_or_an_error(text: bytes) -> None:
    try:
        entries, rest = parse(text, "x")
    except LogDamaged:
        return
    assert entries == []
    assert rest == text


def test_a_body_that_json_cannot_hold_leaves_nothing_behind(log: Log) -> None:
    """A value without a canonical form is refused before anything is written."""
    with pytest.raises(ValueError, match=r"."):
        log.append(Captured(item="x", data={"x": float("nan")}))

    assert json.dumps([entry.kind for entry in log.events()]) == "[]"


def test_what_is_there_already_is_not_added_again(log: Log) -> None:
    """Looked at under the lock, by a log that had not read it yet."""
    other = Log(log.path)
    assert other.events() == []
    log.append(Note(text="first"))

    def once(known: list[Event]) -> Note | None:
        return None if known else Note(text="second")

    assert other.append_if(once) is None
    assert [entry.text for entry in log.events()] == ["first"]


def test_what_is_added_may_count_what_is_there(log: Log) -> None:
    """The entry that was written comes back, chained like any other."""
    log.append(Note(text=""))
    added = log.append_if(lambda known: Note(text=f"{len(known)}"))

    assert added == log.events()[-1]
    assert added is not None
    assert (added.text, added.prev) == ("1", log.events()[0].hash)


def test_what_others_append_is_read_alone(log: Log) -> None:
    """Following a long log costs what is new in it."""
    log.append(Note(text="0"))
    reader = Log(log.path)
    assert len(reader.events()) == 1
    added = log.append(Note(text="1"))
    with patch("runbook_lib.evidence.log.parse", wraps=parse) as parsed:
        assert reader.events() == log.events()

    (call,) = parsed.call_args_list
    assert call.args[0] == log.path.read_bytes().splitlines(keepends=True)[added.seq]


@pytest.mark.parametrize("kept", [True, False])
def test_a_record_that_was_altered_while_it_grew_is_noticed(log: Log, kept: bool) -> None:
    """What was read before must still stand there, byte by byte."""
    log.append(Note(text="0"))
    first = log.append(Note(text="1"))
    reader = Log(log.path)
    reader.events()
    log.append(Note(text="2"))
    if not kept:
        text = log.path.read_bytes()
        log.path.write_bytes(text.replace(b'"text":"0"', b'"text":"7"'))

    if kept:
        assert reader.events()[1] == first
        assert reader.append(Note(text="")).seq == 3
        assert Log(log.path).events() == reader.events()
        return
    for read in (reader.events, lambda: reader.append(Note(text=""))):
        with pytest.raises(LogDamaged, match=r"^log.jsonl: line 2: expected event 1 after"):
            read()
