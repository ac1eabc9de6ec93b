"""A launch plan as shell that can be pasted: the same argument lists and variables that `execute` uses."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping

from dsdoctor.escape import escape
from dsdoctor.plan.engines import is_rotated, ranks_of
from dsdoctor.plan.forecast import forecast_lines
from dsdoctor.plan.model import Command, EnvVar, HostPlan, LaunchPlan, StagePlan, names_unset

SHOWN = 2000  # characters of a value in a comment


MARKER = ".dsdoctor-sync"  # a folder that carries it is dsdoctor's own


def as_shell(plan: LaunchPlan) -> str:
    """The whole plan as shell lines with comments that give every variable's reason."""
    return "\n".join(_lines(plan)) + "\n"


def _lines(plan: LaunchPlan) -> Iterator[str]:
    profile = f", profile {escape(plan.profile)}" if plan.profile else ""
    ranks = "1 rank" if plan.world_size == 1 else f"{plan.world_size} ranks"
    yield f"# job {plan.job}{profile}: {ranks}, meeting at {plan.master_addr}:{plan.master_port}"
    if plan.forecast.get("precision"):
        yield f"# precision {plan.forecast['precision']}: {escape(plan.forecast['precision_because'])}"
    yield from forecast_lines(plan.forecast)
    for warning in plan.warnings:
        yield f"# warning: {escape(warning)}"
    yield from mended_lines(plan)
    for host in plan.hosts:
        yield ""
        yield from _host_lines(plan, host)
    for stage in plan.stages:
        yield ""
        yield from _stage_lines(plan, stage)


def mended_lines(plan: LaunchPlan) -> Iterator[str]:
    """The copy of the DeepSpeed config that is used in place of the original, and why."""
    mended = plan.mended_config
    if mended is None:
        return
    yield f"# {escape(mended.original)} stays as it is; this run uses a mended copy of it:"
    yield from (f"#     {escape(change)}" for change in mended.changes)
    yield f"mkdir -p {quote(posixpath.dirname(mended.path))} && printf %s {quote(mended.text)} > {quote(mended.path)}"


def _host_lines(plan: LaunchPlan, host: HostPlan) -> Iterator[str]:
    turned = ", ".join(map(str, host.local_ranks)) if is_rotated(host) else ""
    yield f"# --- {escape(host.name)}: {ranks_of(host)}" + (
        f"; DeepSpeed's launcher gives them LOCAL_RANK {turned}" if turned else ""
    )
    if host.local:
        yield f"#     runs the code where it is: {escape(host.code_dir)}"
    yield from copy_lines(plan, host)
    yield from (_env_comment(variable) for variable in host.env.values())
    yield "#     everything else in the environment of a session on this host is passed on as it is"


def copy_lines(plan: LaunchPlan, host: HostPlan) -> Iterator[str]:
    """How a host gets its files: what `dsdoctor sync` does after it has looked who shares and uses the folders."""
    if host.local:
        return
    name = f"[{host.name}]" if ":" in host.name else host.name
    target = f"{host.user}@{name}" if host.user else name
    base = "rsync -rlpt -s" + (f" -e {quote(shlex.join(_ssh(host)))}" if host.port else "")
    excludes = "".join(f" --exclude={quote(pattern)}" for pattern in plan.sync.exclude)
    code = plan.sync.source.rstrip("/") + "/"
    make = f"mkdir -p {quote(host.code_dir)} && touch {quote(host.code_dir + '/' + MARKER)}"
    yield _over_ssh(host, make)
    yield "#     where that marker was there before, with --delay-updates --delete-delay"
    yield f"{base}{excludes} -- {quote(code)} {quote(f'{target}:{host.code_dir}/')}"
    for tree in plan.sync.trees:
        place = tree.places[host.name]
        into = posixpath.dirname(place) if tree.file else place
        source = tree.source if tree.file else tree.source.rstrip("/") + "/"
        links = "-L" if tree.file else "--copy-unsafe-links"
        yield f"#     the {tree.kind}, unless {escape(host.name)} has it whole"
        yield _over_ssh(host, f"mkdir -p {quote(into)}")
        yield f"{base} {links} --partial-dir=.dsdoctor-partial -- {quote(source)} {quote(f'{target}:{into}/')}"


