"""A Python program read by its syntax tree, never imported: which arguments it knows, what it does to the training."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dsdoctor.jobs.marks import Place, marks_of
from dsdoctor.jobs.unknown import Unknown
from dsdoctor.yamlfile import FileError

LARGEST = 2_000_000  # characters
_NESTED = 90  # brackets in brackets; more of them makes Python's own parser fail in ways of its own

# What reads a command line. One of these names anywhere in a source, and it may read its arguments.
_READERS = frozenset(
    {
        *("argv", "argparse", "ArgumentParser", "HfArgumentParser", "click", "fire", "Fire", "typer", "tyro", "hydra"),
        *("absl", "docopt", "getopt", "optparse", "jsonargparse", "simple_parsing", "from_cli", "parse_args", "tap"),
        *("get_args", "parse_arguments", "get_arguments", "TrlParser", "LightningCLI", "draccus", "clize", "plac"),
    }
)
# Imported from these, a function does not read the program's arguments behind its back.
_QUIET = frozenset(
    {
        *(
            "torch",
            "transformers",
            "datasets",
            "peft",
            "deepspeed",
            "accelerate",
            "numpy",
            "pandas",
            "tqdm",
            "evaluate",
        ),
        *("sklearn", "scipy", "swanlab", "wandb", "tensorboard", "safetensors", "tokenizers", "sentencepiece", "trl"),
        *("modelscope", "bitsandbytes", "nltk", "jieba", "matplotlib", "requests", "yaml", "psutil", "einops"),
    }
)
_ARGUMENT_CLASSES = ("TrainingArguments", "Seq2SeqTrainingArguments")


@dataclass(frozen=True)
class Program:
    """What is to be known of a Python program from its text.

    `options` are the names of the arguments that it declares, with dashes as underscores; `whole` says that these are
    all: no parser is built elsewhere. `reads_arguments` is None where that cannot be told.
    """

    path: str
    reads_arguments: bool | None
    options: frozenset[str] = frozenset()
    one_dash: frozenset[str] = frozenset()  # those that are declared with one dash: `-lr`
    hf_classes: tuple[str, ...] = ()  # names of transformers' own argument classes that it hands to its parser
    whole: bool = False
    refuses_unknown: bool = True  # parse_known_args lets them pass
    settings: dict[str, Any] = field(default_factory=dict)  # TrainingArguments(…) built in the code
    lines: dict[str, int] = field(default_factory=dict)
    never_stepped: Place | None = None  # training_step that calls self.deepspeed.backward and never step
    conditional_init: Place | None = None  # init_process_group under `if torch.cuda.is_available()`
    marks: dict[str, Place] = field(default_factory=dict)  # telling places by name, of jobs/marks.py


def read_program(text: str, source: str) -> Program:
    """A program by its text.

    Raises:
        FileError: it is not Python of this version; with the line.
    """
    if len(text) > LARGEST:
        raise FileError(source, f"{len(text)} characters are too many for a program (at most {LARGEST})")
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise FileError(source, f"not Python {version}: {error.msg}", error.lineno) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise FileError(source, f"not Python: {error or 'nested too deep'}") from None
    try:
        return _described(tree, source)
    except RecursionError:
        raise FileError(source, "not to be read: nested too deep") from None


def _described(tree: ast.Module, source: str) -> Program:
    nodes = list(ast.walk(tree))
    names = {name for node in nodes for name in _names(node)}
    options, classes, whole, refuses = _declared(nodes)
    one_dash = {flag.lstrip("-").replace("-", "_") for flag in _flags(nodes) if not flag.startswith("--")}
    settings, lines = _built(nodes)
    return Program(
        path=source,
        reads_arguments=_reads(nodes, names),
        options=options,
        one_dash=frozenset(one_dash),
        hf_classes=classes,
        whole=whole,
        refuses_unknown=refuses,
        settings=settings,
        lines=lines,
        never_stepped=_never_stepped(nodes),
        conditional_init=_conditional_init(nodes),
        marks=marks_of(nodes),
    )


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.alias):
        yield from node.name.split(".")
    elif isinstance(node, ast.ImportFrom):
        yield from (node.module or "").split(".")


def _reads(nodes: list[ast.AST], names: set[str]) -> bool | None:
    """True: it reads its command line; False: nothing in it does; None: what it imports may."""
    if names & _READERS:
        return True
    for node in nodes:
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""] if not node.level else [""]
        for module in modules:
            top = module.split(".")[0]
            if top not in _QUIET and top not in sys.stdlib_module_names:
                return None
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return None if called & {"exec", "eval", "__import__"} else False


def _declared(nodes: list[ast.AST]) -> tuple[frozenset[str], tuple[str, ...], bool, bool]:
    """The options by name; transformers' classes among them; whether that is all; whether others are refused."""
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
    options: set[str] = set()
    foreign: list[str] = []
    whole, refuses, found = True, True, False
    for node in nodes:
        if not isinstance(node, ast.Call):
            continue
        called = _called(node)
        if called in ("ArgumentParser", "HfArgumentParser"):
            found = True
        if called == "ArgumentParser" and any(word.arg == "parents" for word in node.keywords):
            whole = False
        if called == "HfArgumentParser":
            whole = _dataclasses(node, classes, options, foreign) and whole
        elif called == "add_argument":
            flags = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            whole = whole and len(flags) == len(node.args)
            options |= {flag.lstrip("-").replace("-", "_") for flag in flags if flag.startswith("-")}
        elif called in ("add_config_arguments", "add_argparse_args", "add_arguments", "add_parser", "add_subparsers"):
            # deepspeed.add_config_arguments declares its own three; other adders are somebody else's
            if called == "add_config_arguments":
                options |= {"deepspeed", "deepspeed_config", "deepscale", "deepscale_config"}
            else:
                whole = False
        elif called in ("parse_known_args", "parse_args_into_dataclasses"):
            lets = called == "parse_known_args" or _is_true(node, "return_remaining_strings")
            refuses = refuses and not lets
        elif found and any(isinstance(arg, ast.Name) and arg.id in ("parser", "p", "ap") for arg in node.args):
            whole = False  # the parser is handed to a function that may add to it
    return frozenset(options), tuple(foreign), whole and found, refuses


