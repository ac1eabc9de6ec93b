"""Provokes failures by hand: `python -m tests.provoked list`, `run NAME …`, `record NAME …` (or `--all`)."""

from __future__ import annotations

import argparse
import sys

from tests.provoked.failure import Failure, failures
from tests.provoked.judging import answer, mistakes
from tests.provoked.recording import record
from tests.provoked.sandbox import NotProvokedError
from tests.provoked.stage import happen, missing_for


def main(words: list[str]) -> int:
    """Do what the command line says; 1 when a failure was not provoked or not seen through."""
    parser = argparse.ArgumentParser(prog="python -m tests.provoked", description=__doc__)
    parser.add_argument("action", choices=["list", "run", "record"])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--all", action="store_true", help="every failure")
    given = parser.parse_args(words)
    known = failures()
    unknown = [name for name in given.names if name not in known]
    if unknown:
        parser.error(f"no such failure: {', '.join(unknown)}; `list` shows all {len(known)}")
    if given.action == "list":
        for each in known.values():
            print(f"{each.name:32} {each.cause:34} {each.what}")
        return 0
    chosen = list(known.values()) if given.all else [known[name] for name in given.names]
    return max((_one(each, given.action == "record") for each in chosen), default=0)


def _one(failure: Failure, keep: bool) -> int:
    """Provoke one failure and say what diagnose answers; with `keep`, replace its recorded log."""
    missing = missing_for(failure)
    if missing:
        print(f"{failure.name}: {missing}")
        return 1
    try:
        outcome = happen(failure)
    except NotProvokedError as error:
        print(error)
        return 1
    if keep:
        record(failure, outcome)
    else:
        sys.stdout.write(outcome.log.decode("utf-8", "replace"))
    wrong = mistakes(failure, outcome.log)
    told = "; ".join(wrong) or answer(outcome.log).cause
    print(f"{failure.name}: {outcome.seconds:.1f} s, exit code {outcome.code}, {'WRONG' if wrong else 'right'}: {told}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
