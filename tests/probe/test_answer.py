"""A real run on this machine: the contract with dsdoctor.facts, the languages it must compile in, its cost."""

from __future__ import annotations

import ast
import io
import os
import shutil
import subprocess
import sys
import tokenize
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dsdoctor.facts import HostFacts, Section, Snapshot
from dsdoctor.hosts import arriving, probe
from tests.probe.conftest import examine, read_answer, run_probe, value

PACKAGE = Path(probe.__file__).parent
FIRST = PACKAGE.with_name("arriving.py").read_bytes()  # what any Python must compile
TEXT = FIRST.decode()


@pytest.fixture(scope="module")
def answer() -> dict[str, Any]:
    return examine({"targets": ["localhost", "127.0.0.1"], "paths": ["/", "/no/such/folder"], "timeout": 20})


def assert_within(raw: Any, typed: Any, where: str) -> None:
    """Everything in `raw` is in `typed`: no field under another name, no value that another type swallowed."""
    if isinstance(raw, dict):
        for key, item in raw.items():
            assert key in typed, f"{where}.{key} is not in dsdoctor.facts"
            assert_within(item, typed[key], f"{where}.{key}")
    elif isinstance(raw, list):
        assert len(raw) == len(typed), where
        for index, item in enumerate(raw):
            assert_within(item, typed[index], f"{where}[{index}]")
    else:
        assert raw == typed, where


def test_every_section_is_there_and_no_other(answer: dict[str, Any]) -> None:
    assert set(answer["sections"]) == set(HostFacts.sections())
    assert answer["schema"] == Snapshot(host="x").schema
    assert answer["probe_version"] == probe.PROBE_VERSION


@pytest.mark.parametrize("name", HostFacts.sections())
def test_a_section_has_exactly_the_fields_of_facts(answer: dict[str, Any], name: str) -> None:
    raw = value(answer, name)
    host = HostFacts(Snapshot(host="x", sections={name: Section(value=raw)}))
    assert_within(raw, msgspec.to_builtins(getattr(host, name)), name)
    assert answer["sections"][name]["seconds"] >= 0


def test_it_learns_what_this_process_knows_too(answer: dict[str, Any]) -> None:
    assert value(answer, "os")["kernel"] == os.uname().release
    assert value(answer, "os")["user"] == probe.accounts.user_name(os.geteuid())
    assert value(answer, "python")["prefix"] == sys.prefix
    assert value(answer, "python")["version"] == sys.version.split()[0]
    assert "" not in value(answer, "python")["path"]
    versions = {item["name"]: item["version"] for item in value(answer, "packages")["distributions"]}
    assert versions["msgspec"] == msgspec.__version__
    root = next(path for path in value(answer, "disk")["paths"] if path["path"] == "/")
    assert root["exists"] and root["total_bytes"] == os.statvfs("/").f_blocks * os.statvfs("/").f_frsize
    missing = next(path for path in value(answer, "disk")["paths"] if path["path"] == "/no/such/folder")
    assert not missing["exists"] and missing["total_bytes"] == root["total_bytes"]
    assert value(answer, "cpu")["cores"] == len(os.sched_getaffinity(0))


def test_distributions_are_those_of_importlib_metadata() -> None:
    code = (
        "import importlib.metadata as m, json\n"
        "print(json.dumps([[d.metadata['Name'], d.version] for d in m.distributions()]))"
    )
    listed = msgspec.json.decode(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    wanted = {(name.lower().replace("_", "-").replace(".", "-"), version) for name, version in listed}
    found = {(item["name"], item["version"]) for item in value(examine(), "packages")["distributions"]}
    assert found == wanted


def test_loopback_is_local_and_this_host_knows_its_own_name(answer: dict[str, Any]) -> None:
    network = value(answer, "network")
    assert network["resolves"]["127.0.0.1"] == ["127.0.0.1"]
    route = next(route for route in network["routes"] if route["target"] == "127.0.0.1")
    assert route["local"] and route["device"] == "lo" and route["source"] == "127.0.0.1"
    loopback = next(interface for interface in network["interfaces"] if interface["name"] == "lo")
    assert loopback["loopback"] and {"127.0.0.1", 8} <= {*loopback["addresses"][0].values()}
    assert os.uname().nodename in network["resolves"]


def test_it_costs_less_than_half_a_second_of_cpu(answer: dict[str, Any]) -> None:
    # Measured on two 2.x GHz cores: 0.12 s. Twice the goal leaves room for a loaded or slower machine.
    assert answer["cpu_seconds"] < 1.0


def test_the_text_is_ascii() -> None:
    FIRST.decode("ascii")  # Python 2.7 refuses anything else without a declaration, and then says nothing of ours


def test_nothing_in_it_is_newer_than_the_grammar_of_python_2() -> None:
    tree = ast.parse(TEXT, feature_version=(3, 7))
    newer = (ast.JoinedStr, ast.NamedExpr, ast.AnnAssign, ast.Nonlocal, ast.AsyncFunctionDef, ast.Await, ast.YieldFrom)
    for node in ast.walk(tree):
        where = f"line {getattr(node, 'lineno', '?')}"
        assert not isinstance(node, newer), where
        if isinstance(node, ast.arguments):
            assert not node.kwonlyargs and not node.posonlyargs, where
        if isinstance(node, ast.arg):
            assert node.annotation is None, where
        if isinstance(node, ast.FunctionDef):
            assert node.returns is None, where
        if isinstance(node, ast.Raise):
            assert node.cause is None, where
        if isinstance(node, ast.ClassDef):
            assert not node.keywords and node.bases, where
        if isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict):
            inside = getattr(node, "elts", None) or getattr(node, "keys", [])
            assert all(item is not None and not isinstance(item, ast.Starred) for item in inside), where
        if isinstance(node, ast.Call):
            assert all(not isinstance(item, ast.Starred) for item in node.args[:-1]), where
        if isinstance(node, ast.ExceptHandler | ast.Try):
            assert type(node).__name__ != "TryStar", where
    strings = [token for token in tokenize.generate_tokens(io.StringIO(TEXT).readline) if token.type == tokenize.STRING]
    assert not [token for token in strings if token.string.lower().startswith(("rb", "f"))]


