"""YAML as a tree of nodes with their lines, read within limits; what a node is, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

MAX_DEPTH = 100
MAX_EVENTS = 200_000  # a node in memory is a hundred times its text
_NUMBER = re.compile(
    r"[-+]?(\d[\d_]*(\.\d*)?([eE][-+]?\d+)?|0[xX][0-9a-fA-F_]+|0o?[0-7_]+)", re.ASCII
)
_KINDS = {
    yaml.ScalarNode: "a scalar",
    yaml.SequenceNode: "a list",
    yaml.MappingNode: "a mapping",
}


class Hostile(Exception):
    """The file asks for more than it may; the reader says so in its findings."""

    def __init__(self, expected: str, got: str, line: int) -> None:
        self.expected, self.got, self.line = expected, got, line
        super().__init__(expected, got)


def documents(text: bytes) -> Iterator[yaml.Node]:
    """Documents one by one; each is seen to be shallow before libyaml's recursion meets it."""
    events = yaml.parse(text, yaml.CSafeLoader)
    nodes = yaml.compose_all(text, yaml.CSafeLoader)
    depth = 0
    for count, event in enumerate(events):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if count > MAX_EVENTS:
            raise Hostile(f"at most {MAX_EVENTS} values", "more; split the file", line)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise Hostile(f"at most {MAX_DEPTH} levels of nesting", "more", line)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentEndEvent):
            yield next(nodes)


def shown(value: str) -> str:
    """A value of a file, quoted and short enough for a line."""
    return repr(value if len(value) <= 80 else value[:77] + "...")


def pairs(node: yaml.Node) -> list[tuple[yaml.Node, yaml.Node]]:
    """Keys and values of a mapping; of anything else none."""
    return node.value if isinstance(node, yaml.MappingNode) else []


def scalar(*nodes: yaml.Node) -> bool:
    """Whether all of them are plain values."""
    return all(isinstance(node, yaml.ScalarNode) for node in nodes)


def is_null(node: yaml.Node) -> bool:
    """Whether it says that there is nothing."""
    return bool(node.tag == "tag:yaml.org,2002:null")


def kind_of(node: yaml.Node) -> str:
    """What a node is, in words; a plain value itself."""
    return shown(node.value) if isinstance(node, yaml.ScalarNode) else _KINDS[type(node)]


def line_of(node: yaml.Node) -> int:
    """Where it stands, from 1; 0 when that is not known."""
    return int(node.start_mark.line) + 1 if node.start_mark else 0


def whole(node: yaml.Node) -> bool:
    """What Go's YAML takes for an integer; of a number with a fraction it keeps the whole part."""
    plain = isinstance(node, yaml.ScalarNode) and not node.style  # in quotes it is text
    return plain and _NUMBER.fullmatch(node.value) is not None
