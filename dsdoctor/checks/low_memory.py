"""Too little memory on a host to load the job's model in every rank."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.amounts import amount
from dsdoctor.checks.context import JobContext, is_true
from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import container
from dsdoctor.checks.outside import start_again
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts, InputPath
from dsdoctor.jobs import dsconfig
from dsdoctor.jobs.paths import named_paths
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# Arguments with which the weights do not lie in the host's memory as a whole.
_ELSEWHERE = ("load_in_4bit", "load_in_8bit", "quantization_bit", "low_cpu_mem_usage", "device_map")


@check(severity=Severity.WARNING, since="0.1")
def low_memory(host: HostFacts, entry: HostEntry, context: JobContext) -> Iterator[Finding | Skipped]:
    """The host has less memory than the ranks on it need to load the model's weights all at once.

    ## Why it matters
    Every rank loads the model by itself. When that is more than the host, or its container, has, the kernel kills the
    largest process, which leaves no traceback: "exits with return code = -9", "the program is killed for no reason".

    ## How to fix it
    Let fewer ranks load at a time (low_cpu_mem_usage, ZeRO-3 with its own loading), save the model in smaller shards,
    or run fewer ranks on this host.

    ## Source
    The sizes of the weight files × the ranks on the host, against MemTotal of /proc/meminfo (without huge pages that
    are set aside) and the limits of the cgroups. Weights that are stored in 16 bits and loaded in 32 need twice as
    much; that is not counted.
    """
    found = [path for path in _models(host, context) if path.model is not None and path.model.weights_bytes]
    weights = sum(path.model.weights_bytes for path in found if path.model is not None)
    largest = max((path.model.largest_bytes for path in found if path.model is not None), default=0)
    memory = host.memory
    limit = memory.limit_bytes
    ranks = entry.processes
    if not weights or ranks < 1 or limit <= 0:
        return
    in_parts = _in_parts(context)
    needed, what = (largest * ranks, "largest weight file") if in_parts else (weights * ranks, "weights")
    if needed <= limit:
        return
    impossible = largest * ranks > limit and all(path.model and path.model.weights == "bin" for path in found)
    limited = limit < memory.ordinary_bytes
    whose = "its container may use" if limited else "the host has"
    one = amount(largest if in_parts else weights)
    yield low_memory.finding(
        f"{ranks} rank{'' if ranks == 1 else 's'} that load the model's {what} ({one} each) need {amount(needed)}, and "
        f"{whose} {amount(limit)}",
        severity=Severity.ERROR if impossible else None,
        evidence=[
            Evidence(
                text=f"memory: {memory.total_bytes} bytes, of which {memory.hugetlb_bytes} are set aside as huge "
                f"pages; limit of the cgroups: {memory.cgroup_limit_bytes}",
                source=host.name,
            ),
            *(Evidence(text=_figures(path), source=host.name) for path in found),
        ],
        fix=_fixes(host, limited),
    )


def _models(host: HostFacts, context: JobContext) -> list[InputPath]:
    """The models that the job loads from the host's disk, each once.

    Raises:
        FactUnavailable: the probe was not asked about them.
    """
    found = []
    for named in named_paths(context.job):
        if named.role != "model" or "tokenizer" in named.argument:
            continue
        path = host.inputs.find(named.path)
        if path is None:
            raise FactUnavailable("inputs", f"the probe was not asked about {named.path}")
        found.append(path)
    return found


def _in_parts(context: JobContext) -> bool:
    """Whether a rank holds one weight file at a time: ZeRO-3, quantised weights, loading straight to the GPU."""
    if context.deepspeed is not None and dsconfig.get(context.deepspeed, "zero_optimization.stage") == 3:
        return True
    return any(is_true(value) or str(value) in ("4", "8", "auto") for _, _, value in context.argument(*_ELSEWHERE))


def _figures(path: InputPath) -> str:
    model = path.model
    assert model is not None
    return f"{path.at}: {amount(model.weights_bytes)} in {model.shards} file{'' if model.shards == 1 else 's'}"


def _fixes(host: HostFacts, limited: bool) -> Iterator[Fix]:
    if limited and container(host):
        yield start_again(container(host), "--memory=…", {"kubernetes": "resources.limits.memory of the pod"})
    elif limited:
        yield Fix("Ask for more: --mem of the scheduler, MemoryMax= of the systemd unit")
    yield Fix("Load it in parts: low_cpu_mem_usage=True, or save it anew with save_pretrained(max_shard_size='1GB')")
    yield Fix("Run fewer ranks on this host: slots= in the hostfile")
