"""`dsdoctor check` over real hosts: the seeds' conditions each named and nothing else, sick hosts in bounded time."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.cluster.commands import Head
from tests.cluster.little_cluster import LittleCluster
from tests.cluster.plant import plant_duplicate_nccl, plant_environment, plant_loopback_name

CHECK = ("check", "--hostfile", "hostfile")


@pytest.fixture
def head(restored: LittleCluster) -> Head:
    return Head(restored)


def found(report: dict[str, object], *severities: str) -> set[tuple[str, tuple[str, ...]]]:
    """What was found: name and hosts, of these severities (or all)."""
    findings = report["findings"]
    assert isinstance(findings, list)
    return {
        (finding["name"], tuple(finding["hosts"]))
        for finding in findings
        if not severities or finding["severity"] in severities
    }


def test_a_healthy_cluster_has_nothing_wrong(head: Head) -> None:
    report = head.report(*CHECK)
    assert found(report) == set()
    assert report["exit_code"] == 0
    assert [host["reachable"] for host in report["hosts"]] == [True, True]
    assert report["counts"]["crashed"] == 0


def test_the_seeds_conditions_are_each_named_and_nothing_else(head: Head) -> None:
    node1 = head.cluster["node1"]
    plant_environment(node1, {"NCCL_SOCKET_IFNAME": "bond0", "NCCL_IB_DISABL": "1"})
    plant_duplicate_nccl(node1)
    node1.set_nofile(1024)
    report = head.report(*CHECK, "--job", "job/seeds.yaml")
    assert found(report) == {
        ("socket-ifname-missing", ("node1",)),
        ("unknown-env-var", ("node1",)),
        ("duplicate-nccl", ("node1",)),
        ("low-open-files", ("node1",)),
        ("scheduler-overridden", ()),
        ("precision-disagrees", ()),
    }
    assert report["exit_code"] == 1
    for finding in report["findings"]:
        assert finding["fix"], finding["name"]
        assert finding["evidence"], finding["name"]


def test_debians_loopback_line_on_the_master_is_named(head: Head) -> None:
    plant_loopback_name(head.cluster["node0"])
    report = head.report(*CHECK)
    assert ("master-resolves-to-loopback", ("node0",)) in found(report)


def _poweroff(head: Head) -> None:
    head.cluster["node1"].poweroff()
    head.host.forget_neighbours()


def _unknown_key(head: Head) -> None:
    known = head.host.read("/root/.ssh/known_hosts").splitlines()
    head.host.write("/root/.ssh/known_hosts", "\n".join(line for line in known if "node1" not in line) + "\n")


def _no_such_python(head: Head) -> None:
    head.host.write("/root/lab/hostfile", "node0 slots=2\nnode1 slots=1 python=/opt/none/bin/python\n")


def _python_of_its_own(text: str) -> Callable[[Head], None]:
    """A harm: the interpreter of node1 is this shell script."""

    def harm(head: Head) -> None:
        head.cluster["node1"].write("/opt/job/python", f"#!/bin/sh\n{text}\n", mode=0o755)
        head.host.write("/root/lab/hostfile", "node0 slots=2\nnode1 slots=1 python=/opt/job/python\n")

    return harm


def _login(line: str) -> Callable[[Head], None]:
    """A harm: the login shell of node1 runs this line."""
    return lambda head: head.cluster["node1"].write("/root/.bashrc", f"{line}\n")


def _cut(head: Head) -> None:
    head.cluster["node1"].cut()
    head.host.forget_neighbours()


@pytest.mark.parametrize(
    ("harm", "words", "seconds"),
    [
        (_poweroff, ("No route to host", "timed out"), 25),
        (lambda head: head.cluster["node1"].mute(), ("timed out",), 25),
        (lambda head: head.cluster["node1"].freeze(), ("timed out",), 25),
        (lambda head: head.cluster["node1"].sshd_stop(), ("refused",), 10),
        (_unknown_key, ("known_hosts", "Host key verification failed", "host key"), 10),
        (_no_such_python, ("/opt/none/bin/python",), 10),
        (_cut, ("No route to host", "timed out"), 25),
        (_login("sleep 600"), ("no answer within 15 s",), 25),
        (
            _login("exec yes 'You have mail in /var/mail/root, and this line is repeated for ever'"),
            ("it said: You have",),
            25,
        ),
        (_python_of_its_own("head -c 1000 >/dev/null; kill -9 $$"), ("signal 9", "exit code 137"), 10),
        (_python_of_its_own("exec head -c 1000000 /dev/urandom"), ("without an answer",), 10),
        (_python_of_its_own("exec head -c 1G /dev/zero"), ("64 MiB",), 25),
        (_python_of_its_own("echo 'python: error while loading shared libraries' >&2; exit 127"), ("libraries",), 10),
    ],
    ids=[
        *("powered off", "muted", "frozen", "sshd stopped", "unknown key", "no python", "unplugged"),
        *("a login that hangs", "a login that talks for ever", "killed in the middle", "garbage", "a gigabyte"),
        "a broken python",
    ],
)
def test_a_host_out_of_reach_is_one_finding_in_bounded_time(
    head: Head, harm: Callable[[Head], object], words: tuple[str, ...], seconds: float
) -> None:
    harm(head)
    began = time.monotonic()
    report = head.report(*CHECK, "--timeout", "15")
    assert time.monotonic() - began < seconds
    assert report["exit_code"] == 3
    assert found(report, "error") == {("unreachable-host", ("node1",))}
    finding = next(each for each in report["findings"] if each["name"] == "unreachable-host")
    text = str(finding)
    assert any(word in text for word in words), text
    assert finding["fix"]
    assert [host["reachable"] for host in report["hosts"]] == [True, False]


def test_a_full_disk_keeps_no_fact_back(head: Head) -> None:
    head.cluster["node1"].fill_disk()
    report = head.report(*CHECK)
    assert {name for name, hosts in found(report, "error") if hosts == ("node1",)} == {"disk-full"}
    assert [host["reachable"] for host in report["hosts"]] == [True, True]
    assert not [entry for entry in report["skipped"] if "node1" in entry["hosts"]]


def test_a_login_shell_that_prints_is_no_trouble(head: Head) -> None:
    head.cluster["node1"].write("/root/.bashrc", "echo '*** maintenance on Sunday ***'; echo 'motd' >&2\n")
    assert head.report(*CHECK)["exit_code"] == 0


def test_snapshots_judge_the_same_as_the_hosts_themselves(head: Head) -> None:
    plant_environment(head.cluster["node1"], {"NCCL_SOCKET_IFNAME": "bond0"})
    live = head.report(*CHECK, "--save-facts", "facts")
    again = head.report("check", "--facts", "facts")
    assert found(again) == found(live) == {("socket-ifname-missing", ("node1",))}
    hidden = head.dsdoctor("check", "--facts", "facts", "--save-facts", "shared", "--redact")
    assert hidden.returncode == 1, hidden.stderr
    text = head.host.run(["sh", "-c", "cat /root/lab/shared/*"]).stdout
    assert "10.77.0." not in text
    assert "node1" not in text


def test_stand_in_gpus_make_hosts_a100_and_v100(head: Head, fake_nvml: object) -> None:
    head.cluster["node0"].install_fake_gpus("a100")
    head.cluster["node1"].install_fake_gpus("v100")
    plan = head.report("plan", "job/trial.yaml", "--hostfile", "hostfile")
    a100, v100 = (host["env"] for host in plan["hosts"])
    assert a100["TORCH_CUDA_ARCH_LIST"]["value"] == "8.0"
    assert v100["TORCH_CUDA_ARCH_LIST"]["value"] == "7.0"
    assert v100["CUDA_VISIBLE_DEVICES"]["value"] == "0"
    assert "CUDA_VISIBLE_DEVICES" not in a100
    assert a100["NCCL_IB_DISABLE"]["value"] == v100["NCCL_IB_DISABLE"]["value"] == "1"
    assert "NCCL_P2P_DISABLE" not in a100
    head.host.write("/root/lab/hostfile", head.host.read("/root/lab/hostfile").replace("slots=1", "slots=3"))
    report = head.report(*CHECK)
    assert ("slots-exceed-gpus", ("node1",)) in found(report)


def test_4090_cards_without_p2p_get_it_disabled_on_their_host_alone(head: Head, fake_nvml: object) -> None:
    head.cluster["node0"].install_fake_gpus("rtx4090")
    head.cluster["node1"].install_fake_gpus("a100")
    plan = head.report("plan", "job/trial.yaml", "--hostfile", "hostfile")
    first, second = (host["env"] for host in plan["hosts"])
    assert first["NCCL_P2P_DISABLE"]["value"] == "1"
    assert "GPUs 0 and 1" in first["NCCL_P2P_DISABLE"]["because"]
    assert "NCCL_P2P_DISABLE" not in second


def test_a_driver_that_is_not_loaded_comes_with_the_dkms_line(head: Head, fake_nvml: object) -> None:
    head.cluster["node1"].install_fake_gpus("not-loaded")
    report = head.report(*CHECK)
    finding = next(each for each in report["findings"] if each["name"] == "driver-not-loaded")
    assert finding["hosts"] == ["node1"]
    assert any("dkms install -m nvidia -v 535.154.05" in line for fix in finding["fix"] for line in fix["commands"])
