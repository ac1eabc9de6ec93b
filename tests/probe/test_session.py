"""What the probe learns of the session around it: its login shell, systemd-logind, limits of cgroups, builds' locks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dsdoctor.hosts import probe
from tests.probe.conftest import examine, lay, value

ASK = probe.question.Ask({})


@pytest.mark.parametrize(
    ("files", "remove", "kill"),
    [
        ({}, True, None),
        ({"etc/systemd/logind.conf": "[Login]\n#RemoveIPC=no\n#KillUserProcesses=no\n"}, False, False),
        ({"etc/systemd/logind.conf": "[Login]\n#RemoveIPC=yes\nRemoveIPC=no\n"}, False, None),
        ({"usr/lib/systemd/logind.conf": "[Login]\n#RemoveIPC=no\n", "etc/systemd/x": ""}, False, None),
        (
            {
                "etc/systemd/logind.conf": "[Login]\nRemoveIPC = no\n",
                "usr/lib/systemd/logind.conf.d/20-x.conf": "[Login]\nRemoveIPC=True\n",
                "etc/systemd/logind.conf.d/10-x.conf": "[Login]\nRemoveIPC=no\nKillUserProcesses=yes\n",
            },
            True,
            True,
        ),
        (
            {
                "etc/systemd/logind.conf.d/20-x.conf": "",
                "usr/lib/systemd/logind.conf.d/20-x.conf": "[Login]\nRemoveIPC=no\n",
            },
            True,
            None,
        ),
        ({"etc/systemd/logind.conf": "[Login]\nRemoveIPC\n=\n\xff#KillUserProcesses no"}, True, None),
    ],
)
def test_settings_of_logind(root: Path, files: dict[str, str], remove: bool, kill: bool | None) -> None:
    lay(root, files)
    found = probe.session.fact_session(ASK)
    assert (found["remove_ipc"], found["kill_user_processes"]) == (remove, kill)
    assert found["logind"] is False


@pytest.mark.parametrize(
    ("cgroup", "session"),
    [
        ("0::/user.slice/user-1000.slice/session-42.scope\n", "42"),
        ("5:pids:/x\n1:name=systemd:/user.slice/user-1000.slice/session-c2.scope\n", "c2"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice\n", "user@1000"),
        ("0::/system.slice/slurmstepd.scope/job_7/step_0\n", None),
        ("", None),
    ],
)
def test_the_session_that_logind_knows(root: Path, cgroup: str, session: str | None) -> None:
    lay(root, {"proc/self/cgroup": cgroup, "run/systemd/sessions/42": ""})
    lay(root, {"var/lib/systemd/linger/" + probe.accounts.user_name(os.getuid()): ""})
    found = probe.session.fact_session(ASK)
    assert (found["login_session"], found["logind"], found["lingers"]) == (session, True, True)


def ancestors(root: Path, starts: list[int], top: str) -> None:
    """A chain of processes above this one: the last is the login shell, which `top` started."""
    pids = [os.getpid(), *range(50_000, 50_000 + len(starts) - 1), 40_000]
    for pid, parent, start in zip(pids, pids[1:], starts, strict=False):
        fields = ["S", str(parent), *["0"] * 9, "11", "3", "9", "2", *["0"] * 4, str(start), "0"]
        lay(root, {f"proc/{pid}/stat": f"{pid} (a) b) {' '.join(fields)}", f"proc/{pid}/comm": "python3\n"})
    lay(root, {"proc/40000/comm": top + "\n", "proc/40000/stat": "40000 (x) S 1 " + "0 " * 20})


def test_what_the_login_shell_took(root: Path) -> None:
    tick = os.sysconf("SC_CLK_TCK")
    ancestors(root, [2000, 1000, 10 * tick], "sshd-session")
    computed = 25 / tick
    assert probe.session.shell_seconds("10.34") == (0.34, computed)
    assert probe.session.shell_seconds("9.00") == (None, computed), "a container's uptime"
    assert probe.session.shell_seconds("") == (None, None)
    assert probe.session.shell_seconds("soon") == (None, None)


def test_a_login_shell_that_the_probe_has_replaced(root: Path) -> None:
    ancestors(root, [1000], "sshd")
    took, computed = probe.session.shell_seconds("11")
    assert took is not None
    assert computed is None, "what the probe itself computed is in it"


@pytest.mark.parametrize("top", ["systemd", "bash"])
def test_a_shell_that_no_sshd_started(root: Path, top: str) -> None:
    ancestors(root, [100], top)
    assert probe.session.shell_seconds("10") == (None, None)


def test_hidden_processes(root: Path) -> None:
    assert probe.session.shell_seconds("10") == (None, None)


@pytest.mark.parametrize(
    ("files", "limit", "used"),
    [
        ({}, None, None),
        ({"sys/fs/cgroup/pids.max": "100\n", "sys/fs/cgroup/pids.current": "7\n"}, 100, 7),
        (
            {
                "sys/fs/cgroup/a/pids.max": "max\n",
                "sys/fs/cgroup/a/pids.current": "3\n",
                "sys/fs/cgroup/pids.max": "4096\n",
                "sys/fs/cgroup/pids.current": "99\n",
            },
            4096,
            99,
        ),
    ],
)
def test_a_limit_on_processes(root: Path, files: dict[str, str], limit: int | None, used: int | None) -> None:
    lay(root, {"proc/self/cgroup": "0::/a\n", **files})
    found = probe.limits.fact_limits(ASK)
    assert (found["cgroup_pids"], found["cgroup_pids_used"]) == (limit, used)


@pytest.mark.parametrize(("status", "bits"), [("CapEff:\t00000000a80425fb\n", 0xA80425FB), ("x\n", None), ("", None)])
def test_capabilities(root: Path, status: str, bits: int | None) -> None:
    lay(root, {"proc/self/status": status})
    assert probe.system.fact_container(ASK)["capabilities"] == bits


def test_devices_that_programs_open(root: Path) -> None:
    lay(root, {"dev/infiniband/uverbs0": "", "dev/infiniband/rdma_cm": ""})
    assert probe.infiniband.fact_infiniband(ASK)["verbs"] == ["uverbs0"]


def extensions(env: dict[str, str], **config: Any) -> dict[str, Any]:
    found: dict[str, Any] = value(examine({"sections": ["extensions"], **config}, env=env), "extensions")
    return found


def test_a_lock_that_a_killed_build_left(tmp_path: Path) -> None:
    lay(tmp_path, {"cpu_adam/lock": "", "cpu_adam/build.ninja": "cflags = -O3 -march=native\n"})
    lay(tmp_path, {"fused_adam/fused_adam.so": "", "fused_adam/build.ninja": "cflags = -O3\n", "notes/x": ""})
    os.utime(tmp_path / "cpu_adam/lock", (0, time.time() - 7200))
    found = extensions({"TORCH_EXTENSIONS_DIR": str(tmp_path)})
    assert (found["folder"], found["environment"], found["lock_kind"]) == (str(tmp_path), None, "file")
    adam, fused = found["builds"]
    assert (adam["name"], adam["built"], adam["native"], adam["lock_holders"]) == ("cpu_adam", False, True, [])
    assert 7199 < adam["lock_age_seconds"] < 7300
    assert (fused["name"], fused["built"], fused["native"]) == ("fused_adam", True, False)
    assert fused.get("lock_age_seconds") is None


def test_a_build_under_way_holds_its_lock(tmp_path: Path) -> None:
    """FileBaton, as torch has it, in a process of its own."""
    lay(tmp_path, {"py311_cpu/cpu_adam/x": ""})
    lock = tmp_path / "py311_cpu/cpu_adam/lock"
    code = (
        "import sys, importlib.util as u\n"
        "spec = u.find_spec('torch'); import os\n"
        "path = os.path.join(os.path.dirname(spec.origin), 'utils', 'file_baton.py')\n"
        "s = u.spec_from_file_location('file_baton', path); m = u.module_from_spec(s); s.loader.exec_module(m)\n"
        "baton = m.FileBaton(sys.argv[1]); assert baton.try_acquire(); print('held', flush=True); sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", code, str(lock)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as build:
        try:
            assert build.stdout is not None and build.stdout.readline() == b"held\n"
            (found,) = extensions({"TORCH_EXTENSIONS_DIR": "", "XDG_CACHE_HOME": "/"}, variables={
                "TORCH_EXTENSIONS_DIR": str(tmp_path)
            })["builds"]  # fmt: skip
            assert (found["name"], found["lock_holders"]) == ("py311_cpu/cpu_adam", [build.pid])
        finally:
            build.kill()
    (left,) = extensions({"TORCH_EXTENSIONS_DIR": str(tmp_path)})["builds"]
    assert left["lock_holders"] == [] and left["lock_age_seconds"] is not None


def test_the_folder_of_this_python_and_torch(tmp_path: Path) -> None:
    found = extensions({"TORCH_EXTENSIONS_DIR": "", "XDG_CACHE_HOME": str(tmp_path)})
    version = f"py{sys.version_info[0]}{sys.version_info[1]}"
    assert found["folder"] == str(tmp_path / "torch_extensions") and not found["exists"]
    assert found["environment"].startswith(f"{version}_") and found["builds"] == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("    baton = FileBaton(os.path.join(build_directory, 'lock'))\n", "file"),
        ("    with FileLock(os.path.join(build_directory, 'lock')):\n", "flock"),
        ("", None),
    ],
)
def test_how_a_torch_guards_a_build(tmp_path: Path, text: str, kind: str | None) -> None:
    lay(tmp_path, {"utils/cpp_extension.py": text})
    assert probe.extensions.lock_kind(str(tmp_path)) == kind


def test_the_glibc_that_a_library_needs(tmp_path: Path) -> None:
    """Against readelf's reading, where it is there: of this interpreter, and of a damaged copy."""
    real = os.path.realpath(sys.executable)
    newest = probe.torch_build.newest_glibc([real])
    assert newest is None or newest.startswith("2.")
    (tmp_path / "cut.so").write_bytes(Path(real).read_bytes()[:1000])
    (tmp_path / "none.so").write_bytes(b"")
    assert probe.torch_build.newest_glibc([str(tmp_path / "cut.so"), str(tmp_path / "none.so"), "/none"]) is None
    try:
        text = subprocess.run(["readelf", "-V", real], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs readelf")
    needed = {word for word in text.split() if word.startswith("GLIBC_2.")}
    assert newest is None or f"GLIBC_{newest}" in needed


def test_a_mount_that_hangs_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe.disk, "PATH_SECONDS", 0.3)
    monkeypatch.setattr(probe.disk, "MOUNT_SECONDS", 0.6)
    monkeypatch.setattr(probe.disk, "measured", lambda path, table: time.sleep(300))
    begun = time.monotonic()
    rows = probe.disk.fact_disk(probe.question.Ask({"paths": [f"/x{number}" for number in range(20)]}))["paths"]
    assert time.monotonic() - begun < 60
    assert all("hangs" in row["error"] for row in rows)


