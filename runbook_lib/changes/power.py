"""Voting power by the chain's formula, and what is left of it while waves are under way.

A validator's power is stake x (round(score x 1000) + 1000) x (min(timetoke hours, cap) + 1); the
quorum is ceil(2/3 of the total) + 1 (the chain's rpp/consensus/node.rs). RPC tells no validator's
power, only the total: the sum must equal it, or nothing is known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..context import Context
from ..errors import SourceError
from ..sources.node import Membership, Validator

TIMETOKE_CAP_HOURS = 720


@dataclass(frozen=True)
class Powers:
    """Voting power by node name; ``total`` and ``quorum`` are the chain's own."""

    of: Mapping[str, int]
    total: int
    quorum: int

    def share(self, nodes: Sequence[str]) -> float:
        """The share of the total that these nodes hold."""
        return sum(self.of.get(node, 0) for node in nodes) / self.total


def power_of(validator: Validator) -> int:
    """One validator's voting power."""
    multiplier = round(validator.reputation_score * 1000) + 1000
    hours = min(validator.timetoke_hours, TIMETOKE_CAP_HOURS)
    return int(validator.stake) * multiplier * (hours + 1)


def quorum_of(total: int) -> int:
    """The power a commit needs: ceil(2/3 of the total) + 1."""
    return -(-2 * total // 3) + 1


def powers(context: Context) -> Powers:
    """The cluster's voting power, node by node. Raises SourceError when it cannot be proven."""
    set_, where = _membership(context)
    nodes = {node.validator: node.name for node in context.cluster.nodes if node.validator}
    of = {nodes.get(v.address, v.address): power_of(v) for v in set_.validators}
    consensus = context.fleet.consensus([where])[where]
    total, quorum = int(consensus.total_power), int(consensus.quorum_threshold)
    if sum(of.values()) != total or quorum != quorum_of(total):
        raise SourceError(
            f"{where} /status/consensus",
            f"expected total power {sum(of.values())} and quorum {quorum_of(sum(of.values()))} by"
            f" the formula, got {total} and {quorum}",
        )
    if total <= 0:
        raise SourceError(where, f"expected voting power, got {total}")
    return Powers(of, total, quorum)


def _membership(context: Context) -> tuple[Membership, str]:
    """The validator set that all nodes agree on, and a node that says so."""
    seen: dict[str, tuple[Membership, str]] = {}
    answers = context.fleet.membership()
    for name, answer in answers.known.items():
        key = repr(sorted((v.address, v.stake, v.tier) for v in answer.validators))
        seen.setdefault(key, (answer, name))
    if len(seen) > 1:
        names = " and ".join(name for _, name in seen.values())
        raise SourceError("/ui/bft/membership", f"expected one validator set, got two: {names}")
    if not seen:
        nobody = SourceError("cluster", "expected nodes, got none")
        raise next(iter(answers.failed.values()), nobody)
    return next(iter(seen.values()))


def cut(nodes: Sequence[str], found: Powers, max_down: float) -> tuple[tuple[str, ...], ...]:
    """``nodes`` in waves, in their order, each taking down at most ``max_down`` of the power.

    Raises SourceError for a node that alone holds more.
    """
    waves: list[list[str]] = []
    for node in nodes:
        if found.share([node]) > max_down:
            raise SourceError(
                node,
                f"expected at most {max_down:.1%} of the voting power in one wave,"
                f" got {found.share([node]):.1%} on this node alone",
            )
        if waves and found.share([*waves[-1], node]) <= max_down:
            waves[-1].append(node)
        else:
            waves.append([node])
    return tuple(tuple(wave) for wave in waves)
