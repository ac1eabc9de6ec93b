"""A package's source files as syntax trees, and where their names come from."""

from __future__ import annotations

import ast
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Module:
    """A source file: its functions, classes and values, and where its other names come from."""

    def __init__(self, sources: Sources, path: tuple[str, ...]) -> None:
        self.sources, self.path = sources, path
        self.own: dict[str, Any] = {}
        self.named: dict[str, tuple[tuple[str, ...], str]] = {}
        self.stars: list[tuple[str, ...]] = []
        text, package = sources.text(path)
        try:
            body = ast.parse(text).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            body = []
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                self.own[node.name] = node
            elif isinstance(node, ast.Assign):
                self.own.update({one.id: node.value for one in node.targets if isinstance(one, ast.Name)})
            elif isinstance(node, ast.ImportFrom):
                self.take(node, package)

    def take(self, node: ast.ImportFrom, package: bool) -> None:
        """Note what an import brings from this package's modules."""
        parts = tuple((node.module or "").split(".")) if node.module else ()
        if node.level:
            folder = self.path if package else self.path[:-1]
            origin = folder[: len(folder) - node.level + 1] + parts
        elif parts[:1] == ("deepspeed",):
            origin = parts[1:]
        else:
            return
        for name in node.names:
            if name.name == "*":
                self.stars.append(origin)
            else:
                self.named[name.asname or name.name] = (origin, name.name)

    def find(self, name: str, depth: int = 8) -> tuple[Module, Any] | None:
        """Where a name is from, and its tree; None for what another package has."""
        if name in self.own:
            return self, self.own[name]
        if depth and name in self.named:
            origin, original = self.named[name]
            return self.sources.module(origin).find(original, depth - 1)
        tried = (self.sources.module(origin).find(name, depth - 1) for origin in (self.stars if depth else ()))
        return next((found for found in tried if found is not None), None)


class Sources:
    """The files of the package in a folder, each parsed when it is first asked for."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.modules: dict[tuple[str, ...], Module] = {}

    def text(self, path: tuple[str, ...]) -> tuple[str, bool]:
        """A module's text, empty where there is none, and whether it is a package's."""
        stem = os.path.join(self.folder, *path)
        for name, package in ((stem + ".py", False), (os.path.join(stem, "__init__.py"), True)):
            try:
                with open(name, encoding="utf-8", errors="replace") as file:
                    return file.read(), package
            except OSError:
                continue
        return "", False

    def module(self, path: tuple[str, ...]) -> Module:
        """The module at a path; an empty one where there is none."""
        if path not in self.modules:
            self.modules[path] = Module(self, path)
        return self.modules[path]
