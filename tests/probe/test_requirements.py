"""What packages ask for: METADATA and requires.txt in every form, extras, compiled modules and what they miss."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dsdoctor.hosts import probe
from tests.probe.conftest import examine, lay, value

FOREIGN = "_ZN3c105ErrorC2ENS_14SourceLocationESs"


def gathered(folder: Path, section: str = "requirements") -> dict[str, object]:
    """The section as a probe gives it whose site-packages is the folder (with -S: without this environment's own)."""
    answer = examine({"sections": [section]}, python=[sys.executable, "-S"], env={"PYTHONPATH": str(folder)})
    found: dict[str, object] = value(answer, section)
    return found


def test_requirements_of_wheels_and_their_extras(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "transformers-4.34.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: transformers\n"
            "Requires-Python: >=3.8.0\nRequires-Dist: numpy >=1.17\n"
            "Requires-Dist: accelerate >=0.20.3 ; extra == 'torch'\nRequires-Dist: black ; extra == 'quality'\n"
            "\nRequires-Dist: not-a-header\n",
            "datasets-2.13.1.dist-info/METADATA": "Name: datasets\nRequires-Dist: fsspec[http]>=2021.11.1\n",
            "fsspec-2023.6.0.dist-info/METADATA": "Name: fsspec\r\nRequires-Dist: aiohttp ; extra == 'http'\r\n"
            "Requires-Dist: dask ; extra == 'dask'\r\n\r\nlong\r\n",
            "nothing-1.dist-info/METADATA": "Name: nothing\n\n",
            "local-1.dist-info/METADATA": "Name: local\n"
            "Requires-Dist: kernels[x] @ file:///home/alice/k ; os_name == 'posix'\n",
            "broken-1.dist-info/METADATA": b"Name: broken\nRequires-Dist: \xff\xfe\n",
            "~ransformers-4.0.dist-info/METADATA": "Name: transformers\nRequires-Dist: gone\n",
        },
    )
    packages = gathered(tmp_path)["packages"]
    assert packages == {
        "transformers": {"python": ">=3.8.0", "requires": ["numpy >=1.17", "accelerate >=0.20.3 ; extra == 'torch'"]},
        "datasets": {"python": "", "requires": ["fsspec[http]>=2021.11.1"]},
        "fsspec": {"python": "", "requires": ["aiohttp ; extra == 'http'"]},
        "broken": {"python": "", "requires": ["\\xff\\xfe"]},
        "local": {"python": "", "requires": ["kernels[x] ; os_name == 'posix'"]},
    }


def test_requirements_of_eggs(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "old-1.0.egg-info/PKG-INFO": "Name: old\nVersion: 1.0\nRequires-Python: >=3.6\n",
            "old-1.0.egg-info/requires.txt": "numpy\n\n[:python_version < '3.8']\nimportlib-metadata\n\n"
            "[torch]\ntorch>=1.0\n\n[torch:sys_platform == 'linux']\ntriton\n",
            "single-2.0.egg-info": "Name: single\nVersion: 2.0\nRequires-Dist: six\n",
            "user-1.dist-info/METADATA": "Name: user\nRequires-Dist: old[torch]\n",
        },
    )
    packages = gathered(tmp_path)["packages"]
    assert packages == {
        "old": {
            "python": ">=3.6",
            "requires": [
                "numpy",
                "importlib-metadata; (python_version < '3.8')",
                'torch>=1.0; extra == "torch"',
                "triton; (sys_platform == 'linux') and extra == \"torch\"",
            ],
        },
        "single": {"python": "", "requires": ["six"]},
        "user": {"python": "", "requires": ["old[torch]"]},
    }


def test_the_first_of_two_with_one_name_counts(tmp_path: Path) -> None:
    for place, wanted in (("a", "numpy<2"), ("b", "numpy>=2")):
        lay(tmp_path / place, {"x-1.dist-info/METADATA": f"Name: x\nRequires-Dist: {wanted}\n\n"})
    answer = examine(
        {"sections": ["requirements"]},
        python=[sys.executable, "-S"],
        env={"PYTHONPATH": f"{tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}"},
    )
    assert value(answer, "requirements")["packages"]["x"]["requires"] == ["numpy<2"]


