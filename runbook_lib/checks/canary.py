"""The canary stage: its readiness and activation items, in the playbook's order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from .. import playbook
from ..changes.apply import all_pass
from ..changes.phases import make_plan as plan
from ..changes.power import powers
from ..changes.state import journals, states
from ..changes.targets import artifact, keep
from ..context import Context, judges
from ..errors import RecordDamaged, SourceError
from ..evidence.incidents import FOLDER, SUFFIX, parse_incident
from ..evidence.order import effect, entries_of
from ..outcomes import CheckResult, Outcome, Row, Value, check_row, unknown_row
from ..wording import count, utc
from . import alerts, preflight, quiet
from .alerts import alerts_active
from .baselines import pin_before
from .observe import REWARDS, VOTES_OF_MEDIAN, balances, observe, proven
from .quiet import Break, Seen
from .regression import canary_comparison as comparison
from .rollouts import canary_selection, others_unchanged, rollout

STAGE, GATE, KEY = "testnet", "testnet.activate.gate", "malachite_consensus"
MASS, TOGETHER = 0.10, timedelta(minutes=10)
"""Unplanned restarts of more than this share of the voting power within ten minutes."""
LASTS = timedelta(minutes=3)
"""What ended so shortly ago may not have ended."""


def epochs_expected(context: Context) -> tuple[str, Value]:
    """What must hold, and its threshold."""
    blocks = context.cluster.epoch_length
    epochs = context.params.clean_epochs
    return "testnet finalized whole epochs undisturbed", f"at least {epochs} of {blocks} blocks"


@judges("canary.ready.epochs-clean")
def epochs_clean(context: Context) -> CheckResult:
    """Whole epochs of mainnet's length since testnet's activation, behind the last break.

    Breaks: a halt, the gate off, an incident, restarts together, a silence on a paging alert, a
    hole in the telemetry. Single restarts are listed. Playbook: canary readiness, 1.
    """
    before = context.earlier_stage
    anchor = effect(entries_of(context.scope, context.store, before), GATE)
    rows = _judged(context, anchor)
    return context.conclude(
        rows,
        passed=f"{rows[0].observed} without an intervention",
        empty="nothing to judge",
        data={"anchor": anchor.isoformat(), "attempt": before.name, "manifest": before.manifest},
    )


def _judged(context: Context, anchor: datetime) -> list[Row]:
    """The count first, then what was looked at."""
    testnet, now = context.on(STAGE), context.at
    over = quiet.window(testnet, anchor, now)
    rows = _gates(testnet)
    found: list[Seen] = []
    if now - anchor > LASTS:
        looks = (quiet.coverage, quiet.silences, quiet.halts, _reversals, _restarts)
        found = quiet.look(over, *looks, _incidents)
    for seen in found:
        rows += _rows(seen, now)
    breaks = [(seen, each) for seen in found for each in seen.breaks]
    last = max(breaks, key=lambda pair: pair[1].end, default=None)
    begun = max(anchor, last[1].end) if last else anchor
    why = f", after {last[0].subject}: {quiet.told(last[1])}" if last else ""
    return [_count(context, testnet, anchor, begun, why), *rows]


def _rows(seen: Seen, now: datetime) -> list[Row]:
    """A break that is over is listed: the count began again behind it."""
    if not seen.known or not seen.breaks:
        return seen.rows()
    rows = []
    for each, row in zip(seen.breaks, seen.rows(), strict=True):
        over = each.ended or each.end < now - LASTS
        said = f"{row.observed}; the count began again"
        update = {"outcome": Outcome.PASS, "observed": said} if over else {}
        rows.append(row.model_copy(update=update))
    return rows


def _count(context: Context, testnet: Context, anchor: datetime, begun: datetime, why: str) -> Row:
    """Whether enough whole epochs are clean, or when they will be."""
    length, wanted = context.cluster.epoch_length, context.params.clean_epochs
    what, expected = "whole epochs undisturbed", f"at least {wanted} of {length} blocks"
    try:
        clean, due = quiet.whole_epochs(
            testnet,
            anchor,
            lambda seen: wanted - len(seen),
            until=context.at,
            begun=begun,
            length=length,
        )
    except SourceError as error:
        return testnet.unreadable(what, expected, error)
    got = f"{count(len(clean), 'whole epoch')} since {utc(begun)}{why}"
    outcome = Outcome.INCONCLUSIVE if due else Outcome.PASS
    return check_row(testnet.cluster_name, what, expected, got, outcome, return_at=due)


def _gates(testnet: Context) -> list[Row]:
    """The gate is on now, on every node."""
    rows = []
    for name, answer in testnet.fleet.rollout().items():
        if isinstance(answer, SourceError):
            rows.append(unknown_row(name, KEY, True, answer.problem))
        elif not answer.feature_gates.get(KEY, False):
            rows.append(check_row(name, KEY, True, False, ok=False))
    nodes = len(testnet.cluster.nodes)
    return rows or [check_row(testnet.cluster_name, KEY, "on", f"on, {nodes} nodes", ok=True)]


def _reversals(over: quiet.Window) -> Iterator[Seen]:
    """No journal verified the gate off since, and none recovered a node."""
    context = over.context
    found: list[tuple[datetime, str]] = []
    for origin, entries in journals(context.scope, context.store, context.cluster_name):
        for node, known in states(entries, origin):
            if not known.state.gates.get(KEY, False):
                found.append((known.at, f"{node} was verified with {KEY} off ({origin})"))
        for body in (entry.body for entry in entries if entry.kind == "step"):
            if ".recover." in body["item"]:
                at = datetime.fromisoformat(body["at"])
                found.append((at, f"{body['item']}: {body['node']} ({origin})"))
    breaks = tuple(
        Break(at, at, text, proven=True, ended=True)
        for at, text in found
        if over.start < at <= over.end
    )
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
            breaks.append(Break(first, end, text, proven=True, ended=ended))
        else:
            listed.append(f"{node} ({quiet.told(event)})")
    observed = "; ".join(listed) or "none"
    yield Seen(over.context.cluster_name, what, expected, observed, tuple(breaks))


def _incidents(over: quiet.Window) -> Iterator[Seen]:
    """No incident of this release was open, by the store's incident files."""
    context = over.context
    folder, what = context.store.root / FOLDER, "incidents of this release"
    breaks = []
    for name in context.scope.listing(folder):
        if not name.endswith(SUFFIX):
            continue
        try:
            incident = parse_incident(context.scope.read(folder / name), name)
        except RecordDamaged as error:
            raise SourceError(f"{FOLDER}/{name}", str(error).partition(": ")[2]) from error
        opened, closed = incident.when("opened"), incident.when("closed")
        assert opened is not None
        ended = closed or over.end
        if incident.release == context.params.release and ended > over.start and opened < over.end:
            text = incident.id + ("" if closed else " is open")
            breaks.append(Break(opened, ended, text, proven=True, ended=closed is not None))
    yield Seen(context.cluster_name, what, "none", "none", tuple(breaks))


