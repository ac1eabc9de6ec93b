"""Plain values in Python files, which are not run: read line by line where that is enough, else as a syntax tree.

`ast` itself is more than that takes, and the first tree alone costs 1 ms: Python makes the types of all its nodes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ONLY_TREE = 0x400  # ast.PyCF_ONLY_AST
NAMED = {"None": None, "True": True, "False": False}
PROBLEMS = (SyntaxError, ValueError, TypeError, RecursionError, MemoryError)


def constants(source: str) -> dict[str, Any]:
    """The names that a module gives plain values to."""
    simple = by_lines(source)
    if simple is not None:
        return {name: value for name, value in simple if not isinstance(value, dict)}
    values: dict[str, Any] = {}
    for name, value in assigned(source):
        if type(value).__name__ == "Constant":
            values[name] = value.value
    return values


def mappings(source: str) -> dict[str, dict[Any, Any]]:
    """The names that a module gives plain mappings to, as far as they can be read."""
    simple = by_lines(source)
    if simple is not None:
        return {name: value for name, value in simple if isinstance(value, dict)}
    values: dict[str, dict[Any, Any]] = {}
    try:
        for name, value in assigned(source):
            if type(value).__name__ == "Dict":
                values[name] = plain(value)
    except PROBLEMS:
        pass  # what came before it stands
    return values


def by_lines(source: str) -> list[tuple[str, Any]] | None:
    """The assignments of a module that is nothing but imports and `NAME = VALUE` or `NAME: TYPE = VALUE`, one a line.

    torch and DeepSpeed write their version files so. None for a module with anything else in it; a list of words, as
    `__all__` is, is read and left out.
    """
    found: list[tuple[str, Any]] = []
    for line in source.split("\n"):
        text = line.rstrip(" ")
        imported = text.replace(",", "").replace(".", "").split() if text.startswith(("from ", "import ")) else []
        if imported and "".join(imported).isidentifier():
            continue
        name, equals, value = text.partition("=")
        name, colon, kind = name.rstrip(" ").partition(":")
        plain_kind = kind.strip(" ").replace("[", "").replace("]", "").replace(".", "").isidentifier() or not colon
        if text and not (equals and name.isascii() and name.isidentifier() and plain_kind):
            return None
        try:
            read = literal(value.strip(" ")) if text else []
        except (ValueError, TypeError):
            return None
        found += [] if isinstance(read, list) else [(name, read)]
    return found


def literal(text: str) -> Any:
    """The value of a text in quotes, a number, None, True or False, or of a list or mapping of these on one line.

    Raises ValueError for any other, and for what looks like another: a text with a backslash or a quote in it.
    """
    if text in NAMED:
        return NAMED[text]
    inside = text[1:-1]
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" and inside.isprintable():
        if not set(inside) & set("'\"\\"):
            return inside
    elif text[:1] == "[" and text[-1:] == "]":
        return [literal(part.strip(" ")) for part in inside.split(",") if inside]
    elif text[:1] == "{" and text[-1:] == "}":
        pairs = [part.partition(":") for part in inside.split(",") if inside]
        return {literal(key.strip(" ")): literal(value.strip(" ")) for key, _, value in pairs}
    elif text.isascii() and text.isdigit() and (text[0] != "0" or text == "0") and len(text) < 19:
        return int(text)
    raise ValueError(text)


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
