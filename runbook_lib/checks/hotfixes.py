"""mainnet.ready.hotfix-branches: what is left open is of low risk, and its fix is queued."""

from __future__ import annotations

from collections.abc import Callable

from ..context import Context, judges
from ..errors import SourceError
from ..outcomes import CheckResult, Outcome, Row, check_row, explain, unknown_row, worst
from ..site import Risk
from ..sources.milestones import Backlog, Branch, MilestoneIssue
from .ci import ci_rows

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


def _issue(context: Context, forge: Backlog, risk: Risk, issue: MilestoneIssue) -> list[Row]:
    subject = f"#{issue.number}"
    rows = [_risk(subject, risk, issue)]
    names = issue.branches
    if len(names) != 1:
        got = ", ".join(names) or "no line `branch: NAME` in its body"
        return [*rows, unknown_row(subject, "fix", "one branch", got)]
    name, commit = names[0], context.params.commit

    def asked(what: str, expected: str, ask: Callable[[], Row]) -> Row:
        try:
            return ask()
        except SourceError as error:
            return unknown_row(subject, what, expected, error.problem)

    try:
        branch = forge.branch(name)
    except SourceError as error:
        return [*rows, unknown_row(subject, "fix", "a branch that exists", error.problem)]
    if branch is None:
        return [*rows, check_row(subject, "fix", "a branch that exists", f"no {name}", ok=False)]
    contains, green = f"{name} contains {commit[:12]} and more", f"CI of {name}"
    return [
        *rows,
        asked(contains, "yes", lambda: _contains(forge, subject, contains, commit, branch)),
        asked(green, "green", lambda: _green(context, forge, subject, green, branch)),
    ]


def _risk(subject: str, risk: Risk, issue: MilestoneIssue) -> Row:
    above = sorted(set(issue.labels) & set(risk.above))
    if above:
        return check_row(subject, "risk", risk.low, ", ".join(above), ok=False)
    if risk.low in issue.labels:
        return check_row(subject, "risk", risk.low, risk.low, ok=True)
    labels = ", ".join(issue.labels) or "no label"
    return unknown_row(subject, "risk", f"labelled {risk.low}", labels)


def _contains(forge: Backlog, subject: str, what: str, commit: str, branch: Branch) -> Row:
    found = forge.compare(commit, branch.sha)
    if found.merge_base != commit or found.behind_by:
        got = f"{found.status}, without {found.behind_by} of its commits"
        return check_row(subject, what, "yes", got, ok=False)
    if not found.ahead_by:
        return unknown_row(subject, what, "yes", "nothing more: no fix on it yet")
    return check_row(subject, what, "yes", "yes", ok=True)


def _green(context: Context, forge: Backlog, subject: str, what: str, branch: Branch) -> Row:
    ci = context.site.forge.ci
    rows = ci_rows(ci, forge.check_runs(branch.sha), forge.statuses(branch.sha))
    outcome = worst(row.outcome for row in rows)
    got = "green" if outcome is Outcome.PASS else explain(rows, "", "")
    return check_row(subject, what, "green", got, outcome)
