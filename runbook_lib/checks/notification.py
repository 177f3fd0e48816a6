"""Who is notified of an anomaly, how, and what they answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from .. import reach
from ..canonical import canonical
from ..context import Context
from ..errors import SourceError
from ..files import keep_file
from ..findings import unread
from ..metrics.catalogue import Metric
from ..metrics.frames import STEP, fetch
from ..playbook import COMMANDER, COUNCIL, ENGINEER
from ..sources import wire
from ..sources.github import JSON, GitHub
from ..sources.running import tell
from ..sources.scope import Scope
from ..sources.words import read_words, withdrawn
from ..wording import utc, visible
from .anomalies import Anomaly, known, open_new
from .watch_log import Log, patience, ways_of

FIGURES = "figures"
SHOWN_BEFORE = timedelta(hours=3)
"""How much of its metric the figure of an anomaly shows."""
ROLES = {"opened": (COMMANDER,), "escalated": (COUNCIL, ENGINEER)}


def _listen(context: Context, log: Log) -> None:
    """Record what commanders said. Raises SourceError."""
    params, site = context.params, context.site
    heard = read_words(context.scope, site, issue=params.issue, release=params.release)
    ids, listed = {each.id for each in known(log)}, context.site.holders(COMMANDER)
    for word in sorted(heard.words, key=lambda each: each.at):
        if word.anomaly not in ids or word.account not in listed or withdrawn(word, heard):
            continue
        # The first word on an anomaly acknowledges it, the first decision stands.
        body = {"id": word.anomaly, "by": word.account, "at": word.at.isoformat()}
        body["grounds"] = word.grounds
        if not log.has("acknowledged", word.anomaly):
            log.add("acknowledged", word.anomaly, body)
        if word.decision and not log.has("decided", word.anomaly):
            more = {"decision": word.decision, "reason": word.reason}
            log.add("decided", word.anomaly, {**body, **more})


def _deliver(context: Context, log: Log) -> dict[str, str]:
    """Send what was not sent yet; by anomaly's id the first that failed."""
    trouble: dict[str, str] = {}
    ways = ways_of(context)
    for each in known(log):
        late = each.escalated(context.now, patience(context))
        for event in ("opened", "escalated") if late else ("opened",):
            roles = [f"command/{role}" for role in ROLES[event]] if ways["command"] else []
            for way in [*roles, *(way for way in ("webhook", "comment") if ways[way])]:
                key = f"{each.id}/{event}/{way}"
                if log.has("notified", key):
                    continue
                name = f"{each.id}-{event}-{way.replace('/', '-')}.txt"
                with unread(partial(_note, trouble, [each], f"{way} waits in the outbox")):
                    _send(context, each, event, way, name)
                    log.add("notified", key, {"id": each.id, "at": context.now.isoformat()})
                    (context.folder / "outbox" / name).unlink(missing_ok=True)
    return trouble


def _note(
    trouble: dict[str, str], anomalies: Sequence[Anomaly], what: str, error: SourceError
) -> None:
    """What first failed of each anomaly."""
    for each in anomalies:
        trouble.setdefault(each.id, f"{what}: {error}")


def _send(context: Context, anomaly: Anomaly, event: str, way: str, name: str) -> None:
    """One notification, which lies in a file of that name until it is sent. Raises SourceError."""
    scope, site, params = context.scope, context.site, context.params
    word = "anomaly" if event == "opened" else "NOT ACKNOWLEDGED: anomaly"
    about = f"{anomaly.id} on {context.cluster_name}: {visible(anomaly.subject, 100)}"
    subject, text = f"{word} {about}", _text(context, anomaly, event)
    path = keep_file(context.folder, f"outbox/{name}", f"{subject}\n\n{text}")
    if way.startswith("command/"):
        role = way.partition("/")[2]
        tell(scope, site.commands, "notify", role=role, subject=subject, text=str(path))
    elif way == "webhook" and site.telemetry.notify is not None:
        document = {
            "id": anomaly.id,
            "event": event,
            "roles": list(ROLES[event]),
            "accounts": site.holders(*ROLES[event]),
            "subject": subject,
            "text": text,
            "release": params.release,
            "stage": context.stage,
            "cluster": context.cluster_name,
            "at": anomaly.at.isoformat(),
        }
        by_webhook(scope, site.telemetry.notify, document)
    elif way == "comment":
        people = " ".join(f"@{account}" for account in site.holders(*ROLES[event]))
        # Indented by four: names of alerts come from outside, and are code there, not markup.
        quoted = "\n".join(f"    {line}" for line in text.splitlines())
        title = "An anomaly of the watch" if event == "opened" else "Not acknowledged in time"
        body = f"{people}: {title}\n\n{quoted}\n"
        GitHub(scope, site.forge, writes="notify").create_comment(params.issue, body)


