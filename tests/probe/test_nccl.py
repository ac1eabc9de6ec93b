"""Which NCCLs a host has, who owns them and which one torch would load, held against the real loader."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdoctor.hosts import probe
from tests.probe.conftest import examine, lay, value

WHEEL = "nvidia/nccl/lib/libnccl.so.2"


def nccl_bytes(version: str, cuda: str) -> bytes:
    """What stands around the version in a real library, without the 300 MB of GPU code."""
    return (
        b"\0" * 4096 + f"NCCL version {version}+cuda{cuda}\0NCCL version {version} compiled with CUDA {cuda}\0".encode()
    )


def wheel(folder: Path, cuda: str, version: str) -> None:
    """Lay out what installing an nvidia-nccl wheel writes; the file they share is the last one's."""
    name = f"nvidia_nccl_cu{cuda}-{version}.dist-info"
    record = f"{WHEEL},sha256=x,4096\nnvidia/nccl/include/nccl.h,sha256=y,1\n{name}/RECORD,,\n"
    lay(folder, {f"{name}/METADATA": f"Name: nvidia-nccl-cu{cuda}\nVersion: {version}\n", f"{name}/RECORD": record})
    lay(folder, {WHEEL: nccl_bytes(version, f"{cuda}.1")})


def nccl(folder: Path, **environment: str) -> dict[str, Any]:
    answer = examine({"sections": ["nccl"]}, env={"PYTHONPATH": str(folder), **environment})
    found: dict[str, Any] = value(answer, "nccl")
    return found


def test_one_wheel(tmp_path: Path) -> None:
    wheel(tmp_path, "12", "2.18.1")
    found = nccl(tmp_path)
    file = str(tmp_path / WHEEL)
    assert found["copies"] == [
        {
            "path": file,
            "real_path": file,
            "version": "2.18.1",
            "cuda": "12.1",
            "source": "wheel",
            "owners": ["nvidia-nccl-cu12==2.18.1"],
        }
    ]
    assert (found["wheel_file"], found["wheel_file_exists"]) == (file, True)


def test_two_wheels_own_one_file_and_the_bytes_tell_whose_it_is(tmp_path: Path) -> None:
    wheel(tmp_path, "12", "2.18.1")
    wheel(tmp_path, "11", "2.14.3")  # written last: this one's library lies there now
    found = nccl(tmp_path)
    assert [(item["name"], item["version"]) for item in found["owners"]] == [
        ("nvidia-nccl-cu11", "2.14.3"),
        ("nvidia-nccl-cu12", "2.18.1"),
    ]
    (copy,) = found["copies"]
    assert (copy["version"], copy["cuda"]) == ("2.14.3", "11.1")
    assert copy["owners"] == ["nvidia-nccl-cu11==2.14.3", "nvidia-nccl-cu12==2.18.1"]


def test_uninstalling_one_of_two_takes_the_file_from_the_other(tmp_path: Path) -> None:
    wheel(tmp_path, "12", "2.18.1")
    wheel(tmp_path, "11", "2.14.3")
    shutil.rmtree(tmp_path / "nvidia_nccl_cu11-2.14.3.dist-info")
    (tmp_path / WHEEL).unlink()  # what `pip uninstall nvidia-nccl-cu11` does
    found = nccl(tmp_path)
    assert [item["name"] for item in found["owners"]] == ["nvidia-nccl-cu12"]
    assert (found["wheel_file"], found["wheel_file_exists"], found["copies"]) == (str(tmp_path / WHEEL), False, [])


def test_wheels_in_two_folders_own_two_files(tmp_path: Path) -> None:
    first, second = tmp_path / "user", tmp_path / "system"
    wheel(first, "11", "2.14.3")
    wheel(second, "12", "2.18.1")
    found = nccl(first, PYTHONPATH=f"{first}:{second}")
    assert [item["location"] for item in found["owners"]] == [str(first), str(second)]
    assert {copy["path"]: copy["owners"] for copy in found["copies"]} == {
        str(first / WHEEL): ["nvidia-nccl-cu11==2.14.3"],
        str(second / WHEEL): ["nvidia-nccl-cu12==2.18.1"],
    }


