"""The deep trial on this machine: with a stand-in for a torch with GPUs, and its arithmetic with the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dsdoctor.cluster import Cluster, HostEntry, Member, Reach
from dsdoctor.facts import DeepCollective, DeepFacts, FactUnavailable, HostFacts, Section, Snapshot
from dsdoctor.hosts.snapshots import redact
from dsdoctor.hosts.transport.local import LocalTransport
from dsdoctor.jobs.job import DeepSpeedConfig, Job, ResolvedJob, Stage, StageSettings
from dsdoctor.plan.model import LaunchPlan, SyncPlan
from dsdoctor.run import deep, deep_host, deep_trial
from dsdoctor.run.deep_plan import DeepPlan, deep_plan
from dsdoctor.run.deep_step import FIRST, LAST, Printed

STAND_IN = Path(__file__).parent / "stand_in"
MARK = "DSDOCTOR_DEEP_TEST"  # in the environment of all that a test starts


def job(
    tmp_path: Path, wishes: dict[str, Any] | None = None, args: dict[str, Any] | None = None, **env: str
) -> ResolvedJob:
    """A job whose environment holds the stand-in."""
    stand_in = {"PYTHONPATH": str(STAND_IN), "TORCH_STAND_IN": json.dumps(wishes)} if wishes is not None else {}
    return ResolvedJob(
        job=Job(name="job", stages=(Stage(name="train"),), script="train.py"),
        source="job.yaml",
        root=str(tmp_path),
        profile=None,
        stages=(StageSettings(name="train", index=1, args=args or {}),),
        env={**stand_in, MARK: str(tmp_path), **env},
    )


def member(
    name: str = "a", gpus: int = 0, slots: int | None = None, packages: tuple[str, ...] = (), **entry: Any
) -> Member:
    """This machine as a host with so many GPUs."""
    cards = [{"index": index, "name": f"Stand-in {index}"} for index in range(gpus)]
    sections = {
        "gpu": Section(value={"status": "ok" if gpus else "no-library", "gpus": cards}),
        "packages": Section(value={"distributions": [{"name": each, "version": "1.0"} for each in packages]}),
    }
    facts = HostFacts(Snapshot(host=name, sections=sections))
    words = {"local": True, "python": sys.executable, **entry}
    return Member(HostEntry(name, max(1, gpus) if slots is None else slots, **words), Reach(True), facts)


def tried(host: Member, given: ResolvedJob | None, **options: Any) -> DeepFacts:
    cluster = deep.try_deep(Cluster((host,)), {host.name: LocalTransport(host.entry)}, job=given, **options)
    (answered,) = cluster
    assert answered.facts is not None
    return answered.facts.deep


def left(tmp_path: Path) -> list[str]:
    """The processes that a test's trial has left."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={tmp_path}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode()[-200:])
        except OSError:
            continue
    return found


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is waited for long: what takes time in these tests hangs."""
    for name in ("TORCH", "IMPORT", "REDUCE"):
        monkeypatch.setattr(deep_host, name, 4.0)
    for name in ("GPU", "COPY"):
        monkeypatch.setattr(deep_host, name, 2.0)
    monkeypatch.setattr("dsdoctor.run.deep_step.GRACE", 1.0)


def test_two_gpus_that_are_well(tmp_path: Path) -> None:
    seen = tried(member(gpus=2), job(tmp_path, {"gpus": 2}))
    assert seen.torch is not None
    assert (seen.torch.version, seen.torch.nccl, seen.torch.gpus) == ("2.99.0+cu128", "2.99.1", 2)
    assert [(gpu.index, gpu.name, gpu.wrong, gpu.filled_bytes) for gpu in seen.gpus] == [
        (0, "Stand-in 0", 0, 256 << 20),
        (1, "Stand-in 1", 0, 256 << 20),
    ]
    assert seen.gpus[0].products == {"float32": 0, "float16": 0, "bfloat16": 0}
    assert [(copy.source, copy.target, copy.wrong, copy.peer_access) for copy in seen.copies] == [
        (0, 1, 0, True),
        (1, 0, 0, True),
    ]
    part = seen.collective("host")
    assert part is not None
    assert (part.backend, part.world_size, part.error) == ("nccl", 2, None)
    assert [(rank.rank, rank.device, rank.at, len(rank.sums)) for rank in part.ranks] == [
        (0, "Stand-in 0", "done", 3),
        (1, "Stand-in 1", "done", 3),
    ]
    assert seen.collective("job") is None, "one host has nobody to meet"
    assert [(step.name, step.error) for step in seen.steps] == [
        (name, None) for name in ("torch", "gpus", "copies", "host all-reduce")
    ]
    assert left(tmp_path) == []


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("harm", "error"),
    [
        ("crash", "ended by SIGSEGV"),
        pytest.param("hang", "did not go on for 2 s", marks=pytest.mark.slow),
        ("CUDA error: an illegal memory access", "RuntimeError: CUDA error: an illegal memory access"),
    ],
)
def test_one_bad_gpu_does_not_hide_the_others(tmp_path: Path, harm: str, error: str) -> None:
    seen = tried(member(gpus=4), job(tmp_path, {"gpus": 4, "gpu": {"1": harm, "2": "wrong"}, "join": "no"}))
    assert [(gpu.index, gpu.error) for gpu in seen.gpus] == [(0, None), (1, error), (2, None), (3, None)]
    assert [gpu.wrong for gpu in seen.gpus] == [0, None, 24, 0]
    assert left(tmp_path) == []


@pytest.mark.usefixtures("short")
def test_one_bad_pair_does_not_hide_the_others(tmp_path: Path) -> None:
    harms = {"0-1": "wrong", "2-0": "crash", "1-2": "hang"}
    seen = tried(member(gpus=3), job(tmp_path, {"gpus": 3, "copy": harms}))
    assert [(copy.source, copy.target, copy.wrong, copy.error) for copy in seen.copies] == [
        (0, 1, 7, None),
        (1, 0, 0, None),
        (0, 2, None, "ended by SIGSEGV"),
        (1, 2, None, "did not go on for 2 s"),
    ]
    assert seen.copies[0].zeros == 7


def test_numbers_of_gpus_are_those_of_nvidia_smi(tmp_path: Path) -> None:
    seen = tried(member(gpus=8, devices=(3, 5)), job(tmp_path, {"gpus": 2}))
    assert [gpu.index for gpu in seen.gpus] == [3, 5]
    assert {(copy.source, copy.target) for copy in seen.copies} == {(3, 5), (5, 3)}
    by_job = tried(member(gpus=8, devices=(3, 5)), job(tmp_path, {"gpus": 2}, CUDA_VISIBLE_DEVICES="7,2"))
    assert [gpu.index for gpu in by_job.gpus] == [7, 2]


def test_a_torch_that_sees_no_gpu(tmp_path: Path) -> None:
    seen = tried(member(gpus=2), job(tmp_path, {"gpus": 0}))
    assert seen.torch is not None
    assert seen.torch.gpus == 0
    assert (
        seen.torch.gpu_error
        == "RuntimeError: CUDA unknown error - this may be due to an incorrectly set up environment"
    )
    assert seen.gpus == ()
    part = seen.collective("host")
    assert part is not None
    assert part.not_tried == "its torch sees no GPU"


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("harm", "error"),
    [
        ("crash", "ended by SIGSEGV"),
        ("hang", "did not end within 4 s"),
        ("libtorch.so: file too short", "RuntimeError: libtorch.so: file too short"),
    ],
)
def test_a_torch_that_cannot_be_imported(tmp_path: Path, harm: str, error: str) -> None:
    began = time.monotonic()
    seen = tried(member(), job(tmp_path, {"import": harm}))
    assert time.monotonic() - began < 15
    assert seen.torch is not None
    assert (seen.torch.version, seen.torch.error) == (None, error)
    assert [step.name for step in seen.steps] == ["torch"], "nothing else can be tried"
    assert seen.lost is None
    assert left(tmp_path) == []


@pytest.mark.usefixtures("short")
def test_a_driver_that_does_not_answer(tmp_path: Path) -> None:
    seen = tried(member(gpus=1), job(tmp_path, {"gpus": 1, "start": "hang"}))
    assert seen.torch is not None
    assert seen.torch.version == "2.99.0+cu128"
    assert seen.torch.gpu_error == "did not end within 4 s"
    assert left(tmp_path) == []


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("harm", ["hang", "crash", "nobody is there"])
def test_ranks_that_do_not_join(tmp_path: Path, harm: str) -> None:
    seen = tried(member(slots=2), job(tmp_path, {"join": harm}))
    part = seen.collective("host")
    assert part is not None
    assert part.error == (
        "did not end within 4 s" if harm == "hang" else f"ended with exit code {11 if harm == 'crash' else 1}"
    )
    assert [rank.at for rank in part.ranks] == ["imported", "imported"]
    said = "\n".join(line for each in part.output for line in each.lines)
    assert ("nobody is there" in said) is (harm == "nobody is there")
    assert left(tmp_path) == []


def test_packages_with_compiled_parts(tmp_path: Path) -> None:
    host = member(packages=("flash-attn", "bitsandbytes", "deepspeed"))
    seen = tried(host, job(tmp_path, {}, args={"attn_implementation": "flash_attention_2", "load_in_8bit": True}))
    bad, good = seen.imports
    assert (bad.package, bad.version, good.package, good.version, good.error) == (
        *("flash-attn", None, "bitsandbytes"),
        *("0.50.1", None),
    )
    assert bad.wanted_by == "attn_implementation: flash_attention_2 (stage train)"
    assert bad.error is not None
    assert bad.error.startswith("ImportError: flash_attn_2_cuda")
    assert bad.output[-1] == bad.error


def test_a_host_that_can_start_nothing(tmp_path: Path) -> None:
    seen = tried(member(python="/no/such/python"), job(tmp_path, {}))
    assert seen.torch is None
    assert "No such file" in str(seen.lost)


def test_an_interruption_ends_everything_first(tmp_path: Path) -> None:
    def progress(text: str) -> None:
        if "torch" in text and left(tmp_path):
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        tried(member(), job(tmp_path, {"import": "hang"}), progress=progress)
    assert left(tmp_path) == []
    assert time.monotonic() - began < 15


def test_what_was_not_come_to_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deep_host, "HOST", 0.5)
    section = None
    host = member(gpus=2)
    (answered,) = deep.try_deep(Cluster((host,)), {"a": LocalTransport(host.entry)}, job=job(tmp_path, {"gpus": 2}))
    assert answered.facts is not None
    section = answered.facts.deep
    assert section == DeepFacts()


def test_a_host_without_a_connection_or_without_ranks_has_no_trial(tmp_path: Path) -> None:
    (cut_off,) = deep.try_deep(Cluster((member(),)), {}, job=job(tmp_path, {}))
    assert cut_off.facts is not None
    with pytest.raises(FactUnavailable, match="no connection"):
        _ = cut_off.facts.deep
    idle = member(slots=0)
    (same,) = deep.try_deep(Cluster((idle,)), {"a": LocalTransport(idle.entry)}, job=job(tmp_path, {}))
    assert same is idle


def together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, a: dict[str, Any], b: dict[str, Any]
) -> dict[str, DeepFacts]:
    """Two hosts, both of them this machine, with the wishes of each."""
    trials = {
        name: deep_plan(Cluster((member(name, slots=2),)), job(tmp_path, wishes), {name}).hosts[name]
        for name, wishes in (("a", a), ("b", b))
    }
    hosts = tuple(
        msgspec.structs.replace(trial.plan, node_rank=rank, first_rank=2 * rank)
        for rank, trial in enumerate(trials.values())
    )
    plan = LaunchPlan("job", "deep", None, "127.0.0.1", 29500, 4, hosts, (), SyncPlan("/", ()))
    monkeypatch.setattr(deep, "deep_plan", lambda *_: DeepPlan(trials, {}, plan))
    members = (member("a", slots=2), member("b", slots=2))
    answered = deep.try_deep(Cluster(members), {each.name: LocalTransport(each.entry) for each in members})
    return {each.name: each.facts.deep for each in answered if each.facts is not None}


def of_the_job(seen: dict[str, DeepFacts], name: str) -> DeepCollective:
    part = seen[name].collective("job")
    assert part is not None
    return part


def test_all_ranks_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = together(tmp_path, monkeypatch, {}, {})
    for name, ranks in (("a", [0, 1]), ("b", [2, 3])):
        part = of_the_job(seen, name)
        assert (part.world_size, part.hosts, part.error, part.output) == (4, ("a", "b"), None, ())
        assert [(rank.rank, rank.at) for rank in part.ranks] == [(number, "done") for number in ranks]


def test_a_port_that_was_taken_meanwhile_is_not_the_hosts_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = together(tmp_path, monkeypatch, {"taken": ["29500"]}, {"taken": ["29500"]})
    assert [of_the_job(seen, name).error for name in ("a", "b")] == [None, None]
    assert [step.name for step in seen["a"].steps].count("job all-reduce") == 2


def test_the_first_failure_ends_it_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    seen = together(tmp_path, monkeypatch, {"join together": "hang"}, {"join together": "no such interface"})
    assert time.monotonic() - began < 30
    ends = {name: (of_the_job(seen, name).error, of_the_job(seen, name).first) for name in ("a", "b")}
    assert ends == {
        "a": ("ended because another host had failed", False),
        "b": ("ended with exit code 1", True),
    }
    assert any("no such interface" in line for each in of_the_job(seen, "b").output for line in each.lines)
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("wishes", "why"),
    [
        ({"import": "libtorch.so: file too short"}, "b cannot import torch"),
        ({"join": "no such interface"}, "b fails at an all-reduce of its own ranks"),
    ],
)
def test_with_a_host_that_fails_alone_the_others_do_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wishes: dict[str, Any], why: str
) -> None:
    seen = together(tmp_path, monkeypatch, {}, wishes)
    assert {of_the_job(seen, name).not_tried for name in ("a", "b")} == {why}


def test_what_the_ranks_printed_is_redacted() -> None:
    printed = {"rank": 0, "lines": ["connect to gpu-07.lab.example (203.0.113.9) failed: /home/alice/venv/x.py"]}
    part = {"scope": "job", "hosts": ["gpu-07"], "address": "203.0.113.9", "output": [printed]}
    value = {"collectives": [{**part, "ranks": [{"rank": 0, "host": "gpu-07", "interface": "bond0"}]}]}
    sections = {"os": Section(value={"hostname": "gpu-07.lab.example", "user": "alice"}), "deep": Section(value=value)}
    (kept,) = redact({"gpu-07": HostFacts(Snapshot(host="gpu-07", sections=sections))}).values()
    text = str(kept.snapshot.sections["deep"].value)
    assert not any(word in text for word in ("gpu-07", "alice", "203.0.113.9"))
    assert "bond0" in text


class TestPlan:
    def test_each_host_alone_where_they_cannot_be_planned_together(self, tmp_path: Path) -> None:
        hosts = (member("a", local=False), member("b", local=False))
        made = deep_plan(Cluster(hosts), job(tmp_path, {}), {"a", "b"})
        assert made.joint is None
        assert "network is not known" in made.alone
        assert set(made.hosts) == {"a", "b"}
        assert made.hosts["b"].env["GLOO_SOCKET_IFNAME"] == "lo"

    def test_one_host_left(self, tmp_path: Path) -> None:
        gone = Member(HostEntry("b", 1), Reach(False, "timeout"))
        made = deep_plan(Cluster((member("a", local=False), gone)), job(tmp_path, {}), {"a"})
        assert made.alone == "only one of the hosts could be examined"

    def test_the_job_s_own_variables_count(self, tmp_path: Path) -> None:
        token = "-".join(("hf", "for", "the", "ranks"))
        given = replace(job(tmp_path, {}, HF_TOKEN=token, GLOO_SOCKET_IFNAME="eth7"))
        given = replace(given, stages=(StageSettings(name="train", index=1, env={"NCCL_ALGO": "Ring"}),))
        made = deep_plan(Cluster((member(),)), given, {"a"})
        env = made.hosts["a"].env
        assert (env["HF_TOKEN"], env["GLOO_SOCKET_IFNAME"], env["NCCL_ALGO"]) == (token, "eth7", "Ring")

    def test_the_host_s_session_is_treated_as_a_launch_would_treat_it(self, tmp_path: Path) -> None:
        known = member()
        assert known.facts is not None
        variables = {"HOME": "/root", "RANK": "3", "NCCL_DEBUG": "INFO"}
        known.facts.snapshot.sections["environment"] = Section(value={"variables": variables, "secrets": ["HF_TOKEN"]})
        env = deep_plan(Cluster((known,)), job(tmp_path, {}), {"a"}).hosts["a"].env
        assert env["RANK"] is None, "taken away"
        assert not {"NCCL_DEBUG", "HF_TOKEN"} & set(env), "there already: nothing is put over it"

    def test_without_a_job_all_installed_packages_are_tried(self) -> None:
        made = deep_plan(Cluster((member(packages=("deepspeed", "xformers", "peft")),)), None, {"a"})
        assert made.hosts["a"].packages == {"deepspeed": None, "xformers": None}

    def test_with_a_job_those_that_it_asks_for(self, tmp_path: Path) -> None:
        given = replace(job(tmp_path, {}), deepspeed=DeepSpeedConfig("ds.json", {}))
        made = deep_plan(Cluster((member(packages=("deepspeed", "xformers", "bitsandbytes")),)), given, {"a"})
        assert made.hosts["a"].packages == {"deepspeed": "deepspeed: ds.json"}


def test_of_much_output_the_ends_are_kept() -> None:
    printed = Printed()
    for number in range(1000):
        printed.add(1, f"line {number}")
    printed.add(None, "  ")
    lines = printed.all()[1]
    assert len(lines) == FIRST + LAST
    assert (lines[0], lines[-1]) == ("line 0", "line 999")
    assert list(printed.all()) == [1]


# --- the arithmetic, with the real torch


class OnProcessor:
    """torch with its GPUs on the processor, so that what the trial reckons can be looked at without one."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.spoil: Any = None
        none = lambda *_: None  # noqa: E731
        self.cuda = type(
            "cuda",
            (),
            {
                **{name: staticmethod(none) for name in ("set_device", "synchronize")},
                "get_device_name": staticmethod(lambda index: "card"),
                "get_device_capability": staticmethod(lambda index: (8, 0)),
                "mem_get_info": staticmethod(lambda index: (1 << 22, 1 << 23)),
                "can_device_access_peer": staticmethod(lambda one, other: False),
            },
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self.torch, name)

    def arange(self, *arguments: Any, device: str = "cpu", **options: Any) -> Any:
        made = self.torch.arange(*arguments, **options)
        if self.spoil is not None and len(arguments) == 1:
            self.spoil(made)
        return made

    def zeros(self, *arguments: Any, device: str = "cpu", **options: Any) -> Any:
        return self.torch.zeros(*arguments, **options)


