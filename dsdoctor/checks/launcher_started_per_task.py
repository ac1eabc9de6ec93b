"""srun that starts a launcher once for each GPU."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import calls, cited
from dsdoctor.jobs.script.model import Call, Script, Word
from dsdoctor.report.model import Finding, Fix, Severity

_PER_NODE = "--ntasks-per-node"


@check(severity=Severity.ERROR, since="0.1")
def launcher_started_per_task(context: JobContext) -> Iterator[Finding]:
    """Slurm starts several tasks on a node, and each is a torchrun that starts a rank for every GPU.

    ## Why it matters
    With 8 tasks a node and --nproc_per_node 8 there are 64 processes on 8 GPUs: "address already in use", or CUDA out
    of memory, or ranks that wait for each other.

    ## How to fix it
    One task a node for a launcher (`#SBATCH --ntasks-per-node=1`), and all of the node's CPUs for it.

    ## Source
    srun(1), --ntasks-per-node; torch.distributed.run starts --nproc-per-node ranks itself.
    """
    script = context.job.script
    for call in calls(context):
        if script is None or call.launcher not in ("torchrun", "accelerate") or not _by_srun(call):
            continue
        tasks, ranks = _tasks(call, script), call.option("--nproc_per_node", "--nproc-per-node")
        if tasks is None or not tasks.text.isdigit() or int(tasks.text) < 2 or (ranks and ranks.text == "1"):
            continue
        yield launcher_started_per_task.finding(
            f"srun starts {tasks.text} tasks on a node, and each is a {call.launcher} that starts the node's ranks; "
            "1 is wanted",
            evidence=[cited(context, line) for line in dict.fromkeys((tasks.line, call.line))],
            fix=[Fix("One task a node", ("#SBATCH --ntasks-per-node=1",))],
        )
        return


def _by_srun(call: Call) -> bool:
    return any(wrapper[0].text.rsplit("/", 1)[-1] == "srun" for wrapper in call.wrappers)


def _tasks(call: Call, script: Script) -> Word | None:
    """How many tasks a node: srun's own word, else the script's."""
    for words in (*call.wrappers, script.directives):
        for place, word in enumerate(words):
            name, equals, value = word.text.partition("=")
            if name == _PER_NODE and equals:
                return Word(value, word.line)
            if name == _PER_NODE and place + 1 < len(words):
                return words[place + 1]
    return None
