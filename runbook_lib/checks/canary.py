"""The canary stage: its readiness and activation items, in the playbook's order."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product, zip_longest
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import yaml

from .. import playbook
from ..canonical import digest_bytes
from ..changes.power import powers
from ..changes.roll import healthy
from ..changes.targets import artifact, keep
from ..changes.targets import make_plan as plan
from ..context import Context, judges
from ..errors import Answers, SourceError, tried
from ..evidence.events import NodeVerified, StepTaken, of
from ..evidence.incidents import Incidents
from ..evidence.ledger import states
from ..evidence.status import effect
from ..files import keep_file
from ..metrics.catalogue import Catalogue, selected
from ..outcomes import CheckResult, Outcome, Value
from ..plan import differences
from ..playbook import CANARY_POWER_BELOW, NOW_SOURCE_LAG
from ..sources import alertmanager
from ..sources.node import Consensus
from ..sources.prometheus import Rule
from . import gossip, preflight, quiet
from .activation_proof import counted, counters, gated, judge_effect, judge_proof, traffic
from .baselines import data_of, pin_before, read_catalogue
from .epochs import Span, whole_epochs
from .figures import stage_figure
from .quiet import Break, Seen
from .regression import REWARDS
from .rollouts import captured, rollout

if TYPE_CHECKING:
    from ..metrics.plots import Drawn

STAGE, GATE, KEY = "testnet", "testnet.activate.gate", "malachite_consensus"
MASS, TOGETHER = 0.10, timedelta(minutes=10)
"""Unplanned restarts of more than this share of the voting power within ten minutes."""
LASTS = timedelta(minutes=3)
"""What ended so shortly ago may not have ended."""


@judges("canary.ready.epochs-clean")
def epochs_clean(context: Context) -> CheckResult:
    """Whole epochs of mainnet's length since testnet's activation, behind the last break.

    Breaks: a halt, the gate off, an incident, restarts together, a silence on a paging alert, a
    hole in the telemetry. Single restarts are listed. Playbook: canary readiness, 1.
    """
    before = context.earlier_stage
    anchor = effect(context.ledger.events(before.name, NodeVerified), GATE)
    testnet = context.on(STAGE)
    with context.apart() as seen:
        begun, why = _undisturbed(testnet, anchor)
    length, wanted = context.cluster.epoch_length, context.params.clean_epochs
    what, expected = "whole epochs undisturbed", f"at least {wanted} of {length} blocks"
    with context.reading(what, expected):
        whole_epochs(
            testnet, what, begun, lambda found: wanted - len(found), length=length, why=why
        )
    context.findings += seen
    return context.conclude(
        passed=f"{context.findings[0].observed} without an intervention",
        data={"anchor": anchor.isoformat(), "attempt": before.name, "seal": before.seal},
    )


def _undisturbed(testnet: Context, anchor: datetime) -> tuple[datetime, str]:
    """Since when nothing has disturbed testnet, and what did last; a break that is over is listed."""
    now, breaks = testnet.at, list[tuple[Break, str]]()
    over = quiet.window(testnet, anchor, now)
    _gates(testnet)
    looks = (
        quiet.watchdog,
        quiet.telemetry,
        quiet.silences,
        quiet.halts,
        _reversals,
        _restarts,
        _incidents,
    )
    for seen in quiet.look(over, *looks) if now - anchor > LASTS else ():
        for row, each in zip_longest(seen.rows(), seen.breaks):
            ended = each and (each.ended or each.end < now - LASTS)
            said = f"{row.observed}; the count began again"
            update = {"outcome": Outcome.PASS, "observed": said} if ended else {}
            testnet.findings.append(row.model_copy(update=update))
        breaks += [(each, f", after {seen.subject}: {quiet.told(each)}") for each in seen.breaks]
    last, why = max(breaks, key=lambda pair: pair[0].end, default=(None, ""))
    return max(anchor, last.end) if last else anchor, why


def _gates(testnet: Context) -> None:
    """The gate is on now, on every node."""
    nodes = f"{len(testnet.cluster.nodes)} nodes"
    with testnet.reading(KEY, "on", testnet.cluster_name, clean=f"on, {nodes}"):
        for name, answer in testnet.answers(KEY, True, testnet.fleet.rollout()):
            if not answer.feature_gates.get(KEY, False):
                testnet.judge(name, KEY, True, False)


def _reversals(over: quiet.Window) -> Iterator[Seen]:
    """No journal verified the gate off since, and none recovered a node."""
    context = over.context
    found: list[tuple[datetime, str]] = []
    kinds = NodeVerified, StepTaken
    for origin, entries in context.ledger.changes(context.cluster_name, *kinds):
        for node, known in states(entries, origin):
            if not known.state.gates.get(KEY, False):
                found.append((known.at, f"{node} was verified with {KEY} off ({origin})"))
        for step in of(entries, StepTaken):
            if ".recover." in step.item:
                found.append((step.at, f"{step.item}: {step.node} ({origin})"))
    breaks = tuple(Break(at, at, text) for at, text in found if over.start < at <= over.end)
    yield Seen(context.cluster_name, "recoveries and gate reversals", "none", "none", breaks)


def _restarts(over: quiet.Window) -> Iterator[Seen]:
    """No restarts of much power together; single ones are listed."""
    expected, what = f"at most {MASS:.0%} of the power in 10 min", "restarts not planned"
    events = [(node, each) for node, several in quiet.restarts(over).items() for each in several]
    events.sort(key=lambda event: event[1].start)
    found = powers(over.context) if events else None
    breaks, listed = [], []
    for node, event in events:
        assert found is not None
        first = event.start
        near = [pair for pair in events if first <= pair[1].start <= first + TOGETHER]
        names = sorted({name for name, _ in near})
        share = found.share(names)
        if share > MASS:
            text = f"{', '.join(names)} together, {share:.0%} of the power"
            end, ended = max((each.end, each.ended) for _, each in near)
            breaks.append(Break(first, end, text, ended=ended))
        else:
            listed.append(f"{node} ({quiet.told(event)})")
    observed = "; ".join(listed) or "none"
    yield Seen(over.context.cluster_name, what, expected, observed, tuple(breaks))


def _incidents(over: quiet.Window) -> Iterator[Seen]:
    """No incident of this release was open, by the store's incident files."""
    context, what, breaks = over.context, "incidents of this release", []
    incidents = Incidents(context.store, context.scope)
    for each in incidents.ids:
        incident = incidents.load(each)
        opened, closed = incident.opened, incident.closed
        ended = closed.at if closed else over.end
        mine = opened.release == context.params.release
        if mine and ended > over.start and opened.at < over.end:
            text = incident.id + ("" if closed else " is open")
            breaks.append(Break(opened.at, ended, text, ended=closed is not None))
    yield Seen(context.cluster_name, what, "none", "none", tuple(breaks))


