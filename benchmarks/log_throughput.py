"""A 2 GB log of 64 ranks through `diagnose`, beside ripgrep that only counts the lines with one of the same keywords.

Also the same bytes as eight files of as many hosts, which go through one process a core, and a paste of 20 kB, whose
time is that of starting Python. `DSDOCTOR_BENCH_MB` takes another size than 2,000 (it needs so much disk, twice).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.timing import side_by_side, table
from dsdoctor.logs.keywords import Keywords
from dsdoctor.logs.rules import load_rules
from dsdoctor.logs.scan import Scanner

HOSTS = 8


def keywords() -> bytes:
    """What the scanner looks for, a word a line, as `ripgrep -f` takes it."""
    words: Keywords = Scanner(load_rules()).keywords
    return b"\n".join(sorted({word.rstrip(b"\n") for word in words.words})) + b"\n"


def _write(path: Path, size: int, seed: int) -> None:
    subprocess.run([sys.executable, "-m", "benchmarks.big_log", str(path), str(size), str(seed)], check=True)


def main() -> str:
    """Write the logs, time all, take them away."""
    size = int(os.environ.get("DSDOCTOR_BENCH_MB", "2000")) * 1_000_000
    ripgrep = shutil.which("rg")
    if ripgrep is None:
        return "ripgrep is not installed (apt-get install ripgrep), so there is nothing to compare with."
    with tempfile.TemporaryDirectory(prefix="dsdoctor-bench-") as name:
        folder = Path(name)
        _write(folder / "job.log", size, 7)
        (folder / "hosts").mkdir()
        for host in range(HOSTS):
            _write(folder / "hosts" / f"gpu{host:02d}.log", size // HOSTS, host)
        with (folder / "job.log").open("rb") as file:
            file.seek(-20_000, os.SEEK_END)
            (folder / "paste.log").write_bytes(file.read())
        (folder / "keywords").write_bytes(keywords())
        ours = [sys.executable, "-m", "dsdoctor", "diagnose"]
        counting = [ripgrep, "-cj1", "-F", "-f", str(folder / "keywords"), str(folder / "job.log")]
        commands = {
            "rg -c -j1 -F -f keywords": counting,
            "dsdoctor diagnose job.log": [*ours, str(folder / "job.log")],
            f"dsdoctor diagnose hosts/ ({HOSTS} files)": [*ours, str(folder / "hosts")],
        }
        large = side_by_side(commands, runs=3)
        small = side_by_side({"dsdoctor diagnose paste.log": [*ours, str(folder / "paste.log")]})
    counted, read = large[0].median, large[1].median
    return (
        f"{table(large, 'rg -c -j1 -F -f keywords')}\n\n{table(small, 'dsdoctor diagnose paste.log')}\n\n"
        f"{size / read / 1e6:.0f} MB/s, {counted / read:.0%} of ripgrep's {size / counted / 1e6:.0f} MB/s."
    )
