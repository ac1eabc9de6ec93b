"""What is read out of shell scripts: words, variables, launchers, places; and what is left unknown by name."""

from __future__ import annotations

import pytest

from dsdoctor.jobs.script.model import Call
from dsdoctor.jobs.unknown import Unknown
from dsdoctor.yamlfile import FileError
from tests.jobs.reading import read, words


def only(text: str) -> Call:
    (call,) = read(text).calls
    return call


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("python t.py --a 'b c' \"d  e\" f\\ g", ["--a", "b c", "d  e", "f g"]),
        ("x=1\npython t.py --a=$x \"${x}2\" ${y:-d} \"${z-e f}\"", ["--a=1", "12", "d", "e f"]),
        ("opts='--a 1  --b 2'\npython t.py $opts \"$opts\"", ["--a", "1", "--b", "2", "--a 1  --b 2"]),
        ("opts=(--a 'b c')\nopts+=(--d)\npython t.py \"${opts[@]}\"", ["--a", "b c", "--d"]),
        ("n=4\npython t.py $((n * 2 + 1)) $(( (n-1) / 2 ))", ["9", "1"]),
        ("p=/a/b.yaml\npython t.py ${p##*/} ${p%.yaml} ${p%/*}", ["b.yaml", "/a/b", "/a"]),
        ("python t.py {1..3} a{b,c}", ["1", "2", "3", "ab", "ac"]),
        ("f() { python t.py \"$1\" \"${@}\"; }\nf one two", ["one", "one", "two"]),
        ("e=\npython t.py $e --x", ["--x"]),
        ("python t.py $'a\\tb' pre\"mid\"'post'", ["a\tb", "premidpost"]),
        ("a=1 b=2\npython t.py $a $b", ["1", "2"]),
        ("x=1\npython t.py ' ' \" \" \"  $x  \" \"a  $((x)) b\"", [" ", " ", "  1  ", "a  1 b"]),
        ("if true; then x=1; else x=1; fi\npython t.py $x", ["1"]),
    ],
)  # fmt: skip
def test_words_as_the_shell_makes_them(text: str, wanted: list[str]) -> None:
    assert words(text) == wanted


@pytest.mark.parametrize(
    ("text", "written", "reason"),
    [
        ("python t.py --lr $3", "${3}", "it is given when the script is called"),
        ("python t.py --lr ${3}", "${3}", "it is given when the script is called"),
        ("python t.py --lr $(cat lr)", "$(cat lr)", "$(cat lr) is what a command prints"),
        ("python t.py --lr `cat lr`", "`cat lr`", "`cat lr` is what a command prints"),
        ("python t.py --lr $LR", "$LR", "$LR is not set in the script"),
        ("source env.sh\npython t.py --lr $LR", "$LR", "$LR is not set in the script, perhaps in env.sh"),
        ("python t.py --lr $((RANDOM % 3))", "$((RANDOM % 3))", "$RANDOM is drawn at random"),
        ("if [ $1 ]; then x=1; fi\npython t.py --lr $x", "$x", "it depends on the `if` in line 1"),
        ("x=1\nwhile read y; do x=2; done\npython t.py --lr $x", "2", None),
        ("read -r lr\npython t.py --lr $lr", "$lr", "`read` reads it in line 1"),
        ("for f in *.txt; do python t.py --lr $f; done", "$f", "it takes the values of the loop in line 1"),
    ],
)
def test_what_cannot_be_known_is_kept_by_name(text: str, written: str, reason: str | None) -> None:
    word = only(text).arguments[-1]
    assert word.text == written
    assert (word.text.reason if isinstance(word.text, Unknown) else None) == reason


def test_a_loop_over_words_makes_one_call_each_with_the_line_of_each_value() -> None:
    script = read("for t in a b; do\n  torchrun t.py --task $t\ndone\n")
    assert [[word.text for word in call.arguments] for call in script.calls] == [["--task", "a"], ["--task", "b"]]
    assert [call.line for call in script.calls] == [2, 2]


LAUNCHES = [
    (
        "deepspeed --num_gpus=2 --master_port 1 t.py --a",
        *("deepspeed", ["--num_gpus=2", "--master_port", "1"], "t.py", ["--a"]),
    ),
    (
        "torchrun --standalone --nproc_per_node gpu -m a.b -c d",
        *("torchrun", ["--standalone", "--nproc_per_node", "gpu", "-m"], "a.b", ["-c", "d"]),
    ),
    ("torchrun --nproc 2 t.py", "torchrun", ["--nproc", "2"], "t.py", []),
    (
        "python -u -m torch.distributed.launch --use_env --nproc_per_node=2 t.py x",
        *("torchrun", ["--use_env", "--nproc_per_node=2"], "t.py", ["x"]),
    ),
    (
        "accelerate launch --multi_gpu --config_file c.yaml t.py --y",
        *("accelerate", ["--multi_gpu", "--config_file", "c.yaml"], "t.py", ["--y"]),
    ),
    ("srun -N 2 --ntasks=4 -l python t.py --z", "srun", [], "t.py", ["--z"]),
    ("mpirun -np 4 -x PATH --mca a b python t.py", "mpirun", [], "t.py", []),
    ("srun torchrun t.py", "torchrun", [], "t.py", []),
    ("nohup env A=1 nice -n 5 python3.11 -W ignore t.py x", "python", [], "t.py", ["x"]),
    ("timeout -k 5 1h python t.py", "python", [], "t.py", []),
    ("/opt/env/bin/python -m pkg.train -v", "python", [], "pkg.train", ["-v"]),
    ("llamafactory-cli train x.yaml a=1", "llamafactory", [], "llamafactory-cli", ["train", "x.yaml", "a=1"]),
]