@judges("canary.ready.candidate-installed")
def candidate_installed(context: Context) -> CheckResult:
    """Per canary: the digest of its binary is the release's, and the strict dry run of its TOML passes.

    The canaries' operators install it; this only looks. Playbook: canary, readiness, 2.
    """
    wanted = artifact(context).binary
    canaries = [node.name for node in context.cluster.nodes if node.canary]
    for name in canaries:
        with context.reading("binary", wanted, name):
            build = context.commands.version(name)
            context.judge(name, "binary", wanted, build.digest, waivable=False)
        _dry(context, name)
    return context.conclude(
        passed=f"{len(canaries)} canaries run {wanted} on valid configurations",
        empty=f"no node of {context.cluster_name} is a canary; mark them `canary: true` in the site",
        data={"canaries": canaries, "digest": wanted},
    )


def _dry(context: Context, name: str) -> None:
    """The chain's verdict on what lies on the node's disk: what its next start would read."""
    with context.finding(name, "dry run of its configuration", "valid") as judge:
        config = context.commands.read_config(name)
        file = keep(context, f"candidate-{name}", "candidates", config)
        verdict = context.commands.dry_run(file)
        judge("valid" if verdict.ok else verdict.text[:300], verdict.ok)


# --- canary.activate.observe: rewards reach the canaries alone, and they go on voting ---
#
# Per epoch from the metrics store, so that nothing is lost when a kernel dies: the last stage of the
# chain's pipeline counts rewards on each node, its vote latencies count votes. Balances, hashes and
# slashing have no past: they are read now, and held to what was recorded before the gate was turned.

TIMETOKE = "timetoke_rewards"
VOTES_OF_MEDIAN = 0.9
"""A canary votes as often as the others: at least this share of the median validator's votes."""
LOOKS = 3


