"""The real shell as judge: what bash hands to a program must be what was read, for scripts drawn at random."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsdoctor.yamlfile import FileError
from tests.jobs.reading import SCRIPTS, read

BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="bash is not here")

STUB = """#!/bin/bash
printf '%s\\0' "$@" >> "$OUT"; printf '\\1' >> "$OUT"
"""

names = st.sampled_from(["a", "b", "lr", "OUT_DIR"])
# A lone == is a word to bash, and at the end of a command an error to the grammar.
plain = st.text(st.sampled_from("abcXYZ019./:=,_@%+"), min_size=1, max_size=6).filter(lambda text: text != "==")
single = st.text(st.sampled_from('ab $"\\#`*'), max_size=6).map(lambda text: f"'{text}'")
double = st.lists(
    st.one_of(st.text(st.sampled_from("ab #'*"), max_size=4), names.map(lambda name: f"${{{name}}}"), st.just('\\"')),
    max_size=3,
).map(lambda parts: '"' + "".join(parts) + '"')
number = st.integers(0, 50).map(str)
sums = st.tuples(number, st.sampled_from("+-*"), number).map(lambda parts: f"$(({parts[0]} {parts[1]} {parts[2]}))")
reference = names.map(lambda name: f"${name}")
default = st.tuples(names, plain).map(lambda parts: f"${{{parts[0]}:-{parts[1]}}}")
unset_default = plain.map(lambda text: f"${{nowhere:-{text}}}")
array = st.just('"${arr[@]}"')
word = st.one_of(plain, single, double, reference, default, unset_default, sums, array, plain.map("--{}".format))
glued = st.lists(st.one_of(plain, single, double, default), min_size=1, max_size=3).map("".join)
arguments = st.lists(st.one_of(word, glued), max_size=6)
joint = st.sampled_from([" ", "  ", " \\\n  "])
call = st.tuples(arguments, joint).map(lambda parts: parts[1].join(["torchrun", "t.py", *parts[0]]))
value = st.one_of(plain, single, double, sums, default)
assignment = st.tuples(names, value).map(lambda parts: f"{parts[0]}={parts[1]}")
elements = st.lists(st.one_of(plain, single, double), max_size=3).map(lambda parts: f"arr=({' '.join(parts)})")
loop = st.tuples(st.lists(plain, min_size=1, max_size=3), call).map(
    lambda parts: f"for a in {' '.join(parts[0])}; do\n{parts[1]}\ndone"
)
function = call.map(lambda text: f'f() {{\n{text} "$@" "$1"\n}}\nf x \'y z\'')
statement = st.one_of(call, call, assignment, assignment, elements, loop, function, st.just("# 'a comment"))
BEGIN = ["a=1", "b='x  y'", "lr=", "OUT_DIR=o", "arr=(p 'q r')"]
scripts = st.lists(statement, min_size=1, max_size=8).map(lambda lines: "\n".join([*BEGIN, *lines]) + "\n")
PIECES = (
    *("if true; then\n", "fi\n", "for x in a; do\n", "done\n", "python t.py ", "'", '"', "$(", ")", "{ ", "}\n", "\n"),
    *("a=1\n", "&& ", "\\\n", "# x\n", "${y", "}", "((", "))", "case x in\n", "a) ;;\n", "esac\n"),
    *("<<E\nz\nE\n", "| tee l\n", "; "),
)


def handed_over(text: str, folder: Path, *arguments: str) -> list[list[str]]:
    """What bash gives to torchrun, call by call, when the script is called with these arguments."""
    stub, out = folder / "torchrun", folder / "out"
    if not stub.exists():
        stub.write_text(STUB, encoding="utf-8")
        stub.chmod(0o755)
    out.write_bytes(b"")
    environment = {"PATH": f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin", "OUT": str(out)}
    empty = folder / "empty"
    empty.mkdir(exist_ok=True)  # nothing for a * to match
    assert BASH is not None
    argv = [BASH, "-c", text, "job.sh", *arguments]
    subprocess.run(argv, env=environment, cwd=empty, check=False, capture_output=True, timeout=20)
    calls = out.read_bytes().decode("utf-8").split("\1")[:-1]
    return [part.split("\0")[:-1] for part in calls]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=scripts)
def test_words_are_those_that_bash_hands_over(text: str, tmp_path: Path) -> None:
    wanted = handed_over(text, tmp_path)
    got = [
        [word.text for word in (*call.options, *([call.program] if call.program else []), *call.arguments)]
        for call in read(text).calls
    ]
    assert got == wanted, json.dumps([text, got, wanted], indent=1)


parameter = st.sampled_from(
    ["$1", '"$1"', "${2}", '"${2:-none}"', "${3:-more}", '"$3"', '"$@"', "$@", '"$*"', "$#", "x$1y", '"a $2"', "--n=$#"]
)
calling = st.lists(st.one_of(parameter, parameter, plain, single), max_size=5).map(
    lambda words: " ".join(["torchrun t.py", *words])
)
changing = st.sampled_from(
    [
        *("shift", "shift 2", "set -- p 'q r' s", "set -f", "A=$1", 'set -- "$@" more', "(shift; torchrun sub $1)"),
        'for x in "$@"; do torchrun $x; done',
        'g() { torchrun in $1; shift; torchrun in $# "$@"; }; g b "$2"',
    ]
)
called = st.lists(st.one_of(calling, calling, changing), min_size=1, max_size=7).map("\n".join)
given_words = st.lists(st.sampled_from(["8", "1e-05", "a b", ".*q|v.*", "host:0,1", "--x"]), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=called, arguments=given_words)
def test_a_script_that_is_called_with_arguments(text: str, arguments: list[str], tmp_path: Path) -> None:
    wanted = handed_over(f"set -f\n{text}", tmp_path, *arguments)
    found = [
        [each.text for each in (*call.options, *([call.program] if call.program else []), *call.arguments)]
        for call in read(text, *arguments).calls
    ]
    assert found == wanted, json.dumps([text, arguments, found, wanted], indent=1)


@pytest.mark.parametrize("path", sorted(SCRIPTS.rglob("*.sh")), ids=lambda path: path.relative_to(SCRIPTS).as_posix())
def test_what_bash_takes_is_read(path: Path) -> None:
    assert BASH is not None
    good = subprocess.run([BASH, "-n", str(path)], capture_output=True, check=False, timeout=20).returncode == 0
    assert good
    assert read(path.read_text(encoding="utf-8")).calls


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=12))
def test_what_bash_takes_is_not_refused(pieces: list[str], tmp_path: Path) -> None:
    text = "".join(pieces)
    try:
        read(text)
    except FileError:
        path = tmp_path / "s.sh"
        path.write_text(text, encoding="utf-8")
        assert BASH is not None
        said = subprocess.run([BASH, "-n", str(path)], capture_output=True, check=False, timeout=20)
        assert said.returncode != 0 or b"warning" in said.stderr, text
