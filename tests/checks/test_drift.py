"""Drift by dotted key, and what a bundle says against itself."""

import tomllib
from typing import Any

import pytest
import tomlkit
from hypothesis import assume, given
from hypothesis import strategies as st

from runbook_lib.checks.drift import STAGES, WORM, WORM_AT, for_nodes, judge_bundle, judge_file
from runbook_lib.findings import Findings
from runbook_lib.outcomes import Outcome, Row, check_row
from runbook_lib.sources.config import Bundle, flatten, parse_bundle
from runbook_lib.sources.redact import Redactor
from runbook_rehearsal.chain import templates
from runbook_rehearsal.chain.world import make_cluster, profile

from ..conftest import not_passed

ADDRESSES = [("127.0.0.1", 7000 + n) for n in range(7)]
CLUSTER = make_cluster("mainnet", ADDRESSES, seed=1, genesis=0.0)
KEPT = Redactor().clean(
    templates.node_config(CLUSTER.nodes[0], CLUSTER, "mainnet", profile("mainnet")).encode()
)
KEYS = flatten(tomllib.loads(KEPT.decode()))
OTHERS: Any = st.one_of(
    st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False, allow_infinity=False),
    st.text("ab0", max_size=3), st.lists(st.integers(0, 3), max_size=2),
)  # fmt: skip


def holder(document: Any, key: str) -> tuple[Any, str]:
    """The table that holds a dotted key, and the key's last word."""
    *tables, last = key.split(".")
    for word in tables:
        name, _, number = word.partition("[")
        document = document[name]
        if number:
            document = document[int(number.rstrip("]"))]
    return document, last


def judged(text: bytes) -> list[Row]:
    context = Findings()
    judge_file(context, "main-1", KEYS, flatten(tomllib.loads(text.decode())))
    return context.findings


def rows_after(document: Any) -> list[Row]:
    return judged(tomlkit.dumps(document).encode())


@given(st.sampled_from(sorted(KEYS)), OTHERS)
def test_a_key_that_has_another_value_is_reported_alone(key: str, value: Any) -> None:
    before = KEYS[key]
    assume(repr(value) != repr(before))
    document = tomlkit.parse(KEPT)
    table, last = holder(document, key)
    table[last] = value

    kind = "different" if type(value) is type(before) else "wrong type"
    assert [(row.subject, row.what, row.outcome) for row in rows_after(document)] == [
        ("main-1", f"{key} ({kind})", Outcome.FAIL)
    ]


@given(st.sampled_from(sorted(KEYS)))
def test_a_key_that_went_is_reported_alone(key: str) -> None:
    document = tomlkit.parse(KEPT)
    table, last = holder(document, key)
    del table[last]

    assert [(row.what, row.observed) for row in rows_after(document)] == [
        (f"{key} (missing)", "absent")
    ]


@given(st.sampled_from(sorted({key.rpartition(".")[0] for key in KEYS})), OTHERS)
def test_a_key_that_came_is_reported_alone(table: str, value: Any) -> None:
    document: Any = tomllib.loads(KEPT.decode())
    holder(document, f"{table}.x" if table else "x")[0]["zz_new"] = value
    key = f"{table}.zz_new" if table else "zz_new"

    assert [(row.what, row.expected) for row in rows_after(document)] == [
        (f"{key} (extra)", "absent")
    ]


@given(st.sampled_from([line for line in KEPT.decode().splitlines() if line.startswith("#")]))
def test_a_file_without_another_key_is_not_as_verified_all_the_same(line: str) -> None:
    """A comment is harmless, a secret is not, and the two look alike: its digest decides."""
    rows = judged(KEPT.replace(line.encode(), b"# other"))

    wanted = "the file last verified"
    got = "the same keys and values; a secret, a comment or the order differs"
    assert rows == [check_row("main-1", "config", wanted, got, ok=False)]


# --- the bundle -----------------------------------------------------------------------------------


def read(text: str) -> Bundle:
    return parse_bundle(text.encode(), "bundle")


def bad(bundle: Bundle, stage: str) -> list[Any]:
    context = Findings()
    judge_bundle(context, bundle, stage)
    assert {row.outcome for row in context.findings} <= {Outcome.PASS, Outcome.FAIL}
    return not_passed(context.findings, "subject", "what", "expected", "observed")


def test_stages_out_of_order_and_of_another_channel_are_named() -> None:
    text = templates.bundle().replace('_channel = "canary"', '_channel = "testnet"')
    first, second = '[[stages]]\nname = "development"', '[[stages]]\nname = "testnet"'
    before, middle = text.index(first), text.index(second)
    after = text.index('[[stages]]\nname = "canary"')
    turned = text[:before] + text[middle:after] + text[before:middle] + text[after:]

    wanted, got = (
        f"{order}, canary, mainnet" for order in ("development, testnet", "testnet, development")
    )
    assert bad(read(turned), "development")[:2] == [
        (STAGES, "order", wanted, got),
        (STAGES, "canary: release_channel", "canary", "testnet"),
    ]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("enabled", False, "true"), ("retention_days", 0, "more than 0"),
        ("retention_days", True, "more than 0"), ("target.kind", "command", "s3"),
        ("target.endpoint", "", "an address"), ("target.access_key", "", "a key"),
        ("target.secret_key", "", "a key"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stage", ["canary", "mainnet"])
def test_each_value_that_no_node_starts_with_is_named(
    stage: str, key: str, value: Any, expected: str
) -> None:
    """On the two channels that must export; the table is then asked of no node."""
    plain = read(templates.bundle())
    bundle = Bundle(plain.name, plain.stages, {**plain.other, f"{WORM_AT}.{key}": value})

    assert bad(bundle, stage) == [
        (WORM, f"{WORM_AT}.{key} on channel {stage}", f"{expected} (or no node starts)", value)
    ]
    assert for_nodes(bundle, stage) == plain.other
    assert for_nodes(bundle, "testnet") == bundle.other
