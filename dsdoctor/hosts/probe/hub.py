"""Models in the hub's cache: what `from_pretrained("org/name")` would take without any network."""

from __future__ import annotations

import os

from .files import entries, read_or

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def hub_roots(variables: Mapping[str, str]) -> list[str]:
    """The folders of the cache, the one that counts first (huggingface_hub/constants.py)."""
    cache = variables.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    home = variables.get("HF_HOME") or os.path.join(cache, "huggingface")
    named = [variables.get(name) for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE")]
    return [os.path.expanduser(root) for root in [*named, os.path.join(home, "hub")] if root]


def snapshot_of(name: str, roots: list[str]) -> str | None:
    """The folder of a model's newest copy in the cache, by its name on the hub; None where there is none."""
    parts = name.split("/")
    if len(parts) > 2 or not all(part and part[0] not in ".-" and ALLOWED.issuperset(part) for part in parts):
        return None
    for root in roots:
        folder = os.path.join(root, "models--" + "--".join(parts))
        snapshots = os.path.join(folder, "snapshots")
        main = read_or(os.path.join(folder, "refs", "main")).strip()
        if main and "/" not in main and os.path.isdir(os.path.join(snapshots, main)):
            return os.path.join(snapshots, main)
        others = [os.path.join(snapshots, one) for one in sorted(entries(snapshots))]
        found = [one for one in others if os.path.isdir(one)]
        if len(found) == 1:
            return found[0]
    return None


def hub_copy(name: str, roots: list[str], until: float) -> dict[str, Any]:
    """What is to be known of that copy, as rows of a path of the job."""
    from .model_files import model_files

    folder = snapshot_of(name, roots)
    return {} if folder is None else {"hub_at": folder, "hub": model_files(folder, until)}
