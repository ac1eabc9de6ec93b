"""Plain values in Python files, read as a syntax tree and not run; `ast` itself is more than that takes."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ONLY_TREE = 0x400  # ast.PyCF_ONLY_AST
PROBLEMS = (SyntaxError, ValueError, TypeError, RecursionError, MemoryError)


def constants(source: str) -> dict[str, Any]:
    """The names that a module gives plain values to."""
    values: dict[str, Any] = {}
    for name, value in assigned(source):
        if type(value).__name__ == "Constant":
            values[name] = value.value
    return values


def mappings(source: str) -> dict[str, dict[Any, Any]]:
    """The names that a module gives plain mappings to, as far as they can be read."""
    values: dict[str, dict[Any, Any]] = {}
    try:
        for name, value in assigned(source):
            if type(value).__name__ == "Dict":
                values[name] = plain(value)
    except PROBLEMS:
        pass  # what came before it stands
    return values


def assigned(source: str) -> list[tuple[str, Any]]:
    """The names that a module's outermost lines give values to, with the values' trees; none of one with an error."""
    try:
        tree: Any = compile(source, "module", "exec", ONLY_TREE, True)
    except PROBLEMS:
        return []
    found = []
    for node in tree.body:
        if type(node).__name__ in ("Assign", "AnnAssign") and node.value is not None:
            targets = node.targets if hasattr(node, "targets") else [node.target]
            found += [(target.id, node.value) for target in targets if type(target).__name__ == "Name"]
    return found


def plain(node: Any) -> Any:
    """The value of a tree of constants, mappings and lists. Raises ValueError for any other."""
    kind = type(node).__name__
    if kind == "Constant":
        return node.value
    if kind == "Dict":
        return {plain(key): plain(value) for key, value in zip(node.keys, node.values)}
    if kind in ("List", "Tuple"):
        return [plain(each) for each in node.elts]
    raise ValueError("a value that is computed")
