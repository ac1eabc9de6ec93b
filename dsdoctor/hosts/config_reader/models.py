"""pydantic models of either generation, as their sources have them: fields, other names, what other keys do."""

from __future__ import annotations

import ast

from .sources import Module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NamedTuple

    class Field(NamedTuple):
        """A field: its name in a config, its annotation, what its Field() has, where it is from, its name in Python."""

        name: str
        annotation: ast.expr
        options: dict[str, Any]
        origin: Module
        python: str

else:
    from collections import namedtuple

    Field = namedtuple("Field", "name annotation options origin python")

BASES = ("DeepSpeedConfigModel", "BaseModel")


def lineage(module: Module, tree: ast.ClassDef, depth: int = 8) -> Iterator[tuple[Module, ast.ClassDef]]:
    """The class and those that it derives from, as far as they are in this package."""
    yield module, tree
    for base in tree.bases if depth else ():
        found = module.find(base.id) if isinstance(base, ast.Name) else None
        if found is not None and isinstance(found[1], ast.ClassDef):
            yield from lineage(found[0], found[1], depth - 1)


def is_model(module: Module, tree: ast.ClassDef) -> bool:
    """Whether a class is a pydantic model."""
    names = (base.id for _, each in lineage(module, tree) for base in each.bases if isinstance(base, ast.Name))
    return any(name in BASES for name in names)


def fields(module: Module, tree: ast.ClassDef) -> list[Field]:
    """The fields of a model, those of the classes above it included; what is below outranks what is above."""
    found: dict[str, Field] = {}
    for origin, each in reversed(list(lineage(module, tree))):
        for node in each.body:
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
                continue
            name = node.target.id
            if name == "model_config" or name.startswith("_") or "ClassVar" in ast.dump(node.annotation):
                continue
            options = dict(options_of(node.value))
            alias = options.get("alias")
            found[name] = Field(alias if isinstance(alias, str) else name, node.annotation, options, origin, name)
    return list(found.values())


def options_of(value: Any) -> Iterator[tuple[str, Any]]:
    """What a Field() says, and its json_schema_extra, where these are plain values."""
    if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Name) or value.func.id != "Field":
        return
    for word in value.keywords:
        if isinstance(word.value, ast.Constant) and word.arg:
            yield word.arg, word.value.value
        elif word.arg == "json_schema_extra" and isinstance(word.value, ast.Dict):
            for key, one in zip(word.value.keys, word.value.values):
                if isinstance(key, ast.Constant) and isinstance(one, ast.Constant):
                    yield str(key.value), one.value


def settings(module: Module, tree: ast.ClassDef) -> dict[str, Any]:
    """A model's own settings: model_config = ConfigDict(...) or {...}, or an inner class Config."""
    found: dict[str, Any] = {}
    for _, each in reversed(list(lineage(module, tree))):
        for node in each.body:
            if isinstance(node, ast.ClassDef) and node.name == "Config":
                pairs = [(one.targets[0], one.value) for one in node.body if isinstance(one, ast.Assign)]
                found.update({key.id: worth(value) for key, value in pairs if isinstance(key, ast.Name)})
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "model_config":
                found.update(config_dict(node.value))
    return found


def config_dict(value: Any) -> dict[str, Any]:
    """ConfigDict(...) and {...}."""
    if isinstance(value, ast.Call):
        return {word.arg: worth(word.value) for word in value.keywords if word.arg}
    if isinstance(value, ast.Dict):
        pairs = zip(value.keys, value.values)
        return {str(key.value): worth(one) for key, one in pairs if isinstance(key, ast.Constant)}
    return {}


def written(annotation: Any) -> str:
    """Bool and Optional[bool] as they are written; an empty text for others."""
    if getattr(annotation, "id", "") == "bool":
        return "bool"
    inner: Any = getattr(annotation, "slice", None)
    inner = getattr(inner, "value", inner)  # of Python 3.8
    optional = isinstance(annotation, ast.Subscript) and getattr(annotation.value, "id", "") == "Optional"
    return "Optional[bool]" if optional and getattr(inner, "id", "") == "bool" else ""


def worth(value: Any) -> Any:
    """A plain value; of Extra.forbid the last word."""
    return value.value if isinstance(value, ast.Constant) else getattr(value, "attr", None)


def refuses(module: Module, tree: ast.ClassDef) -> bool:
    """Whether the model stops at a key that is none of its fields."""
    return settings(module, tree).get("extra") == "forbid"


def takes_anything(module: Module, tree: ast.ClassDef) -> bool:
    """Whether the model keeps keys that are none of its fields, or changes them before it looks."""
    return settings(module, tree).get("extra") == "allow"


def takes_python_names(module: Module, tree: ast.ClassDef) -> bool:
    """Whether a field with another name may also be given by its own."""
    own = settings(module, tree)
    return bool(own.get("populate_by_name") or own.get("allow_population_by_field_name"))
