"""What lies below a path that the job names."""

from __future__ import annotations

import itertools
import os
import stat
import time

from .files import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

WALK_ENTRIES = 50000  # of one folder with everything below it
READ_FILES = 500  # small files whose content is compared
READ_BYTES = 8 << 20  # of these together
SMALL_BYTES = 64 << 10
SHOWN_ENTRIES = 200
SHOWN_NAMES = 20
POINTER = b"version https://git-lfs.github.com/spec/"
# What programs leave behind in folders of data: caches, locks, version control. It differs without harm.
PASSING = r"^(\.git|\.cache|\.huggingface|__pycache__|\.DS_Store|\._.*|cache-.*\.arrow|.*\.lock|.*\.incomplete)$"


class Walk:
    """What lies below a path: names, sizes, the content of small files, and what this user may not read."""

    def __init__(self, place: str, until: float) -> None:
        self.place = place
        self.until = until
        self.complete = True
        self.sizes: dict[str, int] = {}
        self.unreadable: list[str] = []
        self.pointers: list[str] = []

    def folder(self) -> dict[str, Any]:
        """The fields for a folder."""
        import re

        passing = re.compile(PASSING)
        status = os.stat(self.place)
        waiting, seen, left = [""], {(status.st_dev, status.st_ino)}, WALK_ENTRIES
        while waiting and self.complete:
            inside = waiting.pop()
            try:
                with os.scandir(os.path.join(self.place, inside)) as listed:
                    found = list(itertools.islice(listed, left + 1))
            except OSError:
                self.unreadable.append(inside or ".")
                continue
            left -= len(found)
            self.complete = left >= 0
            # In the order of their names: of two links to one folder the first is followed, on every host the same.
            for entry in sorted(found, key=lambda entry: entry.name):
                if time.monotonic() > self.until:
                    self.complete = False
                    break
                if not passing.match(entry.name):
                    self.take(entry, os.path.join(inside, entry.name), waiting, seen)
        return self.described()

    def take(self, entry: Any, name: str, waiting: list[str], seen: set[tuple[int, int]]) -> None:
        """One entry of a folder. Links are followed; a folder that was seen already, over a link, is not again."""
        try:
            status = entry.stat()
        except OSError:
            self.unreadable.append(name)  # a link into the void, or its folder lacks the x bit
            return
        if stat.S_ISDIR(status.st_mode):
            key = (status.st_dev, status.st_ino)
            if key not in seen:
                seen.add(key)
                waiting.append(name)
                if not os.access(os.path.join(self.place, name), os.R_OK | os.X_OK):
                    self.unreadable.append(name)
                    waiting.pop()
        elif stat.S_ISREG(status.st_mode):
            self.sizes[name] = status.st_size

    def single(self) -> dict[str, Any]:
        """The fields for a file."""
        self.sizes[""] = os.stat(self.place).st_size
        return self.described()

    def described(self) -> dict[str, Any]:
        """The fields out of what was found, in an order that is the same on every host."""
        import hashlib

        contents = self.contents()
        groups: dict[str, list[str]] = {}
        for name in sorted(self.sizes):
            line = "%s\0%d\0%s" % (name, self.sizes[name], contents.get(name, ""))
            groups.setdefault(name.partition("/")[0], []).append(line)

        def digest(lines: Iterable[str]) -> str:
            return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]

        def total(lines: list[str]) -> int:
            return sum(self.sizes[line.partition("\0")[0]] for line in lines)

        top = [
            {
                "name": name,
                "files": len(groups[name]),
                "total_bytes": total(groups[name]),
                "digest": digest(groups[name]),
            }
            for name in sorted(groups)[:SHOWN_ENTRIES]
            if name
        ]
        unreadable = sorted(set(self.unreadable))
        return {
            "files": len(self.sizes),
            "total_bytes": sum(self.sizes.values()),
            "complete": self.complete,
            "digest": digest(line for name in sorted(groups) for line in groups[name]) if self.complete else "",
            "entries": top if self.complete else [],
            "unreadable": unreadable[:SHOWN_NAMES],
            "unreadable_count": len(unreadable),
            "pointers": self.pointers[:SHOWN_NAMES],
        }

    def contents(self) -> dict[str, str]:
        """Digests of the small files, the first by name as far as the limits go; finds the Git-LFS pointers."""
        import hashlib

        digests: dict[str, str] = {}
        left = READ_BYTES
        for name in sorted(name for name, size in self.sizes.items() if size <= SMALL_BYTES)[:READ_FILES]:
            left -= self.sizes[name]
            if left < 0 or time.monotonic() > self.until:
                self.complete = self.complete and left < 0  # out of time: hosts would be told apart by their pace
                break
            path = os.path.join(self.place, name) if name else self.place
            try:
                text = read(path, SMALL_BYTES).encode("utf-8", "surrogateescape")
            except OSError:
                self.unreadable.append(name or ".")
                continue
            digests[name] = hashlib.sha256(text).hexdigest()[:16]
            if text.startswith(POINTER):
                self.pointers.append(name or os.path.basename(self.place))
        return digests