def modules() -> list[Path]:
    return sorted(PACKAGE.glob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.stem)
def test_a_module_is_python_3_8_and_needs_nothing_but_the_library(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"), feature_version=(3, 8))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert all(name.name in {*sys.stdlib_module_names, "pynvml"} for name in node.names), node.lineno
        if isinstance(node, ast.ImportFrom):
            assert node.level == 1 or node.module in {*sys.stdlib_module_names, "collections.abc"}, node.lineno
    assert path.read_text("utf-8").count("\n") < 300


def interpreters(*versions: str) -> list[Any]:
    """Interpreters of these versions on this machine, by the names that find them on the PATH or below pyenv."""
    found = [shutil.which(f"python{version}") for version in versions]
    folders = sorted(Path.home().glob(".pyenv/versions/[23].[0-9]*/bin/python"))
    names = tuple(f"{version}." for version in versions)
    more = [str(path) for path in folders if path.parts[-3].startswith(names)]
    here = [path for path in found if path and "shims" not in path] + more
    return here or [pytest.param("", marks=pytest.mark.skip(f"no Python of {', '.join(versions)} here"))]


@pytest.mark.parametrize("python", interpreters("3.8", "3.9", "3.10", "3.12", "3.13", "3.14"))
def test_every_python_from_3_8_on_gives_every_section_without_a_warning(python: str) -> None:
    answer = examine({"targets": ["localhost"]}, python=[python], env={"PYTHONWARNINGS": "error"})
    host = HostFacts(Snapshot(host="x", sections=msgspec.convert(answer["sections"], dict[str, Section])))
    for name in HostFacts.sections():
        assert_within(value(answer, name), msgspec.to_builtins(getattr(host, name)), name)


@pytest.mark.parametrize("python", interpreters("2.7", "3.6", "3.7"))
def test_an_old_python_says_that_it_is_too_old(python: str) -> None:
    answer = read_answer(run_probe(python=[python]).stdout)
    assert answer["error"].startswith(f"{python} is Python ")
    assert answer["error"].endswith("the probe needs 3.8 or newer")
    assert answer["sections"] == {}


def test_the_refusal_is_json_whatever_it_says() -> None:
    said = 'a "quote", a \\ backslash,\na new line, \x00 and é'
    answer = read_answer((probe.REFUSAL % arriving.quoted(said + "\udcff\U0001f600")).encode("ascii"))
    assert answer == {**answer, "error": said + "??", "schema": probe.SCHEMA, "sections": {}}


@pytest.mark.parametrize("config", ["", "%%%", "bm90IGpzb24=", "W10=", "eyJ0aW1lb3V0IjogIngifQ=="])
def test_a_config_that_cannot_be_read_is_said(config: str) -> None:
    answer = read_answer(run_probe(config).stdout)
    assert answer["error"].startswith("the probe itself failed: ")


def test_what_takes_long_to_import_is_left_alone() -> None:
    """`re` alone takes 5 ms, a tenth of the probe's time on every host."""
    code = (
        "import sys; from dsdoctor.hosts.probe.sections import SECTIONS; "
        "from dsdoctor.hosts.probe.question import Ask; "
        "ask = Ask({'targets': ['127.0.0.1']}); [SECTIONS[name](ask) for name in sys.argv[1:]]; "
        "print(*sorted({'re', 'enum', 'json', 'ast', 'subprocess', 'threading', 'socket'} & set(sys.modules)))"
    )
    sections = ["packages", "torch", "deepspeed", "requirements", "nccl", "cuda", "compilers", "network", "limits"]
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    argv = [sys.executable, "-c", code, *sections]
    tree = Path(__file__).parents[2]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=True, cwd=tree)
    assert done.stdout.split() == []
