"""`$(( … ))` worked out where every part of it is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dsdoctor.jobs.unknown import Unknown

if TYPE_CHECKING:
    from tree_sitter import Node

_LARGEST = 1 << 63  # the shell's numbers have 64 bits
_DEEPEST = 50


def evaluate(node: Node, value_of: Callable[[str], int | Unknown]) -> str:
    """The number as text, or an Unknown with the reason. `value_of` gives a variable's number."""
    written = " ".join((node.text or b"").decode("utf-8", "replace").split())
    inside = [child for child in node.children if child.is_named]
    result = _number(inside[0], value_of, 0) if len(inside) == 1 else None
    if isinstance(result, Unknown):
        return Unknown(written, result.reason)
    return Unknown(written, f"{written} is not worked out") if result is None else str(result)


def _number(node: Node, value_of: Callable[[str], int | Unknown], depth: int) -> int | Unknown | None:
    """None for what is not worked out."""
    text = (node.text or b"").decode("utf-8", "replace")
    if depth > _DEEPEST:
        return None
    if node.type in ("number", "word"):
        return int(text) if text.isdigit() and (text == "0" or text[0] != "0") and len(text) < 19 else None
    if node.type == "variable_name":
        return value_of(text)
    if node.type in ("simple_expansion", "expansion"):
        return value_of(text.strip("${}"))
    if node.type == "parenthesized_expression":
        named = [child for child in node.children if child.is_named]
        return _number(named[0], value_of, depth + 1) if len(named) == 1 else None
    if node.type == "binary_expression" and node.child_count == 3:
        left = _number(node.children[0], value_of, depth + 1)
        right = _number(node.children[2], value_of, depth + 1)
        if isinstance(left, int) and isinstance(right, int):
            return _calculated(left, node.children[1].type, right)
        return left if isinstance(left, Unknown) else right if isinstance(right, Unknown) else None
    return None


def _calculated(left: int, operator: str, right: int) -> int | None:
    result: int | None = None
    if operator == "+":
        result = left + right
    elif operator == "-":
        result = left - right
    elif operator == "*":
        result = left * right
    elif operator == "/" and right:
        result = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)  # the shell cuts towards 0
    elif operator == "%" and right:
        result = abs(left) % abs(right) * (-1 if left < 0 else 1)
    return result if result is not None and abs(result) < _LARGEST else None
