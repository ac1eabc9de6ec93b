"""What an assignment makes of its variable, and where a command's output goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsdoctor.jobs.script.expand import Expander, text_of
from dsdoctor.jobs.script.model import Redirect, Variable, Word
from dsdoctor.jobs.script.state import State
from dsdoctor.jobs.unknown import Unknown

if TYPE_CHECKING:
    from tree_sitter import Node


def assigned(node: Node, state: State, expander: Expander) -> Variable:
    """What an assignment makes of its variable. The value is written where the first word of it stands."""
    parts = node.children
    name, line = text_of(parts[0]), node.start_point.row + 1
    before = state.variables.get(name)
    value = parts[2] if len(parts) > 2 else None
    adding = len(parts) > 1 and parts[1].type == "+="
    exported = (before.exported if before else False) or state.shared.allexport
    if parts[0].type == "subscript":
        name = text_of(parts[0].children[0])
        held = Word(Unknown(f"${name}", f"its elements are set one by one in line {line}"), line)
        return Variable(name, (held,), line, exported, array=True)
    if value is not None and value.type == "array":
        words = tuple(word for child in value.named_children for word in expander.words(child))
        return Variable(name, (*(before.words if before and adding else ()), *words), line, exported, array=True)
    text = expander.text(value) if value is not None else ""
    column = (value or node).start_point.column + 1
    if adding and before is not None:
        old = before.value
        joined = old + text
        reason = next((one.reason for one in (old, text) if isinstance(one, Unknown)), None)
        if len(joined) > 100_000:
            reason = "it grows beyond 100,000 characters"
        text = joined if reason is None else Unknown(joined[:1000], reason)
    return Variable(name, (Word(text, line, column),), line, exported)


def redirects_of(node: Node, expander: Expander) -> list[Redirect]:
    """The redirections of a node, those of its parts among them."""
    found = []
    operator = next((child.type for child in node.children if ">" in child.type or "<" in child.type), "")
    for child in node.named_children:
        if child.type == "file_redirect":
            found += redirects_of(child, expander)
        elif child.type not in ("file_descriptor", "heredoc_start", "heredoc_body", "heredoc_end"):
            if node.type != "file_redirect":
                continue
            word = Word(expander.text(child), child.start_point.row + 1, child.start_point.column + 1)
            found.append(Redirect(operator, word))
    return found
