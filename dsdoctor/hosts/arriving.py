"""The first words of a program that was sent to a host: they take in its modules, or say why they cannot.

This text travels in front of the modules (see sent.py) and runs as `__main__`. It is written so that Python 2.7 still
compiles it and can say that it is too old. Nothing is written to the host's disk.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # noqa: F401


def quoted(text):
    # type: (str) -> str
    """A text as JSON has it, made by hand: json itself may be what is missing."""
    plain = [c if ord(c) < 0xD800 else "?" for c in text]
    return '"%s"' % "".join(c if " " <= c <= "~" and c not in '"\\' else "\\u%04x" % ord(c) for c in plain)


def library_first(path):
    # type: (list[str]) -> list[str]
    """The search path with Python's own library in front: a json.py in the job's folders must not become ours."""
    own = "/python%d.%d" % sys.version_info[:2]
    library = [entry for entry in path if entry.endswith((own, own + "/lib-dynload", own.replace(".", "") + ".zip"))]
    return library + [entry for entry in path if entry not in library]


class Arrived(object):
    """The finder and loader of the modules that came: `marshal` data of their code where it fits, else their source."""

    def __init__(self, name, folder, code, source, room):
        # type: (str, str, bytes, bytes, int) -> None
        self.name = name
        self.folder = folder
        self.packed = source
        self.texts = {}  # type: dict[str, str]
        self.codes = {}  # type: dict[str, bytes]
        if code:
            import marshal
            import zlib

            self.codes = marshal.loads(zlib.decompress(code, 15, room))

    def stem(self, name):
        # type: (str) -> str
        """A module's name without the package's."""
        return name[len(self.name) + 1 :] or "__init__"

    def find_spec(self, name, path=None, target=None):
        # type: (str, Any, Any) -> Any
        """The import system's question: whose is this module?"""
        if name != self.name and not name.startswith(self.name + "."):
            return None
        if self.stem(name) not in (self.codes or self.sources()):
            return None
        spec = type(sys.__spec__)  # type: Any  # ModuleSpec, without importing importlib.machinery
        return spec(name, self, origin=self.origin(name), is_package=name == self.name)

    def create_module(self, spec):
        # type: (Any) -> None
        """The import system makes the module."""

    def exec_module(self, module):
        # type: (Any) -> None
        """Run a module's code in it."""
        name = module.__name__
        if self.codes:
            import marshal

            code = marshal.loads(self.codes[self.stem(name)])
        else:
            code = compile(self.sources()[self.stem(name)], self.origin(name), "exec", 0, True)
        exec(code, module.__dict__)

    def get_source(self, name):
        # type: (str) -> str
        """A module's text, which tracebacks quote where it came along."""
        return self.sources().get(self.stem(name), "")

    def origin(self, name):
        # type: (str) -> str
        """The file that a traceback names."""
        return "%s/%s.py" % (self.folder, self.stem(name))

    def sources(self):
        # type: () -> dict[str, str]
        """The modules' texts."""
        if not self.texts and self.packed:
            import marshal
            import zlib

            self.texts = marshal.loads(zlib.decompress(self.packed))
        return self.texts


def same_python(order):
    # type: (dict[str, Any]) -> bool
    """Whether this Python is the one that made the code, or one that runs the same code."""
    external = sys.modules.get("_frozen_importlib_external")
    return (sys.implementation.cache_tag, getattr(external, "MAGIC_NUMBER", b"")) == (order["tag"], order["magic"])


def arrive(order):
    # type: (dict[str, Any]) -> None
    """Take in what follows on standard input, and call the entry with the arguments and the search path as it was.

    `order`: `name` and `folder` of the package, its `entry` (module and function), what `needs` which `oldest` Python,
    the `refusal` that a reason is put into, the `tag` and `magic` of the Python that made the code, what to say of
    `another` where no source came, both `sizes`, and the `room` that the code takes.
    """
    stdin = getattr(sys.stdin, "buffer", sys.stdin)  # type: Any
    code, source = stdin.read(order["sizes"][0]), stdin.read(order["sizes"][1])
    path = list(sys.path)
    sys.path[:] = library_first(path)
    reason = ""
    if tuple(sys.version_info[:2]) < order["oldest"]:
        versions = (".".join(map(str, sys.version_info[:3])), order["needs"], ".".join(map(str, order["oldest"])))
        reason = "%s is Python %s; %s needs %s or newer" % ((sys.executable,) + versions)
    elif len(code) + len(source) < sum(order["sizes"]):
        reason = "%s came only in part: %d of %d bytes" % (
            order["needs"],
            len(code) + len(source),
            sum(order["sizes"]),
        )
    elif not source and not same_python(order):
        reason = "%s %s" % (sys.executable, order["another"])
    else:
        try:
            import gc

            gc.disable()  # what comes in now stays; a search through it would take as long as the rest
            code = code if same_python(order) else b""
            arrived = Arrived(order["name"], order["folder"], code, source, order["room"])
            sys.meta_path.insert(0, arrived)
            module, function = order["entry"]
            entry = getattr(__import__("%s.%s" % (order["name"], module), None, None, [function]), function)
        except BaseException as failure:
            told = "%s: %s" % (type(failure).__name__, failure)
            reason = "%s cannot import its own standard library: %s" % (sys.executable, told)
    if not reason:
        gc.enable()
        entry(sys.argv[1:], path)
        return
    sys.stdout.write(order["refusal"] % quoted(reason))
    sys.stdout.flush()