def test_the_second_wheel_hides_in_the_user_site(tmp_path: Path) -> None:
    base = tmp_path / "base"
    user = base / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    wheel(user, "11", "2.14.3")
    wheel(tmp_path / "path", "12", "2.18.1")
    python = getattr(sys, "_base_executable", sys.executable)  # a virtual environment has no user site
    wanted = {"sections": ["python", "nccl"]}
    answer = examine(wanted, python=[python], env={"PYTHONUSERBASE": str(base), "PYTHONPATH": str(tmp_path / "path")})
    assert value(answer, "python")["user_site_enabled"] is True
    assert {item["name"] for item in value(answer, "nccl")["owners"]} == {"nvidia-nccl-cu11", "nvidia-nccl-cu12"}


@pytest.mark.parametrize(
    ("record", "owner"),
    [
        (None, True),  # an installer that writes no RECORD
        (f"{WHEEL},,\n", True),
        (f'"{WHEEL}",sha256=x,1\n', True),
        ("../../elsewhere/libnccl.so.2,,\n", True),
        ("nvidia/nccl/include/nccl.h,,\n", False),  # a later wheel that puts nothing there
    ],
)
def test_a_distribution_owns_what_its_record_lists(tmp_path: Path, record: str | None, owner: bool) -> None:
    info = tmp_path / "nvidia_nccl_cu12-2.18.1.dist-info"
    lay(info, {"METADATA": "Name: nvidia-nccl-cu12\nVersion: 2.18.1\n"} | ({"RECORD": record} if record else {}))
    assert bool(nccl(tmp_path)["owners"]) is owner


def test_copies_by_the_loaders_variables(tmp_path: Path) -> None:
    lay(tmp_path, {"path/libnccl.so.2.18.3": nccl_bytes("2.18.3", "12.2"), "path/empty.txt": "", "fifo/x": ""})
    (tmp_path / "path/libnccl.so.2").symlink_to("libnccl.so.2.18.3")
    (tmp_path / "path/libnccl.so").symlink_to("libnccl.so.2")
    os.mkfifo(tmp_path / "fifo/libnccl.so.2")
    (tmp_path / "preload/libnccl.so.2").parent.mkdir()
    (tmp_path / "preload/libnccl.so.2").write_bytes(b"")  # not a library at all: it is reported without a version
    folders = f"{tmp_path / 'gone'}:{tmp_path / 'fifo'}::{tmp_path / 'path'}"
    found = nccl(tmp_path, LD_LIBRARY_PATH=folders)
    (copy,) = [copy for copy in found["copies"] if copy["source"] == "ld-library-path"]
    assert copy["path"] == str(tmp_path / "path/libnccl.so.2")
    assert copy["real_path"] == str(tmp_path / "path/libnccl.so.2.18.3")
    assert (copy["version"], copy["cuda"], found["loaded"]) == ("2.18.3", "12.2", None)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"NCCL version 2.18.1+cuda12.1\0", ("2.18.1", "12.1")),
        (b"NCCL version 2.27.5 compiled with CUDA 12.9\0", ("2.27.5", "12.9")),
        (b"NCCL version 2.4.8\n", ("2.4.8", None)),
        (b"NCCL version %d.%d\0 NCCL version 2.19.3+cuda12.3", ("2.19.3", "12.3")),
        (b"no version", (None, None)),
        (b"", (None, None)),
        (b"\x7fELF\x02\x01" + b"\xff" * 300 + b"NCCL version 2.18.1+cuda12.1", ("2.18.1", "12.1")),  # damaged tables
        (b"\x7fELF\x02\x01", (None, None)),
    ],
)
def test_the_version_is_in_the_bytes(tmp_path: Path, content: bytes, wanted: tuple[str | None, str | None]) -> None:
    file = tmp_path / "libnccl.so.2"
    file.write_bytes(content)
    assert probe.nccl.nccl_version(str(file)) == wanted


def test_no_version_of_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert probe.nccl.nccl_version(str(tmp_path / "pipe")) == (None, None)
    assert probe.nccl.nccl_version(str(tmp_path)) == (None, None)
    assert probe.nccl.nccl_version(str(tmp_path / "gone")) == (None, None)


