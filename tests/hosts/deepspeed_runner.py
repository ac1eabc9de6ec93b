"""The hostfile and filter functions of the installed DeepSpeed, taken out of its launcher without importing torch."""

import ast
import collections
import importlib.util
import logging
import re
import typing
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest

_WANTED = {
    "_parse_hostfile",
    "_stable_remove_duplicates",
    "parse_node_config",
    "parse_node_config_list",
    "parse_resource_filter",
    "parse_inclusion_exclusion",
}


def load() -> SimpleNamespace:
    """The functions by name; skips the test where DeepSpeed is not installed."""
    spec = importlib.util.find_spec("deepspeed")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("deepspeed is not installed", allow_module_level=True)
    path = Path(spec.submodule_search_locations[0]) / "launcher" / "runner.py"
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in _WANTED]
    assert {node.name for node in tree.body} == _WANTED
    logger = logging.getLogger("tests.deepspeed")
    logger.disabled = True
    names = {
        "re": re,
        "collections": collections,
        "defaultdict": collections.defaultdict,
        "deepcopy": deepcopy,
        "logger": logger,
        **{name: getattr(typing, name) for name in ("Dict", "List", "Tuple")},
    }
    exec(compile(tree, str(path), "exec"), names)
    return SimpleNamespace(**{name: names[name] for name in _WANTED})
