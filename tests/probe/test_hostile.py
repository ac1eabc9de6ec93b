"""Hosts that are broken, hostile or hanging: every other section is still learnt, in bounded time."""

from __future__ import annotations

import base64
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dsdoctor.hosts import probe
from dsdoctor.hosts.sent import BOOT
from tests.probe.conftest import SOURCE, examine, lay, read_answer, run_probe, value

HEALTHY = ("os", "python", "limits", "memory", "cpu", "packages", "shm", "environment")


def program(folder: Path, name: str, text: str) -> None:
    lay(folder, {name: f"#!/bin/sh\n{text}\n"})
    (folder / name).chmod(0o755)


def path_with(folder: Path) -> dict[str | bytes, str | bytes]:
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def library(folder: Path, name: str, code: str) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    folder.mkdir(parents=True, exist_ok=True)
    argv = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(folder / name), f"-Wl,-soname,{name}"]
    subprocess.run(argv, input=code.encode(), check=True)


def test_odd_variables_come_through_as_text() -> None:
    odd = {
        b"NCCL_ODD": b"\xff\xfe raw",
        b"NCCL_LINES": f"a\n{probe.END}\n{probe.BEGIN}\nb".encode(),
        b"NCCL_NAME\nTWO": b"x",
        b"NCCL_\xff": b"y",
        b"NCCL_LONG": b"z" * 100_000,
        b"NCCL_EMPTY": b"",
        b"NCCL_ESC": b"\x1b[31mred",
    }
    variables = value(examine(env=odd), "environment")["variables"]
    assert variables["NCCL_ODD"] == "\\xff\\xfe raw"
    assert variables["NCCL_LINES"] == f"a\n{probe.END}\n{probe.BEGIN}\nb"
    assert variables["NCCL_NAME\nTWO"] == "x"
    assert variables["NCCL_\\xff"] == "y"
    assert variables["NCCL_LONG"] == "z" * probe.masking.VALUE_CHARACTERS + "..."
    assert variables["NCCL_EMPTY"] == ""
    assert variables["NCCL_ESC"] == "\x1b[31mred"


def test_odd_entries_of_sys_path_are_passed_over(tmp_path: Path) -> None:
    odd = tmp_path / "new\nline"
    odd.mkdir()
    lay(odd, {"fine-1.0.dist-info/METADATA": "Name: fine\nVersion: 1.0\n"})
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_text("not a folder")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "twice").symlink_to(odd)
    raw = os.fsencode(tmp_path) + b"/\xff"
    Path(os.fsdecode(raw)).mkdir()
    parts = [os.fsencode(tmp_path / name) for name in ("new\nline", "loop", "file", "pipe", "gone", "twice")]
    answer = examine(env={b"PYTHONPATH": b":".join([*parts, raw])})
    found = [item for item in value(answer, "packages")["distributions"] if item["name"] == "fine"]
    assert [(item["version"], item["location"]) for item in found] == [("1.0", str(odd))]
    assert any(entry.endswith("\\xff") for entry in value(answer, "python")["path"])


