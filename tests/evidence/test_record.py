"""The record keeps what was appended, whoever died meanwhile, and notices what was altered."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook_lib.canonical import digest_bytes
from runbook_lib.errors import RecordDamaged, StoreError
from runbook_lib.evidence.record import GENESIS, Entry, Record, parse

APPENDER = """
import sys
from pathlib import Path
from runbook_lib.evidence.record import Record
record = Record(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    record.append("note", {"who": sys.argv[3], "number": number, "text": "x" * 500})
    print(number, flush=True)
"""


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "record.jsonl")


def appender(record: Record, count: int, who: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", APPENDER, str(record.path), str(count), who]
    return subprocess.Popen(argv, stdout=subprocess.PIPE)


def test_each_entry_names_the_hash_of_the_one_before(record: Record) -> None:
    """The chain starts at nothing and each hash is that of the very line in the file."""
    first, second = record.append("opened", {"stage": "x"}), record.append("note", {})
    lines = record.path.read_bytes().splitlines()

    assert [first.prev, second.prev] == [GENESIS, first.hash]
    assert [first.hash, second.hash] == [digest_bytes(line) for line in lines]
    assert record.head == second.hash
    assert record.entries() == Record(record.path).entries() == [first, second]


def test_a_torn_last_line_is_kept_as_an_entry_of_its_own(record: Record) -> None:
    """What a crash left of an entry is no entry; the next append keeps its bytes readable."""
    first = record.append("opened", {})
    with record.path.open("ab") as file:
        file.write(b'{"seq": 1, "torn \xff')

    assert record.entries() == [first]

    record.append("note", {})

    assert [entry.kind for entry in record.entries()] == ["opened", "torn", "note"]
    assert record.entries()[1].body == {"text": '{"seq": 1, "torn \ufffd'}


def test_every_entry_acknowledged_before_a_kill_is_there(record: Record) -> None:
    """After kill -9 in the middle of appends the record reads on, and can be appended to."""
    process = appender(record, 10_000, "victim")
    assert process.stdout is not None
    for _ in range(5):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    acknowledged = 5 + len(process.stdout.read().splitlines())
    process.wait()
    process.stdout.close()
    record.append("note", {"who": "survivor"})

    numbers = [e.body["number"] for e in record.entries() if e.body.get("who") == "victim"]

    assert process.returncode == -signal.SIGKILL
    assert len(numbers) >= acknowledged
    assert numbers == list(range(len(numbers)))
    assert record.entries()[-1].body == {"who": "survivor"}


def test_two_processes_append_to_one_chain(record: Record) -> None:
    """No entry of either is lost, and each finds its own in order."""
    both = [appender(record, 40, who) for who in ("one", "two")]
    for process in both:
        process.communicate()
    entries = record.entries()

    assert [process.returncode for process in both] == [0, 0]
    for who in ("one", "two"):
        mine = [entry.body["number"] for entry in entries if entry.body["who"] == who]
        assert mine == list(range(40))


@pytest.mark.parametrize(
    ("line", "instead", "got"),
    [
        (0, b'{"seq":0}', "line 1: expected an entry, got: KeyError('prev')"),
        (1, b"no JSON", "line 2: expected an entry, got: JSONDecodeError("),
        (1, b"[" * 100_000, "line 2: expected an entry, got: RecursionError("),
        (1, b'[1, "a"]', "line 2: expected an entry, got: TypeError("),
        (0, b'{"at":"","body":[],"kind":"opened","prev":"","seq":0}', "its kind is no text or its"),
        (0, b'{"at":"","body":{},"kind":null,"prev":"","seq":0}', "its kind is no text or its"),
    ],
)
def test_a_line_that_is_no_entry_is_named(
    record: Record, line: int, instead: bytes, got: str
) -> None:
    """Whatever stands there, the reader gets an error that names the line."""
    for number in range(3):
        record.append("note", {"number": number})
    lines = record.path.read_bytes().splitlines()
    lines[line] = instead
    record.path.write_bytes(b"\n".join(lines) + b"\n")

    with pytest.raises(RecordDamaged) as caught:
        Record(record.path).entries()

    assert str(caught.value).startswith("record.jsonl: line ")
    assert got in str(caught.value)


@pytest.mark.parametrize("order", [(0, "altered", 2, 3), (0, 2, 3), (0, 2, 1, 3), (0, 1, 1, 2, 3)])
def test_an_altered_history_breaks_the_chain(record: Record, order: tuple[Any, ...]) -> None:
    """A line altered, removed, moved or repeated no longer fits the one after it."""
    for number in range(4):
        record.append("note", {"number": number})
    lines = dict[Any, bytes](enumerate(record.path.read_bytes().splitlines(keepends=True)))
    lines["altered"] = lines[1].replace(b'"number":1', b'"number":7')
    record.path.write_bytes(b"".join(lines[each] for each in order))

    with pytest.raises(RecordDamaged, match=r"expected entry \d after sha256:.*altered$"):
        Record(record.path).entries()


def test_a_full_disk_is_said_and_believed_by_nobody(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short write is an error, and what it left is no entry."""
    record.append("opened", {})
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:9], at))

    with pytest.raises(StoreError) as caught:
        record.append("note", {})

    assert str(caught.value).startswith("record.jsonl: expected room for an entry of ")
    assert str(caught.value).endswith(" bytes, got less; the disk is full")
    monkeypatch.undo()
    assert [entry.kind for entry in record.entries()] == ["opened"]
    record.append("note", {})
    assert [entry.kind for entry in record.entries()] == ["opened", "torn", "note"]


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
    record = Record(tmp_path_factory.mktemp("record") / "record.jsonl")
    made = [record.append("note", body) for body in bodies]

    assert [entry.body for entry in made] == bodies
    assert Record(record.path).entries() == made


