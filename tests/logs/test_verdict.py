"""Causes, symptoms and order: one cause among many ranks, hosts, files and attempts."""

import pytest

from dsdoctor.logs.diagnose import diagnose
from dsdoctor.logs.places import place_of
from dsdoctor.logs.rules import RuleSet, load_rules
from dsdoctor.report.model import Finding, Report, Severity, Verdict

RULES: RuleSet = load_rules()

# Lines as they are printed: longer than ours may be.
# ruff: noqa: E501
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 3 has a total capacity of 79.15 GiB of which 1.19 GiB is free."
TIMEOUT = "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=77, OpType=ALLREDUCE, NumelIn=1, NumelOut=1, Timeout(ms)=600000) ran for 600041 milliseconds before timing out."
RESET = "RuntimeError: [{rank}] is setting up NCCL communicator and retrieving ncclUniqueId from [0] via c10d key-value store by key '0', but store->get('0') got error: Connection reset by peer"
FAILED = "E1122 00:53:52.289000 28948 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 1) local_rank: 1 (pid: 29068) of binary: /opt/venv/bin/python3"
CLOSED = (
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [192.0.2.7]:32452. This is "
    "typically caused by a remote worker crashing."
)


def read(*sources: tuple[str, str], facts: Report | None = None) -> Report:
    return diagnose([(name, [text.encode()]) for name, text in sources], RULES, facts)


def verdict(report: Report) -> Verdict:
    assert report.verdict is not None
    return report.verdict


def test_a_cause_on_one_rank_explains_the_timeouts_of_the_others() -> None:
    log = "\n".join([*(f"[rank{rank}]:[E1] [Rank {rank}] {TIMEOUT}" for rank in (0, 1, 2)), f"[rank3]: {OOM}"])
    found = verdict(read(("train.log", log)))
    assert (found.cause, found.rank, found.line) == ("cuda-oom", 3, 4)
    assert found.symptoms == ("nccl-collective-timeout",)


def test_causes_and_symptoms_become_findings_with_their_weight() -> None:
    report = read(("train.log", f"[rank2]: {OOM}\n[rank0]: {RESET.format(rank=0)}\n{FAILED}\n"))
    weights = {finding.name: finding.severity for finding in report.findings}
    assert weights == {
        "cuda-oom": Severity.ERROR,
        "rank0-died-connection-reset": Severity.INFO,
        "child-process-failed": Severity.INFO,
    }
    assert report.exit_code() == 1


def test_a_symptom_alone_says_whose_log_to_fetch() -> None:
    report = read(("train.log", f"[rank2]: {RESET.format(rank=2)}\n"))
    found = verdict(report)
    assert (found.cause, found.confidence, found.rank) == ("rank0-died-connection-reset", "likely", 2)
    assert report.findings[0].severity is Severity.ERROR
    assert any("rank 0" in fix.title for fix in report.findings[0].fix)


def test_only_what_the_launcher_says_is_unknown() -> None:
    report = read(("train.log", "Sending process 88120 closing signal SIGTERM\n"))
    assert verdict(report).cause == "unknown"
    assert any("not in this log" in note for note in report.notes)


def test_host_and_rank_come_from_the_path_of_a_file() -> None:
    found = verdict(read(("run/logs/s1/node1/rank0.log", RESET.format(rank=0)), ("run/logs/s1/node2/rank3.log", OOM)))
    assert (found.cause, found.host, found.rank, found.source) == (
        "cuda-oom",
        "node2",
        3,
        "run/logs/s1/node2/rank3.log",
    )


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("logs/train/node2/rank13.log", ("node2", 13)),
        ("logs/attempt_0/3/stderr.log", (None, 3)),
        ("out/train_rank5.log", (None, 5)),
        ("rank_2.txt", (None, 2)),
        ("logs/train/node2/agent.log", ("node2", None)),
        ("logs/merged.log", (None, None)),
        ("stdin", (None, None)),
        ("crankshaft.log", (None, None)),
    ],
)
def test_what_a_path_tells(path: str, place: tuple[str | None, int | None]) -> None:
    assert place_of(path) == place