def test_broken_distributions_cost_nothing_but_themselves(tmp_path: Path) -> None:
    raw = "binary\xff".encode("latin-1")
    lay(
        tmp_path,
        {
            "whole-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: Whole\nVersion: 1.0\n",
            "~roken-1.0.dist-info/METADATA": "Name: broken\nVersion: 1.0\n",
            "a.b_c-2.0+cu121.dist-info/METADATA": "Name: a.b_c\nVersion: 2.0+cu121\n",
            "odd name.dist-info/METADATA": "Name: Odd.Name\nVersion: 3\n\nVersion: 4\n",
            "binary-1.dist-info/METADATA": raw + bytes(range(256)),
            "file-1.0.dist-info": "a file",
            "new\nline-1.0.dist-info/METADATA": "Name: new\nVersion: 1.0\n",
            "edit-1.0.dist-info/METADATA": "Name: edit\nVersion: 1.0\n",
            "edit-1.0.dist-info/direct_url.json": '{"dir_info": {"editable": true}, "url": "file:///src"}',
            "six-1.16.0.egg-info": "Metadata-Version: 1.2\nName: six\nVersion: 1.16.0\n",
            "folder.egg-info/PKG-INFO": "Metadata-Version: 1.2\nName: Folder\nVersion: 5\n",
            "gone.egg-info": "",
        },
    )
    (tmp_path / "empty-1.0.dist-info").mkdir()
    (tmp_path / "upside-1.0.dist-info/METADATA").mkdir(parents=True)
    answer = examine(env={"PYTHONPATH": str(tmp_path)})
    section = value(answer, "packages")
    here = {item["name"]: item for item in section["distributions"] if item["location"] == str(tmp_path)}
    assert {name: item["version"] for name, item in here.items()} == {
        "whole": "1.0",
        "a-b-c": "2.0+cu121",
        "odd-name": "3",
        "binary": "1",
        "new": "1.0",
        "edit": "1.0",
        "six": "1.16.0",
        "folder": "5",
    }
    assert [name for name, item in here.items() if item["editable"]] == ["edit", "folder"]
    left = sorted(path.rsplit("/", 1)[1] for path in section["leftovers"])
    assert left == [
        "empty-1.0.dist-info",
        "file-1.0.dist-info",
        "gone.egg-info",
        "upside-1.0.dist-info",
        "~roken-1.0.dist-info",
    ]


def test_five_thousand_distributions_stay_fast(tmp_path: Path) -> None:
    for number in range(5000):
        folder = tmp_path / f"package_{number}-1.{number}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_bytes(b"Name: package\nVersion: 1\n")
    answer = examine({"sections": ["packages"]}, env={"PYTHONPATH": str(tmp_path)})
    names = {item["name"] for item in value(answer, "packages")["distributions"]}
    assert {f"package-{number}" for number in range(5000)} <= names
    assert answer["cpu_seconds"] < 1.0  # measured: 0.09