def candidate_expected(context: Context) -> tuple[str, Value]:
    """What must hold, and its threshold."""
    return "every canary runs the candidate on a valid configuration", "0 unknown keys"


@judges("canary.ready.candidate-installed")
def candidate_installed(context: Context) -> CheckResult:
    """Per canary: the digest of its binary is the release's, and the strict dry run of its TOML passes.

    The canaries' operators install it; this only looks. Playbook: canary, readiness, 2.
    """
    wanted = artifact(context).binary
    canaries = [node.name for node in context.cluster.nodes if node.canary]
    rows = [
        row for name in canaries for row in (_build(context, name, wanted), _dry(context, name))
    ]
    return context.conclude(
        rows,
        passed=f"{len(canaries)} canaries run {wanted} on valid configurations",
        empty=f"no node of {context.cluster_name} is a canary; mark them `canary: true` in the site",
        data={"canaries": canaries, "digest": wanted},
    )


def _build(context: Context, name: str, wanted: str) -> Row:
    try:
        build = context.commands.version(name)
    except SourceError as error:
        return unknown_row(name, "binary", wanted, error.problem)
    same = build.digest == wanted
    return check_row(name, "binary", wanted, build.digest, ok=same, waivable=False)


def _dry(context: Context, name: str) -> Row:
    """The chain's verdict on what lies on the node's disk: what its next start would read."""
    what, valid = "dry run of its configuration", "valid"
    try:
        config = context.commands.read_config(name)
        raw = config.raw if config.secret else None
        file = keep(context, f"candidate-{name}", "candidates", config.text, raw)
        verdict = context.commands.dry_run(file)
    except SourceError as error:
        return unknown_row(name, what, valid, error.problem)
    return check_row(name, what, valid, valid if verdict.ok else verdict.text[:300], ok=verdict.ok)


__all__ = [
    "alerts_active",
    "candidate_installed",
    "comparison",
    "epochs_clean",
    "expectations",
    "observe",
    "plan",
    "rewards_gate",
    "witness_clients",
]

CLIENTS = "canary.activate.witness-clients"


def _before_rewards(context: Context) -> tuple[list[Row], Mapping[str, Any]]:
    rows, pinned = pin_before(context)
    more, recorded = balances(context)
    return [*rows, *more], {**pinned, **recorded}


def _clients_on(context: Context) -> list[Row]:
    rows = others_unchanged(context)
    if rows and not all_pass(rows):
        return rows
    at = effect(context.so_far, CLIENTS)
    return rows + proven(context, CLIENTS, "witness_network", at)


rewards_gate = rollout(
    REWARDS,
    "{nodes} have timetoke_rewards on, and no other node",
    before=canary_selection,
    after=others_unchanged,
    capture=_before_rewards,
)
witness_clients = rollout(
    CLIENTS,
    "relays are stable; {nodes} have witness_network on, with traffic",
    before=quiet.relays,
    after=_clients_on,
)


def expectations(context: Context) -> list[tuple[str, str, Value]]:
    """(item, what must hold, threshold) of this stage, before any data is read."""
    below = f"under {playbook.CANARY_POWER_BELOW:.1%} of the power"
    epochs = f"{context.params.observe_epochs} whole epochs"
    votes = f"{VOTES_OF_MEDIAN:.0%} of the median's votes"
    return [
        *preflight.expectations(context),
        (epochs_clean.item, *epochs_expected(context)),
        (candidate_installed.item, *candidate_expected(context)),
        (alerts_active.item, *alerts.expected(context)),
        (REWARDS, "rewards are on for the canaries, no other node gains them", below),
        (observe.item, "canaries alone are rewarded, vote, and nobody is slashed", f"{epochs}, {votes}"),
        (CLIENTS, "relays proven stable, then witness traffic on the canaries", epochs),
    ]  # fmt: skip