def test_over_files_the_earliest_time_wins() -> None:
    late = "[2026-01-01 10:00:09,000] [ERROR] CUDA error: an illegal memory access was encountered"
    early = "[2026-01-01 10:00:01,000] [ERROR] " + OOM
    assert verdict(read(("a/rank0.log", late), ("b/rank1.log", early))).cause == "cuda-oom"


def test_in_one_file_the_earliest_line_wins() -> None:
    report = read(("train.log", f"{OOM}\nRuntimeError: CUDA error: an illegal memory access was encountered\n"))
    assert verdict(report).cause == "cuda-oom"
    assert verdict(report).confidence == "likely"  # the other one is not explained by it
    assert any("2 failures" in note for note in report.notes)


# --- exceptions that no rule knows

SCRIPT = """\
[rank{rank}]: Traceback (most recent call last):
[rank{rank}]:   File "/home/alice/train.py", line 57, in <module>
[rank{rank}]:     main()
[rank{rank}]:   File "/home/alice/train.py", line 31, in main
[rank{rank}]:     label = row["label"]
[rank{rank}]: KeyError: 'label'
"""
LIBRARY = """\
Traceback (most recent call last):
  File "/opt/venv/lib/python3.11/site-packages/somelib/core.py", line 3, in run
    raise OddError("what now")
somelib.errors.OddError: what now
"""


def test_an_unknown_exception_of_the_users_script() -> None:
    report = read(("train.log", SCRIPT.format(rank=2) + f"[rank0]: {RESET.format(rank=0)}\n{FAILED}\n"))
    found = verdict(report)
    assert (found.cause, found.confidence, found.rank) == ("training-script-exception", "likely", 2)
    assert found.text == "[rank2]: KeyError: 'label'"


def test_an_unknown_exception_of_a_library_is_not_guessed_at() -> None:
    report = read(("train.log", LIBRARY))
    assert verdict(report).cause == "unknown"
    assert verdict(report).text == "somelib.errors.OddError: what now"
    assert report.findings[0].name == "unknown"


def test_the_first_exception_of_each_rank_is_shown() -> None:
    report = read(("train.log", SCRIPT.format(rank=1) + SCRIPT.format(rank=3).replace("label", "text")))
    assert [each.text for each in report.findings[0].evidence] == [
        "[rank1]: KeyError: 'label'",
        "[rank3]: KeyError: 'text'",
    ]
    assert report.findings[0].ranks == (1, 3)


def test_tracebacks_of_two_ranks_interleave() -> None:
    one, two = SCRIPT.format(rank=0).splitlines(), SCRIPT.format(rank=1).replace("KeyError", "ValueError").splitlines()
    mixed = "\n".join(line for pair in zip(one, two, strict=True) for line in pair)
    assert [each.text for each in read(("t", mixed)).findings[0].evidence] == [
        "[rank0]: KeyError: 'label'",
        "[rank1]: ValueError: 'label'",
    ]


def test_a_chained_exception_begins_with_the_first() -> None:
    chained = (
        LIBRARY + "\nDuring handling of the above exception, another exception occurred:\n\n" + SCRIPT.format(rank=0)
    )
    found = verdict(read(("t", chained.replace("[rank0]: ", ""))))
    assert found.text == "somelib.errors.OddError: what now"


@pytest.mark.parametrize(
    "log",
    [
        "Exception ignored in: <function X.__del__ at 0x7f>\n" + LIBRARY,
        "--- Logging error ---\n" + LIBRARY,
        LIBRARY + "\n" + "\n".join(f" 5%|▌ | {step}/1000 [10:02<3:10:12, 12.01s/it]" for step in range(9)),
        "FutureWarning: x\nUserWarning: y\n",
    ],
)
def test_exceptions_that_a_run_survives_are_none(log: str) -> None:
    assert verdict(read(("t", log))).cause == "none"


