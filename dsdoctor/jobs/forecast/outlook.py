"""A job's stages against what is known of its model: which sizes hold, and how each stage trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from dsdoctor.cluster import Cluster
from dsdoctor.facts import FactUnavailable, ModelFiles
from dsdoctor.jobs.forecast.shape import ModelShape, UnknownModelError, shape_of
from dsdoctor.jobs.forecast.training import Training, training_of
from dsdoctor.jobs.job import ResolvedJob, StageSettings
from dsdoctor.jobs.paths import NamedPath, named_paths


class UnknownJobError(ValueError):
    """What the job trains cannot be told from here; the message says why."""


@dataclass(frozen=True)
class Outlook:
    """A stage whose model is known: its sizes, where they were read, and how it trains."""

    stage: StageSettings
    shape: ModelShape
    training: Training
    parameters: int | None  # as the weight files' headers count them
    source: str


def outlooks(job: ResolvedJob, cluster: Cluster) -> tuple[Outlook, ...]:
    """The stages that differ in what they need, each once.

    Raises:
        UnknownJobError: the job names no model by a path, no host has its config.json, or its architecture is unknown.
    """
    shape, files, source = _model(job, cluster)
    found: dict[Training, Outlook] = {}
    for stage in job.stages:
        training = fitted(shape, training_of(job, stage, cluster.ranks, files.dtype))
        # A base in the folder of an adapter or in other precision would count otherwise; the headers hold for all.
        found.setdefault(training, Outlook(stage, shape, training, _plausible(shape, files), source))
    return tuple(found.values())


def fitted(shape: ModelShape, training: Training) -> Training:
    """The training with its lengths as the architecture sees them: a decoder alone reads source and target as one."""
    length = training.length
    if length is None:
        return training
    if shape.decoder_layers:
        return replace(training, target_length=training.target_length or length)
    return replace(training, length=length + training.target_length, target_length=0)


def _plausible(shape: ModelShape, files: ModelFiles) -> int | None:
    """The headers' count where it can be this model's: a vocabulary may have grown, an adapter is far smaller."""
    count = files.parameters
    if count is None or files.adapter or not 0.5 < count / shape.parameters < 2:
        return None
    return count


def _model(job: ResolvedJob, cluster: Cluster) -> tuple[ModelShape, ModelFiles, str]:
    named = list(_bases(job))
    if not named:
        raise UnknownJobError("the job names no model by a path")
    reasons: list[str] = []
    for one in named:
        for host, files, at in _files(one, cluster, reasons):
            if not files.sizes:
                reasons.append(f"{at} on {host} has no config.json with sizes")
                continue
            try:
                return shape_of({**files.sizes, "model_type": files.model_type}), files, f"{at}/config.json on {host}"
            except UnknownModelError as unknown:
                reasons.append(str(unknown))
    raise UnknownJobError(reasons[0] if reasons else f"{named[0].path} was not looked at on any host")


def names_model(job: ResolvedJob) -> bool:
    """Whether the job says by a path what it trains, so that there is something to forecast from."""
    return any(True for _ in _bases(job))


def _bases(job: ResolvedJob) -> Iterator[NamedPath]:
    """The models that the job trains: no tokenizer, no adapter, no teacher."""
    for named in named_paths(job):
        word = named.argument.lstrip("-").replace("-", "_")
        if named.role == "model" and not any(
            other in word for other in ("tokenizer", "adapter", "lora", "peft", "teacher", "reward", "ref_model")
        ):
            yield named


def _files(named: NamedPath, cluster: Cluster, reasons: list[str]) -> Iterable[tuple[str, ModelFiles, str]]:
    for member in cluster.examined:
        if member.facts is None:
            continue
        try:
            path = member.facts.inputs.find(named.path)
        except FactUnavailable as missing:
            reasons.append(str(missing))
            continue
        if path is None:
            reasons.append(f"the probe was not asked about {named.path}")
        elif path.model is not None:
            yield member.name, path.model, path.at
        elif path.hub is not None:
            yield member.name, path.hub, path.hub_at
        elif named.certain or path.kind != "missing":
            reasons.append(f"there is no config.json in {path.at} on {member.name}")
        else:
            reasons.append(f"{named.path} is a name on the hub, and no copy of it was found on {member.name}")
