"""The mainnet stage: its readiness and activation items, in the playbook's order."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import quote

from pydantic import BeforeValidator, Field

from ..changes.apply import Applier, Change, Step
from ..changes.targets import make_plan as plan
from ..context import Context, judges
from ..errors import SourceError, tried
from ..evidence.events import Captured, Note, of
from ..evidence.status import effect
from ..files import replace_file
from ..outcomes import CheckResult, Outcome, Row, Value, explain, worst
from ..params import RolloutParams
from ..plan import GATES_AT
from ..playbook import COUNCIL, NOW_SOURCE_LAG
from ..site import Risk
from ..sources import wire
from ..sources.github import GitHub, complete, explanation, inner
from ..sources.notices import Announcement, Governance, Proposals
from ..sources.wire import Wire
from ..wording import utc
from . import preflight
from .activation_proof import OBSERVABLE, judge_proof
from .baselines import data_of, pin_before
from .ci import ci_rows
from .figures import stage_figure
from .regression import no_regression
from .rollouts import captured, rollout
from .validators import validators_signed_off

if TYPE_CHECKING:
    from ..metrics.plots import Drawn

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


def _foretold(context: Context) -> str:
    """Who of the council lifts the freeze afterwards, and whether the notice is long enough."""
    owners = context.site.holders(COUNCIL)
    what, expected = "lifts the freeze afterwards", f"somebody with the role {COUNCIL}"
    owner = owners[0] if owners else "nobody in the site's people has it"
    context.judge("proposals", what, expected, owner, bool(owners) or Outcome.INCONCLUSIVE)
    _notice(context, _standing(context) or context.now)
    return owner


def _notice(context: Context, at: datetime) -> None:
    params: RolloutParams = context.params
    start, _ = params.window
    given, wanted = start - at, timedelta(hours=params.notice_hours)
    expected, got = f"at least {wanted} before {utc(start)}", f"{given} before it"
    context.judge("announcement", "notice", expected, got, given >= wanted)


def _plan(context: Context) -> list[Row]:
    _foretold(context)
    context.unknown("announcement", "would say", "", _text(context))
    return context.findings


def _standing(context: Context) -> datetime | None:
    """When this very window was announced, if it stands. SourceErrors are for the read-back."""
    found = tried(_announced, context)
    return found.at if isinstance(found, Announcement) else None


def _announced(context: Context) -> Announcement | None:
    mine = ("window", context.params.release, context.stage, *context.params.window)
    announced = _governance(context).announced()
    return next(
        (x for x in announced if (x.kind, x.release, x.stage, x.start, x.end) == mine), None
    )


def _apply(context: Context, applier: Applier) -> CheckResult:
    owner = _foretold(context)
    if context.holds:
        commands, release = context.commands, context.params.release
        text = context.folder / "announcement.txt"
        replace_file(text, _text(context))
        start, end = (each.isoformat() for each in context.params.window)
        about = {"release": release, "stage": context.stage, "text": str(text)}
        announce = commands.change("announce", **about, start=start, end=end)
        freeze = commands.change("freeze_proposals", release=release)
        told = Step("announcement", "announce", announce, lambda: _standing(context) is not None)
        frozen = Step("proposals", "freeze", freeze, lambda: _is_frozen(context))
        if applier.step(told) and applier.step(frozen):
            since = _read_back(context)
            if since is not None and _first_frozen(context) is None:
                kept = {"frozen_since": since.isoformat()}
                context.log.append(Captured(item=ANNOUNCE_ITEM, data=kept))
            note = Note(text=f"closing duty of {owner}: unfreeze governance proposals")
            if note.text not in [each.text for each in of(context.log.events(), Note)]:
                context.log.append(note)
    return context.conclude(
        passed="the window is announced in time, new proposals are frozen, both read back",
        empty="nothing was announced",
        data={"unfreeze": owner},
    )


def _is_frozen(context: Context) -> bool:
    found = tried(_governance(context).proposals)
    return isinstance(found, Proposals) and found.frozen


def _governance(context: Context) -> Governance:
    return Governance(context.scope, context.site.commands)


def _read_back(context: Context) -> datetime | None:
    """Both as others see them; since when proposals are frozen."""
    start, end = context.params.window
    what, expected = "stands", f"{utc(start)} to {utc(end)}"
    with context.reading(what, expected):
        found = _announced(context)
        got = f"announced {utc(found.at)}" if found else "not among those that stand"
        context.judge("announcement", what, expected, got, found is not None)
        if found:
            _notice(context, found.at)
    return judge_freeze(context)


def judge_freeze(context: Context) -> datetime | None:
    """Since when new proposals are frozen and none came; judged before every wave as well.

    The freeze is the one that was read back when it was announced: between one that was lifted and
    the next, proposals may have come and gone.
    """
    what, expected = "new ones", "frozen, none since"
    with context.reading(what, expected):
        found = _governance(context).proposals()
        since, first = found.since, _first_frozen(context)
        if not found.frozen or since is None:
            context.judge("proposals", what, expected, "not frozen", ok=False)
        elif since > context.now + NOW_SOURCE_LAG:
            got = f"frozen from {utc(since)} on, which is still to come"
            context.unknown("proposals", what, expected, got, since)
        elif first is not None and since > first:
            got = f"frozen since {utc(first)}, lifted, and frozen again {utc(since)}"
            context.judge("proposals", what, expected, f"{got}; start a new attempt", ok=False)
        else:
            late = [one.id for one in found.open if one.created_at > since]
            got = f"since {utc(since)}: {', '.join(late)}" if late else expected
            context.judge("proposals", what, expected, got)
            return since
    return None


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
        context.unknown("site", "risk labels", "forge.risk in the site file", "none; set it")
        return context.conclude()
    forge, subject = Backlog(context.scope, context.site.forge), f"milestone {release}"
    milestone = forge.milestone(release)
    if milestone is None:
        context.unknown(subject, "on the forge", "a milestone called as the release", "none")
        return context.conclude()
    # The release issue is open as long as the release is under way, and no fix of anything.
    found = forge.open_issues(milestone)
    issues = [issue for issue in found if issue.number != context.params.issue]
    read = f"{len(issues)} open issues"
    context.judge(subject, "read to the last page", "all its open issues", read, ok=True)
    for issue in issues:
        _issue(context, forge, risk, issue)
    return context.conclude(
        passed=f"{len(issues)} open issues of {release}, all of low risk, each with its fix queued",
        data={"milestone": milestone.number, "issues": [issue.number for issue in issues]},
    )


def _issue(context: Context, forge: Backlog, risk: Risk, issue: MilestoneIssue) -> None:
    subject, names = f"#{issue.number}", issue.branches
    if above := sorted(set(issue.labels) & set(risk.above)):
        context.judge(subject, "risk", risk.low, ", ".join(above), ok=False)
    elif risk.low in issue.labels:
        context.judge(subject, "risk", risk.low, risk.low)
    else:
        labels = ", ".join(issue.labels) or "no label"
        context.unknown(subject, "risk", f"labelled {risk.low}", labels)
    if len(names) != 1:
        got = ", ".join(names) or "no line `branch: NAME` in its body"
        context.unknown(subject, "fix", "one branch", got)
        return
    [name] = names
    with context.reading("fix", "a branch that exists", subject):
        branch = forge.branch(name)
        if branch is None:
            context.judge(subject, "fix", "a branch that exists", f"no {name}", ok=False)
        else:
            _queued(context, forge, subject, branch)


def _queued(context: Context, forge: Backlog, subject: str, branch: Branch) -> None:
    """Whether a branch holds a fix on top of the release, and is green."""
    commit, ci = context.params.commit, context.site.forge.ci
    what = f"{branch.name} contains {commit[:12]} and more"
    with context.finding(subject, what, "yes") as judge:
        found = forge.compare(commit, branch.sha)
        if found.merge_base != commit or found.behind_by:
            judge(f"{found.status}, without {found.behind_by} of its commits", ok=False)
        elif not found.ahead_by:
            judge("nothing more: no fix on it yet", Outcome.INCONCLUSIVE)
        else:
            judge("yes")
    with context.finding(subject, f"CI of {branch.name}", "green") as judge:
        rows = ci_rows(ci, forge.check_runs(branch.sha), forge.statuses(branch.sha))
        judge(explain(rows, "green", ""), worst(row.outcome for row in rows))


__all__ = ["no_regression", "plan", "validators_signed_off", "watch"]


WITNESS = "mainnet.activate.witness-gate"


def _profile(context: Context) -> None:
    """Every gate of every node equals the mainnet profile: no named deviation is left."""
    from ..changes.targets import read_bundle

    wanted = read_bundle(context).profile(context.stage)
    answers = context.fleet.rollout()
    for name, seen in context.answers("gates", "the mainnet profile", answers):
        wrong = {g: on for g, on in wanted.feature_gates.items() if seen.feature_gates.get(g) != on}
        for gate, on in wrong.items():
            got = seen.feature_gates.get(gate, "absent")
            context.judge(name, f"{GATES_AT}.{gate}", on, got, ok=False)
        if not wrong:
            channel = wanted.release_channel
            context.judge(name, "profile and channel", channel, seen.release_channel)


def _in_effect(context: Context) -> None:
    """The profile everywhere, and on every node the traffic that shows each gate at work."""
    _profile(context)
    at = effect(context.so_far, WITNESS)
    for gate in OBSERVABLE:
        judge_proof(context, WITNESS, gate, at)


witness_gate = rollout(
    WITNESS,
    "{nodes} run the release on the mainnet profile, every gate read back",
    each_wave=judge_freeze,
    after=_in_effect,
    capture=pin_before,
)


@judges("mainnet.activate.watch")
def watch(context: Context) -> CheckResult:
    """Make the looks that are due, engage who must know, and at the end judge the whole window.

    Playbook: mainnet, activation, 3.
    """
    from .watch import watched

    return watched(context)


def metrics_figure(context: Context) -> Drawn:
    """The watch so far beside what was before the gate. Raises SourceError."""
    from .watch import TOPICS

    told = data_of(context.journal, watch.item)
    if not told or "anchor" not in told[-1]:
        raise SourceError(watch.item, "expected a window that was watched, got none")
    start, end = (datetime.fromisoformat(told[-1][which]) for which in ("anchor", "end"))
    window = start, min(context.at, end)
    return stage_figure(context, watch.item, window, *TOPICS, change=WITNESS)


def expectations(context: Context) -> list[tuple[str, str, Value]]:
    """What must hold, with its thresholds, before any data is read."""
    hours = context.params.watch_hours
    looks = f"looks at most {context.params.look_minutes:g} min apart"
    return [
        *preflight.expectations(context),
        (validators_signed_off.item, "every validator signed off on window and plan", "all"),
        (hotfix_branches.item, "every open issue low-risk, its branch queued and green", "all"),
        (watch.item, "the cluster is watched and nothing is undecided", f"{hours:g} h, {looks}"),
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
    open_issues: Count


class MilestoneIssue(Wire):
    """An open issue of a milestone, or a pull request, which has ``pull_request``."""

    number: int
    state: Literal["open", "closed"]
    body: str | None
    labels: list[Annotated[str, BeforeValidator(_name)]]
    milestone: _Number | None
    pull_request: object = None

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
        got = self.ask(source, "GET", f"{self.base}/branches/{quote(name)}", absent=True)
        if got.status_code != 404:
            found = wire.decode(source, got.content, Branch)
            if found.name != name:
                raise SourceError(source, f"expected {name}, got {found.name}; it was renamed")
            return found
        said = explanation(got.content)
        if said != "Branch not found":  # said of a repository we may not see
            raise SourceError(source, f"expected a branch or none, got 404: {said}")
        return None

    def compare(self, base: str, head: str) -> Comparison:
        """What ``head`` has that ``base`` has not, and the other way round; both are commits."""
        source = f"forge: {base[:12]}...{head[:12]}"
        path, page = f"/compare/{base}...{head}", (("per_page", "1"),)
        found = self.read(source, path, Comparison, page)
        if found.base != base:
            raise SourceError(source, f"expected the base {base[:12]}, got {found.base[:12]}")
        return found
