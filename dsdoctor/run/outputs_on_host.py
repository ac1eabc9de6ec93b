"""A look at a stage's outputs on its host: there, and whole. Sent as text; Python 3.8, standard library alone.

A file that is there proves little: an adapter saved under ZeRO-3 without gathering has all its names and no numbers,
and one written onto a full disk has a beginning.
"""

from __future__ import annotations

from typing import Any


def broken_outputs(order: dict[str, Any]) -> list[str]:
    """What is wrong with the outputs of a stage, in words: missing, empty, cut off, or holding nothing."""
    import json
    import os
    import struct
    import zipfile

    def safetensors(path: str, size: int) -> str | None:
        # https://github.com/huggingface/safetensors#format: 8 bytes length of the header, the header as JSON, the data
        with open(path, "rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > size - 8:
                return "is cut off: its header wants %d bytes, the file has %d" % (length, size)
            header = json.loads(file.read(length).decode("utf-8"))
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        wanted = 8 + length + max([entry["data_offsets"][1] for entry in tensors] or [0])
        if wanted != size:
            return "is %d bytes long, its header says %d" % (size, wanted)
        if not any(entry["data_offsets"][1] > entry["data_offsets"][0] for entry in tensors):
            return "holds %d tensors without a single number (ZeRO-3 weights that were not gathered?)" % len(tensors)
        return None

    def archive(path: str, size: int) -> str | None:
        with open(path, "rb") as file:
            if size < 2 or file.read(2) != b"PK":
                return None  # the older format, which tells nothing without being run
        with zipfile.ZipFile(path) as file:  # a cut-off one has no directory at its end
            data = [entry.file_size for entry in file.infolist() if "/data/" in entry.filename]
        if data and not any(data):
            return "holds %d tensors without a single number (ZeRO-3 weights that were not gathered?)" % len(data)
        return None

    def text(path: str, size: int) -> str | None:
        if size <= 64 << 20:
            with open(path, encoding="utf-8") as file:
                json.load(file)
        return None

    looks = {".safetensors": safetensors, ".json": text}
    looks.update(dict.fromkeys((".bin", ".pt", ".pth", ".ckpt"), archive))

    def problem(path: str) -> str | None:
        try:
            size = os.stat(path).st_size
            look = looks.get(os.path.splitext(path)[1])
            return look(path, size) if look and size else None
        except zipfile.BadZipFile:
            return "is cut off, or no archive: it has no directory at its end"
        except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            return "cannot be read: %s" % error

    found = []
    for name in order["outputs"]:
        path = os.path.join(order["folder"], name)
        if not os.path.exists(path):
            found.append("%s is not there" % name)
            continue
        files = [path]
        if os.path.isdir(path):
            files = [os.path.join(at, each) for at, _, names in os.walk(path) for each in sorted(names)]
        if not any(os.path.exists(each) and os.stat(each).st_size for each in files):
            found.append("%s is empty" % name)
            continue
        for each in files:
            said = problem(each) if os.path.exists(each) else None  # a dangling link is nobody's output
            if said:
                found.append("%s %s" % (os.path.relpath(each, order["folder"]), said))
    return found