@given(data=st.data())
@settings(max_examples=200)
def test_damaged_libraries_are_only_bytes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """No change to a library's tables makes reading it fail, hang or leave the file."""
    damaged = bytearray(small_library())
    for _ in range(data.draw(st.integers(1, 12))):
        place = data.draw(st.integers(0, 0x400) | st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    del damaged[data.draw(st.integers(64, len(damaged))) :]
    file = tmp_path_factory.getbasetemp() / "damaged.so"
    file.write_bytes(damaged)
    library = probe.elf.Library(str(file))
    assert set(library.dynamic()) == {"needed", "soname", "rpath", "runpath"}
    begin, end = library.extent(b".rodata") or (0, 0)
    assert 0 <= begin <= len(damaged) and end <= len(damaged)
    probe.nccl.version_in(library)
    library.close()


@cache
def small_library() -> bytes:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "libsmall.so"
        compile_library(path, 'const char said[] = "NCCL version 2.18.1+cuda12.1";', "-Wl,-soname,libnccl.so.2", "-s")
        return path.read_bytes()


def compile_library(path: Path, code: str, *flags: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    argv = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(path), *flags]
    subprocess.run(argv, input=code.encode(), check=True, capture_output=True)


WHERE = """
import ctypes, sys
ctypes.CDLL(sys.argv[1])
maps = [line.split()[-1] for line in open("/proc/self/maps") if "libnccl.so.2" in line]
print(maps[0] if maps else "")
"""

RPATH = ("-Wl,--disable-new-dtags", "-Wl,-rpath,$ORIGIN/../../nvidia/nccl/lib:$ORIGIN")
RUNPATH = ("-Wl,--enable-new-dtags", "-Wl,-rpath,${ORIGIN}/../../nvidia/nccl/lib:$ORIGIN")


@pytest.fixture
def torch(tmp_path: Path) -> Path:
    """A site folder with a torch whose libtorch_cuda.so needs libnccl.so.2; its NCCLs are real libraries."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    site = tmp_path / "site"
    lay(site, {"torch/__init__.py": "", "torch/version.py": "__version__ = '2.1.2+cu121'\ncuda: str = '12.1'\n"})
    for folder, version in (("site/nvidia/nccl/lib", "2.18.1"), ("path", "2.19.3"), ("preload", "2.20.5")):
        code = f'const char nccl_is[] = "NCCL version {version}+cuda12.1";'
        compile_library(tmp_path / folder / "libnccl.so.2", code, "-Wl,-soname,libnccl.so.2")
    return site


@pytest.mark.parametrize("variables", ["", "path", "preload", "path preload", "path bare", "gone"])
@pytest.mark.parametrize("wheel_there", [True, False])
@pytest.mark.parametrize("flags", [RPATH, RUNPATH, ()], ids=["rpath", "runpath", "none"])
def test_loaded_is_what_the_loader_really_takes(
    torch: Path, flags: tuple[str, ...], wheel_there: bool, variables: str
) -> None:
    root = torch.parent
    library = torch / "torch/lib/libtorch_cuda.so"
    linked = f"-L{torch / 'nvidia/nccl/lib'}"
    compile_library(library, "int torch_cuda;", *flags, linked, "-Wl,--no-as-needed", "-l:libnccl.so.2")
    if not wheel_there:
        (torch / "nvidia/nccl/lib/libnccl.so.2").unlink()
    environment = {"PYTHONPATH": str(torch)}
    if "path" in variables.split():
        environment["LD_LIBRARY_PATH"] = f"{root / 'nowhere'}:{root / 'path'}"
    if "preload" in variables.split():
        environment["LD_PRELOAD"] = str(root / "preload/libnccl.so.2")
    if "bare" in variables.split():
        environment["LD_PRELOAD"] = "libnccl.so.2"
    if variables == "gone":
        environment["LD_LIBRARY_PATH"] = str(root / "gone")
    asked = [sys.executable, "-S", "-c", WHERE, str(library)]
    loader = subprocess.run(asked, env={**os.environ, **environment}, capture_output=True, text=True)
    found = value(examine({"sections": ["nccl"]}, env=environment), "nccl")
    really = os.path.realpath(loader.stdout.strip()) if loader.returncode == 0 else None
    if really is None and wheel_there:
        # torch then looks through sys.path by itself (`_preload_cuda_deps` on OSError), which the bare loader does not.
        really = str(torch / "nvidia/nccl/lib/libnccl.so.2")
    assert found["loaded"] == really
    assert {copy["version"] for copy in found["copies"] if copy["path"] == really} <= {"2.18.1", "2.19.3", "2.20.5"}


@pytest.mark.parametrize("link", ["torch", "torch/lib", "torch/lib/libtorch_cuda.so"])
def test_loaded_where_links_lead_elsewhere(torch: Path, link: str) -> None:
    """conda-forge links torch/lib/*.so to the environment's lib; shared installations link whole folders."""
    flags = (*RPATH, f"-L{torch / 'nvidia/nccl/lib'}", "-Wl,--no-as-needed", "-l:libnccl.so.2")
    compile_library(torch / "torch/lib/libtorch_cuda.so", "int torch_cuda;", *flags)
    elsewhere = torch.parent / "store/a/b" / Path(link).name
    elsewhere.parent.mkdir(parents=True)
    (torch / link).rename(elsewhere)
    (torch / link).symlink_to(elsewhere)
    asked = [sys.executable, "-S", "-c", WHERE, str(torch / "torch/lib/libtorch_cuda.so")]
    loader = subprocess.run(asked, capture_output=True, text=True)
    really = os.path.realpath(loader.stdout.strip()) if loader.returncode == 0 else str(torch / WHEEL)
    assert nccl(torch)["loaded"] == really


def test_a_torch_with_nccl_inside_is_its_own_copy(torch: Path) -> None:
    code = 'const char nccl_is[] = "NCCL version 2.14.3+cuda11.7";'
    compile_library(torch / "torch/lib/libtorch_cuda.so", code)
    shutil.rmtree(torch / "nvidia")
    found = nccl(torch)
    assert found["loaded"] == str(torch / "torch/lib/libtorch_cuda.so")
    (copy,) = [copy for copy in found["copies"] if copy["path"] == found["loaded"]]
    assert (copy["version"], copy["cuda"], copy["source"]) == ("2.14.3", "11.7", "torch")


def test_a_cpu_torch_loads_none(torch: Path) -> None:
    assert nccl(torch)["loaded"] is None


def test_newer_torch_opens_the_first_of_the_path_itself(torch: Path) -> None:
    """As torch 2.10.0 and 2.13.0 do when the CUDA wheels are there: before any RPATH is looked at."""
    flags = (*RPATH, f"-L{torch / 'nvidia/nccl/lib'}", "-Wl,--no-as-needed", "-l:libnccl.so.2")
    compile_library(torch / "torch/lib/libtorch_cuda.so", "int torch_cuda;", *flags)
    start = "def _load():\n    names = ['libnccl.so.*[0-9]']\n    if True:\n        _preload_cuda_deps()\n"
    lay(torch, {"torch/__init__.py": start})
    other = torch.parent / "other"
    lay(other, {WHEEL: nccl_bytes("2.27.5", "12.9"), "nvidia/cublas/lib/libcublasLt.so.12": ""})
    assert nccl(torch, PYTHONPATH=f"{other}:{torch}")["loaded"] == str(other / WHEEL)
    lay(torch, {"torch/__init__.py": "# nothing is opened here\n"})
    assert nccl(torch, PYTHONPATH=f"{other}:{torch}")["loaded"] == str(torch / WHEEL)


def test_who_installed_a_library(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str | None, ...]] = []

    def answer_of(program: str | None, *question: str) -> str:
        asked.append((program, *question))
        return "libnccl 2.18.1-1.cuda12.1" if program == "rpm" else ""

    monkeypatch.setattr(probe.nccl, "answer_of", answer_of)
    monkeypatch.setattr(probe.nccl, "which", lambda name, extra=(): name)
    library = "/usr/lib/x86_64-linux-gnu/libnccl.so.2"
    assert probe.nccl.owning_package(library, library) == (None, None)
    (root / "var/lib/rpm").mkdir(parents=True)
    assert probe.nccl.owning_package(library, library) == ("rpm", "libnccl 2.18.1-1.cuda12.1")
    lay(root, {"var/lib/dpkg/info/libc6.list": f"{library}\n", "var/lib/dpkg/info/libnccl2:amd64.list": "/x\n"})
    assert probe.nccl.owning_package(library, library) == (None, None)
    lay(root, {"var/lib/dpkg/info/libnccl2.list": "/.\n/lib/x86_64-linux-gnu/libnccl.so.2\n"})
    assert probe.nccl.owning_package(library, library) == ("deb", "libnccl2")
    assert asked[-1] == ("dpkg-query", "-W", "-f", "${Package} ${Version}", "libnccl2")


def test_condas_nccl(root: Path, tmp_path: Path) -> None:
    environment = tmp_path / "env"
    lay(environment, {"conda-meta/nccl-2.21.5.1-h1.json": "{}", "conda-meta/nccl-tests-1-0.json": "{}"})
    library = str(environment / "lib/libnccl.so.2")
    assert probe.nccl.owning_package(library, library) == ("conda", "nccl 2.21.5.1")


def test_a_program_that_fails_tells_nothing() -> None:
    assert (
        probe.programs.answer_of(None, "x")
        == probe.programs.answer_of("/bin/false")
        == probe.programs.answer_of("/nonexistent/program")
        == ""
    )
    assert probe.programs.answer_of("/bin/echo", "a", "b") == "a b"