@pytest.mark.parametrize(("text", "launcher", "options", "program", "arguments"), LAUNCHES)
def test_launchers(text: str, launcher: str, options: list[str], program: str, arguments: list[str]) -> None:
    call = only(text)
    assert call.launcher == launcher
    assert [word.text for word in call.options] == options
    assert call.program is not None
    assert call.program.text == program
    assert [word.text for word in call.arguments] == arguments


NO_TRAINING = (
    *("python -c 'x'", "python --version", "pip install x", "echo python t.py", "ls", "accelerate config"),
    *("python -m pip install y", "# python t.py", "cat <<E\npython t.py\nE"),
)


@pytest.mark.parametrize("text", NO_TRAINING)
def test_what_starts_no_training(text: str) -> None:
    assert read(text).calls == ()


def test_the_environment_in_force_with_the_line_of_each() -> None:
    text = "A=1\nexport B=2 C\nC=3\nunset D\nexport A\nE=5 python t.py\npython u.py\n"
    first, second = read(text).calls
    assert {name: (one.value, one.line) for name, one in first.command.variables.items()} == {
        "A": ("1", 1), "B": ("2", 2), "E": ("5", 6),
    }  # fmt: skip
    assert "E" not in second.command.variables


def test_folders_files_and_the_background() -> None:
    text = 'cd exp\nnohup python t.py > logs/a.log 2>&1 &\n(cd b && python u.py)\ncd "$X"\npython v.py | tee v.log\n'
    first, second, third = (call.command for call in read(text).calls)
    assert (first.cwd, first.background) == ("exp", True)
    assert [(one.operator, one.target.text) for one in first.redirects] == [(">", "logs/a.log"), (">&", "1")]
    assert (second.cwd, second.background) == ("exp/b", False)
    assert isinstance(third.cwd, Unknown)
    assert third.piped


@pytest.mark.parametrize(
    ("text", "checked"),
    [
        ("python t.py", False),
        ("set -e\npython t.py", True),
        ("#!/bin/bash -eu\npython t.py", True),
        ("set -o errexit\npython t.py", True),
        ("set -e\nset +e\npython t.py", False),
        ("python t.py && ls", True),
        ("ls && python t.py", False),
        ("if python t.py; then ls; fi", True),
        ("python t.py\nif [ $? -ne 0 ]; then exit; fi", True),
        ("set -e\npython t.py | tee l", True),
    ],
)
def test_who_looks_at_a_failure(text: str, checked: bool) -> None:
    script = read(text)
    assert only(text).command.checked is (checked and "tee" not in text)
    assert script.calls


def test_sbatch_lines() -> None:
    script = read("#!/bin/bash\n#SBATCH -N 2 # hosts\n#SBATCH --time=1:00\nsrun python t.py\n#SBATCH --mem=1\n")
    assert [(word.text, word.line) for word in script.directives] == [("-N", 2), ("2", 2), ("--time=1:00", 3)]
    assert [(word.text, word.line) for word in script.late_directives] == [("--mem=1", 5)]


def test_columns() -> None:
    call = only("  torchrun t.py \\\n    --lr 1")
    assert [(word.line, word.column) for word in call.arguments] == [(2, 5), (2, 10)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("python t.py \\\n  --x \"abc\n", "job.sh:2: column 7: the double quote that opens here is never closed"),
        ("python t.py --x 'abc\nls\n", "job.sh:1: column 17: the single quote that opens here is never closed"),
        ("if true; then\n  python t.py\n", "job.sh:1: column 1: the if that opens here is never closed; fi is missing"),
        ("for x in a; do\n  python t.py\n", "the do that opens here is never closed; done is missing"),
        ("python t.py $(ls\n", "job.sh:1: column 13: the $( that opens here is never closed"),
        ("python t.py ${x\n", "the ${ that opens here is never closed"),
    ],
)  # fmt: skip
def test_what_is_never_closed_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(FileError) as caught:
        read(text)
    assert message in str(caught.value)


def test_a_script_is_read_on_behind_what_is_meant_to_be_one_command() -> None:
    assert words("python t.py --a 1 \\  //why\n  --b 2 \\\n  # --c 3\n  --d 4\n") == [
        "--a",
        "1",
        "--b",
        "2",
        "--d",
        "4",
    ]
