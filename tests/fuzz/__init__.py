"""Fuzzing of what reads hostile input. Each target is a module with `one`, `seeds` and `LONGEST`.

`make fuzz` runs them under atheris, which looks for inputs that reach new code; `test_targets.py` runs them on their
seeds, so that they work where there is no atheris. An input that was found is put right with a test of its own.
"""

TARGETS = ("diagnose", "lines", "rules", "hostfile", "jobs", "values")
