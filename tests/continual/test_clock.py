"""What a stage says of its time, and the collector of garbage that is off while modules are imported."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from continual import clock

from tests.continual.conftest import LAUNCH


def test_laps_add_up(monkeypatch: pytest.MonkeyPatch):
    times = iter([1.0, 3.5, 4.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    taken = clock.Clock(0.5, {})
    for part in ("imports", "training", "imports"):
        taken.lap(part)
    assert taken.rounded() == {"imports": 1.0, "training": 2.5}


def test_what_part_is_training_is_said_over_all_stages():
    first = {"imports": 3.0, "training": 4.0, "joining": 0.01}
    assert clock.spent([first]) == "of 7.0 s in 1 stage, 4.0 s (57 %) are training, imports 3.0"
    both = clock.spent([first, {"imports": 2.0, "measuring": 6.0, "training": 5.0}])
    assert both == "of 20.0 s in 2 stages, 9.0 s (45 %) are training, measuring 6.0, imports 5.0"
    assert clock.spent([]) == "of 0.0 s in 0 stages, 0.0 s (0 %) are training"


PROGRAM = """
import gc
from continual.clock import collect_again
gc.disable()
collect_again()
print(gc.isenabled(), gc.get_freeze_count() > 0)
gc.unfreeze()
collect_again()
print(gc.isenabled(), gc.get_freeze_count())
"""


def test_garbage_is_looked_for_again_and_what_was_imported_left_out():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": str(LAUNCH)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["True", "True", "True", "0"], done.stderr