@pytest.mark.parametrize("code", ["1", "-6"])
@pytest.mark.parametrize("steps", [1, 120])
def test_steps_that_standard_output_held_back_hide_no_exception(code: str, steps: int) -> None:
    log = "\n".join(
        [
            "node1:2| [rank2]: Traceback (most recent call last):",
            'node1:2| [rank2]:   File "/root/lab/train.py", line 54, in main',
            'node1:2| [rank2]:     raise ValueError("row 17 has no label")',
            "node1:2| [rank2]: ValueError: row 17 has no label",
            *(f"node1:2| {{'loss': 4.58, 'learning_rate': 0.1, 'step': {step}}}" for step in range(steps)),
            f"node0:0| [rank0]: RuntimeError: {CLOSED}",
            f"node1:-| E1122 06:49:33.594000 86 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: "
            f"{code}) local_rank: 0 (pid: 94) of binary: /opt/venv/bin/python",
            "node1:-| torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ",
            "node1:-|   host      : node1",
            "node1:-|   rank      : 2 (local_rank: 0)",
            f"node1:-|   exitcode  : {code} (pid: 94)",
        ]
    )
    found = verdict(read(("merged.log", log)))
    assert (found.cause, found.host, found.rank, found.line) == ("training-script-exception", "node1", 2, 4)


def test_a_message_comes_before_the_source_line_that_raises_it() -> None:
    log = """\
Traceback (most recent call last):
  File "/opt/venv/lib/python3.11/site-packages/torch/utils/cpp_extension.py", line 1662, in verify
    raise RuntimeError("Ninja is required to load C++ extensions")
RuntimeError: Ninja is required to load C++ extensions
"""
    found = verdict(read(("t", log)))
    assert (found.cause, found.line) == ("ninja-missing", 4)


# --- attempts and stages

COMMAND = "+ deepspeed --master_port {port} train.py --output_dir {out} --model m"
END = "[2024-04-24 16:02:37,302] [ERROR] [launch.py:322:sigkill_handler] ['python'] exits with return code = 1"


def test_the_source_line_gives_way_though_it_names_a_placeholder_for_a_host() -> None:
    log = """Traceback (most recent call last):
  File "/opt/venv/lib/python3.11/site-packages/deepspeed/launcher/runner.py", line 300, in parse_resource_filter
    raise ValueError(f"No slot '{slot}' specified on host '{hostname}'")
ValueError: No slot '4' specified on host 'node1'
"""
    found = verdict(read(("train.log", log)))
    assert (found.cause, found.host, found.line) == ("hostfile-invalid", "node1", 4)


def test_a_rank_that_only_the_launcher_names_is_found() -> None:
    log = """Fatal Python error: Segmentation fault

Current thread 0x00007f200c2b9b80 (most recent call first):
  File "/home/alice/job/train.py", line 10 in prepare
E1122 00:53:52.289000 28948 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: -11) local_rank: 1 (pid: 29068) of binary: /opt/venv/bin/python3
"""
    found = verdict(read(("train.log", log)))
    assert (found.cause, found.rank, found.line) == ("native-crash-sigsegv", 1, 1)


def test_of_several_attempts_the_last_one_counts() -> None:
    log = "\n".join(
        [
            COMMAND.format(port=29500, out="out"),
            "RuntimeError: Address already in use",
            END,
            COMMAND.format(port=29501, out="out"),
            OOM,
            END,
        ]
    )
    report = read(("t", log))
    assert verdict(report).cause == "cuda-oom"
    assert any("Earlier attempts" in note and "port-in-use" in note for note in report.notes)


def test_an_attempt_that_went_well_leaves_nothing_to_mend() -> None:
    log = "\n".join(
        [COMMAND.format(port=1, out="out"), OOM, END, COMMAND.format(port=2, out="out"), "{'train_runtime': 12.0}"]
    )
    report = read(("t", log))
    assert verdict(report).cause == "none"
    assert any("cuda-oom" in note for note in report.notes)


