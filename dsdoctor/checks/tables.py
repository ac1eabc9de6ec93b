"""The package's own data files, read once: variables that NCCL and torch read, releases that clash, the checks' cases.

This is the one module of the room that opens files.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Literal

import msgspec

from dsdoctor import yamlfile
from dsdoctor.facts import ConfigKeyFacts
from dsdoctor.jobs.dsconfig import KNOWN_RELEASE
from dsdoctor.report.model import Severity


class Variables(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`data/variables.yaml`: the environment variables of NCCL and of torch's distributed part."""

    nccl: dict[str, tuple[str, str | None]]  # name -> first version that reads it, last version (None: still read)
    renamed: dict[str, tuple[str, str]]  # old name -> the name torch gave it, the torch that reads that
    torch: tuple[str, ...]
    plugins: tuple[str, ...]  # prefixes
    not_read: tuple[str, ...]  # NCCL_ names that build scripts and images set, which nothing at run time reads
    newest: str  # the newest NCCL the table knows


class Values(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`data/values.yaml`: how the values of these variables are read."""

    text: tuple[str, ...]  # of NCCL's; it reads the others as numbers
    words: dict[str, tuple[str, ...]]
    lists: dict[str, tuple[str, ...]]
    levels: tuple[str, ...]
    level_words: tuple[str, ...]
    ranges: dict[str, tuple[int, int]]
    torch_switches: tuple[str, ...]
    torch_numbers: tuple[str, ...]
    torch_words: dict[str, tuple[str, ...]]


class BadSetJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a job must do for a set of versions to matter; everything that is given must hold."""

    deepspeed: bool = False  # it has a DeepSpeed config
    trainer: bool = False  # its program is built on transformers' Trainer
    zero_stages: tuple[int, ...] = ()
    accumulates: bool = False  # more than one micro-batch a step
    weights: str = ""  # the model's weights lie in this form: "bin"
    fsdp2: bool = False  # its accelerate config asks for FSDP in its second version
    config: dict[str, Any] = {}  # values in the DeepSpeed config, by dotted path


class BadSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of `data/known_bad.yaml`: releases that do not go together although pip installs them side by side."""

    name: str
    packages: dict[str, str]  # ranges; `python` is the interpreter
    severity: Severity
    effect: str
    fixes: tuple[tuple[str, ...], ...]  # ways out, each the requirements to install
    sources: tuple[str, ...]
    job: BadSetJob | None = None
    jobless: Severity | None = None  # of a row with `job`, where no job is known


class BadModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry of `data/models.yaml`: a model that is broken as published."""

    name: str  # a pattern for the name or path that a job gives
    why: str
    instead: str
    source: str
    tokenizer_class: str | None = None  # by which copies under other names are known


class ConfigKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`data/deepspeed_keys.json`: the keys of a DeepSpeed config, and what older releases read at the top.

    Written by `python -m tests.checks.deepspeed_table` from the sources of the release that a constant names; a test
    compares it with the DeepSpeed that is installed beside the tests.
    """

    keys: ConfigKeyFacts
    earlier: frozenset[str]


def text(folder: str, name: str) -> str:
    """The text of a data file. Raises FileNotFoundError."""
    return (files("dsdoctor.checks") / folder / name).read_text(encoding="utf-8")


@cache
def variables() -> Variables:
    """The table of environment variables."""
    name = "variables.yaml"
    content = text("data", name)
    return yamlfile.convert(yamlfile.parse(content, name), Variables, name, content)


@cache
def values() -> Values:
    """The table of how values are read."""
    name = "values.yaml"
    content = text("data", name)
    return yamlfile.convert(yamlfile.parse(content, name), Values, name, content)


class XidMeaning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry of `data/xids.yaml`."""

    what: str
    action: Literal["reset", "reboot", "power", "nvlink", "memory"]


@cache
def xids() -> dict[int, XidMeaning]:
    """The Xid numbers that speak of hardware or driver."""
    name = "xids.yaml"
    content = text("data", name)
    return yamlfile.convert(yamlfile.parse(content, name), dict[int, XidMeaning], name, content)


@cache
def known_bad() -> tuple[BadSet, ...]:
    """The table of releases that do not go together."""
    name = "known_bad.yaml"
    content = text("data", name)
    return yamlfile.convert(yamlfile.parse(content, name), tuple[BadSet, ...], name, content)


@cache
def bad_models() -> tuple[BadModel, ...]:
    """The table of models that are known to be broken."""
    name = "models.yaml"
    content = text("data", name)
    return yamlfile.convert(yamlfile.parse(content, name), tuple[BadModel, ...], name, content)


def training_arguments() -> frozenset[str]:
    """The names of all arguments that any release of transformers' training arguments has had."""
    return arguments_of("now", "seq2seq", "earlier")


@cache
def arguments_of(*groups: str) -> frozenset[str]:
    """The names of transformers' training arguments in these groups of the table: now, seq2seq, earlier."""
    name = "training_arguments.yaml"
    content = text("data", name)
    table = yamlfile.convert(yamlfile.parse(content, name), dict[str, str], name, content)
    return frozenset(word for group in groups for word in table[group].split())


@cache
def config_keys() -> ConfigKeys:
    """The table of the keys of a DeepSpeed config; the names in a block stand in it as words of one text."""
    value = msgspec.json.decode(text("data", "deepspeed_keys.json"))
    keys = {
        part: {block: words.split() for block, words in one.items()} if part not in ("old", "removed") else one
        for part, one in value.items()
        if part != "earlier"
    }
    return msgspec.convert({"keys": {"version": KNOWN_RELEASE, **keys}, "earlier": value["earlier"]}, ConfigKeys)


def case_names() -> tuple[str, ...]:
    """The checks that have a file of cases."""
    folder = files("dsdoctor.checks") / "cases"
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml")))
