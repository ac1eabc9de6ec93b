"""A model's folder with something missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.sights import Sight, sights
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import InputPath, ModelFiles
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_SHOWN = 5

# Weights that transformers does not look for by itself; a program that asks for them knows.
_OTHER_WEIGHTS = (".pth", ".pt", ".ckpt", ".h5", ".msgpack", ".onnx", ".bin", ".safetensors", ".gguf", ".nemo")


@check(severity=Severity.ERROR, since="0.1")
def incomplete_model(cluster: Cluster, context: JobContext) -> Iterator[Finding | Skipped]:
    """A model's folder lacks weight files that its index names, or holds files that are cut off or not JSON.

    ## Why it matters
    A download or copy that was interrupted. "FileNotFoundError: …-00003-of-00033.safetensors", "Error while
    deserializing header: InvalidHeaderDeserialization", "PytorchStreamReader failed finding central directory", after
    minutes of loading, on one host, while the others wait.

    ## How to fix it
    Fetch the missing files again.

    ## Source
    The weight_map of *.index.json; the length that a safetensors file's header gives; the end of the archive that
    torch.save writes.
    """
    seen, skipped = sights(incomplete_model, cluster, context, "model")
    yield from skipped
    for sight in seen:
        for member, path in sight.found:
            if path.model is None:
                continue
            for what, severity in _defects(path, path.model, sight, context):
                yield incomplete_model.finding(
                    f"{sight.called()} is not whole: {what}",
                    hosts=[member.name],
                    severity=severity,
                    evidence=[Evidence(text=f"{path.at}: {what}", source=member.name)],
                    fix=_fixes(sight, member),
                )


def _defects(
    path: InputPath, model: ModelFiles, sight: Sight, context: JobContext
) -> Iterator[tuple[str, Severity | None]]:
    if model.missing:
        yield f"{len(model.missing)} of {model.shards} weight files are missing: {_shown(model.missing)}", None
    cut_off = [name for name in model.cut_off if name not in path.pointers]
    if cut_off:
        yield (
            f"{_shown(cut_off)} {'ends' if len(cut_off) == 1 else 'end'} before the end that its own header gives",
            None,
        )
    if model.broken:
        yield f"{_shown(model.broken)} {'is' if len(model.broken) == 1 else 'are'} no JSON", None
    if "tokenizer" in sight.named.argument or model.model_type is None or model.adapter:
        return
    names = [entry.name for entry in path.entries]
    if not model.weights and path.complete and not any(name.endswith(_OTHER_WEIGHTS) for name in names):
        yield "it has a config.json and no weights", Severity.WARNING
    if (
        not model.tokenizer_files
        and "preprocessor_config.json" not in names
        and not any(context.argument("tokenizer_name", "tokenizer_name_or_path", "tokenizer_path"))
    ):
        yield "it has no tokenizer's files", Severity.WARNING


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _fixes(sight: Sight, member: Member) -> Iterator[Fix]:
    whole = [
        other
        for other, path in sight.found
        if other is not member and path.model and path.model.weights and not (path.model.missing or path.model.cut_off)
    ]
    if whole:
        yield Fix(f"Copy it anew from {whole[0].name}, which has all of it")
    yield Fix("Fetch it anew: `hf download` goes on with what is missing, and checks what is there")