def test_a_mount_that_wakes_up_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe.disk, "PATH_SECONDS", 1.0)
    real, asked = probe.disk.measured, []

    def slow(path: str, table: Any) -> dict[str, Any]:
        asked.append(path)
        if len(asked) == 1:
            time.sleep(2.0)
        return real(path, table)

    monkeypatch.setattr(probe.disk, "measured", slow)
    rows = probe.disk.fact_disk(probe.question.Ask({"paths": ["/", "/usr"]}))["paths"]
    assert [row.get("error") for row in rows] == [None] * len(rows)
    assert sorted(asked) == sorted({row["path"] for row in rows})


def test_places_have_their_roles(tmp_path: Path) -> None:
    variables = {"HF_HOME": str(tmp_path), "TRITON_CACHE_DIR": str(tmp_path / "t"), "TMPDIR": ""}
    config = {"places": [["output", str(tmp_path / "out")]], "paths": ["/"], "variables": variables}
    rows = {row["path"]: row for row in value(examine(config), "disk")["paths"]}
    assert rows[str(tmp_path)]["roles"] == ["hub cache"]
    assert rows[str(tmp_path / "t")]["roles"] == ["Triton cache"]
    assert rows[str(tmp_path / "out")]["roles"] == ["output"]
    assert rows["/"]["roles"] == [] and rows["/tmp"]["roles"] == ["temporary files"]
