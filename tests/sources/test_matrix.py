"""Range answers by columns: exactly what a JSON parser reads, or an error."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.errors import SourceError
from runbook_lib.sources import matrix
from runbook_lib.sources.matrix import Matrix

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
    found = draw(
        st.lists(LABELS, max_size=4, unique_by=lambda labels: json.dumps(labels, sort_keys=True))
    )
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


def same(found: Matrix, expected: Any) -> bool:
    return len(found.series) == len(expected) and all(
        series.labels == labels
        and series.times.tolist() == times
        and np.array_equal(series.values, np.array(values, float), equal_nan=True)
        for series, (labels, times, values) in zip(found.series, expected, strict=True)
    )


@given(documents(), st.booleans(), st.booleans())
def test_it_reads_what_a_json_parser_reads(
    document: dict[str, Any], compact: bool, ascii_only: bool
) -> None:
    """Labels, times and values alike; blanks and escapes between them make no difference."""
    separators = (",", ":") if compact else (", ", ": ")
    body = json.dumps(document, separators=separators, ensure_ascii=ascii_only).encode()
    assert same(matrix.parse("prometheus", body), read_slowly(body))


@given(documents(), st.data())
def test_a_damaged_answer_is_an_error_or_read_as_what_it_says(
    document: dict[str, Any], data: st.DataObject
) -> None:
    """Never a silently wrong number: whatever it accepts, a JSON parser reads the same."""
    body = bytearray(json.dumps(document, separators=(",", ":")).encode())
    at = data.draw(st.integers(0, len(body) - 1))
    cut = data.draw(st.integers(0, 3))
    body[at : at + cut] = data.draw(
        st.one_of(
            st.binary(max_size=3), st.sampled_from([b'"', b"],[", b",", b".", b"-", b"e", b"]]"])
        )
    )
    try:
        found = matrix.parse("prometheus", bytes(body))
    except SourceError:
        return
    assert same(found, read_slowly(bytes(body)))


def answer(*series: str, more: str = "") -> bytes:
    return (
        '{"status":"success","data":{"resultType":"matrix","result":['
        + ",".join(series)
        + "]}"
        + more
        + "}"
    ).encode()


def series(values: str, metric: str = '{"a":"b"}') -> str:
    return f'{{"metric":{metric},"values":{values}}}'


def test_infinities_and_nan_stay_apart_from_numbers() -> None:
    """NaN, both infinities, a signed zero, an exponent, a very long fraction."""
    texts = [
        "NaN",
        "+Inf",
        "-Inf",
        "-0",
        "1e-7",
        "1.7976931348623157e+308",
        "0.1000000000000000055",
    ]
    values = ",".join(f'[{1764500000 + n},"{text}"]' for n, text in enumerate(texts))
    [found] = matrix.parse("prometheus", answer(series(f"[{values}]"))).series
    assert (
        repr(found.values.tolist()) == "[nan, inf, -inf, -0.0, 1e-07, 1.7976931348623157e+308, 0.1]"
    )


def test_times_are_milliseconds_whatever_their_fraction() -> None:
    """Whole seconds, tenths, thousandths in one series."""
    text = '[[1764500000,"1"],[1764500000.5,"2"],[1764500000.501,"3"],[1764500000.5020,"4"]]'
    [found] = matrix.parse("prometheus", answer(series(text))).series
    assert found.times.tolist() == [1764500000000, 1764500000500, 1764500000501, 1764500000502]


def test_warnings_make_an_answer_partial_and_infos_do_not() -> None:
    """A warning says that something is missing."""
    body = answer(more=',"warnings":["shard b is down"],"infos":["not a counter?"]')
    found = matrix.parse("prometheus", body)
    assert (found.series, found.warnings, found.infos) == (
        (),
        ("shard b is down",),
        ("not a counter?",),
    )
    assert found.partial
    assert not matrix.parse("prometheus", answer(more=',"infos":["not a counter?"]')).partial


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "expected JSON, got: EOF while parsing a value at line 1 column 0"),
        (answer(series('[[1764500000,"1"]]'))[:-20], "expected JSON, got a cut answer"),
        (
            answer(series('[[1764500000,"1"]]'))[:-2],
            "expected JSON, got: EOF while parsing an object at line 1 column 92",
        ),
        (
            b'{"status":"error","errorType":"timeout","error":"slow"}',
            "status: expected 'success', got 'error' (and 1 more)",
        ),
        (
            answer().replace(b"matrix", b"vector"),
            "data.resultType: expected 'matrix', got 'vector'",
        ),
        (b"[]", "expected an object, got a list"),
        (
            answer('{"metric":{"a":"b"},"histograms":[[1764500000,{"count":"1"}]]}'),
            '{a="b"}: expected float samples, got a native histogram',
        ),
        (
            answer(series('[[1764500000,"1"]]'), series('[[1764500000,"2"]]')),
            "expected every series once, got one twice",
        ),
        (
            answer('{"metric":{"a":"b"}}'),
            "expected one list of samples per series, got another number",
        ),
        (answer(series("7")), "expected one list of samples per series, got another number"),
        (
            answer(series('[[1764500000,"1"],[1764500000,"2"]]')),
            "expected times that increase, got one twice or out of order",
        ),
        (
            answer(series('[[1764500001,"1"],[1764500000,"2"]]')),
            "expected times that increase, got one twice or out of order",
        ),
        (
            answer(series("[[1764500000,1.5]]")),
            'expected samples as [time, "value"], got [1764500000,1.5...',
        ),
        (
            answer(series('[["1764500000","1"]]')),
            'expected samples as [time, "value"], got ["1764500000","1"...',
        ),
        (
            answer(series('[[1764500000,"1e"]]')),
            'expected samples as [time, "value"], got [1764500000,"1e"...',
        ),
        (
            answer(series('[[1764500000,""]]')),
            'expected samples as [time, "value"], got [1764500000,""...',
        ),
        (
            answer(series('[[1764500000,"\\u0031"]]')),
            'expected samples as [time, "value"], got [1764500000,"\\u0031"...',
        ),
        (
            answer(series('[[176450000,"1"]]')),
            'expected samples as [time, "value"], got [176450000,"1"...',
        ),
        (
            answer(series('[[1764500000.,"1"]]')),
            'expected samples as [time, "value"], got [1764500000.,"1"...',
        ),
        (
            answer(series('[[1.7645e9,"1"]]')),
            'expected samples as [time, "value"], got [1.7645e9,"1"...',
        ),
        (
            answer(series('[[1764500000,"1",2],[1764500001,"1"]]')),
            'expected samples as [time, "value"], got [1764500000,"1",2],[1764500001,"1"...',
        ),
    ],
)
def test_anything_else_is_an_error_that_says_what_it_got(body: bytes, problem: str) -> None:
    """No answer of another kind is read as an empty one."""
    with pytest.raises(SourceError) as caught:
        matrix.parse("prometheus", body)
    assert str(caught.value) == f"prometheus: {problem}"


def test_a_large_answer_is_read_like_a_small_one() -> None:
    """Some threads share the work; the order of series is the answer's."""
    values = ",".join(f'[{1764500000 + n},"{n / 7!r}"]' for n in range(20_000))
    body = answer(*(series(f"[{values}]", f'{{"n":"{n}"}}') for n in range(9)))
    assert len(body) > matrix.LARGE
    found = matrix.parse("prometheus", body).series
    assert [each.labels["n"] for each in found] == list("012345678")
    expected = np.arange(20_000) / 7
    assert all(np.array_equal(each.values, expected) for each in found)
    assert all(each.times[-1] == 1764519999000 for each in found)