def _env_comment(variable: EnvVar) -> str:
    won = "".join(f"; instead of {_short(old)!r} ({layer})" for layer, old in reversed(variable.replaced))
    layer = "" if variable.layer == "derived" else f" [{variable.layer}]"
    return f"#     {_assignment(variable)}{layer}: {escape(variable.because)}{won}"


def _assignment(variable: EnvVar) -> str:
    if variable.unset:
        return f"{variable.name} is unset"
    if variable.secret is None:
        return f"{variable.name}={_short(variable.value)}"
    way = "passed over standard input" if variable.sent else "of the session there"
    return f"{variable.name}=(secret: {way})"


def _short(value: str) -> str:
    """A value on one line; a very long one is cut, since the line of the command has all of it."""
    text = escape(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(value)} characters)"


def _stage_lines(plan: LaunchPlan, stage: StagePlan) -> Iterator[str]:
    yield f"# === stage {stage.index} of {len(plan.stages)}: {stage.name}"
    for number, command in enumerate(stage.commands, 1):
        line = remote_line(plan, command)
        together = " &" if number < len(stage.commands) else ""
        yield line + together
    if len(stage.commands) > 1:
        yield "wait"


def remote_line(plan: LaunchPlan, command: Command) -> str:
    """One host's command as a line for this machine's shell, through ssh where the host is another."""
    host = plan.host(command.host)
    inner = command_line(plan, command)
    return f"( {inner} )" if host.local else _over_ssh(host, inner)


def _over_ssh(host: HostPlan, line: str) -> str:
    """A line for a host's shell. Without -n ssh takes the lines that are pasted behind its own for its input."""
    return f"{shlex.join([*_ssh(host), '-n'])} -- {quote(host.name)} {quote(line)}"


def _ssh(host: HostPlan) -> list[str]:
    """The ssh command to a host, without its name."""
    port = ["-p", str(host.port)] if host.port else []
    return ["ssh", *port, *(["-l", host.user] if host.user else [])]


def command_line(plan: LaunchPlan, command: Command) -> str:
    """One host's command as a line for that host's own shell."""
    env = {**plan.host(command.host).env, **command.env}
    words = [f"-u {name}" for name in names_unset(env)]
    words += [
        quote(f"{name}={variable.value}") for name, variable in env.items() if variable.sent and variable.secret is None
    ]
    setup = "".join(f"{escape(line.expandtabs())} && " for line in plan.setup)
    argv = " ".join(quote(word) for word in command.argv)
    if command.ranks:
        starts = [
            " ".join(["env", *words, *_assigned(part.env), argv, f"& rank{part.rank}=$!;"]) for part in command.ranks
        ]
        waits = [f"wait $rank{part.rank} || code=$?;" for part in command.ranks]
        return f"cd {quote(command.cwd)} && {setup}( {' '.join(starts)} code=0; {' '.join(waits)} exit $code )"
    return f"cd {quote(command.cwd)} && {setup}env {' '.join(words)} {argv}"


def _assigned(env: Mapping[str, str]) -> list[str]:
    return [quote(f"{name}={value}") for name, value in env.items()]


def quote(word: str) -> str:
    """A word for bash. One with control characters is written as $'…', so that it stays harmless on a screen."""
    if escape(word) == word:
        return shlex.quote(word)
    body = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + re.sub(r"[^ -~]", _bash_escape, body) + "'"


def _bash_escape(match: re.Match[str]) -> str:
    return "".join(f"\\x{byte:02x}" for byte in match.group().encode("utf-8", "surrogateescape"))