@pytest.fixture
def on_processor(monkeypatch: pytest.MonkeyPatch) -> OnProcessor:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(deep_trial, "COPIED", 1 << 20)
    real = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *to: self if isinstance(to[0], str) and "cuda" in to[0] else real(self, *to)
    )
    return OnProcessor(torch)


@pytest.mark.train
class TestArithmetic:
    def test_memory_and_products_are_right_in_every_precision(self, on_processor: OnProcessor) -> None:
        seen: dict[str, Any] = {}
        for _ in deep_trial.gpu_works(on_processor, 0, seen):
            pass
        assert (seen["filled_bytes"], seen["wrong"]) == (1 << 20, 0)
        assert seen["products"] == {"float32": 0, "float16": 0, "bfloat16": 0}

    def test_memory_that_forgets_is_counted(self, on_processor: OnProcessor) -> None:
        def spoil(made: Any) -> None:
            made[[5, 70_000, 131_071]] ^= 1 << 40

        on_processor.spoil = spoil
        seen: dict[str, Any] = {}
        works = deep_trial.gpu_works(on_processor, 0, seen)
        next(works)
        next(works)
        on_processor.spoil = None
        next(works)
        assert seen["wrong"] == 3

    def test_a_product_that_is_wrong_is_counted(
        self, on_processor: OnProcessor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torch = on_processor.torch
        real = torch.Tensor.float
        calls = []

        def spoilt(self: Any) -> Any:
            calls.append(self)
            made = real(self)
            if len(calls) == 3:  # the product, after the two factors
                made = made.clone()
                made[7, 9] += 1
            return made

        monkeypatch.setattr(torch.Tensor, "float", spoilt)
        assert deep_trial.wrong_products(on_processor, "cuda:0", torch.bfloat16) == 1

    def test_copies_are_compared_number_by_number(
        self, on_processor: OnProcessor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        good = deep_trial.copied(on_processor, 0, 1)
        assert (good["source"], good["target"], good["wrong"], good["numbers"]) == (0, 1, 0, 1 << 17)
        assert good["gigabytes_per_second"] > 0
        monkeypatch.setattr(on_processor.torch.Tensor, "copy_", lambda self, *_, **__: self)
        bad = deep_trial.copied(on_processor, 1, 0)
        assert (bad["wrong"], bad["zeros"], bad["first_wrong"]) == (1 << 17, 1 << 17, 0)

    def test_sums_of_one_rank(self, tmp_path: Path) -> None:
        torch = pytest.importorskip("torch")
        dist = torch.distributed
        dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
        try:
            seen = deep_trial.add_up(torch, dist, "cpu", 1 << 10)
            assert (seen["bytes"], seen["wrong"]) == (1 << 10, 0)
            slow = [{"bytes": 1 << 10, "seconds": 1.0}]
            assert deep_trial.too_long(torch, dist, "cpu", slow, 1 << 20, 20.0)
            assert not deep_trial.too_long(torch, dist, "cpu", slow, 1 << 11, 20.0)
            assert not deep_trial.too_long(torch, dist, "cpu", [], 1 << 30, 20.0)
        finally:
            dist.destroy_process_group()


@pytest.mark.train
@pytest.mark.slow
def test_ranks_of_this_machine_with_the_real_torch(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    seen = tried(member(slots=2), job(tmp_path))
    part = seen.collective("host")
    assert part is not None
    assert (part.backend, part.error) == ("gloo", None)
    assert [(rank.at, [each.wrong for each in rank.sums]) for rank in part.ranks] == [("done", [0, 0, 0])] * 2
    assert [rank.interface for rank in part.ranks] == ["lo", "lo"]
    assert left(tmp_path) == []


def test_what_is_sent_can_be_read_by_old_interpreters() -> None:
    import ast

    source = Path(deep_trial.__file__).read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 8))
    assert len(source) < 100_000, "it is one argument of a command"


def test_the_program_needs_no_torch_to_be_read() -> None:
    code = "import sys, dsdoctor.run.deep_trial; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ}).returncode == 0