def _flags(nodes: list[ast.AST]) -> Iterator[str]:
    """Every option as an add_argument has it, dashes and all."""
    for node in nodes:
        if isinstance(node, ast.Call) and _called(node) == "add_argument":
            for arg in node.args:
                if isinstance(arg, ast.Constant) and isinstance(arg.value, str) and arg.value.startswith("-"):
                    yield arg.value


def _dataclasses(call: ast.Call, classes: dict[str, ast.ClassDef], options: set[str], foreign: list[str]) -> bool:
    """Take the fields of the classes given to HfArgumentParser. False where a class is not to be seen."""
    given = call.args[0] if call.args else next((word.value for word in call.keywords), None)
    elements = given.elts if isinstance(given, ast.Tuple | ast.List) else [given] if given is not None else []
    waiting = [element.id if isinstance(element, ast.Name) else "" for element in elements]
    whole, seen = bool(waiting), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in classes:
            body = classes[name].body
            fields = [
                one.target.id for one in body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
            ]
            options.update(fields)
            waiting += [
                base.id if isinstance(base, ast.Name) else getattr(base, "attr", "") for base in classes[name].bases
            ]
        elif name in _ARGUMENT_CLASSES:
            foreign.append(name)
        elif name != "object":
            whole = False
    return whole


def _built(nodes: list[ast.AST]) -> tuple[dict[str, Any], dict[str, int]]:
    """The keywords of TrainingArguments(…) in the code; what is computed there is unknown."""
    settings: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for node in nodes:
        if not isinstance(node, ast.Call) or not _called(node).endswith("TrainingArguments"):
            continue
        for word in node.keywords:
            if word.arg is None:
                continue
            try:
                value = ast.literal_eval(word.value)
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                shown = ast.unparse(word.value)[:80]
                value = Unknown(shown, f"line {word.value.lineno} computes it: {shown}")
            if value is not None:
                settings[word.arg], lines[word.arg] = value, word.value.lineno
    return settings, lines


def _never_stepped(nodes: list[ast.AST]) -> Place | None:
    """An override of training_step that hands the loss to DeepSpeed's engine and never lets it step."""
    for node in nodes:
        if not isinstance(node, ast.ClassDef) or not any("Trainer" in ast.unparse(base) for base in node.bases):
            continue
        for method in node.body:
            if not isinstance(method, ast.FunctionDef) or method.name != "training_step":
                continue
            calls = [inner for inner in ast.walk(method) if isinstance(inner, ast.Call)]
            backward = [call for call in calls if ast.unparse(call.func) in _BACKWARDS]
            if backward and not any(_called(call) == "step" for call in calls):
                return Place(backward[0].lineno, ast.unparse(backward[0])[:100])
    return None


_BACKWARDS = ("self.deepspeed.backward", "self.model_wrapped.backward", "self.deepspeed_engine.backward")


def _conditional_init(nodes: list[ast.AST]) -> Place | None:
    """init_process_group or init_distributed that is called only if CUDA is seen, with nothing else otherwise."""
    for node in nodes:
        if not isinstance(node, ast.If) or "is_available" not in ast.unparse(node.test):
            continue
        inside = [inner for one in node.body for inner in ast.walk(one) if isinstance(inner, ast.Call)]
        otherwise = [inner for one in node.orelse for inner in ast.walk(one) if isinstance(inner, ast.Call)]
        found = next((call for call in inside if _called(call) in _INITS), None)
        raised = any(isinstance(inner, ast.Raise) for one in node.orelse for inner in ast.walk(one))
        if found is not None and not raised and not any(_called(call) in (*_INITS, "exit") for call in otherwise):
            return Place(found.lineno, f"if {ast.unparse(node.test)[:60]}: {ast.unparse(found)[:80]}")
    return None


_INITS = ("init_process_group", "init_distributed")


def _called(node: ast.Call) -> str:
    """The last part of what is called: `parser.add_argument` is add_argument."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _is_true(node: ast.Call, keyword: str) -> bool:
    return any(
        word.arg == keyword and isinstance(word.value, ast.Constant) and bool(word.value.value)
        for word in node.keywords
    )
