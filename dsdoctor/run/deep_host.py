"""The deep trial on one host, step by step, and what came of it as facts.

A step that cannot tell anything because an earlier one failed is left out. GPUs and pairs of them are a list of work
for one process, since each process pays for torch and CUDA anew; one that crashes or hangs in the middle is followed by
another for the rest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import msgspec

from dsdoctor.facts import DeepCollective, DeepCopy, DeepFacts, DeepGpu, DeepImport, DeepOutput, DeepRank, DeepTorch
from dsdoctor.facts import DeepStep as StepFacts
from dsdoctor.hosts.transport import Transport
from dsdoctor.run.deep_plan import NATIVE, HostTrial
from dsdoctor.run.deep_step import Printed, Step, StepEnd, Together, Told, run_step

TORCH = 60.0  # seconds for importing torch: from a cold network file system it takes most of a minute
IMPORT = 40.0
GPUS, GPU = 60.0, 30.0  # seconds for all, and without a word
COPIES, COPY = 45.0, 30.0
REDUCE = 45.0
HOST = 100.0  # seconds for all steps of one host
ATTEMPTS = 5  # processes for one list of work

SIZES = (1 << 10, 1 << 20, 64 << 20)  # bytes of the all-reduces
PATIENCE = 20.0  # seconds that the three of the largest all-reduce may take
MEETING = 25  # seconds for torchrun's agents to meet, and for the ranks to join
OUTPUT = 30  # lines kept of a step that failed


@dataclass
class Results:
    """What has come of the trial on one host so far."""

    steps: list[StepFacts] = field(default_factory=list)
    torch: DeepTorch | None = None
    gpus: list[DeepGpu] = field(default_factory=list)
    copies: list[DeepCopy] = field(default_factory=list)
    imports: list[DeepImport] = field(default_factory=list)
    collectives: list[DeepCollective] = field(default_factory=list)
    lost: str | None = None  # the host is gone, or starts nothing

    def facts(self) -> DeepFacts:
        """The section."""
        return DeepFacts(
            steps=tuple(self.steps),
            torch=self.torch,
            gpus=tuple(self.gpus),
            copies=tuple(self.copies),
            imports=tuple(self.imports),
            collectives=tuple(self.collectives),
            lost=self.lost,
        )

    @property
    def unfit(self) -> str | None:
        """Why this host's ranks cannot take part in an all-reduce over all hosts; None when they can."""
        if self.lost is not None:
            return f"was lost: {self.lost}"
        if self.torch is None or self.torch.version is None:
            return "cannot import torch"
        own = next((each for each in self.collectives if each.scope == "host"), None)
        if own is None or own.not_tried:
            return (own.not_tried if own else None) or "was not ready in time"
        return "fails at an all-reduce of its own ranks" if own.error else None


