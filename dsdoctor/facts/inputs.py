"""The paths that a job names."""

from __future__ import annotations

import msgspec


class InputEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A file or folder right below a path of the job. `digest` covers names and sizes, and small files' content."""

    name: str
    files: int
    total_bytes: int
    digest: str = ""


class ModelFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's folder holds, as transformers reads it. Weights are not read, only their headers or ends."""

    model_type: str | None = None  # of config.json
    dtype: str | None = None
    tokenizer_class: str | None = None  # of tokenizer_config.json
    tokenizer_files: tuple[str, ...] = ()
    weights: str = ""  # safetensors | bin | gguf; empty: none
    weights_bytes: int = 0
    largest_bytes: int = 0
    shards: int = 0
    missing: tuple[str, ...] = ()  # shards that the index names
    cut_off: tuple[str, ...] = ()  # weights whose own header, or missing end, says that they are not whole
    broken: tuple[str, ...] = ()  # config.json or an index that is not JSON
    adapter: bool = False  # adapter_config.json is there
    sizes: dict[str, bool | int | float | str] = {}  # of config.json: what memory and time depend on
    parameters: int | None = None  # that the safetensors headers count; None where they are not all there


class InputPath(msgspec.Struct, frozen=True, kw_only=True):
    """A path that the job names, as it is on this host. With `complete` false the walk was given up: lower bounds.

    `kind` is file, folder, missing, other, or unknown with an `error` (a mount that hangs).
    """

    path: str  # as the job has it
    role: str  # model | data | output | log | code
    at: str  # where that is on this host
    kind: str
    error: str | None = None
    nearest: str = ""  # the deepest part of the way that is there
    blocked: str | None = None  # the folder on the way that this user may not enter
    readable: bool = True
    writable: bool = True
    files: int = 0
    total_bytes: int = 0
    complete: bool = True
    digest: str = ""
    entries: tuple[InputEntry, ...] = ()  # the first 200
    unreadable: tuple[str, ...] = ()  # names inside that this user may not read or enter, the first 20
    unreadable_count: int = 0
    pointers: tuple[str, ...] = ()  # Git-LFS pointers in the place of files, the first 20
    checkpoints: tuple[str, ...] = ()  # folders and files in an output folder that a run left to go on from
    newest: float | None = None  # the newest of these, seconds since the epoch
    model: ModelFiles | None = None
    hub_at: str = ""  # of a path that is missing: the folder of its copy in the hub's cache
    hub: ModelFiles | None = None  # and what that folder holds


class InputFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The paths that the job names. Empty when the probe was asked about no job."""

    paths: tuple[InputPath, ...] = ()

    def find(self, path: str) -> InputPath | None:
        """What was learnt about a path, as the job has it; None when the probe was not asked about it."""
        return next((found for found in self.paths if found.path == path), None)
