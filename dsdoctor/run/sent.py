"""The guardian's modules packed into one text, which unpacks itself in memory on the host: nothing is written there."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

PACKAGE = "dsdoctor.run.guardian"
# What a head does itself, and guardians where there is none: these are Python 3.8, too.
SHARED = (
    *("dsdoctor.logs.progress", "dsdoctor.logs.stacks", "dsdoctor.logs.standstill", "dsdoctor.logs.training"),
    "dsdoctor.run.ranks_on_host",
)

# Runs on the host (Python 3.8 or newer) with SOURCES before it: the text of every module by its full name.
_LOADER = """
import importlib.util, sys

class Sent:
    def find_spec(self, name, path=None, target=None):
        if name in SOURCES:
            package = any(other.startswith(name + ".") for other in SOURCES)
            return importlib.util.spec_from_loader(name, self, is_package=package)

    def create_module(self, spec):
        return None

    def get_source(self, name):
        return SOURCES[name]

    def exec_module(self, module):
        exec(compile(SOURCES[module.__name__], module.__name__, "exec"), module.__dict__)

sys.meta_path.insert(0, Sent())
importlib.import_module("%s.main").main()
"""


@cache
def sent_source() -> bytes:
    """The text to send: the guardian with all its modules, ready to read its order."""
    folder = resources.files("dsdoctor.run").joinpath("guardian")
    texts = {"dsdoctor": "", "dsdoctor.logs": "", "dsdoctor.run": ""}
    for name in SHARED:
        place, _, module = name.rpartition(".")
        texts[name] = resources.files(place).joinpath(f"{module}.py").read_text(encoding="utf-8")
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        name, dot, suffix = entry.name.rpartition(".")
        if dot and suffix == "py":
            full = PACKAGE if name == "__init__" else f"{PACKAGE}.{name}"
            texts[full] = entry.read_text(encoding="utf-8")
    return f"SOURCES = {json.dumps(texts)}\n{_LOADER % PACKAGE}".encode("ascii")
