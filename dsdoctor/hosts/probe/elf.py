"""Shared libraries, read without loading them."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

SEARCH_BYTES = 256 << 20  # of a library without sections


class Library:
    """A shared library's tables. ELF of 64 bits, little endian; another file has no tables, only bytes."""

    def __init__(self, path: str) -> None:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            self.bytes: Any = mmap.mmap(handle, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(handle)
        self.elf = self.bytes[:6] == b"\x7fELF\x02\x01"

    def close(self) -> None:
        """Give the mapping back."""
        self.bytes.close()

    def unpack(self, form: str, offset: int) -> tuple[Any, ...]:
        """Fields of the file at an offset. Raises struct.error beyond its end."""
        if offset > len(self.bytes):
            raise struct.error("beyond the end of the file")
        return struct.unpack_from("<" + form, self.bytes, offset)

    def extent(self, wanted: bytes) -> tuple[int, int] | None:
        """Where a section (`.rodata`) begins and ends in the file, or None."""
        if not self.elf:
            return None
        try:
            table, size, count, names = self.unpack("Q", 0x28) + self.unpack("HHH", 0x3A)
            strings = self.unpack("Q", table + size * names + 0x18)[0]
            for index in range(count):
                name, kind, _, _, offset, length = self.unpack("IIQQQQ", table + size * index)
                begin = strings + name
                if self.bytes[begin : begin + len(wanted) + 1] == wanted + b"\0" and kind != 8:
                    return offset, min(offset + length, len(self.bytes))
        except (struct.error, ValueError, IndexError):
            pass  # cut off or damaged: then there are only bytes
        return None

    def places(self, wanted: bytes, part: bytes = b".rodata") -> Iterator[int]:
        """Where some bytes stand in a section, one after the other, or in the whole file when it has no such section.

        The code for the GPUs, nearly all of such a file, is thereby not read: 0.2 of 430 MB for an NCCL. Bytes and
        not patterns, where that will do: `re` takes 5 ms to import, a tenth of the probe's time.
        """
        begin, end = self.extent(part) or (0, min(len(self.bytes), SEARCH_BYTES))
        place = self.bytes.find(wanted, begin, end)
        while place >= 0:
            yield place
            place = self.bytes.find(wanted, place + 1, end)

    def after(self, wanted: bytes, size: int, part: bytes = b".rodata") -> Iterator[bytes]:
        """What follows each place of some bytes, so many of them at most."""
        for place in self.places(wanted, part):
            begin = place + len(wanted)
            yield self.bytes[begin : begin + size]

    def search(self, pattern: str, part: bytes) -> Any:
        """The first match of a pattern in a section, or in the whole file as :meth:`places` takes it."""
        begin, end = self.extent(part) or (0, min(len(self.bytes), SEARCH_BYTES))
        import re

        return re.compile(pattern.encode("ascii")).search(self.bytes, begin, end)

    def dynamic(self) -> dict[str, list[str]]:
        """The dynamic table's `needed`, `soname`, `rpath` and `runpath`. Source: the ELF specification, chapter 5."""
        found: dict[str, list[str]] = {"needed": [], "soname": [], "rpath": [], "runpath": []}
        try:
            tags, loads = self.dynamic_table()
            strings = place_of(next(value for tag, value in tags if tag == 5), loads)  # DT_STRTAB
            names = {1: "needed", 14: "soname", 15: "rpath", 29: "runpath"}
            for tag, value in tags:
                if tag in names:
                    end = self.bytes.find(b"\0", strings + value)
                    found[names[tag]].append(self.bytes[strings + value : end].decode("utf-8", "surrogateescape"))
        except (struct.error, ValueError, StopIteration):
            pass  # cut off or damaged
        return found

    def dynamic_table(self) -> tuple[list[tuple[int, int]], list[tuple[int, int, int]]]:
        """The dynamic table's tags and values, and the loaded segments: address, offset and length. Empty: none.

        Raises struct.error for a file that is cut off.
        """
        if not self.elf:
            return [], []
        base, size, count = self.unpack("Q", 0x20) + self.unpack("HH", 0x36)
        headers = [self.unpack("IIQQQQ", base + size * index) for index in range(count)]
        loads = [(head[3], head[2], head[5]) for head in headers if head[0] == 1]  # PT_LOAD
        begin, length = next(((head[2], head[5]) for head in headers if head[0] == 2), (0, 0))  # PT_DYNAMIC
        tags = []
        for step in range(0, min(length, 1 << 16), 16):
            tag, value = self.unpack("qQ", begin + step)
            if tag == 0:
                break
            tags.append((tag, value))
        return tags, loads

    def versions(self) -> list[str]:
        """The symbol versions that it needs of other libraries ("GLIBC_2.28"). Source: .gnu.version_r, LSB 10.7.3."""
        table, strings = self.extent(b".gnu.version_r"), self.extent(b".dynstr")
        found: list[str] = []
        if table is None or strings is None:
            return found
        try:
            place = table[0]
            for _ in range(1000):
                count, _, auxiliary, following = self.unpack("HHIII", place)[1:]
                entry = place + auxiliary
                for _ in range(min(count, 1000)):
                    name, step = self.unpack("IHHII", entry)[3:]
                    begin = strings[0] + name
                    text = self.bytes[begin : self.bytes.find(b"\0", begin)]
                    found.append(text.decode("utf-8", "surrogateescape"))
                    entry += step
                if not following:
                    break
                place += following
        except (struct.error, ValueError):
            pass  # cut off or damaged
        return found


def place_of(address: int, loads: list[tuple[int, int, int]]) -> int:
    """Where in the file an address lies. Raises StopIteration for one outside of what is loaded."""
    return next(address - begin + offset for begin, offset, long in loads if begin <= address < begin + long)


class Symbols:
    """A library's dynamic symbols, found by the hash table that the loader uses: a few pages of it are read.

    Source: the ELF specification, chapter 5; the GNU hash table as ld writes it (binutils, bfd/elflink.c): symbols that
    the library asks others for stand before those that it has. Raises KeyError, StopIteration or struct.error for a
    library without such a table.
    """

    def __init__(self, library: Library) -> None:
        tags, loads = library.dynamic_table()
        values = dict(tags)
        self.library = library
        self.names = place_of(values[5], loads)  # DT_STRTAB
        self.table = place_of(values[6], loads)  # DT_SYMTAB
        self.hash = place_of(values[0x6FFFFEF5], loads)  # DT_GNU_HASH
        self.buckets, self.first, self.words, self.shift = library.unpack("IIII", self.hash)
        if not (self.buckets and self.words):
            raise KeyError("DT_GNU_HASH")

    def name(self, index: int) -> bytes:
        """The name of a symbol."""
        begin = self.names + self.library.unpack("I", self.table + 24 * index)[0]
        end = self.library.bytes.find(b"\0", begin, begin + 4096)
        return bytes(self.library.bytes[begin:end]) if end > 0 else b""

    def wanted(self) -> list[bytes]:
        """The names that other libraries must have; weak ones may be missing."""
        found = []
        for index in range(1, min(self.first, 100000)):
            info, _, part = self.library.unpack("BBH", self.table + 24 * index + 4)
            if part == 0 and info >> 4 == 1:  # undefined, STB_GLOBAL
                found.append(self.name(index))
        return found

    def has(self, name: bytes) -> bool:
        """Whether the library offers a symbol to others."""
        code = 5381
        for byte in bytearray(name):
            code = (code * 33 + byte) & 0xFFFFFFFF
        bloom = self.hash + 16
        word = self.library.unpack("Q", bloom + 8 * (code // 64 % self.words))[0]
        if not (word >> code % 64) & (word >> (code >> self.shift) % 64) & 1:
            return False
        buckets = bloom + 8 * self.words
        index = self.library.unpack("I", buckets + 4 * (code % self.buckets))[0]
        chain = buckets + 4 * self.buckets
        for _ in range(100000) if index >= self.first else ():
            value = self.library.unpack("I", chain + 4 * (index - self.first))[0]
            if (value ^ code) >> 1 == 0 and self.name(index) == name:
                return bool(self.library.unpack("H", self.table + 24 * index + 6)[0])  # has a section: is defined
            if value & 1:
                break
            index += 1
        return False
