"""The pure parts, by table: what programs and files really print, old forms and odd ones included."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdoctor.hosts import probe


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (
            "nvidia, 535.154.05, 3.10.0-1160.el7.x86_64, x86_64: installed",  # dkms 2
            ("nvidia", "535.154.05", "3.10.0-1160.el7.x86_64", "installed"),
        ),
        (
            "nvidia/535.154.05, 5.15.0-91-generic, x86_64: installed",  # dkms 3
            ("nvidia", "535.154.05", "5.15.0-91-generic", "installed"),
        ),
        ("nvidia/535.154.05: added", ("nvidia", "535.154.05", "", "added")),
        ("nvidia, 535.154.05: added", ("nvidia", "535.154.05", "", "added")),
        (
            "nvidia/535.154.05, 6.5.0-14-generic, x86_64: built (WARNING! Diff between built and installed module!)",
            ("nvidia", "535.154.05", "6.5.0-14-generic", "built"),
        ),
        (
            "nvidia-current/470.82, 5.10.0-26-amd64, x86_64: installed (original_module exists)",
            ("nvidia-current", "470.82", "5.10.0-26-amd64", "installed"),
        ),
        ("nvidia-open/550.54.15, 6.1.0, x86_64: broken", ("nvidia-open", "550.54.15", "6.1.0", "broken")),
        ("virtualbox/6.1.38, 5.15.0-91-generic, x86_64: installed", None),
        ("Error! Could not locate dkms.conf file.", None),
        ("nvidia", None),
        ("", None),
    ],
)
def test_dkms_status(line: str, wanted: tuple[str, str, str, str] | None) -> None:
    rows = probe.driver.parse_dkms(f"other/1, k, x: installed\n{line}\n")
    assert [(row["module"], row["version"], row["kernel"], row["status"]) for row in rows] == (
        [wanted] if wanted else []
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.154.05  Thu Dec 28 15:37:48 UTC 2023", "535.154.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build", "550.54.15"),
        ("NVRM version: NVIDIA UNIX aarch64 Kernel Module  470.82  Mon", "470.82"),
        ("", None),
    ],
)
def test_driver_version(text: str, wanted: str | None) -> None:
    assert probe.driver.driver_version(text) == wanted


@pytest.mark.parametrize(
    ("output", "wanted"),
    [
        ("gcc (Debian 12.2.0-14) 12.2.0\nCopyright", "12.2.0"),
        ("gcc (GCC) 4.8.5 20150623 (Red Hat 4.8.5-44)\n", "4.8.5"),
        ("g++-9 (Ubuntu 9.4.0-1ubuntu1~20.04.2) 9.4.0\n", "9.4.0"),
        ("Debian clang version 14.0.6\n", "14.0.6"),
        ("GNU Make 4.3\nBuilt for x86_64-pc-linux-gnu\n", "4.3"),
        ("1.11.1.git.kitware.jobserver-1\n", "1.11.1"),
        ("nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 12.6, V12.6.85\n", "12.6"),
        ("bash: gcc: command not found\n", ""),
        ("", ""),
    ],
)
def test_program_versions(output: str, wanted: str) -> None:
    assert probe.compilers.program_version(output) == wanted


def test_os_release() -> None:
    text = '# comment\nPRETTY_NAME="CentOS Linux 7 (Core)"\nID=\'centos\'\nVERSION_ID="7"\nEMPTY=\nno equals\n'
    fields = probe.system.os_release(text)
    assert (fields["PRETTY_NAME"], fields["ID"], fields["VERSION_ID"]) == ("CentOS Linux 7 (Core)", "centos", "7")


REQUIREMENTS = """Metadata-Version: 2.1
Name: torch
Version: 2.1.2
Requires-Dist: filelock
Requires-Dist: nvidia-cudnn-cu12 (==8.9.2.26) ; platform_system == "Linux"
Requires-Dist: {}

