"""Errors by their whole message."""

import re
from typing import Any

import pytest


def saying(kind: type[BaseException], text: str, *, whole: bool = True) -> Any:
    """Expects an error that says exactly ``text``, or begins with it."""
    return pytest.raises(kind, match=rf"\A{re.escape(text)}" + (r"\Z" if whole else ""))
