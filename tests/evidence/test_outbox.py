"""What could not be sent is kept until it is sent: at no instant does it look as if it were."""

from pathlib import Path

import pytest

from runbook_lib.evidence import outbox


def test_a_document_lies_there_whenever_the_next_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept anew, killed as it is written: the older one still waits."""

    def killed(*given: object) -> None:
        raise KeyboardInterrupt

    outbox.keep(tmp_path, "notify-abc", 1, {"text": "go back"})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(outbox, "keep_file", killed)
        outbox.keep(tmp_path, "notify-abc", 2, {"text": "go back"})
    assert [path.name for path in outbox.pending(tmp_path)] == ["01-notify-abc.json"]

    outbox.keep(tmp_path, "notify-abc", 2, {"text": "go back"})
    assert [path.name for path in outbox.pending(tmp_path)] == ["02-notify-abc.json"]
