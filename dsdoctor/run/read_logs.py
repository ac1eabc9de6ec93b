"""Reading a job's logs for `diagnose`: one after another, or, where there are several large ones, a process a core."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dsdoctor.logs.rules import RuleSet
from dsdoctor.logs.scan import Scan, Scanner
from dsdoctor.run.log_files import STDIN, files_of, open_sources

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

LARGE = 1 << 26  # bytes of all files from which on further processes pay
MEMBERS = 1 << 20  # logs of one path, at most (members of an archive)

Progress = Callable[[str, int], None]  # name of a source, bytes of it that were read just now; 0 at its end


def read_logs(paths: Iterable[str | Path], rules: RuleSet, progress: Progress = lambda name, size: None) -> list[Scan]:
    """Scan the logs of these paths (see :func:`dsdoctor.run.log_files.open_sources`), in their order.

    Raises:
        FileError: a path is not there or cannot be read, a folder has no log, a compressed file is broken.
    """
    files = files_of(paths)
    sizes = {file: file.stat().st_size for file in files if file != STDIN}
    workers = min(len(sizes), _cores())
    if workers < 2 or STDIN in files or sum(sizes.values()) < LARGE:
        return list(Scanner(rules, len(files)).scan_all(_counted(open_sources(files), progress)))
    return _in_processes(files, sizes, workers, rules, progress)


def _in_processes(
    files: list[Path], sizes: dict[Path, int], workers: int, rules: RuleSet, progress: Progress
) -> list[Scan]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    largest_first = sorted(range(len(files)), key=lambda number: -sizes[files[number]])
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    stop = context.Event()
    with ProcessPoolExecutor(workers, context, _begin, (rules, len(files), stop)) as pool:
        try:
            with _uninterrupted():
                tasks = {number: pool.submit(_read, files[number], number * MEMBERS) for number in largest_first}
            scans: dict[int, list[Scan]] = {}
            for number in largest_first:
                scans[number] = tasks[number].result()
                progress(str(files[number]), sizes[files[number]])
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return [scan for number in range(len(files)) for scan in scans[number]]


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits: a pool that is interrupted while it starts its processes never ends them.

    The processes are born in here and leave Ctrl-C to this one for good, which tells them to stop.
    """
    mask = getattr(signal, "pthread_sigmask", None)  # not on Windows
    if mask is None:
        yield
        return
    before = mask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        mask(signal.SIG_SETMASK, before)


def _counted(
    sources: Iterable[tuple[str, Iterator[bytes]]], progress: Progress
) -> Iterator[tuple[str, Iterator[bytes]]]:
    def chunks(name: str, content: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in content:
            progress(name, len(chunk))
            yield chunk
        progress(name, 0)

    for name, content in sources:
        yield name, chunks(name, content)


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- in the processes

_scanner: Scanner
_stop: Event


def _begin(rules: RuleSet, sources: int, stop: Event) -> None:
    global _scanner, _stop
    _scanner, _stop = Scanner(rules, sources), stop


def _read(path: Path, first: int) -> list[Scan]:
    def until_stopped(chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if _stop.is_set():
                return
            yield chunk

    sources = ((name, until_stopped(chunks)) for name, chunks in open_sources([path]))
    return list(_scanner.scan_all(sources, first))
