"""Which commands start training, and how their words part: the launcher's options, the program, its arguments.

The tables are of the options that take a value; a test compares them with the launchers' own parsers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dsdoctor.jobs.script.model import Call, Command, Launcher, Word

_PYTHON = re.compile(r"(?:python|pypy)[\d.]*")

# torch/distributed/run.py and launch.py (2.13), deepspeed/launcher/runner.py (0.19.8), accelerate 1.15. Options may be
# written with dashes or underscores; the tables have dashes.
TORCHRUN = frozenset(
    {
        *("--nnodes", "--nproc-per-node", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-id", "--rdzv-conf"),
        *("--max-restarts", "--monitor-interval", "--start-method", "--event-log-handler", "--role", "--log-dir"),
        *("-r", "--redirects", "-t", "--tee", "--local-ranks-filter", "--duplicate-stdout-filters", "--node-rank"),
        *("--duplicate-stderr-filters", "--master-addr", "--master-port", "--local-addr", "--logs-specs"),
        *("--numa-binding", "--signals-to-handle", "--shutdown-timeout"),
    }
)
DEEPSPEED = frozenset(
    {
        *("-H", "--hostfile", "-i", "--include", "-e", "--exclude", "--num-nodes", "--num-gpus", "--num-accelerators"),
        *("--master-port", "--master-addr", "--node-rank", "--launcher", "--launcher-args", "--autotuning"),
        *("--enable-each-rank-log", "--bind-core-list", "--ssh-port", "--venv-script", "--log-level"),
        *("--min-elastic-nodes", "--max-elastic-nodes"),
    }
)
# Of accelerate's many options these take none; all others do.
ACCELERATE_FLAGS = frozenset(
    {
        *("-h", "--help", "--quiet", "-q", "--cpu", "--multi-gpu", "--tpu", "--enable-cpu-affinity", "--use-deepspeed"),
        *("--dynamo-use-fullgraph", "--dynamo-use-dynamic", "--dynamo-use-regional-compilation", "--use-fsdp"),
        *("--use-parallelism-config", "--use-megatron-lm", "--same-network", "-m", "--module", "--no-python"),
        *("--tpu-cluster", "--no-tpu-cluster", "--tpu-use-sudo", "--downcast-bf16", "--fp8-use-autocast-during-eval"),
        *("--debug", "--use-xpu", "--ipex"),
    }
)
_PYTHON_VALUES = frozenset({"-W", "-X", "--check-hash-based-pycs"})
_SRUN = frozenset(
    {
        *("-n", "-N", "-c", "-p", "-w", "-x", "-A", "-t", "-J", "-o", "-e", "-i", "-D", "-G", "-C", "-d", "-q", "-m"),
        *("-M", "-r", "-T", "-a"),
        # srun(1): long options that take a value, which may stand behind a blank
        *("--nodes", "--ntasks", "--ntasks-per-node", "--ntasks-per-gpu", "--cpus-per-task", "--gres", "--gpus"),
        *("--gpus-per-node", "--gpus-per-task", "--gpu-bind", "--cpu-bind", "--mem-bind", "--mem", "--mem-per-cpu"),
        *("--mem-per-gpu", "--nodelist", "--exclude", "--partition", "--account", "--time", "--job-name", "--output"),
        *("--error", "--input", "--chdir", "--constraint", "--dependency", "--qos", "--distribution", "--relative"),
        *("--threads", "--array", "--mpi", "--export", "--container-image", "--container-mounts", "--jobid"),
        *("--container-name", "--container-workdir", "--reservation", "--hint", "--tres-per-task", "--wait"),
    }
)
_MPIRUN_VALUES = frozenset(
    {
        *("-n", "-np", "-c", "-N", "-H", "-host", "-hostfile", "-machinefile", "-f", "-ppn", "-x", "-wdir", "-map-by"),
        *("-bind-to", "-rank-by", "-npernode", "--np", "--host", "--hostfile", "--machinefile", "--map-by"),
        *("--bind-to", "--rank-by", "--npernode", "--wdir"),
    }
)
_MPIRUN_TWO = frozenset({"-mca", "--mca", "-genv", "-env", "--prtemca", "--gmca"})

# Words before a command, with how many further words each takes.
_PREFIXES = {
    "nohup": 0,
    "exec": 0,
    "time": 0,
    "command": 0,
    "setsid": 0,
    "sudo": 0,
    "nice": 0,
    "ionice": 0,
    "stdbuf": 0,
}
_PREFIX_VALUES = {"nice": {"-n"}, "timeout": {"-s", "-k"}, "numactl": set(), "ionice": {"-c", "-n"}, "sudo": {"-u"}}
_NO_PROGRAM = frozenset({"pip", "venv", "http.server", "json.tool", "ipykernel", "site", "timeit", "ensurepip"})


def call_of(command: Command) -> Call | None:
    """The call that a command is; None for a command that starts no program of Python's."""
    words, wrappers = _unwrapped(command.words)
    if not words:
        return None
    return _call(command, words, wrappers)


