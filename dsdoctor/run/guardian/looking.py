"""A guardian's look at its own ranks: the same as a head's, made by a process of its own, in parts for the spool."""

import base64
import importlib.util
import json
import subprocess
import sys
import zlib
from typing import Any, Dict, Iterator, Mapping

LOOK_SECONDS = 60.0
BETWEEN = 2.0  # seconds between the two looks at a rank
RECORDER_ROOM = 8 << 20  # bytes of a rank's flight recorder
PART = 512 * 1024  # characters of a frame
LARGEST = 256 << 20  # bytes of an answer
PROGRAM = "dsdoctor.run.ranks_on_host"
_ASK = """
import json, sys
print("\\n" + json.dumps(look_at_ranks(json.loads(sys.argv[1]))))
"""


def look_here(spool: str) -> Dict[str, Any]:
    """What `look_at_ranks` answers of the ranks below this guardian; `problem` is why it does not.

    It asks py-spy, which this process, the collector of all that ends below it, could not wait for itself.
    """
    order = {"root": 0, "spool": spool, "seconds": BETWEEN, "recorder": True, "room": RECORDER_ROOM}
    spec = importlib.util.find_spec(PROGRAM)
    assert spec is not None
    source = spec.loader.get_source(PROGRAM)  # type: ignore[union-attr]
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; exec(compile(sys.stdin.read(), 'look', 'exec'))", json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        said, _ = child.communicate((source + _ASK).encode("utf-8"), timeout=LOOK_SECONDS)
        answer = json.loads(said.decode("utf-8").splitlines()[-1])
    except subprocess.TimeoutExpired:
        child.kill()
        return {"ranks": [], "problem": "no answer within %.0f s" % LOOK_SECONDS}
    except (OSError, ValueError, IndexError) as error:
        return {"ranks": [], "problem": str(error)}
    return dict(answer) if isinstance(answer, dict) else {"ranks": []}


def in_parts(answer: Dict[str, Any]) -> Iterator[Dict[str, Any]]:
    """An answer as pieces that fit into frames: `part` of `parts`, and `x`."""
    if not answer.get("ranks"):
        return
    text = base64.b64encode(zlib.compress(json.dumps(answer).encode("ascii"))).decode("ascii")
    pieces = [text[start : start + PART] for start in range(0, len(text), PART)]
    for number, piece in enumerate(pieces):
        yield {"part": number, "parts": len(pieces), "x": piece}


class Parts:
    """Puts answers together again, by host."""

    def __init__(self) -> None:
        self._pieces: Dict[str, str] = {}

    def take(self, host: str, frame: Mapping[str, Any]) -> Any:
        """The answer with its last piece; None until then, and for what is none."""
        before = "" if frame.get("part") == 0 else self._pieces.pop(host, "")
        text = before + str(frame.get("x"))
        if frame.get("part") != int(frame.get("parts") or 0) - 1:
            self._pieces[host] = text
            return None
        try:
            return json.loads(zlib.decompressobj().decompress(base64.b64decode(text), LARGEST).decode("ascii"))
        except (ValueError, zlib.error):
            return None
