r"""A user's own order: a YAML file that names the tasks, and where each comes from.

name: mine
tasks:
  - agnews                                  # as --data or --data_dir has it
  - {name: news, builtin: reuters-r8}       # a built-in task
  - name: mood
    folder: data/mood                       # train.json, test.json and labels.json as in CL_Benchmark; a relative
    instruction: "Is this friendly?\n"      # path begins at this file; a generative model is asked so
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from continual import ContinualError
from continual.orders import NAME, ORDERS, Order, Source

if TYPE_CHECKING:
    import yaml

KEYS = ("name", "tasks")
TASK_KEYS = ("name", "builtin", "folder", "instruction")


class _File:
    """A file that is read, for errors that say where."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def wrong(self, node: yaml.Node | None, what: str) -> ContinualError:
        """An error at a place of the file."""
        return ContinualError(f"--order {self.place(node)}: {what}")

    def place(self, node: yaml.Node | None) -> str:
        """The file, and the line of a node."""
        return f"{self.path}:{node.start_mark.line + 1}" if node is not None else str(self.path)

    def entries(self, node: yaml.Node, known: Collection[str], what: str) -> Iterator[tuple[str, yaml.Node]]:
        """The keys of a mapping with their values, each known and there once."""
        import yaml

        if not isinstance(node, yaml.MappingNode):
            raise self.wrong(node, f"{what} is {_seen(node)}; wanted a mapping with {' and '.join(known)}")
        seen = set()
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else _seen(key)
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                near = f"did you mean {close[0]}?" if close else f"wanted one of {', '.join(known)}"
                raise self.wrong(key, f"unknown key {name}; {near}")
            if name in seen:
                raise self.wrong(key, f"the key {name} is given twice")
            seen.add(name)
            yield name, value

    def text(self, node: yaml.Node, key: str) -> str:
        """The text of a scalar."""
        import yaml

        if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
            raise self.wrong(node, f"{key} is {_seen(node)}; wanted a text")
        value: str = node.value
        return value

    def name(self, node: yaml.Node, key: str) -> str:
        """A name, which becomes a part of paths."""
        value = self.text(node, key)
        if not NAME.fullmatch(value):
            raise self.wrong(node, f"{key} is {value!r}; wanted letters, digits, '.', '_' or '-'")
        return value


def read(path: Path) -> Order:
    """The order that a file holds.

    Raises:
        ContinualError: no such file, not YAML, or not an order; says the line, the value seen and the value wanted.
    """
    file = _File(path)
    root = _composed(file)
    values = dict(file.entries(root, KEYS, "the file"))
    for key in KEYS:
        if key not in values:
            raise file.wrong(root, f"{key} is missing; wanted a mapping with {' and '.join(KEYS)}")
    name = file.name(values["name"], "name")
    if name in ORDERS:
        raise file.wrong(values["name"], f"name is {name}, one of O-LoRA's orders; wanted another one")
    sources = _tasks(file, values["tasks"])
    return Order(name, tuple(sources), sources)


def _composed(file: _File) -> yaml.Node:
    import yaml

    try:
        root = yaml.compose(file.path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise file.wrong(None, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise file.wrong(None, f"not UTF-8 text (byte {error.start})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise ContinualError(
            f"--order {file.path}{f':{mark.line + 1}' if mark else ''}: not YAML: {error.problem}"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise file.wrong(None, f"not YAML: {error}") from None
    if root is None:
        raise file.wrong(None, "is empty; wanted a mapping with name and tasks")
    return root


def _tasks(file: _File, node: yaml.Node) -> dict[str, Source]:
    import yaml

    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise file.wrong(node, f"tasks is {_seen(node)}; wanted a list of tasks, first to last")
    sources: dict[str, Source] = {}
    for item in node.value:
        name, source = _task(file, item)
        if name in sources:
            raise file.wrong(item, f"the task {name} is given twice; wanted each once")
        sources[name] = source
    return sources


def _task(file: _File, node: yaml.Node) -> tuple[str, Source]:
    import yaml

    from continual import builtin

    said_at = file.place(node)
    if isinstance(node, yaml.ScalarNode):
        return file.name(node, "a task"), Source(said_at=said_at)
    if not isinstance(node, yaml.MappingNode):
        raise file.wrong(node, f"a task is {_seen(node)}; wanted a name, or a mapping with name and builtin or folder")
    values = dict(file.entries(node, TASK_KEYS, "a task"))
    if "name" not in values:
        raise file.wrong(node, "a task has no name; wanted name, and builtin or folder")
    if "builtin" in values and "folder" in values:
        raise file.wrong(values["folder"], "a task has builtin and folder; wanted one of the two")
    stand_in = file.name(values["builtin"], "builtin") if "builtin" in values else None
    if stand_in is not None and stand_in not in builtin.TASKS:
        raise file.wrong(values["builtin"], f"builtin is {stand_in}; wanted one of {', '.join(builtin.TASKS)}")
    folder = None
    if "folder" in values:
        folder = (file.path.parent / Path(file.text(values["folder"], "folder")).expanduser()).absolute()
    instruction = file.text(values["instruction"], "instruction") if "instruction" in values else None
    return file.name(values["name"], "name"), Source(stand_in, folder, instruction, said_at)


def _seen(node: yaml.Node) -> str:
    """What stands there, in a word or two."""
    import yaml

    if isinstance(node, yaml.ScalarNode):
        return repr(node.value) if node.value else "nothing"
    kind = "list" if isinstance(node, yaml.SequenceNode) else "mapping"
    return f"a {kind}" if node.value else f"an empty {kind}"
