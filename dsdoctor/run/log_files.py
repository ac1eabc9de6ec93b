"""Opening logs for `diagnose`: standard input, files, folders, compressed files and tar archives, as streams of bytes.

Nothing is read whole: a source is a name and an iterator of chunks that opens its file when it is begun.
"""

from __future__ import annotations

import io
import os
import re
import sys
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Protocol, cast

from dsdoctor.yamlfile import FileError

CHUNK = 1 << 18  # bytes
STDIN = Path("-")


class _Readable(Protocol):
    """What files and decompressors have in common."""

    def read1(self, size: int = -1, /) -> bytes: ...


# In a folder, what is no log: weights, data, pictures, sources, settings. A file named on the command line is read
# whatever it is called.
_NOT_LOGS = re.compile(
    r"(?i)\.(?:pt|pth|bin|safetensors|ckpt|npz|npy|pkl|pickle|parquet|arrow|h5|onnx|gguf|model|so|o|a|pyc|py|pyx|cu|cpp|h"
    r"|png|jpe?g|gif|svg|pdf|html|css|js|ts|ya?ml|json|toml|ini|cfg|csv|tsv|sqlite|db|lock|whl|zip|7z|sh|ipynb)$"
)
_GZIP, _XZ, _BZ2, _ZSTD = b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh", b"\x28\xb5\x2f\xfd"
_DIGITS = re.compile(r"(\d+)")
_RANK_FILE = re.compile(r"rank\d+\.log$")


def open_sources(paths: Iterable[str | Path]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Name and bytes of every log of these paths: files, folders (their logs in order of name), `-` for standard input.

    Each stream must be read before the next is asked for: members of a tar archive come in its order.

    Raises:
        FileError: a path is not there or cannot be read, a folder has no log, a compressed file is broken.
    """
    for file in files_of(paths):
        if file == STDIN:
            yield from _unpacked("stdin", cast("IO[bytes]", sys.stdin.buffer), Path("stdin"))
            continue
        try:
            stream = file.open("rb")
        except OSError as error:
            raise FileError(file, f"cannot be read: {error.strerror or error}") from None
        with stream:
            yield from _unpacked(str(file), stream, file)


def files_of(paths: Iterable[str | Path]) -> list[Path]:
    """The files of these paths, folders replaced by the logs below them; STDIN stands for itself.

    Raises:
        FileError: a path is not there, a folder cannot be read or has no log.
    """
    return [file for path in paths for file in _files(Path(path))]


def _files(path: Path) -> list[Path]:
    if path == STDIN:
        return [path]
    if not path.exists():
        raise FileError(path, "no such file; wanted a log, a folder of logs, or - for standard input")
    if not path.is_dir():
        return [path]
    found = sorted(_below(path), key=_natural)
    if not found:
        raise FileError(path, "no log in this folder; name the file if it is called otherwise")
    return found


def _below(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise FileError(error.filename or folder, f"cannot be read: {error.strerror or error}")

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        by_rank = any(_RANK_FILE.search(name) for each in folders for name in _names(Path(parent, each)))
        for name in names:
            if name.startswith(".") or _NOT_LOGS.search(name) or (by_rank and name == "merged.log"):
                continue  # a merged view repeats the files of the ranks beside it
            file = Path(parent, name)
            if file.is_file() and file.stat().st_size:
                yield file


def _names(folder: Path) -> list[str]:
    try:
        return [each.name for each in folder.iterdir()]
    except OSError:
        return []


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts rank10 after rank9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _DIGITS.split(str(path))]


class _Begun:
    """A stream of which the first bytes have been read already."""

    def __init__(self, head: bytes, stream: _Readable) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end; a compressed log that is still being written ends where it ends."""
        if self._head:
            part, self._head = self._head[:size], self._head[size:]
            return part
        try:
            return self._stream.read1(size)
        except EOFError:
            return b""


def _unpacked(name: str, stream: IO[bytes], path: Path) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The stream decompressed, and taken apart when it is a tar archive."""
    try:
        plain = _decompressed(io.BufferedReader(cast("io.RawIOBase", stream), CHUNK), path)
        head = plain.read1(CHUNK)
        begun = _Begun(head, plain)
        if head[257:262] != b"ustar":
            yield name, _chunks(begun, path)
            return
        with tarfile.open(fileobj=cast("IO[bytes]", begun), mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() and not _NOT_LOGS.search(member.name) else None
                if content is not None:
                    yield f"{name}/{member.name}", _chunks(content, path)
    except (OSError, zlib.error, EOFError, tarfile.TarError) as error:
        raise FileError(path, f"cannot be unpacked: {error}") from None


def _decompressed(reader: io.BufferedReader, path: Path) -> _Readable:
    head = reader.peek(6)
    if head.startswith(_GZIP):
        import gzip

        return gzip.GzipFile(fileobj=reader)
    if head.startswith(_XZ):
        import lzma

        return lzma.LZMAFile(reader)
    if head.startswith(_BZ2):
        import bz2

        return cast("_Readable", bz2.BZ2File(reader))
    if head.startswith(_ZSTD):
        return _zstd(reader, path)
    return reader


def _zstd(reader: io.BufferedReader, path: Path) -> _Readable:
    """Zstandard is in Python from 3.14 on; before that a package has to be there."""
    for module in ("compression.zstd", "backports.zstd", "pyzstd"):
        try:
            zstd = __import__(module, fromlist=["ZstdFile"])
        except ImportError:
            continue
        opened: _Readable = zstd.ZstdFile(reader)
        return opened
    mend = f"pip install backports.zstd, or: zstd -dc {path} | dsdoctor diagnose"
    raise FileError(path, f"zstd is in Python from 3.14 on; {mend}")


def _chunks(stream: _Begun | IO[bytes], path: Path) -> Iterator[bytes]:
    """The bytes of a stream."""
    while True:
        try:
            chunk = stream.read(CHUNK)
        except (OSError, zlib.error, EOFError, tarfile.TarError) as error:
            raise FileError(path, f"cannot be read: {error}") from None
        if not chunk:
            return
        yield chunk