def unwrapped(words: Sequence[Word]) -> tuple[Word, ...]:
    """The words of a command behind `nohup`, `env X=1` and their kin; none where srun or mpirun start it many times."""
    rest, wrappers = _unwrapped(tuple(words))
    return () if wrappers else rest


def _call(command: Command, words: tuple[Word, ...], wrappers: tuple[tuple[Word, ...], ...]) -> Call | None:
    name = _name(words[0])
    rest = words[1:]
    if name == "deepspeed":
        return _with_values(command, "deepspeed", rest, DEEPSPEED, wrappers)
    if name in ("torchrun", "torch.distributed.run", "torch.distributed.launch"):
        return _with_values(command, "torchrun", rest, TORCHRUN, wrappers)
    if name in ("accelerate", "accelerate-launch"):
        if name == "accelerate" and not (rest and rest[0].text == "launch"):
            return None
        return _accelerate(command, rest[1:] if name == "accelerate" else rest, wrappers)
    if name in ("llamafactory-cli", "lmf"):
        if not rest or rest[0].text not in ("train", "api", "export"):
            return None
        program = Word(name, words[0].line, words[0].column)
        return Call(command, "llamafactory", (), program, False, rest, wrappers)
    if _PYTHON.fullmatch(name):
        return _python(command, rest, wrappers)
    if wrappers and name.endswith((".py",)):
        return Call(command, _launcher_of(wrappers), (), words[0], False, rest, wrappers)
    return None


def _with_values(
    command: Command,
    launcher: Launcher,
    words: Sequence[Word],
    values: frozenset[str],
    wrappers: tuple[tuple[Word, ...], ...],
) -> Call:
    end = place = 0
    module = no_python = False
    while place < len(words) and words[place].text.startswith("-"):
        name, equals, _ = words[place].text.partition("=")
        spelt = _dashed(name)
        module = module or spelt in ("-m", "--module")
        no_python = no_python or spelt == "--no-python"
        place += 2 if _takes_value(spelt, values) and not equals else 1
        end = min(place, len(words))
    options = tuple(words[:end])
    if end >= len(words):
        return Call(command, launcher, options, None, module, (), wrappers)
    program = words[end]
    if program.many:
        return Call(command, launcher, options, None, module, tuple(words[end:]), wrappers)
    if no_python:  # the program is whatever comes; its own name is the first word
        return Call(command, launcher, options, program, False, tuple(words[end + 1 :]), wrappers)
    return Call(command, launcher, options, program, module, tuple(words[end + 1 :]), wrappers)


def _takes_value(option: str, values: frozenset[str]) -> bool:
    """Whether the next word is the option's value. argparse takes the beginning of a long option for it."""
    return option in values or (len(option) > 4 and any(value.startswith(option) for value in values))