# description
Requires-Dist: nvidia-nccl-cu99==9.9
"""


@pytest.mark.parametrize(
    ("requirement", "wanted"),
    [
        ("nvidia-nccl-cu12 ==2.18.1 ; platform_system == 'Linux'", "nvidia-nccl-cu12==2.18.1"),
        ("nvidia-nccl-cu12 (==2.18.1) ; platform_system == 'Linux'", "nvidia-nccl-cu12==2.18.1"),
        ('nvidia-nccl-cu12==2.27.5; platform_system == "Linux"', "nvidia-nccl-cu12==2.27.5"),  # torch 2.10.0
        ("nvidia_nccl_cu13==2.29.7", "nvidia-nccl-cu13==2.29.7"),
        ("nvidia-nccl>=2.20,<3", "nvidia-nccl>=2.20,<3"),
        ("networkx", None),
    ],
)
def test_the_pin_of_torch(requirement: str, wanted: str | None) -> None:
    assert probe.torch_build.nccl_requirement(REQUIREMENTS.format(requirement)) == wanted


def test_constants_are_read_and_nothing_is_run() -> None:
    source = (
        "from typing import Optional\n__all__ = ['x']\n__version__ = '2.10.0+cu128'\ndebug = False\n"
        "cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\nbare: int\na = b = 1\n"
        "import os; os.abort()\nc = os.getcwd()\n"
    )
    assert probe.constants.constants(source) == {
        "__version__": "2.10.0+cu128",
        "debug": False,
        "cuda": "12.8",
        "hip": None,
        "a": 1,
        "b": 1,
    }
    assert probe.constants.constants("not python at all (") == {}
    assert probe.constants.constants("x = '\0'") == {}


def test_listening_ports() -> None:
    text = """  sl  local_address rem_address   st tx_queue
   0: 00000000:0016 00000000:0000 0A 00000000:00000000
   1: 0100007F:733C 0100007F:1F90 01 00000000:00000000
   2: 00000000000000000000000000000000:733C 00000000000000000000000000000000:0000 0A 0
   3: 00000000:0016 00000000:0000 0A 00000000:00000000
