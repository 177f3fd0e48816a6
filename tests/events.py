"""Events for tests, which name of each what they are about."""

from typing import Any

from pydantic_core import to_json

from runbook_lib.evidence import incidents
from runbook_lib.evidence.events import Event, read_line

AT = "2026-11-23T14:00:00+00:00"
WHO: dict[str, Any] = {"operator": "alice", "source": "live"}
DEFAULTS: dict[str, dict[str, Any]] = {
    "opened": {
        **WHO, "site": "practice", "cluster": "development", "chain_id": "rpp-development",
        "release": "v1", "commit": "c0ffee", "stage": "development", "mode": "apply", "attempt": 1,
        "params": {}, "policy": "", "declared": [], "run": "headless", "single_operator": False,
        "now": AT, "version": "0.1.0",
    },
    "adopting": {**WHO, "site": "practice", "cluster": "development"},
    "session": {
        **WHO, "number": 1, "params": {}, "policy": "", "run": "headless", "now": AT,
        "version": "0.1.0", "package": "",
    },
    "waiver": {
        "digest": "", "approved_by": ["bob"], "self_approved": False, "reason": "a known risk",
        "grounds": [], "outcome": "FAIL",
    },
    "dropped": {"digest": "", "approved_by": ["bob"], "self_approved": False, "plan": "",
                "reason": "it is broken"},
    "sealed": {
        "notebook": "10_development.ipynb", "digest": "", "code": "", "foreign": False,
        "outcome": "PASS", "exit_code": 0, "broken": [], "number": 1,
    },
    "not-reached": {"number": 1, "reason": "not reached", "due": None},
    "step": {"item": "development.activate.deploy", "node": "dev-1", "step": "restart",
             "phase": "done", "stem": "", "at": AT, "fence": 0},
    "state": {"item": "development.activate.deploy", "node": "dev-1", "at": AT, "state": {
        "gates": {}, "channel": "development", "binary": "sha256:1", "config": "sha256:2",
    }},
    "plan": {
        "digest": "", "author": "alice", "approved_by": [], "rows": [],
        "plan": {
            "stage": "canary", "release": "v1", "commit": "c0ffee", "cluster": "testnet",
            "chain_id": "rpp-testnet", "policy": "", "phases": [],
            "artifact": {"path": "", "digest": "", "binary": ""},
        },
    },
    "watching": {"number": 1, "operator": "alice", "run": "headless"},
    "look": {"key": "1", "at": AT},
    "incident-opened": {
        "release": "v1.4.0", "commit": "c0ffee", "stage": "canary", "cluster": "testnet",
        "attempt": "v1.4.0/canary_recovery/0001", "undoes": None, "by": "alice", "at": AT,
        "issue": 0,
    },
    "incident-agreed": {"by": "carol", "at": AT, "grounds": []},
    "incident-closed": {"by": "alice", "at": AT, "reason": "it is over"},
}  # fmt: skip


def event(kind: str, **fields: Any) -> Event:
    """An event as it is read from a log; fields may be models, instants or JSON."""
    line = to_json({"v": 1, "kind": kind, **DEFAULTS.get(kind, {}), **fields})
    return incidents.read_line(line) if kind.startswith("incident-") else read_line(line)