@judges("canary.activate.observe")
def observe(context: Context) -> CheckResult:
    """At least three whole epochs since the last canary took the gate, by the journal.

    The window is the first of them, whenever it is judged. Until it is over, what is over already
    is judged. Playbook: canary, activation, 2.
    """
    assert context.plan is not None
    before = captured(context.journal, REWARDS)
    if before is None:
        raise SourceError(REWARDS, "expected balances recorded before the change, got none")
    since, wanted = effect(context.journal, REWARDS), context.params.observe_epochs
    what = "rewards and votes observed"
    window = whole_epochs(context, what, since, lambda seen: wanted - len(seen))[:wanted]
    observed = [window[0].start.isoformat(), window[-1].end.isoformat()] if window else []
    on, beside, off = gated(context.plan, REWARDS, TIMETOKE)
    if not on:
        context.unknown("canaries", "nodes with the gate on", "at least one", "none by the plan")
    if window:
        judge_effect(context, TIMETOKE, on, off, window)
        votes(context, on, window)
    credited(context, before, on, beside, off, due=bool(window))
    agreement(context, int(before["slashing"]))
    context.findings += healthy(context, [node.name for node in context.cluster.nodes])
    return context.conclude(
        passed=f"{wanted} whole epochs: {len(on)} canaries rewarded and voting, nobody else rewarded",
        data={"since": since.isoformat(), "window": observed},
    )


def votes(context: Context, canaries: Sequence[str], spans: Sequence[Span]) -> None:
    """Each canary's votes in each epoch beside the median of the other validators'.

    Nodes that do not vote are no measure, nor are canaries of each other; when less than half of
    the others are known, nothing is. Raises SourceError.
    """
    latency = next(name for name in counters(context, "consensus_latency") if "vote" in name)
    seen = traffic(context, [latency], "validator", spans[0].start, spans[-1].end)
    addresses = {node.name: node.validator for node in context.cluster.nodes}
    allowed = context.params.max_missing
    for span in spans:
        counts = {name: counted(seen, at, span, allowed) for name, at in addresses.items()}
        others = [counts[n] for n, address in addresses.items() if address and n not in canaries]
        known = [each.amount for each in others if each.covered]
        usual = median(known) if known and 2 * len(known) >= len(others) else 0.0
        least = round(VOTES_OF_MEDIAN * usual, 1)
        expected = f"at least {least:g}, {VOTES_OF_MEDIAN:.0%} of the median validator's"
        for name in canaries:
            with context.finding(name, f"votes, {span.name}", expected) as judge:
                own = counts[name]
                if not usual > 0:
                    got = f"votes are counted of {len(known)} of {len(others)} other validators"
                    judge(got, Outcome.INCONCLUSIVE)
                elif not own.covered:
                    judge("too many points missing", Outcome.INCONCLUSIVE)
                else:
                    judge(own.amount, own.amount >= least)


def agreement(context: Context, slashed: int) -> None:
    """Every node has the block that the others have at its height, and nobody new was slashed.

    Nodes are asked up to three times until each was seen at the same height as another.
    """
    compared, split = set[str](), dict[str, tuple[str, str, str]]()
    nodes = [node.name for node in context.cluster.nodes]
    for look in range(LOOKS):
        if look:
            context.scope.sleep(context.cluster.block_time_ms / 3000)
        answers = context.fleet.consensus()
        split, alike = _hashes(answers)
        compared |= alike
        if split or compared == set(nodes):
            break
    seen = (compared | set(split)) - set(answers.failed)
    all_alike = f"{len(nodes)} nodes alike"
    with context.reading("block at a height", "the same hash", "nodes", clean=all_alike):
        for name, (what, usual, own) in split.items():
            context.judge(name, what, usual, own, ok=False)
        what, others = "its block", "the others'"
        for name, answer in context.answers(what, others, answers):
            if name not in seen:
                context.unknown(name, what, others, f"nobody else at height {answer.height}")
    _slashing(context, answers, slashed)


def _hashes(answers: Answers[str, Consensus]) -> tuple[dict[str, tuple[str, str, str]], set[str]]:
    """Nodes whose block is not the one most have (at which height, theirs, its own); nodes alike."""
    at: dict[int, dict[str, list[str]]] = {}
    for name, answer in answers.known.items():
        at.setdefault(answer.height, {}).setdefault(answer.block_hash, []).append(name)
    split, alike = dict[str, tuple[str, str, str]](), set[str]()
    for height, blocks in at.items():
        (most, usual), *others = sorted(blocks.items(), key=lambda item: -len(item[1]))
        if len(usual) > 1:
            alike |= set(usual)
        split |= {n: (f"block {height}", most, own) for own, names in others for n in names}
    return split, alike


