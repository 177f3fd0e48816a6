"""A post as a step of a change: looked for, sent once, read back; what is in flight is kept."""

from typing import Any

from ..context import Context
from ..errors import SourceError, SourceRefused, tried
from ..evidence import posts
from ..evidence.events import Queued, of
from ..evidence.posts import ByCommand, OnForge, Post
from ..outcomes import Row, check_row, unknown_row
from ..sources.process import Ended
from ..wording import utc
from .apply import DONE, Applier, Step, all_pass


def publish(context: Context, applier: Applier, post: Post) -> tuple[list[Row], int]:
    """Publish a post: what came of it, and its number on the forge. It is kept until it is read back."""
    one = posts.sending(post, context.scope, context.site, context.folder)
    if secret := leaked(context, post):
        return [secret], 0
    later = f"; kept in the outbox: runbook publish {context.attempt_name}"
    stands = tried(one.stands)
    if isinstance(stands, SourceError) and isinstance(one, OnForge):
        rows = [unknown_row(post.subject, post.step, "sent", f"{stands}{later}")]
    else:  # a channel that cannot be read may be told all the same, once
        known = None if isinstance(stands, SourceError) else stands
        rows = put(context, applier, one, known, later)
    if all_pass(rows):
        posts.drop(context.folder, post.name)
    else:
        context.log.append(posts.keep(context.folder, post))
    return rows, one.ours.number if isinstance(one, OnForge) and one.ours is not None else 0


def put(
    context: Context,
    applier: Applier,
    one: OnForge | ByCommand,
    stands: bool | None,
    later: str = "",
) -> list[Row]:
    """Send what does not stand there (None: nobody can tell), as a step, and read it back."""
    post = one.post

    def run(*given: Any) -> Ended:
        error = tried(one.send, *given)
        if isinstance(error, SourceError):
            why = error.problem.partition(", got ")[2] or error.problem
            return Ended(1 if isinstance(error, SourceRefused) else None, b"", b"", why + later)
        return DONE

    applier.settle(post.subject, post.step, stands is True)
    if not (stands or (stands is None and _was_told(context, applier, post))):
        if post.until and context.scope.reread() >= post.until:
            got = f"its window ended {utc(post.until)}; it was not sent"
            return [unknown_row(post.subject, post.step, "while it may be followed", got)]
        # By its run: one that was sent, and does not stand there, is sent again.
        step = Step(post.subject, f"{post.step}.{context.scope.number}", run, expected="sent")
        if not applier.step(step):
            return [applier.rows.pop()]
    back = tried(one.read_back)
    if isinstance(back, SourceError):
        return [check_row(back.source, f"{post.step} read back", "an answer", back)]
    return back


def _was_told(context: Context, applier: Applier, post: Post) -> bool:
    """Whether an earlier run sent it, or ``runbook publish`` what that kept of it."""
    if applier.did(post.subject, post.step):
        return True

    def look() -> str:
        waits = any(path.stem == post.name for path in posts.pending(context.folder))
        return "waits" if waits else "sent"

    kept = any(event.name == post.name for event in of(context.journal, Queued))
    return kept and context.scope.derive(f"what became of {post.name}", look) == "sent"


def leaked(context: Context, post: Post) -> Row | None:
    """A finding where a text that is to be told holds a secret."""

    def look() -> str:
        return "yes" if context.scope.tape.redactor.found_in(post.text.encode()) else ""

    if not context.scope.derive(f"a secret in the {post.step}", look):
        return None
    got = "one; find out how it came there, and take it out of the texts"
    return check_row(post.step, "secrets", "none", got, ok=False)
