"""What a notebook may import from the package, and nothing more by accident."""

from __future__ import annotations

import pytest

import runbook_lib


def test_the_package_exports_open_stage_alone() -> None:
    """The one name a stage notebook needs; checks come from ``runbook_lib.checks``."""
    assert runbook_lib.__all__ == ["open_stage"]
    assert runbook_lib.open_stage.__module__ == "runbook_lib.stage"


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="close_stage"):
        _ = runbook_lib.close_stage