def by_webhook(scope: Scope, webhook: reach.Webhook, document: Mapping[str, Any]) -> None:
    """Post a document as JSON. Raises SourceError for a status that takes nothing."""
    url, headers = webhook.url or f"{{{webhook.url_env}}}", (("content-type", JSON),)
    body = canonical(document)
    request = wire.request(webhook, "POST", url, body=body, headers=headers, purpose="notify")
    request = replace(request, url_env=webhook.url_env)
    wire.content("telemetry.notify", scope.http([request])[0], expected=(200, 201, 202, 204))


def _text(context: Context, anomaly: Anomaly, event: str) -> str:
    """What was seen, by which query, and what to answer; no verb of ours begins a line of it."""
    params, name = context.params, anomaly.id
    place = f"as a comment in issue {params.issue}" if params.issue else "by a signed file"
    lines = [
        f"{context.cluster.chain_id}, {params.release}, watch of {context.attempt_name}",
        f"seen: {visible(anomaly.summary, 300)}",
        f"at: {utc(anomaly.at)}",
        f"query: {visible(anomaly.query, 1000)}",
        f"figure: {FIGURES}/{figure_name(anomaly)} of the attempt, for a metric",
        f"answer within {params.engage_minutes:g} min, {place}:",
        f"  `acknowledge-anomaly {name}`",
        f"then, with the reason: `decide {name} continue|restart|recover REASON`",
    ]
    if event == "escalated":
        late = f"The release commander has not acknowledged it since {utc(anomaly.opened)}."
        lines.insert(0, late)
    return "\n".join(lines) + "\n"


def engage(
    context: Context, log: Log, metrics: Sequence[Metric], queries: Mapping[str, str]
) -> dict[str, str]:
    """Open what was found, notify whoever must know, hear what they say.

    By anomaly's id what went wrong with that; a figure that could not be drawn is a finding.
    ``queries`` by subject, for a person to look with.
    """
    opened = open_new(log, context.attempt_name, context.now, queries)
    anomalies = {each.id: each for each in known(log)}
    for name in opened:
        draw(context, metrics, anomalies[name])
    trouble = _deliver(context, log)
    if undecided := [each for each in known(log) if each.decided is None]:
        with unread(partial(_note, trouble, undecided, "answers cannot be read")):
            _listen(context, log)
    return trouble | _deliver(context, log)  # what was not acknowledged in time, to others


def figure_name(anomaly: Anomaly) -> str:
    return f"anomaly-{anomaly.id}.png"


def draw(context: Context, metrics: Sequence[Metric], anomaly: Anomaly) -> None:
    """The figure of an anomaly of a metric: the hours before it, with the limit."""
    from ..metrics import panels

    name = anomaly.subject.partition(" ")[0]
    metric = next((each for each in metrics if each.name == name), None)
    if metric is None:
        return
    start = anomaly.at - SHOWN_BEFORE
    with context.reading(f"figure of {anomaly.id}", "data"):
        frame = fetch(context.prometheus, anomaly.query, start, anomaly.at, STEP)
        names = {node.validator: node.name for node in context.cluster.nodes}
        drawn = panels.baseline_figure([panels.plotted(metric, frame.values, names, limited=True)])
        keep_file(context.folder, f"{FIGURES}/{figure_name(anomaly)}", drawn.png)
