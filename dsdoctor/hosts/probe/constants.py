"""Plain values in Python files, read and not run."""

from __future__ import annotations

import ast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def constants(source: str) -> dict[str, Any]:
    """The names a module gives plain values to, read as a syntax tree and not run."""
    values: dict[str, Any] = {}
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return values
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if value is None or not isinstance(node, (ast.Assign, ast.AnnAssign)):
            continue
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                values[target.id] = value.value
    return values


def mappings(source: str) -> dict[str, dict[Any, Any]]:
    """The names a module gives plain mappings to, read as a syntax tree and not run."""
    values: dict[str, dict[Any, Any]] = {}
    try:
        for node in ast.parse(source).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
                values.update((name.id, ast.literal_eval(node.value)) for name in node.targets if hasattr(name, "id"))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        pass  # what came before it stands
    return values
