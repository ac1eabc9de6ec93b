"""Write the compiled form of the rules: `python -m dsdoctor.rules.compile`. Run it after editing a rule.

A stale form is never used (the loader compares digests); it only costs the time to parse the YAML files.
"""

from __future__ import annotations

from dsdoctor.logs.rules import COMPILED, FOLDER, compile_rules


def main() -> None:
    """Write `compiled.json` beside the rules."""
    (FOLDER / COMPILED).write_bytes(compile_rules())


if __name__ == "__main__":
    main()