def test_windows_that_follow_each_other_are_joined_by_series() -> None:
    """A series that only one window has keeps its own samples; warnings of all are kept."""
    early = matrix.parse(
        "p",
        answer(
            series('[[1764500000,"1"]]'),
            series('[[1764500000,"9"]]', "{}"),
            more=',"warnings":["w"]',
        ),
    )
    late = matrix.parse("p", answer(series('[[1764500060,"2"]]'), more=',"warnings":["w","x"]'))
    found = matrix.merge("p", [early, late])
    assert [(each.labels, each.times.tolist(), each.values.tolist()) for each in found.series] == [
        ({"a": "b"}, [1764500000000, 1764500060000], [1.0, 2.0]),
        ({}, [1764500000000], [9.0]),
    ]
    assert found.warnings == ("w", "x")
    with pytest.raises(SourceError) as caught:
        matrix.merge("p", [late, early])
    assert str(caught.value) == "p: expected times that increase, got one twice or out of order"


def test_shifting_moves_times_and_nothing_else() -> None:
    """A rehearsal's clock is put back on answers."""
    found = matrix.parse(
        "p", answer(series('[[1764500000,"1"]]'), series('[[1764500000,"2"]]', "{}"))
    )
    later = matrix.shifted(found, 1500)
    assert [each.times.tolist() for each in later.series] == [[1764500001500]] * 2
    assert matrix.shifted(found, 0) is found
