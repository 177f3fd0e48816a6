"""Anomalies of a watch: what is wrong, who was notified, who acknowledged it, what was decided.

A failing finding is part of the anomaly of its subject that is open; once that is decided, what begins
afterwards is a new one, and so is what outlives a restart. Whether an anomaly was acknowledged in
time is computed from timestamps by each look; there is no timer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..canonical import digest
from ..context import Context
from ..errors import SourceError, tried
from ..evidence.events import Acknowledged, AnomalyOpened, Decided, Notified
from ..files import keep_file
from ..findings import Findings
from ..metrics.catalogue import Metric
from ..metrics.frames import Stretch
from ..outcomes import Row
from ..playbook import COMMANDER, COUNCIL, ENGINEER
from ..sources.commands import tell
from ..sources.github import GitHub
from ..sources.words import read_words, withdrawn
from ..wording import utc, visible
from .watch_log import WatchLog, patience, ways_of

SHOWN_BEFORE = timedelta(hours=3)
"""How much of its metric the figure of an anomaly shows."""
ROLES = {"opened": (COMMANDER,), "escalated": (COUNCIL, ENGINEER)}


@dataclass(frozen=True)
class Anomaly:
    """What a look found, the first acknowledgement of it and the first decision."""

    found: AnomalyOpened
    acknowledged: Acknowledged | None = None
    decided: Decided | None = None

    @property
    def id(self) -> str:
        return self.found.key

    @property
    def restarted(self) -> datetime | None:
        """Where the watch begins anew by its decision: never before what was found.

        A word is of the instant that its speaker's clock says; a wrong one would leave the window
        as it is, and the finding out of it.
        """
        if self.decided is None or self.decided.decision != "restart":
            return None
        return max(self.decided.at, self.found.at)

    def covers(self, over: Stretch, apart: timedelta) -> bool:
        """Whether a failing finding of its subject, ``over`` that time, is part of it.

        Everything is until it is decided, and what began before that afterwards. Of a restart only
        what is gone before the next look: the window that begins is not excused what goes on in it.
        """
        if self.decided is None:
            return True
        begun, end = over
        anew = self.restarted
        if anew is None:
            return begun <= self.decided.at
        return self.found.at < anew and begun <= anew and end <= anew + apart

    def escalated(self, now: datetime, within: timedelta) -> bool:
        """Whether nobody acknowledged it within that time, whatever came later."""
        answered = self.acknowledged.at if self.acknowledged else now
        return min(now, answered) >= self.found.opened + within

    def judge(self, context: Findings, trouble: str, *, escalated: bool) -> None:
        """The finding, until a decision restarts the watch, and who decided what of it.

        ``trouble`` says what could not be sent or read. That the watch goes on needs a waiver of
        the finding.
        """
        subject, what, expected = f"anomaly {self.id}", "decided", "continue, restart or recover"
        row = self.found.row
        finding = row.model_copy(update={"what": f"{row.what} ({utc(self.found.at)})"})
        done, known = self.decided, self.acknowledged
        if done is not None and done.decision == "restart":
            # Named for ever; the window that it spoilt is no longer judged.
            got = f"{finding.observed} {finding.unit}, the watch was restarted"
            context.judge(finding.subject, finding.what, finding.expected, got, ok=True)
        else:
            context.findings.append(finding)
        if done is not None:
            got = f"{done.decision} by {done.by} {utc(done.at)}: {done.reason}"
            context.judge(subject, what, expected, got, done.decision != "recover")
            return
        word = f"acknowledged by {known.by} {utc(known.at)}" if known else "not acknowledged"
        word += ", escalated" if escalated else ""
        got = f"undecided, {word}" + (f"; {trouble}" if trouble else "")
        context.unknown(subject, what, expected, got)


def known(log: WatchLog) -> list[Anomaly]:
    """Every anomaly of the attempt, in the order in which they were found."""
    acknowledged = {answer.key: answer for answer in log.of(Acknowledged)}
    decided = {answer.key: answer for answer in log.of(Decided)}
    found = sorted(log.of(AnomalyOpened), key=lambda each: (each.opened, each.subject))
    return [Anomaly(each, acknowledged.get(each.key), decided.get(each.key)) for each in found]


def open_new(
    log: WatchLog,
    attempt: str,
    now: datetime,
    queries: Mapping[str, str],
    failing: Sequence[tuple[Row, Stretch]],
    apart: timedelta,
) -> list[AnomalyOpened]:
    """An anomaly for every failing finding that the last of its subject does not cover.

    Looks are ``apart``. ``queries`` by subject, for a person to look with.
    """
    opened: list[AnomalyOpened] = []
    for row, over in failing:
        subject, (first, _, alert) = row.subject, row.subject.partition(" ")
        same = [each for each in known(log) if each.found.subject == subject]
        if same and same[-1].covers(over, apart):
            continue
        about = {"attempt": attempt, "subject": subject, "at": over[0].isoformat()}
        if same and same[-1].restarted:  # What goes on may have begun at the same instant.
            about["after"] = same[-1].id
        query = queries.get(first, f"{row.what}, by its own source")
        if first == "alert":
            query = f'ALERTS{{alertstate="firing",alertname="{alert}"}}'
        made = AnomalyOpened(
            key="A" + digest(about).removeprefix("sha256:")[:8],
            subject=subject,
            query=query,
            at=over[0],
            opened=now,
            row=row,
        )
        log.add(made)
        opened.append(made)
    return opened


# --- who is notified of an anomaly, how, and what they answered ---


def _listen(context: Context, log: WatchLog) -> None:
    """Log what commanders said. Raises SourceError."""
    params, site = context.params, context.site
    heard = read_words(context.scope, site, issue=params.issue, release=params.release)
    ids, listed = {each.id for each in known(log)}, context.site.holders(COMMANDER)
    for word in sorted(heard.words, key=lambda each: each.at):
        if word.anomaly not in ids or word.account not in listed or withdrawn(word, heard):
            continue
        # The first word on an anomaly acknowledges it, the first decision stands.
        said = {"key": word.anomaly, "by": word.account, "at": word.at, "grounds": word.grounds}
        log.add(Acknowledged.model_validate(said))
        if word.decision:
            more = {"decision": word.decision, "reason": word.reason}
            log.add(Decided.model_validate(said | more))


def _deliver(context: Context, log: WatchLog) -> dict[str, str]:
    """Send what was not sent yet; by anomaly's id the first that failed."""
    trouble: dict[str, str] = {}
    ways = ways_of(context)
    for each in known(log):
        late = each.escalated(context.now, patience(context))
        for event in ("opened", "escalated") if late else ("opened",):
            roles = [f"command/{role}" for role in ROLES[event]] if ways["command"] else []
            for way in [*roles, *(["comment"] if ways["comment"] else [])]:
                key = f"{each.id}/{event}/{way}"
                if log.has(Notified, key):
                    continue
                name = f"{each.id}-{event}-{way.replace('/', '-')}.txt"
                failed = tried(_send, context, each, event, way, name)
                if isinstance(failed, SourceError):
                    trouble.setdefault(each.id, f"{way} waits in the outbox: {failed}")
                    continue
                log.add(Notified(key=key, at=context.now))
                (context.folder / "outbox" / name).unlink(missing_ok=True)
    return trouble


