"""Parameters that the optimizer or the scheduler of a DeepSpeed config does not have, or lacks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dsdoctor.checks.config_keys import Basis, bases
from dsdoctor.checks.config_parts import ConfigParts, parts_of
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.nearest import nearest
from dsdoctor.checks.precision import config_evidence
from dsdoctor.jobs import dsconfig
from dsdoctor.jobs.job import DeepSpeedConfig
from dsdoctor.report.model import Finding, Fix, Severity


@check(severity=Severity.ERROR, since="0.1")
def parameter_refused(context: JobContext) -> Iterator[Finding]:
    """The params of an optimizer or a scheduler have a name that its class does not take, or lack one that it needs.

    ## Why it matters
    DeepSpeed hands params over as they stand: "WarmupCosineLR.__init__() got an unexpected keyword argument
    'warmup_max_lr'", "WarmupDecayLR.__init__() missing 1 required positional argument: 'total_num_steps'". Those of
    one scheduler are not those of the next.

    ## How to fix it
    Write the names of that class. Under the Trainer total_num_steps may be "auto".

    ## Source
    DeepSpeed's runtime/lr_schedules.py, of the release on the hosts where it could be read, else of 0.19.8; of 0.19.8
    ops/adam/fused_adam.py and cpu_adam.py; torch/optim/adamw.py.
    """
    config = context.deepspeed
    if config is None:
        return
    trainer = any(context.uses_trainer(stage) for stage in context.stages)
    for basis in bases(context):
        table = parts_of(basis)
        for block in ("optimizer", "scheduler"):
            kind, params = dsconfig.get(config, f"{block}.type"), dsconfig.get(config, f"{block}.params")
            if isinstance(kind, str) and (params is None or isinstance(params, dict)):
                yield from _strange(config, (table, basis), block, kind, params or {})
            if block == "scheduler" and isinstance(kind, str):
                yield from _lacking(config, (table, basis), kind, params, trainer)


def _strange(
    config: DeepSpeedConfig, known_by: tuple[ConfigParts, Basis], block: str, kind: str, params: dict[str, Any]
) -> Iterator[Finding]:
    table, basis = known_by
    known = table.parameters(block, kind)
    for name in params if known else ():
        if name in known:
            continue
        near = nearest(name, known - params.keys())
        hint = f"; did you mean {near}?" if near else f"; it has {', '.join(sorted(known))}"
        yield parameter_refused.finding(
            f"{block}.params.{name} is no parameter of {kind}, which stops there{hint}",
            hosts=basis.hosts,
            evidence=[
                config_evidence(config, f"{block}.type"),
                config_evidence(config, f"{block}.params.{name}"),
                *basis.evidence(),
            ],
            fix=[Fix(f"Write {near} instead of {name}" if near else f"Take {name} out")],
        )


def _lacking(
    config: DeepSpeedConfig, known_by: tuple[ConfigParts, Basis], kind: str, params: Any, trainer: bool
) -> Iterator[Finding]:
    """What a scheduler needs and does not get; DeepSpeed also fails where there are no params at all."""
    table, basis = known_by
    shown = [config_evidence(config, "scheduler.type"), *basis.evidence()]
    if params is None and kind in table.schedulers:
        yield parameter_refused.finding(
            f"scheduler has no params, and DeepSpeed wants them, also where {kind} could do without any",
            hosts=basis.hosts,
            evidence=shown,
            fix=[Fix('Add "params": {}')],
        )
        return
    for name in sorted(table.needed.get(kind, frozenset()) - set(params or ())):
        value = '"auto"' if trainer and name == "total_num_steps" else "a number"
        yield parameter_refused.finding(
            f"scheduler.params has no {name}, which {kind} needs",
            hosts=basis.hosts,
            evidence=shown,
            fix=[Fix(f"Add {name}: {value}")],
        )
