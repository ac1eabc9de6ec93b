"""Host and rank from the names of logs, as launchers, schedulers, collectors and people call them."""

import pytest

from dsdoctor.logs.diagnose import diagnose
from dsdoctor.logs.places import place_of, superseded
from tests.logs.test_cases import RULES

UID = "0b6c8b2e-7e0c-4f5e-9a53-0123456789ab"
ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("path", "host", "rank"),
    [
        # dsdoctor, torchrun, DeepSpeed, mpirun, Azure ML, torch.distributed.launch of old
        ("runs/7/logs/train/mybox/rank13.log", "mybox", 13),
        ("s/none_x/attempt_1/2/error.json", None, 2),
        ("node1/none_x/attempt_1/2/stdout.log", "node1", 2),
        ("20261122024302_rank1.log", None, 1),
        ("files/1/rank.0/stderr", None, 0),
        ("user_logs/std_log_process_03.txt", None, 3),
        ("node_0_local_rank_1_stdout", "node_0", 1),
        ("rank0/stdout.log", None, 0),
        # Slurm: %j, %A_%a, %j-%N, %j-%N-%t
        ("slurm-123.out", None, None),
        ("slurm-123_4.out", None, None),
        ("slurm-123_4294967294.out", None, None),
        ("job-5-node2.out", "node2", None),
        ("step-6-node1-3.log", "node1", 3),
        ("step-6-nid001234-12.log", "nid001234", 12),
        # Kubernetes
        (f"/var/log/pods/ml_llm-worker-3_{UID}/pytorch/0.log", "llm-worker-3", None),
        (f"/var/log/pods/ml_llm-worker-3_{UID}/pytorch/0.log.20261122-101112.gz", "llm-worker-3", None),
        (f"/var/log/containers/llm-abc-xyz12_ml_pytorch-{ID}.log", "llm-abc-xyz12", None),
        ("llm-pytorchjob-master-0.log", "llm-pytorchjob-master-0", None),
        # people
        ("node1.log", "node1", None),
        ("gpu-a17.log", "gpu-a17", None),
        ("v100-11.out", "v100-11", None),
        ("worker-3.log.gz", "worker-3", None),
        ("compute-0-12.err", "compute-0-12", None),
        ("dgx02.lan.log", "dgx02.lan", None),
        ("ip-10-0-0-7.ec2.internal.log", "ip-10-0-0-7.ec2.internal", None),
        ("10.0.0.5.log", "10.0.0.5", None),
        ("log_192.0.2.7_29500.txt", "192.0.2.7", None),
        ("192.0.2.4/train.log", "192.0.2.4", None),
        ("node2.tar.gz/var/log/train.log", "node2", None),
        ("C:\\logs\\node2\\rank3.log", "node2", 3),
        # names that say nothing of a host
        ("logs/rank0.log", None, 0),
        ("download.tar.gz/rank0.log", None, 0),
        ("2026-11-22/rank3.log", None, 3),
        ("/mnt/server1/home/alice/project/train.log", None, None),
        ("train1.log", None, None),
        ("train_a100_7b.log", None, None),
        ("train_8gpu.log", None, None),
        ("exp_gpu4_bs16.log", None, None),
        ("node_rank_1.log", None, 1),
        (f"session_latest/logs/worker-{ID[:56]}-01000000-1234.err", None, None),
        ("worker_2026-01-02.log", None, None),
        ("v1.0.2.3.log", None, None),
        ("crankshaft.log", None, None),
        ("stdin", None, None),
        ("", None, None),
    ],
)
def test_what_a_name_tells(path: str, host: str | None, rank: int | None) -> None:
    assert place_of(path) == (host, rank)


def test_the_name_of_a_file_reaches_the_verdict_where_its_lines_say_nothing() -> None:
    sources = [("logs/node4.log", [b"step 1\n"]), ("logs/node7.log", [b"RuntimeError: CUDA out of memory.\n"])]
    verdict = diagnose(sources, RULES).verdict
    assert verdict is not None and (verdict.host, verdict.source) == ("node7", "logs/node7.log")


def test_attempts_that_were_followed_by_another_are_superseded() -> None:
    names = [
        "a/x_1/attempt_0/0/stderr.log",
        "a/x_1/attempt_2/0/stderr.log",
        "a/y_2/attempt_0/0/stderr.log",
        "train.log",
    ]
    assert superseded(names) == {names[0]}


def test_a_restarted_job_that_went_well_has_no_failure() -> None:
    failed, well = b"[rank0]: RuntimeError: CUDA out of memory.\n", b"{'loss': 1.0}\n{'train_runtime': 3.2}\n"
    report = diagnose([("x/attempt_0/0/stderr.log", [failed]), ("x/attempt_1/0/stdout.log", [well])], RULES)
    assert report.verdict is not None and report.verdict.cause == "none"
    assert any("Earlier attempts failed of cuda-oom" in note for note in report.notes)
