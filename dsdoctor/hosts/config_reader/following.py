"""The functions that read a config, gone through with it as their argument."""

from __future__ import annotations

import ast

from .models import fields, is_model
from .sources import Module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

DEEPEST = 40  # calls in each other
HARMLESS = frozenset(
    ("isinstance", "len", "str", "bool", "int", "float", "any", "all", "print", "type", "repr", "list", "set", "sorted")
)


class Block(tuple):  # type: ignore[type-arg]
    """The config, or a block of it: the keys that lead there."""


class Part(Block):
    """A copy with some of a block's keys."""


class Either(list):  # type: ignore[type-arg]
    """Blocks of which a name holds one or another, as the branches before it went."""


class Reader:
    """What was found: the keys read by block, the model that reads a block, and the blocks that are open."""

    def __init__(self) -> None:
        self.keys: dict[Block, set[str]] = {Block(): set()}
        self.models: dict[Block, tuple[Module, ast.ClassDef]] = {}
        self.opened: set[Block] = set()
        self.done: dict[Any, Any] = {}
        self.depth = 0

    def follow(self, module: Module, function: ast.FunctionDef, given: dict[str, Any], owner: Any = None) -> Any:
        """Go through a function with these arguments; what it returns, as far as it is a block or a text."""
        mark = (id(function), tuple(sorted((name, repr(value)) for name, value in given.items())))
        if mark not in self.done and self.depth < DEEPEST:
            self.done[mark] = None
            self.depth += 1
            frame = Frame(self, module, {**defaults(self, module, function), **given}, owner)
            frame.all(function.body)
            self.depth -= 1
            self.done[mark] = frame.result
        return self.done.get(mark)

    def read(self, block: Any, key: Any) -> Any:
        """Note that a key is read; what is below it."""
        if isinstance(block, Either):
            return either(self.read(one, key) for one in block)
        if not isinstance(block, Block) or not isinstance(key, str):
            return None
        self.keys.setdefault(Block(block), set()).add(key)
        return Block((*block, key))

    def open(self, value: Any) -> None:
        """Note that a block goes where it is not followed. The whole config may: what reads it was followed before."""
        for one in value if isinstance(value, Either) else [value]:
            if isinstance(one, Block) and one:
                self.opened.add(Block(one))