def _slashing(context: Context, answers: Answers[str, Consensus], before: int) -> None:
    known = [answer.slashing_events for answer in answers.known.values()]
    seen, what = max(known, default=-1), "slashing events"
    got = f"{seen}: the count went back" if known else "no node answers"
    outcome = seen == before if seen >= before else Outcome.INCONCLUSIVE
    expected = f"{before}, as before the change"
    context.judge("slashing", what, expected, got if seen < before else seen, outcome)


# --- What the ledger credited ---
#
# Per block the base reward is 5, and the leader's bonus 20 % of it, rounded up (the chain's
# rpp/runtime/node.rs). Whoever shares it and by which weights (leader 0.6, witnesses 0.3): no account,
# and no two together, can be credited more than both for every block.

BASE_REWARD = 5
LEADER_BONUS = math.ceil(BASE_REWARD * 0.2)
PER_BLOCK = BASE_REWARD + LEADER_BONUS
CREDITED = "credited since before the change"


def balances(context: Context) -> dict[str, Any]:
    """Height, slashing events and every validator's balance, as of now, to be kept.

    The height is read first, so that no block between is missed in a bound.
    """
    consensus, accounts = context.fleet.consensus(), context.fleet.accounts()
    what, amounts = "balance before the change", dict[str, str]()
    for name, account in context.answers(what, "an amount", accounts):
        amounts[name] = str(account.balance)
        context.judge(name, what, "any", amounts[name], ok=True)
    what = "height before the change"
    known = [one for _, one in context.answers(what, "an answer", consensus)]
    return {
        "balances": amounts,
        "height": min((answer.height for answer in known), default=0),
        "slashing": max((answer.slashing_events for answer in known), default=0),
    }


def credited(
    context: Context, before: dict[str, Any], on: list[str], beside: list[str], off: list[str],
    *, due: bool,
) -> None:  # fmt: skip
    """What each validator was credited since ``before``: ``on`` some (once ``due``), ``off`` none.

    All that may be rewarded, ``beside`` too, are held to the formula together. A balance that fell
    was spent from: what it was credited cannot be known.
    """
    now = context.fleet.accounts()
    heights = [found.height for found in context.fleet.status().known.values()]
    if not heights:
        context.unknown("ledger", "height", "an answer", "no node answers")
        return
    blocks = max(heights) - int(before["height"])
    most, gains = blocks * PER_BLOCK, dict[str, int]()
    for name, account in context.answers(CREDITED, "an amount", now):
        if name not in before["balances"]:
            context.unknown(name, CREDITED, "a balance before", "none was recorded")
            continue
        gains[name] = account.balance - int(before["balances"][name])
        wanted = due and name in on
        _gain(context, name, gains[name], most, blocks, off=name in off, wanted=wanted)
    together = sum(max(gains.get(name, 0), 0) for name in (*on, *beside))
    expected, what = f"at most {most} for {blocks} blocks", "credited to all that may be"
    context.judge("rewards", what, expected, str(together), together <= most)


def _gain(
    context: Context, name: str, gain: int, most: int, blocks: int, *, off: bool, wanted: bool
) -> None:
    expected = "0: its gate is off" if off else f"above 0, at most {most} for {blocks} blocks"
    if gain < 0:
        problem = f"{-gain} less than before: credits cannot be told from what was spent"
        context.unknown(name, CREDITED, expected, problem)
    elif off or not gain == 0 <= most:
        context.judge(name, CREDITED, expected, str(gain), gain <= (0 if off else most))
    elif wanted:
        context.unknown(name, CREDITED, expected, "0: no effect")


def metrics_figure(context: Context) -> Drawn:
    """The observed epochs beside what was before the rewards gate. Raises SourceError."""
    told = data_of(context.journal, observe.item)
    if not told or not told[-1].get("window"):
        raise SourceError(observe.item, "expected epochs that were observed, got none")
    start, end = map(datetime.fromisoformat, told[-1]["window"])
    return stage_figure(context, CLIENTS, (start, end), *TOPICS, *gossip.TOPICS, change=REWARDS)


__all__ = ["plan"]

CLIENTS = "canary.activate.witness-clients"


