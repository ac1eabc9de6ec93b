"""The house as it is built: which rooms are pure, which way data flows, and what is never loaded (DESIGN §2).

Read from the sources, without importing them: a pure room must not be able to touch a machine, not only not do it
in a test.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dsdoctor"

PURE = ("facts", "cluster.py", "addresses.py", "escape.py", "checks", "jobs", "plan", "logs", "report")

# Modules whose use is an effect: other processes, the network, the clock, chance, the environment, the disk.
EFFECTS = frozenset(
    {
        *(
            "subprocess",
            "multiprocessing",
            "threading",
            "concurrent",
            "asyncio",
            "signal",
            "pty",
            "selectors",
            "select",
        ),
        *("socket", "ssl", "http", "urllib.request", "ftplib", "smtplib", "paramiko"),
        *("time", "random", "secrets", "uuid", "os", "platform", "getpass", "pwd", "resource"),
        *("tempfile", "shutil", "fcntl", "mmap", "sqlite3"),
        *("psutil", "pynvml", "ctypes"),
    }
)

# What the patient runs. The doctor must start when it is broken.
PATIENT = frozenset({"torch", "deepspeed", "transformers", "peft", "accelerate", "datasets", "bitsandbytes", "numpy"})

# Calls that reach the disk or the clock through objects.
TOUCHES = frozenset(
    {
        *(
            "read_text",
            "write_text",
            "read_bytes",
            "write_bytes",
            "open",
            "mkdir",
            "unlink",
            "rmdir",
            "rename",
            "touch",
        ),
        *("exists", "is_file", "is_dir", "iterdir", "glob", "rglob", "stat", "lstat", "expanduser", "absolute"),
        *("cwd", "home", "now", "utcnow", "today"),
    }
)

# The doors: one a room, each for files that are the package's own or that the user named.
DOORS = {
    "checks/tables.py": "the checks' own tables and cases",
    "jobs/forecast/tables.py": "what layers keep, and what cards can compute",
    "jobs/load.py": "job files and the DeepSpeed configs that they name",
    "jobs/load_any.py": "scripts, configs and programs, and the files that they name",
    "logs/rules.py": "the rules",
    "report/html.py": "the page that a report is filled into",
    "report/catalogue.py": "a command of its own: writes the README's table",
    "report/picture.py": "a command of its own: writes the README's picture",
}

# Packages that are sent to hosts under another name: their modules import each other relatively.
SENT = (PACKAGE / "hosts/probe", PACKAGE / "hosts/config_reader", PACKAGE / "run/sync/host_side")

# What a room may take from; nothing goes back. Modules beside the rooms (facts, cluster, yamlfile …) are for all.
TAKES_FROM: dict[str, frozenset[str]] = {
    "facts": frozenset(),
    "checks": frozenset({"jobs", "logs", "report"}),  # what a rank printed in a trial is explained as a log is
    "jobs": frozenset(),
    "plan": frozenset({"checks", "jobs"}),  # how NCCL, torch and CUDA read a variable is written down there, once
    "logs": frozenset({"report"}),
    "report": frozenset({"checks", "logs"}),  # for the pages of explain and the README's table
    "rules": frozenset({"logs"}),
    "hosts": frozenset({"jobs", "report"}),
    "run": frozenset({"checks", "hosts", "jobs", "logs", "plan", "report"}),
    "cli": frozenset({"checks", "hosts", "jobs", "logs", "plan", "report", "run", "rules"}),
}
SIDE = frozenset({"facts", "cluster", "addresses", "escape", "yamlfile", "resources", "terminal", "__version__"})


def modules(place: Path) -> list[Path]:
    return [place] if place.suffix == ".py" else sorted(place.rglob("*.py"))


PURE_MODULES = [path for name in PURE for path in modules(PACKAGE / name)]
ALL_MODULES = modules(PACKAGE)


def label(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere, full names; for `from x import y` both x and x.y."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or path.parent in SENT, f"{label(path)}: imports are absolute"
            here = ".".join(("dsdoctor", *path.parent.relative_to(PACKAGE).parts)) if node.level else ""
            module = ".".join(filter(None, (here, node.module)))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def among(name: str, forbidden: frozenset[str]) -> bool:
    return any(name == entry or name.startswith(f"{entry}.") for entry in forbidden)


def test_the_rooms_are_there() -> None:
    assert len(PURE_MODULES) > 50
    assert all((PACKAGE / door).exists() for door in DOORS)


@pytest.mark.parametrize("path", PURE_MODULES, ids=label)
def test_a_pure_module_imports_nothing_that_has_effects(path: Path) -> None:
    assert [name for name in imports(path) if among(name, EFFECTS)] == []


@pytest.mark.parametrize("path", ALL_MODULES, ids=label)
def test_no_module_imports_what_the_patient_runs(path: Path) -> None:
    assert [name for name in imports(path) if among(name, PATIENT)] == []


@pytest.mark.parametrize("path", [path for path in PURE_MODULES if label(path) not in DOORS], ids=label)
def test_a_pure_module_touches_neither_disk_nor_clock(path: Path) -> None:
    touched = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if (name in TOUCHES and isinstance(node.func, ast.Attribute)) or name in ("open", "input", "print"):
            touched.append(f"line {node.lineno}: {name}")
    assert touched == [], f"only {', '.join(DOORS)} may"


@pytest.mark.parametrize("path", [path for path in ALL_MODULES if path.parent != PACKAGE], ids=label)
def test_data_flows_one_way(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0]
    taken = {name.split(".")[1] for name in imports(path) if name.startswith("dsdoctor.")}
    assert taken - {room} - SIDE <= TAKES_FROM[room]


def run_command(arguments: list[str], text: str = "") -> set[str]:
    """The modules that are loaded when `python -m dsdoctor ARGUMENTS` ends."""
    program = (
        "import runpy, sys\n"
        "sys.argv[0] = 'dsdoctor'\n"
        "try:\n"
        "    runpy.run_module('dsdoctor', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        "    print('exit', end.code, file=sys.stderr)\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert "exit " in ended.stderr, ended.stderr
    return set(ended.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["check", "--facts", str(Path(__file__).parent / "snapshots" / "composed" / "xuanyuan")], ""),
        (["diagnose", "-"], "RuntimeError: CUDA out of memory.\n"),
        (["explain", "duplicate-nccl"], ""),
    ],
    ids=["check", "diagnose", "explain"],
)
def test_the_doctor_does_not_load_what_the_patient_runs(arguments: list[str], text: str) -> None:
    loaded = run_command(arguments, text)
    assert "dsdoctor.cli" in loaded
    assert {name for name in loaded if among(name, PATIENT | {"paramiko"})} == set()


def test_help_loads_nothing_heavy() -> None:
    loaded = run_command(["--help"])
    heavy = frozenset(
        {"rich", "yaml", "paramiko", "msgspec", "psutil", "packaging", "dsdoctor.checks", "dsdoctor.plan"}
    )
    assert {name for name in loaded if among(name, PATIENT | heavy)} == set()
