"""Telling people: by a command, a webhook, a comment; and what is said when it fails."""

import re
from pathlib import Path

import httpx
import pytest

from runbook_lib.errors import ParameterError, SourceError
from runbook_lib.evidence.posts import OnForge, Post
from runbook_lib.reach import Command
from runbook_lib.site import Commands
from runbook_lib.sources.commands import tell
from runbook_lib.sources.github import GitHub
from runbook_lib.sources.tape import read_entries

from .conftest import World
from .github_answers import SETTINGS, comment


@pytest.fixture
def world(world: World) -> World:
    world.secrets = frozenset({"PAGER_TOKEN", "PAGER_URL"})
    return world


def told_by(world: World, command: Command, **values: str) -> None:
    tell(world.scope(), Commands(notify=command), "notify", **values)


def test_a_command_is_given_role_subject_and_text(world: World, tmp_path: Path) -> None:
    told = tmp_path / "told"
    argv = ["sh", "-c", 'printf "%s|%s|" "$1" "$2" >"$0"; cat "$3" >>"$0"', str(told)]
    command = Command(argv=[*argv, "{role}", "{subject}", "{text}"])
    text = tmp_path / "text"
    text.write_text("what was seen")

    told_by(world, command, role="release-commander", subject="A $(x)", text=str(text))

    assert told.read_text() == "release-commander|A $(x)|what was seen"
    assert [entry.purpose for entry in read_entries(world.folder)] == ["notify"]


def test_a_command_that_fails_has_told_nobody(world: World, tmp_path: Path) -> None:
    for argv, problem in (
        (["sh", "-c", "echo no route >&2; exit 7"], "expected exit code 0, got 7: no route"),
        (["page", "{who}"], "expected placeholders among {role}, {subject}, {text}"),
    ):
        with pytest.raises((SourceError, ParameterError), match=re.escape(problem)):
            told_by(world, Command(argv=argv), role="r", subject="s", text=str(tmp_path))


@pytest.mark.parametrize(
    ("author", "body", "there"),
    [
        ("Bot", "<!-- m -->\nDo this", True),
        ("bot", " <!-- m --> \r\nedited", True),
        ("eve", "<!-- m -->\nDo that", False),
        ("bot", "Do this\n<!-- m -->", False),
        ("bot", "<!-- n -->", False),
    ],
)
def test_what_stands_in_an_issue_is_our_accounts_own_word(
    world: World, author: str, body: str, there: bool
) -> None:
    """By its first line; a forge tells no accounts apart by case."""
    said = comment(1, user={"login": author}, body=body)
    scoped = world.scope(lambda _: httpx.Response(200, json=[said]))
    forge = GitHub(scoped, SETTINGS.model_copy(update={"token_env": "", "account": "bot"}))

    one = OnForge(Post(step="comment", subject="x", text="<!-- m -->\nDo this", issue=7), forge)

    assert one.stands() is (there and body.endswith("Do this"))
    assert (one.ours is not None) is there
