"""Validators' words: all of them, in time, for this window, release and plan."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from runbook_lib.checks.validators import validators_acknowledged, validators_signed_off
from runbook_lib.outcomes import Outcome
from runbook_rehearsal.nodes.rpc import ROUTES, View
from runbook_rehearsal.people import signed

from .conftest import PLAN, Bench, row

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
CHECKS = {
    "testnet": ("acknowledge", validators_acknowledged),
    "mainnet": ("sign-off", validators_signed_off),
}
HARBOR = {"testnet": "test-6", "mainnet": "main-6"}


def judge(bench: Bench, stage: str = "testnet") -> Any:
    return bench.judge(CHECKS[stage][1], stage)


def speak(bench: Bench, stage: str = "testnet") -> None:
    verb: Any = CHECKS[stage][0]
    plan = PLAN if verb == "sign-off" else ""
    bench.network.speak(verb, stage, bench.window.start, bench.window.end, plan)


def line(bench: Bench, verb: str = "acknowledge", stage: str = "testnet") -> str:
    return f"{verb} v1.4.0 {stage} {bench.window} {PLAN if verb == 'sign-off' else ''}".rstrip()


@pytest.mark.parametrize(
    ("stage", "notice"), [("testnet", timedelta(hours=1)), ("mainnet", timedelta())]
)
def test_a_missing_word_is_not_yet_due_until_its_deadline(
    bench: Bench, stage: str, notice: timedelta
) -> None:
    before, deadline = judge(bench, stage), bench.window.start - notice
    bench.pass_time(until=deadline)
    after = judge(bench, stage)

    assert (before.outcome, before.return_at) == (INCONCLUSIVE, deadline)
    assert (after.outcome, after.return_at) == (INCONCLUSIVE, None)


def sign(bench: Bench, key: str, node: str = "test-6", **changes: Any) -> None:
    validator = bench.network.world.node(node).validator
    # The window lies the further ahead the more tests ran before; this instant has come.
    at = datetime.fromtimestamp(bench.network.world.clock.now(), UTC).replace(microsecond=0)
    statement = {"kind": "acknowledge", "release": "v1.4.0", "stage": "testnet",
                 "window": str(bench.window), "validator": validator, "at": at.isoformat(),
                 **changes}  # fmt: skip
    document = signed(bench.network.seed, key, statement)
    (bench.network.root / "words" / "v1.4.0" / f"{key}.json").write_text(document)


def test_a_signed_file_speaks_for_its_validator_alone(bench: Bench) -> None:
    bench.network.fault("ack-missing@testnet/test-6")
    bench.network.fault("node-down@testnet")  # one silent node disputes nothing
    speak(bench)
    sign(bench, "test-6")
    result = judge(bench)

    assert result.outcome is PASS
    assert " by its key (rpp1" in str(row(result, "test-6").observed)


def test_a_forged_file_is_passed_over_for_a_validator_that_also_spoke(bench: Bench) -> None:
    """Anybody could stop a release by it otherwise; the result's data names it."""
    speak(bench)
    sign(bench, "mallory")

    result = judge(bench)
    assert row(result, "test-6").outcome is PASS
    (named,) = result.data["refused"]
    assert ": expected a signature by rpp1" in named
    # One that cannot be read may be a withdrawal.
    (bench.network.root / "words" / "v1.4.0" / "torn.json").write_text('{"statement')
    found = row(judge(bench), "torn.json")
    assert (found.outcome, found.what) == (INCONCLUSIVE, "signed word")


@pytest.mark.parametrize(
    ("account", "body", "observed"),
    [
        ("lumen-nodes", "{line}", "missing; call harbor-stake"),
        ("mallory", "{line}", "missing; call harbor-stake"),
        ("harbor-stake", "> {line}", "missing; call harbor-stake"),
        ("harbor-stake", "acknowledge it", "malformed: 'acknowledge it': expected"),
        ("harbor-stake", "acknowledge v1.3.0 testnet {window}", "for another release: acknowledge"),
        ("harbor-stake", "acknowledge v1.4.0 canary {window}", "for another stage: acknowledge"),
        ("harbor-stake", "approve " + PLAN, "missing; call harbor-stake"),
        ("harbor-stake", "{line}\nwithdraw", "withdrawn "),
        ("harbor-stake", "{line}\nwithdraw sign-off", "20"),
    ],
)
def test_only_its_own_operators_plain_word_counts(
    bench: Bench, account: str, body: str, observed: str
) -> None:
    bench.network.fault("ack-missing@testnet/test-6")
    speak(bench)
    bench.network.say(account, body.format(line=line(bench), window=bench.window))

    assert str(row(judge(bench), "test-6").observed).startswith(observed)


