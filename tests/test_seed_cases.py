"""Every failure that the project's first notes record: what covers it, and by which test its condition is reproduced.

The notes themselves are not here; the ids are. A cover is one of

    check NAME: CASE     a case in `dsdoctor/checks/cases` in which the check must find it (tests/checks/test_cases.py)
    log NAME             a log in `tests/logs/cases` whose root cause must be named (tests/logs/test_cases.py)
    provoked NAME        a failure made to happen, and its log diagnosed (tests/provoked)
    rule NAME            a rule with its own samples (tests/test_rules.py)
    test FILE::NAME      a test of what launch, or the job that it starts, does
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from dsdoctor.checks.casefile import cases
from dsdoctor.checks.engine import discover
from dsdoctor.logs.rules import load_rules

HERE = Path(__file__).parent
IDS = (
    *(f"A{number}" for number in range(1, 13)),
    *(f"B{number}" for number in range(1, 16)),
    "C1", "C1b", *(f"C{number}" for number in range(2, 24)),
    *(f"D{number}" for number in range(1, 11)),
)  # fmt: skip

COVERS: dict[str, tuple[str, ...]] = {
    # Communication
    "A1": (
        "check p2p-unavailable: two RTX 4090",
        "log seed-nccl-timeout-offload-run",
        "log seed-nccl-timeout-no-offload-run",
        "test plan/test_plan.py::test_p2p_is_disabled_only_on_the_host_where_it_does_not_work",
        "test cluster/test_check.py::test_4090_cards_without_p2p_get_it_disabled_on_their_host_alone",
    ),
    "A2": (
        "log seed-barrier-unknown-devices",
        "test plan/test_plan.py::test_commands_ranks_and_paths",
        "test cluster/test_engines.py::test_two_hosts_of_2_and_1_slots_meet_and_every_line_has_its_rank",
    ),
    "A3": (
        "check ssh-by-name: the master's name is not known on a host",
        "check ssh-by-name: an old address in one /etc/hosts",
        "check unreachable-host: a key that was never seen",
        "check unreachable-host: a name without an address",
        "check master-resolves-to-loopback: every name on one line of /etc/hosts",
        "check peer-unreachable: a firewall that drops",
        "log seed-nccl-store-connection-reset",
        "provoked ssh-no-key",
    ),
    "A4": (
        "check duplicate-nccl: two wheels own one file",
        "check duplicate-nccl: after uninstalling one of two",
        "log seed-nccl-duplicate-lib-first",
        "log seed-nccl-duplicate-lib-debug",
        "test cluster/test_check.py::test_the_seeds_conditions_are_each_named_and_nothing_else",
    ),
    "A5": (
        "check nccl-differs-from-torch: an older library in LD_LIBRARY_PATH",
        "check nccl-differs-from-torch: the system's package, since the wheel is not there",
        "check nccl-differs-between-hosts: one host was updated",
        "provoked rank-hangs",
    ),
    "A6": (
        "check socket-ifname-missing: one value for unlike hosts",
        "check ds-env-carried-over: the master's interface for all hosts",
        "check interfaces-apart: the storage network on one host",
        "check wrong-automatic-interface: libvirt's bridge, which is down",
        "check driver-not-loaded: built, and not loaded",
        "log seed-bnb-cpu-then-default-pg",
        "test plan/test_plan.py::test_each_host_gets_its_own_interface_by_the_route_to_the_master",
        "test cluster/test_launch.py::test_a_wrong_interface_is_refused_and_when_forced_named_from_the_real_log",
    ),
    "A7": (
        "check unknown-env-var: a letter is missing",
        "check unknown-env-var: names that torch has renamed",
        "check bad-env-value: a word where NCCL reads a number",
        "rule env-variable-renamed",
    ),
    "A8": (
        "check interactive-only-variables: set in ~/.bashrc alone",
        "check interactive-only-variables: a session that is older than the file",
        "check unknown-env-var: in a file that only an interactive shell reads",
        "check socket-ifname-missing: in a file that only an interactive shell reads",
        "test plan/test_plan.py::test_checks_see_the_environment_that_the_ranks_will_get",
    ),
    "A9": (
        "check random-port: by shuf",
        "check master-port-taken: a run that was not ended",
        "check master-port-taken: drawn at random",
        "check peer-unreachable: only the master's port is open",
        "provoked stale-process-holds-port",
        "log 030-port-29500-second-run-same-box",
        "test plan/test_plan.py::test_a_port_that_is_taken_is_refused_with_the_way_to_find_its_owner",
    ),
    "A10": (
        "check watchdog-off: a line from an old recipe",
        "provoked rank-hangs",
        "test cluster/test_launch.py::test_a_muted_host_is_noticed_and_both_ends_stop",
        "rule run-stalled",
        "test cluster/test_watch.py::test_a_rank_that_sleeps_is_named_and_the_run_ended_when_that_is_wanted",
        "test cluster/test_watch.py::test_a_rank_that_is_stopped_is_told_apart_and_the_run_goes_on_when_it_does",
    ),
    "A11": (
        "check unknown-env-var: the flight recorder's new name under an older torch",
        "rule flight-recorder-off",
        "test plan/test_plan.py::test_the_flight_recorder_is_on",
    ),
    "A12": (
        "check proxy-catches-hosts: a proxy that runs on another machine",
        "check proxy-catches-hosts: no exception for the hosts",
        "test plan/test_plan.py::test_a_proxy_does_not_catch_the_hosts",
    ),
    # Driver, CUDA, compilers, native builds
    "B1": (
        "check driver-not-loaded: after a kernel update",
        "log seed-nvidia-smi-no-driver",
        "test cluster/test_check.py::test_a_driver_that_is_not_loaded_comes_with_the_dkms_line",
    ),
    "B2": (
        "check cuda-toolkit-differs: a minor version apart",
        "check cuda-toolkit-differs: another major version, and cpu_adam must be built",
        "log seed-benign-cuda-minor-mismatch-cpu-adam-ok",
    ),
    "B3": (
        "check op-cannot-be-built: no ninja",
        "check op-cannot-be-built: CentOS 7's own compiler",
        "check op-built-at-start: cpu_adam is not built yet",
        "provoked ninja-missing-deepspeed",
        "provoked compiler-missing-deepspeed",
    ),
    "B4": ("check op-cannot-be-built: offload to NVMe without libaio", "log seed-libaio-precompile"),
    "B5": (
        "check bitsandbytes-cpu-build: no library for torch's CUDA",
        "check bitsandbytes-cpu-build: 4-bit weights",
        "log seed-bnb-undefined-symbol",
    ),
    "B6": (
        "check flash-attn-unusable: a V100 in the cluster",
        "check built-for-another-torch: a flash-attn wheel for another build",
        "check built-for-another-torch: the other C++ ABI",
        "log seed-flash-attn-build-isolation",
    ),
    "B7": (
        "check broken-requirements: xformers for another torch",
        "check built-for-another-torch: xformers built for another torch",
        "rule torch-binary-mismatch",
    ),
    "B8": ("check known-bad-versions: torch.compiler.is_compiling", "log seed-torch-compiler-is-compiling"),
    "B9": ("check python-unsupported: functools.cache", "log seed-functools-cache-py38"),
    "B10": (
        "check job-requirements-unmet: pins of the job file",
        "check job-pins-other-nccl: a line of another time",
        "check packages-differ: another torch on one host",
        "rule python-package-broken",
    ),
    "B11": (
        "check conda-activate: activate in a shell that is not interactive",
        "log seed-conda-activate-not-configured",
    ),
    "B12": (
        "check low-open-files: a thousand workers under Linux' default",
        "check low-memlock: a default limit on hosts with InfiniBand",
        "check low-nproc: a limit of 512",
        "check low-shm: a container's default",
        "log seed-too-many-open-files",
        "provoked open-files",
    ),
    "B13": ("log seed-device-side-assert",),
    "B14": (
        "log seed-cusolver-svd-half",
        "check svd-in-half-precision: GORP in bf16",
    ),
    "B15": (
        "check low-memory: a shard of pickled weights is more than there is",
        "check low-memory: two ranks and a large model",
        "log 019-host-oom-loading-shards-4ranks",
        "provoked memory-limit",
    ),
    # Settings of DeepSpeed and Hugging Face
    "C1": (
        "check scheduler-overridden: constant asked for, WarmupLR used",
        "rule ds-warmup-steps-invalid",
        "rule warmup-first-step",
    ),
    "C1b": ("rule optimizer-never-stepped", "check optimizer-never-stepped: an override from before 4.30"),
    "C2": (
        "check precision-disagrees: fp16 in the config, nothing in the arguments",
        "log seed-ds-hf-fp16-mismatch",
    ),
    "C3": (
        "check precision-disagrees: two precisions, whoever reads the config",
        "check bf16-unsupported: A100 and V100 in one job",
        "provoked ds-fp16-and-bf16",
        "check fp16-overflows: T5 in fp16",
    ),
    "C4": ("check known-bad-versions: no_sync and ZeRO", "log seed-no-sync-zero2"),
    "C5": (
        "check unknown-config-key: the name without stage3_",
        "check unknown-config-key: a word that belongs to another block",
    ),
    "C6": ("check hpz-partition-unfit: groups over two hosts",),
    "C7": ("rule zero3-zero-element-parameter", "check zero3-empty-adapters: O-LoRA with stage 3"),
    "C8": ("log seed-model-has-no-backward", "check program-outdated: three values of deepspeed_init"),
    "C9": ("log seed-generation-config-synced-gpus", "check program-outdated: synced_gpus in a GenerationConfig"),
    "C10": ("log seed-loss-scale-minimum", "check fp16-overflows: a rate too high for fp16"),
    "C11": (
        "log 020-cuda-oom-dschat-step1",
        "check gpu-memory-exceeded: LLaMA-7B with LoRA in fp32 on 24 GB",
        "check ram-exceeded: seven billion parameters offloaded on 64 GB",
        "test forecast/test_recorded_runs.py::test_what_was_seen_lies_in_the_range",
        "test forecast/test_recorded_runs.py::test_llama_with_lora_in_fp32_does_not_fit_into_24_gb",
        "test forecast/test_recorded_runs.py::test_llama_in_16_bits_was_seen_at_17562_mib_and_at_43151_mib",
    ),
    "C12": (
        "check long-training: the same over gigabit Ethernet",
        "test forecast/test_recorded_runs.py::test_eleven_years",
    ),
    "C13": (
        "check config-disagrees: eight cards in the config, two in the job",
        "test continual/test_batches.py::test_the_global_batch_holds_exactly_for_any_number_of_ranks",
    ),
    "C14": ("check stale-outputs: a checkpoint of an earlier run",),
    "C15": (
        "check single-dash-option: train_mode with one dash",
        "check blank-after-backslash: a comment behind the backslash",
        "check blank-after-backslash: a blank that nobody sees",
        "check comment-in-continuation: an option switched off in the middle",
        "check unknown-argument: a letter too few",
        "rule script-arguments-invalid",
        "provoked arguments-unknown",
    ),
    "C16": ("check trains-in-fp32: auto, and nothing asked for",),
    "C17": ("log seed-benign-zero3-run-with-warnings",),
    "C18": ("log seed-params-not-updated-zero",),
    "C19": ("log seed-eval-loss-nan",),
    "C20": (
        "check predicts-at-every-stage: a script of three stages",
        "test jobs/test_predict.py::test_the_stages_that_predict",
        "test jobs/test_predict.py::test_the_job_file_made_of_a_script_predicts_after_the_last_stage_unless_asked",
        "test jobs/test_predict.py::test_prediction_after_the_last_stage_alone_is_what_is_launched",
    ),
    "C21": ("rule deepspeed-flag-ignored", "check arguments-never-read: --deepspeed and a script that never parses"),
    "C22": ("test continual/test_ranks.py::test_what_must_be_equal", "provoked rank-has-another-model"),
    "C23": (
        "check precision-disagrees: the old key of DeepSpeed",
        "check precision-disagrees: a text instead of true",
        "provoked hf-bfloat16-key",
    ),
    # Code, data and models on the hosts
    "D1": (
        "check rsync-exclude-absolute: the path as it is on this machine",
        "test run/test_sync.py::test_an_absolute_exclude_is_refused_with_the_anchored_one",
        "test cluster/test_launch.py::test_a_foreign_folder_is_left_alone",
        "check shell-noise: a banner in the way of rsync",
    ),
    "D2": (
        "check chmod-takes-x: 766 for all",
        "check unreadable-input: a folder that lost its x bit",
        "check inputs-differ: an older copy of the data",
    ),
    "D3": (
        "check missing-input: the model on one host only",
        "check incomplete-model: shards that are missing",
        "check git-lfs-pointer: a clone without git-lfs",
        "provoked model-path-missing",
    ),
    "D4": ("check slots-exceed-gpus: more slots than cards",),
    "D5": (
        "check python-differs: the system's Python on one host",
        "check code-not-everywhere: an older copy on one host",
        "check code-not-everywhere: it is on the first host alone",
        "check packages-differ: another torch on one host",
        "provoked host-without-folder",
    ),
    "D6": (
        "test continual/test_adapters.py::test_a_saved_adapter_that_is_not_what_was_trained",
        "test run/test_outputs.py::test_what_is_cut_off_or_holds_nothing_is_said",
        "test run/test_execute.py::test_exit_code_0_without_the_outputs_is_a_failure",
    ),
    "D7": ("check known-bad-model: decapoda-research's LLaMA",),
    "D8": (
        "check missing-log-folder: logs into a folder that nobody made",
        "test jobs/test_as_job.py::test_the_folder_that_a_script_writes_its_log_to_is_looked_for",
    ),
    "D9": ("check container-limits: no GPU was given", "check low-shm: a container's default"),
    "D10": ("check idle-gpus: two cards and one process",),
}  # fmt: skip


def test_every_id_is_there_once() -> None:
    assert tuple(COVERS) == IDS


@pytest.mark.parametrize("case", IDS)
def test_a_case_is_covered(case: str) -> None:
    covers = COVERS[case]
    assert len(set(covers)) == len(covers)
    assert covers, "nothing covers it"
    for cover in covers:
        assert list(_missing(cover)) == []


def _missing(cover: str) -> Iterator[str]:
    """What a cover names that is not there."""
    kind, _, rest = cover.partition(" ")
    if kind == "check":
        name, _, title = rest.partition(": ")
        if name not in discover():
            yield f"no check is called {name}"
        elif not any(one.name == title and one.expect for one in cases(name)):
            yield f"{name} has no case {title!r} with a finding"
    elif kind == "log":
        path = HERE / "logs" / "cases" / f"{rest}.yaml"
        if not path.exists() or not yaml.safe_load(path.read_text(encoding="utf-8"))["root_cause"]:
            yield f"no log {rest}"
    elif kind == "provoked":
        folder = HERE / "provoked"
        for path in (folder / "failures" / f"{rest}.yaml", folder / "recorded" / f"{rest}.log"):
            if not path.exists():
                yield f"no {path.relative_to(HERE)}"
    elif kind == "rule":
        if rest not in _rules():
            yield f"no rule {rest}"
    elif kind == "test":
        file, _, name = rest.partition("::")
        if name not in _functions(HERE / file):
            yield f"no test {rest}"
    else:
        yield f"{cover!r} is no cover"


@cache
def _rules() -> frozenset[str]:
    return frozenset(load_rules().rules)


@cache
def _functions(path: Path) -> frozenset[str]:
    if not path.exists():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize(
    "cover",
    [
        "check no-such-check: x",
        "check duplicate-nccl: no such case",
        "check duplicate-nccl: one owner",
        "log no-such-log",
        "provoked no-such-failure",
        "rule no-such-rule",
        "test run/test_sync.py::test_no_such_thing",
        "test run/test_none.py::test_x",
        "open",
        "hope",
    ],
)
def test_a_cover_that_names_nothing_is_told(cover: str) -> None:
    assert list(_missing(cover))