def _clients_on(context: Context) -> None:
    others_unchanged(context)
    if context.holds:
        at = effect(context.so_far, CLIENTS)
        judge_proof(context, CLIENTS, "witness_network", at)


def others_unchanged(context: Context) -> None:
    """Every node that the plan does not touch has the gates and the channel that it had."""
    assert context.plan is not None
    expected, what = context.plan.untouched, "stays as it is"
    answers = context.fleet.rollout(list(expected))
    for name, answer in context.answers(what, "an answer", answers):
        was: dict[str, str | bool] = {"channel": expected[name].channel, **expected[name].gates}
        now: dict[str, str | bool] = {"channel": answer.release_channel, **answer.feature_gates}
        moved = [f"{k}={str(now.get(k, 'absent')).lower()}" for k, _, _ in differences(was, now)]
        same = "as before"
        context.judge(name, "gates, untouched", same, ", ".join(moved) or same)


def canary_selection(context: Context) -> None:
    """The canaries stay under a third of the voting power, and there is at least one."""
    names = [node.name for node in context.cluster.nodes if node.canary]
    what, expected = "share of the voting power", f"above 0, under {CANARY_POWER_BELOW:.1%}"
    with context.reading(what, expected):
        share = powers(context).share(names)
        got = f"{share:.1%} ({', '.join(names)})"
        context.judge("canaries", what, expected, got, 0 < share < CANARY_POWER_BELOW)


rewards_gate = rollout(
    REWARDS,
    "{nodes} have timetoke_rewards on, and no other node",
    before=canary_selection,
    after=others_unchanged,
    capture=lambda context: {**pin_before(context), **balances(context)},
)
witness_clients = rollout(
    CLIENTS,
    "relays are stable; {nodes} have witness_network on, with traffic",
    before=gossip.relays,
    after=_clients_on,
)


def expectations(context: Context) -> list[tuple[str, str, Value]]:
    """(item, what must hold, threshold) of this stage, before any data is read."""
    below = f"under {playbook.CANARY_POWER_BELOW:.1%} of the power"
    clean = f"at least {context.params.clean_epochs} of {context.cluster.epoch_length} blocks"
    epochs = f"{context.params.observe_epochs} whole epochs"
    votes = f"{VOTES_OF_MEDIAN:.0%} of the median's votes"
    return [
        *preflight.expectations(context),
        (epochs_clean.item, "testnet finalized whole epochs undisturbed", clean),
        (candidate_installed.item, "every canary runs the candidate on a valid configuration", "0 unknown keys"),
        (alerts_active.item, *expected(context)),
        (REWARDS, "rewards are on for the canaries, no other node gains them", below),
        (observe.item, "canaries alone are rewarded, vote, and nobody is slashed", f"{epochs}, {votes}"),
        (CLIENTS, "relays proven stable, then witness traffic on the canaries", epochs),
    ]  # fmt: skip


# --- canary.ready.alerts-active: rewards that stop and witness gossip that falls silent page ---

TOPICS = {"reward_distribution": "reward distribution", "witness_gossip": "witness gossip"}
SHIPPED = "params/rules/rollout.yaml"
STOPS, VANISHES = "stops", "vanishes"
_AFTER = {STOPS: "1080x120", VANISHES: "stale"}
"""What becomes of a counter that has reached 1080: it stands still, or its series ends."""
NODES = 3
QUIET_AT, FIRES_AT = "2h30m", "4h30m"
Labels = Mapping[str, str]


def expected(context: Context) -> tuple[str, Value]:
    """What must hold, and its threshold."""
    return "alerts of each topic are loaded, healthy and would fire", " and ".join(TOPICS.values())


@dataclass(frozen=True)
class Loaded:
    """An alert that is loaded, with the series that make it one of a topic."""

    rule: Rule
    series: list[Labels]

    @property
    def name(self) -> str:
        return f"{self.rule.name} ({self.rule.labels.get('severity', 'no severity')})"


@judges("canary.ready.alerts-active")
def alerts_active(context: Context) -> CheckResult:
    """Per topic: a healthy paging alert that fires when traffic stops, and a guard for its series.

    "Would fire" is shown, not assumed: promtool runs each alert, as it is loaded, over series that
    are at work and then stop, or vanish (both exist only once their gate is on, so that an alert on
    values alone would be silent then). Whether what fires reaches a receiver is
    preflight.observability's to say. Playbook: canary, readiness, 3.
    """
    context.require_now("alert rules")
    catalogue = read_catalogue(context)
    rules = [rule for rule in context.prometheus.rules() if rule.kind == "alerting"]
    for topic in TOPICS:
        _topic(context, topic, catalogue, rules)
    return context.conclude(
        passed="reward distribution and witness gossip have paging alerts that fire, and guards"
    )


