"""A job file and a DeepSpeed config of any text: a value, or a refusal that names the file."""

from collections.abc import Iterator
from pathlib import Path

from dsdoctor.jobs.dsconfig import get, line_of, parse_config
from dsdoctor.jobs.job import parse_job, resolve
from dsdoctor.jobs.paths import named_paths
from dsdoctor.yamlfile import FileError

LONGEST = 4000  # bytes of an input
ROOT = Path(__file__).resolve().parent.parent.parent


def one(data: bytes) -> None:
    """The first byte chooses which of the two it is."""
    text = data[1:].decode("utf-8", "replace")
    try:
        if data[:1] == b"{":
            config = parse_config(data.decode("utf-8", "replace"), "file")
            for key in ("zero_optimization.stage", "optimizer.params.lr", "train_batch_size"):
                get(config, key)
                line_of(config, key)
        else:
            job = parse_job(text, "file")
            for profile in (None, *job.profiles):
                named_paths(resolve(job, "file", profile=profile, settings=("lr=1e-4",)))
    except FileError as refused:
        assert str(refused).startswith("file")


def seeds() -> Iterator[bytes]:
    """The jobs and configs of the package."""
    for path in sorted((ROOT / "launch").rglob("*.yaml")):
        yield b"\n" + path.read_bytes()
    for path in sorted((ROOT / "launch").rglob("*.json")):
        yield path.read_bytes()
    yield b'{"train_batch_size": "auto", "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}}}'
    yield b"\nname: a\nscript: t.py\nstages: [{name: one, args: {lr: 1e-4}}]\nprofiles: {p: {args: {x: [1, null]}}}\n"


def words() -> Iterator[str]:
    """Keys, YAML's marks, JSON's."""
    yield from (
        "name: ",
        "module: ",
        "script: ",
        "stages:",
        "- name: ",
        "args:",
        "env:",
        "profiles:",
        "outputs:",
        "sync:",
        "engine: program\n",
        "engine: deepspeed\n",
        "rendezvous: c10d\n",
        "command: [a, ${rank}]\n",
        "launcher_args: [--x=1]\n",
    )
    yield from (
        "requires_python: ",
        "requirements: ",
        '"zero_optimization": {',
        "1e-4",
        "NaN",
        "Infinity",
        "&a ",
        "*a",
        "<<: ",
    )
