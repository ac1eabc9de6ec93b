"""From the syntax tree to what the script does: its commands in order, with the variables in force at each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from dsdoctor.jobs.script.expand import Expander, text_of
from dsdoctor.jobs.script.model import Command, Redirect, Variable, Word
from dsdoctor.jobs.script.nodes import asks_for_status, assigned_in, case_body, goes_on, is_open
from dsdoctor.jobs.script.state import Shell, State, settled
from dsdoctor.jobs.unknown import Unknown
from dsdoctor.yamlfile import FileError

if TYPE_CHECKING:
    from tree_sitter import Node

MOST_COMMANDS = 5_000
_MOST_ROUNDS = 200  # of a loop over a literal list
_DEEPEST = 100
_CALLS_DEEP = 10  # functions in functions

_PASSED_OVER = frozenset({"comment", "heredoc_body", "heredoc_end", "ERROR"})


class Walker:
    """Goes through a script once, in the order in which the shell would, and keeps every command."""

    def __init__(self, source: str) -> None:
        self.commands: list[Command] = []
        self.sourced: list[Word] = []
        self._source = source
        self._functions: dict[str, Node] = {}
        self._depth = 0
        self._calling = 0

    def run(self, root: Node, errexit: bool) -> None:
        """Walk a whole script. Raises FileError for one that is no script of commands in a readable depth."""
        self._body(root.children, State(shared=Shell(errexit=errexit)))

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
                made = self._assigned(child, state, expander)
                own[made.name] = made
            elif child.type in ("file_redirect", "herestring_redirect", "heredoc_redirect"):
                found += self._redirects(child, expander)
            elif child.is_named:
                if own and not words and child.start_point.row > last_row and not goes_on(node, child):
                    state.variables.update(own)  # the grammar takes a line of assignments for the next one's prefix
                    own = {}
                    expander = self._expander(state)
                words += expander.words(child.named_children[0] if child.type == "command_name" else child)
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
            inside = replace(state.here(), positional=tuple(words[1:]))
            self._statement(self._functions[name], inside)
            self._calling -= 1
            return
        if len(self.commands) >= MOST_COMMANDS:
            raise FileError(self._source, f"more than {MOST_COMMANDS} commands; this is no script that starts training")
        if name in ("source", "."):
            self.sourced += words[1:2]
            state.shared.sourced = ", ".join(word.text for word in self.sourced)
        elif name == "cd":
            state.go_to(words[1] if len(words) > 1 else None)
        elif name == "set":
            state.set_options([word.text for word in words[1:]])
        elif name in ("read", "mapfile", "readarray", "getopts"):
            state.forget([word.text for word in words[1:]], f"`{name}` reads it in line {words[0].line}", words[0].line)
        elif name in ("shift", "eval"):
            state.forget_all_if(name == "eval", words[0].line)
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

    def _assigned(self, node: Node, state: State, expander: Expander) -> Variable:
        """What an assignment makes of its variable. The value is written where the first word of it stands."""
        parts = node.children
        name, line = text_of(parts[0]), node.start_point.row + 1
        before = state.variables.get(name)
        value = parts[2] if len(parts) > 2 else None
        adding = len(parts) > 1 and parts[1].type == "+="
        exported = (before.exported if before else False) or state.shared.allexport
        if parts[0].type == "subscript":
            name = text_of(parts[0].children[0])
            held = Word(Unknown(f"${name}", f"its elements are set one by one in line {line}"), line)
            return Variable(name, (held,), line, exported, array=True)
        if value is not None and value.type == "array":
            words = tuple(word for child in value.named_children for word in expander.words(child))
            return Variable(name, (*(before.words if before and adding else ()), *words), line, exported, array=True)
        text = expander.text(value) if value is not None else ""
        column = (value or node).start_point.column + 1
        if adding and before is not None:
            old = before.value
            joined = old + text
            reason = next((one.reason for one in (old, text) if isinstance(one, Unknown)), None)
            if len(joined) > 100_000:
                reason = "it grows beyond 100,000 characters"
            text = joined if reason is None else Unknown(joined[:1000], reason)
        return Variable(name, (Word(text, line, column),), line, exported)

    def _redirects(self, node: Node, expander: Expander) -> list[Redirect]:
        found = []
        operator = next((child.type for child in node.children if ">" in child.type or "<" in child.type), "")
        for child in node.named_children:
            if child.type == "file_redirect":
                found += self._redirects(child, expander)
            elif child.type not in ("file_descriptor", "heredoc_start", "heredoc_body", "heredoc_end"):
                if node.type != "file_redirect":
                    continue
                word = Word(expander.text(child), child.start_point.row + 1, child.start_point.column + 1)
                found.append(Redirect(operator, word))
        return found

    def _expander(self, state: State) -> Expander:
        return Expander(state.variables, state.positional, state.shared.sourced)

    def _assignment(self, node: Node, state: State) -> None:
        made = self._assigned(node, state, self._expander(state))
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
                made = self._assigned(child, state, self._expander(state))
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
                redirects += self._redirects(child, expander)
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
        if body is None:
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