def _accelerate(command: Command, words: Sequence[Word], wrappers: tuple[tuple[Word, ...], ...]) -> Call:
    values = frozenset(
        _dashed(word.text.partition("=")[0])
        for word in words
        if word.text.startswith("-") and _dashed(word.text) not in ACCELERATE_FLAGS
    )
    return _with_values(command, "accelerate", words, values, wrappers)


def _python(command: Command, words: Sequence[Word], wrappers: tuple[tuple[Word, ...], ...]) -> Call | None:
    place = 0
    while place < len(words) and words[place].text.startswith("-"):
        word = words[place].text
        if word == "-m":
            return _module(command, words[place + 1 :], wrappers)
        if word in ("-c", "-", "-V", "--version", "-h", "--help"):
            return None
        place += 2 if word in _PYTHON_VALUES else 1
    if place >= len(words) or words[place].many:
        return None
    launcher = _launcher_of(wrappers)
    return Call(command, launcher, (), words[place], False, tuple(words[place + 1 :]), wrappers)


def _module(command: Command, words: Sequence[Word], wrappers: tuple[tuple[Word, ...], ...]) -> Call | None:
    if not words or words[0].text in _NO_PROGRAM:
        return None
    name, rest = words[0].text, tuple(words[1:])
    if name in ("torch.distributed.run", "torch.distributed.launch"):
        return _with_values(command, "torchrun", rest, TORCHRUN, wrappers)
    if name in ("deepspeed", "deepspeed.launcher.runner"):
        return _with_values(command, "deepspeed", rest, DEEPSPEED, wrappers)
    if name in ("accelerate.commands.launch", "accelerate.commands.accelerate_cli"):
        return _accelerate(command, rest[1:] if name.endswith("_cli") else rest, wrappers)
    return Call(command, _launcher_of(wrappers), (), words[0], True, rest, wrappers)


def _unwrapped(words: tuple[Word, ...]) -> tuple[tuple[Word, ...], tuple[tuple[Word, ...], ...]]:
    """The words behind `nohup`, `env X=1`, `srun -n 8` and their kin, and the launchers among these."""
    wrappers: list[tuple[Word, ...]] = []
    while words:
        name = _name(words[0])
        if name == "env" or name in _PREFIXES or name in _PREFIX_VALUES:
            words = _behind(words, name)
        elif name == "srun":
            end = _end_of_options(words, _SRUN, frozenset())
            wrappers.append(words[:end])
            words = words[end:]
        elif name in ("mpirun", "mpiexec", "mpiexec.hydra", "orterun"):
            end = _end_of_options(words, _MPIRUN_VALUES, _MPIRUN_TWO)
            wrappers.append(words[:end])
            words = words[end:]
        else:
            break
    return words, tuple(wrappers)


def _behind(words: tuple[Word, ...], name: str) -> tuple[Word, ...]:
    """What follows a prefix, its options and, for `timeout`, its first word."""
    values = _PREFIX_VALUES.get(name, set())
    place = 1
    while place < len(words):
        word = words[place].text
        if word.startswith("-"):
            place += 2 if word in values else 1
        elif name == "env" and "=" in word:
            place += 1
        else:
            break
    return words[place + (name == "timeout") :]


def _end_of_options(words: tuple[Word, ...], values: frozenset[str], two: frozenset[str]) -> int:
    place = 1
    while place < len(words) and words[place].text.startswith("-"):
        word = words[place].text
        if word in two:
            place += 3
        elif word in values:
            place += 2
        else:
            place += 1
    return place


def _launcher_of(wrappers: tuple[tuple[Word, ...], ...]) -> Launcher:
    if not wrappers:
        return "python"
    return "srun" if wrappers[-1][0].text.endswith("srun") else "mpirun"


def _name(word: Word) -> str:
    return word.text.rsplit("/", 1)[-1]


def _dashed(name: str) -> str:
    return name.replace("_", "-")
