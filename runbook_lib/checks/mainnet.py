"""The mainnet stage: its readiness and activation items, in the playbook's order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import BeforeValidator, Field

from ..changes.apply import Applier, Change, Step, all_pass
from ..changes.targets import make_plan as plan
from ..context import Context, judges
from ..errors import SourceError
from ..evidence.order import effect
from ..files import replace_file
from ..outcomes import CheckResult, Row, Value, check_row, explain, unknown_row, worst
from ..params import RolloutParams
from ..playbook import COUNCIL, NOW_SOURCE_LAG
from ..site import Risk
from ..sources import wire
from ..sources.config import GATES_AT
from ..sources.github import GitHub, complete, explanation, inner
from ..sources.notices import Announcement, Governance
from ..sources.wire import Wire
from ..wording import utc
from . import preflight
from .activation_proof import OBSERVABLE, proven
from .baselines import pin_before
from .ci import ci_rows
from .regression import mainnet_comparison as comparison
from .regression import no_regression
from .rollouts import captured, rollout
from .validators import validators_signed_off
from .watch import expected as watched_for
from .watch import watch

ANNOUNCE_ITEM = "mainnet.activate.announce"


def _text(context: Context) -> str:
    params: RolloutParams = context.params
    start, end = params.window
    return (
        f"{context.cluster.chain_id}: {params.release} will be activated on {context.cluster_name}\n"
        f"window: {utc(start)} to {utc(end)}\n"
        f"commit: {params.commit}\n"
        f"plan: {context.plan.digest if context.plan else 'none yet'}\n"
        "New governance proposals are frozen from now until the activation has been watched.\n"
    )


def _duty(context: Context) -> Row:
    """Who lifts the freeze: a member of the council, named before it begins."""
    owners = [person.account for person in context.site.people if COUNCIL in person.roles]
    what, expected = "lifts the freeze afterwards", f"somebody with the role {COUNCIL}"
    if not owners:
        return unknown_row("proposals", what, expected, "nobody in the site's people has it")
    return check_row("proposals", what, expected, owners[0], ok=True)


def _notice(context: Context, at: datetime) -> Row:
    params: RolloutParams = context.params
    start, _ = params.window
    given, wanted = start - at, timedelta(hours=params.notice_hours)
    expected, got = f"at least {wanted} before {utc(start)}", f"{given} before it"
    return check_row("announcement", "notice", expected, got, given >= wanted)


def _plan(context: Context) -> list[Row]:
    would = unknown_row("announcement", "would say", "", _text(context))
    return [_duty(context), _notice(context, _standing(context) or context.now), would]


def _standing(context: Context) -> datetime | None:
    """When this very window was announced, if it stands. SourceErrors are for the read-back."""
    with suppress(SourceError):
        if found := _announced(context):
            return found.at
    return None


def _announced(context: Context) -> Announcement | None:
    mine = ("window", context.params.release, context.stage, *context.params.window)
    announced = Governance(context.scope, context.site.commands).announced()
    return next(
        (x for x in announced if (x.kind, x.release, x.stage, x.start, x.end) == mine), None
    )


def _apply(context: Context, applier: Applier) -> CheckResult:
    duty = _duty(context)
    applier.rows += [duty, _notice(context, _standing(context) or context.now)]
    if all_pass(applier.rows):
        commands, release = context.commands, context.params.release
        text = context.folder / "announcement.txt"
        replace_file(text, _text(context))

        start, end = context.params.window
        about = {"release": release, "stage": context.stage, "text": str(text)}
        span = {"start": start.isoformat(), "end": end.isoformat()}
        announce = commands.change("announce", **about, **span)
        freeze = commands.change("freeze_proposals", release=release)
        told = Step("announcement", "announce", announce, lambda: _standing(context) is not None)
        frozen = Step("proposals", "freeze", freeze, lambda: _frozen(context))
        if applier.step(told) and applier.step(frozen):
            rows, since = _read_back(context)
            applier.rows += rows
            if since is not None and _first_frozen(context) is None:
                kept = {"item": ANNOUNCE_ITEM, "data": {"frozen_since": since.isoformat()}}
                context.record.append("captured", kept)
            note = {"text": f"closing duty of {duty.observed}: unfreeze governance proposals"}
            if not any(e.kind == "note" and e.body == note for e in context.record.entries()):
                context.record.append("note", note)
    return context.conclude(
        applier.rows,
        passed="the window is announced in time, new proposals are frozen, both read back",
        empty="nothing was announced",
        data={"unfreeze": str(duty.observed)},
    )


def _frozen(context: Context) -> bool:
    with suppress(SourceError):
        return Governance(context.scope, context.site.commands).proposals().frozen
    return False


def _read_back(context: Context) -> tuple[list[Row], datetime | None]:
    """Both as others see them, and since when proposals are frozen."""
    start, end = context.params.window
    what, expected = "stands", f"{utc(start)} to {utc(end)}"
    try:
        found = _announced(context)
        got = f"announced {utc(found.at)}" if found else "not among those that stand"
        rows = [check_row("announcement", what, expected, got, found is not None)]
        rows += [_notice(context, found.at)] if found else []
    except SourceError as error:
        rows = [context.unreadable(what, expected, error)]
    row, since = _freeze(context)
    return [*rows, row], since


def frozen_row(context: Context) -> Row:
    """Whether new proposals are frozen and none came since: judged before every wave as well.

    The freeze is the one that was read back when it was announced: between one that was lifted and
    the next, proposals may have come and gone.
    """
    return _freeze(context)[0]


def _freeze(context: Context) -> tuple[Row, datetime | None]:
    """The row, and since when proposals are frozen, where that holds."""
    what, expected = "new ones", "frozen, none since"
    try:
        found = Governance(context.scope, context.site.commands).proposals()
    except SourceError as error:
        return context.unreadable(what, expected, error), None
    since, first = found.since, _first_frozen(context)
    if not found.frozen or since is None:
        return check_row("proposals", what, expected, "not frozen", ok=False), None
    if since > context.now + NOW_SOURCE_LAG:
        got = f"frozen from {utc(since)} on, which is still to come"
        return unknown_row("proposals", what, expected, got, return_at=since), None
    if first is not None and since > first:
        got = f"frozen since {utc(first)}, lifted, and frozen again {utc(since)}"
        got += "; start a new attempt"
        return check_row("proposals", what, expected, got, ok=False), None
    late = [one.id for one in found.open if one.created_at > since]
    got = f"since {utc(since)}: {', '.join(late)}" if late else "frozen, none since"
    return check_row("proposals", what, expected, got, not late), since


def _first_frozen(context: Context) -> datetime | None:
    """Since when proposals were frozen as this attempt first read it back; None before that."""
    kept = captured(context.journal, ANNOUNCE_ITEM)
    return datetime.fromisoformat(kept["frozen_since"]) if kept is not None else None


announce = Change(ANNOUNCE_ITEM, _plan, _apply)


ITEM = "mainnet.ready.hotfix-branches"


@judges(ITEM)
def hotfix_branches(context: Context) -> CheckResult:
    """Every open issue of the release's milestone is of low risk, with a fix on a green branch.

    The milestone is called as the release. An issue names its branch by a line ``branch: NAME``;
    the branch must contain the release's commit and more. An issue without a risk label is
    INCONCLUSIVE, one above low risk a FAIL. Playbook: mainnet readiness, 3.
    """
    release, risk = context.params.release, context.site.forge.risk
    if risk is None:
        row = unknown_row("site", "risk labels", "forge.risk in the site file", "none; set it")
        return context.conclude([row], passed="", empty="")
    forge, subject = Backlog(context.scope, context.site.forge), f"milestone {release}"
    milestone = forge.milestone(release)
    if milestone is None:
        row = unknown_row(subject, "on the forge", "a milestone called as the release", "none")
        return context.conclude([row], passed="", empty="")
    # The release issue is open as long as the release is under way, and no fix of anything.
    found = forge.open_issues(milestone)
    issues = [issue for issue in found if issue.number != context.params.issue]
    read = f"{len(issues)} open issues"
    rows = [check_row(subject, "read to the last page", "all its open issues", read, ok=True)]
    for issue in issues:
        rows += _issue(context, forge, risk, issue)
    return context.conclude(
        rows,
        passed=f"{len(issues)} open issues of {release}, all of low risk, each with its fix queued",
        empty="the milestone could not be read",
        data={"milestone": milestone.number, "issues": [issue.number for issue in issues]},
    )


def _issue(context: Context, forge: Backlog, risk: Risk, issue: MilestoneIssue) -> Iterator[Row]:
    subject, names = f"#{issue.number}", issue.branches
    yield _risk(subject, risk, issue)
    if len(names) != 1:
        got = ", ".join(names) or "no line `branch: NAME` in its body"
        yield unknown_row(subject, "fix", "one branch", got)
        return
    [name], commit = names, context.params.commit
    try:
        branch = forge.branch(name)
    except SourceError as error:
        yield check_row(subject, "fix", "a branch that exists", error)
        return
    if branch is None:
        yield check_row(subject, "fix", "a branch that exists", f"no {name}", ok=False)
        return
    yield _contains(forge, subject, f"{name} contains {commit[:12]} and more", commit, branch)
    yield _green(context, forge, subject, f"CI of {name}", branch)


def _risk(subject: str, risk: Risk, issue: MilestoneIssue) -> Row:
    if above := sorted(set(issue.labels) & set(risk.above)):
        return check_row(subject, "risk", risk.low, ", ".join(above), ok=False)
    if risk.low in issue.labels:
        return check_row(subject, "risk", risk.low, risk.low)
    labels = ", ".join(issue.labels) or "no label"
    return unknown_row(subject, "risk", f"labelled {risk.low}", labels)


def _contains(forge: Backlog, subject: str, what: str, commit: str, branch: Branch) -> Row:
    try:
        found = forge.compare(commit, branch.sha)
    except SourceError as error:
        return check_row(subject, what, "yes", error)
    if found.merge_base != commit or found.behind_by:
        got = f"{found.status}, without {found.behind_by} of its commits"
        return check_row(subject, what, "yes", got, ok=False)
    if not found.ahead_by:
        return unknown_row(subject, what, "yes", "nothing more: no fix on it yet")
    return check_row(subject, what, "yes", "yes")


def _green(context: Context, forge: Backlog, subject: str, what: str, branch: Branch) -> Row:
    ci = context.site.forge.ci
    try:
        rows = ci_rows(ci, forge.check_runs(branch.sha), forge.statuses(branch.sha))
    except SourceError as error:
        return check_row(subject, what, "green", error)
    return check_row(
        subject, what, "green", explain(rows, "green", ""), worst(r.outcome for r in rows)
    )


__all__ = ["comparison", "no_regression", "plan", "validators_signed_off", "watch"]


WITNESS = "mainnet.activate.witness-gate"


def _profile(context: Context) -> Iterator[Row]:
    """Every gate of every node equals the mainnet profile: no named deviation is left."""
    from ..changes.targets import read_bundle

    wanted = read_bundle(context).profile(context.stage)
    for name, seen in context.fleet.rollout().items():
        if isinstance(seen, SourceError):
            yield context.unreadable("gates", "the mainnet profile", seen)
            continue
        wrong = {g: on for g, on in wanted.feature_gates.items() if seen.feature_gates.get(g) != on}
        for gate, on in wrong.items():
            got = seen.feature_gates.get(gate, "absent")
            yield check_row(name, f"{GATES_AT}.{gate}", on, got, ok=False)
        if not wrong:
            yield check_row(
                name, "profile and channel", wanted.release_channel, seen.release_channel
            )


def _effects(context: Context) -> Iterator[Row]:
    at = effect(context.so_far, WITNESS)
    for gate in OBSERVABLE:
        yield from proven(context, WITNESS, gate, at)


witness_gate = rollout(
    WITNESS,
    "{nodes} run the release on the mainnet profile, every gate read back",
    each_wave=lambda context: [frozen_row(context)],
    # The profile everywhere, and on every node the traffic that shows each gate at work.
    after=lambda context: [*_profile(context), *_effects(context)],
    capture=pin_before,
)


def expectations(context: Context) -> list[tuple[str, str, Value]]:
    """What must hold, with its thresholds, before any data is read."""
    return [
        *preflight.expectations(context),
        (validators_signed_off.item, "every validator signed off on window and plan", "all"),
        (hotfix_branches.item, "every open issue low-risk, its branch queued and green", "all"),
        (watch.item, *watched_for(context)),
    ]


# --- What a release leaves open: GitHub's milestone of its name, the issues in it, their branches ---
# Its REST API shows no "development" links: an issue names its branch by a line ``branch: NAME``.

_LINK = re.compile(r"^[ \t]*branch:[ \t]*(\S+)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_BRANCH = re.compile(r"(?!.*(?:\.\.|//))[A-Za-z0-9][\w./+-]{0,199}(?<![./])", re.ASCII)
Count = Annotated[int, Field(ge=0)]


def _name(value: object) -> object:
    return value if isinstance(value, str) else inner("name")(value)


Sha = Annotated[str, BeforeValidator(inner("sha"))]


class _Number(Wire):
    number: int


class Milestone(_Number):
    """A milestone; ``open_issues`` counts its open issues and pull requests."""

    title: str
    state: Literal["open", "closed"]
    open_issues: Count
    closed_issues: Count


class MilestoneIssue(Wire):
    """An open issue of a milestone, or a pull request, which has ``pull_request``."""

    number: int
    title: str
    state: Literal["open", "closed"]
    body: str | None
    labels: list[Annotated[str, BeforeValidator(_name)]]
    milestone: _Number | None
    pull_request: object = None
    html_url: str

    @property
    def branches(self) -> list[str]:
        """The branches its body names, each once."""
        return list(dict.fromkeys(_LINK.findall(self.body or "")))


class Branch(Wire):
    name: str
    sha: Annotated[Sha, Field(validation_alias="commit")]


class Comparison(Wire):
    """A head against a base: ``merge_base`` is the newest commit that both contain."""

    status: Literal["ahead", "behind", "diverged", "identical"]
    ahead_by: Count
    behind_by: Count
    base: Annotated[Sha, Field(validation_alias="base_commit")]
    merge_base: Annotated[Sha, Field(validation_alias="merge_base_commit")]


class Backlog(GitHub):
    """The forge, asked about milestones. Every method raises SourceError."""

    def milestone(self, title: str) -> Milestone | None:
        """The milestone of exactly that title, open or closed; None when there is none."""
        source = "forge: milestones"
        found = self.listed(source, "/milestones", Milestone, state="all")
        complete(source, len(found), [milestone.number for milestone in found])
        mine = [milestone for milestone in found if milestone.title == title]
        if len(mine) > 1:
            raise SourceError(source, f"expected one called {title}, got {len(mine)}")
        return mine[0] if mine else None

    def open_issues(self, milestone: Milestone) -> list[MilestoneIssue]:
        """Its open issues, without pull requests; as many as the milestone itself counts."""
        source = f"forge: issues of milestone {milestone.title}"
        query = {"milestone": str(milestone.number), "state": "open"}
        found = self.listed(source, "/issues", MilestoneIssue, **query)
        complete(source, milestone.open_issues, [issue.number for issue in found])
        for issue in found:
            where = issue.milestone.number if issue.milestone else None
            if (where, issue.state) != (milestone.number, "open"):
                got = f"#{issue.number} of {where}, {issue.state}"
                raise SourceError(source, f"expected open ones of {milestone.number}, got {got}")
        return [issue for issue in found if issue.pull_request is None]

    def branch(self, name: str) -> Branch | None:
        """A branch and its head; None when the forge says that there is none."""
        source = f"forge: branch {name[:80]}"
        if not _BRANCH.fullmatch(name):
            raise SourceError(source, "expected a branch's name, got something else")
        got = self.get(source, f"{self.base}/branches/{quote(name)}", absent=True)
        if got.status != 404:
            found = wire.decode(source, got.body, Branch)
            if found.name != name:
                raise SourceError(source, f"expected {name}, got {found.name}; it was renamed")
            return found
        said = explanation(got.body)
        if said != "Branch not found":  # said of a repository we may not see
            raise SourceError(source, f"expected a branch or none, got 404: {said}")
        return None

    def compare(self, base: str, head: str) -> Comparison:
        """What ``head`` has that ``base`` has not, and the other way round; both are commits."""
        source = f"forge: {base[:12]}...{head[:12]}"
        url = f"{self.base}/compare/{base}...{head}"
        got = self.get(source, url, (("per_page", "1"),))
        found = wire.decode(source, got.body, Comparison)
        if found.base != base:
            raise SourceError(source, f"expected the base {base[:12]}, got {found.base[:12]}")
        return found
