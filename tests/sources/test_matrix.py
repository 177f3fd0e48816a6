"""Range answers by columns: exactly what a JSON parser reads, or an error."""

import json
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.errors import SourceError
from runbook_lib.sources import matrix
from runbook_lib.sources.matrix import Series

from ..messages import saying

LABEL_VALUES = st.one_of(
    st.text(max_size=8),
    st.sampled_from(['"values":[[', "]]", '\\"values\\":[[1,"2"]]', '"', "\\", "}", "é"]),
)
LABELS = st.dictionaries(st.sampled_from(["a", "b", "values", "metric"]), LABEL_VALUES, max_size=3)
NUMBERS = st.one_of(
    st.floats().map(lambda value: go_format(value)),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**18), 10**18).map(str),
)


def go_format(value: float) -> str:
    """As Prometheus prints it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return np.format_float_positional(value, trim="-")


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A range answer: any labels, times to the millisecond, any numbers."""
    unique = partial(json.dumps, sort_keys=True)
    found = draw(st.lists(LABELS, max_size=4, unique_by=unique))
    result = []
    for labels in found:
        scale = draw(st.sampled_from([1000, 100, 10, 1]))
        start = draw(st.integers(10**9, 9 * 10**9)) * 1000
        steps = draw(st.lists(st.integers(1, 10**6), min_size=1, max_size=6))
        times = [(start + scale * sum(steps[:n])) / 1000 for n in range(len(steps))]
        whole = [int(time) if time.is_integer() else time for time in times]
        values = [[time, draw(NUMBERS)] for time in whole]
        result.append({"metric": labels, "values": values})
    return {"status": "success", "data": {"resultType": "matrix", "result": result}}


def read_slowly(body: bytes) -> Any:
    """What a JSON parser and a loop make of it; raises whatever it likes for anything else."""
    document = json.loads(body)
    assert document["status"] == "success"
    assert document["data"]["resultType"] == "matrix"
    return [
        (
            series["metric"],
            [round(time * 1000) for time, _ in series["values"]],
            [float(value) for _, value in series["values"]],
        )
        for series in document["data"]["result"]
    ]


def same(found: tuple[Series, ...], expected: Any) -> bool:
    return len(found) == len(expected) and all(
        series.labels == labels
        and series.times.tolist() == times
        and np.array_equal(series.values, np.array(values, float), equal_nan=True)
        for series, (labels, times, values) in zip(found, expected, strict=True)
    )


@given(documents(), st.booleans())
def test_it_reads_what_a_json_parser_reads(document: dict[str, Any], ascii_only: bool) -> None:
    body = json.dumps(document, separators=(",", ":"), ensure_ascii=ascii_only).encode()
    assert same(matrix.parse("prometheus", [body]), read_slowly(body))


@given(documents(), st.data())
def test_a_damaged_answer_is_an_error_or_read_as_what_it_says(
    document: dict[str, Any], data: st.DataObject
) -> None:
    body = bytearray(json.dumps(document, separators=(",", ":")).encode())
    at = data.draw(st.integers(0, len(body) - 1))
    cut = data.draw(st.integers(0, 3))
    signs = st.sampled_from([b'"', b"],[", b",", b".", b"-", b"e", b"]]"])
    body[at : at + cut] = data.draw(st.binary(max_size=3) | signs)
    try:
        found = matrix.parse("prometheus", [bytes(body)])
    except SourceError:
        return
    assert same(found, read_slowly(bytes(body)))


def answer(*series: str, more: str = "") -> bytes:
    head = '{"status":"success","data":{"resultType":"matrix","result":['
    return f"{head}{','.join(series)}]}}{more}}}".encode()


def series(values: str, metric: str = '{"a":"b"}') -> str:
    return f'{{"metric":{metric},"values":{values}}}'


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["NaN", "+Inf", "-Inf", "-0.0", "1e-7"], "[nan, inf, -inf, -0.0, 1e-07]"),
        (["1.7976931348623157e+308", "0.1000000000000000055"], "[1.7976931348623157e+308, 0.1]"),
    ],
)
def test_infinities_and_nan_stay_apart_from_numbers(texts: list[str], expected: str) -> None:
    values = ",".join(f'[{1764500000 + n},"{text}"]' for n, text in enumerate(texts))
    [found] = matrix.parse("prometheus", [answer(series(f"[{values}]"))])
    assert repr(found.values.tolist()) == expected


