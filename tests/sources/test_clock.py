"""The clock of a site: read once a try, and in a rehearsal ahead of UTC."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from runbook_lib.errors import SourceError
from runbook_lib.reach import Clock
from runbook_lib.sources.tape import read_entries

from .conftest import World


def test_the_clock_is_read_once_per_try(world: World) -> None:
    scope = world.scope()
    assert scope.now() == scope.now()
    assert scope.reread() >= scope.now()
    assert [entry.key for entry in read_entries(world.folder)] == ["CLOCK", "CLOCK"]


def test_a_rehearsals_clock_runs_ahead_by_its_file(world: World, tmp_path: Path) -> None:
    file = tmp_path / "clock.json"
    file.write_text(json.dumps({"offset_s": 86_400.5}))
    scope = world.scope(clock=Clock(source="offset-file", path=str(file)))
    ahead = scope.now() - world.scope(item="other").now()
    assert timedelta(hours=23) < ahead < timedelta(hours=25)
    assert scope.offset == timedelta(seconds=86_400.5)
    replay = world.replay()
    assert (replay.now(), replay.offset) == (scope.now(), scope.offset)


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("{}", "KeyError('offset_s')"),
        ('{"offset_s": true}', "ValueError(True)"),
        ('{"offset_s": NaN}', "ValueError(nan)"),
        ('{"offset_s": "5"}', "TypeError('must be real number, not str')"),
        ("[]", "TypeError('list indices must be integers or slices, not str')"),
    ],
)
def test_an_unreadable_clock_is_a_source_error(
    world: World, tmp_path: Path, text: str, got: str
) -> None:
    file = tmp_path / "clock.json"
    file.write_text(text)
    with pytest.raises(SourceError) as caught:
        world.scope(clock=Clock(source="offset-file", path=str(file))).now()
    assert str(caught.value) == f"clock: {file}: expected {{offset_s: SECONDS}}, got: {got}"
