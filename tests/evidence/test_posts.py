"""What lies in an outbox: sent only as the log names it, and only by one way."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.evidence import posts
from runbook_lib.evidence.posts import Post

from ..messages import saying

SINCE = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "good"),
    [
        ({"issue": 7}, True),
        ({"title": "Incident", "since": SINCE}, True),
        ({"command": "instruct", "values": {"operator": "ada"}}, True),
        ({}, False),
        ({"title": "Incident"}, False),
        ({"issue": 7, "command": "instruct", "values": {"operator": "ada"}}, False),
        ({"command": "announce_halt", "values": {"release": "v1"}}, False),
        ({"command": "notify", "values": {"role": "r", "subject": "s", "text": "/etc/x"}}, False),
    ],
)
def test_a_post_is_sent_by_one_way_with_all_that_it_needs(
    tmp_path: Path, given: dict[str, Any], good: bool
) -> None:
    post = Post(step="told", subject="ada", text="text", **given)
    queued = posts.keep(tmp_path, post)
    (path,) = posts.pending(tmp_path)
    if good:
        assert posts.read(path, [queued]) == post
        return
    with saying(ValueError, "expected one way to send it, with all that it needs, got another"):
        posts.read(path, [queued])
