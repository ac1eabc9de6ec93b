"""Words in a model's path that a program takes for something else."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import suppress

from dsdoctor.checks.context import JobContext, value_of
from dsdoctor.checks.engine import check
from dsdoctor.cluster import Cluster
from dsdoctor.facts import FactUnavailable, ModelFiles
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# Programs, and the words of a model's path by which each chooses what to do. Read in their published sources.
_BY_LLAMA = frozenset({"run_uie_lora.py", "run_N_lora.py", "dxm_llm_main.py"})
_BY_ADAPTER = frozenset({"run_uie_lora.py", "run_N_lora.py"})


@check(severity=Severity.WARNING, since="0.1")
def path_trap(cluster: Cluster | None, context: JobContext) -> Iterator[Finding | Skipped]:
    """The model's path holds a word by which this program chooses the wrong kind of model.

    ## Why it matters
    O-LoRA's and N-LoRA's scripts take any path with "adapter" in it for an adapter, and any with "llama" in it, in any
    case and anywhere, for a LLaMA; XuanYuan's chooses its tokenizer so. A T5 below /data/llama-team/ is then loaded as
    a LLaMA, and a base model in a folder my_adapters fails for want of an adapter_config.json.

    ## How to fix it
    Move the model, or let a link with another name lead to it.

    ## Source
    O-LoRA's src/run_uie_lora.py, N-LoRA's src/run_N_lora.py and XuanYuan's dxm_llm_main.py, as published.
    """
    script = posixpath.basename(context.job.job.script or "")
    for number, stage in enumerate(context.stages):
        path = str(value_of(stage, "model_name_or_path") or "")
        if not path or "$" in path:
            continue
        model = _known(path, cluster)
        for word in _words(script, path, model, first=number == 0):
            yield path_trap.finding(
                f"{script} takes the model {path} for {word}, because of a word in its path",
                evidence=[context.cite(f"model_name_or_path: {path} (stage {stage.name})"), *_type(context, model)],
                fix=[Fix("Move the model, or let a symbolic link with another name lead to it")],
            )
            return


def _words(script: str, path: str, model: ModelFiles | None, *, first: bool) -> Iterator[str]:
    """What the program takes the path for, where that is wrong."""
    adapter = posixpath.basename(path.rstrip("/")).endswith("adapter") and not first
    if script in _BY_ADAPTER and "adapter" in path and not adapter and not (model and model.adapter):
        yield "an adapter"
    if script in _BY_LLAMA and "llama" in path.lower() and not adapter:
        named = "llama" in posixpath.basename(path.rstrip("/")).lower()
        kind = (model.model_type or "").lower() if model else ""
        if (kind and "llama" not in kind) or (not kind and not named):
            yield "a LLaMA"


def _known(path: str, cluster: Cluster | None) -> ModelFiles | None:
    """The model's files on the first host that has them."""
    for member in cluster.examined if cluster is not None else ():
        with suppress(FactUnavailable):
            found = member.facts.inputs.find(path) if member.facts is not None else None
            if found is not None and found.model is not None:
                return found.model
    return None


def _type(context: JobContext, model: ModelFiles | None) -> list[Evidence]:
    return [Evidence(text=f"config.json: model_type {model.model_type}")] if model and model.model_type else []
