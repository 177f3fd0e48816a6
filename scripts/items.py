"""Write docs/items.md: every item of the playbook, its notebook, and the faults that prove it."""

from runbook_lib import playbook
from runbook_lib.strict import PROJECT
from runbook_rehearsal.faults.table import FAULTS

PATH = PROJECT / "docs" / "items.md"
HEAD = """# The playbook's items

Made by `python scripts/items.py` out of `runbook_lib/playbook.py` and `runbook_rehearsal/faults/table.py`;
a test keeps it current. A fault is switched on with `runbook rehearse --fault NAME@STAGE` and must
bring the item to the outcome beside it; several items must notice some of them. A preflight item
stands at the head of every stage's notebook as well.
"""


def table() -> str:
    """The page: one row an item, in the playbook's order."""
    lines = [HEAD, "| item | kind | notebook | what | faults and their outcomes |"]
    lines.append("|---|---|---|---|---|")
    for item in playbook.ITEMS.values():
        faults = [f for f in FAULTS.values() if item.id in f.items]
        shown = "<br>".join(f"`{f.name}` ({f.text}): {f.outcome}" for f in faults)
        cells = (f"`{item.id}`", item.kind, notebook_of(item.id), item.title, shown)
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"{len(playbook.ITEMS)} items, {len(FAULTS)} faults.", ""]
    return "\n".join(lines)


def notebook_of(item: str) -> str:
    """The notebook in which an item stands; of the preflight's, its own."""
    found = [name for name, items in playbook.DECLARED.items() if item in items]
    if item.startswith(f"{playbook.PREFLIGHT}."):
        found = [playbook.PREFLIGHT]
    return ", ".join(f"`{playbook.NOTEBOOKS[name]}`" for name in found)


def main() -> int:
    PATH.write_text(table(), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
