"""What is nested without end, or holds numbers that are none: its source is named."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from runbook_lib import strict
from runbook_lib.errors import ParameterError, RecordDamaged, SourceError
from runbook_lib.sources import wire
from runbook_lib.sources.config import diff, flatten, parse_toml, render
from runbook_lib.sources.github import explanation
from runbook_lib.sources.node import Status, Validator
from runbook_lib.sources.redact import TOO_DEEP, Redactor
from runbook_lib.sources.tape import read_entries
from runbook_lib.strict import parse_yaml

PARTS = {
    "bare": "a{}",
    "quoted": '"a {}"',
    "with dots": '"a.{}"',
    "with quotes": '"a\\"\\\\{}"',
    "literal": "'a {} \"'",
    "of one quote": '"{}\'"',
    "spaced": '"a" . "{}" ',
}


def dotted(part: str, count: int) -> str:
    return ".".join(part.format(number) for number in range(count))


@pytest.mark.parametrize(
    "form", ["{} = 1", "[{}]", "[[{}]]", "x = {{ {} = 1 }}", "a = 1\n[t]\n{} = 'x'"]
)
@pytest.mark.parametrize("part", PARTS)
def test_a_key_of_many_parts_is_refused_naming_the_node(
    part: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However its parts are written; a parser that takes longer for each never has it."""
    assert parse_toml((form.format(dotted(PARTS[part], 25)) + "\n").encode(), "main-1")
    monkeypatch.setattr(tomllib, "loads", lambda text: pytest.fail("it was given to the parser"))
    for count in (3_000, 100_000):
        with pytest.raises(SourceError) as caught:
            parse_toml((form.format(dotted(PARTS[part], count)) + "\n").encode(), "main-1")
        assert str(caught.value) == "main-1: expected TOML, got: tables more than 64 deep"


NESTED = {
    "arrays": "a = " + "[" * 70 + "]" * 70,
    "arrays without end": "a = " + "[" * 20_000 + "]" * 20_000,
    "inline tables": "a = " + "{b = " * 70 + "1" + "}" * 70,
    "a header and a key": f"[{dotted('a{}', 40)}]\n{dotted('b{}', 40)} = 1\n",
    "tables of tables": "".join(f"[[{dotted('a{}', depth)}]]\n" for depth in range(1, 70)),
    "what a tape says of such a file": TOO_DEEP.decode(),
}


@pytest.mark.parametrize("text", NESTED.values(), ids=NESTED)
def test_depth_is_that_of_the_parsed_table(text: str) -> None:
    """Not of one line."""
    with pytest.raises(SourceError) as caught:
        parse_toml(text.encode(), "main-1")
    assert str(caught.value) == "main-1: expected TOML, got: tables more than 64 deep"


@pytest.mark.parametrize(
    "text", ['"\\"' * 200_000, "'" * 400_001, "a" * 1_000_000, '"a"' * 300_000]
)
def test_each_byte_of_what_only_looks_like_long_keys_is_looked_at_once(text: str) -> None:
    """Nothing is passed over, and nothing tried again from a later byte."""
    assert "".join(found[0] for found in strict._KEYS.finditer(text)) == text
    with pytest.raises(SourceError, match="main-1: expected TOML, got: "):
        parse_toml(text.encode(), "main-1")


def test_a_file_too_deep_to_find_its_secrets_in_leaves_none_of_itself() -> None:
    """The tape says why, and so does who reads it again."""
    text = f"{dotted(PARTS['quoted'], 3000)} = 1\nauth_token = '''\nhunter2'''\n".encode()

    assert Redactor().clean(text) == TOO_DEEP


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("a = nan\n", "a"),
        ("[t]\nb = [1.0, [-nan]]\n", "t.b"),
        ('[[t]]\n"c d" = +nan\nx = "nan"\n', 't[0]."c d"'),
    ],
)
def test_a_number_that_compares_to_nothing_names_node_and_key(text: str, key: str) -> None:
    """A file would differ from itself; an infinite limit compares."""
    with pytest.raises(SourceError) as caught:
        parse_toml(text.encode(), "main-1")
    assert str(caught.value) == f"main-1: {key}: expected a number that can be compared, got nan"
    with pytest.raises(SourceError, match=r"^main-1: .*: expected a number that can be compared"):
        render(text.encode(), {"z": True}, "main-1")
    fine = flatten(parse_toml(b"a = [inf, -inf]\nb = 'nan'\n", "main-1"))
    assert diff(fine, fine) == []


VALIDATOR = {"address": "a", "stake": "1", "tier": "x", "timetoke_hours": 1}
VALIDATOR |= {"reputation_score": 1.0}


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "[" * 100_000, '{"a":' * 100_000])
def test_an_answer_of_such_numbers_or_depth_names_its_source(number: str) -> None:
    """Whatever key they stand under, read by us or passed over."""
    text = json.dumps(VALIDATOR).replace("1.0", number)
    for body in (text, f'{{"unread": {number}}}'):
        with pytest.raises(SourceError, match=r"^main-1: (reputation_score|address|expected JSON)"):
            wire.decode("main-1", body.encode(), Validator)
    with pytest.raises(SourceError, match=r"^main-1: "):
        wire.decode("main-1", b"[" * 100_000, Status, once=True)


def test_other_nests_are_refused_where_they_are_read(tmp_path: Path) -> None:
    """Parameters, a forge's refusal, an entry of a tape."""
    for text in (b"a: " + b"[" * 100_000, b"a: " + b"{b: " * 5_000):
        with pytest.raises(ParameterError, match=r"^site.yaml: line 1: expected YAML, got: nest"):
            parse_yaml(text, "site.yaml")
    assert explanation(b"[" * 100_000) == "[" * 200
    (tmp_path / "index.jsonl").write_bytes(b"[" * 100_000 + b"\n")
    with pytest.raises(RecordDamaged, match=r"index.jsonl: line 1: expected a tape entry, got: "):
        read_entries(tmp_path)
