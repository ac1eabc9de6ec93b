"""What our checks say of a pair, written down as people have it: a script, its config, and the program it starts."""

from __future__ import annotations

import importlib.metadata
from functools import cache
from pathlib import Path

from dsdoctor.checks import run_checks
from dsdoctor.checks.engine import Outcome
from dsdoctor.cluster import Cluster, HostEntry, Member, Reach
from dsdoctor.facts import HostFacts, Section, Snapshot
from dsdoctor.jobs.load_any import load_any
from tests.judges.pairs import Pair

WITH_A_TRAINER = """\
from transformers import HfArgumentParser, Trainer, TrainingArguments

from mine import data, model

(arguments,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
Trainer(model=model(), args=arguments, train_dataset=data()).train()
"""
ALONE = """\
import deepspeed
import torch

from mine import batches, model

layers = model()
own = {own}
engine, *_ = deepspeed.initialize(
    model=layers, model_parameters=layers.parameters(), optimizer=own, config="ds_config.json"
)
for batch in batches():
    engine.backward(engine(**batch))
    engine.step()
"""
JUDGES = ("torch", "transformers", "accelerate", "deepspeed")


def write_job(pair: Pair, folder: Path) -> Path:
    """The script that starts the pair, in a folder with all that it names."""
    (folder / "ds_config.json").write_text(pair.text)
    own = "None" if "optimizer" in pair.config else "torch.optim.AdamW(layers.parameters(), lr=1e-3)"
    (folder / "train.py").write_text(ALONE.format(own=own) if pair.alone else WITH_A_TRAINER)
    words = ["deepspeed", "--num_gpus", "1", "train.py"]
    if pair.alone:
        words += ["--deepspeed", "--deepspeed_config", "ds_config.json"]
    else:
        words += ["--deepspeed", "ds_config.json", "--output_dir", "out", *pair.argv]
    script = folder / "run.sh"
    script.write_text("set -e\n" + " ".join(words) + "\n")
    return script


def told(pair: Pair, folder: Path) -> Outcome:
    """All that our checks find, with nothing known of the host but the releases that the judge has."""
    outcome = run_checks(host(), load_any(str(write_job(pair, folder))))
    assert not outcome.crashed, outcome.crashed[0].traceback
    return outcome


@cache
def host() -> Cluster:
    """One host with one slot, of which only the installed releases are known."""
    packages = {"distributions": [{"name": name, "version": version} for name, version in releases().items()]}
    facts = HostFacts(Snapshot(host="a", origin="of the judges", sections={"packages": Section(value=packages)}))
    return Cluster((Member(HostEntry("a", slots=1, local=True), Reach(ok=True), facts),))


def releases() -> dict[str, str]:
    """The releases of the judges."""
    return {name: importlib.metadata.version(name).split("+")[0] for name in JUDGES}
