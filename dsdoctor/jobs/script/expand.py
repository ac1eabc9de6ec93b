"""What the shell makes of a written word: quotes taken off, variables put in, and what cannot be told kept by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from dsdoctor.jobs.script.fields import Piece, braces, fields, joined, trimmed
from dsdoctor.jobs.script.model import Variable, Word
from dsdoctor.jobs.script.parameters import NAME, all_of, count, one_of
from dsdoctor.jobs.unknown import Unknown

if TYPE_CHECKING:
    from tree_sitter import Node

_ESCAPED = re.compile(r"\\(\n|.)", re.DOTALL)
_ESCAPED_IN_QUOTES = re.compile(r"\\([$`\"\\\n])")
_ANSI = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,17})")
_GIVEN = re.compile(r"\d+|[@*#]")
_SHELLS_OWN = {"RANDOM": "drawn at random", "SRANDOM": "drawn at random", "LINENO": "a line's number"}


def text_of(node: Node) -> str:
    """The text of a node as it is written."""
    return (node.text or b"").decode("utf-8", "replace")


class Expander:
    """Expands the words of one place of the script, with the variables in force there."""

    def __init__(self, variables: Mapping[str, Variable], sourced: str) -> None:
        self._variables = variables
        self._sourced = sourced  # the files read in so far, for the reason of an unset variable

    def words(self, node: Node) -> list[Word]:
        """The words that one written word becomes: none, one, or several."""
        if node.type in ("word", "number"):
            text = text_of(node)
            if "\\" not in text and "{" not in text:
                return [Word(text, node.start_point.row + 1, node.start_point.column + 1)]
        array = self._array(node)
        if array is not None:
            return array
        line, column = node.start_point.row + 1, node.start_point.column + 1
        literal = text_of(node)
        if node.type in ("word", "concatenation", "brace_expression") and "{" in literal:
            made = braces(literal)
            if made is not None:
                return [Word(text, line, column) for text in made]
        return list(fields(list(self._pieces(node, quoted=False)), line, column))

    def text(self, node: Node) -> str:
        """The value of a written word where blanks do not part it: an assignment, a file to write to."""
        return joined([piece.text for piece in self._pieces(node, quoted=True)])

    def _array(self, node: Node) -> list[Word] | None:
        """The elements of `"${name[@]}"` and of `"$@"`, each with its own place; None for any other word."""
        inner = node.named_children[0] if node.type == "string" and node.named_child_count == 1 else node
        if text_of(node).strip('"') != text_of(inner):
            return None
        name = _whole_array(inner)
        if name == "*" and node.type == "string" and NAME in self._variables:
            return None  # one word
        if name in ("@", "*"):
            line, column = node.start_point.row + 1, node.start_point.column + 1
            known = all_of(self._variables, line, column)
            if known is not None and node.type != "string":  # parted at blanks once more
                return [one for word in known for one in fields([Piece(word.text, splits=True)], line, column)]
            if known is not None:
                return known
            return [Word(Unknown(text_of(inner), _POSITIONAL), line, column, many=True)]
        held = self._variables.get(name) if name else None
        return list(held.words) if held is not None and held.array else None

    def _pieces(self, node: Node, *, quoted: bool) -> Iterator[Piece]:
        maker = _MAKERS.get(node.type)
        if maker is not None:
            yield from maker(self, node, quoted)
        elif node.child_count and node.type in ("concatenation", "command_name", "translated_string"):
            yield from self._concatenated(node, quoted)
        else:
            yield Piece(_ESCAPED.sub(lambda found: found[1].strip("\n"), text_of(node)))

    def _concatenated(self, node: Node, quoted: bool) -> Iterator[Piece]:
        for child in node.children:
            if child.type != "$":
                yield from self._pieces(child, quoted=quoted)
            else:
                yield Piece("$")

    def _string(self, node: Node, _quoted: bool) -> Iterator[Piece]:
        """What stands in double quotes; blanks between its parts belong to none, or to the token behind them."""
        source, start = node.text or b"", node.start_byte
        at = node.start_byte + 1
        yield Piece("", quoted=True)
        for child in node.children[1:]:
            between = source[at - start : child.start_byte - start].decode("utf-8", "replace")
            if child.type != "string_content":
                own = text_of(child)
                between += own[: len(own) - len(own.lstrip())]
            if between:
                yield Piece(between, quoted=True)
            at = child.end_byte
            if child.type == '"':
                continue
            if child.type == "string_content":
                inside = _ESCAPED_IN_QUOTES.sub(lambda found: found[1].strip("\n"), text_of(child))
                yield Piece(inside, quoted=True)
            elif child.is_named:
                for piece in self._pieces(child, quoted=True):
                    yield Piece(piece.text, many=False, quoted=True)
            else:
                yield Piece(text_of(child), quoted=True)

    def _raw(self, node: Node, _quoted: bool) -> Iterator[Piece]:
        yield Piece(text_of(node)[1:-1], quoted=True)

    def _ansi(self, node: Node, _quoted: bool) -> Iterator[Piece]:
        yield Piece(re.sub(r"\\(.)", lambda found: _ANSI.get(found[1], found[0]), text_of(node)[2:-1]), quoted=True)

    def _variable(self, node: Node, quoted: bool) -> Iterator[Piece]:
        name = text_of(node).strip()[1:]
        name, rest = (name[:1], name[1:]) if name[:1].isdigit() else (name, "")  # $10 is $1 and a 0
        yield self._held(name, f"${{{name}}}" if name.isdigit() else f"${name}", quoted)
        if rest:
            yield Piece(rest, quoted=quoted)

    def _held(self, name: str, written: str, quoted: bool) -> Piece:
        held = self._variables.get(NAME if name == "*" else name)
        if held is None or (name in ("@", "*") and not held.value):
            return self._unset(name, written, quoted) if held is None else Piece("", splits=not quoted)
        return Piece(held.value, splits=not quoted, many=not quoted and isinstance(held.value, Unknown))

    def _unset(self, name: str, written: str, quoted: bool) -> Piece:
        if name.isdigit() and name != "0" and len(name) < 6:
            one = one_of(self._variables, int(name))
            if one is not None:
                return Piece(one, splits=not quoted, many=not quoted and isinstance(one, Unknown))
        number = count(self._variables) if name == "#" else None
        if number is not None:
            return Piece(number, splits=not quoted)
        many = not quoted and name in ("@", "*")
        return Piece(Unknown(written, self._why(name)), many=many)

    def _why(self, name: str) -> str:
        if name == "0":
            return "$0 is how the script is called"
        if _GIVEN.fullmatch(name):
            return _POSITIONAL
        if name in _SHELLS_OWN:
            return f"${name} is {_SHELLS_OWN[name]}"
        if name in ("?", "!", "$", "-", "_"):
            return f"${name} is known only while it runs"
        otherwise = f", perhaps in {self._sourced}" if self._sourced else ""
        return f"${name} is not set in the script{otherwise}"

    def _expansion(self, node: Node, quoted: bool) -> Iterator[Piece]:
        """`${name}` and its kin: defaults, and what is cut off at either end."""
        written = text_of(node).strip()
        parts = [child for child in node.children if child.type not in ("${", "}")]
        name = text_of(parts[0]) if parts else ""
        if len(parts) == 1 and parts[0].type in ("variable_name", "special_variable_name"):
            yield self._held(name, written, quoted)
            return
        if len(parts) == 1 and parts[0].type == "subscript":
            yield self._element(parts[0], written, quoted)
            return
        operator = parts[1].type if len(parts) > 1 else ""
        held = self._held(name, written, quoted)
        unset = isinstance(held.text, Unknown) and name not in self._variables
        rest = joined([piece.text for part in parts[2:] for piece in self._pieces(part, quoted=True)])
        if operator in (":-", "-", ":=", "="):
            empty = not isinstance(held.text, Unknown) and held.text == "" and operator.startswith(":")
            yield Piece(rest, splits=not quoted) if unset or empty else held
        elif operator in (":?", "?"):
            yield held
        elif operator in ("#", "##", "%", "%%") and not isinstance(held.text, Unknown) and rest:
            yield Piece(trimmed(held.text, operator, rest), splits=not quoted)
        else:
            reason = held.text.reason if isinstance(held.text, Unknown) else f"{written} is not worked out"
            yield Piece(Unknown(written, reason), many=not quoted)

    def _element(self, node: Node, written: str, quoted: bool) -> Piece:
        name, index = text_of(node.children[0]), text_of(node.children[2]) if node.child_count > 3 else ""
        held = self._variables.get(name)
        if held is not None and index.isdigit() and int(index) < len(held.words):
            return Piece(held.words[int(index)].text, splits=not quoted)
        if held is not None and index in ("@", "*"):
            return Piece(held.value, splits=not quoted)
        return Piece(Unknown(written, f"{written} is not worked out"), many=not quoted)

    def _substitution(self, node: Node, quoted: bool) -> Iterator[Piece]:
        written = " ".join(text_of(node).split())
        yield Piece(Unknown(written, f"{_shortened(written)} is what a command prints"), many=not quoted)

    def _arithmetic(self, node: Node, _quoted: bool) -> Iterator[Piece]:
        from dsdoctor.jobs.script.arithmetic import evaluate

        yield Piece(evaluate(node, self._number))

    def _number(self, name: str) -> int | Unknown:
        """A variable in an arithmetic expression: a number, or why there is none."""
        value = self._held(name, f"${name}", quoted=True).text
        if isinstance(value, Unknown):
            return value
        return int(value) if _NUMBER.fullmatch(value) else Unknown(f"${name}", f"${name} is {value!r}, no number")


_POSITIONAL = "it is given when the script is called"
_Maker = Callable[[Expander, "Node", bool], Iterator[Piece]]
_MAKERS: dict[str, _Maker] = {
    "string": Expander._string,
    "raw_string": Expander._raw,
    "ansi_c_string": Expander._ansi,
    "simple_expansion": Expander._variable,
    "expansion": Expander._expansion,
    "command_substitution": Expander._substitution,
    "process_substitution": Expander._substitution,
    "arithmetic_expansion": Expander._arithmetic,
}


def _whole_array(node: Node) -> str | None:
    """The name in `${name[@]}`, `@` for `$@`; None for anything else."""
    if node.type == "simple_expansion" and text_of(node) in ("$@", "$*"):
        return text_of(node)[1:]
    if node.type == "expansion" and node.child_count == 3 and node.children[1].type == "subscript":
        inside = re.fullmatch(r"(\w+)\[[@*]\]", text_of(node.children[1]))
        return inside[1] if inside else None
    if node.type == "expansion" and text_of(node) in ("${@}", "${*}"):
        return "@"
    return None


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
