"""Says what was skipped and why and what passed only when run alone; fails when tests that matter did not run."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter

NEEDED = {"tests.cluster": 10, "tests.continual": 5, "tests.hosts": 10, "tests.checks": 10, "tests.provoked": 300}


def main(paths: list[str]) -> int:
    """Read JUnit files; 0 when nothing that matters was left out."""
    ran: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    unsteady = []
    for case in (case for path in paths for case in ElementTree.parse(path).iter("testcase")):
        reason = case.find("skipped")
        if reason is not None:
            skipped[reason.get("message") or "no reason given"] += 1
            continue
        if case.find("failure") is not None or case.find("error") is not None:
            unsteady.append(f"{case.get('classname')}: {case.get('name')}")
        for folder in NEEDED:
            ran[folder] += (case.get("classname") or "").startswith(folder)
    for reason, count in skipped.most_common():
        print(f"skipped {count}: {reason}")
    print(f"skipped in all: {sum(skipped.values())}")
    for name in unsteady:
        print(f"failed beside the other parts of the tests, passed alone: {name}")
    missing = {folder: ran[folder] for folder, wanted in NEEDED.items() if ran[folder] < wanted}
    for folder, count in missing.items():
        print(f"{folder}: only {count} tests ran, at least {NEEDED[folder]} were wanted")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
