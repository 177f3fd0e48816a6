"""Settings all tests share."""

from __future__ import annotations

from hypothesis import settings

# A first example pays for imports, and machines are shared: time is no property to test here.
settings.register_profile("runbooks", deadline=None)
settings.load_profile("runbooks")