def _send(context: Context, anomaly: Anomaly, event: str, way: str, name: str) -> None:
    """One notification, which lies in a file of that name until it is sent. Raises SourceError."""
    scope, site, params = context.scope, context.site, context.params
    word = "anomaly" if event == "opened" else "NOT ACKNOWLEDGED: anomaly"
    about = f"{anomaly.id} on {context.cluster_name}: {visible(anomaly.found.subject, 100)}"
    subject, text = f"{word} {about}", _text(context, anomaly, event)
    path = keep_file(context.folder, f"outbox/{name}", f"{subject}\n\n{text}")
    if way.startswith("command/"):
        role = way.partition("/")[2]
        tell(scope, site.commands, "notify", role=role, subject=subject, text=str(path))
    elif way == "comment":
        people = " ".join(f"@{account}" for account in site.holders(*ROLES[event]))
        # Indented by four: names of alerts come from outside, and are code there, not markup.
        quoted = "\n".join(f"    {line}" for line in text.splitlines())
        title = "An anomaly of the watch" if event == "opened" else "Not acknowledged in time"
        body = f"{people}: {title}\n\n{quoted}\n"
        GitHub(scope, site.forge, writes="notify").write(body, issue=params.issue)


def _text(context: Context, anomaly: Anomaly, event: str) -> str:
    """What was seen, by which query, and what to answer; no verb of ours begins a line of it."""
    params, found = context.params, anomaly.found
    row, name = found.row, found.key
    seen = f"{row.subject}: {row.what}: expected {row.expected}, got {row.observed} {row.unit}"
    place = f"as a comment in issue {params.issue}" if params.issue else "by a signed file"
    lines = [
        f"{context.cluster.chain_id}, {params.release}, watch of {context.attempt_name}",
        f"seen: {visible(seen, 300)}",
        f"at: {utc(found.at)}",
        f"query: {visible(found.query, 1000)}",
        f"figure: {_figure(found)} of the attempt, for a metric",
        f"answer within {params.engage_minutes:g} min, {place}:",
        f"  `acknowledge-anomaly {name}`",
        f"then, with the reason: `decide {name} continue|restart|recover REASON`",
    ]
    if event == "escalated":
        late = f"The release commander has not acknowledged it since {utc(found.opened)}."
        lines.insert(0, late)
    return "\n".join(lines) + "\n"


def engage(
    context: Context,
    log: WatchLog,
    metrics: Sequence[Metric],
    queries: Mapping[str, str],
    failing: Sequence[tuple[Row, Stretch]],
) -> dict[str, str]:
    """Open what was found, notify whoever must know, hear what they say.

    By anomaly's id what went wrong with that; a figure that could not be drawn is a finding.
    """
    apart = timedelta(minutes=context.params.look_minutes)
    for found in open_new(log, context.attempt_name, context.now, queries, failing, apart):
        draw(context, metrics, found)
    trouble = _deliver(context, log)
    if undecided := [each for each in known(log) if each.decided is None]:
        failed = tried(_listen, context, log)
        if isinstance(failed, SourceError):
            why = f"answers cannot be read: {failed}"
            trouble = {**{each.id: why for each in undecided}, **trouble}
    return trouble | _deliver(context, log)  # what was not acknowledged in time, to others


def _figure(found: AnomalyOpened) -> str:
    return f"figures/anomaly-{found.key}.png"


def draw(context: Context, metrics: Sequence[Metric], found: AnomalyOpened) -> None:
    """The figure of an anomaly of a metric: from hours before it until now, with the limit."""
    from . import figures

    mine = [metric for metric in metrics if metric.name == found.subject.partition(" ")[0]]
    if mine:
        with context.reading(f"figure of {found.key}", "data"):
            figures.draw(context, _figure(found), mine, (found.at - SHOWN_BEFORE, context.at))
