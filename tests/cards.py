"""Standings and verdicts to show, and HTML as a browser reads it."""

from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

from runbook_lib.outcomes import CheckResult, Outcome, Row, check_row, explain, unknown_row, worst
from runbook_lib.verdicts import ItemStatus, Verdict, WaivedRow

NOW = datetime(2026, 11, 23, 14, 0, 5, tzinfo=UTC)
ITEM = "preflight.config-drift"
GOOD = check_row("dev-1", "malachite_consensus", False, False, True)
BAD = check_row("dev-2", "p95 latency", 1200.0, 1250.5, False, unit="ms")
UNKNOWN = unknown_row("dev-3", "p95 latency", "<= 1200 ms", "connection refused")


def judged(*rows: Row, item: str = ITEM, **more: Any) -> ItemStatus:
    result = CheckResult(
        item=item,
        outcome=worst(row.outcome for row in rows),
        reason=explain(rows, "every node is as expected", "no node is listed"),
        rows=rows,
        started=NOW,
        ended=NOW + timedelta(seconds=3),
    )
    facts = {"kind": "check", "state": "judged", "result": result, "number": 1}
    return ItemStatus(item=item, **{**facts, **more})


def waived(subject: str = "dev-2", **more: Any) -> WaivedRow:
    """Of a FAIL, by Grace, until ``NOW``."""
    facts = {"outcome": Outcome.FAIL, "reason": "spare node", "approved_by": ("grace",)}
    return WaivedRow(
        **{"subject": subject, **facts, "self_approved": False, "expires": NOW, **more}
    )


def verdict(*items: ItemStatus, **more: Any) -> Verdict:
    facts: dict[str, Any] = {
        "release": "v1.4.0", "commit": "4f9d0c2e", "stage": "development", "site": "example",
        "mode": "apply", "attempt": 3, "number": 1, "source": "live", "run": "headless",
        "operator": "ada", "started": NOW, "ended": NOW + timedelta(minutes=4), "items": items,
    }  # fmt: skip
    return Verdict(**{**facts, **more})


class Page(HTMLParser):
    """HTML as a browser reads it; what was left open, or closed without having been, is ``open``."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.nodes: list[str] = []
        self.feed(html)
        self.close()
        self.text = "".join(self.nodes)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "wbr":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.open = self.open[:-1] if self.open[-1:] == [tag] else [*self.open, f"/{tag}"]

    def handle_data(self, data: str) -> None:
        self.nodes.append(data)
