"""Servers and files without end: answers, nesting and numbers that are none are given up."""

import json
import time
import tomllib
from collections.abc import AsyncIterator, Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest

from runbook_lib import reach, strict
from runbook_lib.errors import LogDamaged, ParameterError, SourceError
from runbook_lib.sources import http as module
from runbook_lib.sources import wire
from runbook_lib.sources.config import diff, flatten, parse_toml, render
from runbook_lib.sources.github import explanation
from runbook_lib.sources.http import Budget, make_request
from runbook_lib.sources.node import Status, Validator
from runbook_lib.sources.prometheus import Prometheus
from runbook_lib.sources.redact import TOO_DEEP, Redactor
from runbook_lib.sources.tape import read_entries
from runbook_lib.strict import parse_yaml

from ..messages import saying
from ..sources.conftest import World, told

SOON = reach.Reached(timeout_s=0.2)
GIVEN_UP = (0, b"", "GivenUp: no answer in 0.8 s; not asked again")


def slowly(handler: BaseHTTPRequestHandler) -> None:
    """Not even a status line is ever whole."""
    try:
        for _ in range(40):
            handler.wfile.write(b"H")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        return


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    slowly(handler)


def silence(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1)


def busy(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(0.15)
    handler.send_error(503)


@pytest.mark.parametrize("reply", [drip, slowly, silence, busy])
def test_a_source_has_one_budget_of_time_for_all_questions_of_an_item(
    serve: Callable[..., str], world: World, reply: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    """However many questions, retries and threads; after a wait it has its time again, and replays."""
    bad, scope = serve(reply), world.scope(None)
    requests = [make_request("GET", f"{bad}/{n}", SOON) for n in range(3)]
    lived = [told(*scope.http(requests)) for _ in range(8)]
    lived += [told(*scope.lane("a").http(requests))]
    assert lived[3:] == [[GIVEN_UP] * 3] * 6
    good = serve(lambda handler: handler.send_response(200) or handler.end_headers())
    assert scope.http([make_request("GET", good)])[0].status_code == 200
    scope.renew()
    again = scope.http([make_request("GET", f"{bad}/again", SOON)], retries=1)
    assert GIVEN_UP not in told(*again)

    replay = world.replay()
    assert [told(*replay.http(requests)) for _ in range(8)] == lived[:-1]


def test_answers_in_time_cost_nothing_and_a_wait_counts_once() -> None:
    """A slow source that answers is asked as often as need be."""
    budget = Budget()
    for begun, until in ((5.0, 1.0), (0.0, 2.0), (1.0, 2.0), (1.5, 3.0), (9.0, 9.5)):
        budget.spend(begun, until)

    assert budget.waited == 3.5


@pytest.mark.parametrize("ask", ["instant", "rules", "alertmanagers"])
def test_a_body_without_end_is_cut_at_its_kinds_limit(world: World, ask: str) -> None:
    """A small one for what holds no series."""

    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'{"status":"success","data":{'
        while True:
            sent += 1
            yield b" " * 1024 * 1024

    scope = world.scope(lambda request: httpx.Response(200, content=endless()))
    prometheus = Prometheus(scope, reach.Endpoint(url="http://p"))
    what = "up" if ask == "instant" else ask
    with pytest.raises(SourceError) as caught:
        getattr(prometheus, ask)(*(["up", scope.now()] if ask == "instant" else []))
    limit = "expected an answer, got TooLarge: more than 16777216 bytes"
    assert str(caught.value) == f"prometheus: {what}: {limit}"
    assert sent == 16


def test_all_answers_of_a_source_at_once_have_a_limit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many of them below their own; the next questions begin anew."""
    monkeypatch.setattr(module, "MAX_OF_ALL", 2_500)
    scope = world.scope(lambda request: httpx.Response(200, content=b"x" * 1000))
    for _ in range(2):
        answers = told(*scope.http([make_request("GET", f"http://a/{n}") for n in range(4)]))
        assert [why for _, _, why in answers if why] == [
            "TooLarge: more than 2500 bytes in all"
        ] * 2


# --- nested without end, or numbers that are none: the source is named ----------------------------


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
        with saying(SourceError, "main-1: expected TOML, got: tables more than 64 deep"):
            parse_toml((form.format(dotted(PARTS[part], count)) + "\n").encode(), "main-1")


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
    with saying(SourceError, "main-1: expected TOML, got: tables more than 64 deep"):
        parse_toml(text.encode(), "main-1")


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
    with saying(SourceError, f"main-1: {key}: expected a number that can be compared, got nan"):
        parse_toml(text.encode(), "main-1")
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
    with pytest.raises(LogDamaged, match=r"index.jsonl: line 1: expected a tape entry, got: "):
        read_entries(tmp_path)
