"""A host's card cannot do the quantisation that the job asks of bitsandbytes."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext, is_true
from dsdoctor.checks.engine import check
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def bitsandbytes_unsupported_gpu(host: HostFacts, context: JobContext) -> Iterator[Finding | Skipped]:
    """The job asks bitsandbytes for 8-bit or 4-bit weights, and a host's card is older than that needs.

    ## Why it matters
    LLM.int8() needs compute capability 7.5: on a V100 (7.0) older releases fall back to a slow way, newer ones stop
    with `cublasLt ran into an error`. NF4/FP4 and 8-bit optimizers need 6.0. In a job of mixed cards it is the one host
    that fails or that all others wait for.

    ## How to fix it
    4-bit weights instead of 8-bit ones, or no quantisation where the memory allows it; or leave the host out.

    ## Source
    The table of bitsandbytes' installation guide (0.50.1); supports_igemmlt in autograd/_functions.py (0.44.1).
    """
    wanted = [
        (7, 5, context.cite(f"{name}: {value} (stage {stage.name})"))
        for stage, name, value in context.argument("load_in_8bit")
        if is_true(value)
    ]
    wanted += [
        (6, 0, context.cite(f"{name}: {value} (stage {stage.name})"))
        for stage, name, value in context.argument("load_in_4bit")
        if is_true(value)
    ]
    if not wanted or host.torch.cuda is None:
        return
    for major, minor, evidence in wanted:
        for gpu in host.gpu.gpus:
            card = gpu.compute_capability
            if card is not None and card < (major, minor):
                yield bitsandbytes_unsupported_gpu.finding(
                    f"{gpu.name} has compute capability {card[0]}.{card[1]}, and bitsandbytes wants {major}.{minor} "
                    f"for {evidence.text.partition(':')[0]}",
                    evidence=[evidence, Evidence(text=f"GPU {gpu.index}: {gpu.name}", source=host.name)],
                    fix=[Fix("Load the weights in 4 bits, or unquantised, or leave the host out")],
                )
                break