def test_of_several_stages_the_first_that_fails_counts() -> None:
    missing = "OSError: out/1/adapter is not a local folder and is not a valid model identifier listed on hf"
    log = "\n".join([COMMAND.format(port=1, out="out/1"), OOM, END, COMMAND.format(port=1, out="out/2"), missing, END])
    assert verdict(read(("t", log))).cause == "cuda-oom"


def test_a_restart_by_torchrun_is_another_attempt() -> None:
    log = f"{OOM}\n{FAILED}\n[default] Worker group FAILED. 2/3 attempts left; will restart worker group\nRuntimeError: No CUDA GPUs are available\n{FAILED}\n"
    assert verdict(read(("t", log))).cause == "no-gpu-detected"


# --- contexts

OVERFLOW = "[deepspeed] OVERFLOW! Rank 0 Skipping step. Attempted loss scale: {scale}, reducing to {half}"
P2P_TIMEOUT = TIMEOUT.replace("SeqNum=77", "SeqNum=1")
NOTHING_DONE = "[PG ID 1 Rank 0] failure detected by watchdog at work sequence id: 1 PG status: last enqueued work: 547, last completed work: -1"


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        # followed by
        (OVERFLOW.format(scale=65536, half=32768), "none"),
        (OVERFLOW.format(scale=4, half=2) + "\n" + OVERFLOW.format(scale=2, half=1), "fp16-loss-scale-exhausted"),
        # unless
        (f"{P2P_TIMEOUT}\n{NOTHING_DONE}", "nccl-p2p-hang"),
        (
            f"n:1:2 [0] NCCL INFO Channel 00/0 : 0[0] -> 8[0] via NET/Socket/0\n{P2P_TIMEOUT}\n{NOTHING_DONE}",
            "nccl-collective-timeout",
        ),
        # how often
        ("{'loss': 2.0, 'learning_rate': 0.0, 'epoch': 0.1}", "none"),
        ("\n".join(["{'loss': 2.0, 'learning_rate': 0, 'epoch': 0.1}"] * 5), "optimizer-never-stepped"),
        ("\n".join(["{'loss': 2.0, 'learning_rate': 0.0, 'epoch': 0.1}"] * 5), "learning-rate-zero"),
        ("\n".join(["{'loss': '2.0', 'learning_rate': '0', 'epoch': '0.1'}"] * 5), "learning-rate-zero"),
        # at the end
        ("Using /root/.cache/torch_extensions/py311_cpu as PyTorch extensions root...\n", "torch-extension-stale-lock"),
        ("Using /root/.cache/torch_extensions/py311_cpu as PyTorch extensions root...\n" + "x\n" * 9, "none"),
        # disk and shared memory
        ("OSError: [Errno 28] No space left on device: '/data/out/c.pt'", "disk-full"),
        (
            "n:1:2 [0] include/shm.h:28 NCCL WARN Call to posix_fallocate failed : No space left on device",
            "shm-too-small",
        ),
        ("OSError: [Errno 28] No space left on device: '/dev/shm/x'", "shm-too-small"),
        # address family 0: a name that is not there, or another NCCL
        (
            "n:1:2 [3] NCCL INFO NCCL_SOCKET_IFNAME set to eth2\nncclSocketInit: connecting to address  with family 59936 is neither AF_INET(2) nor AF_INET6(10)",
            "nccl-socket-ifname",
        ),
        (
            "n:1:2 [3] misc/socket.cc:717 NCCL WARN ncclSocketInit: connecting to address  with family 59936 is neither AF_INET(2) nor AF_INET6(10)",
            "nccl-version-mismatch-nodes",
        ),
        # a module missing everywhere, or on one host of several
        ("ModuleNotFoundError: No module named 'peft'", "python-package-missing"),
        (
            "[INFO] [multinode_runner.py:65:get_cmd] Running on the following workers: a1,b1\nb1: ModuleNotFoundError: No module named 'peft'",
            "python-module-missing-on-node",
        ),
        # killed by the kernel, by Slurm, by the end of a session
        (
            "slurmstepd: error: Detected 1 oom_kill event in StepId=1.0. Some of the step tasks have been OOM Killed.",
            "host-oom-killed",
        ),
        (
            "slurmstepd: error: *** JOB 4711 ON gpu1 CANCELLED AT 2026-01-01T10:00:00 DUE TO TIME LIMIT ***",
            "process-killed-externally",
        ),
        ("Received 1 death signal, shutting down workers", "sighup-session-closed"),
    ],
)
def test_the_same_line_in_another_context(log: str, cause: str) -> None:
    assert verdict(read(("t", log))).cause == cause