def test_a_huge_head_is_bounded(tmp_path: Path) -> None:
    lines = "".join(f"Requires-Dist: p{number}\n" for number in range(100_000))
    lay(tmp_path, {"big-1.dist-info/METADATA": f"Name: big\n{lines}\n"})
    packages = gathered(tmp_path)["packages"]
    assert isinstance(packages, dict)
    assert len(packages["big"]["requires"]) == probe.requirements.REQUIREMENTS


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        (
            "version='0.14.0'\ninstalled_ops={'cpu_adam': True, 'async_io': False}\n"
            "torch_info={'version': '2.1', 'cuda_version': '12.1', 'hip_version': '0.0'}\n",
            (["cpu_adam"], "2.1", "12.1"),
        ),
        ("installed_ops={'cpu_adam': __import__('os').abort()}\n", ([], None, None)),
        ("not python", ([], None, None)),
        ("", ([], None, None)),
    ],
)
def test_ops_that_were_built_at_installation(
    tmp_path: Path, source: str, wanted: tuple[list[str], str | None, str | None]
) -> None:
    lay(
        tmp_path,
        {
            "deepspeed/__init__.py": "raise SystemExit('imported')",
            "deepspeed/git_version_info_installed.py": source,
            "deepspeed-0.14.0.dist-info/METADATA": "Name: deepspeed\nVersion: 0.14.0\n",
        },
    )
    found = gathered(tmp_path, "deepspeed")
    assert found["version"] == "0.14.0"
    assert (found["installed_ops"], found["built_torch"], found["built_cuda"]) == wanted


def test_no_deepspeed(tmp_path: Path) -> None:
    lay(tmp_path, {"deepspeed/notes.txt": ""})
    assert gathered(tmp_path, "deepspeed") == {"version": None}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in torch and modules linked with it, made by the host's own compiler and linker."""
    if shutil.which("g++") is None:
        pytest.skip("needs the program g++")
    folder = tmp_path_factory.mktemp("native")
    site = folder / "site-packages"
    (site / "torch/lib").mkdir(parents=True)
    (site / "xformers").mkdir()
    lay(site, {"torch/__init__.py": "", "torch/version.py": "__version__ = '2.1.2+cu121'\ncuda = '12.1'\n"})
    lay(site, {"xformers/__init__.py": "", "xformers/cpp_lib.json": '{"version": {"cuda": 1201, "torch": "2.5.0"}}'})

    def compiled(name: str, code: str, *flags: str) -> None:
        source = folder / "code.cpp"
        source.write_text(code)
        path = site / name
        command = ["g++", "-shared", "-fPIC", "-nostdlib", str(source), "-o", str(path), f"-L{site}/torch/lib", *flags]
        subprocess.run(command, check=True, capture_output=True)

    compiled("torch/lib/libcudart.so.12", "int cudart() { return 0; }", "-Wl,-soname,libcudart.so.12")
    offered = "namespace c10 { void known() {} } namespace at { void also() {} }"
    compiled("torch/lib/libc10.so", offered, "-Wl,-soname,libc10.so")
    good = "namespace c10 { void known(); } namespace at { void also(); } void f() { c10::known(); at::also(); }"
    runtime = f"{site}/torch/lib/libcudart.so.12"
    compiled("good_kernels.cpython-310-x86_64-linux-gnu.so", good, "-lc10", "-Wl,--no-as-needed", runtime)
    bad = f'extern "C" void {FOREIGN}(); namespace c10 {{ void known(); }} void f() {{ {FOREIGN}(); c10::known(); }}'
    compiled("flash_attn_2_cuda.so", bad, "-lc10", "-Wl,--allow-shlib-undefined")
    compiled(
        "xformers/_C.so", "namespace torch { void own(); } void f() { torch::own(); }", "-Wl,--no-as-needed", "-lc10"
    )
    compiled("unrelated.so", "int f() { return 1; }")
    lay(site, {"cut.so": (site / "flash_attn_2_cuda.so").read_bytes()[:200], "text.so": "no library"})
    return site


