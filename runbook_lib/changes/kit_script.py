"""The kit's shell script: the site's own commands, quoted, in a frame that keeps a journal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from ..errors import SourceError
from ..reach import Command
from ..site import Site
from ..sources.process import program
from ..sources.running import fill
from ..strict import PROJECT, project_path
from .kit_model import Kit, key_of, target_file

FRAME = Path(__file__).with_name("recover.sh")
_KIT = "\0"  # no argument of a command can hold it


def quoted(word: str) -> str:
    """A word as the shell reads it back, whatever it holds; the kit's folder stays a variable."""
    text = "'" + word.replace("'", "'\\''") + "'"
    return text.replace(_KIT, "'\"$kit\"'")


def script(kit: Kit, site: Site) -> bytes:
    """``recover.sh``. Raises SourceError for a site that lacks a command it needs."""
    filled = {
        "#@ACTS@": "\n".join(_acts(kit, site)) if kit.ours else "    # no node of ours",
        "@TITLE@": f"The way back from {kit.name}, as a script of its own.",
        "@OURS@": quoted(" ".join(node.key for node in kit.ours)),
        "@OPERATORS@": quoted(" ".join(f"{key_of(name)}.md" for name in kit.operators)),
        "@VARIANTS@": quoted(" ".join(kit.variants)),
        "@PROJECT@": quoted(str(PROJECT)),
    }
    text = FRAME.read_text("utf-8")
    for mark, value in filled.items():
        before, _, after = text.partition(mark)
        text = before + value + after
    return text.encode("utf-8", "surrogateescape")


def _acts(kit: Kit, site: Site) -> Iterator[str]:
    deploy, restart = _command(site, "deploy"), _command(site, "restart")
    for node in kit.ours:
        assert node.artifact is not None
        path = str(project_path(node.artifact.path))
        for variant in kit.variants:
            config = str(target_file(Path(_KIT), node.node, variant))
            argv = fill(
                "commands.deploy",
                deploy.argv,
                node=node.node,
                artifact=path,
                digest=node.artifact.digest,
                config=config,
            )
            yield f"    {quoted(f'{variant}/{node.key}/deliver')})"
            yield f"      checked {quoted(config)} {_hex(node.states[variant].config)} &&"
            yield f"        checked {quoted(path)} {_hex(node.artifact.digest)} &&"
            yield f"        within {_run(deploy, argv)}"
            yield "      ;;"
        argv = fill("commands.restart", restart.argv, node=node.node)
        yield f"    */{quoted(f'{node.key}/restart')})"
        # A node that it starts may outlive us, and must not go on holding our lock.
        yield f"      within {_run(restart, argv)} 9>&-"
        yield "      ;;"


def _command(site: Site, purpose: str) -> Command:
    command: Command | None = getattr(site.commands, purpose)
    if command is None:
        raise SourceError(purpose, f"expected commands.{purpose} in the site file, got none")
    return command


def _run(command: Command, argv: list[str]) -> str:
    # A shell elsewhere may find another program of that name, or none.
    words = [program(argv[0]), *argv[1:]]
    return " ".join([str(math.ceil(command.timeout_s)), *map(quoted, words)])


def _hex(digest: str) -> str:
    return quoted(digest.removeprefix("sha256:"))