class HostRun:
    """The steps of one host, in a thread of their own. `now` names the step under way."""

    def __init__(self, trial: HostTrial, transport: Transport, setup: Sequence[str], over: threading.Event) -> None:
        self.trial, self.transport, self.setup, self.over = trial, transport, setup, over
        self.results = Results()
        self.now = ""
        self.deadline = 0.0

    def run(self) -> None:
        """All steps that one host can do alone."""
        self.deadline = time.monotonic() + HOST
        self._torch()
        torch = self.results.torch
        if torch is None or torch.version is None:
            return
        if self.trial.gpus and torch.gpus:
            numbers = self._numbers(torch)
            self._gpus(numbers)
            if len(numbers) > 1:
                self._copies(numbers)
        self._own_ranks()
        for package, wanted_by in self.trial.packages.items():
            self._import(package, wanted_by)
        self.now = ""

    # --- steps

    def _torch(self) -> None:
        end = self._step(Step("torch", "torch", {"gpus": len(self.trial.gpus)}, TORCH))
        if end is None:
            return
        seen = next((told["torch"] for told in reversed(end.told) if "torch" in told), None)
        if end.lost and seen is None:
            return
        found = _typed(seen, DeepTorch) if seen is not None else None
        if found is None:
            self.results.torch = DeepTorch(error=_why(end), output=_tail(end.printed))
        elif end.error is not None:  # imported, but what the driver was asked did not come back
            self.results.torch = msgspec.structs.replace(found, gpu_error=_why(end), output=_tail(end.printed))
        else:
            self.results.torch = found

    def _gpus(self, numbers: Sequence[int]) -> None:
        def take(item: Any, seen: Told | None, error: str | None) -> None:
            body = {**(seen or {}), "index": numbers[item]}
            found = _typed({**body, "error": body.get("error") or error}, DeepGpu)
            self.results.gpus.append(found or DeepGpu(index=numbers[item], error="its answer cannot be read"))

        self._work("gpus", list(range(len(numbers))), take, GPUS, GPU)

    def _copies(self, numbers: Sequence[int]) -> None:
        def take(item: Any, seen: Told | None, error: str | None) -> None:
            ways = [_typed(way, DeepCopy) for way in (seen or {}).get("ways", [])]
            done = [
                msgspec.structs.replace(way, source=numbers[way.source], target=numbers[way.target])
                for way in ways
                if way is not None and 0 <= way.source < len(numbers) and 0 <= way.target < len(numbers)
            ]
            self.results.copies.extend(done)
            error = (seen or {}).get("error") or error
            if error is not None:
                source, target = item if not done else reversed(item)
                self.results.copies.append(DeepCopy(source=numbers[source], target=numbers[target], error=str(error)))

        pairs = [list(pair) for pair in combinations(range(len(numbers)), 2)]
        self._work("copies", pairs, take, COPIES, COPY)

    def _work(
        self,
        action: str,
        items: Sequence[Any],
        take: Callable[[Any, Told | None, str | None], None],
        limit: float,
        silence: float,
    ) -> None:
        """Have a list of work done, in as many processes as it needs; what was not come to is not told."""
        left = list(items)
        until = min(self.deadline, time.monotonic() + limit)
        for _ in range(ATTEMPTS):
            seconds = until - time.monotonic()
            if not left or seconds < 1:
                return
            end = self._step(Step(action, action, {"items": left}, seconds, silence))
            if end is None:
                return
            done = 0
            for told in end.told:
                if done < len(left) and told.get("done") == left[done]:
                    take(left[done], told, None)
                    done += 1
            begun = [told["begin"] for told in end.told if "begin" in told]
            left = left[done:]
            if end.error is not None and left:
                take(left[0], None, _why(end))
                left = left[1:] if begun else []
            if end.lost:
                return

    def _own_ranks(self) -> None:
        host = self.trial.plan
        torch = self.results.torch
        backend = "nccl" if self.trial.gpus else "gloo"
        known = DeepCollective(
            scope="host",
            backend=backend,
            world_size=host.slots,
            hosts=(host.name,),
            address="127.0.0.1",
            expected=tuple(range(host.slots)),
        )
        if self.trial.gpus and not (torch and torch.gpus):
            why = "its torch sees no GPU"
            self.results.collectives.append(msgspec.structs.replace(known, not_tried=why))
            return
        order = reduce_order(known, nnodes=1, node_rank=0, nproc=host.slots, port=0)
        end = self._step(Step("host all-reduce", "reduce", order, REDUCE))
        if end is not None:
            self.results.collectives.append(collective(known, end, bool(end.error)))
        elif self.results.lost is None:
            self.results.collectives.append(msgspec.structs.replace(known, not_tried="no time was left for it"))

    def _import(self, package: str, wanted_by: str | None) -> None:
        end = self._step(Step(f"import {package}", "import", {"module": NATIVE[package]}, IMPORT))
        if end is None or (end.lost and end.error):
            return
        version = next((str(told["import"]) for told in end.told if "import" in told), None)
        failed = version is None
        found = DeepImport(
            package=package,
            wanted_by=wanted_by,
            version=version,
            error=_why(end) if failed else None,
            output=_tail(end.printed) if failed else (),
        )
        self.results.imports.append(found)

    def joint(self, known: DeepCollective, order: Mapping[str, Any], limit: float, together: Together) -> None:
        """This host's part in the all-reduce over all hosts; a part that was taken before is replaced."""
        self.deadline = time.monotonic() + limit + 10
        end = self._step(Step("job all-reduce", "reduce", order, limit), together)
        kept = [each for each in self.results.collectives if each.scope != "job"]
        if end is not None:
            kept.append(collective(known, end, together.failed_at is not None))
        self.results.collectives = kept
        self.now = ""

    def _step(self, step: Step, together: Together | None = None) -> StepEnd | None:
        """Carry a step out and note it; None when it was not begun: the host is lost, or no time is left."""
        seconds = min(step.limit, self.deadline - time.monotonic())
        if self.results.lost is not None or self.over.is_set() or seconds < 1:
            return None
        self.now = step.name
        end = run_step(
            self.trial.plan,
            self.transport,
            Step(step.name, step.action, step.order, seconds, step.silence),
            env=self._environment(step.action),
            setup=self.setup,
            together=together or Together(self.over),
        )
        self.results.steps.append(StepFacts(name=step.name, seconds=end.seconds, error=end.error))
        if end.lost:
            self.results.lost = end.error
        return end

    def _environment(self, action: str) -> dict[str, str | None]:
        """The ranks' environment; where GPUs are tried one by one, their numbers are nvidia-smi's in any case."""
        own = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if action in ("torch", "gpus", "copies") else {}
        return {**own, **self.trial.env}

    def _numbers(self, torch: DeepTorch) -> list[int]:
        """The numbers of the GPUs that the ranks take, in torch's order, as nvidia-smi has them."""
        named = [word.strip() for word in (torch.visible_devices or "").split(",")]
        numbers = [int(word) for word in named if word.isdecimal()]
        seen = min(torch.gpus or 0, self.trial.plan.slots)  # ranks take the first ones
        if len(numbers) >= seen and len(numbers) == len(named):
            return numbers[:seen]
        return [*self.trial.gpus, *range(len(self.trial.gpus), seen)][:seen]


