"""The common preflight: what must hold before any stage may change anything.

Its last item stands here: the release issue holds the checks so far, read back, before apply.
"""

from collections.abc import Callable, Sequence
from functools import partial

from .. import playbook
from ..changes.apply import Applier, Change, derived
from ..changes.posts import leaked, put
from ..context import Context, Judge
from ..errors import SourceError
from ..evidence import comment
from ..evidence.events import RunStarted
from ..evidence.posts import OnForge, Post
from ..evidence.status import plan_digest, verdict
from ..outcomes import CheckResult, Row, Value
from . import binary, drift, rollback
from . import observability as observing
from .binary import binary_verification
from .drift import config_drift
from .observability import observability
from .rollback import rollback_assets

__all__ = ["binary_verification", "config_drift", "observability", "rollback_assets"]

ITEM = "preflight.release-issue"


def expected(context: Context) -> tuple[str, Value]:
    """What must hold, and its threshold."""
    named = f"issue {context.params.issue or '(none named)'}"
    return "the checks so far stand in the release issue, read back", named


def _plan(context: Context) -> list[Row]:
    """The comment that would be posted. Only reads."""
    one, _ = _state(context)
    where, ours = one.post.subject, one.ours
    what = f"comment {ours.number} is updated" if ours else "a new comment"
    context.unknown(where, "would get", "", what)
    context.unknown(where, "text", "", one.post.text)
    return context.findings


def _apply(context: Context, applier: Applier) -> CheckResult:
    """Post preflight and readiness, plan, verdicts of the other stages and heads; read back. Playbook: preflight.

    The text follows from the journal, the plan and the store. Fails when the forge refuses, or what
    is read back is not what was written; without an answer it is INCONCLUSIVE, and the next run
    looks first. It is kept in no outbox: what it says holds now.
    """
    one, stands = _state(context)
    if secret := leaked(context, one.post):
        context.findings.append(secret)
    if context.holds:
        context.findings += put(context, applier, one, stands)
    return context.conclude(passed=f"posted to {one.post.subject} and read back")


release_issue = Change(ITEM, _plan, _apply)


def _state(context: Context) -> tuple[OnForge, bool]:
    """The post, and whether it stands in the issue by now.

    A head that the issue tells of must be in the store: who opened the attempt while the forge was
    silent could not compare them.
    """
    number, release = context.params.issue, context.params.release
    if not number:
        got = "got 0: no release issue named; set `issue`"
        raise SourceError("parameters", f"expected the number of the release issue, {got}")
    where, issue = f"issue {number}", context.forge.issue(number)
    post = Post(step="comment", subject=where, text=_body(context), issue=number)
    one = OnForge(post, context.forge)
    stands = one.stands()
    context.judge(where, "state", "open", issue.state)

    def lost() -> list[str]:
        told = comment.heads_told(one.listed, one.me, context.site)
        return comment.heads_missing(context.store, release, told)

    for problem in derived(context, "heads that the store lacks", lost):
        context.judge("store", "heads that the issue tells of", "held", problem, ok=False)
    return one, stands


def _body(context: Context) -> str:
    # What was recorded before this run began; a live journal holds its beginning as well.
    last = context.journal[-1]
    begun = isinstance(last, RunStarted) and last.item == context.item
    known = context.journal[:-1] if begun else context.journal
    so_far = verdict(known)
    mine = playbook.DECLARED[so_far.stage].index(ITEM)
    update = {"stage": context.stage, "items": so_far.items[:mine], "broken": ()}
    account = comment.Account(
        verdict=so_far.model_copy(update=update),
        name=context.attempt_name,
        head=known[-1].hash,
        plan=plan_digest(known),
        sealed=False,
    )
    # The other stages' logs as they are now: a replay has the text alone.
    others = partial(comment.other_stages, context.store, context.params.release, so_far.stage)
    return comment.compose(account, derived(context, "the other stages", others))


Expected = Callable[[Context], tuple[str, Value]]
EXPECTED: Sequence[tuple[Judge | Change, Expected]] = (
    (config_drift, drift.expected),
    (binary_verification, binary.expected),
    (observability, observing.expected),
    (rollback_assets, rollback.expected),
    (release_issue, expected),
)
"""The common items, in the playbook's order, and what must hold."""


def expectations(context: Context) -> list[tuple[str, str, Value]]:
    """What must hold in the common preflight, before any data is read."""
    declared = playbook.DECLARED[playbook.PREFLIGHT]
    return [(run.item, *told(context)) for run, told in EXPECTED if run.item in declared]
