"""One target under atheris: `python -m tests.fuzz.target NAME [options of libFuzzer]`."""

import importlib
import sys

import atheris

if __name__ == "__main__":
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["dsdoctor"]):
        module = importlib.import_module(f"tests.fuzz.{name}")
    atheris.Setup(sys.argv, module.one)
    atheris.Fuzz()