def test_times_are_milliseconds_whatever_their_fraction() -> None:
    text = '[[1764500000,"1"],[1764500000.5,"2"],[1764500000.501,"3"],[1764500000.5020,"4"]]'
    times = [1764500000000, 1764500000500, 1764500000501, 1764500000502]
    for shift in (0, 1500):
        [found] = matrix.parse("prometheus", [answer(series(text))], shift)
        assert found.times.tolist() == [time + shift for time in times]


CUT = answer(series('[[1764500000,"1"]]'))
ONE = "expected every series once with one list of samples"
TIMES = "expected times that increase, got one twice or out of order"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "expected JSON, got: EOF while parsing a value at line 1 column 0"),
        (CUT[:-7], "expected JSON, got a cut answer"),
        (CUT[:-2], "expected JSON, got: EOF while parsing an object at line 1 column 92"),
        (b'{"status":"error","error":"slow"}', "status: expected 'success', got 'error' (and 1 more)"),
        (answer().replace(b"matrix", b"vector"), "data.resultType: expected 'matrix', got 'vector'"),
        (b"[]", "expected an object, got a list"),
        (answer('{"metric":{"a":"b"},"histograms":[[1764500000,{"count":"1"}]]}'),
         '{a="b"}: expected floats, got a native histogram'),
        (answer(series('[[1764500000,"1"]]'), series('[[1764500000,"2"]]')), ONE),
        (answer(series('[[1764500000,"1"]]') * 2), "expected JSON, got: expected `,` or `]` at line 1 column 92"),
        (answer('{"metric":{"a":"b"}}'), ONE),
        (answer(series("7")), ONE),
        (answer(more=',"x":{"values":[[1764500000,"1"]]}'), ONE),
        (answer(series('[[1764500000,"1"]],"values":[[1764500000,"2"]]')), "expected every key once, got one twice"),
        (answer(more=',"warnings":["lost"],"warnings":[]'), "expected every key once, got one twice"),
        (answer(series('[[1764500000,"1"]]', '{"a":"b","a":"c"}')), "expected every key once, got one twice"),
        (answer(series('[[1764500000,"1"],[1764500000,"2"]]')), TIMES),
        (answer(series('[[1764500001,"1"],[1764500000,"2"]]')), TIMES),
        *((answer(series(text)), f'expected samples as [[time, "value"], ...], got {text}...') for text in (
            "[[1764500000,1.5]]", "[[1764500000,NaN]]", '[["1764500000","1"]]', '[[1764500000,"1e"]]', '[[1764500000,""]]',
            '[[1764500000,"\\u0031"]]', '[[1764500000,"1_0"]]', '[[1764500000," 1"]]', '[[176450000,"1"]]',
            '[[1764500000.,"1"]]', '[[1764500000,"1",2],["1"]]', '[[1764500000,"1",1764500001,"2"]]', "[[]]",
            '[[[1764500000],"1"]]', "[[1764500000]]", '[["1","2"],["3","4"]]')),
    ],
)  # fmt: skip
def test_anything_else_is_an_error_that_says_what_it_got(body: bytes, problem: str) -> None:
    with saying(SourceError, f"prometheus: {problem}"):
        matrix.parse("prometheus", [body])


def test_windows_that_follow_each_other_are_joined_by_series() -> None:
    both = series('[[1764500000,"1"]]'), series('[[1764500000,"9"]]', "{}")
    early = answer(*both, more=',"infos":["not a counter?"]')
    late = answer(series('[[1764500060,"2"]]'))
    found = matrix.parse("p", [early, late])
    assert [(each.labels, each.times.tolist(), each.values.tolist()) for each in found] == [
        ({"a": "b"}, [1764500000000, 1764500060000], [1.0, 2.0]),
        ({}, [1764500000000], [9.0]),
    ]
    with saying(SourceError, "p: expected all of it, got shard down"):
        matrix.parse("p", [early, answer(more=',"warnings":["shard down","x"]')])
    with pytest.raises(SourceError, match=TIMES):
        matrix.parse("p", [late, early])