"""
    assert probe.network.listening(text) == [22, 29500]


def test_nccl_conf_is_read_as_nccl_reads_it() -> None:
    text = (
        "# comment\nNCCL_DEBUG=INFO\nNCCL_DEBUG=WARN\n NCCL_SPACE = x \n"
        "  # not a comment=1\n\nno equals\nNCCL_A=b=c\r\n"
    )
    pairs, bad = probe.environment.parse_nccl_conf(text)
    assert dict(pairs) == {
        "NCCL_DEBUG": "INFO",
        " NCCL_SPACE ": " x ",
        "  # not a comment": "1",
        "NCCL_A": "b=c\r",
    }
    assert bad == [7]


def test_deepspeed_env_is_read_as_deepspeed_reads_it() -> None:
    pairs, bad = probe.environment.parse_deepspeed_env("NCCL_DEBUG = INFO\nNCCL_DEBUG=WARN\n\n# comment\nA=b=c\n")
    assert dict(pairs) == {"NCCL_DEBUG": "WARN", "A": "b=c"}
    assert bad == [3, 4]  # `key, val = line.split("=", maxsplit=1)` raises on them


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("export NCCL_IB_DISABL=1", {"NCCL_IB_DISABL": "1"}),
        ('export NCCL_SOCKET_IFNAME="bond0" # the fast one', {"NCCL_SOCKET_IFNAME": "bond0"}),
        ("export NCCL_SOCKET_IFNAME==eno1 NCCL_DEBUG=INFO", {"NCCL_SOCKET_IFNAME": "=eno1", "NCCL_DEBUG": "INFO"}),
        ("declare -x OMP_NUM_THREADS=1", {"OMP_NUM_THREADS": "1"}),
        ("NCCL_DEBUG=INFO; export NCCL_DEBUG", {"NCCL_DEBUG": "INFO"}),
        ("NCCL_DEBUG=INFO; torchrun x", {}),
        ("export RANK=0 PATH=$PATH:/opt", {"RANK": "0", "PATH": "$PATH:/opt"}),
        ("export EDITOR=vi", {}),
        ("NCCL_DEBUG=INFO python train.py", {}),
        ("# export NCCL_DEBUG=INFO", {}),
        ("if [ x = y ]; then export NCCL_DEBUG=INFO; fi", {}),
        ("alias t='NCCL_DEBUG=INFO torchrun'", {}),
        ("export NCCL_BROKEN='unfinished", {}),
        ("http_proxy=http://127.0.0.1:10809", {"http_proxy": "http://127.0.0.1:10809"}),
    ],
)
def test_shell_files(line: str, wanted: dict[str, str]) -> None:
    assert dict(probe.shell_files.parse_shell(f"# start\n{line}\nexport PS1=x\n")[0]) == wanted


@pytest.mark.parametrize(
    "parse", [probe.environment.parse_nccl_conf, probe.environment.parse_deepspeed_env, probe.shell_files.parse_shell]
)
@given(text=st.text())
def test_no_file_makes_a_parser_fail(parse: Any, text: str) -> None:
    pairs, bad = parse(text)
    assert all(isinstance(name, str) and isinstance(value, str) for name, value in pairs)
    assert all(1 <= line <= len(text.split("\n")) + text.count("\r") + len(text) for line in bad)


@given(
    st.text() | st.builds(lambda words: " ".join(words), st.lists(st.sampled_from(["local", "via", "dev", "src", "x"])))
)
def test_no_output_makes_the_dkms_parser_fail(text: str) -> None:
    probe.driver.parse_dkms(text)
    probe.network.listening(text)


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("HF_TOKEN", True),
        ("WANDB_API_KEY", True),
        ("HUGGING_FACE_HUB_TOKEN", True),
        ("MLFLOW_TRACKING_PASSWORD", True),
        ("hf_secret", True),
        ("PIP_AUTH", True),
        ("GOOGLE_APPLICATION_CREDENTIALS", True),
        ("SSH_KEY_PASSPHRASE", True),
        ("TOKENIZERS_PARALLELISM", False),
        ("NCCL_IB_PKEY", False),
        ("NCCL_DEBUG", False),
        ("PATH", False),
    ],
)
def test_secrets_by_name(name: str, hidden: bool) -> None:
    assert probe.masking.secret(name) is hidden


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("http://alice:pw@proxy:3128", "http://***@proxy:3128"),
        ("http://alice@proxy:3128,https://b:c@d", "http://***@proxy:3128,https://***@d"),
        ("http://proxy:3128/a@b", "http://proxy:3128/a@b"),
        ("x hf_abcdefghijklmnopqrst y", "x *** y"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123", "***"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc", "***"),
        ("AKIAIOSFODNN7EXAMPLE", "***"),
        ("hf_transfer", "hf_transfer"),
        ("=eno1", "=eno1"),
        ("/opt/conda/bin:/usr/bin", "/opt/conda/bin:/usr/bin"),
    ],
)
def test_values_lose_what_is_secret_in_them(value: str, wanted: str) -> None:
    assert probe.masking.masked(value) == wanted


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("NCCL_SOCKET_IFNAME", True),
        ("NCLL_DEBUG", True),
        ("NCC_DEBUG", True),
        ("TORCH_NCCL_BLOCKING_WAIT", True),
        ("RANK", True),
        ("RANKING", False),
        ("PET_MAX_RESTARTS", True),
        ("NNODES", True),
        ("http_proxy", True),
        ("HTTPS_PROXY", True),
        ("LD_PRELOAD", True),
        ("PATH", True),
        ("PATHOLOGY", False),
        ("CXX", True),
        ("EDITOR", False),
        ("SSH_CLIENT", False),
        ("NLTK_DATA", False),
    ],
)
def test_which_variables_matter(name: str, kept: bool) -> None:
    assert probe.masking.relevant(name) is kept


def test_mounts_by_the_longest_and_last() -> None:
    table = [
        ("/", "ext4", "/dev/a"),
        ("/data", "nfs4", "s:/d"),
        ("/data set", "xfs", "/dev/b"),
        ("/data", "nfs4", "s:/e"),
    ]
    assert probe.mounts.mount_of("/data/x", table)[2] == "s:/e"
    assert probe.mounts.mount_of("/database", table)[2] == "/dev/a"
    assert probe.mounts.mount_of("/data set", table)[1] == "xfs"
    assert probe.mounts.mount_of("/", table)[1] == "ext4"
    assert probe.mounts.mount_of("/x", [])[1] == ""
    assert probe.mounts.unescaped("/data\\040set\\134x") == "/data set\\x"


@pytest.mark.parametrize("seed", range(3))
def test_unique_keeps_the_order(seed: int) -> None:
    items = [str(random.Random(seed).randrange(5)) for _ in range(20)]
    assert probe.files.unique(items) == sorted(set(items), key=items.index)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (
            b"\0sm_70 sm_75 sm_80 sm_86 sm_90 sm_100 sm_120\0",
            ["sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"],
        ),
        (b"\0sm_80\0", ["sm_80"]),
        (b"\0sm_90a compute_90\0", ["sm_90a", "compute_90"]),
        (b"\0gfx90a gfx942:sramecc+:xnack-\0", ["gfx90a", "gfx942:sramecc+:xnack-"]),
        (b"\0the sm_80 sm_86 of a message\0", None),
        (b"xsm_80\0sm_\0", None),
        (b"", None),
    ],
)
def test_architectures_in_the_bytes(tmp_path: Any, content: bytes, wanted: list[str] | None) -> None:
    (tmp_path / "libtorch_python.so").write_bytes(content)
    assert probe.torch_build.arch_list(str(tmp_path / "libtorch_python.so")) == wanted
    assert probe.torch_build.arch_list(str(tmp_path / "gone.so")) is None


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"\0_ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE\0", True),
        (b"\0_ZN3c105ErrorC2ENS_14SourceLocationESs\0", False),
        (b"\0_ZN3c105ErrorD2Ev\0", None),
    ],
)
def test_the_abi_in_the_bytes(tmp_path: Any, content: bytes, wanted: bool | None) -> None:
    (tmp_path / "libc10.so").write_bytes(content)
    assert probe.torch_build.cxx11_abi(str(tmp_path / "libc10.so")) is wanted


@pytest.mark.parametrize(
    ("source", "values", "tables"),
    [
        ("from typing import Optional\n\na = '1'\nb: Optional[str] = None\n", {"a": "1", "b": None}, {}),
        ("__all__ = ['a', \"b\"]\na = 12\nt={'x': False, 'y': '0.0'}\n", {"a": 12}, {"t": {"x": False, "y": "0.0"}}),
        ("a = 'x'  # 'y'\n", {"a": "x"}, {}),
        ("a = 'x' 'y'\nb = 'it\\'s'\nc = 0x10\nd = 1.5\n", {"a": "xy", "b": "it's", "c": 16, "d": 1.5}, {}),
        ("t = {'a': {'b': 1, 'c': '}'}}\nt2 = {}\n", {}, {"t": {"a": {"b": 1, "c": "}"}}, "t2": {}}),
        ("a = '''\nb = 'no'\n'''\n", {"a": "\nb = 'no'\n"}, {}),
        ("if True:\n    a = '1'\nb = '2'\n", {"b": "2"}, {}),
        ("a = '1'\r\nb = '2'\r\n", {"a": "1", "b": "2"}, {}),
        ("a = '1'\nb = (\n", {}, {}),
        ("from x import (\n    y,\n)\na = '1'\n", {"a": "1"}, {}),
        ("a = 'x,y'\nt = {'a,b': 1, 'c:d': 2}\n", {"a": "x,y"}, {"t": {"a,b": 1, "c:d": 2}}),
        ("", {}, {}),
    ],
)
def test_constants_read_by_lines_are_those_of_the_syntax_tree(source: str, values: Any, tables: Any) -> None:
    assert probe.constants.constants(source) == values
    assert probe.constants.mappings(source) == tables
    if probe.constants.by_lines(source) is not None:
        seen = {name: node.value for name, node in probe.constants.assigned(source) if hasattr(node, "value")}
        assert values == seen


def test_the_version_files_of_torch_and_deepspeed_need_no_syntax_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe.constants, "assigned", lambda source: pytest.fail("a syntax tree was made"))
    torch = "from typing import Optional\n__all__ = ['cuda']\n__version__ = '2.13.0'\ncuda: Optional[str] = None\n"
    assert probe.constants.constants(torch) == {"__version__": "2.13.0", "cuda": None}
    deepspeed = "version='0.19.8'\ninstalled_ops={'async_io': False, 'cpu_adam': True}\n"
    assert probe.constants.mappings(deepspeed) == {"installed_ops": {"async_io": False, "cpu_adam": True}}


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (b"#define CUDA_VERSION 12060", "12.6"),
        (b"/* CUDA_VERSION */\n#define\tCUDA_VERSION  11080 /* 11.8 */\n", "11.8"),
        (b"x" * (1 << 14) + b"\n#define CUDA_VERSION 13000\n", "13.0"),
        (b"#define OTHER\n".ljust((1 << 14) - 23, b"\n") + b"#define CUDA_VERSION 12060\n", "12.6"),  # cut at 120
        (b"#define CUDA_VERSION_MAJOR 12\n#if CUDA_VERSION > 11000\n", None),
        (b"", None),
    ],
)
def test_the_version_of_a_toolkit_in_its_header(tmp_path: Any, header: bytes, wanted: str | None) -> None:
    (tmp_path / "include").mkdir()
    (tmp_path / "include/cuda.h").write_bytes(header)
    assert probe.cuda.toolkit_version(str(tmp_path)) == wanted