def reduce_order(known: DeepCollective, *, nnodes: int, node_rank: int, nproc: int, port: int) -> dict[str, Any]:
    """What the program on the host is told for an all-reduce."""
    return {
        "nnodes": nnodes,
        "node_rank": node_rank,
        "nproc": nproc,
        "address": known.address,
        "port": port,
        "backend": known.backend,
        "timeout": MEETING,
        "sizes": SIZES,
        "patience": PATIENCE,
    }


def collective(known: DeepCollective, end: StepEnd, went_wrong: bool) -> DeepCollective:
    """What a host saw of an all-reduce. What was printed is kept where it went wrong anywhere."""
    last: dict[int, DeepRank] = {}
    for told in end.told:
        seen = _typed(told, DeepRank) if "rank" in told else None
        if seen is not None and seen.rank in known.expected:
            last[seen.rank] = seen
    error = end.error
    missing = [rank for rank in known.expected if rank not in last or last[rank].at != "done"]
    if error is None and missing:
        error = f"rank {', '.join(map(str, missing))} ended without an answer"
    printed = end.printed.all() if went_wrong or error else {}
    return msgspec.structs.replace(
        known,
        ranks=tuple(last[rank] for rank in sorted(last)),
        seconds=end.seconds,
        error=error,
        first=end.first and error is not None,
        output=tuple(DeepOutput(rank=rank, lines=lines) for rank, lines in printed.items()),
    )


def _typed(value: Any, kind: type[Any]) -> Any:
    """What a host said as a fact, None where it is in another form."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return None


def _why(end: StepEnd) -> str:
    """Why a step has not given what was wanted: the exception that it printed last, else how it ended."""
    how = end.error or "ended without an answer"
    if end.out_of_time or end.lost or end.error is None or not end.error.startswith("ended with exit code"):
        return how
    return next((line.strip() for line in reversed(_tail(end.printed)) if not line.startswith(" ")), how)


def _tail(printed: Printed) -> tuple[str, ...]:
    """The last lines of what a step printed."""
    return tuple(line for lines in printed.all().values() for line in lines)[-OUTPUT:]