def test_an_edited_word_does_not_count_until_it_is_said_again(bench: Bench) -> None:
    bench.network.fault("ack-missing@testnet/test-6")
    speak(bench)
    comment = bench.network.say("harbor-stake", line(bench))
    bench.network.forge.edit(comment, line(bench))
    edited = row(judge(bench), "test-6")
    bench.network.say("harbor-stake", line(bench))

    assert str(edited.observed).startswith("edited: edited since, at 20")
    assert edited.outcome is INCONCLUSIVE
    assert row(judge(bench), "test-6").outcome is PASS


# --- what cannot be judged ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda bench: bench.params.update(window_start=""),
         "window: scheduled: expected a window of this stage, got none; set window_start and window_end"),
        (lambda bench: bench.params.update(window_end=bench.params["window_start"]),
         "window: scheduled: expected a window that ends after it starts, got"),
        (lambda bench: (bench.params.update(issue=0), bench.change_site(words="")),
         "words: readable: expected a release issue (issue) or the site's folder (words)"),
        (lambda bench: bench.network.fault("forge-500@testnet"), "forge: comments of issue 42: readable: expected status 200, got 500"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stage", CHECKS)
def test_what_cannot_be_read_is_inconclusive(
    bench: Bench, stage: str, change: Any, reason: str
) -> None:
    speak(bench, stage)
    change(bench)
    result = judge(bench, stage)

    assert result.outcome is INCONCLUSIVE
    assert result.reason.startswith(reason)


def test_sign_offs_wait_for_the_plan(bench: Bench) -> None:
    bench.plan = None
    early = judge(bench, "mainnet")
    bench.pass_time(until=bench.window.start)
    late = judge(bench, "mainnet")

    assert (
        early.reason
        == "plan: signed off: expected this stage's plan, got no plan yet that could be signed off"
    )
    assert (early.return_at, late.return_at) == (bench.window.start, None)
    assert late.outcome is INCONCLUSIVE


def test_a_changed_plan_asks_for_new_words(bench: Bench) -> None:
    speak(bench, "mainnet")
    bench.plan = SimpleNamespace(digest=f"{PLAN[:-1]}b")
    result = judge(bench, "mainnet")

    assert (result.outcome, result.return_at) == (INCONCLUSIVE, bench.window.start)
    assert str(row(result, "main-6").observed).startswith("for another plan: sign-off v1.4.0")
    assert result.data["call"] == [
        "harbor-stake", "lumen-nodes", "north-validators", "rehearsal", "rehearsal-second",
    ]  # fmt: skip


def test_a_validator_the_site_does_not_list_is_inconclusive(bench: Bench) -> None:
    speak(bench)
    cluster = bench.site.clusters["testnet"]
    unknown = cluster.nodes[5]
    nodes = [*cluster.nodes[:5], unknown.model_copy(update={"validator": ""}), cluster.nodes[6]]
    clusters = {**bench.site.clusters, "testnet": cluster.model_copy(update={"nodes": nodes})}
    bench.change_site(clusters=clusters)
    found = row(judge(bench), unknown.validator)

    assert (found.outcome, found.observed) == (INCONCLUSIVE, "a validator the site does not list")


@pytest.mark.parametrize(
    ("change", "observed"),
    [
        (lambda views: {name: {**v, "validators": []} for name, v in views.items()}, "0 without any"),
        (
            lambda views: {**views, "test-2": {**views["test-2"], "validators": views["test-2"]["validators"][1:]}},
            "another one by test-2",
        ),
        (
            lambda views: {name: {} if name != "test-1" else v for name, v in views.items()},
            "1 of 7 nodes answer (test-2 /ui/bft/membership: height: expected a value, got none (and 1 more))",
        ),
    ],
)  # fmt: skip
def test_a_disputed_validator_set_is_inconclusive(bench: Bench, change: Any, observed: str) -> None:
    speak(bench)
    plain = View.membership
    names = [f"test-{number}" for number in range(1, 8)]
    bench.patch.setitem(
        ROUTES,
        "/ui/bft/membership",
        lambda view: change({name: plain(view) for name in names})[view.running.spec.name],
    )
    result = judge(bench)
    found = row(result, "validator set")

    assert (result.outcome, found.outcome, found.observed) == (INCONCLUSIVE, INCONCLUSIVE, observed)
