"""Packages that are sent to a host: unpacked in memory, from code or from source, or refused in words."""

import importlib
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dsdoctor.hosts.sent import BOOT, framed, pack

PROGRAM = {
    "__init__.py": '"""A program in two modules."""\n',
    "begin.py": """
        import json
        import sys

        from .deeper import fall, told


        def main(arguments, path):
            if arguments[:1] == ["fall"]:
                fall()
            rest = sys.stdin.buffer.read().decode()
            print(json.dumps({"arguments": arguments, "path": path, "rest": rest, "told": told(), "name": __name__}))
        """,
    "deeper.py": """
        import sys


        def told():
            return "é" + sys.version


        def fall():
            raise ValueError("deep")
        """,
}


def pythons(*wanted: str) -> list[str]:
    found = [shutil.which(f"python{version}") for version in wanted]
    folders = [path for version in wanted for path in Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    return [path for path in found if path and "shims" not in path] + [str(path) for path in folders]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A package on the head's path; another one in each test, for packs are remembered."""
    name = f"program_{tmp_path.name.replace('-', '_')}"
    for file, text in PROGRAM.items():
        (tmp_path / "head" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "head" / name / file).write_text(textwrap.dedent(text).lstrip(), "utf-8")
    monkeypatch.syspath_prepend(tmp_path / "head")
    importlib.invalidate_caches()
    yield name
    for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] == name]:
        del sys.modules[loaded]


def packed(package: str) -> bytes:
    return pack(package, entry=("begin", "main"), needs="the program", refusal='{"no": %s}\n')


def sent(blob: bytes, *arguments: str, python: str = sys.executable, **options) -> subprocess.CompletedProcess[bytes]:
    argv = [python, "-u", "-c", BOOT, *arguments]
    return subprocess.run(argv, input=blob, capture_output=True, timeout=30, **options)


def test_it_runs_with_its_arguments_and_what_follows_is_its_own(package: str, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    done = sent(packed(package) + b"an order", "one", "two", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    told = json.loads(done.stdout)
    assert told["arguments"] == ["one", "two"]
    assert told["rest"] == "an order"
    assert told["told"] == "é" + sys.version
    assert told["name"] == f"sent_{package}.begin"
    assert "" not in told["path"]
    assert {path for path in set(tmp_path.rglob("*")) - before if "head" not in path.parts} == set()


@pytest.mark.parametrize("python", pythons("3.8", "3.9", "3.10", "3.12", "3.13", "3.14"))
def test_another_python_takes_the_source(package: str, python: str) -> None:
    assert json.loads(sent(packed(package), python=python).stdout)["told"].startswith("é3.")


@pytest.mark.parametrize("python", pythons("2.7", "3.6", "3.7"))
def test_an_old_python_is_refused_in_words(package: str, python: str) -> None:
    done = sent(packed(package), python=python)
    assert done.stderr == b""
    told = json.loads(done.stdout)["no"]
    assert told.startswith(f"{python} is Python ") and told.endswith("; the program needs 3.8 or newer")


def test_the_code_of_the_same_python_is_not_compiled_again(package: str) -> None:
    """Source that does not compile in place of the right one: the code does not need it."""
    right = packed(package)
    lying = right[:-40] + bytes(40)
    assert json.loads(sent(lying).stdout)["arguments"] == []


def test_a_traceback_names_module_and_line(package: str) -> None:
    done = sent(packed(package), "fall")
    assert done.returncode == 1
    said = done.stderr.decode()
    line = PROGRAM["deeper.py"].strip().split("\n").index('            raise ValueError("deep")') + 1
    assert f'File "{package}/deeper.py", line {line}, in fall' in said
    assert "ValueError: deep" in said


def test_no_path_of_the_head_goes_out(package: str, tmp_path: Path) -> None:
    importlib.import_module(f"{package}.begin")  # its code is in Python's cache now, with the head's path
    done = sent(packed(package), "fall")
    assert str(tmp_path) not in done.stderr.decode()


def test_what_is_cut_off_is_said(package: str) -> None:
    done = sent(packed(package)[:-7])
    assert json.loads(done.stdout)["no"].startswith("the program came only in part: ")


@pytest.mark.parametrize("name", ["zlib", "json", "marshal"])
def test_a_module_of_the_jobs_is_not_taken_for_the_librarys(package: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / f"{name}.py").write_text("raise RuntimeError('taken')")
    done = sent(packed(package), env={"PYTHONPATH": str(tmp_path / "job"), "PATH": "/usr/bin:/bin"})
    assert json.loads(done.stdout)["path"][0] == str(tmp_path / "job")


def test_a_broken_library_is_said(package: str, tmp_path: Path) -> None:
    own = tmp_path / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    own.mkdir()
    (own / "json.py").write_text("raise RuntimeError('half \"copied\"')")
    done = sent(packed(package), env={"PYTHONPATH": str(own)})
    wanted = f'{sys.executable} cannot import its own standard library: RuntimeError: half "copied"'
    assert json.loads(done.stdout) == {"no": wanted}


def test_a_program_of_one_file() -> None:
    done = sent(framed("import sys\nprint('é', sys.argv[1:], sys.stdin.read())".encode()) + b"rest", "x")
    assert done.stdout.decode() == "é ['x'] rest\n"


SLIMMED = '''
import sys, traceback
from types import CodeType
sys.path.insert(0, sys.argv[1])
from slim_code import slim

def inner(code):
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from inner(each)

def of_each_unit(code):
    return [[line for a, b, line in each.co_lines() for _ in range(a, b, 2)] for each in inner(code)]

checked = 0
for name in sys.argv[2:]:
    with open(name, encoding="utf-8") as file:
        code = compile(file.read(), name, "exec", dont_inherit=True)
    slimmed = slim(code, "elsewhere.py")
    assert of_each_unit(slimmed) == of_each_unit(code), name
    assert {each.co_filename for each in inner(slimmed)} == {"elsewhere.py"}
    checked += 1

space = {}
text = """
def told():
    "of it"
    return "on"

def same():
    "of it"
    return "of it"

def plain():
    return "on"

def fails():
    "of it"

    raise (
        ValueError("deep")
    )
"""
exec(slim(compile(text, "x.py", "exec"), "x.py"), space)
assert (space["told"].__doc__ or "", space["told"]()) == ("", "on")
assert (space["same"](), space["plain"](), space["plain"].__doc__) == ("of it", "on", None)
try:
    space["fails"]()
except ValueError as error:
    assert traceback.extract_tb(error.__traceback__)[-1].lineno in (16, 17)
print(checked)
'''


@pytest.mark.parametrize("python", [sys.executable, *pythons("3.10", "3.12", "3.13", "3.14")])
def test_slim_code_does_the_same_on_the_same_lines(python: str) -> None:
    hosts = Path(__file__).parents[2] / "dsdoctor/hosts"
    files = sorted(map(str, (hosts / "probe").glob("*.py")))
    done = subprocess.run(
        [python, "-c", SLIMMED, str(hosts), *files], capture_output=True, timeout=300, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (f"{len(files)}\n", "")
