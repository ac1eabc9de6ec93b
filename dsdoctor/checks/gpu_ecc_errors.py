"""A GPU's memory had errors that it could not correct, or waits to be mended."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import container, job_gpus
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import Gpu, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def gpu_ecc_errors(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """A GPU of the job had memory errors that it could not correct, could not mend its memory, or waits for a reset.

    ## Why it matters
    The next access to the broken cell ends the rank with "uncorrectable ECC error encountered", and the other ranks
    with a timeout of NCCL. A card that could not put a spare row in the place of a broken one is to be replaced.

    ## How to fix it
    Reset the card, or reboot, while nothing runs on it: rows are remapped and pages retired only then. If it happens
    again, or the remapping failed, have the card replaced. Rows that only wait for a reset cost nothing until then.

    ## Source
    NVML; NVIDIA's "GPU Memory Error Management" (row remapping, from Ampere on) and "Dynamic Page Retirement"
    (before). Errors of earlier days that the card has mended are not counted.
    """
    for gpu in job_gpus(host, entry):
        troubles = tuple(_troubles(gpu))
        if not troubles:
            continue
        waits_only = troubles == (_PENDING_ROW,)
        yield gpu_ecc_errors.finding(
            f"GPU {gpu.index} ({gpu.name}): {'; '.join(troubles)}",
            severity=Severity.INFO if waits_only else None,
            evidence=[Evidence(text=text, source=host.name) for text in _evidence(gpu)],
            fix=_fixes(host, entry, gpu),
        )


_PENDING_ROW = "a broken row of its memory is replaced at the next reset; work goes on until then"


def _troubles(gpu: Gpu) -> Iterator[str]:
    if gpu.row_remap_failed:
        yield "a broken row of its memory could not be replaced by a spare one"
    if gpu.ecc_uncorrected_now:
        yield f"{gpu.ecc_uncorrected_now} memory errors could not be corrected since the driver was loaded, 0 is wanted"
    if gpu.row_remap_pending:
        yield _PENDING_ROW
    if gpu.page_retirement_pending:
        yield "broken pages of its memory stay in use until the next reboot"


def _evidence(gpu: Gpu) -> Iterator[str]:
    counts = (
        ("uncorrectable errors since the driver was loaded", gpu.ecc_uncorrected_now),
        ("uncorrectable errors over the card's life", gpu.ecc_uncorrected),
        ("rows replaced", gpu.rows_remapped),
        ("pages retired", gpu.pages_retired),
    )
    yield f"GPU {gpu.index}: " + ", ".join(f"{what}: {count}" for what, count in counts if count is not None)


def _fixes(host: HostFacts, entry: HostEntry, gpu: Gpu) -> Iterator[Fix]:
    if container(host):
        yield Fix("Have the card reset, or the host rebooted, by whoever runs the machine around this container")
    else:
        reset = as_root(host, entry, f"nvidia-smi --gpu-reset -i {gpu.index}")
        yield Fix("Reset the card while nothing runs on it (or reboot the host)", (reset,))
    if gpu.row_remap_failed:
        yield Fix("Have the card replaced: by NVIDIA's rules a failed remapping is a reason to")
    if gpu.row_remap_failed or gpu.ecc_uncorrected_now:
        yield Fix(f"Leave the card out until then: --exclude {entry.name}:{gpu.index}")
