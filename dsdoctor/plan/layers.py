"""Laying variables over each other: which layer wins on a host, over what, and which values nobody may see.

Layers, later ones win: derived ← nccl.conf ← the session on the host ← .deepspeed_env ← template for the GPU kind ← job
← stage ← host (hostfile) ← command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dsdoctor.plan.model import LAYERS, EnvVar
from dsdoctor.yamlfile import FileError

SECRET = re.compile(
    r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH|KEY|APIKEY)(?:_|$)|_PWD$", re.IGNORECASE
)  # a word of its own: not TOKENIZERS_PARALLELISM, not MAX_TOKENS
PASSWORD_IN_URL = re.compile(r"://[^/@\s]*:[^/@\s]+@")
# Shapes of well-known tokens: Hugging Face, GitHub, OpenAI, AWS, Slack, JSON web tokens. The probe masks the same.
TOKEN_SHAPES = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{16,}|AKIA[0-9A-Z]{16}|xox[a-z]-[\w-]{10,}|"
    r"eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_secret(name: str, value: str) -> bool:
    """Whether a variable's value must not be shown: by its name, or because it is a token or holds a password."""
    return bool(SECRET.search(name) or holds_secret(value))


def holds_secret(value: str) -> bool:
    """Whether a text has the shape of a well-known token, or is an address with a password."""
    return bool(PASSWORD_IN_URL.search(value) or TOKEN_SHAPES.search(value))


@dataclass(frozen=True)
class Setting:
    """A variable somebody set: which host it is for (None: all), and from which layer."""

    name: str
    value: str | None  # None takes the variable away
    layer: str
    because: str
    host: str | None = None
    hidden: bool = False  # a secret of the host's own session: only its name is known here


@dataclass(frozen=True)
class Layers:
    """What a host's environment is made of, before one layer wins over another."""

    derived: tuple[EnvVar, ...]
    settings: tuple[Setting, ...]

    def laid(self, host: str, more: Sequence[Setting] = ()) -> dict[str, EnvVar]:
        """The environment, with settings of a stage in their place among the layers."""
        return layered(self.derived, [*self.settings, *more], host)


def layered(derived: Iterable[EnvVar], settings: Iterable[Setting], host: str) -> dict[str, EnvVar]:
    """Lay the settings for a host over the derived variables; the result says what won over what.

    Raises:
        FileError: a name that no environment can hold, or a NUL in a value.
    """
    result = {variable.name: variable for variable in derived}
    ordered = sorted(
        (setting for setting in settings if setting.host in (None, host)),
        key=lambda setting: (LAYERS.index(setting.layer), setting.host is not None),
    )
    for setting in ordered:
        _refuse(setting)
        below = result.get(setting.name)
        replaced = () if below is None else (*below.replaced, (below.layer, _shown(below)))
        result[setting.name] = _variable(setting, replaced)
    return dict(sorted(result.items()))


def _refuse(setting: Setting) -> None:
    if not NAME.fullmatch(setting.name):
        raise FileError(setting.because, f"{setting.name!r} is no name for a variable: letters, digits and _ only")
    if setting.value is not None and "\0" in setting.value:
        raise FileError(setting.because, f"the value of {setting.name} holds a NUL character")


def _variable(setting: Setting, replaced: tuple[tuple[str, str], ...]) -> EnvVar:
    name, because, layer = setting.name, setting.because, setting.layer
    if setting.value is None:
        return EnvVar(name, "", because, layer, replaced, unset=True)
    if setting.hidden or is_secret(name, setting.value):
        return EnvVar(name, "", because, layer, replaced, secret=setting.value)
    return EnvVar(name, setting.value, because, layer, replaced)


def _shown(variable: EnvVar) -> str:
    """A beaten value as it may be shown."""
    if variable.secret is not None:
        return "(secret)"
    return "(unset)" if variable.unset else variable.value
