"""A projection by singular values, as GORP has it, with weights in 16 bits."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext, value_of
from dsdoctor.checks.engine import check
from dsdoctor.checks.precision import runs_in
from dsdoctor.report.model import Finding, Fix, Severity, Skipped

# Arguments that GORP's programs alone have; the optimizers called galore_… of transformers decompose in fp32.
_PROJECTS = ("proj_lora_modules", "optim_target_modules")
_GALORE = ("galore_rank", "galore_lr", "galore_scale")


@check(severity=Severity.ERROR, since="0.1")
def svd_in_half_precision(context: JobContext) -> Iterator[Finding | Skipped]:
    """The program projects gradients by an SVD of its weights, and a DeepSpeed engine holds them in 16 bits.

    ## Why it matters
    torch has no SVD for fp16 or bf16: `"svd_cuda_gesvdj" not implemented for 'Half'`, or cusolver fails in the middle
    of the first projection.

    ## How to fix it
    Decompose in fp32 (`torch.linalg.svd(matrix.float())`) and convert back, or train in fp32.

    ## Source
    A recorded log of GORP's LLaMA run; torch's linalg.svd takes fp32 and fp64 alone. transformers' own GaLore
    optimizers convert before they decompose.
    """
    if context.deepspeed is None:  # without an engine the weights stay in fp32 and autocast does not touch them
        return
    for stage in context.stages:
        used = [name for name in _PROJECTS if value_of(stage, name) is not None]
        ranks = [name for name in _GALORE if value_of(stage, name) is not None]
        if not used or not ranks or str(value_of(stage, "optim") or "").startswith("galore"):
            continue
        precision = runs_in(context, stage)
        if precision not in ("fp16", "bf16"):
            continue
        names = (*used, *ranks)
        yield svd_in_half_precision.finding(
            f"the program decomposes weights that DeepSpeed holds in {precision}, and torch has no SVD for them; fp32 "
            "is wanted there",
            evidence=[context.cite(f"{name}: {value_of(stage, name)} (stage {stage.name})") for name in names],
            fix=[
                Fix("In the program: torch.linalg.svd(matrix.float(), full_matrices=False), and back afterwards"),
                Fix("Train in fp32: no --fp16 and no --bf16, and both off in the DeepSpeed config"),
            ],
        )
        return
