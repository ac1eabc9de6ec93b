"""What is mounted where."""

from __future__ import annotations

from .files import at, read_or


def mounts() -> list[tuple[str, str, str]]:
    """Mount point, file system type and source of every mount. Source: /proc/self/mountinfo, proc(5)."""
    found = []
    for line in read_or(at("/proc/self/mountinfo"), limit=8 << 20).splitlines():
        left, _, right = line.partition(" - ")
        words, rest = left.split(" "), right.split(" ")
        if len(words) > 4 and len(rest) > 1:
            found.append((unescaped(words[4]), rest[0], unescaped(rest[1])))
    return found


def unescaped(word: str) -> str:
    """A word of mountinfo without its octal escapes, by which blanks and the like are written."""
    if "\\" not in word:
        return word
    import re

    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), word)


def mount_of(path: str, table: list[tuple[str, str, str]]) -> tuple[str, str, str]:
    """The mount that holds a path, the last one where several lie over each other."""
    best = ("", "", "")
    for row in table:
        inside = path == row[0] or path.startswith(row[0].rstrip("/") + "/")
        if inside and len(row[0]) >= len(best[0]):
            best = row
    return best
