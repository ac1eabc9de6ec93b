"""The command line: one file a command, found by its file and imported only when it is called."""

from __future__ import annotations


def main() -> None:
    """Run dsdoctor with the arguments of the process and exit; the exit codes are those of `_failures`."""
    import gc

    from dsdoctor.cli._failures import guarded

    gc.set_threshold(20_000)  # what comes in at the start stays: looking for garbage in it costs a tenth of the start

    guarded(_run, prints_to_pipe=True)


def _run() -> int:
    from dsdoctor.cli._group import dsdoctor

    return dsdoctor.run()