def modules(site: Path) -> dict[str, dict[str, object]]:
    found = gathered(site, "binaries")
    rows = found["modules"]
    assert isinstance(rows, list)
    return {Path(row["path"]).name: row for row in rows}


def test_modules_and_the_symbols_that_they_miss(libraries: Path) -> None:
    found = modules(libraries)
    assert set(found) == {"good_kernels.cpython-310-x86_64-linux-gnu.so", "flash_attn_2_cuda.so", "_C.so"}
    good = found["good_kernels.cpython-310-x86_64-linux-gnu.so"]
    assert (good["package"], good["python"], good["cuda"], good["missing"], good["checked"]) == (
        "good-kernels",
        "310",
        "12",
        [],
        True,
    )
    bad = found["flash_attn_2_cuda.so"]
    assert (bad["package"], bad["python"], bad["missing"]) == ("flash-attn", None, [FOREIGN])
    assert bad["cxx11_abi"] is False
    assert found["_C.so"]["missing"] == ["_ZN5torch3ownEv"]
    assert gathered(libraries, "binaries")["built_for"] == {"xformers": {"torch": "2.5.0", "cuda": "12.1"}}


def test_without_a_torch_that_can_be_read_nothing_is_said_to_be_missing(libraries: Path, tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    shutil.copytree(libraries, site)
    (site / "torch/lib/libc10.so").write_bytes(b"\x7fELF\x02\x01" + b"\0" * 200)
    assert all(row["checked"] is False and row["missing"] == [] for row in modules(site).values())


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 1}', '{"version": {"torch": 5, "cuda": "x"}}', "[" * 100_000]
)
def test_what_is_no_cpp_lib_json(text: str) -> None:
    assert probe.binaries.built_for(text) in (None, {"torch": None, "cuda": None}, {"torch": "5", "cuda": None})