# --- facts


def checked(*findings: Finding, passed: tuple[str, ...] = ()) -> Report:
    return Report("check", 0.0, findings=findings, passed=passed)


DUPLICATE = "torch.distributed.DistBackendError: x\nInvalid config blocking attribute value -2147483648\n"


def test_of_a_progress_bar_the_latest_state_counts() -> None:
    bars = [f"Map (num_proc=8): {done:3}%|###| {done}/100 [00:{done}<10:00, 2.0 examples/s]" for done in (10, 20, 30)]
    timeout = f"[rank1]:[E1] [Rank 1] {TIMEOUT}"
    found = verdict(read(("train.log", "\r".join(bars) + f"\n{timeout}\n")))
    assert (found.cause, found.line) == ("rank0-preprocess-timeout", 1)
    assert found.text is not None and " 30%|" in found.text
    finished = [*bars, "Map (num_proc=8): 100%|###| 100/100 [01:00<00:00, 2.0 examples/s]"]
    assert verdict(read(("train.log", "\r".join(finished) + f"\n{timeout}\n"))).cause == "nccl-collective-timeout"


def test_a_check_that_finds_the_same_confirms_the_verdict() -> None:
    killed = (
        "b: RuntimeError: Default process group has not been initialized, please make sure to call init_process_group."
    )
    facts = checked(Finding("driver-not-loaded", Severity.ERROR, "no driver", hosts=("b",)))
    report = read(("t", killed.replace("b: ", "node-b: ")), facts=facts)
    assert verdict(report).confidence == "likely"  # found on another host
    facts = checked(Finding("driver-not-loaded", Severity.ERROR, "no driver", hosts=("node-b",)))
    report = read(("t", killed.replace("b: ", "node-b: ")), facts=facts)
    assert verdict(report).confidence == "certain"
    assert any("driver-not-loaded finds the same" in note for note in report.notes)


def test_checks_that_passed_make_the_verdict_less_sure() -> None:
    report = read(("t", DUPLICATE), facts=checked(passed=("duplicate-nccl", "nccl-differs-from-torch")))
    assert (verdict(report).cause, verdict(report).confidence) == ("nccl-duplicate-lib", "likely")
    assert any("finds nothing of it" in note for note in report.notes)
    assert verdict(read(("t", DUPLICATE))).confidence == "certain"


# --- edges


def test_nothing_at_all() -> None:
    report = diagnose([], RULES)
    assert verdict(report).cause == "none"
    assert report.notes == ("The log is empty.",)
    assert verdict(diagnose([("empty", [])], RULES)).cause == "none"


def test_evidence_is_one_line_a_stream_and_bounded() -> None:
    log = "\n".join(f"[rank{rank}]: {OOM}" for rank in range(64) for _ in range(3))
    finding = read(("t", log)).findings[0]
    assert finding.ranks == tuple(range(64))
    assert len(finding.evidence) == 6
    assert len({each.text for each in finding.evidence}) == 6


def test_the_message_names_what_the_line_says() -> None:
    finding = read(("t", OOM)).findings[0]
    assert finding.message == "GPU 3 (79.15 GiB) is full - 2.00 GiB more were asked for"
    assert finding.evidence[0].source == "t" and finding.evidence[0].line == 1
