"""A post as a step of a change: looked for, sent once, read back; what is in flight is kept."""

from pathlib import Path

from ..context import Context
from ..errors import SourceError, tried
from ..evidence import posts
from ..evidence.events import Queued, of
from ..evidence.posts import OnForge, Post, Sending, sending
from ..outcomes import Row, check_row, unknown_row
from ..sources.process import Ended
from .apply import Applier, Step, all_pass


def publish(context: Context, applier: Applier, post: Post) -> tuple[list[Row], Sending]:
    """Publish a post; whether and where it stands. It waits in the outbox until it is read back."""
    one = sending(post, context.scope, context.site, context.folder)
    later = f"kept in the outbox: runbook publish {context.attempt_name}"
    if secret := leaked(context, post):
        return [secret], one
    stands = tried(one.stands)
    if isinstance(stands, SourceError) and isinstance(one, OnForge):
        rows = [unknown_row(post.subject, post.step, "sent", f"{stands}; {later}")]
    else:
        # A channel that cannot be read may be told all the same, once.
        known = None if isinstance(stands, SourceError) else stands
        rows = put(context, applier, one, known, later)
    if all_pass(rows):
        posts.drop(context.folder, post.name)
    else:
        posts.keep(context.folder, post)
        context.log.append(post.queued())
    return rows, one


def put(
    context: Context, applier: Applier, one: Sending, stands: bool | None, later: str = ""
) -> list[Row]:
    """Send what does not stand there as a step, and read it back. ``stands``: None is not known."""
    post = one.post
    applier.settle(post.subject, post.step, stands is True)

    def run(lock: int, outputs: Path) -> Ended:
        ended = one.send(lock, outputs)
        why = "; ".join(filter(None, (ended.problem, later)))
        return ended if ended.code == 0 else Ended(ended.code, b"", b"", why)

    if not (stands or (stands is None and was_told(context, applier, post))):
        # By its try: one that was sent, and does not stand there, is sent again.
        step = Step(post.subject, f"{post.step}-{context.scope.number}", run, expected="sent")
        if not applier.step(step):
            return [applier.rows.pop()]
    try:
        return one.read_back()
    except SourceError as error:
        return [check_row(error.source, f"{post.step} read back", "an answer", error)]


def was_told(context: Context, applier: Applier, post: Post) -> bool:
    """Whether an earlier try sent a post, or ``runbook publish`` what that kept of it."""
    if applier.did(post.subject, post.step):
        return True
    kept = [event for event in of(context.journal, Queued) if event.name == post.name]
    if not kept or kept[-1].content != post.queued().content:
        return False

    def look() -> str:
        waits = [path.name for path in posts.pending(context.folder)]
        return "waits" if post.name in waits else "sent"

    return context.scope.derive(f"what became of {post.name}", look) == "sent"


def leaked(context: Context, post: Post) -> Row | None:
    """A finding where a text that is to be told holds a secret."""

    def look() -> str:
        return "yes" if context.scope.outside.redactor.found_in(post.text.encode()) else ""

    if not context.scope.derive(f"a secret in the {post.step}", look):
        return None
    got = "one; find out how it came there, and take it out of the texts"
    return check_row(post.step, "secrets", "none", got, ok=False)
