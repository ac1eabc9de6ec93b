"""DeepSpeed's ops were built for another torch than the installed one."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.ops import has_gpus, installed_with_deepspeed, needed
from dsdoctor.checks.remedy import install, on_host
from dsdoctor.checks.toolkit import minor_of
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.ERROR, since="0.1")
def prebuilt_op_mismatch(host: HostFacts, entry: HostEntry, context: JobContext) -> Iterator[Finding | Skipped]:
    """An op that this job needs was built when DeepSpeed was installed, for another torch or CUDA than there is now.

    ## Why it matters
    DeepSpeed compares and stops: `PyTorch version mismatch! DeepSpeed ops were compiled and installed with a different
    version than what is being used at runtime`. It happens when torch is upgraded after an installation with
    DS_BUILD_...=1.

    ## How to fix it
    Install DeepSpeed again, against the torch that is there; or without DS_BUILD_...: then each op is built at its
    first use.

    ## Source
    deepspeed/git_version_info_installed.py; OpBuilder.load in op_builder/builder.py.
    """
    deepspeed, torch = host.deepspeed, host.torch
    if deepspeed.version is None or torch.version is None:
        return
    ops = [op for op in needed(context) if installed_with_deepspeed(host, op)]
    if not ops:
        return
    wrong = []
    if deepspeed.built_torch and deepspeed.built_torch != minor_of(torch.version):
        wrong.append(f"torch {deepspeed.built_torch}, and {torch.version} is installed")
    if torch.cuda and deepspeed.built_cuda and deepspeed.built_cuda != minor_of(torch.cuda) and has_gpus(host):
        wrong.append(f"CUDA {deepspeed.built_cuda}, and torch has {torch.cuda}")
    if not wrong:
        return
    names = ", ".join(op.name for op in ops)
    options = ("--no-build-isolation", "--no-cache-dir")
    again = "DS_BUILD_OPS=0 " + install(host, *options, f"deepspeed=={deepspeed.version}", force=True)
    yield prebuilt_op_mismatch.finding(
        f"DeepSpeed's {names} was built for {'; for '.join(wrong)}",
        evidence=[
            Evidence(
                text=f"deepspeed {deepspeed.version}: ops {', '.join(deepspeed.installed_ops)} built with torch "
                f"{deepspeed.built_torch}, CUDA {deepspeed.built_cuda}",
                source=host.name,
            ),
            *(op.because for op in ops),
        ],
        fix=[Fix("Install DeepSpeed again; its ops are then built at their first use", (on_host(entry, again),))],
    )
