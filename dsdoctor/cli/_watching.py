"""How a launch is watched and tried again, as options; and a run's progress in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from dsdoctor.cli._options import Decorator
    from dsdoctor.run.stage_end import Limits

UNLIKE = 1.2  # the fastest host is so many times as fast as the slowest, from which on that one is named


class Seconds(click.ParamType[float]):
    """A number of seconds, or `off`, which is 0."""

    name = "SECONDS|off"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds; at least 1."""
        if isinstance(value, float):
            return value
        if value == "off":
            return 0.0
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if not 1 <= seconds < 1e7:
            self.fail(f"{value!r} is not a number of seconds from 1 on, nor off", param, ctx)
        return seconds


def watch_options() -> tuple[Decorator, ...]:
    """What is called a stall, what follows, and how often a stage is tried again."""
    return (
        click.option(
            "--stall-after",
            type=Seconds(),
            metavar="SECONDS|off",
            help="A run whose ranks say nothing and do nothing for so long is called stalled, and their stacks are "
            "kept; before the first step 10 times that. Without it: 10 times the usual time between two steps, at "
            "least 60 s; half an hour before the first.",
        ),
        click.option("--stop-on-stall", is_flag=True, help="End a stalled run as a failure; else it is only told."),
        click.option(
            "--retries",
            type=click.IntRange(0, 100),
            default=0,
            show_default=True,
            metavar="N",
            help="Try a failed stage again so often, where its verdict says that this may help: a port taken, a "
            "connection broken, a host lost and back. Never for what would fail the same way.",
        ),
        click.option(
            "--spool-limit",
            type=click.IntRange(1, 1 << 20),
            default=256,
            show_default=True,
            metavar="MIB",
            help="So much of what its ranks print each host keeps of a stage for a head that is away. Beyond that the "
            "oldest lines are dropped, which the next head is told; the last half stays.",
        ),
    )


def limits_of(lifeline: float, options: Mapping[str, Any]) -> Limits:
    """The limits of a run, from the options of `launch`."""
    from dsdoctor.run.stage_end import Limits, Watching

    watching = Watching(options["stall_after"], options["stop_on_stall"])
    return Limits(lifeline=lifeline, watching=watching, retries=options["retries"], spool=options["spool_limit"] << 20)


def progress_line(told: Mapping[str, Any]) -> str:
    """How far a run is: the fields of a `Progressed`, as they are in progress.json, in one line.

    Hosts are named by the slowest where they differ by more than a fifth.
    """
    parts = [f"[{told['index']}/{told['stages']}] {told['stage']}"]
    step, steps, epoch = told["step"], told["steps"], told["epoch"]
    if epoch is not None and (told["within_epoch"] or step is None):
        parts.append(f"epoch {epoch:g}")
    if step is not None:
        parts.append(f"step {step}/{steps}" if steps else f"step {step}")
    parts += [
        f"{name} {_number(told[key])}"
        for name, key in (("loss", "loss"), ("lr", "learning_rate"))
        if told[key] is not None
    ]
    speed = told["speed"]
    if speed:
        parts.append(_speed(speed) + _slowest(told["hosts"]))
    if told["seconds_left"] is not None and not told["stalled"]:
        parts.append(f"{_duration(told['seconds_left'])} left")
    if told["stalled"]:
        parts.append(f"STALLED, silent for {_duration(told['silent'])}")
    return "  ".join(parts)


def _slowest(hosts: Mapping[str, Any]) -> str:
    speeds = {name: value for name, value in ((name, _speed_of(host)) for name, host in hosts.items()) if value}
    if len(speeds) < 2 or max(speeds.values()) < UNLIKE * min(speeds.values()):
        return ""
    name = min(speeds, key=lambda each: speeds[each])
    return f" (slowest: {name}, {_speed(speeds[name])})"


def _speed_of(host: Any) -> float | None:
    value = host.get("speed") if isinstance(host, dict) else host[1]
    return float(value) if value else None


def _speed(speed: float) -> str:
    return f"{speed:.3g} steps/s" if speed >= 1 else f"{1 / speed:.3g} s/step"


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
