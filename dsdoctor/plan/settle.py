"""Every host's layers: what is derived, what a person has set there and whether it holds, what the job asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from dsdoctor.checks.rank_settings import nccl_files
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable
from dsdoctor.jobs.job import ResolvedJob
from dsdoctor.plan import environment
from dsdoctor.plan.address import Link
from dsdoctor.plan.deepspeed_env import EnvFile, NotTakenError, as_on_host, bad_lines_told, settings_of
from dsdoctor.plan.environment import JobWide
from dsdoctor.plan.equal import made_equal
from dsdoctor.plan.host_layers import Given, HostLayers
from dsdoctor.plan.layers import NAME, Layers, Setting, is_secret
from dsdoctor.plan.session import INTEREST, Place, verdict_on
from dsdoctor.yamlfile import FileError

_NAMED = 5  # hosts in a warning


def environments(
    job: ResolvedJob,
    cluster: Cluster,
    links: Mapping[str, Link | None],
    settings: Sequence[Setting],
    files: Sequence[EnvFile] = (),
) -> tuple[dict[str, Layers], tuple[str, ...]]:
    """What every host's environment is made of, and warnings about values that a person set and that are not used.

    `files` are the .deepspeed_env files of the machine that launches.

    Raises:
        FileError: a setting is for a host that there is not.
        PlanError: a host could not be examined.
    """
    _refuse_strangers(cluster, settings)
    wide = environment.job_wide(cluster, links)
    engine = str(job.job.engine)
    hosts = []
    for member in cluster:
        derived = environment.derive(member, cluster, job, links[member.name], wide)
        chosen = (*environment.job_settings(job, member), *environment.host_settings(member), *settings)
        mine = tuple(setting for setting in chosen if setting.host in (None, member.name))
        host = HostLayers(member, {variable.name: variable for variable in derived}, mine)
        given = [*_of_nccl_conf(member, wide), *_of_the_session(member)]
        if engine == "deepspeed" and len(cluster) > 1:  # for one host its runner does not read them
            given += _of_deepspeed(host, files)
        host.given = [one for one in given if _can_be(one)]
        _judge(host, cluster, links[member.name], wide)
        hosts.append(host)
    told = [*_about_files(files, engine, cluster), *made_equal(hosts, wide)]
    return {host.member.name: host.layers() for host in hosts}, (*_by_hosts(hosts), *told)


def _by_hosts(hosts: Iterable[HostLayers]) -> Iterator[str]:
    """The warnings, what is the same on several hosts said once."""
    where: dict[str, list[str]] = {}
    for host in hosts:
        for message in host.told:
            where.setdefault(message, []).append(host.member.name)
    for message, names in where.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield f"{', '.join(names[:_NAMED])}{more}: {message}"


def _can_be(given: Given) -> bool:
    """Whether an environment can hold a variable: NCCL's file may have lines that only look like one."""
    return NAME.fullmatch(given.name) is not None and "\0" not in given.value


def _refuse_strangers(cluster: Cluster, settings: Iterable[Setting]) -> None:
    known = {member.name for member in cluster}
    for setting in settings:
        if setting.host is not None and setting.host not in known:
            there = ", ".join(sorted(known))
            raise FileError(setting.because, f"no host of this run is called {setting.host}; there are: {there}")


def _of_the_session(member: Member) -> Iterator[Given]:
    """What of the session's variables changes training or communication; of secrets the names alone."""
    try:
        known = member.facts.environment if member.facts else None
    except FactUnavailable:
        known = None
    if known is None:
        return
    for name, value in known.variables.items():
        if INTEREST.match(name):
            yield Given(name, value, "inherited", "the session")
    for name in known.secrets:
        yield Given(name, "", "inherited", "the session", hidden=True)


def _of_nccl_conf(member: Member, wide: JobWide) -> Iterator[Given]:
    """What NCCL reads in its files on the host, the first file that has a name counting."""
    try:
        files = nccl_files(member.facts) if member.facts and wide.gpus else ()
    except FactUnavailable:
        files = ()
    seen: set[str] = set()
    for file in files:
        for name, value in file.variables.items():
            if name.startswith("NCCL_") and name not in seen:
                seen.add(name)
                yield Given(name, value, "nccl.conf", file.path)


def _of_deepspeed(host: HostLayers, files: Sequence[EnvFile]) -> Iterator[Given]:
    """What DeepSpeed's runner would export on the host."""
    try:
        session = host.member.facts.environment.variables if host.member.facts else {}
    except FactUnavailable:
        session = {}
    for name, (value, path) in settings_of(files).items():
        try:
            yield Given(name, as_on_host(name, value, session), "deepspeed_env", path)
        except NotTakenError as error:
            if name not in host.pinned:
                shown = "" if is_secret(name, value) else f"={value}"
                host.told.append(f"{name}{shown} in {path} is not used: {error}")


def _about_files(files: Sequence[EnvFile], engine: str, cluster: Cluster) -> Iterator[str]:
    """What is to be said of the .deepspeed_env files as a whole."""
    if len(cluster) == 1:
        return  # DeepSpeed reads them for more than one host alone
    for file in files:
        if engine != "deepspeed":
            names = ", ".join(dict.fromkeys(name for name, _ in file.lines[:5])) or "nothing"
            more = " …" if len(file.lines) > 5 else ""
            yield (
                f"{file.path} ({names}{more}) is read by DeepSpeed's launcher alone, and the engine is {engine}: it "
                "counts for nothing. Put what the job needs into env: of its job file"
            )
        elif told := bad_lines_told(file):
            yield told


def _judge(host: HostLayers, cluster: Cluster, link: Link | None, wide: JobWide) -> None:
    """Keep what a person has set where it holds, and beat what does not."""
    facts = host.member.facts
    if facts is None:
        return
    derived = dict(host.derived)  # from the facts, before values of people are put into it
    place = Place(host.member, facts, cluster, link, wide.infiniband, wide.infiniband_reason, derived)
    for given in host.given:
        if given.name in host.pinned:
            host.kept[given.name, given.layer] = given
            continue
        verdict = verdict_on(given.name, given.value, place)
        if verdict is None or verdict.kept:
            host.keep(given, verdict)
        else:
            host.beat(given, verdict)
