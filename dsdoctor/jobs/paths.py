"""The paths that a job names in its arguments: models, data, folders it writes to, and where they are on a host."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from dsdoctor.jobs.job import ResolvedJob, StageSettings

Role = Literal["model", "data", "output", "log"]

# Arguments by what their value is. A model may be a name on the hub; `data` and its like may be a data set's name.
_MODEL = frozenset(
    {
        *("model_name_or_path", "model_name", "model", "model_path", "base_model", "base_model_name_or_path"),
        *("pretrained_model_name_or_path", "pretrained_model", "pretrain", "adapter_name_or_path", "adapter_path"),
        *("lora_path", "peft_model_path", "tokenizer", "tokenizer_name", "tokenizer_name_or_path", "tokenizer_path"),
        *("teacher_model", "reward_model", "ref_model"),
    }
)
_DATA = frozenset(
    {
        *("data_dir", "data_root", "data_folder", "task_config_dir", "instruction_file", "tokenized_path", "image_dir"),
        *("train_file", "train_files", "validation_file", "valid_file", "dev_file", "eval_file", "test_file"),
    }
)
_PERHAPS_DATA = frozenset(
    {
        *("data", "dataset", "dataset_name", "dataset_path", "dataset_dir", "data_path", "train_data", "eval_data"),
        *("test_data", "train_data_path", "eval_data_path", "train_path", "eval_path", "test_path"),
    }
)
_OUTPUT = frozenset({"output_dir", "save_dir", "checkpoint_dir", "ckpt_dir"})
_LOG = frozenset({"log_file", "logfile", "log_path", "output_file", "predictions_file", "results_file", "metrics_file"})

_EXPLICIT = re.compile(r"[/~]|\.{1,2}(/|$)")
_LIMIT = 200  # paths of one job


@dataclass(frozen=True)
class NamedPath:
    """A path as the job has it, with the place that names it.

    `certain` says that it can be nothing but a path; otherwise it is one where it exists, and else perhaps the name of
    a model or data set on the hub (`google/t5-v1_1-large`).
    """

    path: str
    role: Role
    argument: str
    stage: str
    certain: bool

    @property
    def relative(self) -> bool:
        """Whether it begins at the folder that the job's program runs in: its code's."""
        return not self.path.startswith(("/", "~"))

    def at(self, code_folder: str) -> str:
        """Where it is on a host with the code in that folder."""
        return posixpath.normpath(posixpath.join(code_folder, self.path)) if self.relative else self.path


def named_paths(job: ResolvedJob) -> tuple[NamedPath, ...]:
    """The paths that the job's arguments name, each once for each role, at most 200.

    Left out are those that the plan makes (`${output_dir}`), addresses, and what an earlier stage is to write.
    """
    found: dict[tuple[str, Role], NamedPath] = {}
    written: list[str] = list(job.written)
    for stage in job.stages:
        named = list(_named(stage))
        for one in named:
            if one.role == "output" or not any(_below(one.path, folder) for folder in written):
                found.setdefault((one.path, one.role), one)
        written += [one.path for one in named if one.role == "output"]
    return tuple(found.values())[:_LIMIT]


def code_files(job: ResolvedJob) -> dict[str, str]:
    """What a script of launches of its own must find on every host at the path that it has here: where, by name.

    The programs that it starts with deepspeed or torchrun, and their DeepSpeed configs. Empty for a job file: its code
    is copied before the start, to a place of its own on each host.
    """
    if job.script is None:
        return {}
    found: dict[str, str] = {}
    for part in job.parts or (job,):
        config = part.deepspeed.path if part.deepspeed is not None else None
        for name in (part.job.script, config):
            if name and "$" not in name and part.job.engine in ("deepspeed", "torchrun"):
                found[name] = posixpath.normpath(posixpath.join(part.root, name))
    return dict(list(found.items())[:_LIMIT])


def work_folder(job: ResolvedJob, workdir: str | None) -> str:
    """The folder on a host that holds the code and the runs. `workdir` is the hostfile's word for that host."""
    return workdir or job.job.workdir or f"~/.dsdoctor/work/{job.name}"


def is_copied(path: str, exclude: Sequence[str]) -> bool:
    """Whether a path inside the code's folder goes to the hosts with it, by rsync's patterns."""
    parts = posixpath.normpath(path).split("/")
    if parts[0] == "..":
        return False
    for pattern in exclude:
        words = pattern.strip("/").split("/")
        anchored = pattern.startswith("/") or len(words) > 1
        for start in range(1 if anchored else len(parts)):
            part = parts[start : start + len(words)]
            if len(part) == len(words) and all(map(fnmatchcase, part, words)):
                return False
    return True


def _named(stage: StageSettings) -> Iterator[NamedPath]:
    for name, value in stage.args.items():
        key = name.lstrip("-").replace("-", "_")
        role = _role(key)
        for text in _texts(value) if role else ():
            certain = key not in _MODEL | _PERHAPS_DATA or bool(_EXPLICIT.match(text)) or text.count("/") > 1
            assert role is not None
            yield NamedPath(text, role, name, stage.name, certain)
    for path in stage.logs:
        yield NamedPath(path, "log", "redirection", stage.name, certain=True)


def _role(key: str) -> Role | None:
    if key in _MODEL:
        return "model"
    if key in _DATA or key in _PERHAPS_DATA:
        return "data"
    return "output" if key in _OUTPUT else "log" if key in _LOG else None


def _texts(value: Any) -> Iterator[str]:
    """The values that may be paths: no placeholders, no addresses, none of the words for "nothing"."""
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, str) or "\0" in item or "$" in item or "://" in item:
            continue
        if item.strip().lower() not in ("", "none", "null", "builtin", "auto", "true", "false"):
            yield item


def _below(path: str, folder: str) -> bool:
    """Whether a path is a folder, or lies in it, both written from the same place."""
    inside, outside = posixpath.normpath(path), posixpath.normpath(folder)
    return inside == outside or inside.startswith(f"{outside}/")