def _topic(context: Context, topic: str, catalogue: Catalogue, rules: Iterable[Rule]) -> None:
    subject, wanted = TOPICS[topic], _selectors(catalogue, topic)
    loaded = [
        Loaded(rule, series)
        for rule in rules
        if (series := about(rule.query, wanted, context.matchers))
    ]
    if not loaded:
        names = ", ".join(dict.fromkeys(str(selector) for selector in wanted))
        problem = f"none asks for {names}; load {SHIPPED} into Prometheus"
        context.unknown(subject, "alerts", "one loaded", problem)
    healthy = [each for each in loaded if _healthy(context, subject, each)]
    pages = {*context.params.paging_severities, *context.site.telemetry.paging_severities}
    paging = [each for each in healthy if each.rule.labels.get("severity") in pages]
    others = [each for each in healthy if each not in paging]
    if healthy and not paging:
        severities = " or ".join(sorted(pages))
        found = ", ".join(each.name for each in healthy)
        context.judge(subject, "alert that pages", severities, found, ok=False)
    elif loaded:
        _prove(context, subject, STOPS, paging)
    if loaded:
        _prove(context, subject, VANISHES, [*paging, *others])


def _selectors(catalogue: Catalogue, topic: str) -> list[Any]:
    candidates = [query for metric in catalogue.of_topic(topic) for query in metric.queries]
    return [selector for query in candidates for selector in selected(query)]


def _healthy(context: Context, subject: str, loaded: Loaded) -> bool:
    """Whether Prometheus evaluates the alert, and did so lately."""
    rule = loaded.rule
    with context.finding(subject, f"{loaded.name} evaluated", "without error, lately") as judge:
        if rule.health == "err":
            return judge(rule.last_error[:300] or "an error", ok=False)
        if not rule.is_evaluated:
            return judge("never yet", Outcome.INCONCLUSIVE)
        if (age := context.now - rule.last_evaluation) > NOW_SOURCE_LAG:
            return judge(f"{age.total_seconds():.0f} s ago", Outcome.INCONCLUSIVE)
        return judge("healthy", ok=True)
    return False


def _prove(context: Context, subject: str, scenario: str, candidates: list[Loaded]) -> None:
    """The first alert that promtool shows to fire when the topic's series stop, or vanish."""
    what = f"alert when it {scenario}" + (" (absent guard)" if scenario == VANISHES else "")
    failed, unproven = list[str](), [] if candidates else ["no healthy alert to test"]
    with context.finding(subject, what, "quiet before, then firing") as judge:
        for loaded in candidates:
            written = _written(context, loaded, scenario)
            verdict = tried(context.commands.test_rules, written)
            if isinstance(verdict, SourceError):
                unproven.append(f"{loaded.name}: {verdict.problem}")
            elif verdict.ok:
                judge(f"{loaded.name} fires", ok=True)
                return
            else:
                early = f"time: {QUIET_AT}" in verdict.text
                failed.append(f"{loaded.name} {'fires before' if early else 'does not fire'}")
        outcome = Outcome.INCONCLUSIVE if unproven else Outcome.FAIL
        judge("; ".join(unproven or failed)[:300], outcome)


def _written(context: Context, loaded: Loaded, scenario: str) -> Path:
    """The alert's test in the attempt, named by its digest, so that a replay asks the same."""
    node_label = context.site.telemetry.node_label
    rules, tests = unit_test(loaded.rule, loaded.series, scenario, node_label)
    name = digest_bytes(rules + tests).removeprefix("sha256:")[:16]
    keep_file(context.folder, f"alerts/{name}.rules.yaml", rules)
    tests = tests.replace(b"{rules}", f"{name}.rules.yaml".encode())
    return keep_file(context.folder, f"alerts/{name}.test.yaml", tests)


# --- which alerts are about a topic, and a test that shows whether one fires ---------------------