@given(st.binary(max_size=200))
def test_any_bytes_are_entries_or_an_error(text: bytes) -> None:
    try:
        entries, rest = parse(text, "x")
    except RecordDamaged:
        return
    assert entries == []
    assert rest == text


def test_a_body_that_json_cannot_hold_leaves_nothing_behind(record: Record) -> None:
    """A value without a canonical form is refused before anything is written."""
    with pytest.raises(ValueError, match=r"."):
        record.append("note", {"x": float("nan")})

    assert json.dumps([entry.kind for entry in record.entries()]) == "[]"


def test_what_is_there_already_is_not_added_again(record: Record) -> None:
    """Looked at under the lock, by a record that had not read it yet."""
    other = Record(record.path)
    assert other.entries() == []
    record.append("note", {"text": "first"})

    def once(entries: list[Entry]) -> dict[str, Any] | None:
        return None if entries else {"text": "second"}

    assert other.append_if("note", once) is None
    assert [entry.body["text"] for entry in record.entries()] == ["first"]


def test_what_is_added_may_count_what_is_there(record: Record) -> None:
    """The entry that was written comes back, chained like any other."""
    record.append("note", {})
    added = record.append_if("note", lambda entries: {"number": len(entries)})

    assert added == record.entries()[-1]
    assert added is not None
    assert (added.body, added.prev) == ({"number": 1}, record.entries()[0].hash)


def test_what_others_append_is_read_alone(record: Record) -> None:
    """Following a long record costs what is new in it."""
    record.append("note", {"number": 0})
    reader = Record(record.path)
    assert len(reader.entries()) == 1
    added = record.append("note", {"number": 1})
    with patch("runbook_lib.evidence.record.parse", wraps=parse) as parsed:
        assert reader.entries() == record.entries()

    (call,) = parsed.call_args_list
    assert call.args[0] == record.path.read_bytes().splitlines(keepends=True)[added.seq]


@pytest.mark.parametrize("kept", [True, False])
def test_a_record_that_was_altered_while_it_grew_is_noticed(record: Record, kept: bool) -> None:
    """What was read before must still stand there, byte by byte."""
    record.append("note", {"number": 0})
    first = record.append("note", {"number": 1})
    reader = Record(record.path)
    reader.entries()
    record.append("note", {"number": 2})
    if not kept:
        text = record.path.read_bytes()
        record.path.write_bytes(text.replace(b'"number":0', b'"number":7'))

    if kept:
        assert reader.entries()[1] == first
        assert reader.append("note", {}).seq == 3
        assert Record(record.path).entries() == reader.entries()
        return
    for read in (reader.entries, lambda: reader.append("note", {})):
        with pytest.raises(RecordDamaged, match=r"^record.jsonl: line 2: expected entry 1 after"):
            read()
