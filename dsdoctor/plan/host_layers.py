"""One host's layers while they are settled: what is derived there, and what of a person's own is kept or beaten."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from dsdoctor.cluster import Member
from dsdoctor.plan.layers import Layers, Setting
from dsdoctor.plan.model import EnvVar
from dsdoctor.plan.session import Verdict

BY_PEOPLE = ("nccl.conf", "inherited", "deepspeed_env")


@dataclass(frozen=True)
class Given:
    """A variable that a person has set outside of the job, and where."""

    name: str
    value: str
    layer: str
    where: str  # "the session", "/etc/nccl.conf"
    hidden: bool = False


@dataclass
class HostLayers:
    """A host with what is derived for it, what a person has set there, and what the job asks for.

    `told` are the warnings about values of people.
    """

    member: Member
    derived: dict[str, EnvVar]
    chosen: tuple[Setting, ...]
    given: list[Given] = field(default_factory=list)
    kept: dict[tuple[str, str], Given] = field(default_factory=dict)  # by name and layer
    told: list[str] = field(default_factory=list)

    @property
    def pinned(self) -> frozenset[str]:
        """The names that job, hostfile or command line set: nothing below them counts."""
        return frozenset(setting.name for setting in self.chosen)

    def held(self, name: str) -> Given | None:
        """What of a person's own counts for a name."""
        found = (self.kept.get((name, layer)) for layer in reversed(BY_PEOPLE))
        return next((given for given in found if given is not None), None)

    def layers(self) -> Layers:
        """The layers as they are laid."""
        own = [
            Setting(given.name, given.value, given.layer, f"set in {given.where}", self.member.name, given.hidden)
            for given in self.kept.values()
        ]
        return Layers(tuple(self.derived.values()), (*own, *self.chosen))

    def keep(self, given: Given, verdict: Verdict | None = None) -> None:
        """Let a value count; with a verdict, say what it costs."""
        if verdict is not None:
            way = f"--env {given.name}- takes it away, --env HOST:{given.name}- on one host"
            self.told.append(f"{given.name}={given.value} in {given.where} counts: {verdict.reason}; {way}")
        below = self.derived.get(given.name)
        if below is not None and below.value == given.value and not (given.hidden or below.unset):
            return  # the derived variable says why it is right
        self.kept[given.name, given.layer] = given

    def beat(self, given: Given, verdict: Verdict) -> None:
        """Have something derived win over a value, and say so."""
        if given.layer == "inherited":  # NCCL takes from its file only what the environment does not have
            self.kept.pop((given.name, "nccl.conf"), None)
        new = verdict.instead[0] if verdict.instead is not None else given.name
        outcome = self._win_over(given, verdict)
        if new != given.name:
            outcome = self._under_new_name(given, new)
        if verdict.aloud:
            said = "; ".join(part for part in (verdict.reason, outcome) if part)
            self.told.append(f"{given.name}={given.value} in {given.where} is not used: {said}")

    def force(self, variable: EnvVar) -> None:
        """Put a derived variable over all that a person has set under its name."""
        held = [(layer, self.kept.pop((variable.name, layer), None)) for layer in BY_PEOPLE]
        beaten = tuple((layer, given.value) for layer, given in held if given is not None)
        self.derived[variable.name] = msgspec.structs.replace(variable, replaced=beaten)

    def _win_over(self, given: Given, verdict: Verdict) -> str:
        """Put a derived variable over a value; returns what counts instead, in words."""
        name, over, below = given.name, (given.layer, given.value), self.derived.get(given.name)
        if verdict.instead is not None and verdict.instead[0] == name:
            meant = verdict.instead[1]
            self.derived[name] = EnvVar(name, meant, f"meant by {given.value}: {verdict.reason}", replaced=(over,))
            return f"{meant} instead"
        if below is not None and not below.unset:
            told = verdict.reason in below.because
            because = below.because if told else f"{below.because}; {given.value}: {verdict.reason}"
            self.derived[name] = msgspec.structs.replace(below, because=because, replaced=(*below.replaced, over))
            return f"{below.value} instead"
        if given.layer == "inherited":
            self.derived[name] = EnvVar(name, "", verdict.reason, replaced=(over,), unset=True)
            return "it is taken away"
        return "NCCL reads it all the same, so take it out there" if given.layer == "nccl.conf" else ""

    def _under_new_name(self, given: Given, new: str) -> str:
        """Set a variable under the name that is read, unless a person gave that name a value, too."""
        if new in self.pinned or any(other.name == new for other in self.given):
            return f"{new} is set, too"
        below = self.derived.get(new)
        replaced = () if below is None else (*below.replaced, (below.layer, below.value))
        because = f"{given.name} in {given.where}, by its new name"
        self.derived[new] = EnvVar(new, given.value, because, replaced=replaced)
        return f"{new}={given.value} instead"