def about(query: str, wanted: Iterable[Any], cluster: Labels) -> list[Labels]:
    """Label sets, ``__name__`` included, of series that an alert and a topic have in common.

    An alert is about a topic when it selects a series that one of the topic's selectors, ``wanted``,
    selects too, and narrows it at least as that one does; ``cluster`` has the labels that pick the
    cluster. Of another topic or cluster, or of an expression that does not parse: none.
    """
    found: list[Labels] = []
    for selector, topic in product(selected(query), wanted):
        own, theirs = selector.matchers.matchers, topic.matchers.matchers
        if selector.name == topic.name and {m.name for m in theirs} <= {m.name for m in own}:
            labels = _series([*own, *theirs], cluster)
            if labels is not None and (made := {"__name__": selector.name, **labels}) not in found:
                found.append(made)
    return found


def _series(own: Sequence[Any], cluster: Labels) -> Labels | None:
    """Labels that all matchers accept; None where there are none, or none that is easily found."""
    labels = dict(cluster)
    for name in dict.fromkeys(each.name for each in own):
        these = [each for each in own if each.name == name]
        named = [v for m in these for v in _literals(m)]
        candidates = [cluster[name]] if name in cluster else [*named, "x"]
        value = next((v for v in candidates if all(_accepts(m, v) for m in these)), None)
        if value is None:
            return None
        labels[name] = value
    return labels


def _literals(matcher: Any) -> list[str]:
    """Values that a positive matcher names, or that its simple pattern suggests."""
    if _operator(matcher) == "Equal":
        return [matcher.value]
    parts = matcher.value.split("|") if _operator(matcher) == "Re" else []
    return [re.sub(r"\.[*+]", "x", part) for part in parts]


def _accepts(matcher: Any, value: str) -> bool:
    operator, name = _operator(matcher), matcher.name
    regex, equal = operator.endswith("Re"), not operator.startswith("Not")
    about = {"name": name, "value": matcher.value, "isRegex": regex, "isEqual": equal}
    own = alertmanager.Matcher.model_validate(about)
    # Of a pattern that is not understood nothing is known, nor of what it excludes.
    return alertmanager.matched([own], {name: [value]}) is True


def _operator(matcher: Any) -> str:
    return str(matcher.op).rpartition(".")[2]


def unit_test(
    rule: Rule, series: Sequence[Labels], scenario: str, node_label: str
) -> tuple[bytes, bytes]:
    """(rule file, unit tests) for promtool, the rule as it is loaded; the tests name ``{rules}``.

    They hold when the alert is quiet while ``series`` go on, and fires once each of them has
    stopped or vanished. Whatever else the alert asks for goes on all the time.
    """
    inputs: dict[str, str] = {}
    names = {labels["__name__"] for labels in series}
    beside = [s for s in selected(rule.query) if s.name and s.name not in names]
    for number in range(1, NODES + 1):
        node = {node_label: f"node-{number}"}
        for labels in series:
            inputs[_name({**node, **labels})] = f"_x60 0+12x90 {_AFTER[scenario]}"
        for other in beside:
            labels = _series(other.matchers.matchers, {}) or {}
            steady = "1x270" if other.name == "up" else "0+12x270"
            inputs[_name({**node, **labels, "__name__": other.name})] = steady
    fired = 'ALERTS{alertname="Subject",alertstate="firing"}'
    quiet = {"expr": f"count(count_over_time({fired}[80m]))", "eval_time": QUIET_AT}
    fires = {"expr": f"count(count_over_time({fired}[118m])) > bool 0", "eval_time": FIRES_AT}
    test = {
        "interval": "1m",
        "input_series": [{"series": s, "values": v} for s, v in inputs.items()],
        "promql_expr_test": [
            {**quiet, "exp_samples": []},
            {**fires, "exp_samples": [{"labels": "{}", "value": 1}]},
        ],
    }
    loaded = {
        "alert": "Subject",
        "expr": rule.query,
        "for": f"{round(rule.duration_s * 1000)}ms",
        "labels": {name: text for name, text in rule.labels.items() if name != "alertname"},
    }
    rules = {"groups": [{"name": "subject", "interval": "1m", "rules": [loaded]}]}
    tests = {"rule_files": ["{rules}"], "evaluation_interval": "1m", "tests": [test]}
    return _yaml(rules), _yaml(tests)


def _name(labels: Labels) -> str:
    """A series as promtool's input names it."""
    inner = ",".join(f"{k}={json.dumps(v)}" for k, v in labels.items() if k != "__name__")
    return f"{labels['__name__']}{{{inner}}}"


def _yaml(document: Mapping[str, Any]) -> bytes:
    return yaml.safe_dump(document, sort_keys=False, width=1000).encode()
