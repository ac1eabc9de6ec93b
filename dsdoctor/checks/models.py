"""The models that a job names, and what is known of their kind: from a host's copy, else from the name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dsdoctor.checks.context import JobContext
from dsdoctor.facts import FactUnavailable, ModelFiles
from dsdoctor.jobs.paths import named_paths

_T5 = re.compile(r"(?:^|[/_.-])(?:flan-?|by|u)?m?t5(?=$|[/_.-])", re.IGNORECASE)
_T5_TYPES = frozenset({"t5", "mt5", "umt5", "longt5", "switch_transformers"})


@dataclass(frozen=True)
class NamedModel:
    """A model as the job names it: by which argument in which stage, and a host's copy of it, where one was seen."""

    path: str
    argument: str
    stage: str
    files: ModelFiles | None

    @property
    def is_t5(self) -> bool:
        """Whether it is of T5's family."""
        if self.files is not None and self.files.model_type:
            return self.files.model_type in _T5_TYPES
        return bool(_T5.search(self.path))

    @property
    def cited(self) -> str:
        """The argument that names it, for the evidence."""
        return f"{self.argument}: {self.path} (stage {self.stage})"


def models_of(context: JobContext) -> Iterator[NamedModel]:
    """The models that the job's arguments name; tokenizers are none."""
    for named in named_paths(context.job):
        if named.role == "model" and "tokenizer" not in named.argument:
            yield NamedModel(named.path, named.argument, named.stage, _copy(context, named.path))


def _copy(context: JobContext, path: str) -> ModelFiles | None:
    for member in context.cluster.examined if context.cluster is not None else ():
        try:
            found = member.facts.inputs.find(path) if member.facts is not None else None
        except FactUnavailable:
            continue
        files = (found.model or found.hub) if found is not None else None
        if files is not None:
            return files
    return None