def test_the_compiler_that_torch_takes(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(
        tmp_path,
        {
            "bin/g++-11": "#!/bin/sh\necho 'g++-11 (GCC) 11.2.0'\n",
            "bin/clang++": "#!/bin/sh\necho 'clang version 14.0.6'\n",
        },
    )
    for program in (tmp_path / "bin").iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name, wanted in (("ccache g++-11", ("11.2.0", False)), (f"{tmp_path}/bin/clang++", ("14.0.6", True))):
        found = probe.compilers.fact_compilers(probe.question.Ask({"variables": {"CXX": name}}))
        assert (found["cxx"]["version"], found["cxx_clang"]) == wanted
        assert found["cxx_name"] == name
    found = probe.compilers.fact_compilers(probe.question.Ask({"variables": {"CXX": "/nowhere/c++"}}))
    assert (found["cxx"], found["libaio"], found["libaio_header"]) == (None, None, None)


def test_a_toolkit_in_parts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for name in ("CUDA_HOME", "CUDA_PATH", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    lay(root, {"usr/local/cuda/include/cuda_runtime.h": "", "usr/local/cuda/lib64/libcudart.so": ""})
    found = probe.cuda.fact_cuda(probe.question.Ask({}))
    assert (found["runtime_headers"], found["curand"]) == (True, False)
    targets = "usr/local/cuda/targets/x86_64-linux"
    lay(root, {f"{targets}/include/curand_kernel.h": "", f"{targets}/lib/libcurand.so": ""})
    assert probe.cuda.fact_cuda(probe.question.Ask({}))["curand"] is True


@pytest.mark.parametrize(
    "name", ["stdio.h", "zlib.h", "libaio.h", "libm.so", "libz.so", "libaio.so", "no_such.h", "libno.so"]
)
def test_the_distributions_gcc_finds_what_lies_in_its_folders(name: str) -> None:
    path = probe.files.which("gcc")
    if path is None or not probe.compilers.is_own_gcc(path):
        pytest.skip("needs a distribution's gcc")
    if name.endswith(".h"):
        asked = f"#include <{name}>\n"
        found = probe.programs.run([path, "-E", "-x", "c", "-o", os.devnull, "-"], text=asked)[0] == 0
    else:
        found = Path(probe.programs.run([path, f"-print-file-name={name}"])[1].strip()).is_absolute()
    assert probe.compilers.gcc_has(name) is found


@pytest.mark.parametrize("name", ["gcc", "g++", "cc", "c++"])
def test_the_version_read_of_a_distributions_gcc_is_the_one_that_it_prints(name: str) -> None:
    path = probe.files.which(name)
    read = probe.compilers.own_version(path) if path else ""
    if not read or path is None:
        pytest.skip("needs a distribution's gcc that is built as Debian builds it")
    printed = probe.programs.run([path, "--version"])[1]
    assert probe.compilers.program_version(read) == probe.compilers.program_version(printed) != ""
    assert read.split()[1:] == printed.splitlines()[0].split()[1:]


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("gcc-12", b"\0x) \0" + b"12.2.0\0(Debian 12.2.0-14) \0gcc version", "gcc (Debian 12.2.0-14) 12.2.0\n"),
        ("gcc", b"\x0013.2.1\0(Some One) \0", "gcc (Some One) 13.2.1\n"),
        ("gcc-12", b"\x0011.2.0\0(Debian 12.2.0-14) \0", ""),  # another gcc's: it is asked
        ("gcc-12", b"\0(Debian 12.2.0-14) \x0012.2.0\0", ""),
        ("gcc-12", b"\x0012.2.0\0Debian 12.2.0-14) \0", ""),
        ("gcc-12", b"\x0012.2.0 2024\0(GCC) \0", ""),
        ("gcc-12", b"", ""),
    ],
)
def test_the_version_in_a_gccs_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, wanted: str
) -> None:
    (tmp_path / name).write_bytes(b"\x7fELF\x02\x01" + content if content else b"")
    assert probe.compilers.own_version(str(tmp_path / name)) == ""  # not in /usr/bin
    monkeypatch.setattr(probe.compilers, "is_own_gcc", lambda path, kinds: True)
    assert probe.compilers.own_version(str(tmp_path / name)) == wanted


def test_a_compiler_that_is_told_of_other_folders_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if probe.files.which("gcc") is None:
        pytest.skip("needs gcc")
    lay(tmp_path, {"include/libaio.h": "", "lib/libaio.so": ""})
    ask = probe.question.Ask({"variables": {"CFLAGS": f"-O2 -I{tmp_path}/include", "LDFLAGS": f"-L{tmp_path}/lib"}})
    assert probe.compilers.libaio(ask) == (True, True)
    monkeypatch.setenv("CPATH", f"{tmp_path}/include")
    monkeypatch.setenv("LIBRARY_PATH", f"{tmp_path}/lib")
    assert probe.compilers.libaio(probe.question.Ask({})) == (True, True)


def test_what_stands_before_compilers_is_asked_by_each_name(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {"ccache": '#!/bin/sh\necho "$0 1.5"\n', "g++-12": "#!/bin/sh\necho 'g++ 12.2.0'; echo x >> $0.asked\n"},
    )
    for program in tmp_path.iterdir():
        program.chmod(0o755)
    for name, target in (("gcc", "ccache"), ("g++", "ccache"), ("c++", "g++-12"), ("x-g++", "g++-12")):
        (tmp_path / name).symlink_to(target)
    probe.files.MEMO.clear()
    told = {name: probe.compilers.version_text(f"{tmp_path}/{name}") for name in ("gcc", "g++", "c++", "x-g++")}
    assert told["gcc"] != told["g++"]
    assert told["c++"] == told["x-g++"] == "g++ 12.2.0\n"
    assert len(list(tmp_path.glob("*.asked"))) == 1
    probe.files.MEMO.clear()
