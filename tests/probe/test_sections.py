"""Sections over file trees as other hosts have them: a folder stands for `/`."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from dsdoctor.hosts import probe
from tests.probe.conftest import examine, lay, value

ASK = probe.question.Ask({})


def ask(**config: Any) -> probe.question.Ask:
    return probe.question.Ask(config)


def test_infiniband_ports_and_their_states(root: Path) -> None:
    base = "sys/class/infiniband/mlx5_0"
    port = {
        "state": "4: ACTIVE\n",
        "phys_state": "5: LinkUp\n",
        "rate": "200 Gb/sec (4X HDR)\n",
        "link_layer": "InfiniBand\n",
    }
    lay(root, {f"{base}/ports/1/{name}": text for name, text in port.items()})
    lay(root, {f"{base}/ports/2/state": "1: DOWN\n", f"{base}/ports/notes": "x", f"{base}/device/net/ib0/x": ""})
    (root / "sys/module/nvidia_peermem").mkdir(parents=True)
    found = probe.infiniband.fact_infiniband(ASK)
    (device,) = found["devices"]
    assert device["ports"][0] == {
        "port": 1,
        "state": "ACTIVE",
        "physical_state": "LinkUp",
        "rate": "200 Gb/sec (4X HDR)",
        "link_layer": "InfiniBand",
        "gids": None,
    }
    assert (device["ports"][1]["state"], device["ports"][1]["rate"]) == ("DOWN", "")
    assert (device["net_devices"], found["peermem_loaded"]) == (["ib0"], True)


def test_no_infiniband(root: Path) -> None:
    nothing = {"devices": [], "peermem_loaded": False, "verbs": [], "libibverbs": None}
    assert probe.infiniband.fact_infiniband(ASK) == nothing


def test_entries_of_a_gid_table(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = "sys/class/infiniband/mlx5_0/ports/1"
    zero = "0000:0000:0000:0000:0000:0000:0000:0000\n"
    table = {
        0: ("fe80:0000:0000:0000:0200:5eff:fe00:5301\n", "IB/RoCE v1\n"),
        1: ("fe80:0000:0000:0000:0200:5eff:fe00:5301\n", "RoCE v2\n"),
        2: (zero, ""),
        3: ("0000:0000:0000:0000:0000:ffff:c000:0204\n", "RoCE v2\n"),
        40: ("0000:0000:0000:0000:0000:ffff:c000:0205\n", "RoCE v2\n"),
    }
    lay(root, {f"{port}/link_layer": "Ethernet\n", **{f"{port}/gids/{n}": zero for n in range(256)}})
    lay(root, {f"{port}/gids/{n}": gid for n, (gid, _) in table.items()})
    lay(root, {f"{port}/gid_attrs/types/{n}": kind for n, (_, kind) in table.items() if kind})
    lay(root, {"usr/lib64/libibverbs.so.1": ""})
    monkeypatch.setattr(probe.loader, "loader_cache", lambda name: [])
    found = probe.infiniband.fact_infiniband(ASK)
    assert found["devices"][0]["ports"][0]["gids"] == [
        {"index": 0, "gid": "fe80::200:5eff:fe00:5301", "kind": "IB/RoCE v1"},
        {"index": 1, "gid": "fe80::200:5eff:fe00:5301", "kind": "RoCE v2"},
        {"index": 3, "gid": "::ffff:192.0.2.4", "kind": "RoCE v2"},
    ]
    assert found["libibverbs"] is True
    (root / "usr/lib64/libibverbs.so.1").unlink()
    assert probe.infiniband.fact_infiniband(ASK)["libibverbs"] is False


def test_kinds_of_interfaces(root: Path) -> None:
    base, conf = "sys/class/net", "proc/sys/net/ipv4/conf"
    lay(root, {f"{base}/br-1/uevent": "DEVTYPE=bridge\nINTERFACE=br-1\n", f"{base}/tun0/tun_flags": "0x1001\n"})
    lay(root, {f"{base}/eno1/duplex": "half\n", f"{base}/eno2/duplex": "unknown\n", f"{base}/eno1/uevent": "X=1\n"})
    lay(root, {f"{conf}/all/rp_filter": "1\n", f"{conf}/eno1/rp_filter": "0\n", f"{conf}/tun0/rp_filter": "2\n"})
    (root / base / "bond0").mkdir()
    (root / base / "eno1/master").symlink_to("../bond0")
    seen = {name: probe.network.interface(name, []) for name in ("br-1", "tun0", "eno1", "eno2")}
    assert {name: row["kind"] for name, row in seen.items()} == {
        "br-1": "bridge",
        "tun0": "tun",
        "eno1": "",
        "eno2": "",
    }
    assert [seen[name]["duplex"] for name in ("eno1", "eno2", "tun0")] == ["half", None, None]
    assert [seen[name]["rp_filter"] for name in ("eno1", "tun0", "eno2")] == [1, 2, 1]
    assert (seen["eno1"]["master"], seen["eno2"]["master"]) == ("bond0", None)


def test_firewalls_that_are_switched_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe.network, "which", lambda name, extra=(): "/usr/sbin/" + name)
    monkeypatch.setattr(probe.network, "running", lambda name: name == "firewalld")
    assert probe.network.firewalls() == ["firewalld"]
    lay(root, {"etc/ufw/ufw.conf": "# ENABLED=yes\nENABLED=no\n"})
    assert probe.network.firewalls() == ["firewalld"]
    lay(root, {"etc/ufw/ufw.conf": "# comment\nENABLED=yes\nLOGLEVEL=low\n"})
    monkeypatch.setattr(probe.network, "running", lambda name: None)
    assert probe.network.firewalls() == ["ufw"]


MEMINFO = (
    "MemTotal:       16384 kB\nMemAvailable:    8192 kB\nSwapTotal:       1024 kB\nHugePages_Total:       3\nbroken\n"
    "HugePages_Free:        1\nHugepagesize:       2048 kB\n"
)


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
                "sys/fs/cgroup/a/memory.max": "4096\n",
            },
            4096,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "8388608\n"}, 8388608),
        ({"proc/self/cgroup": "0::/../b\n", "sys/fs/cgroup/b/memory.max": "4096\n"}, 4096),
        (
            {
                "proc/self/cgroup": "9:memory:/x\n0::/\n",
                "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "9223372036854771712\n",
            },
            None,
        ),
        ({"proc/self/cgroup": "9:memory:/x\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "12345\n"}, 12345),
        ({"proc/self/cgroup": "garbage\n::\n"}, None),
    ],
)
def test_memory_and_what_a_cgroup_leaves_of_it(root: Path, files: dict[str, str], limit: int | None) -> None:
    lay(root, {"proc/meminfo": MEMINFO, **files})
    assert probe.limits.fact_memory(ASK) == {
        "total_bytes": 16384 * 1024,
        "available_bytes": 8192 * 1024,
        "swap_total_bytes": 1024 * 1024,
        "cgroup_limit_bytes": limit,
        "hugetlb_bytes": 3 * 2048 * 1024,
        "hugetlb_free_bytes": 2048 * 1024,
    }


def test_huge_pages_of_several_sizes(root: Path) -> None:
    lay(root, {"proc/meminfo": MEMINFO + "Hugetlb:         7340032 kB\n"})
    assert probe.limits.fact_memory(ASK)["hugetlb_bytes"] == 7340032 * 1024
    lay(root, {"proc/meminfo": "MemTotal: 16384 kB\n"})
    found = probe.limits.fact_memory(ASK)
    assert (found["hugetlb_bytes"], found["hugetlb_free_bytes"]) == (0, 0)


def test_memory_that_cannot_be_read_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = json.loads(probe.workers.examined("memory", ASK))["error"]
    assert told.startswith("FileNotFoundError: ")
    assert re.search(r" \(files\.py, line \d+\)$", told)  # where in the probe
    lay(root, {"proc/meminfo": "MemFree: 1 kB\n"})
    told = json.loads(probe.workers.examined("memory", ASK))["error"]
    assert re.fullmatch(r"KeyError: 'MemTotal' \(limits\.py, line \d+\)", told)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"}, None),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/a\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            2.0,
        ),
    ],
)
def test_cpu(root: Path, files: dict[str, str], quota: float | None) -> None:
    cpuinfo = "processor : 0\nmodel name : Xeon\nflags : fpu avx512f\n\nprocessor : 1\nmodel name : other\n"
    nodes = {f"sys/devices/system/node/{name}/x": "" for name in ("node0", "node1", "possible", "power")}
    lay(root, {"proc/cpuinfo": cpuinfo, **nodes, **files})
    found = probe.limits.fact_cpu(ASK)
    assert (found["model"], found["flags"], found["numa_nodes"], found["quota"]) == (
        "Xeon",
        ["fpu", "avx512f"],
        2,
        quota,
    )


@pytest.mark.parametrize(
    ("files", "links", "kind"),
    [
        ({}, {}, "none"),
        ({".dockerenv": ""}, {}, "docker"),
        ({".dockerenv": ""}, {"pid": "pid:[4026531836]", "uts": "uts:[4026531838]", "ipc": "ipc:[4026531839]"}, "none"),
        (
            {".dockerenv": ""},
            {"pid": "pid:[4026531836]", "uts": "uts:[4026532222]", "ipc": "ipc:[4026531839]"},
            "docker",
        ),
        ({".dockerenv": "", "var/run/secrets/kubernetes.io/x": ""}, {}, "kubernetes"),
        ({"run/.containerenv": ""}, {}, "podman"),
        ({"proc/1/environ": "PATH=/bin\0container=lxc\0"}, {}, "lxc"),
        ({"run/systemd/container": "systemd-nspawn\n"}, {}, "other"),
        ({"proc/1/cgroup": "0::/kubepods/burstable/pod1\n"}, {}, "kubernetes"),
        ({"proc/1/cgroup": "9:memory:/docker/abc\n"}, {}, "docker"),
        ({"proc/1/cgroup": "9:memory:/lxc/abc\n"}, {}, "lxc"),
        ({"proc/1/cgroup": "9:name=systemd:/init.scope\n"}, {}, "none"),
        ({"proc/sys/kernel/osrelease": "5.15.90.1-microsoft-standard-WSL2\n"}, {}, "wsl"),
        ({".singularity.d/x": ""}, {}, "other"),
    ],
)
def test_containers(
    root: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], links: dict[str, str], kind: str
) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "container"):
        monkeypatch.delenv(name, raising=False)
    lay(root, files)
    for name, target in links.items():
        (root / "proc/self/ns").mkdir(parents=True, exist_ok=True)
        (root / "proc/self/ns" / name).symlink_to(target)
    found = probe.system.fact_container(ASK)
    assert found["kind"] == kind
    assert bool(found["evidence"]) == (kind != "none")


def test_a_driver_built_for_another_kernel(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = os.uname().release
    line = "nvidia, 535.154.05, 3.10.0-1160.el7.x86_64, x86_64: installed"
    program = tmp_path / "bin/dkms"
    lay(tmp_path, {"bin/dkms": f"#!/bin/sh\n[ \"$1\" = status ] && echo '{line}'\n"})
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    lay(
        root,
        {
            "usr/src/nvidia-535.154.05/dkms.conf": "",
            "usr/src/nvidia-open-550.54.15/x": "",
            "usr/src/linux-headers/x": "",
            f"lib/modules/{kernel}/modules.dep": "kernel/fs/x.ko:\nupdates/gone/nvidia.ko.xz: a b\n",
            "sys/bus/pci/devices/0000:17:00.0/vendor": "0x10de\n",
            "sys/bus/pci/devices/0000:17:00.0/class": "0x030200\n",
            "sys/bus/pci/devices/0000:17:00.1/vendor": "0x10de\n",
            "sys/bus/pci/devices/0000:17:00.1/class": "0x040300\n",  # the card's sound
            "sys/bus/pci/devices/0000:02:00.0/vendor": "0x8086\n",
            "sys/bus/pci/devices/0000:02:00.0/class": "0x030000\n",
            "sys/module/nouveau/x": "",
        },
    )
    assert probe.driver.fact_driver(ASK) == {
        "loaded": False,
        "version": None,
        "kernel": kernel,
        "dkms_available": True,
        "dkms": [
            {"module": "nvidia", "version": "535.154.05", "kernel": "3.10.0-1160.el7.x86_64", "status": "installed"}
        ],
        "sources": ["535.154.05", "550.54.15"],
        "module_files": [],
        "pci_gpus": ["0000:17:00.0"],
        "modules": ["nouveau"],
        "open_module": None,
        "library_version": None,
        "fabric_manager_running": None,
    }


def test_a_loaded_driver(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(probe.driver, "SBIN", ())
    base = f"lib/modules/{os.uname().release}"
    lay(
        root,
        {
            "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.154.05  Thu\n",
            f"{base}/modules.dep": "updates/dkms/nvidia.ko.zst: x\n",
            f"{base}/updates/dkms/nvidia.ko.zst": "",
            f"{base}/updates/dkms/nvidia-uvm.ko.zst": "",
            f"{base}/extra/nvidia.ko": "",
            "sys/module/nvidia/x": "",
            "sys/module/nvidia_uvm/x": "",
        },
    )
    found = probe.driver.fact_driver(ASK)
    assert (found["loaded"], found["version"], found["dkms_available"]) == (True, "535.154.05", False)
    assert [path.rpartition("/lib/modules/")[2].partition("/")[2] for path in found["module_files"]] == [
        "updates/dkms/nvidia.ko.zst",
        "extra/nvidia.ko",
    ]
    assert found["modules"] == ["nvidia", "nvidia_uvm"]


def test_cuda_toolkits_in_torchs_order(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_HOME", "CUDA_PATH", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    lay(
        root,
        {
            "usr/local/cuda-12.6/include/cuda.h": "/* x */\n#define CUDA_VERSION 12060\n",
            "usr/local/cuda-11.8/version.json": '{"cuda": {"version": "9.9"}, "nvcc": {"version": "11.8.89"}}',
            "usr/local/cuda-10.2/version.txt": "CUDA Version 10.2.89\n",
            "usr/local/cuda-empty/x": "",
        },
    )
    (root / "usr/local/cuda").symlink_to("cuda-12.6")
    lay(tmp_path, {"bin/nvcc": "#!/bin/sh\necho 'Cuda compilation tools, release 11.8, V11.8.89'\n"})
    (tmp_path / "bin/nvcc").chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    found = probe.cuda.fact_cuda(ASK)
    local = f"{root}/usr/local"
    assert (found["home"], found["nvcc"], found["nvcc_version"]) == (f"{local}/cuda", None, None)
    assert found["toolkits"] == [
        {"path": f"{local}/cuda", "version": "12.6"},
        {"path": f"{local}/cuda-10.2", "version": "10.2"},
        {"path": f"{local}/cuda-11.8", "version": "11.8"},
    ]
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    found = probe.cuda.fact_cuda(ASK)
    assert (found["home"], found["nvcc_version"]) == (str(tmp_path), "11.8")  # the folder above nvcc's, as torch says
    monkeypatch.setenv("CUDA_HOME", f"{local}/cuda-11.8")
    found = probe.cuda.fact_cuda(ASK)
    assert (found["home"], found["nvcc"]) == (f"{local}/cuda-11.8", str(tmp_path / "bin/nvcc"))


def test_a_symbolic_link_without_end_is_no_toolkit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(root, {"usr/local/x": ""})
    (root / "usr/local/cuda").symlink_to("cuda")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    assert probe.cuda.fact_cuda(ASK)["home"] is None


def test_shared_memory_that_is_not_there(root: Path) -> None:
    assert json.loads(probe.workers.examined("shm", ASK))["error"] == "there is no /dev/shm"


def test_files_that_set_variables(tmp_path: Path) -> None:
    home = tmp_path / "home"
    lay(
        home,
        {
            "conf": "NCCL_SOCKET_IFNAME=bond0\nNCCL_SECRET_KEY=x\nbroken\n",
            ".deepspeed_env": "NCCL_DEBUG=INFO\nWANDB_API_KEY=x\nhttp_proxy=http://a:b@c\n\n",
        },
    )
    environment = {
        "NCCL_CONF_FILE": str(home / "conf"),
        "HOME": str(home),
        "HF_TOKEN": "x",
        "http_proxy": "http://a:b@c",
    }
    found = value(examine({"sections": ["environment"]}, env=environment), "environment")
    files = {Path(file["path"]).name: file for file in found["files"]}
    assert files["conf"]["variables"] == {"NCCL_SOCKET_IFNAME": "bond0"}
    assert files["conf"]["bad_lines"] == [3]
    assert (files["conf"]["reader"], files["conf"]["secrets"]) == ("nccl", ["NCCL_SECRET_KEY"])
    assert files[".deepspeed_env"]["variables"] == {"NCCL_DEBUG": "INFO", "http_proxy": "http://***@c"}
    assert files[".deepspeed_env"]["bad_lines"] == [4]
    assert (files[".deepspeed_env"]["reader"], files[".deepspeed_env"]["secrets"]) == ("deepspeed", ["WANDB_API_KEY"])
    assert found["variables"]["http_proxy"] == "http://***@c"
    assert "HF_TOKEN" in found["secrets"] and "HF_TOKEN" not in found["variables"]


def test_deepspeeds_file_is_looked_for_at_home_and_where_it_is_started(tmp_path: Path) -> None:
    home, here, code = tmp_path / "home", tmp_path / "here", tmp_path / "code"
    for number, folder in enumerate((home, here, code)):
        lay(folder, {".deepspeed_env": f"NCCL_DEBUG={number}\n"})
    config = {"sections": ["environment"], "places": [["work", str(code)], ["output", str(tmp_path)]]}
    found = value(examine(config, env={"HOME": str(home)}, cwd=here), "environment")
    assert [file["path"] for file in found["files"] if file["reader"] == "deepspeed"] == [
        f"{home}/.deepspeed_env",
        f"{here}/.deepspeed_env",
        f"{code}/.deepspeed_env",
    ]
    found = value(examine({"sections": ["environment"]}, env={"HOME": str(home)}, cwd=home), "environment")
    assert len([file for file in found["files"] if file["reader"] == "deepspeed"]) == 1


def test_bitsandbytes_by_its_files(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "bitsandbytes/__init__.py": "raise SystemExit('imported')",
            "bitsandbytes/libbitsandbytes_cpu.so": "",
            "bitsandbytes/libbitsandbytes_cuda121.so": "",
            "bitsandbytes/cextension.py": "",
            "bitsandbytes-0.43.0.dist-info/METADATA": "Name: bitsandbytes\nVersion: 0.43.0\n",
        },
    )
    found = value(examine({"sections": ["bitsandbytes"]}, env={"PYTHONPATH": str(tmp_path)}), "bitsandbytes")
    assert found == {
        "version": "0.43.0",
        "path": str(tmp_path / "bitsandbytes"),
        "libraries": ["libbitsandbytes_cpu.so", "libbitsandbytes_cuda121.so"],
    }


def test_a_torch_of_another_build_is_read_from_its_files(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "torch/__init__.py": "raise SystemExit('imported')",
            "torch/version.py": "__version__ = '2.10.0+cu128'\ncuda: Optional[str] = '12.8'\n",
            "torch/lib/libtorch_python.so": b"\0sm_70 sm_75 sm_80\0",
            "torch/lib/libc10.so": b"\0_ZN3c105ErrorC2ENS_14SourceLocationESs\0",
            "torch-2.10.0+cu128.dist-info/METADATA": "Name: torch\nVersion: 2.10.0+cu128\n"
            "Requires-Dist: nvidia-nccl-cu12==2.27.5; platform_system == 'Linux'\n\ntext\n",
        },
    )
    found = value(examine({"sections": ["torch"]}, env={"PYTHONPATH": str(tmp_path)}), "torch")
    assert found == {
        "version": "2.10.0+cu128",
        "cuda": "12.8",
        "hip": None,
        "path": str(tmp_path / "torch"),
        "nccl_requirement": "nvidia-nccl-cu12==2.27.5",
        "arch_list": ["sm_70", "sm_75", "sm_80"],
        "cxx11_abi": False,
        "glibc": None,
    }


@pytest.mark.parametrize("files", [{"torch/notes.txt": ""}, {}])
def test_a_folder_called_torch_is_no_torch(tmp_path: Path, files: dict[str, str]) -> None:
    lay(tmp_path, files)
    # Without site-packages, so that this environment's own torch is not seen.
    answer = examine({"sections": ["torch"]}, python=[sys.executable, "-S"], env={"PYTHONPATH": str(tmp_path)})
    assert value(answer, "torch") == {"version": None}


def test_a_name_server_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(name: bytes, *_: Any) -> Any:
        if name == b"slow":
            import time

            time.sleep(300)
        return [(socket.AF_INET, 1, 6, "", ("192.0.2.1", 0)), (socket.AF_INET, 1, 6, "", ("192.0.2.1", 0))]

    monkeypatch.setattr(probe.names.socket, "getaddrinfo", never)
    resolves, errors = probe.names.resolve(["slow", "quick"], 2.0)
    assert resolves == {"slow": [], "quick": ["192.0.2.1"]}
    assert errors == {"slow": "no answer within 2.0 seconds"}


@pytest.mark.parametrize("name", ["x" * 300, "a..b", "\udcff", "-", "a b"])
def test_names_that_are_none(name: str) -> None:
    resolves, errors = probe.names.resolve([name], 5)
    assert resolves == {name: []} and errors[name]


def test_a_listening_port_is_seen() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert listener.getsockname()[1] in value(examine({"sections": ["network"]}), "network")["listening"]


def test_only_the_sections_asked_for() -> None:
    assert list(examine({"sections": ["shm", "os", "no such"]})["sections"]) == ["os", "shm"]
    assert set(examine({"sections": ["no such"]})["sections"]) == set(probe.question.SECTIONS)


def test_more_targets_than_one_would_think() -> None:
    targets = [f"127.0.{number // 250}.{number % 250 + 1}" for number in range(1200)]
    answer = examine({"targets": targets, "sections": ["network"]})
    assert len(value(answer, "network")["routes"]) == 1200
    assert all(route["local"] for route in value(answer, "network")["routes"])
