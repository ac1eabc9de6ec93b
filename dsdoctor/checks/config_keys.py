"""By which DeepSpeed the keys of a config are judged: the hosts' own where their sources were read, else our table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.tables import config_keys
from dsdoctor.facts import ConfigKeyFacts, FactUnavailable
from dsdoctor.report.model import Evidence

# Before it, fp16 and bf16 were read key by key, others in them passed over. Source: DeepSpeed's tags; v0.17.0 has no
# runtime/precision_config.py, v0.17.1 has it (deepspeedai/DeepSpeed#6976).
PRECISION_BLOCKS_ARE_CHECKED = Version("0.17.1")


@dataclass(frozen=True)
class Basis:
    """The keys that hold on some hosts, and the releases there; none where no host is known."""

    keys: ConfigKeyFacts
    hosts: tuple[str, ...] = ()  # empty: all of them
    releases: tuple[Version, ...] = ()

    @property
    def own(self) -> bool:
        """Whether the keys are those of the release on the hosts."""
        return {str(release) for release in self.releases} == {str(_version(self.keys.version))}

    @property
    def newer(self) -> bool:
        """Whether a host has a later release than the keys are of."""
        return any(release > Version(self.keys.version) for release in self.releases) and not self.own

    @property
    def older(self) -> bool:
        """Whether the hosts have earlier releases than the keys are of."""
        return not self.own and bool(self.releases) and max(self.releases) < Version(self.keys.version)

    def refuses(self, block: str) -> bool:
        """Whether DeepSpeed stops at what it does not know in a block."""
        if block not in self.keys.refused:
            return False
        if self.own or block not in ("fp16", "bf16", "bfloat16"):
            return True
        return bool(self.releases) and max(self.releases) >= PRECISION_BLOCKS_ARE_CHECKED

    def has(self, block: str, key: str) -> bool:
        """Whether a block has a key, as far as is known."""
        known = self.keys.refused.get(block) or self.keys.ignored.get(block)
        return known is None or key in known

    def evidence(self) -> Iterator[Evidence]:
        """What the judgement rests on, where that is not the hosts' own release."""
        if not self.own and self.releases:
            installed = ", ".join(sorted(map(str, self.releases)))
            yield Evidence(text=f"judged by the keys of DeepSpeed {self.keys.version}; installed is {installed}")


def bases(context: JobContext) -> list[Basis]:
    """What the job's config is judged by: each release whose sources were read, and the table for the others."""
    table = config_keys().keys
    read = dict(_read(context))
    own: dict[str, list[str]] = {}
    others: dict[Version, list[str]] = {}
    for host, text in context.versions("deepspeed").items():
        if text in read or text == table.version:
            own.setdefault(text, []).append(host)
        else:
            with suppress(InvalidVersion):
                others.setdefault(Version(text), []).append(host)
    found = [
        Basis(read.get(text, table), tuple(hosts), (release,))
        for text, hosts in own.items()
        if (release := _version(text)) is not None
    ]
    if others or not found:
        hosts = tuple(host for each in others.values() for host in each)
        found.append(Basis(table, hosts, tuple(others)))
    return found if len(found) > 1 else [Basis(found[0].keys, (), found[0].releases)]


def _read(context: JobContext) -> Iterator[tuple[str, ConfigKeyFacts]]:
    for member in context.cluster.examined if context.cluster else ():
        with suppress(FactUnavailable):
            if member.facts is not None:
                keys = member.facts.config_keys
                yield keys.version, keys


def _version(text: str) -> Version | None:
    with suppress(InvalidVersion):
        return Version(text)
    return None
