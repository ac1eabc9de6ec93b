"""`python -m tests.fuzz [--seconds 60] [--seed N] [TARGET]...`: each target for so long; what breaks it is kept.

Inputs that reached new code are kept in `.fuzz/` and are where the next run begins.
"""

import argparse
import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from tests.fuzz import TARGETS

KEPT = Path(".fuzz")


def prepared(name: str, module: ModuleType) -> tuple[Path, Path]:
    """The folder of a target's inputs, with its seeds, and its dictionary."""
    corpus, words = KEPT / name, KEPT / f"{name}.dict"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(module.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed[: module.LONGEST])
    lines = {"".join(f"\\x{byte:02x}" for byte in word.encode()[:60]) for word in module.words()}
    words.write_text("".join(f'"{line}"\n' for line in sorted(lines)))
    return corpus, words


def fuzz(name: str, seconds: int, seed: int) -> bool:
    """Run one target. Whether nothing broke it."""
    module = importlib.import_module(f"tests.fuzz.{name}")
    corpus, words = prepared(name, module)
    argv = [
        sys.executable,
        "-m",
        "tests.fuzz.target",
        name,
        str(corpus),
        f"-dict={words}",
        f"-max_len={module.LONGEST}",
    ]
    argv += [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        "-timeout=20",
        "-rss_limit_mb=2048",
        f"-artifact_prefix={KEPT}/broken-{name}-",
    ]
    environment = {**os.environ, "PYTHONHASHSEED": "0"} if seed else None
    done = subprocess.run(
        [*argv, "-print_final_stats=1", "-verbosity=0"], capture_output=True, text=True, check=False, env=environment
    )
    said = done.stdout + done.stderr
    runs = next((line.split()[-1] for line in said.splitlines() if "number_of_executed_units" in line), "0")
    print(f"{name}: {runs} inputs in {seconds} s, {len(list(corpus.iterdir()))} kept", flush=True)
    if done.returncode:
        print(said[-6000:], f"\nThe input is in {KEPT}/broken-{name}-*; again: python -m tests.fuzz.target {name} FILE")
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="the same inputs each time (default: others each time)")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    given = parser.parse_args()
    unknown = set(given.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {unknown.pop()}; known: {', '.join(TARGETS)}")
    if importlib.util.find_spec("atheris") is None:
        print(f"Fuzzing is skipped: atheris has no build for Python {sys.version.split()[0]} on {sys.platform}.")
        return 0
    results = [fuzz(name, given.seconds, given.seed) for name in given.targets or TARGETS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
