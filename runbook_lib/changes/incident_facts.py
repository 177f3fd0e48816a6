"""What an incident is told with: facts out of records and of the world, as cells of Markdown tables.

What others wrote is shown as just that; what could not be read is listed, never left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from string import Template

from ..context import Context
from ..errors import ParameterError, RecordDamaged, SourceError
from ..evidence.comment import LIMIT, code, fold, plain
from ..evidence.record import Entry, parse
from ..evidence.standing import verdict
from ..outcomes import value_text
from ..playbook import GATE_STEPS
from ..strict import project_path
from ..wording import count, reason, standing_word, utc
from .state import states

ROWS = (300, 100, 30, 10)
"""Rows of a table, fewer until the whole fits."""
NOTHING = "nothing said"


def render(context: Context, template: str, facts: Facts, values: dict[str, str]) -> str:
    """The template of that name, filled. Raises SourceError for one that cannot be.

    ``values`` are Markdown already; tables are cut until a forge takes the whole.
    """
    path = project_path(f"params/templates/{template}")
    try:
        made = Template(context.scope.read(path).decode())
        for limit in ROWS:
            text = made.substitute({**values, **_tables(facts, limit)}).strip() + "\n"
            if len(text.encode("utf-16-le")) // 2 <= LIMIT - 200:
                return text
    except (KeyError, ValueError) as error:
        known = ", ".join(f"${name}" for name in sorted({**values, **_tables(facts, 1)}))
        raise SourceError(f"template {template}", f"expected {known}, got {error!r}") from error
    raise SourceError(f"template {template}", f"expected at most {LIMIT} characters, got more")


def _tables(facts: Facts, limit: int) -> dict[str, str]:
    missing = [f"{plain(what, 80)}: {plain(why, CHARS)}" for what, why in facts.missing]
    columns = ("node", "run by", *(f"`{gate}`" for gate in GATES), "channel", "seen")
    figures = table(("metric", "when the apply began", "now"), facts.figures, limit, right=2)
    if not facts.figures:
        figures = "none was collected"
    if facts.drawn:
        shown = bullets([plain(line, CHARS) for line in facts.drawn.splitlines()][:limit], "")
        figures += f"\n\n{fold('drawn in the notebook that is attached', shown)}"
    timeline = table(("when", "what", "happened"), facts.timeline, limit, newest=True)
    tries = table(("attempt", "item", "outcome", "try", "why"), facts.tries, limit)
    return {
        "gates": table(columns, facts.nodes, limit),
        "tries": tries,
        "figures": figures,
        "timeline": fold(count(len(facts.timeline), "event"), timeline),
        "missing": bullets(
            missing[:limit], "nothing: all of it was read", cut=len(missing) - limit
        ),
    }


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    limit: int,
    *,
    right: int = 0,
    newest: bool = False,
) -> str:
    """A Markdown table, its last ``right`` columns to the right; of no rows, that there are none."""
    if not rows:
        return "none"
    kept = rows[-limit:] if newest else rows[:limit]
    marks = [":--"] * (len(columns) - right) + ["--:"] * right
    lines = [f"| {' | '.join(row)} |" for row in (columns, marks, *kept)]
    if len(rows) > limit:
        lines += ["", f"{count(len(rows) - limit, 'more row')}; see the record"]
    return "\n".join(lines)


def bullets(lines: Sequence[str], empty: str, cut: int = 0) -> str:
    """A list of Markdown lines."""
    more = [f"- and {cut} more; see the record"] if cut > 0 else []
    return "\n".join([*(f"- {line}" for line in lines), *more]) or empty


def said(texts: Sequence[str]) -> str:
    """What a person wrote, a bullet each."""
    return bullets([one_line(text) for text in texts if text.strip()], NOTHING)


def one_line(text: str) -> str:
    """What a person wrote, as just that."""
    return plain(" ".join(text.split()), 2000)


CHARS = 300
TOPICS = ("consensus_latency", "block_production", "finality_lag", "proof_latency",
          "proof_queue_depth", "vrf_participation", "network_churn")  # fmt: skip
GATES = tuple(dict.fromkeys(gate for steps in GATE_STEPS.values() for gate in steps))


@dataclass
class Facts:
    """Tables of an incident, their cells Markdown; ``missing`` names what could not be read."""

    nodes: list[tuple[str, ...]] = field(default_factory=list)
    tries: list[tuple[str, ...]] = field(default_factory=list)
    figures: list[tuple[str, ...]] = field(default_factory=list)
    timeline: list[tuple[str, ...]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)
    drawn: str = ""

    def miss(self, what: str, why: str) -> None:
        self.missing.append((what, why))


def collect(context: Context) -> Facts:
    """Everything that can be read now. Raises nothing but what a replay lacks."""
    facts = Facts()
    undoes = context.journal[0].body.get("undoes")
    forward = _record(context, str(undoes["name"]), facts) if undoes else []
    # What this very item did before is in its own issue, not in its own words.
    mine = [e for e in context.journal if e.body.get("item") != context.item]
    _tries(facts, forward, mine)
    events = [*_events(forward), *_events(mine)]
    facts.timeline = [
        (utc(at), code(who), plain(text, CHARS))
        for at, who, text in sorted(events, key=lambda event: event[0])
    ]
    _nodes(context, facts, [*forward, *mine])
    begun = datetime.fromisoformat((forward or context.journal)[0].body["now"])
    _figures(context, facts, begun)
    facts.drawn = _drawn(mine)
    return facts


def _drawn(entries: Sequence[Entry]) -> str:
    """What the newest figure of a record shows, in words; empty where none was drawn."""
    drawn = [entry.body for entry in entries if entry.kind == "figure"]
    if not drawn:
        return ""
    span = " to ".join(utc(datetime.fromisoformat(drawn[-1][key])) for key in ("from", "to"))
    return f"{drawn[-1]['text']}\n{drawn[-1]['file']} of the attempt, {span}"


def _record(context: Context, name: str, facts: Facts) -> list[Entry]:
    try:
        return parse(context.scope.read(context.store.root / name / "record.jsonl"), name)[0]
    except (SourceError, RecordDamaged) as error:
        facts.miss(f"record of {name}", str(error))
        return []


def _tries(facts: Facts, *records: Sequence[Entry]) -> None:
    for entries in filter(None, records):
        try:
            found = verdict(entries)
        except RecordDamaged as error:
            facts.miss("an attempt's items", str(error))
            continue
        name = f"{found.stage} {found.attempt}"
        facts.tries += [
            (
                code(name),
                code(one.item),
                f"**{standing_word(one)[0]}**",
                str(one.number),
                plain(reason(one), CHARS),
            )
            for one in found.items
            if one.number
        ]


def _events(entries: Sequence[Entry]) -> list[tuple[datetime, str, str]]:
    """(when, what it is about, what happened) of what a reader wants to know."""
    found = []
    for entry in entries:
        body = entry.body
        match entry.kind:
            case "opened":
                said = f"{body['mode']} attempt {body['attempt']} opened by {body['operator']}"
                found.append((body["now"], body["stage"], said))
            case "session" if body["number"] > 1:
                found.append((body["now"], "session", f"continued by {body['operator']}"))
            case "step" if body["phase"] != "intent":
                why = f": {body.get('problem') or body.get('code')}" if body.get("code") else ""
                said = f"{body['step']} {body['phase']}{why}"
                found.append((body["at"], body["node"], f"{said} ({body['item']})"))
            case "state":
                on = [gate for gate, is_on in body["state"]["gates"].items() if is_on]
                said = f"read back: gates on {', '.join(on) or 'none'}"
                found.append((body["at"], body["node"], said))
            case "result":
                result = body["result"]
                said = f"{result['outcome']}: {result['reason']}"
                found.append((result["ended"], body["item"], said))
    return [(datetime.fromisoformat(at), who, said) for at, who, said in found]


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
