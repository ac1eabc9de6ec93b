"""A GPU runs below its clocks because it is too hot or gets too little power."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import job_gpus
from dsdoctor.checks.remedy import on_host
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import Gpu, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# nvmlClocksEventReasons of nvml.h. Not among them: idle (0x1), clocks somebody has set (0x2) and the power limit (0x4),
# which a card under load reaches as a matter of course.
_HARDWARE = 0x8
_REASONS = {
    0x20: "it is too hot (the driver slows it down)",
    0x40: "it is too hot (the hardware slows it down)",
    0x80: "the power supply asks for less (power brake)",
}


@check(severity=Severity.WARNING, since="0.1")
def gpu_throttled(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """A GPU of the job is slowed down, at this moment, by heat or by its power supply.

    ## Why it matters
    Every step waits for the slowest rank: one hot card slows all of them down, by half or more. A card that is
    throttled before the job has begun will be worse under load.

    ## How to fix it
    Heat: fans, dust, air that reaches the card, the room. Power: both cables of the card, the supply's size, the limit
    of the rack.

    ## Source
    NVML's clocks-event reasons (nvmlClocksEventReasons). Reaching the power limit under load is usual and not counted.
    """
    for gpu in job_gpus(host, entry):
        reasons = gpu.throttle_reasons or 0
        said = [text for bit, text in _REASONS.items() if reasons & bit]
        if reasons & _HARDWARE and not said:
            said = ["the hardware slows it down: heat, or too little power"]
        if not said:
            continue
        heat = f", {gpu.temperature_c} °C" if gpu.temperature_c is not None else ""
        yield gpu_throttled.finding(
            f"GPU {gpu.index} ({gpu.name}{heat}) runs below its clocks: {'; '.join(said)}",
            evidence=[Evidence(text=f"clocks-event reasons of GPU {gpu.index}: {reasons:#x}{heat}", source=host.name)],
            fix=_fixes(entry, gpu),
        )


def _fixes(entry: HostEntry, gpu: Gpu) -> Iterator[Fix]:
    shown = on_host(entry, f"nvidia-smi -q -i {gpu.index} -d TEMPERATURE,POWER,PERFORMANCE")
    yield Fix("See temperature, power and reasons", (shown,))
    yield Fix("Heat: fans, dust, air to the card. Power: the card's cables, the size of the supply, the rack's limit")
