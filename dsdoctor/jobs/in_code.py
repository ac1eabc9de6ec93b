"""A DeepSpeed config that a Python program holds as a mapping, with the lines of its keys in the program."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from typing import Any

from dsdoctor.jobs.dsconfig import parse_config
from dsdoctor.jobs.job import DeepSpeedConfig
from dsdoctor.yamlfile import FileError

_GIVEN_AS = {"initialize": ("config", "config_params"), "TrainingArguments": ("deepspeed",)}


def config_in_code(text: str, source: str) -> DeepSpeedConfig | None:
    """The mapping that TrainingArguments(deepspeed=…) or deepspeed.initialize(config=…) is given; None without one.

    Written there, or under a name that gets one value and is not changed after; a mapping with anything in it that is
    computed is left out, since what it lacks nobody can tell. Its text is JSON, each key on its line in the program.
    """
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for node in nodes:
        name = _called(node)
        for keyword in node.keywords if isinstance(node, ast.Call) else ():
            if keyword.arg in _GIVEN_AS.get("TrainingArguments" if name.endswith("TrainingArguments") else name, ()):
                found = _mapping(keyword.value, nodes)
                config = _as_config(found, source) if found is not None else None
                if config is not None:
                    return config
    return None


def _mapping(value: ast.expr, nodes: Sequence[ast.AST]) -> ast.Dict | None:
    """The mapping that an expression stands for."""
    if isinstance(value, ast.Dict):
        return value
    if not isinstance(value, ast.Name):
        return None
    given = [node for node in nodes if isinstance(node, ast.Assign | ast.AnnAssign) and value.id in _targets(node)]
    changed = any(_changes(node, value.id) for node in nodes)
    if len(given) == 1 and not changed and isinstance(given[0].value, ast.Dict):
        return given[0].value
    return None


def _targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _changes(node: ast.AST, name: str) -> bool:
    """Whether a mapping of that name is set in parts, or changed by one of its methods."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        inner: ast.AST = node.value
        while isinstance(inner, ast.Subscript):
            inner = inner.value
        return isinstance(inner, ast.Name) and inner.id == name
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGING
    return called and any(isinstance(one, ast.Name) and one.id == name for one in ast.walk(node))


_CHANGING = ("update", "pop", "setdefault", "clear", "popitem")


def _as_config(mapping: ast.Dict, source: str) -> DeepSpeedConfig | None:
    try:
        ast.literal_eval(mapping)
        written = _Written()
        written.put(mapping)
        return parse_config("".join(written.parts), source)
    except (FileError, ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


class _Written:
    """JSON in the making, with as many lines as the program has up to each key."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.line = 1

    def put(self, node: ast.expr) -> None:
        """Add a value. Raises ValueError for what JSON cannot have."""
        if not isinstance(node, ast.Dict):
            self.parts.append(json.dumps(ast.literal_eval(node), allow_nan=False))
            return
        self.parts.append("{")
        for place, (key, value) in enumerate(zip(node.keys, node.values, strict=True)):
            name: Any = ast.literal_eval(key) if key is not None else None
            if not isinstance(name, str) or key is None:
                raise ValueError("a key that is no text")
            self.parts.append(("," if place else "") + "\n" * (key.lineno - self.line) + json.dumps(name) + ":")
            self.line = max(self.line, key.lineno)
            self.put(value)
        self.parts.append("}")


def _called(node: ast.AST) -> str:
    """The last part of what is called; of `initialize` only DeepSpeed's."""
    if not isinstance(node, ast.Call):
        return ""
    if isinstance(node.func, ast.Attribute):
        whose = getattr(node.func.value, "id", "")
        return node.func.attr if node.func.attr != "initialize" or whose in ("deepspeed", "ds") else ""
    return getattr(node.func, "id", "")
