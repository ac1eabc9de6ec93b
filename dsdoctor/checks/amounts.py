"""Amounts of memory and disk as people write them."""

from __future__ import annotations

MIB, GIB = 1 << 20, 1 << 30

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def amount(size: int) -> str:
    """`512 MiB`, `1.5 GiB`, `40 bytes`: three digits at most, none of them a useless zero."""
    value, unit = float(max(size, 0)), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    text = f"{value:.1f}" if value < 99.5 and unit else f"{value:.0f}"
    return f"{text.removesuffix('.0')} {_UNITS[unit]}"