def test_a_module_in_the_working_directory_is_not_taken_for_the_library(tmp_path: Path) -> None:
    for name in ("json", "re", "socket", "subprocess", "ctypes", "threading", "site"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken from the working directory')")
    assert set(HEALTHY) <= {name for name, held in examine(cwd=tmp_path)["sections"].items() if "value" in held}


def test_a_module_on_the_jobs_path_is_not_taken_for_the_library(tmp_path: Path) -> None:
    for name in ("json", "re", "subprocess", "threading"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('taken from PYTHONPATH')")
    answer = examine(env={"PYTHONPATH": str(tmp_path)})
    assert set(HEALTHY) <= {name for name, held in answer["sections"].items() if "value" in held}
    assert value(answer, "python")["path"][0] == str(tmp_path)  # the job's order is reported as it is


def test_a_broken_library_is_said(tmp_path: Path) -> None:
    """A Python whose own library is damaged: the folder in front of it, as in a half-copied conda environment."""
    folder = tmp_path / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    folder.mkdir()
    (folder / "struct.py").write_text("raise RuntimeError('I am not struct')")
    answer = read_answer(run_probe(env={"PYTHONPATH": str(folder)}).stdout)
    assert answer["error"] == f"{sys.executable} cannot import its own standard library: RuntimeError: I am not struct"


def test_programs_that_hang_are_ended_with_their_children(tmp_path: Path) -> None:
    mark = tmp_path / "children"
    for name in ("ip", "dkms", "gcc"):
        program(tmp_path, name, f"sleep 600 & echo $! >> {mark}; wait")
    begun = time.monotonic()
    answer = examine({"targets": ["127.0.0.1"], "timeout": 10}, env=path_with(tmp_path))
    assert time.monotonic() - begun < 100
    assert value(answer, "network")["routes"][0]["local"] is True  # without `ip` the kernel was asked
    assert value(answer, "network")["interfaces"][0]["addresses"]
    assert value(answer, "compilers")["tools"]["gcc"] == {"path": str(tmp_path / "gcc"), "version": ""}
    assert answer["sections"]["driver"]["error"] == f"{tmp_path}/dkms did not end within its time limit"
    for child in mark.read_text().split():
        assert not alive(int(child)), "a grandchild outlived the probe"


def alive(pid: int) -> bool:
    """Whether a process runs still, two seconds after it was killed; a zombie that nobody waits for does not."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state == "Z":
            return False
        time.sleep(0.01)
    return True


def test_a_program_without_end_of_output_is_ended(tmp_path: Path) -> None:
    program(tmp_path, "gcc", "exec yes gcc")
    program(tmp_path, "nvcc", "echo 'nvcc 4.3'; exit 3")
    program(tmp_path, "make", "exec yes make")
    tools = value(examine(env=path_with(tmp_path)), "compilers")["tools"]
    assert tools["gcc"] == {"path": str(tmp_path / "gcc"), "version": ""}
    assert tools["nvcc"]["version"] == "4.3"
    assert tools["make"] == {"path": str(tmp_path / "make"), "version": ""}, "which nobody asks"


def test_programs_get_no_input_and_the_c_locale(tmp_path: Path) -> None:
    program(tmp_path, "nvcc", 'read -r line; echo "nvcc $LC_ALL 7.$? [$line]"')
    done = examine(env={**path_with(tmp_path), "LC_ALL": "de_DE.UTF-8"})
    assert value(done, "compilers")["tools"]["nvcc"]["version"] == "7.1"


def test_a_driver_library_that_crashes_costs_the_gpu_section(tmp_path: Path) -> None:
    library(tmp_path, "libnvidia-ml.so.1", "int nvmlInit_v2(void) { return *(volatile int *)0; }")
    answer = examine(env={"LD_LIBRARY_PATH": str(tmp_path)})
    assert answer["sections"]["gpu"]["error"] == "its process was killed by signal 11 (SIGSEGV)"
    assert set(HEALTHY) <= {name for name, held in answer["sections"].items() if "value" in held}


def test_a_driver_library_that_ends_the_process_costs_the_gpu_section(tmp_path: Path) -> None:
    library(tmp_path, "libnvidia-ml.so.1", "#include <stdlib.h>\nint nvmlInit_v2(void) { exit(3); }")
    answer = examine(env={"LD_LIBRARY_PATH": str(tmp_path)})
    assert answer["sections"]["gpu"]["error"] == "its process ended with status 3"


def test_a_driver_that_hangs_costs_the_gpu_section_and_bounded_time(tmp_path: Path) -> None:
    # Signals blocked, as in a call that hangs inside the driver.
    code = "#include <unistd.h>\n#include <signal.h>\n"
    code += "int nvmlInit_v2(void) { sigset_t s; sigfillset(&s); sigprocmask(SIG_BLOCK, &s, 0); for (;;) sleep(9); }"
    library(tmp_path, "libnvidia-ml.so.1", code)
    begun = time.monotonic()
    answer = examine({"timeout": 8}, env={"LD_LIBRARY_PATH": str(tmp_path)})
    assert answer["sections"]["gpu"]["error"] == "no answer within 4.0 seconds"
    assert time.monotonic() - begun < 100
    assert set(HEALTHY) <= {name for name, held in answer["sections"].items() if "value" in held}


def test_nothing_left_running_holds_the_outputs_open(tmp_path: Path) -> None:
    """Ssh waits for everybody who holds the outputs; a worker that cannot be killed must not be one of them."""
    library(tmp_path, "libnvidia-ml.so.1", "#include <unistd.h>\nint nvmlInit_v2(void) { for (;;) sleep(9); }")
    reader, writer = os.pipe()
    argv = [sys.executable, "-u", "-c", BOOT, base64.b64encode(b'{"timeout": 8}').decode()]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=writer, stderr=writer, env=environment) as child:
        os.close(writer)
        assert child.stdin is not None
        child.stdin.write(SOURCE)
        child.stdin.close()
        with os.fdopen(reader, "rb") as output:
            answer = read_answer(output.read())  # ends only when the last holder is gone
        assert answer["sections"]["gpu"]["error"] == "no answer within 4.0 seconds"
        assert child.wait(timeout=60) == 0


def test_a_parent_that_ignores_its_children_changes_nothing(tmp_path: Path) -> None:
    library(tmp_path, "libnvidia-ml.so.1", "int nvmlInit_v2(void) { return *(volatile int *)0; }")
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.executable, sys.argv)"
    )
    answer = examine(python=[sys.executable, "-c", ignoring], env={"LD_LIBRARY_PATH": str(tmp_path)})
    assert answer["sections"]["gpu"]["error"] == "its process was killed by signal 11 (SIGSEGV)"
    assert value(answer, "compilers")["tools"]["gcc"]["version"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_probe_that_is_stopped_leaves_nothing_behind(tmp_path: Path, signum: int) -> None:
    library(tmp_path, "libnvidia-ml.so.1", "#include <unistd.h>\nint nvmlInit_v2(void) { for (;;) sleep(9); }")
    program(tmp_path, "gcc", f"echo $$ > {tmp_path / 'gcc.pid'}; sleep 600 & wait")
    environment = {**os.environ, **path_with(tmp_path), "LD_LIBRARY_PATH": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-u", "-c", BOOT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as child:
        assert child.stdin is not None
        child.stdin.write(SOURCE)
        child.stdin.close()
        for _ in range(500):
            if (tmp_path / "gcc.pid").exists() and (tmp_path / "gcc.pid").read_text():
                break
            time.sleep(0.01)
        workers = [int(pid) for pid in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]
        assert workers
        child.send_signal(signum)
        assert child.wait(timeout=60) == 128 + signum
        assert child.stderr is not None
        assert child.stderr.read() == b""
    assert not [pid for pid in [*workers, int((tmp_path / "gcc.pid").read_text())] if alive(pid)]


@pytest.fixture
def hanging_folder(tmp_path: Path) -> Iterator[Path]:
    """A mount whose file system never answers, as NFS with its server gone: FUSE with nobody behind it."""
    folder = tmp_path / "mount"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError as failure:
        pytest.skip(f"needs /dev/fuse: {failure}")
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    try:
        if libc.mount(b"nobody", os.fsencode(folder), b"fuse", 0, options) != 0:
            pytest.skip(f"mounting is not allowed here: {os.strerror(ctypes.get_errno())}")
        yield folder
        libc.umount2(os.fsencode(folder), 2)  # MNT_DETACH
    finally:
        os.close(device)


def test_a_hanging_mount_costs_only_its_own_path(hanging_folder: Path) -> None:
    begun = time.monotonic()
    answer = examine({"paths": [str(hanging_folder / "data"), "/"]})
    assert time.monotonic() - begun < 100
    paths = {path["path"]: path for path in value(answer, "disk")["paths"]}
    told = paths[str(hanging_folder / "data")]
    assert told["error"] == f"no answer within 5 seconds: the mount {hanging_folder} hangs"
    assert told["mount"] == str(hanging_folder)
    assert paths["/"]["total_bytes"] > 0 and paths["/"].get("error") is None


def test_a_hanging_file_costs_its_section_and_nothing_after_it(hanging_folder: Path) -> None:
    begun = time.monotonic()
    environment = {"CUDA_HOME": str(hanging_folder / "cuda"), "NCCL_CONF_FILE": str(hanging_folder / "nccl.conf")}
    sections = examine({"timeout": 10}, env=environment)["sections"]
    assert time.monotonic() - begun < 100
    assert sections["cuda"]["error"] == sections["environment"]["error"] == "no answer within 5.0 seconds"
    assert {name for name, held in sections.items() if "value" in held} == set(probe.question.SECTIONS) - {
        "cuda",
        "environment",
    }


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, Any]]:
    """The survey in this process, as where no further process is allowed."""

    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    monkeypatch.setattr(probe.workers.signal, "signal", lambda *_: None)  # this process's own stay as they are
    probe.files.MEMO.clear()

    def surveyed() -> dict[str, Any]:
        sections = probe.workers.survey(probe.question.Ask({"timeout": 20}))
        return {name: json.loads(section) for name, section in sections.items()}

    return surveyed


def test_a_host_without_a_free_process_is_examined_in_one(alone: Callable[[], dict[str, Any]]) -> None:
    sections = alone()
    assert set(sections) == set(probe.question.SECTIONS)
    assert set(HEALTHY) <= {name for name, held in sections.items() if "value" in held}


@pytest.mark.parametrize(
    ("thrown", "told"),
    [
        (probe.files.ProbeError("there is no /dev/shm"), "there is no /dev/shm"),
        (KeyError("MemTotal"), "KeyError: 'MemTotal'"),
        (SystemExit(3), "SystemExit: 3"),
        (MemoryError(), "MemoryError: "),
        (RecursionError("deep \udcff"), "RecursionError: deep \\xff"),
    ],
)
def test_whatever_a_section_throws_is_its_error(
    monkeypatch: pytest.MonkeyPatch, thrown: BaseException, told: str
) -> None:
    def broken(ask: probe.question.Ask) -> None:
        raise thrown

    monkeypatch.setitem(probe.question.SECTIONS, "os", broken)
    outcome = json.loads(probe.workers.examined("os", probe.question.Ask({})))
    assert outcome["error"] == told and "value" not in outcome


def test_a_value_that_json_cannot_hold_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(probe.question.SECTIONS, "os", lambda ask: {"held": object()})
    assert json.loads(probe.workers.examined("os", probe.question.Ask({})))["error"].startswith("TypeError: ")


@pytest.mark.parametrize(
    ("dirty", "cleaned"),
    [
        ("caf\udce9", "caf\\xe9"),
        ("half \ud83d", "half \\ud83d"),
        ("whole \U0001f600", "whole \U0001f600"),
        (float("nan"), None),
        (float("inf"), None),
        ({"a\udcff": [("b\udcff", 1.5)]}, {"a\\xff": [["b\\xff", 1.5]]}),
        ({7: None}, {"7": None}),
    ],
)
def test_values_are_cleaned_for_json(dirty: Any, cleaned: Any) -> None:
    assert probe.workers.clean(dirty) == cleaned


def test_more_than_a_program_may_take_is_told() -> None:
    with pytest.raises(probe.files.ProbeError, match="sleep did not end within its time limit"):
        probe.programs.run(["sleep", "60"], seconds=0.1)
    with pytest.raises(probe.files.ProbeError, match=r"cannot be run: .*No such file"):
        probe.programs.run(["/no/such/program"])
    probe.programs.HANGING.clear()
    closes = "exec >&- 2>&-; sleep 60"
    with pytest.raises(probe.files.ProbeError, match="closed its output but did not end"):
        probe.programs.run(["sh", "-c", closes], seconds=0.3)
    assert probe.stopping.RUNNING == []


def test_a_program_that_leaves_a_child_behind_is_ended_with_it(tmp_path: Path) -> None:
    script = f"sleep 600 & echo $! > {tmp_path / 'child'}; exit 0"  # the child holds the output open
    with pytest.raises(probe.files.ProbeError, match="did not end within"):
        probe.programs.run(["sh", "-c", script], seconds=0.5)
    assert not alive(int((tmp_path / "child").read_text()))
    with pytest.raises(probe.files.ProbeError, match="sh did not end when it was asked before"):
        probe.programs.run(["sh", "-c", "true"])


@pytest.fixture(autouse=True)
def forget_hanging_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe.programs, "HANGING", set())


def test_both_outputs_are_drained_at_once() -> None:
    text = "import sys; sys.stderr.write('e' * 300000); sys.stdout.write('o' * 300000); sys.exit(5)"
    code, output, errors = probe.programs.run([sys.executable, "-c", text])
    assert (code, len(output), len(errors)) == (5, 300_000, 300_000)
