"""What can only be changed from outside of a container: how it is started."""

from __future__ import annotations

from collections.abc import Mapping

from dsdoctor.report.model import Fix

_RUN = ("docker", "podman")


def start_again(kind: str | None, option: str, others: Mapping[str, str] | None = None) -> Fix:
    """The way out for a container: started anew with `option`. `others` has the words for other kinds of containers."""
    if kind in _RUN:
        return Fix("From outside: start the container with", (f"{kind} run {option} …",))
    words = (others or {}).get(kind or "", f"what {option} is to docker run")
    return Fix(f"Only from outside of the container: {words}")
