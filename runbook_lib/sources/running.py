"""A command of the site: an argv whose ``{placeholders}`` are filled in, run without a shell."""

import re

from .. import reach, site
from ..errors import ParameterError, SourceError
from .process import Ended
from .scope import Scope

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
LONGEST_REASON = 300


def fill(where: str, argv: list[str], **values: str) -> list[str]:
    """``argv`` with its placeholders filled. Raises ParameterError for one it cannot know."""

    def replace(found: re.Match[str]) -> str:
        name = found[1]
        if name not in values:
            known = ", ".join(f"{{{key}}}" for key in sorted(values)) or "none"
            raise ParameterError(
                f"site: {where}: expected placeholders among {known}, got {{{name}}}"
            )
        return values[name]

    return [_PLACEHOLDER.sub(replace, word) for word in argv]


def filled(where: str, command: reach.Command, **values: str) -> reach.Command:
    """``command`` with its placeholders filled. Raises ParameterError."""
    return command.model_copy(update={"argv": fill(where, command.argv, **values)})


def execute(
    scope: Scope,
    source: str,
    command: reach.Command,
    *,
    any_code: bool = False,
    private: bool = False,
) -> Ended:
    """Run a command that only reads. Raises SourceError unless it ended, with exit code 0 or any."""
    ended = scope.run(command, private=private)
    if ended.code is None:
        raise SourceError(source, f"expected the command to end, got: {ended.problem}")
    if not any_code:
        require_well(source, ended)
    return ended


def reason(ended: Ended) -> str:
    """The last thing a command said on stderr, else on stdout; one line."""
    text = ended.stderr.strip() or ended.stdout.strip()
    lines = text.decode("utf-8", "replace").splitlines() or ["it said nothing"]
    return lines[-1].strip()[:LONGEST_REASON]


def require_well(source: str, ended: Ended) -> bytes:
    """What a command printed. Raises SourceError unless it ended with exit code 0."""
    if ended.code != 0:
        got = ended.problem or f"{ended.code}: {reason(ended)}"
        raise SourceError(source, f"expected exit code 0, got {got}")
    return ended.stdout


def command_of(commands: site.Commands, purpose: str, source: str) -> reach.Command:
    """The site's command for a purpose. Raises SourceError when it names none."""
    command: reach.Command | None = getattr(commands, purpose)
    if command is None:
        raise SourceError(source, f"expected commands.{purpose} in the site file, got none")
    return command


def tell(scope: Scope, commands: site.Commands, purpose: str, **values: str) -> None:
    """Notify people by a command of the site. Raises SourceError unless it ends well."""
    where = f"commands.{purpose}"
    command = filled(where, command_of(commands, purpose, where), **values)
    require_well(where, scope.run(command, purpose="notify"))
