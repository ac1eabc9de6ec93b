"""The keys of a DeepSpeed's config by block, as one answer in the form of the probe's."""

from __future__ import annotations

import ast
import json
import sys
import time
from binascii import a2b_base64

from .following import Block, Reader
from .models import fields, refuses, takes_anything, takes_python_names, written
from .sources import Sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BEGIN, END = "<<<dsdoctor-facts", "dsdoctor-facts>>>"
CONFIG = ("runtime", "config")
SCHEDULES = ("runtime", "lr_schedules")
ELSEWHERE = ("data_parallel_size", "sequence_parallel_size")  # deepspeed.initialize, deepspeed/__init__.py
# Read piece by piece in more ways than are followed, and hardly used: nothing is said of what is in them.
LEFT_OUT = ("compression_training", "data_efficiency", "elasticity", "sparse_attention")
REMOVED = {"_REMOVED_TOP_LEVEL_CONFIG_KEYS": "", "_REMOVED_ZERO_CONFIG_KEYS": "zero_optimization."}


def config_keys(folder: str) -> dict[str, Any]:
    """What the DeepSpeed in a folder takes in its config.

    Raises:
        ValueError: nothing there reads a config in a way that can be followed.
    """
    sources, reader = Sources(folder), Reader()
    module = sources.module(CONFIG)
    start = module.own.get("DeepSpeedConfig")
    if not isinstance(start, ast.ClassDef):
        raise ValueError("%s/runtime/config.py has no class DeepSpeedConfig" % folder)
    for function in start.body:
        if isinstance(function, ast.FunctionDef) and function.name == "__init__":
            names = [one.arg for one in function.args.args]
            config = next((name for name in names if name in ("config", "param_dict", "json_file")), names[1])
            reader.follow(module, function, {config: Block()}, (module, start))
    if len(reader.keys[Block()]) < 5:
        raise ValueError("%s/runtime/config.py reads its config in a way that is not known" % folder)
    return dict(blocks(reader), removed=removed(module), **schedulers(sources))


def blocks(reader: Reader) -> dict[str, Any]:
    """The keys by block, dotted: of those that stop at others, and of those that pass others over."""
    refused: dict[str, list[str]] = {}
    ignored: dict[str, list[str]] = {}
    inner: dict[str, list[str]] = {}
    old: dict[str, str] = {}
    flags: dict[str, list[str]] = {}
    optional_flags: dict[str, list[str]] = {}
    for block, (module, tree) in reader.models.items():
        dotted = ".".join(block)
        known = fields(module, tree)
        for found, kind in ((flags, "bool"), (optional_flags, "Optional[bool]")):
            yes_or_no = sorted(field.name for field in known if written(field.annotation) == kind)
            if yes_or_no:
                found[dotted] = yes_or_no
        aliases = {field.python: field.name for field in known}
        keys = {field.name for field in known} | reader.keys.get(block, set())
        if takes_anything(module, tree):
            continue
        (refused if refuses(module, tree) else ignored)[dotted] = sorted(keys)
        other = sorted(field.python for field in known if field.python != field.name)
        if other and takes_python_names(module, tree):
            inner[dotted] = other
        for field in known:
            new = field.options.get("new_param")
            if new and field.options.get("deprecated") and field.options.get("set_new_param") is not False:
                old[dotted + "." + field.name] = aliases.get(new, new)
    for block, keys in reader.keys.items():
        if block not in reader.models and block not in reader.opened and block[:1] not in [(one,) for one in LEFT_OUT]:
            ignored[".".join(block)] = sorted(keys if block else keys.union(ELSEWHERE))
    return {
        "refused": refused,
        "ignored": ignored,
        "inner": inner,
        "old": old,
        "flags": flags,
        "optional_flags": optional_flags,
    }


def removed(module: Any) -> list[str]:
    """The keys that stop the start by a table of what was given up."""
    found = []
    for name, before in REMOVED.items():
        tree = module.own.get(name)
        if isinstance(tree, ast.Dict):
            found += [before + str(key.value) for key in tree.keys if isinstance(key, ast.Constant)]
    return sorted(found)


def schedulers(sources: Sources) -> dict[str, Any]:
    """The schedulers by name, with their parameters, and those of them that must be given."""
    module = sources.module(SCHEDULES)
    listed = getattr(module.own.get("VALID_LR_SCHEDULES"), "elts", ())
    names = [str(getattr(module.own.get(getattr(one, "id", "")), "value", "")) for one in listed]
    found: dict[str, list[str]] = {}
    needed: dict[str, list[str]] = {}
    for name in names:
        tree = module.own.get(name)
        body = tree.body if isinstance(tree, ast.ClassDef) else ()
        for function in body:
            if isinstance(function, ast.FunctionDef) and function.name == "__init__":
                own = [one.arg for one in function.args.args[2:]]
                must = own[: len(own) - len(function.args.defaults)]
                found[name] = [one for one in own if one != "last_batch_iteration"]
                if must:
                    needed[name] = must
    return {"schedulers": found, "needed": needed}


def main(arguments: list[str], path: list[str]) -> None:
    """Print the answer; why there is none is an answer too. The argument says which folder, and which version it is."""
    begun = time.monotonic()
    section: dict[str, Any]
    try:
        asked = json.loads(a2b_base64(arguments[0]).decode("utf-8"))
        section = {"value": dict(config_keys(str(asked["folder"])), version=str(asked["version"]))}
    except Exception as failure:
        section = {"error": "%s: %s" % (type(failure).__name__, failure)}
    section["seconds"] = round(time.monotonic() - begun, 4)
    row = {"schema": "dsdoctor.facts/1", "sections": {"config_keys": section}}
    sys.stdout.write("\n%s\n%s\n%s\n" % (BEGIN, json.dumps(row), END))
    sys.stdout.flush()
