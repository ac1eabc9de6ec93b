"""The job asks for flash attention, and a host cannot do it."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.attention import asked_for
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.installed import versions
from dsdoctor.checks.remedy import install, on_host
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_OLDEST_CARD = (8, 0)
_WITHOUT = Fix("Do without: attn_implementation: sdpa (torch's own, which every card can do)")


@check(severity=Severity.ERROR, since="0.1")
def flash_attn_unusable(host: HostFacts, entry: HostEntry, context: JobContext) -> Iterator[Finding | Skipped]:
    """The job asks for flash attention 2, and a host has no package for it, or a card that cannot do it.

    ## Why it matters
    `FlashAttention only supports Ampere GPUs or newer`, `FlashAttention2 has been toggled on, but it cannot be used ...
    the package flash_attn seems to be not installed`: after the model was loaded, on that host alone. V100 (7.0) and
    T4 (7.5) have no flash attention 2 at all.

    ## How to fix it
    `attn_implementation: sdpa` works on every card. Else install flash-attn on all hosts, built for their torch
    (built-for-another-torch compares), and leave out the hosts whose cards are too old.

    ## Source
    flash-attention's README ("Ampere, Ada, or Hopper GPUs") and setup.py; transformers, modeling_utils.py.
    """
    asked = list(asked_for(context))
    if not asked or host.torch.cuda is None:
        return
    for gpu in host.gpu.gpus:
        card = gpu.compute_capability
        if card is not None and card < _OLDEST_CARD:
            yield flash_attn_unusable.finding(
                f"the job asks for flash attention, which {gpu.name} cannot do: it has compute capability "
                f"{card[0]}.{card[1]}, and 8.0 is wanted",
                evidence=[*asked, Evidence(text=f"GPU {gpu.index}: {gpu.name}, {card[0]}.{card[1]}", source=host.name)],
                fix=[_WITHOUT],
            )
            return
    if not {"flash-attn", "flash-attn-3"} & set(versions(host)):
        command = install(host, "flash-attn", "--no-build-isolation")
        yield flash_attn_unusable.finding(
            "the job asks for flash attention, and the package flash-attn is not installed",
            evidence=[*asked, Evidence(text="no distribution flash-attn", source=host.name)],
            fix=[_WITHOUT, Fix("Install it, built for the installed torch", (on_host(entry, command),))],
        )
