"""Telling places of a Python program: what it hands to transformers and DeepSpeed that some releases do not take."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A line of a program, and the code there."""

    line: int
    text: str


def marks_of(nodes: Iterable[ast.AST]) -> dict[str, Place]:
    """The first place of each mark that the program has, by the mark's name."""
    found: dict[str, Place] = {}
    for node in nodes:
        for name, holds in _MARKS.items():
            if name not in found and holds(node):
                found[name] = Place(getattr(node, "lineno", 1), " ".join(ast.unparse(node).split())[:100])
    return found


def _called(node: ast.AST) -> str:
    """The last part of what a call calls; empty for another node."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _keyword(node: ast.AST, name: str) -> ast.expr | None:
    if not isinstance(node, ast.Call):
        return None
    return next((word.value for word in node.keywords if word.arg == name), None)


def _is(value: ast.expr | None, wanted: object) -> bool:
    return isinstance(value, ast.Constant) and value.value is wanted


def _trainer(node: ast.AST) -> bool:
    """A Trainer of transformers or trl is made, or derived from."""
    if isinstance(node, ast.ClassDef):
        return any(ast.unparse(base).split(".")[-1].endswith("Trainer") for base in node.bases)
    return _called(node).endswith("Trainer") or _called(node) == "Accelerator"


def _engine(node: ast.AST) -> bool:
    """`deepspeed.initialize(…)`: the program hands its config to DeepSpeed itself."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "deepspeed.initialize"


def _own_optimizer(node: ast.AST) -> bool:
    """`deepspeed.initialize(optimizer=…)`."""
    value = _keyword(node, "optimizer")
    return _engine(node) and value is not None and not _is(value, None)


def _cpu_adam(node: ast.AST) -> bool:
    """One of DeepSpeed's optimizers for the CPU is named."""
    name = getattr(node, "id", None) or getattr(node, "attr", None)
    return isinstance(name, str) and name.startswith("DeepSpeedCPU")


def _device_map(node: ast.AST) -> bool:
    value = _keyword(node, "device_map")
    return _called(node) == "from_pretrained" and value is not None and not _is(value, None)


def _low_memory(node: ast.AST) -> bool:
    return _called(node) == "from_pretrained" and _is(_keyword(node, "low_cpu_mem_usage"), True)


def _not_reentrant(node: ast.AST) -> bool:
    if _is(_keyword(node, "use_reentrant"), False):
        return True
    if not isinstance(node, ast.Dict):
        return False
    return any(
        isinstance(key, ast.Constant) and key.value == "use_reentrant" and _is(value, False)
        for key, value in zip(node.keys, node.values, strict=True)
    )


def _checkpointing(node: ast.AST) -> bool:
    return _called(node) == "gradient_checkpointing_enable" or _is(_keyword(node, "gradient_checkpointing"), True)


def _lora(node: ast.AST) -> bool:
    return _called(node) in ("LoraConfig", "get_peft_model", "AdaLoraConfig")


def _synced_gpus(node: ast.AST) -> bool:
    """`gen_kwargs["synced_gpus"] = …`, `{"synced_gpus": …}`."""
    if isinstance(node, ast.Dict):
        return any(isinstance(key, ast.Constant) and key.value == "synced_gpus" for key in node.keys)
    target = node.targets[0] if isinstance(node, ast.Assign) else None
    return isinstance(target, ast.Subscript) and _is_word(target.slice, "synced_gpus")


def _generation_config(node: ast.AST) -> bool:
    """`GenerationConfig(**gen_kwargs)`, or with synced_gpus itself."""
    if _called(node) != "GenerationConfig" or not isinstance(node, ast.Call):
        return False
    return any(word.arg in (None, "synced_gpus") for word in node.keywords)


def _three_of_init(node: ast.AST) -> bool:
    """`engine, optimizer, scheduler = deepspeed_init(…)`."""
    if not isinstance(node, ast.Assign) or _called(node.value) != "deepspeed_init":
        return False
    return isinstance(node.targets[0], ast.Tuple) and len(node.targets[0].elts) == 3


def _is_word(node: ast.expr, word: str) -> bool:
    return isinstance(node, ast.Constant) and node.value == word


_MARKS: dict[str, Callable[[ast.AST], bool]] = {
    "trainer": _trainer,
    "engine": _engine,
    "own_optimizer": _own_optimizer,
    "cpu_adam": _cpu_adam,
    "device_map": _device_map,
    "low_cpu_mem_usage": _low_memory,
    "not_reentrant": _not_reentrant,
    "checkpointing": _checkpointing,
    "lora": _lora,
    "synced_gpus": _synced_gpus,
    "generation_config": _generation_config,
    "three_of_init": _three_of_init,
}
