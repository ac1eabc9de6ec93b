"""Run all benchmarks that take minutes, or those named."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

LEFT_OUT = {"__init__", "__main__", "timing", "big_log", "activations", "memory_ranks", "memory_tables"}
ONLY_NAMED = {"faults", "judges", "methods"}  # half an hour and more


def main(wanted: list[str]) -> int:
    """Print each benchmark's table under its own heading."""
    known = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in LEFT_OUT)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        print(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    for name in wanted or [name for name in known if name not in ONLY_NAMED]:
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"## {name}\n\n{(module.__doc__ or '').strip()}\n\n{module.main()}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
