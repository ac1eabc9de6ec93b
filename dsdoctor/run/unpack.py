"""Compressed logs and archives as streams of bytes, archives inside archives too.

What is damaged or cut off is read as far as it goes: a log that is still being written, a download that broke off.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, cast

from dsdoctor.logs.source import IncompleteError, NotTextError, not_text
from dsdoctor.yamlfile import FileError

if TYPE_CHECKING:
    import zipfile

Source = tuple[str, Iterator[bytes]]  # name and bytes
Wanted = Callable[[str], bool]  # whether a member of that name may be a log

CHUNK = 1 << 18  # bytes
HEAD = 4096  # bytes by which a format is told
DEEPEST = 5  # archives and compressions inside each other

_GZIP, _XZ, _BZ2, _ZSTD = b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh", b"\x28\xb5\x2f\xfd"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
# Archives that are something else: a member that gives them away.
_NO_LOGS = {
    "data.pkl": "a PyTorch checkpoint",
    "[Content_Types].xml": "an Office document",
    "META-INF/MANIFEST.MF": "a Java archive",
}


class _Readable(Protocol):
    """What files and decompressors have in common."""

    def read1(self, size: int = -1, /) -> bytes: ...


def unpacked(name: str, stream: IO[bytes], path: Path, wanted: Wanted) -> Iterator[Source]:
    """The logs in a stream: itself, decompressed, or the members of an archive. Each is to be read before the next.

    A stream of bytes raises IncompleteError where it ends before its time, or at once when it is no text.

    Raises:
        FileError: the disk does not give the bytes.
    """
    yield from _unpacked(name, stream, path, wanted, DEEPEST)


def _unpacked(name: str, stream: IO[bytes], path: Path, wanted: Wanted, depth: int) -> Iterator[Source]:
    begun = _Begun(stream, path)
    head = begun.head
    decompressed = _decompressed(begun, head) if depth else None
    if decompressed is not None:
        yield from _unpacked(name, cast("IO[bytes]", _Compressed(decompressed)), path, wanted, depth - 1)
    elif head[257:262] == b"ustar" and depth:
        yield from _tar(name, begun, path, wanted, depth)
    elif head.startswith(_ZIP) and depth:
        yield from _zip(name, begun, stream, path, wanted, depth)
    else:
        yield name, _text(begun)


def _text(begun: _Begun) -> Iterator[bytes]:
    """The bytes of a log. Raises IncompleteError at once when they are none of a text."""
    chunk = begun.read(CHUNK)
    what = not_text(chunk)
    if what is not None:
        raise NotTextError(f"is {what} and was left out")
    while chunk:
        yield chunk
        chunk = begun.read(CHUNK)


class _Begun:
    """A stream of which the first bytes are known; it says in words what stops it."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream = cast("_Readable", stream)
        self._path = path
        self._stopped: IncompleteError | None = None
        self.head = b""
        while len(self.head) < HEAD and (part := self._next(HEAD)):
            self.head += part
        self._held = self.head

    def read(self, size: int = CHUNK) -> bytes:
        """At most `size` bytes, none at the end."""
        if self._held:
            part, self._held = self._held[:size], self._held[size:]
            return part
        part = self._next(size)
        if not part and self._stopped is not None:
            raise self._stopped
        return part

    read1 = read

    def readable(self) -> bool:
        """As io wants it."""
        return True

    closed = False

    def _next(self, size: int) -> bytes:
        if self._stopped is not None:
            return b""
        try:
            return self._stream.read1(size)
        except IncompleteError as stopped:
            self._stopped = stopped
        except OSError as error:
            raise FileError(self._path, f"cannot be read: {error.strerror or error}") from None
        return b""


class _Compressed:
    """A decompressor whose complaints are told in words."""

    def __init__(self, stream: _Readable) -> None:
        self._stream = stream

    def read1(self, size: int = -1) -> bytes:
        """At most `size` bytes, none at the end. Raises IncompleteError where it is cut off or damaged."""
        try:
            return self._stream.read1(size)
        except EOFError:
            raise IncompleteError("is cut off: its compressed data ends before its end") from None
        except (FileError, IncompleteError, MemoryError):
            raise
        except Exception as error:  # each format has exceptions of its own
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise IncompleteError(f"is damaged and cannot be unpacked any further: {error}") from None


