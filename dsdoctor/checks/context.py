"""What a check may know of the job: its stages' complete arguments, its variables, its DeepSpeed config."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.jobs.job import DeepSpeedConfig, ResolvedJob, StageSettings, Variables
from dsdoctor.jobs.program import Program
from dsdoctor.jobs.unknown import Unknown
from dsdoctor.report.model import Evidence

# What transformers' HfArgumentParser (string_to_bool) and shells write for "yes".
_YES = frozenset({"true", "yes", "t", "y", "1", "on"})

# Arguments of transformers.TrainingArguments that other programs hardly have: with one of them, or with an "auto" in
# the DeepSpeed config (a word that only transformers and accelerate resolve), the program is taken for a Trainer's.
_TRAINER_ARGUMENTS = frozenset(
    {
        "per_device_train_batch_size",
        "per_device_eval_batch_size",
        "lr_scheduler_type",
        "logging_strategy",
        "save_strategy",
        "eval_strategy",
        "evaluation_strategy",
        "overwrite_output_dir",
        "predict_with_generate",
    }
)


# How evidence names an argument or a variable of the job.
_CITED = re.compile(r"(?:env: (?P<variable>\w+)|(?P<argument>[^\s:]+):)(?:.*\(stage (?P<stage>[^()]+)\)$)?", re.DOTALL)


def is_true(value: Any) -> bool:
    """Whether a setting means yes: true, 1, or one of the words that argument parsers take for it.

    Raises:
        FactUnavailable: it stands in a script as `$5` or its like, and nobody can tell what it will be.
    """
    if isinstance(value, Unknown):
        raise FactUnavailable("job", f"{value} is not known: {value.reason}")
    return str(value).strip().lower() in _YES


def plain(name: str) -> str:
    """An argument's name as Python has it, whether it is written with dashes in the job file or not."""
    return name.lstrip("-").replace("-", "_")


def value_of(stage: StageSettings, name: str) -> Any:
    """The value of a stage's argument, None when it is not given."""
    return next((value for key, value in stage.args.items() if plain(key) == name), None)


@dataclass(frozen=True)
class JobContext:
    """The job, and the cluster where one is at hand.

    `planned` says that the environment in the hosts' facts is the one that a plan of this job gives them, the job's
    own variables already laid over it.
    """

    job: ResolvedJob
    cluster: Cluster | None = None
    planned: bool = False

    @property
    def deepspeed(self) -> DeepSpeedConfig | None:
        """The job's DeepSpeed config, None when it has none."""
        return self.job.deepspeed

    @property
    def stages(self) -> tuple[StageSettings, ...]:
        """The stages, each with its complete arguments."""
        return self.job.stages

    def argument(self, *names: str) -> Iterator[tuple[StageSettings, str, Any]]:
        """Every place where a stage sets one of these arguments: stage, name, value. null counts as unset."""
        for stage in self.stages:
            for name, value in stage.args.items():
                if plain(name) in names and value is not None:
                    yield stage, name, value

    def uses_trainer(self, stage: StageSettings) -> bool:
        """Whether the stage's program looks like one built on transformers' Trainer, which compares settings itself."""
        if not stage.complete or self._starts_engine:  # what is not among the arguments may be among the others
            return False
        if self.surely_trainer(stage):
            return True
        return self.deepspeed is not None and _has_auto(self.deepspeed.value)

    def surely_trainer(self, stage: StageSettings) -> bool:
        """Whether the program is one built on the Trainer by its source, or by arguments that no other has."""
        if self._starts_engine:
            return False
        given = any(plain(name) in _TRAINER_ARGUMENTS for name in stage.args)
        return given or (self.program is not None and "trainer" in self.program.marks)

    @property
    def program(self) -> Program | None:
        """The source of the job's program, where it is at hand."""
        return self.job.programs.get(self.job.job.script or self.job.job.module or "")

    @property
    def _starts_engine(self) -> bool:
        """Whether the program calls deepspeed.initialize itself and makes no Trainer."""
        marks = self.program.marks if self.program is not None else {}
        return "engine" in marks and "trainer" not in marks

    def variables(self, entry: HostEntry, host: HostFacts | None) -> dict[str, str]:
        """The variables that the job file sets for a host: of its GPU kind, the job's over them, the stages' on top."""
        return {name: value for name, value in self._layered(entry, host).items() if value is not None}

    def unset(self, entry: HostEntry, host: HostFacts | None) -> frozenset[str]:
        """The variables that the job file takes away from what a session on the host has."""
        return frozenset(name for name, value in self._layered(entry, host).items() if value is None)

    def _layered(self, entry: HostEntry, host: HostFacts | None) -> Variables:
        names = [entry.gpu] if entry.gpu else []
        with suppress(FactUnavailable):
            names += [gpu.name for gpu in host.gpu.gpus] if host else []
        result: Variables = {}
        for kind, variables in self.job.job.gpu_env.items():
            if any(kind.lower() in name.lower() for name in names):
                result.update(variables)
        result.update(self.job.env)
        for stage in self.stages:
            result.update(stage.env)
        return result

    def versions(self, package: str) -> dict[str, str]:
        """The installed version by host, for the hosts where the packages are known and this one is installed."""
        versions: dict[str, str] = {}
        for member in self.cluster.examined if self.cluster else ():
            try:
                version = member.facts.packages.version(package) if member.facts else None
            except FactUnavailable:
                continue
            if version:
                versions[member.name] = version
        return versions

    def cite(self, text: str) -> Evidence:
        """A piece of evidence out of the job file; in a script with the line of the argument or variable it names."""
        return Evidence(text=text, source=self.job.source, line=self._line(text))

    def _line(self, text: str) -> int | None:
        """The line of what a piece of evidence names: `learning_rate: 1e-3 (stage one)`, `env: NCCL_DEBUG=INFO`."""
        found = _CITED.match(text)
        if found is None:
            return None
        wanted = f"env {found['variable']}" if found["variable"] else plain(found["argument"])
        for stage in self.stages:
            if found["stage"] in (None, stage.name):
                for name, line in stage.lines.items():
                    if name == wanted or (not found["variable"] and plain(name) == wanted):
                        return line
        return None


def _has_auto(value: Any) -> bool:
    """Whether "auto" stands anywhere in a DeepSpeed config."""
    if isinstance(value, dict):
        return any(_has_auto(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_auto(item) for item in value)
    return bool(value == "auto")
