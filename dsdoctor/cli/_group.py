"""The `dsdoctor` command itself: finds the commands beside it in their files, imports the one that is called."""

from __future__ import annotations

import ast
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click

from dsdoctor import __version__
from dsdoctor.cli._project import apply_project

# Where a command stands in --help. A command that is not named here comes after these, by the alphabet.
_ORDER = (
    *("check", "plan", "launch", "runs", "status", "logs", "attach", "stop"),
    *("diagnose", "explain", "jobs", "facts", "sync"),
)


@dataclass(frozen=True)
class _Found:
    """A command as its source file tells: the module it is in, and the first line of its help."""

    module: str
    summary: str


class CommandFiles(click.Group):
    """A group whose commands are the `@click.command` functions of the files in a folder."""

    def __init__(self, folder: Path, package: str, **settings: Any) -> None:
        super().__init__(**settings)
        self._folder = folder
        self._package = package

    @cached_property
    def _found(self) -> dict[str, _Found]:
        """All commands by name, read from the source without importing it."""
        found = {}
        for path in sorted(self._folder.glob("[!_]*.py")):
            for name, summary in _commands_in(path):
                found[name] = _Found(path.stem, summary)
        place = {name: number for number, name in enumerate(_ORDER)}
        return dict(sorted(found.items(), key=lambda item: (place.get(item[0], len(place)), item[0])))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order of `--help`."""
        return list(self._found)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, its file imported; None when there is none."""
        # The usual case, a command in a file of its own name, needs no look at the other files.
        own = self._folder / f"{cmd_name}.py"
        if cmd_name.isidentifier() and not cmd_name.startswith("_") and own.is_file():
            command = self._load(cmd_name, cmd_name)
            if command is not None:
                return command
        found = self._found.get(cmd_name)
        return self._load(found.module, cmd_name) if found else None

    def _load(self, module: str, name: str) -> click.Command | None:
        values = vars(importlib.import_module(f"{self._package}.{module}")).values()
        return next((value for value in values if isinstance(value, click.Command) and value.name == name), None)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is called; an unknown name is a usage error that names the nearest one."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            ctx.fail(f"There is no command {name!r}{_near(name, self.list_commands(ctx))}")
        apply_project(ctx, name)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `--help`, from the files' text alone."""
        if not self._found:
            return
        with formatter.section("Commands"):
            formatter.write_dl([(name, found.summary) for name, found in self._found.items()])

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> Any:
        """Run and exit as click's own `main` does, with dsdoctor's exit codes; click's test runner comes in here."""
        from dsdoctor.cli._failures import guarded

        guarded(lambda: self.run(args))

    def run(self, args: Sequence[str] | None = None) -> int:
        """Run a command and return its exit code: what the command returns, None for 0.

        Errors are left to the caller (click's own `main` would answer a closed pipe with 1, which means "ill").
        """
        name = self.name or "dsdoctor"
        completion = f"_{name.upper()}_COMPLETE"
        if os.environ.get(completion):
            from click.shell_completion import shell_complete

            return shell_complete(self, {}, name, completion, os.environ[completion])
        words = list(sys.argv[1:] if args is None else args)
        try:
            with self.make_context(name, words or ["--help"]) as context:
                code = self.invoke(context)
        except click.exceptions.Exit as end:  # --help, --version
            return end.exit_code
        return code if isinstance(code, int) else 0


def _commands_in(path: Path) -> list[tuple[str, str]]:
    """Name and first line of help of every `@click.command(...)` function at the top of a source file."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError):  # the import will say it better, when that command is called
        return [(path.stem, "")]
    found = []
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "click.command":
                found.append((_name_of(node, decorator), _first_line(node)))
    return found


def _name_of(function: ast.FunctionDef, decorator: ast.Call) -> str:
    given = [*decorator.args[:1], *(word.value for word in decorator.keywords if word.arg == "name")]
    if given and isinstance(given[0], ast.Constant):
        return str(given[0].value)
    return function.name.replace("_", "-")


def _first_line(function: ast.FunctionDef) -> str:
    return (ast.get_docstring(function) or "").split("\n", 1)[0].rstrip(".")


def _near(word: str, known: Sequence[str]) -> str:
    """`; did you mean check?`, or what there is."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else f". The commands are: {', '.join(known)}."


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"dsdoctor {__version__} (Python {sys.version.split()[0]})")
        ctx.exit()


dsdoctor = CommandFiles(
    folder=Path(__file__).parent,
    package=__package__ or "dsdoctor.cli",
    name="dsdoctor",
    help="Look at the hosts of a training job, say what is wrong and how to mend it, start it, and say why it broke.",
    epilog="Exit codes: 0 well, 1 findings or a failed stage, 2 usage or an unreadable file, "
    "3 a host could not be examined, 4 a bug in dsdoctor, 130 interrupted.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Show the version and exit.",
        )
    ],
)
