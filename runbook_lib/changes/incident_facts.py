"""What an incident is told with: gates of the nodes and figures, as cells of Markdown tables.

What others wrote is shown as just that; what could not be read is listed, never left out. What ran
and when stands in the attempt's record, which the incident names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from string import Template

from ..context import Context
from ..errors import ParameterError, RecordDamaged, SourceError
from ..evidence.comment import LIMIT, code, plain
from ..evidence.record import Entry, recorded
from ..outcomes import value_text
from ..playbook import GATE_STEPS
from ..strict import project_path
from ..wording import count, utc
from .state import states

ROWS = (300, 100, 30, 10)
"""Rows of a table, fewer until the whole fits."""
NOTHING = "nothing said"
CHARS = 300
TOPICS = ("consensus_latency", "block_production", "finality_lag", "proof_latency",
          "proof_queue_depth", "vrf_participation", "network_churn")  # fmt: skip
GATES = tuple(dict.fromkeys(gate for steps in GATE_STEPS.values() for gate in steps))


@dataclass
class Facts:
    """Tables of an incident, their cells Markdown; ``missing`` names what could not be read."""

    nodes: list[tuple[str, ...]] = field(default_factory=list)
    figures: list[tuple[str, ...]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)

    def miss(self, what: str, why: str) -> None:
        self.missing.append((what, why))

    def tables(self, limit: int) -> dict[str, str]:
        """Markdown of each, of at most ``limit`` rows."""
        gates = ("node", "run by", *(f"`{gate}`" for gate in GATES), "channel", "seen")
        figures = ("metric", "when the apply began", "now")
        missing = [f"{plain(what, 80)}: {plain(why, CHARS)}" for what, why in self.missing[:limit]]
        if (cut := len(self.missing) - limit) > 0:
            missing.append(f"and {cut} more; see the record")
        return {
            "gates": _table(gates, self.nodes, limit),
            "figures": _table(figures, self.figures, limit, right=2),
            "missing": _bullets(missing) or "nothing: all of it was read",
        }


def render(
    context: Context, template: str, values: dict[str, str], facts: Facts | None = None
) -> str:
    """The template of that name, filled. Raises SourceError for one that cannot be.

    ``values`` are Markdown already; tables are cut until a forge takes the whole.
    """
    path, known = project_path(f"params/templates/{template}"), values
    try:
        made = Template(context.scope.read(path).decode())
        for limit in ROWS:
            known = values | (facts.tables(limit) if facts is not None else {})
            text = made.substitute(known).strip() + "\n"
            if len(text.encode("utf-16-le")) // 2 <= LIMIT - 200:
                return text
    except (KeyError, ValueError) as error:
        names = ", ".join(f"${name}" for name in sorted(known))
        raise SourceError(f"template {template}", f"expected {names}, got {error!r}") from error
    raise SourceError(f"template {template}", f"expected at most {LIMIT} characters, got more")


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], limit: int, *, right: int = 0
) -> str:
    """A Markdown table, its last ``right`` columns to the right; of no rows, that there are none."""
    if not rows:
        return "none"
    marks = [":--"] * (len(columns) - right) + ["--:"] * right
    lines = [f"| {' | '.join(row)} |" for row in (columns, marks, *rows[:limit])]
    if len(rows) > limit:
        lines += ["", f"{count(len(rows) - limit, 'more row')}; see the record"]
    return "\n".join(lines)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def said(texts: Sequence[str]) -> str:
    """What a person wrote, a bullet each."""
    return _bullets([one_line(text) for text in texts if text.strip()]) or NOTHING


def one_line(text: str) -> str:
    """What a person wrote, as just that."""
    return plain(" ".join(text.split()), 2000)


def collect(context: Context) -> Facts:
    """Everything that can be read now. Raises nothing but what a replay lacks."""
    facts = Facts()
    undoes = context.journal[0].body.get("undoes")
    forward = _record(context, str(undoes["name"]), facts) if undoes else []
    # What this very item did before is in its own issue, not in its own words.
    mine = [e for e in context.journal if e.body.get("item") != context.item]
    _nodes(context, facts, [*forward, *mine])
    _figures(context, facts, datetime.fromisoformat((forward or context.journal)[0].body["now"]))
    return facts


def _record(context: Context, name: str, facts: Facts) -> list[Entry]:
    try:
        return recorded(context.scope, context.store.root, name)
    except (SourceError, RecordDamaged) as error:
        facts.miss(f"record of {name}", str(error))
        return []


def _nodes(context: Context, facts: Facts, known: Sequence[Entry]) -> None:
    """Every node's gates: as it answers, else as it was last read back."""
    try:
        last = dict(states(list(known), context.attempt_name))
        seen = context.fleet.rollout()
    except (SourceError, RecordDamaged) as error:
        facts.miss("gates of the nodes", str(error))
        facts.unread = [node.name for node in context.cluster.nodes]
        return
    for node in context.cluster.nodes:
        now = seen[node.name]
        if isinstance(now, SourceError):
            facts.unread.append(node.name)
            facts.miss(f"gates of {node.name}", now.problem)
            before = last.get(node.name)
            gates = before.state.gates if before else {}
            when = f"read back {utc(before.at)}" if before else "never read back"
            channel = before.state.channel if before else "?"
        else:
            gates, channel, when = now.feature_gates, now.release_channel, "now"
        words = [_word(gates, gate, known=bool(gates)) for gate in GATES]
        who = node.operator or "us"
        facts.nodes.append((code(node.name), plain(who, 60), *words, code(channel), when))


def _word(gates: dict[str, bool], gate: str, *, known: bool) -> str:
    if not known:
        return "?"
    return "**on**" if gates.get(gate) else "off"


def _figures(context: Context, facts: Facts, begun: datetime) -> None:
    """Each metric when the apply began, and now."""
    from ..metrics.catalogue import narrow, parse_catalogue

    path = project_path("params/metrics.yaml")
    try:
        catalogue = parse_catalogue(context.scope.read(path), path.name)
        metrics = [m for m in catalogue.metrics if m.per == "aggregate" and m.topic in TOPICS]
        asked = {metric.name: narrow(metric, context.matchers) for metric in metrics}
        queries = list(dict.fromkeys(query for many in asked.values() for query in many))
        then = context.prometheus.instants(queries, begun)
        now = context.prometheus.instants(queries, context.at)
    except (SourceError, ParameterError) as error:
        facts.miss("figures", str(error))
        return
    for metric in metrics:
        pairs = [(_value(then[query]), _value(now[query])) for query in asked[metric.name]]
        found = next((pair for pair in pairs if pair[1] is not None), None)
        failed = next((now[q] for q in asked[metric.name] if isinstance(now[q], SourceError)), None)
        if found is None and isinstance(failed, SourceError):
            facts.miss(f"figure {metric.name}", failed.problem)
            continue
        before, after = (_shown(value, metric.unit) for value in found or (None, None))
        facts.figures.append((plain(metric.title, 80), before, after))


def _value(found: object) -> float | None:
    samples = getattr(found, "samples", ())
    return samples[0].value if samples and not getattr(found, "partial", False) else None


def _shown(value: float | None, unit: str) -> str:
    return "no data" if value is None or value != value else plain(value_text(value, unit), 40)
