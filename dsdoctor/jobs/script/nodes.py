"""Small questions to nodes of the syntax tree: what a statement looks at, sets, or goes on from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsdoctor.jobs.script.expand import text_of
from dsdoctor.jobs.script.model import Word
from dsdoctor.jobs.script.parameters import NAME as PARAMETERS

if TYPE_CHECKING:
    from tree_sitter import Node


def asks_for_status(node: Node) -> bool:
    """Whether a statement looks at how the one before it ended."""
    return node.type in ("if_statement", "test_command", "list", "case_statement", "variable_assignment") and (
        b"$?" in (node.text or b"")[:200]
    )


def goes_on(command: Node, child: Node) -> bool:
    """Whether the line before a word ends in a backslash, so that the word belongs to it."""
    text = command.text or b""
    return text[: child.start_byte - command.start_byte].rstrip(b" \t").endswith(b"\\\n")


def case_body(item: Node) -> list[Node]:
    """The statements of a case, behind its pattern."""
    closing = next((place for place, child in enumerate(item.children) if child.type == ")"), -1)
    return item.children[closing + 1 :]


def is_open(word: Word) -> bool:
    """Whether a word may stand for other words: unknown, or a pattern of file names."""
    return not word.known or (not word.quoted and any(char in word.text for char in "*?"))


def assigned_in(body: Node) -> set[str]:
    """The variables that a loop's body sets; `@` where it changes the positional parameters."""
    names, waiting = set(), [body]
    while waiting:
        node = waiting.pop()
        if node.type == "variable_assignment":
            names.add(text_of(node.children[0]))
        elif node.type in ("compound_statement", "postfix_expression"):
            names |= {text_of(child) for child in node.children if child.type == "variable_name"}
        elif node.type == "command_name" and text_of(node) in ("shift", "set"):
            names.add(PARAMETERS)
        waiting += node.children
    return names