def _decompressed(begun: _Begun, head: bytes) -> _Readable | None:
    """The decompressor of a stream, None when it is not compressed."""
    source = cast("IO[bytes]", begun)
    if head.startswith(_GZIP):
        import gzip

        return gzip.GzipFile(fileobj=source)
    if head.startswith(_XZ):
        import lzma

        return lzma.LZMAFile(source)
    if head.startswith(_BZ2):
        import bz2

        return cast("_Readable", bz2.BZ2File(source))
    if head.startswith(_ZSTD):
        return cast("_Readable", _zstd(source))
    return None


def _zstd(source: IO[bytes]) -> object:
    """Zstandard is in Python from 3.14 on; its backport is a dependency before that."""
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        from backports import zstd
    return zstd.ZstdFile(source)


def _tar(name: str, begun: _Begun, path: Path, wanted: Wanted, depth: int) -> Iterator[Source]:
    import tarfile

    found = False
    padded = _Padded(begun)
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", padded), mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() and wanted(member.name) else None
                if content is not None:
                    found = True
                    stream = cast("IO[bytes]", _Member(cast("_Readable", content), padded))
                    yield from _unpacked(f"{name}/{member.name}", stream, path, wanted, depth - 1)
                if padded.cut:
                    break
    except tarfile.TarError as error:
        yield name, _stopped(IncompleteError(f"is damaged and cannot be unpacked any further: {error}"))
    else:
        if not found:
            yield name, _stopped(padded.cut or NotTextError("is an archive without a log in it"))


class _Padded:
    """A stream that goes on in zeros behind its end: tarfile keeps nothing of a member that is cut off."""

    def __init__(self, begun: _Begun) -> None:
        self._begun = begun
        self.cut: IncompleteError | None = None

    def read(self, size: int) -> bytes:
        """As many bytes as are asked for, or some."""
        try:
            data = self._begun.read(size)
        except IncompleteError as reason:
            self.cut, data = reason, b""
        if not data and self.cut is None:
            self.cut = IncompleteError("is cut off: the archive ends before its end")
        return data or bytes(size)


class _Member:
    """A member of a tar archive, up to where the archive is cut off."""

    def __init__(self, content: _Readable, padded: _Padded) -> None:
        self._content = content
        self._padded = padded

    def read1(self, size: int = -1) -> bytes:
        """At most `size` bytes, none at the end. Raises IncompleteError where the archive is cut off."""
        if self._padded.cut is not None:
            raise self._padded.cut
        data = self._content.read1(size)
        return data.rstrip(b"\x00") if self._padded.cut is not None else data


def _zip(name: str, begun: _Begun, stream: IO[bytes], path: Path, wanted: Wanted, depth: int) -> Iterator[Source]:
    import zipfile

    file = _at_random(begun, stream)
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            other = next((what for end, what in _NO_LOGS.items() if any(each.endswith(end) for each in names)), None)
            members = [each for each in archive.infolist() if not each.is_dir() and wanted(each.filename)]
            if other or not members:
                reason = f"is {other} and was left out" if other else "is an archive without a log in it"
                yield name, _stopped(NotTextError(reason))
                return
            for member in members:
                yield from _zip_member(f"{name}/{member.filename}", archive, member, path, wanted, depth)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        reason = f"cannot be opened as the zip archive that it begins as, cut off or damaged: {error}"
        yield name, _stopped(IncompleteError(reason))
    finally:
        if file is not stream:
            file.close()


def _zip_member(
    name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, wanted: Wanted, depth: int
) -> Iterator[Source]:
    try:
        content = archive.open(member)
    except Exception as error:  # encrypted, compressed in a way that Python does not know, damaged
        yield name, _stopped(IncompleteError(f"cannot be unpacked: {error}"))
        return
    with content:
        stream = cast("IO[bytes]", _Compressed(cast("_Readable", content)))
        yield from _unpacked(name, stream, path, wanted, depth - 1)


def _at_random(begun: _Begun, stream: IO[bytes]) -> IO[bytes]:
    """The stream itself if one can go back in it, else a copy: the contents of a zip archive stand at its end."""
    if isinstance(stream, io.BufferedReader) and stream.seekable():
        stream.seek(0)
        return stream
    copy = cast("IO[bytes]", tempfile.TemporaryFile())  # noqa: SIM115 - closed by who asked for it
    shutil.copyfileobj(cast("IO[bytes]", begun), copy, CHUNK)
    copy.seek(0)
    return copy


def _stopped(reason: IncompleteError) -> Iterator[bytes]:
    """A source of which nothing can be read."""
    yield from ()
    raise reason
