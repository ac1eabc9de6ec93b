"""From the syntax tree to what the script does: its commands in order, with the variables in force at each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dsdoctor.jobs.script.assigning import assigned, redirects_of
from dsdoctor.jobs.script.expand import Expander, text_of
from dsdoctor.jobs.script.launchers import unwrapped
from dsdoctor.jobs.script.model import Command, Redirect, Variable, Word
from dsdoctor.jobs.script.nested import Following, inherited, moved, moved_variables, started
from dsdoctor.jobs.script.nodes import asks_for_status, assigned_in, case_body, goes_on, is_open
from dsdoctor.jobs.script.parameters import NAME as PARAMETERS
from dsdoctor.jobs.script.parameters import called_with, given, parameters, set_by, shifted
from dsdoctor.jobs.script.state import Shell, State, settled
from dsdoctor.jobs.script.syntax import parse
from dsdoctor.jobs.unknown import Unknown
from dsdoctor.yamlfile import FileError

if TYPE_CHECKING:
    from tree_sitter import Node

MOST_COMMANDS = 5_000
_SHEBANG_ERREXIT = re.compile(r"#!\s*\S*sh\s+-\w*e")
_MOST_ROUNDS = 200  # of a loop over a literal list
_DEEPEST = 100
_CALLS_DEEP = 10  # functions in functions

_PASSED_OVER = frozenset({"comment", "heredoc_body", "heredoc_end", "ERROR"})


class Walker:
    """Goes through a script once, in the order in which the shell would, and keeps every command."""

    def __init__(self, source: str, following: Following | None = None) -> None:
        self.commands: list[Command] = []
        self.sourced: list[Word] = []
        self._source = source
        self._following = following or Following()
        self._functions: dict[str, Node] = {}
        self._foreign: dict[str, Node] = {}  # of these, those that a script which was read in has made
        self._depth = 0
        self._calling = 0

    def run(self, root: Node, errexit: bool, arguments: Sequence[str] | None = None) -> None:
        """Walk a whole script, called with these arguments where they are known.

        Raises:
            FileError: it is no script of commands in a readable depth.
        """
        self._following.stack = (self._source,)
        variables = given(arguments) if arguments is not None else {}
        self._body(root.children, State(variables, Shell(errexit=errexit)))

    def _body(self, nodes: Iterable[Node], state: State) -> None:
        children = [node for node in nodes if node.type not in ("comment", "ERROR")]
        for place, node in enumerate(children):
            background = place + 1 < len(children) and children[place + 1].type == "&"
            following = next((one for one in children[place + 1 : place + 4] if one.is_named), None)
            looked_at = following is not None and asks_for_status(following)
            self._statement(node, replace(state.here(), background=background, checked=state.checked or looked_at))

    def _statement(self, node: Node, state: State) -> None:
        if not node.is_named or node.type in _PASSED_OVER:
            return
        self._depth += 1
        if self._depth > _DEEPEST:
            raise FileError(self._source, f"nested more than {_DEEPEST} deep", node.start_point.row + 1)
        handler = _HANDLERS.get(node.type)
        if handler is not None:
            handler(self, node, state)
        self._depth -= 1

    def _command(self, node: Node, state: State, redirects: tuple[Redirect, ...] = ()) -> None:
        expander = self._expander(state)
        own: dict[str, Variable] = {}
        words: list[Word] = []
        found = list(redirects)
        last_row = node.start_point.row
        for child in node.children:
            if child.type == "variable_assignment":
                made = assigned(child, state, expander)
                own[made.name] = made
            elif child.type in ("file_redirect", "herestring_redirect", "heredoc_redirect"):
                found += redirects_of(child, expander)
            elif child.is_named:
                if own and not words and child.start_point.row > last_row and not goes_on(node, child):
                    state.variables.update(own)  # the grammar takes a line of assignments for the next one's prefix
                    own = {}
                    expander = self._expander(state)
                words += expander.words(child.named_children[0] if child.type == "command_name" else child)
            elif child.type in ("==", "=~"):  # to the grammar an operator, to the shell a word
                words.append(Word(child.type, child.start_point.row + 1, child.start_point.column + 1))
            last_row = child.end_point.row
        if not words:
            state.variables.update(own)
            return
        self._simple(words, own, tuple(found), state)

    def _simple(
        self, words: list[Word], own: dict[str, Variable], redirects: tuple[Redirect, ...], state: State
    ) -> None:
        name = words[0].text
        if name in self._functions and self._calling < _CALLS_DEEP:
            self._calling += 1
            first, before = len(self.commands), dict(state.variables)
            with called_with(state.variables, words[1:], words[0].line):
                self._statement(self._functions[name], state.here())
            if self._foreign.get(name) is self._functions.get(name):
                self._move(first, words[0].line, before, state)
            self._calling -= 1
            return
        if len(self.commands) >= MOST_COMMANDS:
            raise FileError(self._source, f"more than {MOST_COMMANDS} commands; this is no script that starts training")
        if name in ("source", "."):
            if not (words[1:] and self._read_in(words[1], tuple(words[2:]), state)):
                self.sourced += words[1:2]
                state.shared.sourced = ", ".join(word.text for word in self.sourced)
        elif name == "cd":
            state.go_to(words[1] if len(words) > 1 else None)
        elif name == "set":
            state.set_options([word.text for word in words[1:]])
            made = set_by(words[1:])
            if made is not None:
                state.variables[PARAMETERS] = parameters(made, words[0].line)
        elif name in ("read", "mapfile", "readarray", "getopts"):
            state.forget([word.text for word in words[1:]], f"`{name}` reads it in line {words[0].line}", words[0].line)
        elif name == "eval":
            state.forget_all(words[0].line)
        elif name == "shift":
            shifted(state.variables, words[1] if len(words) > 1 else None, words[0].line)
        everything = {**state.variables, **own}
        self.commands.append(
            Command(
                words=tuple(words),
                variables={**{key: one for key, one in everything.items() if one.exported}, **own},
                shell_variables=everything,
                redirects=redirects,
                background=state.background,
                checked=state.checked or (state.shared.errexit and not state.swallowed),
                conditional=state.conditional,
                cwd=state.shared.cwd,
                piped=state.swallowed,
            )
        )
        self._start(words, everything, state)

    def _read_in(self, script: Word, arguments: tuple[Word, ...], state: State) -> bool:
        """`source x.sh`: its commands here, with the variables of here. False where it is not followed."""
        if not arguments:
            return self._follow(script, state.here(), state, own_shell=False)
        with called_with(state.variables, arguments, script.line):
            return self._follow(script, state.here(), state, own_shell=False)

    def _start(self, words: list[Word], variables: dict[str, Variable], state: State) -> None:
        """`bash x.sh`: its commands in a shell of its own, which has what is exported."""
        found = started(unwrapped(words))
        if found is None:
            return
        script, arguments, errexit = found
        seen = state.checked or state.shared.errexit
        shared = Shell(errexit=errexit, cwd=state.shared.cwd)
        own = {**inherited(variables), PARAMETERS: parameters(arguments, script.line)}
        inside = replace(state, variables=own, shared=shared, checked=seen and not errexit)
        self._follow(script, inside, state, own_shell=True)

    def _follow(self, script: Word, inside: State, state: State, *, own_shell: bool) -> bool:
        """Walk another file's tree, and put what it does at the line that leads there."""
        following = self._following
        try:
            found = following.text_of(script, self._source)
            root = parse(*found)[0] if found is not None else None
        except FileError as error:
            following.notes.append(
                f"{error}; line {script.line} of {self._source} leads there, and nothing of it was judged"
            )
            return False
        if found is None or root is None:
            return False
        before = dict(inside.variables)
        outer, functions, first = self._source, self._functions, len(self.commands)
        stack, following.stack = following.stack, (*following.stack, found[1])
        self._source, self._functions = found[1], {} if own_shell else dict(functions)
        inside.shared.errexit = inside.shared.errexit or (own_shell and bool(_SHEBANG_ERREXIT.match(found[0])))
        self._body(root.children, inside)
        made = {} if own_shell else self._functions
        self._foreign.update({name: node for name, node in made.items() if functions.get(name) is not node})
        self._source, self._functions, following.stack = outer, {**functions, **made}, stack
        self._move(first, script.line, before, None if own_shell else state)
        return True

    def _move(self, first: int, line: int, before: dict[str, Variable], state: State | None) -> None:
        """Put the commands from the first on, and the variables that are new in a state, at a line."""
        self.commands[first:] = [moved(command, line, before) for command in self.commands[first:]]
        if state is not None:
            state.variables.update(moved_variables(state.variables, line, before))

    def _expander(self, state: State) -> Expander:
        return Expander(state.variables, state.shared.sourced)

    def _assignment(self, node: Node, state: State) -> None:
        made = assigned(node, state, self._expander(state))
        state.variables[made.name] = made

    def _assignments(self, node: Node, state: State) -> None:
        for child in node.named_children:
            self._assignment(child, state)

    def _declaration(self, node: Node, state: State) -> None:
        keyword = node.children[0].type
        flags = [text_of(child) for child in node.children if child.type == "word" and text_of(child)[:1] == "-"]
        exports = keyword == "export" or any("x" in flag for flag in flags)
        for child in node.named_children:
            if child.type == "variable_assignment":
                made = assigned(child, state, self._expander(state))
                state.variables[made.name] = replace(made, exported=made.exported or exports)
            elif child.type == "variable_name" and exports and "-n" not in flags:
                name = text_of(child)
                if name in state.variables:
                    state.variables[name] = replace(state.variables[name], exported=True)

    def _unset(self, node: Node, state: State) -> None:
        for child in node.named_children:
            state.variables.pop(text_of(child), None)

    def _redirected(self, node: Node, state: State) -> None:
        expander = self._expander(state)
        inner, *others = node.children
        redirects: list[Redirect] = []
        for child in others:
            if child.type in ("file_redirect", "heredoc_redirect", "herestring_redirect"):
                redirects += redirects_of(child, expander)
        if inner.type == "command":
            self._command(inner, state, tuple(redirects))
            return
        first = len(self.commands)
        self._statement(inner, state)
        last = self.commands[first:]
        if last and redirects:  # of a block or a pipe: they are its last command's, whose folder must be there
            self.commands[-1] = replace(last[-1], redirects=(*last[-1].redirects, *redirects))

    def _list(self, node: Node, state: State) -> None:
        """`a && b`, `a || b`: what stands left of an operator is looked at by it."""
        operators = [child.type for child in node.children if not child.is_named]
        parts = [child for child in node.children if child.is_named]
        for place, part in enumerate(parts):
            guarded = place < len(operators)
            self._statement(part, replace(state, checked=state.checked or guarded, conditional=state.conditional))

    def _pipeline(self, node: Node, state: State) -> None:
        parts = [child for child in node.children if child.is_named]
        for place, part in enumerate(parts):
            hidden = place + 1 < len(parts) and not state.shared.pipefail
            inside = replace(state.here(), variables=dict(state.variables), checked=state.checked and not hidden)
            self._statement(part, replace(inside, swallowed=state.swallowed or hidden))

    def _subshell(self, node: Node, state: State) -> None:
        shared = replace(state.shared)
        self._body(node.children, replace(state, variables=dict(state.variables), shared=shared))

    def _block(self, node: Node, state: State) -> None:
        self._body(node.children, state)

    def _negated(self, node: Node, state: State) -> None:
        self._body(node.children, replace(state, checked=True))

    def _if(self, node: Node, state: State) -> None:
        """Every branch is walked from the same beginning; what they leave different is not known afterwards."""
        before = dict(state.variables)
        ends = []
        condition, body = [], []
        seen_then = False
        for child in node.children:
            if child.type == "then":
                seen_then = True
            elif child.type in ("elif_clause", "else_clause"):
                ends.append((child, None))
            elif seen_then:
                body.append(child)
            else:
                condition.append(child)
        self._body(condition, replace(state, checked=True))
        results = [self._branch(body, state)]
        for clause, _ in ends:
            results.append(self._branch(clause.children, state))
        if not any(clause.type == "else_clause" for clause, _ in ends):
            results.append(before)
        settled(state.variables, results, node.start_point.row + 1, "if")

    def _branch(self, nodes: Iterable[Node], state: State) -> dict[str, Variable]:
        inside = replace(state, variables=dict(state.variables), conditional=True)
        self._body(nodes, inside)
        return inside.variables

    def _case(self, node: Node, state: State) -> None:
        items = [child for child in node.children if child.type == "case_item"]
        results = [self._branch(case_body(item), state) for item in items]
        settled(state.variables, [*results, dict(state.variables)], node.start_point.row + 1, "case")

    def _for(self, node: Node, state: State) -> None:
        line = node.start_point.row + 1
        name = next((text_of(child) for child in node.children if child.type == "variable_name"), "")
        body = next((child for child in node.children if child.type == "do_group"), None)
        written = [child for child in node.children if child.is_named and child not in (body,)][1:]
        values = [word for child in written for word in self._expander(state).words(child)]
        literal = node.children[0].type == "for" and values and not any(map(is_open, values))
        if body is None or (written and not values):  # over what is known to be nothing
            return
        if not literal or len(values) > _MOST_ROUNDS:
            reason = f"it takes the values of the loop in line {line}"
            state.variables[name] = Variable(name, (Word(Unknown(f"${name}", reason), line),), line)
            self._loop(body, state, line)
            return
        for value in values:
            state.variables[name] = Variable(name, (value,), value.line)
            self._body(body.children, state)

    def _while(self, node: Node, state: State) -> None:
        for child in node.children:
            if child.type == "do_group":
                self._loop(child, state, node.start_point.row + 1)
            elif child.is_named:
                self._statement(child, replace(state, checked=True))

    def _counted(self, node: Node, state: State) -> None:
        """`for ((i = 0; …))`: its variable is not worked out."""
        line = node.start_point.row + 1
        for child in node.children:
            if child.type == "variable_assignment":
                name = text_of(child.children[0])
                held = Word(Unknown(f"${name}", f"it is counted by the loop in line {line}"), line)
                state.variables[name] = Variable(name, (held,), line)
            elif child.type in ("do_group", "compound_statement"):
                self._loop(child, state, line)

    def _loop(self, body: Node, state: State, line: int) -> None:
        """A body that runs nobody knows how often: once here, with what it changes unknown from the beginning."""
        for name in assigned_in(body):
            held = Word(Unknown(f"${name}", f"it changes in the loop of line {line}"), line)
            before = state.variables.get(name)
            if before is not None:
                state.variables[name] = replace(before, words=(held,))
        self._body(body.children, replace(state, conditional=True))

    def _function(self, node: Node, state: State) -> None:
        name = next((text_of(child) for child in node.children if child.type == "word"), "")
        body = next((child for child in node.children if child.type in ("compound_statement", "subshell")), None)
        if name and body is not None:
            self._functions[name] = body

    def _nothing(self, node: Node, state: State) -> None:
        """`[[ … ]]` and `(( … ))` start nothing."""


_Handler = Callable[[Walker, "Node", State], None]
_HANDLERS: dict[str, _Handler] = {
    "command": Walker._command,
    "redirected_statement": Walker._redirected,
    "variable_assignment": Walker._assignment,
    "variable_assignments": Walker._assignments,
    "declaration_command": Walker._declaration,
    "unset_command": Walker._unset,
    "list": Walker._list,
    "pipeline": Walker._pipeline,
    "subshell": Walker._subshell,
    "compound_statement": Walker._block,
    "negated_command": Walker._negated,
    "if_statement": Walker._if,
    "case_statement": Walker._case,
    "for_statement": Walker._for,
    "c_style_for_statement": Walker._counted,
    "while_statement": Walker._while,
    "function_definition": Walker._function,
    "test_command": Walker._nothing,
}
