"""The conditions that cost the notes' authors their evenings, planted one by one, and which program names them.

Each is planted in a throw-away folder with a virtual environment over the one this runs in, and with mounts of its own
where it needs them (root, `unshare`). A program *finds* it when lines that it prints here, and does not print in the
same folder without the condition, match the words of the condition; the words are in `CONDITIONS`, wide on purpose, and
the same for all programs. `DSDOCTOR_RIVALS` names an environment with env-doctor, mlenvdoctor and traincheck in it;
programs that are not to be had are left out, and the output says so.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

NCCL_FILE = "nvidia/nccl/lib/libnccl.so.2"
SCRIPT = "import argparse\n\nargparse.ArgumentParser().parse_known_args()\n"
SECONDS = 300
OURS = "dsdoctor check"
AT_ONCE = int(os.environ.get("DSDOCTOR_BENCH_AT_ONCE", "4"))  # conditions, each in a folder of its own


class Scene:
    """A folder in which a job is about to be started, healthy as it is made; conditions change it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables: dict[str, str] = {}
        self.before: list[str] = []  # shell lines that every program is run after, in mounts of their own
        self.setup: list[str] = []
        self.config: dict[str, object] = {"train_micro_batch_size_per_gpu": "auto", "zero_optimization": {"stage": 2}}
        self.args: dict[str, object] = {
            "model_name_or_path": "./model",
            "data_dir": "./data",
            "per_device_train_batch_size": 8,
        }
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
        found = subprocess.run(
            [self.python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        self.packages = Path(found.stdout.strip())
        self.write(self.packages / "below.pth", sysconfig.get_paths()["purelib"] + "\n")
        self.write("train.py", SCRIPT)
        self.write("data/train.json", "[]")
        self.write("model/config.json", '{"model_type": "t5"}')
        self.write("model/spiece.model", "x")
        self.write("model/pytorch_model.bin", "\x80\x02weights")
        (folder / "cache").mkdir()

    @property
    def python(self) -> str:
        """The interpreter that the job is to be started with."""
        return str(self.folder / "env" / "bin" / "python")

    def write(self, path: Path | str, text: str) -> None:
        """Write a file, with the folders above it."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def distribution(
        self, name: str, version: str, files: tuple[str, ...] = (), requires: tuple[str, ...] = ()
    ) -> None:
        """Put into the environment what pip keeps of an installed package."""
        info = f"{name.replace('-', '_')}-{version}.dist-info"
        wants = "".join(f"Requires-Dist: {line}\n" for line in requires)
        self.write(
            self.packages / info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{wants}"
        )
        self.write(self.packages / info / "INSTALLER", "pip\n")
        self.write(self.packages / info / "RECORD", "".join(f"{file},,\n" for file in (*files, f"{info}/METADATA")))

    def finish(self) -> None:
        """Write the job in the forms that the programs read: a job file, a DeepSpeed config, a batch script."""
        self.write("ds.json", json.dumps(self.config))
        job = {"name": "job", "script": "train.py", "deepspeed": "ds.json", "setup": self.setup, "args": self.args}
        self.write("job.yaml", json.dumps({**job, "env": self.variables, "stages": [{"name": "only"}]}))
        exports = "".join(f"export {name}={value}\n" for name, value in self.variables.items())
        words = " ".join(f"--{name} {value}" for name, value in self.args.items())
        self.write(
            "job.sbatch",
            "#!/bin/bash\n#SBATCH --nodes=1\n#SBATCH --ntasks-per-node=1\n#SBATCH --gpus-per-node=2\n"
            f"{exports}{''.join(line + chr(10) for line in self.setup)}"
            f"srun torchrun --nnodes=1 --nproc_per_node=2 train.py --deepspeed ds.json {words}\n",
        )
        self.write("hostfile", f"localhost slots=2 python={self.python}\n")


@dataclass(frozen=True)
class Condition:
    """What is planted, and the words by which a line names it."""

    case: str  # of the notes
    title: str
    words: str
    plant: Callable[[Scene], None]


def _duplicate_nccl(scene: Scene) -> None:
    scene.distribution("nvidia-nccl-cu12", "2.18.1", (NCCL_FILE,))
    scene.distribution("nvidia-nccl-cu11", "2.14.3", (NCCL_FILE,))
    scene.write(scene.packages / NCCL_FILE, "\0NCCL version 2.14.3+cuda11.7\0")


def _nccl_file_gone(scene: Scene) -> None:
    scene.distribution("nvidia-nccl-cu12", "2.18.1", (NCCL_FILE,))


def _variables(**given: str) -> Callable[[Scene], None]:
    return lambda scene: scene.variables.update(given)


def _open_files(scene: Scene) -> None:
    scene.before.append("ulimit -n 1024")
    scene.args["preprocessing_num_workers"] = 1024


def _small_shm(scene: Scene) -> None:
    scene.before.append("mount -t tmpfs -o size=64m tmpfs /dev/shm")


def _full_disk(scene: Scene) -> None:
    (scene.folder / "out").mkdir()
    scene.args["output_dir"] = "./out"
    scene.before.append(f"mount -t tmpfs -o size=1m tmpfs {scene.folder}/out")
    scene.before.append(f"head -c 1048576 /dev/zero >{scene.folder}/out/old || true")


def _stale_lock(scene: Scene) -> None:
    version = f"py{sys.version_info.major}{sys.version_info.minor}_cpu"
    scene.write(f"cache/{version}/cpu_adam/lock", "")
    os.utime(scene.folder / f"cache/{version}/cpu_adam/lock", (1_600_000_000, 1_600_000_000))
    scene.variables["TORCH_EXTENSIONS_DIR"] = str(scene.folder / "cache")


def _xformers(scene: Scene) -> None:
    scene.distribution("xformers", "0.0.28.post2", requires=("numpy", "torch==2.5.0"))


def _tokenizers(scene: Scene) -> None:
    scene.distribution("tokenizers", "0.99.0")


def _pynvml(scene: Scene) -> None:
    scene.distribution("pynvml", "11.5.0", ("pynvml.py",))
    scene.write(
        scene.packages / "pynvml.py",
        "class NVMLError(Exception):\n    pass\n\n\ndef nvmlInit():\n    raise NVMLError\n",
    )


def _constant_rate(scene: Scene) -> None:
    scene.args.update(lr_scheduler_type="constant", warmup_steps=0)
    scene.config["scheduler"] = {"type": "WarmupLR", "params": {"warmup_num_steps": "auto"}}


def _half_precision(scene: Scene) -> None:
    scene.config["fp16"] = {"enabled": True}


def _two_precisions(scene: Scene) -> None:
    scene.config.update(bfloat16={"enabled": True}, fp16={"enabled": "auto"})


def _conda(scene: Scene) -> None:
    scene.setup.append("conda activate dis")


def _conda_or_not(scene: Scene) -> None:
    scene.setup.append("conda activate dis || true")


def _no_model(scene: Scene) -> None:
    shutil.rmtree(scene.folder / "model")


def _pointer(scene: Scene) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    scene.write("model/pytorch_model.bin", text)


def _shards(scene: Scene) -> None:
    (scene.folder / "model/pytorch_model.bin").unlink()
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    scene.write("model/model.safetensors.index.json", json.dumps({"weight_map": names}))
    scene.write(f"model/{names['a']}", "\x02\0\0\0\0\0\0\0{}")


def _known_bad(scene: Scene) -> None:
    scene.write("model/config.json", '{"model_type": "llama", "_name_or_path": "decapoda-research/llama-7b-hf"}')
    scene.write("model/tokenizer_config.json", '{"tokenizer_class": "LLaMATokenizer"}')


def _no_log_folder(scene: Scene) -> None:
    scene.args["log_file"] = "logs_and_outputs/order_1/logs/train.log"


def _old_checkpoint(scene: Scene) -> None:
    scene.write("out/checkpoint-500/trainer_state.json", "{}")
    scene.args["output_dir"] = "./out"


CONDITIONS = (
    Condition(
        "A4", "two NCCL wheels own one file", r"nccl-cu11|duplicate.*nccl|nccl.*(duplicate|own)", _duplicate_nccl
    ),
    Condition(
        "A4", "its file is gone after an uninstall", r"(file|libnccl).*(gone|missing|not exist)", _nccl_file_gone
    ),
    Condition("A6", "NCCL_SOCKET_IFNAME of another host", r"bond0|IFNAME", _variables(NCCL_SOCKET_IFNAME="bond0")),
    Condition("A7", "NCCL_IB_DISABL, misspelt", r"NCCL_IB_DISABL\b", _variables(NCCL_IB_DISABL="1")),
    Condition("A7", "quotes inside a value", r"NCCL_P2P_DISABLE", _variables(NCCL_P2P_DISABLE='"1"')),
    Condition("B7", "xformers for another torch", r"xformers", _xformers),
    Condition("B10", "tokenizers too new for transformers", r"tokenizers", _tokenizers),
    Condition("B11", "conda activate in a plain shell", r"conda", _conda),
    Condition("B11", "the same, its failure hidden by || true", r"conda", _conda_or_not),
    Condition("B12", "1,024 open files, 1,024 workers", r"open files|nofile|ulimit|\b1024\b", _open_files),
    Condition("B12", "/dev/shm of 64 MiB", r"shm|shared memory", _small_shm),
    Condition("B3", "the lock of a build that was killed", r"\block\b", _stale_lock),
    Condition("C1", "constant asked for, WarmupLR configured", r"WarmupLR|scheduler", _constant_rate),
    Condition("C2", "fp16 in the config alone", r"fp16|precision", _half_precision),
    Condition("C3", "bfloat16 and fp16 at once", r"bfloat16|bf16|precision", _two_precisions),
    Condition("C14", "an old checkpoint in output_dir", r"checkpoint", _old_checkpoint),
    Condition("D3", "the model is not there", r"\./model|model .*(not there|missing|not found)", _no_model),
    Condition("D3", "Git-LFS pointers for weights", r"LFS|pointer", _pointer),
    Condition("D3", "a shard is missing", r"00002-of-00002|shard", _shards),
    Condition("D7", "decapoda-research/llama-7b-hf", r"decapoda|LLaMATokenizer", _known_bad),
    Condition("D8", "logs into a folder nobody made", r"order_1/logs", _no_log_folder),
    Condition("–", "a full disk under output_dir", r"disk|no space|/out\b", _full_disk),
    Condition("–", "the old pynvml package", r"pynvml", _pynvml),
)

# Rows of the notes that cannot be planted on a machine without GPUs, or on one host alone.
NOT_PLANTED = (
    "GPU, driver and peer-to-peer conditions (A1, B1, B2, B5, B6, D4, D10) want a GPU or its driver; known-bad "
    "versions (B8, C4) want those versions really installed, torch among them; names that differ between hosts (A3, "
    "127.0.1.1), NCCL against the other hosts (A5) and unlike inputs (D2) want a second host."
)


@dataclass(frozen=True)
class Program:
    """What is put before the conditions. `argv` is given the interpreter of the scene."""

    name: str
    version: str
    argv: Callable[[Scene], list[str]]
    path: str | None = None  # where its own packages lie


def programs() -> tuple[list[Program], list[str]]:
    """The programs that are here, and a line for each that is not."""
    here = Path(sys.executable).parent
    version = importlib.metadata.version
    found = [
        Program(
            OURS,
            version("dsdoctor"),
            lambda scene: [sys.executable, "-m", "dsdoctor", "check", "--hostfile", "hostfile", "--job", "job.yaml"],
        ),
        Program("ds_report", version("deepspeed"), lambda scene: [scene.python, str(here / "ds_report")]),
        Program("accelerate env", version("accelerate"), lambda scene: [scene.python, str(here / "accelerate"), "env"]),
        Program("collect_env", version("torch"), lambda scene: [scene.python, "-m", "torch.utils.collect_env"]),
        Program("pip check", version("pip"), lambda scene: [scene.python, "-m", "pip", "check"]),
    ]
    missing = []
    if shutil.which("nvidia-smi") is None:
        missing.append("nvidia-smi is not on this machine.")
    rivals = os.environ.get("DSDOCTOR_RIVALS")
    if not rivals:
        return found, [*missing, "DSDOCTOR_RIVALS is not set: env-doctor, mlenvdoctor and traincheck were not run."]
    asked = subprocess.run(
        [f"{rivals}/bin/python", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    path = asked.stdout.strip()
    known = {each.metadata["Name"]: each.version for each in importlib.metadata.distributions(path=[path])}
    wanted: dict[str, tuple[str, Callable[[Scene], list[str]]]] = {
        "env-doctor": ("env-doctor check", _script(f"{rivals}/bin/env-doctor", "check")),
        "mlenvdoctor": ("mlenvdoctor diagnose", _script(f"{rivals}/bin/mlenvdoctor", "diagnose")),
        "traincheck-lint": ("traincheck", _script(f"{rivals}/bin/traincheck", "check", "job.sbatch", "--probe-host")),
    }
    for package, (name, argv) in wanted.items():
        if package in known:
            found.append(Program(name, known[package], argv, path))
        else:
            missing.append(f"{package} is not in {rivals}.")
    return found, missing


def _script(file: str, *words: str) -> Callable[[Scene], list[str]]:
    """A console script, run by the interpreter of the scene, so that it sees what is installed there."""
    return lambda scene: [scene.python, file, *words]


def printed(program: Program, scene: Scene) -> set[str]:
    """The lines that a program prints in a scene, with the folder's own name and figures of time taken out."""
    environment = {**os.environ, **scene.variables, "COLUMNS": "200", "NO_COLOR": "1", "DS_ACCELERATOR": "cpu"}
    environment["PATH"] = f"{scene.folder}/env/bin:{environment.get('PATH', '')}"
    if program.path:
        # Behind what is installed in the scene: these are the program's own needs.
        environment["PYTHONPATH"] = f"{scene.packages}:{sysconfig.get_paths()['purelib']}:{program.path}"
    lines = "\n".join([*scene.before, 'exec "$@"'])
    argv = ["sh", "-c", lines, "sh", *program.argv(scene)]
    if any("mount" in line for line in scene.before):
        argv = ["unshare", "--mount", *argv]
    try:
        done = subprocess.run(
            argv, cwd=scene.folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:  # what it had printed until then counts
        print(f"{program.name} was ended after {SECONDS} s", file=sys.stderr)
        done = subprocess.CompletedProcess(argv, -1, late.stdout or b"", late.stderr or b"")
    if program.name == OURS and done.returncode not in (0, 1, 3):
        raise RuntimeError(f"{OURS} ended with exit code {done.returncode}: {done.stderr.decode(errors='replace')}")
    text = (done.stdout + done.stderr).decode(errors="replace").replace(str(scene.folder), "<folder>")
    return {re.sub(r"\d+\.\d+ s\b|\d{4}-\d\d-\d\d[ T][\d:,.]+", "", line).strip() for line in text.splitlines()}


def names(
    condition: Condition, programs: list[Program], healthy: dict[str, set[str]], folder: Path
) -> list[str | None]:
    """For each program the line by which it names the condition, and did not without the condition; None: none."""
    folder.mkdir()
    scene = Scene(folder)
    condition.plant(scene)
    scene.finish()
    found = []
    for program in programs:
        new = sorted(printed(program, scene) - healthy[program.name])
        found.append(next((line for line in new if re.search(condition.words, line, re.IGNORECASE)), None))
    shutil.rmtree(folder)
    return found


def main() -> str:
    """Plant each condition, put it before each program, and make a table of who names it."""
    known, missing = programs()
    with tempfile.TemporaryDirectory(prefix="dsdoctor-scenes-") as name:
        root = Path(name)
        (root / "healthy").mkdir()
        scene = Scene(root / "healthy")
        scene.finish()
        healthy = {program.name: printed(program, scene) for program in known}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            rows = list(
                pool.map(lambda each: names(each[1], known, healthy, root / str(each[0])), enumerate(CONDITIONS))
            )
    lines = [
        "| | planted | " + " | ".join(f"{program.name} {program.version}" for program in known) + " |",
        "|---|---|" + "---|" * len(known),
    ]
    for condition, row in zip(CONDITIONS, rows, strict=True):
        cells = " | ".join("yes" if line else "–" for line in row)
        lines.append(f"| {condition.case} | {condition.title} | {cells} |")
    counts = " | ".join(str(sum(line is not None for line in column)) for column in zip(*rows, strict=True))
    lines.append(f"| | of {len(CONDITIONS)} | {counts} |")
    told = [
        f"- {condition.title}: {program.name}: {line[:150]}"
        for condition, row in zip(CONDITIONS, rows, strict=True)
        for program, line in zip(known, row, strict=True)
        if line
    ]
    return "\n".join([*lines, "", *missing, f"Not planted: {NOT_PLANTED}", "", "The lines that counted:", "", *told])
