"""What is compiled on a host is compiled for other GPUs than it has."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.arch_list import ArchList, read
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.installed import allows
from dsdoctor.checks.job_gpus import job_gpus
from dsdoctor.checks.ops import Op, built_before, installed_with_deepspeed, needed
from dsdoctor.checks.rank_settings import ENVIRONMENT, Setting, setting
from dsdoctor.checks.remedy import where_set
from dsdoctor.checks.toolkit import builds_for
from dsdoctor.checks.torch_lacks_gpu_arch import runs_on
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import Gpu, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_VARIABLE = "TORCH_CUDA_ARCH_LIST"
_DEEPSPEED_READS = ">=0.19.0"  # older ones build for the cards that they see (jit_load in op_builder/builder.py)


@check(severity=Severity.WARNING, since="0.1")
def arch_list_lacks_gpu(host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """TORCH_CUDA_ARCH_LIST names architectures that do not run on the host's GPUs, or that its nvcc does not know.

    ## Why it matters
    What torch and DeepSpeed (0.19 and newer) compile on the host is compiled for that list and nothing else. An op for
    8.9 alone is built without a word, and its first kernel on a V100 fails: `no kernel image is available for execution
    on the device`. A word that torch does not know stops the build (`Unknown CUDA arch`), one that the toolkit does not
    know, too (`nvcc fatal: Unsupported gpu architecture`). One list for all hosts is the usual way into it.

    ## How to fix it
    Unset it: each host then builds for its own cards. Or name all kinds of cards that the job has, with ; between them.

    ## Source
    _get_cuda_arch_flags of torch/utils/cpp_extension.py; jit_load and compute_capability_args of DeepSpeed's
    op_builder/builder.py, tags v0.9.5 to v0.19.8; CUDA C++ Programming Guide, "Binary Compatibility". Asked only where
    something can be compiled, and of a job only if one of its ops is not built yet.
    """
    given = setting(_VARIABLE, host, entry, context)
    wanted = read(given.value) if given is not None else None
    if given is None or wanted is None or host.torch.cuda is None or host.cuda.nvcc_version is None:
        return
    cards = job_gpus(host, entry)
    ops = _to_build(host, context)
    if not cards or (context is not None and not ops):
        return
    for message in _problems(host, wanted, cards):
        yield arch_list_lacks_gpu.finding(
            f"{_VARIABLE}={given.value}: {message}",
            severity=Severity.ERROR if ops else None,
            evidence=[
                Evidence(text=f"{_VARIABLE}={given.value}, from {given.source}", source=host.name),
                *(op.because for op in ops),
            ],
            fix=_fixes(entry, given, cards),
        )


def _to_build(host: HostFacts, context: JobContext | None) -> list[Op]:
    """The ops that the job needs, that are compiled at its start, and for which the list counts."""
    if context is None or host.deepspeed.version is None or not allows(_DEEPSPEED_READS, host.deepspeed.version):
        return []
    ops = [op for op in needed(context) if not op.for_processor]
    return [op for op in ops if not installed_with_deepspeed(host, op) and not built_before(host, op)]


def _problems(host: HostFacts, wanted: ArchList, cards: tuple[Gpu, ...]) -> Iterator[str]:
    if wanted.wrong:
        yield f"torch does not know {wanted.wrong[0]!r} and stops the build; it takes numbers as in 8.0;8.6+PTX"
        return
    cuda = host.cuda.nvcc_version or ""
    unknown = next((one for one in wanted.asked if not builds_for(cuda, one)), None)
    if unknown is not None:
        yield f"nvcc of CUDA {cuda} makes no code for {_shown(unknown)}, and the build fails"
        return
    lacking = [gpu for gpu in cards if gpu.compute_capability and not runs_on(wanted.built, gpu.compute_capability)]
    if lacking and lacking[0].compute_capability:
        first = lacking[0]
        shown = _shown(first.compute_capability or (0, 0))
        yield f"what is compiled here has no code for GPU {first.index} ({first.name}, {shown})"


def _fixes(entry: HostEntry, given: Setting, cards: tuple[Gpu, ...]) -> Iterator[Fix]:
    where = (where_set(entry, _VARIABLE),) if given.source == ENVIRONMENT else ()
    yield Fix(f"Unset it, where it is set ({given.source}): what is compiled is then for the host's own cards", where)
    own = sorted({gpu.compute_capability for gpu in cards if gpu.compute_capability})
    if own:
        yield Fix("Name this host's cards, too", env={_VARIABLE: ";".join(map(_shown, own))})


def _shown(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
