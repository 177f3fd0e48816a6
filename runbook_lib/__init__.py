"""Staged-rollout runbooks for rpp-chain: notebooks whose executed copy is release evidence."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .stage import open_stage

__all__ = ["open_stage"]


def __getattr__(name: str) -> Any:
    # Commands that open no stage do not pay for importing one.
    if name == "open_stage":
        from .stage import open_stage

        return open_stage
    raise AttributeError(name)