class Frame:
    """A function that is gone through: the values of its names."""

    def __init__(self, reader: Reader, module: Module, names: dict[str, Any], owner: Any) -> None:
        self.reader, self.module, self.names, self.owner = reader, module, names, owner
        self.result: Any = None

    def all(self, nodes: Any) -> list[Any]:
        return [self.value(node) for node in nodes]

    def value(self, node: Any) -> Any:
        """The block, text or list of texts that a tree stands for; None for anything else."""
        method = getattr(self, "of_" + type(node).__name__.lower(), None)
        if method is not None:
            return method(node)
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Lambda)):
            self.all(ast.iter_child_nodes(node))
        return None

    def of_constant(self, node: Any) -> Any:
        return node.value if isinstance(node.value, str) else None

    def of_index(self, node: Any) -> Any:  # of Python 3.8
        return self.value(node.value)

    def of_name(self, node: Any) -> Any:
        if node.id in self.names:
            return self.names[node.id]
        found = self.module.find(node.id)
        if found is None or not isinstance(found[1], (ast.Constant, ast.List, ast.Tuple, ast.Name)):
            return None
        return Frame(self.reader, found[0], {}, None).value(found[1])

    def of_list(self, node: Any) -> Any:
        found = self.all(node.elts)
        for one in found:
            self.reader.open(one)
        return found if found and all(isinstance(one, str) for one in found) else None

    of_tuple = of_list

    def of_attribute(self, node: Any) -> Any:
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return self.names.get("self." + node.attr)
        self.value(node.value)
        return None

    def of_assign(self, node: Any) -> None:
        value = self.value(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name) and value is not None:
                self.names[target.id] = joined(self.names.get(target.id), value)
            elif isinstance(target, ast.Attribute) and value is not None:
                self.names["self." + target.attr] = value
                self.reader.open(value)
            elif not isinstance(target, (ast.Name, ast.Attribute)):
                self.value(target)
                self.reader.open(value)

    def of_subscript(self, node: Any) -> Any:
        return self.reader.read(self.value(node.value), self.value(node.slice))

    def of_compare(self, node: Any) -> None:
        left, *others = self.all([node.left, *node.comparators])
        for operator, other in zip(node.ops, others):
            if isinstance(operator, (ast.In, ast.NotIn)):
                self.reader.read(other, left)

    def of_boolop(self, node: Any) -> Any:
        return first(self.all(node.values))

    def of_ifexp(self, node: Any) -> Any:
        return first(self.all([node.test, node.body, node.orelse])[1:])

    def of_dict(self, node: Any) -> None:
        for value in self.all([each for each in (*node.keys, *node.values) if each is not None]):
            self.reader.open(value)

    def of_return(self, node: Any) -> None:
        value = self.value(node.value) if node.value is not None else None
        self.result = value if self.result is None else joined(self.result, value)

    def of_for(self, node: Any) -> None:
        for _ in self.turns(node.target, node.iter):
            self.all(node.body)
        self.all(node.orelse)

    def turns(self, target: Any, source: Any) -> Iterator[None]:
        """Once for each text in a list, with the target set to it; once for anything else."""
        values = self.value(source)
        self.reader.open(values)
        for value in values if isinstance(values, list) else [None]:
            if isinstance(target, ast.Name):
                self.names[target.id] = value
            yield

    def of_listcomp(self, node: Any) -> Any:
        found = []
        for _ in self.turns(node.generators[0].target, node.generators[0].iter):
            self.all(node.generators[0].ifs)
            found.append(self.value(node.value if isinstance(node, ast.DictComp) else node.elt))
        blocks = {Block(one[:-1]) for one in found if isinstance(one, Block) and one}
        return Part(blocks.pop()) if isinstance(node, ast.DictComp) and len(blocks) == 1 else None

    of_dictcomp = of_setcomp = of_generatorexp = of_listcomp

    def of_call(self, node: Any) -> Any:
        given = self.all(arg for arg in node.args if not isinstance(arg, ast.Starred))
        named = {word.arg: self.value(word.value) for word in node.keywords}
        if isinstance(node.func, ast.Attribute):
            return self.method(node.func, given, named)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        return self.function(name, given, named)

    def method(self, func: Any, given: list[Any], named: dict[Any, Any]) -> Any:
        """A call of something's method: of a block, of this object, or of a module of the standard library."""
        base = self.value(func.value)
        if isinstance(base, (Block, Either)):
            if func.attr in ("get", "pop", "setdefault"):
                return self.reader.read(base, given[0] if given else None)
            if func.attr in ("keys", "copy"):
                return base
            self.reader.open(base)
            return None
        if isinstance(func.value, ast.Name) and func.value.id == "self" and self.owner is not None:
            return self.inside(self.owner, func.attr, given, named)
        if func.attr in ("copy", "deepcopy"):
            return first(given)
        for value in (*given, *named.values()):
            self.reader.open(value)
        return None

    def function(self, name: str, given: list[Any], named: dict[Any, Any]) -> Any:
        """A call by name: of a function or class of this package, or of another's."""
        found = self.module.find(name)
        if name in self.names or found is None or not isinstance(found[1], (ast.FunctionDef, ast.ClassDef)):
            if name == "dict":
                return first(given)
            for value in (*given, *named.values()) if name not in HARMLESS else ():
                self.reader.open(value)
            return None
        module, tree = found
        if isinstance(tree, ast.FunctionDef):
            return self.reader.follow(module, tree, bound(tree, given, named))
        block = named.get(None)
        if isinstance(block, (Block, Either)) and is_model(module, tree):
            for one in block if isinstance(block, Either) else [block]:
                self.modelled(Block(one), module, tree, whole=not isinstance(one, Part))
            return None
        self.reader.open(block)
        self.inside((module, tree), "__init__", given, named)
        return None

    def inside(self, owner: tuple[Module, ast.ClassDef], name: str, given: list[Any], named: dict[Any, Any]) -> Any:
        """A method of a class of this package, with what is known of the object's attributes."""
        module, tree = owner
        for function in tree.body:
            if isinstance(function, ast.FunctionDef) and function.name == name:
                own = {key: value for key, value in self.names.items() if key.startswith("self.")}
                known = own if owner is self.owner else {}
                return self.reader.follow(module, function, {**known, **bound(function, [None, *given], named)}, owner)
        return None

    def modelled(self, block: Block, module: Module, tree: ast.ClassDef, *, whole: bool) -> None:
        """A block is read by a model; so are those in it whose fields are models. `whole`: with every key of it."""
        if block in self.reader.models or len(block) > 6:
            return
        if whole:
            self.reader.models[block] = (module, tree)
        for name, annotation, _, origin, _ in fields(module, tree):
            for word in ast.walk(annotation):
                inner = origin.find(word.id) if isinstance(word, ast.Name) else None
                if inner is not None and isinstance(inner[1], ast.ClassDef) and is_model(*inner):
                    self.modelled(Block((*block, name)), inner[0], inner[1], whole=True)


def first(values: Iterable[Any]) -> Any:
    """The first that is known."""
    return next((value for value in values if value is not None), None)


def either(values: Iterable[Any]) -> Any:
    """One block, or several of which it is one."""
    blocks = list(dict.fromkeys(value for value in values if isinstance(value, Block)))
    return Either(blocks) if len(blocks) > 1 else first(blocks)


def joined(before: Any, value: Any) -> Any:
    """What a name holds that is given a value: this, or what it held, unless that led to it."""
    old = before if isinstance(before, Either) else [before]
    new = value if isinstance(value, Either) else [value]
    if not all(isinstance(one, Block) for one in (*old, *new)):
        return before if value is None else value
    return either([*(one for one in old if not any(other[: len(one)] == one for other in new)), *new])


def defaults(reader: Reader, module: Module, function: ast.FunctionDef) -> dict[str, str]:
    """A function's parameters that are a text where a call does not give them."""
    names = [one.arg for one in function.args.args]
    given = function.args.defaults
    frame = Frame(reader, module, {}, None)
    values = ((name, frame.value(tree)) for name, tree in zip(names[len(names) - len(given) :], given))
    return {name: value for name, value in values if isinstance(value, str)}


def bound(function: ast.FunctionDef, given: list[Any], named: dict[Any, Any]) -> dict[str, Any]:
    """A function's parameters with what a call gives them."""
    names = [one.arg for one in (*getattr(function.args, "posonlyargs", ()), *function.args.args)]
    known = dict(zip(names, given))
    known.update({name: value for name, value in named.items() if name in names})
    return {name: value for name, value in known.items() if value is not None}
