"""The probe's answer."""

from __future__ import annotations

import gc
import os
import sys
import time
from binascii import a2b_base64

from . import BEGIN, END, PROBE_VERSION, REFUSAL, SCHEMA
from .packages import JOB_PATH
from .plain import dumps, loads
from .question import Ask
from .workers import survey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def answer(config: dict[str, Any]) -> str:
    """The probe's answer to a config, as JSON: the sections are JSON when they come from their processes."""
    import resource

    begun = time.monotonic()
    sections = survey(Ask(config))
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    known = {
        "schema": SCHEMA,
        "probe_version": PROBE_VERSION,
        "recorded_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.monotonic() - begun, 4),
        "cpu_seconds": round(sum(usage.ru_utime + usage.ru_stime for usage in spent), 4),
    }
    rows = ", ".join('"%s": %s' % row for row in sections.items())
    return '%s, "sections": {%s}}' % (dumps(known)[:-1], rows)


def main(arguments: list[str], path: list[str]) -> None:
    """Print the answer; one that says why there is none is an answer too. `path` is the job's sys.path."""
    JOB_PATH[:] = path
    gc.disable()  # nothing here lives long enough to be worth a search
    try:
        config = loads(a2b_base64(arguments[0]).decode("utf-8")) if arguments else {}
        text = "\n%s\n%s\n%s\n" % (BEGIN, answer(config), END)
    except Exception as failure:
        text = REFUSAL % dumps("the probe itself failed: %s: %s" % (type(failure).__name__, failure))
    sys.stdout.write(text)
    sys.stdout.flush()
    os._exit(0)  # taking the interpreter down piece by piece would take a tenth of the probe's time
