"""The probe: learns the facts of the host it runs on and prints them as one line of JSON between two marker lines.

It is sent over standard input to the job's own interpreter (`python -u - CONFIG`, CONFIG a base64 JSON object with
`targets`, `paths`, `places`, `inputs`, `variables`, `timeout` and `sections`, all optional), so it is one file, imports
nothing but the standard library, and leaves nothing behind. It needs Python 3.8; it is written so that 2.7 and 3.6
still *compile* it and can say that they are too old.

It reads rather than runs: files, /proc, /sys, NVML, and a handful of short programs (`ip`, `dkms status`, `gcc
--version` ...). Sections are worked on in a few forked processes, so that a hanging network mount, a dead name server
or a crashing driver library costs one section and not the answer.
"""

# ruff: noqa: B905, RUF005, RUF007 - their remedies are not in the grammar of Python 2.7, or not in 3.8

import sys

SCHEMA = "dsdoctor.facts/1"
PROBE_VERSION = "1"
BEGIN = "<<<dsdoctor-facts"
END = "dsdoctor-facts>>>"
OLDEST = (3, 8)


def refusal(reason):
    # type: (str) -> str
    """The answer of a probe that could not begin, as JSON made by hand: json itself may be what is missing."""

    def quoted(text):
        # type: (str) -> str
        plain = [c if ord(c) < 0xD800 else "?" for c in text]
        return '"%s"' % "".join(c if " " <= c <= "~" and c not in '"\\' else "\\u%04x" % ord(c) for c in plain)

    head = (quoted(SCHEMA), quoted(PROBE_VERSION), quoted(reason))
    return '{"schema": %s, "probe_version": %s, "recorded_at": "", "error": %s, "sections": {}}' % head


def say(line):
    # type: (str) -> None
    """Print an answer between the marker lines."""
    sys.stdout.write("\n%s\n%s\n%s\n" % (BEGIN, line, END))
    sys.stdout.flush()


def library_first(path):
    # type: (List[str]) -> List[str]
    """The search path with Python's own library in front: a json.py in the job's folders must not become ours."""
    own = "/python%d.%d" % sys.version_info[:2]
    library = [entry for entry in path if entry.endswith((own, own + "/lib-dynload", own.replace(".", "") + ".zip"))]
    return library + [entry for entry in path if entry not in library]


JOB_PATH = [str(entry) for entry in sys.path if entry != ""]  # `python -` puts the working directory first

if __name__ == "__main__":
    if tuple(sys.version_info[:2]) < OLDEST:
        named = (sys.executable, ".".join(map(str, sys.version_info[:3])), ".".join(map(str, OLDEST)))
        say(refusal("%s is Python %s; the probe needs %s or newer" % named))
        sys.exit(0)
    sys.path[:] = library_first(JOB_PATH)

try:
    import base64
    import errno
    import functools
    import itertools
    import json
    import mmap
    import os
    import re
    import select
    import signal
    import socket
    import stat
    import struct
    import time
except BaseException as failure:
    if __name__ != "__main__":
        raise
    told = "%s: %s" % (type(failure).__name__, failure)
    say(refusal("%s cannot import its own standard library: %s" % (sys.executable, told)))
    sys.exit(0)

MYPY = False
if MYPY:
    from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple  # noqa: F401

DEFAULT_SECONDS = 20.0  # for everything
PROGRAM_SECONDS = 5.0  # for one program
SECTION_SECONDS = 10.0  # for one section
NAME_SECONDS = 4.0  # for all names together
PARALLEL_NAMES = 32
BATCH = 500  # addresses in one `ip route get`: question and answer each fit into a pipe, so that neither side waits
PATH_SECONDS = 2.0  # for one path
MOUNT_SECONDS = 5.0  # for a mount that has not answered by then: an automounter, a server that wakes up
OUTPUT_BYTES = 4 << 20  # of one program; more is not one of the answers read here
SEARCH_BYTES = 256 << 20  # of a library without sections
VALUE_CHARACTERS = 8192  # of one environment variable
GIDS = 32  # entries of a GID table that are looked at; adapters have up to 256, and fill the first few

ROOT = ""  # put before /proc, /sys, /etc ...: the tests' only seam

SECTIONS = {}  # type: Dict[str, Tuple[str, Callable[[Ask], Any]]]
MEMO = {}  # type: Dict[str, Any]


class ProbeError(Exception):
    """Something that could not be learnt, said in a sentence."""


class Ask(object):
    """What the probe was asked: names to resolve and route to, paths to measure, how long it may take, and for what.

    `places` are folders that the job writes to, each with its role; `inputs` are the paths that the job names, each
    with its role and where it is on this host; `variables` are the job's own of those that name caches. `sections`
    names those wanted; without it, and for names that this probe does not know, there is no restriction.
    """

    def __init__(self, config):
        # type: (Dict[str, Any]) -> None
        self.targets = unique(str(name) for name in config.get("targets") or () if name)
        self.paths = unique(str(path) for path in config.get("paths") or () if path)
        self.places = [(str(role), str(path)) for role, path in config.get("places") or () if path]
        self.inputs = [dict(order) for order in config.get("inputs") or ()]
        self.variables = dict(os.environ, **(config.get("variables") or {}))
        wanted = [name for name in config.get("sections") or () if name in SECTIONS]
        self.sections = [name for name in SECTIONS if name in wanted] if wanted else list(SECTIONS)
        self.timeout = min(600.0, max(0.5, float(config.get("timeout") or DEFAULT_SECONDS)))
        self.deadline = time.monotonic() + self.timeout

    def left(self):
        # type: () -> float
        """Seconds until the probe must have answered."""
        return self.deadline - time.monotonic()


def section(group):
    # type: (str) -> Callable[[Callable[[Ask], Any]], Callable[[Ask], Any]]
    """Register `fact_NAME` as the section NAME; sections of one group share a process and what it has read."""

    def register(function):
        # type: (Callable[[Ask], Any]) -> Callable[[Ask], Any]
        SECTIONS[function.__name__[len("fact_") :]] = (group, function)
        return function

    return register


# ---------------------------------------------------------------------------------------------------------------------
# Reading files and running programs


def at(path):
    # type: (str) -> str
    """The path of a system file."""
    return ROOT + path


def read(path, limit=1 << 20):
    # type: (str, int) -> str
    """The text of a regular file, at most `limit` bytes of it; any bytes are text. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO in a file's place does not block
    try:
        chunks = []  # type: List[bytes]
        while limit > 0:
            chunk = os.read(handle, min(limit, 1 << 16))
            if not chunk:
                break
            chunks.append(chunk)
            limit -= len(chunk)
    finally:
        os.close(handle)
    return b"".join(chunks).decode("utf-8", "surrogateescape")


def read_or(path, default="", limit=1 << 20):
    # type: (str, str, int) -> str
    """The text of a file without the blanks at its ends, or `default` when it cannot be read."""
    try:
        return read(path, limit).strip()
    except (OSError, ValueError):
        return default


def entries(path):
    # type: (str) -> List[str]
    """The names in a folder, sorted; none when it cannot be read."""
    try:
        return sorted(os.listdir(path))
    except (OSError, ValueError):
        return []


def number(text):
    # type: (Any) -> Optional[int]
    """The integer a text holds, or None."""
    try:
        return int(str(text).strip(), 10)
    except ValueError:
        return None


def unique(items):
    # type: (Iterable[str]) -> List[str]
    """The items in their order, each once."""
    return list(dict.fromkeys(items))


def which(name, extra=()):
    # type: (str, Sequence[str]) -> Optional[str]
    """The program that the PATH finds, else one in the `extra` folders: a user's PATH often lacks the sbin ones."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) + list(extra):
        path = os.path.join(folder or ".", name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
RUNNING = []  # type: List[int]  # process groups to end when this process is told to stop
STARTING = []  # type: List[int]  # not empty while a process is started; then the signals that came meanwhile
HANGING = set()  # type: Set[str]  # programs that had to be killed
PATIENCE = {"program": PROGRAM_SECONDS}


def run(argv, seconds=None, text=None):
    # type: (Sequence[str], Optional[float], Optional[str]) -> Tuple[int, str, str]
    """Exit status, output and error output of a program in the C locale, with `text` or nothing as its input.

    Raises ProbeError when it cannot be started, takes longer than `seconds` or prints without end; its process group
    is killed then, and it is not asked again.
    """
    import subprocess

    if argv[0] in HANGING:
        raise ProbeError("%s did not end when it was asked before" % argv[0])
    environment = dict(os.environ, LC_ALL="C", LANGUAGE="C")
    problem = None  # type: Optional[ProbeError]
    STARTING.append(0)
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except (OSError, ValueError) as failure:
        problem = ProbeError("%s cannot be run: %s" % (argv[0], failure))
    else:
        RUNNING.append(child.pid)
    finally:
        started()
    if problem is not None:
        raise problem
    try:
        return converse(child, argv[0], time.monotonic() + (seconds or PATIENCE["program"]), text)
    finally:
        if child.returncode is None:  # not waited for yet, so the number is still its own
            HANGING.add(argv[0])
            end_group(child.pid)
            child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream:
                stream.close()
        RUNNING.remove(child.pid)


def converse(child, name, deadline, text):
    # type: (Any, str, float, Optional[str]) -> Tuple[int, str, str]
    """Feed a child and drain both its outputs at once until it ends."""
    if text is not None:
        try:
            child.stdin.write(text.encode("utf-8", "surrogateescape"))  # shorter than a pipe's buffer
            child.stdin.close()
        except OSError:
            pass  # it ended without reading; what it printed says why
    outputs = {child.stdout.fileno(): [], child.stderr.fileno(): []}  # type: Dict[int, List[bytes]]
    streams = list(outputs)
    poller = select.poll()
    for stream in streams:
        poller.register(stream, select.POLLIN | select.POLLHUP)
    unfinished, size = set(streams), 0
    while unfinished:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ProbeError("%s did not end within its time limit" % name)
        for stream, _ in poller.poll(max(1, int(left * 1000))):
            chunk = os.read(stream, 1 << 16)
            outputs[stream].append(chunk)
            size += len(chunk)
            if not chunk:
                poller.unregister(stream)
                unfinished.discard(stream)
        if size > OUTPUT_BYTES:
            raise ProbeError("%s printed more than %d MiB" % (name, OUTPUT_BYTES >> 20))
    while child.poll() is None:
        if time.monotonic() > deadline:
            raise ProbeError("%s closed its output but did not end within its time limit" % name)
        time.sleep(0.002)
    texts = [b"".join(outputs[stream]).decode("utf-8", "surrogateescape") for stream in streams]
    return child.returncode, texts[0], texts[1]


def end_group(group):
    # type: (int) -> None
    """Kill a process group that this process started."""
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass  # gone already


# ---------------------------------------------------------------------------------------------------------------------
# Shared libraries, read without loading them


class Library(object):
    """A shared library's tables. ELF of 64 bits, little endian; another file has no tables, only bytes."""

    def __init__(self, path):
        # type: (str) -> None
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            self.bytes = mmap.mmap(handle, 0, access=mmap.ACCESS_READ)  # type: Any
        finally:
            os.close(handle)
        self.elf = self.bytes[:6] == b"\x7fELF\x02\x01"

    def close(self):
        # type: () -> None
        """Give the mapping back."""
        self.bytes.close()

    def unpack(self, form, offset):
        # type: (str, int) -> Tuple[Any, ...]
        """Fields of the file at an offset. Raises struct.error beyond its end."""
        if offset > len(self.bytes):
            raise struct.error("beyond the end of the file")
        return struct.unpack_from("<" + form, self.bytes, offset)

    def extent(self, wanted):
        # type: (bytes) -> Optional[Tuple[int, int]]
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

    def search(self, pattern, part=b".rodata"):
        # type: (str, bytes) -> Any
        """The first match of a pattern in a section, or in the whole file when it has no such section.

        The code for the GPUs, nearly all of such a file, is thereby not read: 0.2 of 430 MB for an NCCL.
        """
        begin, end = self.extent(part) or (0, min(len(self.bytes), SEARCH_BYTES))
        return re.compile(pattern.encode("ascii")).search(self.bytes, begin, end)

    def dynamic(self):
        # type: () -> Dict[str, List[str]]
        """The dynamic table's `needed`, `soname`, `rpath` and `runpath`. Source: the ELF specification, chapter 5."""
        found = {"needed": [], "soname": [], "rpath": [], "runpath": []}  # type: Dict[str, List[str]]
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

    def dynamic_table(self):
        # type: () -> Tuple[List[Tuple[int, int]], List[Tuple[int, int, int]]]
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

    def versions(self):
        # type: () -> List[str]
        """The symbol versions that it needs of other libraries ("GLIBC_2.28"). Source: .gnu.version_r, LSB 10.7.3."""
        table, strings = self.extent(b".gnu.version_r"), self.extent(b".dynstr")
        found = []  # type: List[str]
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


# ---------------------------------------------------------------------------------------------------------------------
# The system


@section("quick")
def fact_os(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: uname(2), os-release(5), confstr(3), /proc/uptime."""
    uname = os.uname()
    release = os_release(read_or(at("/etc/os-release")) or read_or(at("/usr/lib/os-release")))
    uptime = read_or(at("/proc/uptime")).split()
    return {
        "hostname": uname.nodename,
        "kernel": uname.release,
        "machine": uname.machine,
        "distribution": release.get("PRETTY_NAME", ""),
        "distribution_id": release.get("ID", ""),
        "version_id": release.get("VERSION_ID", ""),
        "libc": libc_version(),
        "user": user_name(os.geteuid()),
        "uid": os.geteuid(),
        "uptime_seconds": float(uptime[0]) if uptime else None,
        "time": time.time() - (ask.timeout - ask.left()),
    }


def os_release(text):
    # type: (str) -> Dict[str, str]
    """The fields of an os-release file."""
    fields = {}  # type: Dict[str, str]
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            fields[name] = value.strip().strip("\"'")
    return fields


def libc_version():
    # type: () -> str
    """The C library: "glibc 2.36", or "musl" where its loader lies."""
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        version = None
    if version:
        return version
    return "musl" if any(name.startswith("ld-musl-") for name in entries(at("/lib"))) else ""


def user_name(uid):
    # type: (int) -> str
    """The name of a user, or its number."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def home_folder():
    # type: () -> str
    """The user's home as the password database has it, which is where NCCL looks; $HOME without an entry there."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return os.environ.get("HOME", "/")


@section("quick")
def fact_python(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: sys and site of the interpreter that runs this."""
    import site

    prefix = next((path for path in (sys.prefix, sys.base_prefix) if os.path.isdir(path + "/conda-meta")), None)
    return {
        "version": "%d.%d.%d" % sys.version_info[:3],
        "executable": sys.executable or "",
        "implementation": {"cpython": "CPython", "pypy": "PyPy"}.get(sys.implementation.name, sys.implementation.name),
        "prefix": sys.prefix,
        "base_prefix": sys.base_prefix,
        "conda_prefix": prefix,
        "user_site": site.getusersitepackages(),
        "user_site_enabled": bool(site.ENABLE_USER_SITE),
        "path": JOB_PATH,
    }


@section("quick")
def fact_limits(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: getrlimit(2) of this session, which is as non-interactive as the job's; the cgroups' pids controller."""
    import resource

    tightest = min(cgroup_pids(), default=(None, None))

    def limit(which):
        # type: (int) -> Dict[str, Optional[int]]
        soft, hard = (None if value == resource.RLIM_INFINITY else value for value in resource.getrlimit(which))
        return {"soft": soft, "hard": hard}

    return {
        "nofile": limit(resource.RLIMIT_NOFILE),
        "nproc": limit(resource.RLIMIT_NPROC),
        "memlock": limit(resource.RLIMIT_MEMLOCK),
        "stack": limit(resource.RLIMIT_STACK),
        "core": limit(resource.RLIMIT_CORE),
        "cgroup_pids": tightest[0],
        "cgroup_pids_used": tightest[1],
    }


def cgroup_pids():
    # type: () -> List[Tuple[int, int]]
    """How many processes and threads each cgroup around this one may have, and has. Source: pids.max, pids.current."""
    limits = cgroup_values("pids", "pids.max", "pids.max")
    used = cgroup_values("pids", "pids.current", "pids.current")
    pairs = [(number(limit), number(count)) for limit, count in zip(limits, used)]
    return [(limit, count or 0) for limit, count in pairs if limit is not None]


@section("quick")
def fact_memory(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: /proc/meminfo, and the memory limits from this process's cgroup up to the root (versions 1 and 2)."""
    fields = {}  # type: Dict[str, int]
    for line in read(at("/proc/meminfo")).splitlines():
        name, _, rest = line.partition(":")
        value = number(rest.split()[0]) if rest.split() else None
        if value is not None:
            fields[name] = value * 1024  # printed in kB
    total = fields["MemTotal"]
    limits = [number(text) for text in cgroup_values("memory", "memory.max", "memory.limit_in_bytes")]
    tight = [limit for limit in limits if limit is not None and limit < total]  # "none" is `max`, or a huge number
    return {
        "total_bytes": total,
        "available_bytes": fields.get("MemAvailable", fields.get("MemFree", 0)),
        "swap_total_bytes": fields.get("SwapTotal", 0),
        "cgroup_limit_bytes": min(tight) if tight else None,
    }


def cgroup_values(controller, modern, classic):
    # type: (str, str, str) -> Iterator[str]
    """The texts of a control file in this process's cgroup and in all above it. Source: cgroups(7)."""
    for line in read_or(at("/proc/self/cgroup")).splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "" and hierarchy == "0":
            roots, name = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"), modern
        elif controller in controllers.split(","):
            roots, name = ("/sys/fs/cgroup/" + controller, "/sys/fs/cgroup/" + controllers), classic
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for root in unique(roots):
            for depth in range(len(parts), -1, -1):
                text = read_or(at("/".join([root] + parts[:depth] + [name])))
                if text:
                    yield text


@section("quick")
def fact_cpu(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: /proc/cpuinfo (its first processor), sched_getaffinity(2), /sys/devices/system/node, the CPU cgroup."""
    fields = {}  # type: Dict[str, str]
    for line in read(at("/proc/cpuinfo"), 1 << 15).splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    try:
        cores = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        cores = os.cpu_count() or 0
    nodes = [name for name in entries(at("/sys/devices/system/node")) if re.match(r"node\d+$", name)]
    return {
        "model": fields.get("model name") or fields.get("Model") or fields.get("cpu", ""),
        "cores": cores,
        "quota": cpu_quota(),
        "flags": (fields.get("flags") or fields.get("Features") or "").split(),
        "numa_nodes": len(nodes) or None,
    }


def cpu_quota():
    # type: () -> Optional[float]
    """How many processors' time the cgroups allow, or None for all. Source: cpu.max, cpu.cfs_quota_us."""
    quotas = []  # type: List[float]
    periods = [number(text) for text in cgroup_values("cpu", "", "cpu.cfs_period_us")]
    for index, text in enumerate(cgroup_values("cpu", "cpu.max", "cpu.cfs_quota_us")):
        words = text.split()
        quota = number(words[0])
        period = number(words[1]) if len(words) > 1 else periods[index] if index < len(periods) else None
        if quota and quota > 0 and period:
            quotas.append(quota / float(period))
    return min(quotas) if quotas else None


@section("quick")
def fact_infiniband(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: /sys/class/infiniband, /sys/module."""
    base = at("/sys/class/infiniband")
    devices = []
    for name in entries(base):
        ports = []
        for port in entries("%s/%s/ports" % (base, name)):
            folder = "%s/%s/ports/%s/" % (base, name, port)
            if number(port) is None:
                continue
            ports.append(
                {
                    "port": number(port),
                    "state": read_or(folder + "state").rpartition(": ")[2],  # "4: ACTIVE"
                    "physical_state": read_or(folder + "phys_state").rpartition(": ")[2],
                    "rate": read_or(folder + "rate"),
                    "link_layer": read_or(folder + "link_layer"),
                    "gids": gids(folder) if read_or(folder + "link_layer") == "Ethernet" else None,
                }
            )
        devices.append({"name": name, "ports": ports, "net_devices": entries("%s/%s/device/net" % (base, name))})
    peermem = any(os.path.isdir(at("/sys/module/" + name)) for name in ("nvidia_peermem", "nv_peer_mem"))
    verbs = [name for name in entries(at("/dev/infiniband")) if name.startswith("uverbs")]
    return {
        "devices": devices,
        "peermem_loaded": peermem,
        "verbs": verbs,
        "libibverbs": loadable("libibverbs.so.1") if devices else None,
    }


def gids(folder):
    # type: (str) -> List[Dict[str, Any]]
    """The entries of a port's GID table that are not empty; an empty one has no type, and reading that is an error."""
    found = []
    for name in sorted(filter(str.isdigit, entries(folder + "gids")), key=int)[:GIDS]:
        gid = read_or(folder + "gids/" + name)
        if not gid.replace(":", "").strip("0"):
            continue
        kind = read_or(folder + "gid_attrs/types/" + name)
        found.append({"index": int(name), "gid": short_address(gid), "kind": kind})
    return found


def short_address(text):
    # type: (str) -> str
    """An IPv6 address in its usual form; as it came where it is none."""
    try:
        return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, text))
    except (OSError, ValueError):
        return text


def loadable(library):
    # type: (str) -> bool
    """Whether the loader would find a library, as far as files and its cache tell."""
    folders = path_list("LD_LIBRARY_PATH") + [at(folder) for folder in SYSTEM_FOLDERS]
    return any(os.path.isfile("%s/%s" % (folder, library)) for folder in folders) or bool(loader_cache(library))


@section("quick")
def fact_container(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: the files and variables by which each kind of container can be told."""
    first = read_or(at("/proc/1/environ")).split("\0")  # root's alone
    told = next((line[len("container=") :] for line in first if line.startswith("container=")), "")
    told = told or read_or(at("/run/systemd/container")) or os.environ.get("container", "")
    groups = read_or(at("/proc/1/cgroup")) + read_or(at("/proc/self/cgroup"))
    kernel = read_or(at("/proc/sys/kernel/osrelease"))
    apart = own_namespaces()
    signs = (
        ("kubernetes", "KUBERNETES_SERVICE_HOST" in os.environ, "$KUBERNETES_SERVICE_HOST"),
        ("kubernetes", os.path.isdir(at("/var/run/secrets/kubernetes.io")), "/var/run/secrets/kubernetes.io"),
        ("podman", os.path.exists(at("/run/.containerenv")), "/run/.containerenv"),
        ("docker", apart and os.path.exists(at("/.dockerenv")), "/.dockerenv"),
        ("other", os.path.isdir(at("/.singularity.d")), "/.singularity.d"),
        (told if told in ("docker", "podman", "lxc") else "other", bool(told), "container=%s" % told),
        ("kubernetes", "/kubepods" in groups, "/proc/1/cgroup names kubepods"),
        ("podman", "/libpod" in groups, "/proc/1/cgroup names libpod"),
        ("docker", "/docker" in groups or "/containerd" in groups, "/proc/1/cgroup names docker"),
        ("lxc", "/lxc" in groups, "/proc/1/cgroup names lxc"),
        ("wsl", "microsoft" in kernel.lower(), "kernel %s" % kernel),
    )
    kind, evidence = next(((kind, evidence) for kind, seen, evidence in signs if seen), ("none", ""))
    return {"kind": kind, "evidence": evidence, "capabilities": capabilities()}


def capabilities():
    # type: () -> Optional[int]
    """This process's effective capabilities as a bit field. Source: CapEff of /proc/self/status."""
    match = re.search(r"^CapEff:\s*([0-9a-fA-F]+)", read_or(at("/proc/self/status")), re.M)
    return int(match.group(1), 16) if match else None


def own_namespaces():
    # type: () -> bool
    """Whether this process is apart from its kernel's first processes; a virtual machine made of an image is not.

    The first PID, UTS and IPC namespaces have fixed numbers. Source: PROC_*_INIT_INO in linux/proc_ns.h.
    """
    first = {"pid": "pid:[4026531836]", "uts": "uts:[4026531838]", "ipc": "ipc:[4026531839]"}
    for name, own in first.items():
        try:
            if os.readlink(at("/proc/self/ns/" + name)) != own:
                return True
        except OSError:
            return True  # cannot be told
    return False


def place_of(address, loads):
    # type: (int, List[Tuple[int, int, int]]) -> int
    """Where in the file an address lies. Raises StopIteration for one outside of what is loaded."""
    return next(address - begin + offset for begin, offset, long in loads if begin <= address < begin + long)


class Symbols(object):
    """A library's dynamic symbols, found by the hash table that the loader uses: a few pages of it are read.

    Source: the ELF specification, chapter 5; the GNU hash table as ld writes it (binutils, bfd/elflink.c): symbols that
    the library asks others for stand before those that it has. Raises KeyError, StopIteration or struct.error for a
    library without such a table.
    """

    def __init__(self, library):
        # type: (Library) -> None
        tags, loads = library.dynamic_table()
        values = dict(tags)
        self.library = library
        self.names = place_of(values[5], loads)  # DT_STRTAB
        self.table = place_of(values[6], loads)  # DT_SYMTAB
        self.hash = place_of(values[0x6FFFFEF5], loads)  # DT_GNU_HASH
        self.buckets, self.first, self.words, self.shift = library.unpack("IIII", self.hash)
        if not (self.buckets and self.words):
            raise KeyError("DT_GNU_HASH")

    def name(self, index):
        # type: (int) -> bytes
        """The name of a symbol."""
        begin = self.names + self.library.unpack("I", self.table + 24 * index)[0]
        end = self.library.bytes.find(b"\0", begin, begin + 4096)
        return bytes(self.library.bytes[begin:end]) if end > 0 else b""

    def wanted(self):
        # type: () -> List[bytes]
        """The names that other libraries must have; weak ones may be missing."""
        found = []
        for index in range(1, min(self.first, 100000)):
            info, _, part = self.library.unpack("BBH", self.table + 24 * index + 4)
            if part == 0 and info >> 4 == 1:  # undefined, STB_GLOBAL
                found.append(self.name(index))
        return found

    def has(self, name):
        # type: (bytes) -> bool
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


# ---------------------------------------------------------------------------------------------------------------------
# Python packages, torch, NCCL

STANDARD_INFO = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._]*)-(?P<version>\d[^-]*)\.dist-info$")


def site_folders():
    # type: () -> List[str]
    """The folders of sys.path, each once, whatever links lead to it."""
    if "folders" not in MEMO:
        real = {}  # type: Dict[str, str]
        for path in JOB_PATH:
            if path and "\0" not in path and os.path.isdir(path):
                real.setdefault(os.path.realpath(path), path)
        MEMO["folders"] = list(real.values())
    return list(MEMO["folders"])


def distributions():
    # type: () -> List[Dict[str, Any]]
    """Every installed distribution in the order of sys.path.

    Source: the folders' names; METADATA and PKG-INFO where a name does not say it all. A standard
    `NAME-VERSION.dist-info` does, which spares reading every METADATA. A folder without METADATA is what a broken
    (un)installation left: `leftover`.
    """
    if "distributions" in MEMO:
        return list(MEMO["distributions"])
    found = []
    for folder in site_folders():
        for name in entries(folder):
            if name.endswith(".dist-info"):
                found.append(wheel_distribution(folder, name))
            elif name.endswith(".egg-info"):
                found.append(egg_distribution(folder, os.path.join(folder, name)))
        if os.path.isdir(folder + "/EGG-INFO"):
            found.append(egg_distribution(os.path.dirname(folder), folder + "/EGG-INFO"))
    MEMO["distributions"] = found
    return found


def wheel_distribution(folder, name):
    # type: (str, str) -> Dict[str, Any]
    """A distribution out of its .dist-info folder."""
    info = os.path.join(folder, name)
    whole = os.path.isfile(info + "/METADATA") and not name.startswith("~")
    standard = STANDARD_INFO.match(name)
    fields = standard.groupdict() if standard else metadata(info + "/METADATA") if whole else {}
    editable = whole and re.search(r'"editable"\s*:\s*true', read_or(info + "/direct_url.json"))
    return described(fields, name[: -len(".dist-info")], folder, info, whole, bool(editable))


def egg_distribution(folder, info):
    # type: (str, str) -> Dict[str, Any]
    """A distribution out of an .egg-info file or folder."""
    path = info + "/PKG-INFO" if os.path.isdir(info) else info
    fields = metadata(path)
    name = os.path.basename(info).partition(".egg")[0]
    # A source tree's has no version in its name: `setup.py develop` links to it from easy-install.pth.
    tree = "-" not in name and os.path.basename(folder) not in ("site-packages", "dist-packages")
    return described(fields, name, folder, info, bool(fields), tree and not info.endswith("/EGG-INFO"))


def described(fields, fallback, folder, info, whole, editable):
    # type: (Dict[str, str], str, str, str, bool, bool) -> Dict[str, Any]
    """One distribution as the sections use it."""
    return {
        "name": re.sub(r"[-_.]+", "-", fields.get("name") or fallback).lower(),
        "version": fields.get("version", ""),
        "location": folder,
        "editable": editable,
        "info": info,
        "leftover": not whole,
    }


def metadata(path):
    # type: (str) -> Dict[str, str]
    """Name and Version out of the headers of a METADATA or PKG-INFO file."""
    fields = {}  # type: Dict[str, str]
    for line in read_or(path, limit=1 << 16).splitlines():
        name, colon, value = line.partition(":")
        if not colon or len(fields) == 2:
            break
        if name.lower() in ("name", "version"):
            fields.setdefault(name.lower(), value.strip())
    return fields


def public(distribution):
    # type: (Dict[str, Any]) -> Dict[str, Any]
    """The part of a distribution that is reported."""
    return {key: distribution[key] for key in ("name", "version", "location", "editable")}


@section("site")
def fact_packages(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: the .dist-info and .egg-info entries of the folders of sys.path, as importlib.metadata finds them."""
    return {
        "distributions": [public(item) for item in distributions() if not item["leftover"]],
        "leftovers": [item["info"] for item in distributions() if item["leftover"]],
    }


def package_folder(name):
    # type: (str) -> Optional[str]
    """The folder that `import NAME` would take, or None."""
    for folder in site_folders():
        path = os.path.join(folder, name)
        if os.path.isfile(path + "/__init__.py"):
            return path
    return None


@section("site")
def fact_torch(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: torch/version.py, torch's METADATA, and the bytes of its libraries; torch is not imported."""
    path = package_folder("torch")
    if path is None:
        return {"version": None}
    values = constants(read_or(path + "/version.py"))
    owner = next((item for item in distributions() if item["name"] == "torch" and not item["leftover"]), None)
    version = values.get("__version__") or (owner or {}).get("version")
    return {
        "version": version,
        "cuda": values.get("cuda"),
        "hip": values.get("hip"),
        "path": path,
        "nccl_requirement": nccl_requirement(read_or(owner["info"] + "/METADATA")) if owner else None,
        "arch_list": arch_list(path + "/lib/libtorch_python.so") if values.get("cuda") or values.get("hip") else None,
        "cxx11_abi": cxx11_abi(path + "/lib/libc10.so"),
        "glibc": newest_glibc(path + "/lib/" + name for name in ("libc10.so", "libtorch_cpu.so", "libtorch_python.so")),
    }


def newest_glibc(paths):
    # type: (Iterable[str]) -> Optional[str]
    """The newest version of glibc that libraries need, "2.28"; None when none of them says."""
    needed = []  # type: List[Tuple[int, ...]]
    for path in paths:
        try:
            library = Library(path)
        except (OSError, ValueError):
            continue
        try:
            matches = [re.match(r"GLIBC_(\d+)\.(\d+)(?:\.\d+)?$", name) for name in library.versions()]
            needed += [(int(match.group(1)), int(match.group(2))) for match in matches if match]
        finally:
            library.close()
    return "%d.%d" % max(needed) if needed else None


def constants(source):
    # type: (str) -> Dict[str, Any]
    """The names a module gives plain values to, read as a syntax tree and not run."""
    import ast

    values = {}  # type: Dict[str, Any]
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return values
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if value is None or not isinstance(node, (ast.Assign, ast.AnnAssign)):
            continue
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                values[target.id] = value.value
    return values


def nccl_requirement(text):
    # type: (str) -> Optional[str]
    """The pin "nvidia-nccl-cu12==2.27.5" in the headers of torch's METADATA; None for a build with NCCL inside."""
    for line in text.splitlines():
        if not line.strip():
            break  # the description begins
        match = re.match(r"Requires-Dist:\s*(nvidia[-_]nccl[\w-]*)\s*\(?\s*([^;)]*)", line, re.I)
        if match:
            return match.group(1).lower().replace("_", "-") + match.group(2).strip().replace(" ", "")
    return None


# torch keeps the list that torch.cuda.get_arch_list() answers as one string constant (CUDA_ARCH_FLAGS in
# torch/csrc/cuda/Module.cpp): seen in .rodata of libtorch_python.so of torch 2.10.0+cu128 as
# "sm_70 sm_75 sm_80 sm_86 sm_90 sm_100 sm_120" between two NULs, the only such text in the file.
ARCHITECTURES = r"(?:sm_\d+[a-z]?|compute_\d+[a-z]?|gfx[0-9a-f]+(?::[a-z+:-]+)?)"
ARCH_FLAGS = r"\0(%s(?: %s)*) ?\0" % (ARCHITECTURES, ARCHITECTURES)


def arch_list(path):
    # type: (str) -> Optional[List[str]]
    """The GPU architectures a torch build carries, or None when the library does not say."""
    try:
        library = Library(path)
    except (OSError, ValueError):
        return None
    try:
        match = library.search(ARCH_FLAGS)
        return match.group(1).decode("ascii").split() if match else None
    finally:
        library.close()


# c10::Error(SourceLocation, std::string) as the two ABIs of libstdc++ spell it. The first form was seen in libc10.so of
# torch 2.10.0+cu128 and 2.13.0+cpu (both ABI 1); the second is the name that extensions built for ABI 0 miss
# ("undefined symbol: _ZN3c105ErrorC2ENS_14SourceLocationESs").
CXX11_SYMBOL = r"_ZN3c105ErrorC[12]ENS_14SourceLocationE(?:(NSt7__cxx11)|Ss)"


def cxx11_abi(path):
    # type: (str) -> Optional[bool]
    """Whether a torch build uses the C++11 ABI of libstdc++, or None when its library does not say."""
    try:
        library = Library(path)
    except (OSError, ValueError):
        return None
    try:
        match = library.search(CXX11_SYMBOL, b".dynstr")
        return bool(match.group(1)) if match else None
    finally:
        library.close()


@section("site")
def fact_bitsandbytes(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: the distributions, and the names of the native libraries in the package's folder."""
    path = package_folder("bitsandbytes")
    if path is None:
        return {"version": None}
    version = next((item["version"] for item in distributions() if item["name"] == "bitsandbytes"), None)
    libraries = [name for name in entries(path) if name.startswith("libbitsandbytes") and ".so" in name]
    return {"version": version or "unknown", "path": path, "libraries": libraries}


# ---------------------------------------------------------------------------------------------------------------------
# What packages ask for, and what their compiled parts ask of torch

REQUIREMENTS = 200  # of one distribution
EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")
# What a program on transformers or accelerate needs besides them, depending on what it uses of them.
EXTRAS = {"transformers": {"torch", "deepspeed", "accelerate"}, "accelerate": {"deepspeed"}}


@section("metadata")
def fact_requirements(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: Requires-Dist and Requires-Python of each METADATA, requires.txt of an egg."""
    found = {}  # type: Dict[str, Dict[str, Any]]
    for item in distributions():
        if not item["leftover"] and item["name"] not in found:
            found[item["name"]] = requirements(item["info"])
    wanted = {name: set(extras) for name, extras in EXTRAS.items()}
    for _ in range(3):  # an extra may ask for an extra
        for name, row in found.items():
            for line in row["requires"]:
                match = re.match(r"\s*([\w.-]+)\s*\[([^\]]*)\]", line)
                if match and of_extras(line, wanted.get(name, ())):
                    asked = {extra.strip().lower() for extra in match.group(2).split(",")}
                    wanted.setdefault(re.sub(r"[-_.]+", "-", match.group(1)).lower(), set()).update(asked)
    for name, row in found.items():
        row["requires"] = [line for line in row["requires"] if of_extras(line, wanted.get(name, ()))][:REQUIREMENTS]
    return {"packages": {name: row for name, row in found.items() if row["requires"] or row["python"]}}


def of_extras(line, wanted):
    # type: (str, Iterable[str]) -> bool
    """Whether a requirement is for all, or for one of the extras."""
    extras = [extra.lower() for extra in EXTRA.findall(line.partition(";")[2])]
    return not extras or any(extra in wanted for extra in extras)


def requirements(info):
    # type: (str) -> Dict[str, Any]
    """What a distribution asks for: its Python and its requirements, those of extras with their marker."""
    rows = {"python": "", "requires": []}  # type: Dict[str, Any]
    egg = not info.endswith(".dist-info")
    for line in headers(info + ("/METADATA" if not egg else "/PKG-INFO" if os.path.isdir(info) else "")):
        name, _, value = line.partition(":")
        if name.lower() == "requires-python":
            rows["python"] = value.strip()[:200]
        elif name.lower() == "requires-dist":
            rows["requires"].append(re.sub(r"\s*@[^;]*", " ", value).strip()[:500])  # an address is nobody's business
    if egg and not rows["requires"] and os.path.isdir(info):
        rows["requires"] = egg_requirements(read_or(info + "/requires.txt"))
    return rows


def headers(path):
    # type: (str) -> List[str]
    """The lines of a METADATA or PKG-INFO file before its description."""
    for limit in (1 << 14, 1 << 20):
        text = read_or(path, limit=limit).replace("\r\n", "\n")
        if "\n\n" in text or len(text) < limit // 2:
            break
    return text.partition("\n\n")[0].splitlines()


def egg_requirements(text):
    # type: (str) -> List[str]
    """requires.txt of setuptools, whose [extra:marker] lines hold for what follows, as Requires-Dist has it."""
    found = []
    condition = ""
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("["):
            extra, _, marker = line.strip("[]").partition(":")
            parts = ["(%s)" % marker] if marker else []
            condition = " and ".join(parts + (['extra == "%s"' % extra] if extra else []))
        elif line:
            found.append((line + ("; " + condition if condition else ""))[:500])
    return found


NATIVE_SECONDS = 4.0
TORCH_LIBRARIES = (
    "libc10.so",
    "libtorch_cpu.so",
    "libtorch_python.so",
    "libc10_cuda.so",
    "libtorch_cuda.so",
    "libtorch_cuda_linalg.so",
    "libtorch.so",
)
# c10::, at::, torch:: and caffe2::, as the Itanium C++ ABI spells names, vtables and typeinfo of them.
OF_TORCH = re.compile(r"_Z(?:NK?|T[VIST]N?)(?:3c10|2at|5torch|6caffe2)\d".encode("ascii"))
# Modules that lie beside the package that they belong to.
OWNERS = {
    "flash_attn_2_cuda": "flash-attn",
    "flash_attn_cuda": "flash-attn",
    "flash_attn_3_cuda": "flash-attn-3",
    "fused_dense_lib": "flash-attn",
    "dropout_layer_norm": "flash-attn",
    "rotary_emb": "flash-attn",
    "causal_conv1d_cuda": "causal-conv1d",
    "selective_scan_cuda": "mamba-ssm",
    "amp_C": "apex",
    "apex_C": "apex",
    "fused_layer_norm_cuda": "apex",
}
NATIVE_FOLDERS = ("flash_attn_3", "xformers", "torchvision", "torchaudio/lib", "torchaudio", "exllamav2", "vllm")


@section("binaries")
def fact_binaries(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: the dynamic tables of compiled modules and of torch's libraries, which are not loaded; cpp_lib.json."""
    until = min(time.monotonic() + NATIVE_SECONDS, ask.deadline)
    torch = torch_symbols()
    modules = []
    for package, path in native_files():
        row = native_module(package, path, torch, until)
        if row is not None:
            modules.append(row)
    built = built_for(read_or((package_folder("xformers") or "") + "/cpp_lib.json"))
    return {"modules": modules, "built_for": {"xformers": built} if built else {}}


def native_files():
    # type: () -> Iterator[Tuple[str, str]]
    """The files that may be compiled modules linked with torch, each with its package."""
    for folder in site_folders():
        if os.path.basename(folder) not in ("site-packages", "dist-packages"):
            continue
        for name in entries(folder):
            if name.endswith(".so"):
                stem = name.partition(".")[0]
                yield OWNERS.get(stem, stem.replace("_", "-").lower()), os.path.join(folder, name)
        operations = os.path.join(folder, "deepspeed/ops")
        inside = [os.path.join(folder, name) for name in NATIVE_FOLDERS]
        inside += [os.path.join(operations, name) for name in entries(operations)]
        for path in inside:
            package = os.path.relpath(path, folder).split("/")[0].replace("_", "-")
            for name in entries(path):
                if name.endswith(".so"):
                    yield package, os.path.join(path, name)


def torch_symbols():
    # type: () -> List[Symbols]
    """The symbol tables of the installed torch's libraries; none where a library of them cannot be read."""
    path = package_folder("torch")
    found = []
    for name in TORCH_LIBRARIES if path else ():
        try:
            found.append(Symbols(Library("%s/lib/%s" % (path, name))))
        except OSError:
            continue  # a build for CPUs has no libtorch_cuda.so
        except (KeyError, StopIteration, ValueError, struct.error):
            return []  # it cannot be told what torch has
    return found


def native_module(package, path, torch, until):
    # type: (str, str, List[Symbols], float) -> Optional[Dict[str, Any]]
    """A compiled module that is linked with torch, or None for another file."""
    try:
        library = Library(path)
    except (OSError, ValueError):
        return None
    try:
        needed = library.dynamic()["needed"]
        if not any(re.match(r"lib(torch|c10)", name) for name in needed):
            return None
        tag = re.search(r"\.cpython-(\d+)", os.path.basename(path))
        runtime = next((name for name in needed if name.startswith("libcudart.so.")), "")
        missing = None if time.monotonic() > until else missing_symbols(library, path, needed, torch, until)
        return {
            "package": package,
            "path": path,
            "python": tag.group(1) if tag else None,
            "cuda": runtime[len("libcudart.so.") :].partition(".")[0] or None,
            "cxx11_abi": module_abi(library),
            "missing": (missing or [])[:3],
            "checked": missing is not None,
        }
    finally:
        library.close()


def missing_symbols(library, path, needed, torch, until):
    # type: (Library, str, List[str], List[Symbols], float) -> Optional[List[str]]
    """The symbols of torch that a module asks for and no library that it loads has; None when that cannot be told."""
    if not torch:
        return None
    try:
        offered = torch + [Symbols(Library(place)) for place in beside(path, needed)]
        found = []
        for name in Symbols(library).wanted():
            if time.monotonic() > until:
                return None
            if OF_TORCH.match(name) and not any(symbols.has(name) for symbols in offered):
                found.append(name.decode("ascii", "replace"))
                if len(found) == 3:
                    break
        return found
    except (OSError, KeyError, StopIteration, ValueError, struct.error):
        return None


def beside(path, needed):
    # type: (str, List[str]) -> List[str]
    """Libraries of the module's own package that it is linked with: in its folder, or in NAME.libs beside it."""
    folder = os.path.dirname(path)
    places = [folder, os.path.join(folder, "lib"), folder + ".libs"]
    paths = [os.path.join(place, name) for place in places for name in needed if "/" not in name]
    return [path for path in paths if os.path.isfile(path)]


def module_abi(library):
    # type: (Library) -> Optional[bool]
    """Whether a module uses the C++11 ABI of libstdc++ in what it asks of torch, or None when it passes no strings."""
    if library.search(r"_ZNK?3c10\w*NSt7__cxx11", b".dynstr"):
        return True
    return False if library.search(r"_ZNK?3c10[A-Za-z0-9]\w*Ss\w*\0", b".dynstr") else None


def built_for(text):
    # type: (str) -> Optional[Dict[str, Any]]
    """What xformers/cpp_lib.json says of its build: {"version": {"torch": "2.5.0+cu121", "cuda": 1201, ...}}."""
    try:
        version = json.loads(text)["version"]
        cuda = number(version.get("cuda"))
        return {
            "torch": str(version["torch"]) if version.get("torch") else None,
            "cuda": "%d.%d" % (cuda // 100, cuda % 100) if cuda else None,
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


@section("site")
def fact_deepspeed(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: the distributions, and git_version_info_installed.py, which DeepSpeed's setup.py writes."""
    path = package_folder("deepspeed")
    if path is None:
        return {"version": None}
    version = next((item["version"] for item in distributions() if item["name"] == "deepspeed"), None)
    values = mappings(read_or(path + "/git_version_info_installed.py"))
    built = values.get("torch_info", {})
    return {
        "version": version or "unknown",
        "path": path,
        "installed_ops": sorted(str(name) for name, there in values.get("installed_ops", {}).items() if there is True),
        "built_torch": built.get("version"),
        "built_cuda": built.get("cuda_version"),
    }


def mappings(source):
    # type: (str) -> Dict[str, Dict[Any, Any]]
    """The names a module gives plain mappings to, read as a syntax tree and not run."""
    import ast

    values = {}  # type: Dict[str, Dict[Any, Any]]
    try:
        for node in ast.parse(source).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
                values.update((name.id, ast.literal_eval(node.value)) for name in node.targets if hasattr(name, "id"))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        pass  # what came before it stands
    return values


NCCL_NAME = "libnccl.so.2"
# Seen in .rodata of libnccl.so.2: "NCCL version 2.27.5+cuda12.9" (nvidia-nccl-cu12 2.27.5) and "NCCL version
# 2.29.7+cuda13.2" (nvidia-nccl-cu13 2.29.7), each followed further on by "NCCL version 2.27.5 compiled with CUDA 12.9".
NCCL_VERSION = r"NCCL version (\d+\.\d+(?:\.\d+)?)(?:\+cuda(\d+\.\d+)| compiled with CUDA (\d+\.\d+))?"


def nccl_version(path):
    # type: (str) -> Tuple[Optional[str], Optional[str]]
    """The version and CUDA version that a library's bytes name; None for what they do not."""
    try:
        library = Library(path)
    except (OSError, ValueError):
        return None, None
    try:
        match = library.search(NCCL_VERSION)
        if match is None:
            return None, None
        cuda = match.group(2) or match.group(3)
        return match.group(1).decode("ascii"), cuda.decode("ascii") if cuda else None
    finally:
        library.close()


def nccl_owners():
    # type: () -> List[Tuple[Dict[str, Any], str]]
    """Every distribution that claims a libnccl.so.2, with the path it claims, the file there or not.

    The wheels nvidia-nccl-cu11, -cu12 and -cu13 claim the same `nvidia/nccl/lib/libnccl.so.2`.
    """
    owners = []  # type: List[Tuple[Dict[str, Any], str]]
    for item in distributions():
        if not item["name"].startswith("nvidia-nccl") or item["leftover"]:
            continue
        record = read_or(item["info"] + "/RECORD")
        names = [line.split(",")[0].strip('"') for line in record.splitlines()]
        claimed = [name for name in names if os.path.basename(name) == NCCL_NAME]
        if not claimed and not record:
            claimed = ["nvidia/nccl/lib/" + NCCL_NAME]  # an installer that wrote no RECORD
        owners.extend((item, os.path.normpath(os.path.join(item["location"], name))) for name in claimed[:1])
    return owners


def nccl_in(folder):
    # type: (str) -> List[str]
    """The NCCL libraries in a folder: the name that the loader looks for first, then the others."""
    names = [name for name in entries(folder) if name == "libnccl.so" or name.startswith("libnccl.so.")]
    return [os.path.join(folder, name) for name in sorted(names, key=lambda name: (name != NCCL_NAME, name))]


def path_list(name):
    # type: (str) -> List[str]
    """The entries of LD_LIBRARY_PATH or LD_PRELOAD."""
    separators = r"[:\s]" if name == "LD_PRELOAD" else "[:;]"  # ld.so(8)
    return [entry for entry in re.split(separators, os.environ.get(name, "")) if entry]


def loader_cache(library=NCCL_NAME):
    # type: (str) -> List[str]
    """The paths of a library in the loader's cache. Source: `ldconfig -p`."""
    program = which("ldconfig", SBIN)
    if program is None:
        return []
    try:
        text = run([program, "-p"])[1]
    except ProbeError:
        return []
    return re.findall(r"^\s*%s\s.*=>\s*(\S.*?)\s*$" % re.escape(library), text, re.M)


SYSTEM_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/local/cuda/lib64",
    "/usr/local/nccl/lib",
    "/opt/nccl/lib",
)


def nccl_places(torch):
    # type: (Optional[str]) -> Iterator[Tuple[str, str]]
    """Every place an NCCL may come from, with its source, the most specific first."""
    for folder in site_folders():
        for path in nccl_in(folder + "/nvidia/nccl/lib"):
            yield path, "wheel"
    for path in nccl_in(torch + "/lib") if torch else []:
        yield path, "torch"
    for path in path_list("LD_PRELOAD"):
        if os.path.basename(path).startswith("libnccl.so") and "/" in path:
            yield path, "ld-preload"
    for folder in path_list("LD_LIBRARY_PATH"):
        for path in nccl_in(folder):
            yield path, "ld-library-path"
    for path in loader_cache():
        yield path, "ldconfig"
    for folder in unique([sys.prefix, sys.base_prefix, os.environ.get("CONDA_PREFIX", sys.prefix)]):
        for path in nccl_in(folder + "/lib") if os.path.isdir(folder + "/conda-meta") else []:
            yield path, "conda"
    for folder in SYSTEM_FOLDERS:
        for path in nccl_in(at(folder)):
            yield path, "system"


@section("site")
def fact_nccl(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: RECORD files of the nvidia-nccl wheels, the libraries' bytes, the loader's search order (ld.so(8))."""
    torch = package_folder("torch")
    owners = nccl_owners()
    copies = []  # type: List[Dict[str, Any]]
    for path, source in nccl_places(torch):
        real = os.path.realpath(path)
        if not os.path.isfile(real) or any(copy["real_path"] == real for copy in copies):
            continue
        claims = [item for item, claimed in owners if os.path.realpath(claimed) == real]
        copies.append(nccl_copy(path, real, source, ["%s==%s" % (item["name"], item["version"]) for item in claims]))
    loaded = torch_nccl(torch) if torch else None
    if loaded and not any(copy["real_path"] == os.path.realpath(loaded) for copy in copies):
        copies.append(nccl_copy(loaded, os.path.realpath(loaded), "torch" if "/torch/" in loaded else "other", []))
    shared = [path for _, path in owners] + [copy["path"] for copy in copies if copy["source"] == "wheel"]
    return {
        "copies": copies,
        "owners": [public(item) for item, _ in owners],
        "wheel_file": shared[0] if shared else None,
        "wheel_file_exists": bool(shared) and os.path.isfile(shared[0]),
        "loaded": next((c["path"] for c in copies if loaded and c["real_path"] == os.path.realpath(loaded)), None),
    }


def nccl_copy(path, real, source, owners):
    # type: (str, str, str, List[str]) -> Dict[str, Any]
    """One NCCL library as it is reported."""
    version, cuda = nccl_version(real)
    row = {"path": path, "real_path": real, "version": version, "cuda": cuda, "source": source, "owners": owners}
    manager, package = (None, None) if source in ("wheel", "torch") else owning_package(path, real)
    return dict(row, manager=manager, package=package) if package else row


def owning_package(path, real):
    # type: (str, str) -> Tuple[Optional[str], Optional[str]]
    """Who installed a library, deb, rpm or conda, and the package with its version; None for one put there by hand.

    Source: the file lists of dpkg and conda, and `rpm -qf`.
    """
    meta = os.path.dirname(os.path.dirname(path)) + "/conda-meta"
    for name in entries(meta):
        told = re.match(r"(nccl)-([^-]+)-[^-]+\.json$", name)
        if told:
            return "conda", "%s %s" % told.groups()
    lists = at("/var/lib/dpkg/info/")
    spellings = {path, real, real[len("/usr") :] if real.startswith("/usr/lib") else real, "/usr" + real}
    for name in entries(lists):
        if re.match(r"libnccl\d*(:\w+)?\.list$", name) and spellings & set(read_or(lists + name).split("\n")):
            package = name[: -len(".list")]
            return "deb", answer_of(which("dpkg-query"), "-W", "-f", "${Package} ${Version}", package) or package
    if entries(lists) or not os.path.isdir(at("/var/lib/rpm")):
        return None, None
    package = answer_of(which("rpm"), "-qf", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\\n", real).split("\n")[0]
    return ("rpm", package) if package else (None, None)


def answer_of(program, *question):
    # type: (Optional[str], *str) -> str
    """What a program prints; nothing where it is missing, fails or hangs."""
    if program is None:
        return ""
    try:
        code, output, _ = run([program] + list(question))
    except ProbeError:
        return ""
    return output.strip() if code == 0 else ""


def torch_nccl(torch):
    # type: (str) -> Optional[str]
    """The library that gives torch its NCCL: libnccl.so.2 by the loader's order, or torch's own with NCCL inside.

    The order is ld.so(8)'s: a library of that name that is loaded already, DT_RPATH (unless there is a DT_RUNPATH),
    LD_LIBRARY_PATH, DT_RUNPATH, the cache, the default folders. libtorch_cuda.so of torch 2.10.0 (PyPI) has a DT_RPATH
    with $ORIGIN/../../nvidia/nccl/lib in it and no DT_RUNPATH: its wheel's file comes before LD_LIBRARY_PATH.
    Loaded already are LD_PRELOAD's, and what `torch/__init__.py` opens itself: in 2.10.0 and 2.13.0 the first
    nvidia/nccl/lib/libnccl.so.* on sys.path, when the CUDA wheels are there (`_preload_cuda_deps`). Where the loader
    finds none, older ones do the same.
    """
    user = os.path.join(torch, "lib", "libtorch_cuda.so")
    try:
        library = Library(user)
    except (OSError, ValueError):
        return None  # a CPU build
    try:
        table = library.dynamic()
        if NCCL_NAME not in table["needed"]:
            return user if library.search(NCCL_VERSION) else None
    finally:
        library.close()
    own = [folder.replace("${ORIGIN}", "$ORIGIN") for entry in table["rpath"] for folder in entry.split(":")]
    late = [folder.replace("${ORIGIN}", "$ORIGIN") for entry in table["runpath"] for folder in entry.split(":")]
    origin = os.path.dirname(user)  # as it is opened: the loader follows no link for $ORIGIN, the kernel all for `..`
    folders = ([] if late else own) + path_list("LD_LIBRARY_PATH") + late
    candidates = []  # type: List[str]
    for path in path_list("LD_PRELOAD"):
        if os.path.basename(path).startswith("libnccl.so"):
            bare = [os.path.join(folder, path) for folder in path_list("LD_LIBRARY_PATH")] + loader_cache()
            candidates += [path] if "/" in path else bare
    candidates += torch_preloads(torch)
    candidates += [os.path.join(folder.replace("$ORIGIN", origin), NCCL_NAME) for folder in folders if folder]
    candidates += loader_cache()
    candidates += [os.path.join(folder, NCCL_NAME) for folder in ("/lib64", "/usr/lib64", "/lib", "/usr/lib")]
    candidates += [os.path.join(folder, "nvidia/nccl/lib", NCCL_NAME) for folder in site_folders()]
    return next((os.path.realpath(path) for path in candidates if os.path.isfile(path)), None)


def torch_preloads(torch):
    # type: (str) -> List[str]
    """What torch's own start-up opens before its libraries ask for NCCL. Source: torch/__init__.py, read as text."""
    text = read_or(torch + "/__init__.py", limit=1 << 19)
    if not re.search(r"^\s+_preload_cuda_deps\(\)", text, re.M) or "libnccl.so" not in text:
        return []
    folders = site_folders()
    # It goes through its list in order and gives up at the first library missing; cublas is the first.
    if not any(os.path.isdir("%s/nvidia/%s/lib" % (folder, name)) for folder in folders for name in ("cublas", "cu13")):
        return []
    return [path for folder in folders for path in nccl_in(folder + "/nvidia/nccl/lib")[:1]][:1]


# ---------------------------------------------------------------------------------------------------------------------
# GPUs: NVML through pynvml, or ctypes, or nvidia-smi


class NvmlError(Exception):
    """An answer of NVML that is not NVML_SUCCESS."""

    def __init__(self, code, text):
        # type: (int, str) -> None
        Exception.__init__(self, text)
        self.code = code


# nvmlReturn_t. Source: nvml.h.
NVML_TEXT = {
    3: "Not Supported",
    4: "Insufficient Permissions",
    6: "Not Found",
    9: "Driver Not Loaded",
    10: "Timeout",
    13: "Function Not Found",
    15: "GPU is lost",
    16: "GPU requires reset",
    18: "Driver/library version mismatch",
    999: "Unknown Error",
}
NVML_STATUS = {9: "driver-not-loaded", 18: "library-mismatch", 12: "no-library"}
FUNCTION_NOT_FOUND = 13
INSUFFICIENT_SIZE = 7
RECOVERY_ACTION = 230  # NVML_FI_DEV_GET_GPU_RECOVERY_ACTION of nvml.h 13; older drivers answer "not supported"
NVLINKS = 36  # NVML_NVLINK_MAX_LINKS of nvml.h 13; older drivers answer "invalid argument" beyond their own number


class CtypesNvml(object):
    """NVML through ctypes: each query by its C name. A symbol that an old driver lacks is "Function Not Found"."""

    via = "ctypes"

    def __init__(self):
        # type: () -> None
        import ctypes

        self.c = ctypes
        self.library = ctypes.CDLL("libnvidia-ml.so.1")

    def call(self, symbol, *arguments):
        # type: (str, *Any) -> int
        """Call a function and return its code where that is no error of its own."""
        try:
            function = getattr(self.library, symbol)
        except AttributeError:
            function = None
        code = FUNCTION_NOT_FOUND if function is None else function(*arguments)
        if code not in (0, INSUFFICIENT_SIZE):
            raise NvmlError(code, NVML_TEXT.get(code, "NVML error %d" % code))
        return int(code)

    def start(self):
        # type: () -> None
        """Call nvmlInit_v2."""
        self.call("nvmlInit_v2")

    def stop(self):
        # type: () -> None
        """Call nvmlShutdown."""
        self.call("nvmlShutdown")

    def text(self, symbol, *arguments):
        # type: (str, *Any) -> str
        """A string that NVML writes into a buffer."""
        buffer = self.c.create_string_buffer(96)
        self.call(symbol, *(arguments + (buffer, self.c.c_uint(96))))
        return buffer.value.decode("utf-8", "replace")

    def integer(self, symbol, *arguments):
        # type: (str, *Any) -> int
        """An unsigned value of up to 64 bits that NVML writes; what it does not write stays 0."""
        value = self.c.c_ulonglong(0)
        self.call(symbol, *(arguments + (self.c.byref(value),)))
        return int(value.value)

    def pair(self, symbol, *arguments):
        # type: (str, *Any) -> Tuple[int, int]
        """Two integers that NVML writes."""
        first, second = self.c.c_int(0), self.c.c_int(0)
        self.call(symbol, *(arguments + (self.c.byref(first), self.c.byref(second))))
        return first.value, second.value

    def device(self, index):
        # type: (int) -> Any
        """The handle of a GPU."""
        handle = self.c.c_void_p()
        self.call("nvmlDeviceGetHandleByIndex_v2", self.c.c_uint(index), self.c.byref(handle))
        return handle

    def numbers(self, symbol, count, device):
        # type: (str, int, Any) -> List[int]
        """Several unsigned integers that NVML writes."""
        values = [self.c.c_uint(0) for _ in range(count)]
        self.call(symbol, device, *[self.c.byref(value) for value in values])
        return [int(value.value) for value in values]

    def structure(self, symbol, size, version, device):
        # type: (str, int, int, Any) -> bytes
        """A structure that NVML fills; one with a version carries `size | version << 24` in front (nvml.h)."""
        buffer = self.c.create_string_buffer(max(size, 256))  # room to spare should a driver write more
        if version:
            struct.pack_into("=I", buffer, 0, size | version << 24)
        self.call(symbol, device, buffer)
        return buffer.raw

    def memory(self, device):
        # type: (Any) -> Tuple[int, int, Optional[int]]
        """Total, used and reserved bytes; before driver 510 what is reserved counts as used and is not told.

        nvmlMemory_v2_t: version, total, reserved, free, used (40 bytes); nvmlMemory_t: total, free, used.
        """
        try:
            raw = self.structure("nvmlDeviceGetMemoryInfo_v2", 40, 2, device)
        except NvmlError:
            raw = self.structure("nvmlDeviceGetMemoryInfo", 24, 0, device)
            total, _, used = struct.unpack_from("=QQQ", raw)
            return total, used, None
        total, reserved, _, used = struct.unpack_from("=8xQQQQ", raw)
        return total, used, reserved

    def fabric(self, device):
        # type: (Any) -> Tuple[int, int]
        """State and status of the card in an NVLink fabric.

        nvmlGpuFabricInfo_v2_t (36 bytes, driver 545 and newer): version, 16 bytes of a UUID, status, clique, state in
        one byte, health mask. nvmlGpuFabricInfo_t (28 bytes, driver 525): the same without version and mask.
        """
        try:
            raw = self.structure("nvmlDeviceGetGpuFabricInfoV", 36, 2, device)[4:]
        except NvmlError:
            raw = self.structure("nvmlDeviceGetGpuFabricInfo", 28, 0, device)
        status, state = struct.unpack_from("=16xI4xB", raw)
        return state, status

    def field(self, device, number):
        # type: (Any, int) -> int
        """One of NVML's fields (NVML_FI_DEV_*) that holds a small number.

        nvmlFieldValue_t (40 bytes): field, scope, timestamp, latency, type of the value, return code, value.
        """
        buffer = self.c.create_string_buffer(40)
        struct.pack_into("=I", buffer, 0, number)
        self.call("nvmlDeviceGetFieldValues", device, self.c.c_int(1), buffer)
        code, value = struct.unpack_from("=28xII", buffer.raw)
        if code:
            raise NvmlError(code, NVML_TEXT.get(code, "NVML error %d" % code))
        return int(value)

    def retired_pages(self, device, cause):
        # type: (Any, int) -> int
        """How many pages were retired for a cause: 0 several single-bit errors, 1 a double-bit error."""
        count = self.c.c_uint(0)  # no room for addresses: only their number is told
        self.call("nvmlDeviceGetRetiredPages", device, cause, self.c.byref(count), None)
        return int(count.value)

    def mig_devices(self, device):
        # type: (Any) -> int
        """How many instances of a divided card can be used."""
        most = self.integer("nvmlDeviceGetMaxMigDeviceCount", device)
        handle = self.c.c_void_p()
        symbol = "nvmlDeviceGetMigDeviceHandleByIndex"
        return sum(attempt(self.call, symbol, device, index, self.c.byref(handle)) == 0 for index in range(most))

    def bus(self, device):
        # type: (Any) -> str
        """The PCI address (nvmlPciInfo_t of _v3: 16 bytes legacy id, five 32-bit numbers, 32 bytes id)."""
        values = self.c.create_string_buffer(128)
        self.call("nvmlDeviceGetPciInfo_v3", device, values)
        return values.raw[36:68].split(b"\0")[0].decode("ascii", "replace")

    def processes(self, device):
        # type: (Any) -> List[Tuple[int, Optional[int]]]
        """Process ids and the bytes they hold, of compute processes."""
        for symbol in ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"):
            count, table = self.c.c_uint(512), self.c.create_string_buffer(512 * 24)
            try:
                code = self.call(symbol, device, self.c.byref(count), table)
            except NvmlError as failure:
                if failure.code != FUNCTION_NOT_FOUND:
                    return []
                continue
            # nvmlProcessInfo_t of _v2 and _v3: process id, bytes, GPU instance, compute instance
            rows = list(struct.iter_unpack("=I4xQII", table.raw))[: count.value] if code == 0 else []
            return [(row[0], None if row[1] == 2**64 - 1 else row[1]) for row in rows]  # NVML_VALUE_NOT_AVAILABLE
        return []


class PynvmlNvml(object):
    """NVML through the host's own pynvml (nvidia-ml-py, or the deprecated package of that name)."""

    via = "pynvml"

    def __init__(self):
        # type: () -> None
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the deprecated package warns at import
            import pynvml  # type: ignore[import-untyped,unused-ignore]
        self.module = pynvml  # type: Any
        # Structures and tables differ from one age of pynvml to the next; the library under it is the same.
        direct = CtypesNvml()
        self.memory, self.fabric, self.numbers = direct.memory, direct.fabric, direct.numbers
        self.retired_pages, self.mig_devices, self.field = direct.retired_pages, direct.mig_devices, direct.field

    def call(self, symbol, *arguments):
        # type: (str, *Any) -> Any
        """Call a function of the module; its exceptions become NvmlError."""
        function = getattr(self.module, symbol, None)
        if function is None:
            raise NvmlError(FUNCTION_NOT_FOUND, NVML_TEXT[FUNCTION_NOT_FOUND])
        problem = None  # type: Optional[NvmlError]
        try:
            return function(*arguments)
        except self.module.NVMLError as failure:
            code = int(getattr(failure, "value", 999))
            problem = NvmlError(code, NVML_TEXT.get(code, str(failure)))
        raise problem

    def start(self):
        # type: () -> None
        """Call nvmlInit."""
        self.call("nvmlInit")

    def stop(self):
        # type: () -> None
        """Call nvmlShutdown."""
        self.call("nvmlShutdown")

    def text(self, symbol, *arguments):
        # type: (str, *Any) -> str
        """A string, which older versions give as bytes."""
        value = self.call(symbol, *arguments)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def integer(self, symbol, *arguments):
        # type: (str, *Any) -> int
        """A number."""
        return int(self.call(symbol, *arguments))

    def pair(self, symbol, *arguments):
        # type: (str, *Any) -> Tuple[int, int]
        """Two numbers."""
        first, second = self.call(symbol, *arguments)
        return int(first), int(second)

    def device(self, index):
        # type: (int) -> Any
        """The handle of a GPU."""
        return self.call("nvmlDeviceGetHandleByIndex", index)

    def bus(self, device):
        # type: (Any) -> str
        """The PCI address."""
        value = self.call("nvmlDeviceGetPciInfo", device).busId
        return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)

    def processes(self, device):
        # type: (Any) -> List[Tuple[int, Optional[int]]]
        """Process ids and the bytes they hold, of compute processes."""
        for symbol in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetComputeRunningProcesses_v2"):
            try:
                rows = self.call(symbol, device)
            except NvmlError as failure:
                if failure.code != FUNCTION_NOT_FOUND:
                    return []
                continue
            return [(int(row.pid), getattr(row, "usedGpuMemory", None)) for row in rows]
        return []


# Field of Gpu: NVML query with its further arguments, and what is made of the number.
GPU_NUMBERS = (
    ("pcie_generation", "nvmlDeviceGetCurrPcieLinkGeneration", (), int),
    ("pcie_generation_max", "nvmlDeviceGetMaxPcieLinkGeneration", (), int),
    ("pcie_generation_card", "nvmlDeviceGetGpuMaxPcieLinkGeneration", (), int),
    ("pcie_width", "nvmlDeviceGetCurrPcieLinkWidth", (), int),
    ("pcie_width_max", "nvmlDeviceGetMaxPcieLinkWidth", (), int),
    ("brand", "nvmlDeviceGetBrand", (), int),
    ("ecc_uncorrected", "nvmlDeviceGetTotalEccErrors", (1, 1), int),  # uncorrected, over the card's life
    ("ecc_uncorrected_now", "nvmlDeviceGetTotalEccErrors", (1, 0), int),  # uncorrected, since the driver was loaded
    ("page_retirement_pending", "nvmlDeviceGetRetiredPagesPendingStatus", (), bool),
    ("temperature_c", "nvmlDeviceGetTemperature", (0,), int),
    ("power_limit_w", "nvmlDeviceGetEnforcedPowerLimit", (), lambda milliwatt: milliwatt / 1000.0),
    ("power_limit_default_w", "nvmlDeviceGetPowerManagementDefaultLimit", (), lambda milliwatt: milliwatt / 1000.0),
    ("performance_state", "nvmlDeviceGetPerformanceState", (), lambda state: state if state < 16 else None),
    ("throttle_reasons", "nvmlDeviceGetCurrentClocksEventReasons", (), int),  # the name since driver 535
    ("throttle_reasons", "nvmlDeviceGetCurrentClocksThrottleReasons", (), int),
    ("compute_mode", "nvmlDeviceGetComputeMode", (), int),
    ("persistence", "nvmlDeviceGetPersistenceMode", (), bool),
    ("display", "nvmlDeviceGetDisplayActive", (), bool),
)  # type: Tuple[Tuple[str, str, Tuple[int, ...], Callable[[int], Any]], ...]


def attempt(function, *arguments):
    # type: (Callable[..., Any], *Any) -> Any
    """What a query answers, or None when NVML has no answer."""
    try:
        return function(*arguments)
    except NvmlError:
        return None
    except Exception:  # a binding of another age: wrong argument types, a missing field
        return None


@section("gpu")
def fact_gpu(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: NVML by pynvml if the host has it, else by ctypes; nvidia-smi where the library cannot be opened."""
    import ctypes

    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as failure:
        return nvidia_smi(str(failure))
    for binding in (PynvmlNvml, CtypesNvml):
        try:
            nvml = binding()  # type: Any
            nvml.start()
        except NvmlError as failure:
            if binding is PynvmlNvml and failure.code not in NVML_STATUS:
                continue  # perhaps the binding's fault: ask the library itself
            return {"status": NVML_STATUS.get(failure.code, "error"), "detail": str(failure), "via": nvml.via}
        except Exception:  # pynvml is missing, broken or not the module it should be
            continue
        try:
            return nvml_facts(nvml)
        finally:
            attempt(nvml.stop)
    return {"status": "error", "detail": "libnvidia-ml.so.1 could not be used", "via": "ctypes"}


def nvml_facts(nvml):
    # type: (Any) -> Dict[str, Any]
    """The section out of a started NVML."""
    cuda = attempt(nvml.integer, "nvmlSystemGetCudaDriverVersion")
    facts = {
        "status": "ok",
        "via": nvml.via,
        "driver_version": attempt(nvml.text, "nvmlSystemGetDriverVersion"),
        "nvml_version": attempt(nvml.text, "nvmlSystemGetNVMLVersion"),
        "cuda_driver_version": "%d.%d" % (cuda // 1000, cuda % 1000 // 10) if cuda else None,
    }  # type: Dict[str, Any]
    problem = ""
    try:
        count = nvml.integer("nvmlDeviceGetCount" if nvml.via == "pynvml" else "nvmlDeviceGetCount_v2")
    except NvmlError as failure:
        count, problem = 0, str(failure)
    if problem:
        return dict(facts, status="error", detail="counting the GPUs: " + problem)
    devices, gpus = [], []
    for index in range(count):
        try:
            device = nvml.device(index)
            gpus.append(nvml_gpu(nvml, index, device))
        except NvmlError as failure:
            device = None
            gpus.append({"index": index, "name": "", "error": str(failure)})
        devices.append(device if "error" not in gpus[-1] else None)
    facts["gpus"] = gpus
    facts["p2p_read"] = matrix(nvml, devices, "nvmlDeviceGetP2PStatus", (0,))  # NVML_P2P_CAPS_INDEX_READ
    facts["topology"] = matrix(nvml, devices, "nvmlDeviceGetTopologyCommonAncestor", ())
    return facts


def nvml_gpu(nvml, index, device):
    # type: (Any, int, Any) -> Dict[str, Any]
    """One GPU. Raises NvmlError when it does not even say its name."""
    memory = attempt(nvml.memory, device)
    ecc = attempt(nvml.pair, "nvmlDeviceGetEccMode", device)
    mig = attempt(nvml.pair, "nvmlDeviceGetMigMode", device)
    fabric = attempt(nvml.fabric, device)
    gpu = {
        "index": index,
        "name": nvml.text("nvmlDeviceGetName", device),
        "uuid": attempt(nvml.text, "nvmlDeviceGetUUID", device) or "",
        "memory_mib": memory[0] >> 20 if memory else None,
        "memory_used_mib": memory[1] >> 20 if memory else None,
        "memory_reserved_mib": memory[2] >> 20 if memory and memory[2] is not None else None,
        "compute_capability": attempt(nvml.pair, "nvmlDeviceGetCudaComputeCapability", device),
        "pci_bus_id": attempt(nvml.bus, device) or "",
        "ecc": bool(ecc[0]) if ecc else None,
        "mig": bool(mig[0]) if mig else None,
        "mig_devices": attempt(nvml.mig_devices, device) if mig and mig[0] else None,
        "recovery_action": attempt(nvml.field, device, RECOVERY_ACTION),
        "fabric_state": fabric[0] if fabric else None,
        "fabric_status": fabric[1] if fabric else None,
        "processes": [gpu_process(pid, used) for pid, used in attempt(nvml.processes, device) or ()],
    }
    gpu.update(nvlinks(nvml, device))
    gpu.update(mended_memory(nvml, device))
    for field, symbol, arguments, convert in GPU_NUMBERS:
        value = attempt(nvml.integer, symbol, device, *arguments)
        if gpu.get(field) is None:
            gpu[field] = None if value is None else convert(value)
    return gpu


def mended_memory(nvml, device):
    # type: (Any, Any) -> Dict[str, Any]
    """What the card did about broken memory: rows remapped (Ampere and newer) or pages retired (before)."""
    rows = attempt(nvml.numbers, "nvmlDeviceGetRemappedRows", 4, device)  # correctable, uncorrectable, pending, failed
    pages = [attempt(nvml.retired_pages, device, cause) for cause in (0, 1)]
    known = [count for count in pages if count is not None]
    return {
        "rows_remapped": rows[1] if rows else None,
        "row_remap_pending": bool(rows[2]) if rows else None,
        "row_remap_failed": bool(rows[3]) if rows else None,
        "pages_retired": sum(known) if known else None,
    }


def nvlinks(nvml, device):
    # type: (Any, Any) -> Dict[str, Optional[int]]
    """How many NVLinks the card has, how many are up and how many of these lead to a switch; None without any."""
    states = []
    for link in range(NVLINKS):
        state = attempt(nvml.integer, "nvmlDeviceGetNvLinkState", device, link)
        if state is None:
            break
        states.append(state)
    up = [link for link, state in enumerate(states) if state == 1]
    far = [attempt(nvml.integer, "nvmlDeviceGetNvLinkRemoteDeviceType", device, link) for link in up]
    known = [kind for kind in far if kind is not None]
    return {
        "nvlinks": len(up) if states else None,
        "nvlinks_total": len(states) or None,
        "nvlinks_to_switch": known.count(2) if known else None,  # NVML_NVLINK_DEVICE_TYPE_SWITCH
    }


def matrix(nvml, devices, symbol, arguments):
    # type: (Any, List[Any], str, Tuple[int, ...]) -> List[List[Optional[int]]]
    """What NVML says of each pair of GPUs; None on the diagonal and where it has no answer."""
    return [
        [
            None
            if one is other or one is None or other is None
            else attempt(nvml.integer, symbol, one, other, *arguments)
            for other in devices
        ]
        for one in devices
    ]


def gpu_process(pid, used):
    # type: (int, Optional[int]) -> Dict[str, Any]
    """A process on a GPU with its program's name, its script's, and its user; arguments may hold secrets and stay."""
    folder = at("/proc/%d" % pid)
    name = read_or(folder + "/comm")
    words = read_or(folder + "/cmdline").split("\0")[1:] if name.startswith("python") else []
    script = next((os.path.basename(word) for word in words if word.endswith(".py")), "")
    try:
        user = user_name(os.stat(folder).st_uid)
    except OSError:
        user = ""  # another container's process
    command = ("%s %s" % (name, script)).strip()
    return {
        "pid": pid,
        "memory_mib": None if used is None else used >> 20,
        "command": command,
        "user": user,
        "age_seconds": process_age(folder),
    }


def process_age(folder):
    # type: (str) -> Optional[float]
    """Seconds since a process was started: field 22 of /proc/PID/stat, in clock ticks since the boot (proc(5))."""
    fields = read_or(folder + "/stat").rpartition(")")[2].split()
    begun, now = number(fields[19]) if len(fields) > 19 else None, uptime_seconds()
    if begun is None or now is None:
        return None
    return max(0.0, round(now - begun / float(os.sysconf("SC_CLK_TCK")), 1))


SMI_FIELDS = (
    ("index", "index"),
    ("name", "name"),
    ("uuid", "uuid"),
    ("memory_mib", "memory.total"),
    ("memory_used_mib", "memory.used"),
    ("pci_bus_id", "pci.bus_id"),
    ("driver_version", "driver_version"),
    ("compute_capability", "compute_cap"),  # not before driver 510
)


def nvidia_smi(reason):
    # type: (str) -> Dict[str, Any]
    """The section out of `nvidia-smi --query-gpu`, for hosts on which the loader does not find the library."""
    program = which("nvidia-smi", ("/usr/bin", "/usr/lib/wsl/lib", "/opt/bin"))
    if program is None:
        return {"status": "no-library", "detail": reason}
    for fields in (SMI_FIELDS, SMI_FIELDS[:-1]):
        query = "--query-gpu=" + ",".join(field for _, field in fields)
        try:
            code, output, errors = run([program, query, "--format=csv,noheader,nounits"])
        except ProbeError as failure:
            return {"status": "error", "detail": str(failure), "via": "nvidia-smi"}
        if code == 0:
            gpus = [smi_gpu(line, fields) for line in output.splitlines() if line.count(",") >= len(fields) - 1]
            driver = gpus[0].pop("driver_version") if gpus else None
            for gpu in gpus[1:]:
                gpu.pop("driver_version")
            return {"status": "ok", "via": "nvidia-smi", "driver_version": driver, "gpus": gpus}
    said = " ".join((output + " " + errors).split())
    status = "error"
    if "communicate with the NVIDIA driver" in said:
        status = "driver-not-loaded"
    elif "version mismatch" in said:
        status = "library-mismatch"
    return {"status": status, "detail": said or reason, "via": "nvidia-smi"}


def smi_gpu(line, fields):
    # type: (str, Sequence[Tuple[str, str]]) -> Dict[str, Any]
    """A line of nvidia-smi's CSV as a GPU; "[N/A]" and the like are None."""
    gpu = {"name": "", "driver_version": None}  # type: Dict[str, Any]
    for (field, _), word in zip(fields, [word.strip() for word in line.split(",")]):
        if field == "compute_capability":
            match = re.match(r"(\d+)\.(\d+)$", word)
            gpu[field] = [int(match.group(1)), int(match.group(2))] if match else None
        elif field in ("index", "memory_mib", "memory_used_mib"):
            gpu[field] = number(word)
        else:
            gpu[field] = "" if word.startswith("[") else word
    return gpu


# ---------------------------------------------------------------------------------------------------------------------
# Driver, CUDA toolkit, compilers


@section("programs")
def fact_driver(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: /proc/driver/nvidia/version, `dkms status`, /usr/src, /lib/modules, /sys/module, /sys/bus/pci."""
    kernel = os.uname().release
    text = read_or(at("/proc/driver/nvidia/version"))
    dkms = which("dkms", SBIN)
    sources = [re.match(r"nvidia(?:-open)?-(\d[\w.]*)$", name) for name in entries(at("/usr/src"))]
    return {
        "loaded": bool(text),
        "version": driver_version(text),
        "kernel": kernel,
        "dkms_available": dkms is not None,
        "dkms": dkms_status(dkms) if dkms else [],
        "sources": unique(match.group(1) for match in sources if match),
        "module_files": module_files(kernel),
        "pci_gpus": pci_gpus(),
        "modules": [name for name in entries(at("/sys/module")) if name.startswith("nvidia") or name == "nouveau"],
        "open_module": "Open Kernel Module" in text if text else None,
        "library_version": nvml_library_version(),
        "fabric_manager_running": running("nv-fabricmanager") if nvswitches() else None,
    }


def nvml_library_version():
    # type: () -> Optional[str]
    """The driver's version in the name of the NVML that the loader finds: libnvidia-ml.so.1 points to .535.154.05."""
    found = [folder + "/libnvidia-ml.so.1" for folder in path_list("LD_LIBRARY_PATH")]
    found += loader_cache("libnvidia-ml.so.1") + [at(folder) + "/libnvidia-ml.so.1" for folder in SYSTEM_FOLDERS]
    real = next((os.path.realpath(path) for path in found if os.path.isfile(path)), "")
    match = re.search(r"\.so\.(\d+(?:\.\d+)+)$", real)
    return match.group(1) if match else None


def running(program):
    # type: (str) -> Optional[bool]
    """Whether a program runs on the host; None where other users' processes, or the host's own, are not seen."""
    if own_namespaces() or not os.path.exists(at("/proc/1/comm")):
        return None
    wanted = program[:15]  # the kernel keeps 15 letters
    return any(read_or(at("/proc/%s/comm" % name)) == wanted for name in entries(at("/proc")) if name.isdigit())


def nvswitches():
    # type: () -> List[str]
    """PCI addresses of NVSwitches: bridges of class 0x0680 of NVIDIA's. Source: /sys/bus/pci/devices."""
    base = at("/sys/bus/pci/devices/")
    return [
        name
        for name in entries(base)
        if read_or(base + name + "/vendor") == "0x10de" and read_or(base + name + "/class")[:6] == "0x0680"
    ]


def driver_version(text):
    # type: (str) -> Optional[str]
    """The version in /proc/driver/nvidia/version, of the proprietary and of the open kernel module."""
    match = re.search(r"Kernel Module(?:\s+for\s+\S+)?\s+(\d+(?:\.\d+)+)", text)
    return match.group(1) if match else None


def dkms_status(program):
    # type: (str) -> List[Dict[str, str]]
    """`dkms status` of the nvidia modules. Raises ProbeError when it does not end."""
    return parse_dkms(run([program, "status"])[1])


def parse_dkms(text):
    # type: (str) -> List[Dict[str, str]]
    """The nvidia lines of `dkms status`, as dkms 2 and dkms 3 print them.

    `nvidia, 535.154.05, 3.10.0-1160.el7.x86_64, x86_64: installed`, `nvidia/535.154.05, 5.15.0-91-generic, x86_64:
    installed`, and for a module that is not built yet `nvidia/535.154.05: added`.
    """
    found = []
    for line in text.splitlines():
        left, colon, status = line.rpartition(": ")
        words = re.split(r"\s*,\s*|/", left.strip())
        if not colon or len(words) < 2 or not words[0].startswith("nvidia"):
            continue
        found.append(
            {
                "module": words[0],
                "version": words[1],
                "kernel": words[2] if len(words) > 2 else "",
                "status": status.split()[0] if status.split() else "",
            }
        )
    return found


def module_files(kernel):
    # type: (str) -> List[str]
    """nvidia.ko, compressed or not, that modules.dep of the running kernel names or that lies in a usual folder."""
    base = at("/lib/modules/%s/" % kernel)
    named = re.findall(r"^(\S*/nvidia\.ko(?:\.\w+)?):", read_or(base + "modules.dep", limit=16 << 20), re.M)
    folders = (
        "updates/dkms",
        "updates",
        "extra",
        "extra/nvidia",
        "weak-updates/nvidia",
        "kernel/drivers/video",
        "misc",
    )
    usual = [
        "%s/%s" % (folder, name)
        for folder in folders
        for name in entries(base + folder)
        if re.match(r"nvidia\.ko(\.\w+)?$", name)
    ]
    return [base + name for name in unique(named + usual) if os.path.exists(base + name)]


def pci_gpus():
    # type: () -> List[str]
    """PCI addresses of NVIDIA's display (0x0300) and 3D (0x0302) controllers. Source: /sys/bus/pci/devices."""
    base = at("/sys/bus/pci/devices/")
    return [
        name
        for name in entries(base)
        if read_or(base + name + "/vendor") == "0x10de" and read_or(base + name + "/class")[:6] in ("0x0300", "0x0302")
    ]


PCI_ADDRESS = re.compile(r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$", re.I)
BUS_PARAMETERS = re.compile(r"^(?:(?:intel_|amd_)?iommu|pci|pcie_\w+|nvidia[\w-]*\.\w+|nouveau\.\w+)=|^\w*blacklist=")


@section("gpu")
def fact_pci(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: /sys/bus/pci/devices, /sys/kernel/iommu_groups, /proc/cmdline. ACS registers: root alone reads them."""
    base = at("/sys/bus/pci/devices/")
    cards, above = [], []  # type: List[Dict[str, Any]], List[str]
    for name in pci_gpus():
        folder = os.path.realpath(base + name)
        parts = [part for part in folder.split("/")[:-1] if PCI_ADDRESS.match(part)]
        above += parts
        cards.append(
            {
                "address": name,
                "driver": os.path.basename(link_target(folder + "/driver")),
                "link": pci_link(folder),
                "port": pci_link(os.path.dirname(folder)) if parts else pci_link(""),
                "bridges": parts,
                "iommu": read_or(folder + "/iommu_group/type") or None,
            }
        )
    begins = {card["bridges"][0] for card in cards if card["bridges"]}
    bridges = [pci_bridge(base, name, name in begins) for name in unique(above)]
    return {
        "gpus": cards,
        "bridges": [bridge for bridge, _ in bridges],
        "nvswitches": nvswitches(),
        "registers": bool(bridges) and all(whole for _, whole in bridges),
        "iommu_groups": len(entries(at("/sys/kernel/iommu_groups"))),
        "kernel_parameters": [word for word in read_or(at("/proc/cmdline")).split() if BUS_PARAMETERS.match(word)],
    }


def link_target(path):
    # type: (str) -> str
    """Where a symbolic link points, or nothing."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def pci_link(folder):
    # type: (str) -> Dict[str, Any]
    """Width and speed of the link of a PCI device, now and at most; "Unknown", 0 and 255 are None."""

    def width(text):
        # type: (str) -> Optional[int]
        value = number(text)
        return value if value and value < 255 else None

    def speed(text):
        # type: (str) -> Optional[float]
        match = re.match(r"(\d+(?:\.\d+)?) GT/s", text)
        return float(match.group(1)) if match else None

    return {
        "width": width(read_or(folder + "/current_link_width")),
        "width_max": width(read_or(folder + "/max_link_width")),
        "speed_gts": speed(read_or(folder + "/current_link_speed")),
        "speed_max_gts": speed(read_or(folder + "/max_link_speed")),
    }


def pci_bridge(base, name, root_port):
    # type: (str, str, bool) -> Tuple[Dict[str, Any], bool]
    """A bridge with its ACS control register, and whether its registers could be read beyond the first 64 bytes.

    The extended capabilities begin at 0x100, each with its number in the low 16 bits and the place of the next in the
    high 12; ACS is number 0x0d, its control register 6 bytes on. Source: PCI Express Base Specification, 7.6.3, 7.7.8.
    """
    try:
        raw = read(base + name + "/config", 4096).encode("utf-8", "surrogateescape")
    except (OSError, ValueError):
        raw = b""
    acs, place = None, 0x100
    for _ in range(64):
        if not 0x100 <= place <= len(raw) - 8:
            break
        (head,) = struct.unpack_from("<I", raw, place)
        if head & 0xFFFF == 0x0D:
            (acs,) = struct.unpack_from("<H", raw, place + 6)
            break
        place = head >> 20
    return {"address": name, "acs": acs, "root_port": root_port}, len(raw) > 0x100


XID = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d+)(?:, *(.*))?")
XID_PROCESS = re.compile(r"\b(?:pid|name)=(?:'[^']*'|<[^>]*>|[^,]*)(?:, *|$)")
KMSG_BYTES = 32 << 20
KMSG_RECORD = 8192  # PRINTKRB_RECORD_MAX: a shorter buffer is refused


@section("log")
def fact_kernel_log(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: /dev/kmsg, else the journal, else dmesg(1). Many hosts let only root read it; then `source` is empty."""
    problems = []
    for source, lines in (("/dev/kmsg", kmsg_lines), ("journalctl", journal_lines), ("dmesg", dmesg_lines)):
        try:
            found = lines()
        except (ProbeError, OSError) as failure:
            problems.append("%s: %s" % (source, failure.strerror if isinstance(failure, OSError) else failure))
            continue
        since = None if source == "journalctl" else age_of_first(found)  # of a journal only what matches was asked for
        return {"source": source, "detail": "", "xids": xids(found), "since_seconds": since}
    return {"source": "", "detail": "; ".join(problems), "xids": [], "since_seconds": None}


def uptime_seconds():
    # type: () -> Optional[float]
    """Seconds since the boot, or None. Source: /proc/uptime."""
    words = read_or(at("/proc/uptime")).split()
    return float(words[0]) if words else None


def age_of_first(lines):
    # type: (List[Tuple[float, str]]) -> Optional[float]
    """How many seconds ago the first of the messages came."""
    now = uptime_seconds()
    return None if now is None or not lines else round(max(0.0, now - lines[0][0]), 1)


def kmsg_lines():
    # type: () -> List[Tuple[float, str]]
    """The kernel's messages with their seconds since the boot; each read gives one, and the last would block.

    `PRIORITY,NUMBER,MICROSECONDS,FLAGS;TEXT`, and lines about the device that begin with a blank. Source:
    Documentation/ABI/testing/dev-kmsg.
    """
    handle = os.open(at("/dev/kmsg"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    records, size = [], 0
    try:
        while size < KMSG_BYTES:
            try:
                record = os.read(handle, KMSG_RECORD)
            except OSError as failure:
                if failure.errno == errno.EPIPE:
                    continue  # overwritten while it was read: the next one is there
                if failure.errno == errno.EAGAIN:
                    break
                raise
            if not record:
                break
            size += len(record)
            records.append(record)
    finally:
        os.close(handle)
    found = re.findall(r"^\d+,\d+,(\d+),[^;\n]*;(.*)$", b"".join(records).decode("utf-8", "replace"), re.M)
    if not found:
        raise ProbeError("no message is in it")
    return [(int(microseconds) / 1e6, text) for microseconds, text in found]


def journal_lines():
    # type: () -> List[Tuple[float, str]]
    """The kernel's messages of this boot in the journal. Raises ProbeError where this user is not shown any."""
    program = which("journalctl")
    if program is None:
        raise ProbeError("there is none")
    command = [program, "--dmesg", "--boot", "--quiet", "--no-pager", "--output=short-monotonic"]
    if not stamped(run(command + ["--lines=1"])[1]):
        raise ProbeError("it shows this user no kernel message")
    code, output, errors = run(command + ["--grep=NVRM: Xid"])  # status 1: nothing matches
    if code not in (0, 1) or (code == 1 and errors.strip()):
        raise ProbeError(" ".join(errors.split())[:200] or "status %d" % code)
    return stamped(output)


def dmesg_lines():
    # type: () -> List[Tuple[float, str]]
    """The kernel's messages as dmesg(1) prints them."""
    program = which("dmesg", ("/bin",) + SBIN)
    if program is None:
        raise ProbeError("there is none")
    code, output, errors = run([program])
    lines = stamped(output)
    if code or not lines:
        raise ProbeError(" ".join(errors.split())[:200] or "it printed nothing")
    return lines


def stamped(output):
    # type: (str) -> List[Tuple[float, str]]
    """Lines that begin with their seconds since the boot in brackets."""
    found = [re.match(r"(?:<\d+>)?\[\s*(\d+\.\d+)\] (.*)", line) for line in output.splitlines()]
    return [(float(match.group(1)), match.group(2)) for match in found if match]


def xids(lines):
    # type: (List[Tuple[float, str]]) -> List[Dict[str, Any]]
    """The errors of NVIDIA's driver among kernel messages, one entry a number and card, without the process."""
    now = uptime_seconds()
    found = {}  # type: Dict[Tuple[str, int], Dict[str, Any]]
    for when, line in lines:
        match = XID.search(line)
        if match is None:
            continue
        key = (match.group(1).lower(), int(match.group(2)))
        row = found.setdefault(key, {"address": key[0], "code": key[1], "count": 0})
        row["count"] += 1
        row["last_seconds_ago"] = None if now is None else round(max(0.0, now - when), 1)
        row["text"] = XID_PROCESS.sub("", match.group(3) or "")[:200].strip()
    return list(found.values())


@section("programs")
def fact_cuda(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: CUDA_HOME, CUDA_PATH, the PATH, /usr/local, in the order of torch's cpp_extension; `nvcc --version`."""
    on_path = which("nvcc")
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if not home:
        home = os.path.dirname(os.path.dirname(on_path)) if on_path else at("/usr/local/cuda")
        home = home if os.path.isdir(home) else None
    nvcc = home + "/bin/nvcc" if home and os.access(home + "/bin/nvcc", os.X_OK) else on_path
    usual = [at("/usr/local/") + name for name in entries(at("/usr/local")) if re.match(r"cuda(-\d+(\.\d+)?)?$", name)]
    folders = [home] if home else []
    folders += usual + [at("/opt/cuda"), sys.prefix, os.environ.get("CONDA_PREFIX", sys.prefix)]
    toolkits = {}  # type: Dict[str, Dict[str, Any]]
    for folder in folders:
        real = os.path.realpath(folder)
        version = toolkit_version(real)
        if version and real not in toolkits:
            toolkits[real] = {"path": folder, "version": version}
    return {
        "home": home,
        "nvcc": nvcc,
        "nvcc_version": nvcc_version(nvcc) if nvcc else None,
        "toolkits": list(toolkits.values()),
        "runtime_headers": toolkit_has(home, "include", "cuda_runtime.h") if home else None,
        "curand": toolkit_has(home, "include", "curand_kernel.h") and toolkit_has(home, "lib", "libcurand.so")
        if home
        else None,
    }


def toolkit_has(home, kind, name):
    # type: (str, str, str) -> bool
    """Whether a toolkit has a header or a library; conda keeps them in targets/x86_64-linux."""
    folders = ["/include"] if kind == "include" else ["/lib64", "/lib"]
    targets = [home + "/targets/" + target for target in entries(home + "/targets")]
    return any(os.path.isfile("%s%s/%s" % (base, folder, name)) for base in [home] + targets for folder in folders)


def nvcc_version(nvcc):
    # type: (str) -> Optional[str]
    """The "12.6" of `nvcc --version`; None when it does not run or does not say."""
    version = re.match(r"\d+\.\d+", program_version(version_text(nvcc)))
    return version.group(0) if version else None


def toolkit_version(folder):
    # type: (str) -> Optional[str]
    """A toolkit's version out of include/cuda.h (`#define CUDA_VERSION 12060`), version.json or version.txt."""
    match = re.search(r"^#define\s+CUDA_VERSION\s+(\d+)", read_or(folder + "/include/cuda.h", limit=1 << 17), re.M)
    if match:
        value = int(match.group(1))
        return "%d.%d" % (value // 1000, value % 1000 // 10)
    text = read_or(folder + "/version.json") or read_or(folder + "/version.txt")
    match = re.search(r'"nvcc"[^}]*"version"\s*:\s*"(\d+\.\d+)|CUDA Version (\d+\.\d+)', text, re.S)
    return (match.group(1) or match.group(2)) if match else None


@section("programs")
def fact_compilers(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: the PATH, CXX, `--version` of each program, sysconfig for Python.h, the C compiler for libaio."""
    import sysconfig

    include = sysconfig.get_path("include")
    name = ask.variables.get("CXX") or "c++"
    words = [word for word in name.split() if not word.startswith("-")] or ["c++"]
    compiler = next((word for word in words if re.search(r"\+\+|clang", word)), words[0])  # after ccache
    cxx = tool(compiler)
    library, header = libaio(ask)
    return {
        "tools": {name: tool(name) for name in ("gcc", "g++", "ninja", "make", "nvcc")},
        "python_headers": os.path.isfile(include + "/Python.h") if include else None,
        "cxx": cxx,
        "cxx_name": name,
        "cxx_clang": bool(cxx and re.search(r"\bclang\b", version_text(cxx["path"]))),
        "libaio": library,
        "libaio_header": header,
    }


def libaio(ask):
    # type: (Ask) -> Tuple[Optional[bool], Optional[bool]]
    """Whether the linker finds libaio.so and the compiler libaio.h; None where there is no C compiler to ask."""
    words = (ask.variables.get("CC") or "gcc").split()
    path = which(words[-1]) or which("gcc") or which("cc")
    if path is None:
        return None, None
    flags = [flag for name in ("CFLAGS", "CPPFLAGS") for flag in ask.variables.get(name, "").split()]
    folders = [flag[2:] for flag in ask.variables.get("LDFLAGS", "").split() if flag.startswith("-L")]
    try:
        found = run([path, "-print-file-name=libaio.so"])[1].strip()
        include = [flag for flag in flags if flag.startswith("-I")]
        status = run([path] + include + ["-E", "-x", "c", "-o", os.devnull, "-"], text="#include <libaio.h>\n")[0]
    except ProbeError:
        return None, None
    return os.path.isabs(found) or any(os.path.isfile(folder + "/libaio.so") for folder in folders), status == 0


def tool(name):
    # type: (str) -> Optional[Dict[str, str]]
    """A program on the PATH (or at a path) with its version; the version is empty when it does not run."""
    path = which(name) if "/" not in name else name if os.access(name, os.X_OK) and os.path.isfile(name) else None
    return {"path": path, "version": program_version(version_text(path))} if path else None


def version_text(path):
    # type: (str) -> str
    """What a program prints for `--version`, asked once; nothing when it does not run."""
    asked = MEMO.setdefault("versions", {})  # type: Dict[str, str]
    if path not in asked:
        try:
            asked[path] = run([path, "--version"])[1]
        except ProbeError:
            asked[path] = ""
    return asked[path]


def program_version(output):
    # type: (str) -> str
    """The version in a program's answer: nvcc's "release 12.6", else the first number with a point in the first line.

    What stands in brackets is the packager's: "gcc (Debian 12.2.0-14) 12.2.0".
    """
    first = re.sub(r"\([^)]*\)", " ", (output.splitlines() or [""])[0])
    match = re.search(r"release (\d+\.\d+)", output) or re.search(r"(?<![\w.])(\d+(?:\.\d+)+)", first)
    return match.group(1) if match else ""


# ---------------------------------------------------------------------------------------------------------------------
# Network


@section("network")
def fact_network(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: if_nameindex(3), /sys/class/net, `ip addr`, `ip route get`, getaddrinfo(3), /proc/net, /proc/sys/net."""
    resolves, errors = resolve(unique(ask.targets + [socket.gethostname()]), min(NAME_SECONDS, ask.left() / 2))
    found = addresses()
    ports = read_or(at("/proc/sys/net/ipv4/ip_local_port_range")).split()
    sockets = [read_or(at("/proc/net/" + name), limit=8 << 20) for name in ("tcp", "tcp6")]
    return {
        "interfaces": [interface(name, found.get(name, [])) for name in interface_names()],
        "default_device": default_device(),
        "resolves": resolves,
        "resolve_errors": errors,
        "routes": routes(ask.targets, resolves, errors),
        "port_range": [int(ports[0]), int(ports[1])] if len(ports) == 2 else None,
        "policy_rules": policy_rules(answer_of(which("ip", SBIN), "rule", "list")),
        "reserved_ports": read_or(at("/proc/sys/net/ipv4/ip_local_reserved_ports")),
        "listening": listening("\n".join(sockets)),
        "firewalls": firewalls(),
    }


def policy_rules(text):
    # type: (str) -> Optional[int]
    """The rules of `ip rule list` beyond those that every Linux has; None where it could not be asked."""
    rules = [line for line in text.splitlines() if re.match(r"\d+:", line)]
    usual = re.compile(r"\d+:\s+from all lookup (local|main|default)\s*$")
    return len([rule for rule in rules if not usual.match(rule)]) if rules else None


def firewalls():
    # type: () -> List[str]
    """The firewall programs that are switched on. Their rules only root may read."""
    ufw = re.search(r"^\s*ENABLED\s*=\s*[\"']?yes", read_or(at("/etc/ufw/ufw.conf")), re.M | re.I)
    return ["firewalld"] * bool(running("firewalld")) + ["ufw"] * bool(ufw and which("ufw", SBIN))


def interface_names():
    # type: () -> List[str]
    """The interfaces of this network namespace; /sys/class/net may show another's."""
    try:
        return [name for _, name in socket.if_nameindex()]
    except (OSError, AttributeError):
        return entries(at("/sys/class/net"))


def interface(name, held):
    # type: (str, List[Dict[str, Any]]) -> Dict[str, Any]
    """One interface with its addresses. Source: /sys/class/net/NAME."""
    base = at("/sys/class/net/%s/" % name)
    flags = int(read_or(base + "flags") or "0", 16)
    state, carrier = read_or(base + "operstate"), read_or(base + "carrier")  # carrier cannot be read while it is down
    speed = number(read_or(base + "speed"))
    return {
        "name": name,
        "up": bool(flags & 1) and (carrier == "1" if carrier else state in ("up", "unknown")),
        "state": state,
        "mtu": number(read_or(base + "mtu")),
        "speed_mbit": speed if speed and 0 < speed < 2**32 - 1 else None,  # unknown is -1, or 2**32 - 1
        "addresses": held,
        "virtual": "/devices/virtual/" in os.path.realpath(base),
        "loopback": bool(flags & 8),
        "mac": read_or(base + "address"),
        "kind": interface_kind(base),
        "master": os.path.basename(os.path.realpath(base + "master")) if os.path.islink(base + "master") else None,
        "duplex": read_or(base + "duplex").replace("unknown", "") or None,  # an error while it is down
        "rp_filter": reverse_path(name),
    }


def interface_kind(base):
    # type: (str) -> str
    """bridge, bond, vlan, wlan, wireguard ..., or tun; empty for an ordinary interface."""
    told = re.search(r"^DEVTYPE=(\S+)", read_or(base + "uevent"), re.M)
    if told:
        return told.group(1)
    return "tun" if os.path.exists(base + "tun_flags") else ""


def reverse_path(name):
    # type: (str) -> Optional[int]
    """The rp_filter in force on an interface: the larger of its own and that of `all` (ip-sysctl.rst)."""
    settings = [number(read_or(at("/proc/sys/net/ipv4/conf/%s/rp_filter" % of))) for of in ("all", name)]
    return max([setting for setting in settings if setting is not None], default=None)


def addresses():
    # type: () -> Dict[str, List[Dict[str, Any]]]
    """Every interface's addresses: `ip -o addr`, which every iproute2 prints alike, else the kernel asked directly."""
    program = which("ip", SBIN)
    if program is not None:
        try:
            code, output, _ = run([program, "-o", "addr", "show"])
            if code == 0:
                return parse_addresses(output)
        except ProbeError:
            pass  # the kernel can be asked without it
    return kernel_addresses()


def parse_addresses(text):
    # type: (str) -> Dict[str, List[Dict[str, Any]]]
    """The lines of `ip -o addr`: `4: eth0    inet 192.0.2.2/24 brd 192.0.2.255 scope global eth0 ...`."""
    found = {}  # type: Dict[str, List[Dict[str, Any]]]
    for line in text.splitlines():
        words = line.split()
        if len(words) < 4 or words[2] not in ("inet", "inet6"):
            continue
        address, _, prefix = words[3].partition("/")
        if words[4:5] == ["peer"]:
            prefix = words[5].partition("/")[2]  # point to point: `inet 10.8.0.6 peer 10.8.0.5/32`
        scope = words[words.index("scope") + 1] if "scope" in words[:-1] else ""
        whole = 32 if words[2] == "inet" else 128
        held = number(prefix)
        row = {"address": address, "prefix": whole if held is None else held, "family": words[2], "scope": scope}
        found.setdefault(words[1].partition("@")[0], []).append(row)
    return found


def kernel_addresses():
    # type: () -> Dict[str, List[Dict[str, Any]]]
    """The same by SIOCGIFCONF and SIOCGIFNETMASK (netdevice(7)) and /proc/net/if_inet6, for hosts without `ip`."""
    import array
    import fcntl

    found = {}  # type: Dict[str, List[Dict[str, Any]]]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        table = array.array("B", bytes(40 * 1024))
        try:
            request = struct.pack("iP", len(table), table.buffer_info()[0])
            size = struct.unpack("iP", fcntl.ioctl(channel.fileno(), 0x8912, request))[0]
            for offset in range(0, size, 40):  # struct ifreq: 16 bytes name, struct sockaddr
                entry = table[offset : offset + 40].tobytes()
                label = entry[:16].split(b"\0")[0]
                mask = fcntl.ioctl(channel.fileno(), 0x891B, entry)[20:24]
                address = socket.inet_ntoa(entry[20:24])
                scope = "host" if address.startswith("127.") else "global"
                prefix = bin(struct.unpack("!I", mask)[0]).count("1")
                row = {"address": address, "prefix": prefix, "family": "inet", "scope": scope}
                found.setdefault(os.fsdecode(label).partition(":")[0], []).append(row)
        except OSError:
            pass  # no IPv4
    scopes = {0x00: "global", 0x10: "host", 0x20: "link", 0x40: "site"}
    for line in read_or(at("/proc/net/if_inet6")).splitlines():
        words = line.split()
        if len(words) == 6:
            address = socket.inet_ntop(socket.AF_INET6, bytes(bytearray.fromhex(words[0])))
            scope = scopes.get(int(words[3], 16) & 0xF0, "")
            row = {"address": address, "prefix": int(words[2], 16), "family": "inet6", "scope": scope}
            found.setdefault(words[5], []).append(row)
    return found


def default_device():
    # type: () -> Optional[str]
    """The interface of the default route with the lowest metric. Source: /proc/net/route, /proc/net/ipv6_route."""
    ways = []  # type: List[Tuple[int, str]]
    for line in read_or(at("/proc/net/route")).splitlines()[1:]:
        words = line.split()
        if len(words) >= 8 and words[1] == "00000000" and words[7] == "00000000" and int(words[3], 16) & 1:
            ways.append((int(words[6]), words[0]))
    if not ways:
        for line in read_or(at("/proc/net/ipv6_route")).splitlines():
            words = line.split()
            if len(words) == 10 and words[0] == "0" * 32 and words[1] == "00" and words[9] != "lo":
                ways.append((int(words[5], 16), words[9]))
    return min(ways)[1] if ways else None


def resolve(names, seconds):
    # type: (List[str], float) -> Tuple[Dict[str, List[str]], Dict[str, str]]
    """Addresses by name in the resolver's order, and why a name has none; names are asked side by side."""
    found = {}  # type: Dict[str, List[str]]
    errors = {}  # type: Dict[str, str]

    def ask(name):
        # type: (str) -> None
        try:
            rows = socket.getaddrinfo(name, None, socket.AF_UNSPEC, socket.SOCK_STREAM)
            found[name] = unique(str(row[4][0]) for row in rows)
        except (OSError, UnicodeError) as failure:
            errors[name] = str(getattr(failure, "strerror", None) or failure)

    waiting = list(reversed(names))

    def work():
        # type: () -> None
        while waiting:
            try:
                ask(waiting.pop())
            except IndexError:
                return  # another thread took the last one

    threads = [start_thread(work) for _ in names[:PARALLEL_NAMES]]
    deadline = time.monotonic() + seconds
    for thread in threads:
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
    known, failed = dict(found), dict(errors)  # a late answer changes nothing any more
    for name in names:
        if name not in known:
            failed.setdefault(name, "no answer within %.1f seconds" % seconds)
    return {name: known.get(name, []) for name in names}, failed


def start_thread(function):
    # type: (Callable[[], None]) -> Any
    """Start a thread that may hang and is then left behind; where no thread can be had, call the function here."""
    import threading

    thread = threading.Thread(target=function)
    thread.daemon = True
    try:
        thread.start()
    except RuntimeError:  # the user's limit on processes
        function()
        return None
    return thread


def routes(targets, resolves, errors):
    # type: (List[str], Dict[str, List[str]], Dict[str, str]) -> List[Dict[str, Any]]
    """The way to each target, by its first IPv4 address or else its first. Source: `ip route get`."""
    chosen = {}  # type: Dict[str, str]
    for target in targets:
        known = [address.partition("%")[0] for address in resolves.get(target, [])]
        chosen[target] = next((address for address in known if ":" not in address), known[0] if known else "")
    wanted = unique(address for address in chosen.values() if address)
    ways = {}  # type: Dict[str, Dict[str, Any]]
    for begin in range(0, len(wanted), BATCH):
        ways.update(ip_routes(wanted[begin : begin + BATCH]))
    found = []
    for target in targets:
        address = chosen[target]
        if address:
            way = ways.get(address) or connected_route(address)
        else:
            way = {"error": errors.get(target, "the name has no address")}
        found.append(dict(way, target=target, address=address))
    return found


def ip_routes(wanted):
    # type: (List[str]) -> Dict[str, Dict[str, Any]]
    """`ip route get` of all addresses in one run; an address missing from the answer could not be asked."""
    program = which("ip", SBIN)
    if program is None:
        return {}
    batch = "".join("route get %s\n" % address for address in wanted)
    try:
        _, output, errors = run([program, "-o", "-force", "-batch", "-"], text=batch)
    except ProbeError:
        return {}
    return parse_routes(wanted, output, errors)


def parse_routes(wanted, output, errors):
    # type: (List[str], str, str) -> Dict[str, Dict[str, Any]]
    """The routes in `ip -o route get` lines, and the refusals: `RTNETLINK answers: ... ` then `Command failed -:LINE`.

    A line is `[local|unreachable|...] ADDRESS [from ADDRESS] [via [inet6] ADDRESS] dev NAME [src ADDRESS] ...`.
    """
    found = {}  # type: Dict[str, Dict[str, Any]]
    kinds = ("local", "broadcast", "multicast", "anycast", "unicast", "unreachable", "prohibit", "blackhole", "throw")
    for line in output.splitlines():
        words = line.split("\\")[0].split()
        kind = words.pop(0) if words and words[0] in kinds else "unicast"
        if not words:
            continue
        after = dict(zip(words, words[1:]))
        via = after.get("via")
        if via == "inet6":
            via = after.get("inet6")
        way = {"device": after.get("dev"), "source": after.get("src"), "via": via, "local": kind == "local"}
        if kind in kinds[5:]:
            way["error"] = "the route is of type %s" % kind
        found[words[0]] = way
    reason = ""
    for line in errors.splitlines():
        failed = re.match(r"Command failed -:(\d+)", line)
        if failed is None:
            reason = line.partition("answers: ")[2] or reason
        elif reason and 0 < int(failed.group(1)) <= len(wanted):
            found[wanted[int(failed.group(1)) - 1]] = {"error": reason}
            reason = ""
    return found


def connected_route(address):
    # type: (str) -> Dict[str, Any]
    """The way as a datagram socket's connect(2) shows it, for hosts without `ip`: no packet is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as channel:
            channel.connect((address, 9))
            source = str(channel.getsockname()[0])
    except OSError as failure:
        return {"error": failure.strerror or str(failure)}
    owners = [name for name, held in kernel_addresses().items() if any(row["address"] == source for row in held)]
    return {"device": owners[0] if owners else None, "source": source, "local": source == address}


def listening(text):
    # type: (str) -> List[int]
    """The ports in state LISTEN (0A) of /proc/net/tcp and tcp6."""
    ports = set()
    for line in text.splitlines():
        words = line.split()
        if len(words) > 3 and words[3] == "0A":
            ports.add(int(words[1].rpartition(":")[2], 16))
    return sorted(ports)


# ---------------------------------------------------------------------------------------------------------------------
# Disks and shared memory


def mounts():
    # type: () -> List[Tuple[str, str, str]]
    """Mount point, file system type and source of every mount. Source: /proc/self/mountinfo, proc(5)."""
    found = []
    for line in read_or(at("/proc/self/mountinfo"), limit=8 << 20).splitlines():
        left, _, right = line.partition(" - ")
        words, rest = left.split(" "), right.split(" ")
        if len(words) > 4 and len(rest) > 1:
            found.append((unescaped(words[4]), rest[0], unescaped(rest[1])))
    return found


def unescaped(word):
    # type: (str) -> str
    """A word of mountinfo without its octal escapes, by which blanks and the like are written."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), word)


def mount_of(path, table):
    # type: (str, List[Tuple[str, str, str]]) -> Tuple[str, str, str]
    """The mount that holds a path, the last one where several lie over each other."""
    best = ("", "", "")
    for row in table:
        inside = path == row[0] or path.startswith(row[0].rstrip("/") + "/")
        if inside and len(row[0]) >= len(best[0]):
            best = row
    return best


@section("quick")
def fact_shm(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: statvfs(3) of /dev/shm."""
    path = at("/dev/shm")
    if not os.path.isdir(path):
        raise ProbeError("there is no /dev/shm")
    sizes = os.statvfs(path)
    return {
        "total_bytes": sizes.f_blocks * sizes.f_frsize,
        "free_bytes": sizes.f_bavail * sizes.f_frsize,
        "writable": os.access(path, os.W_OK | os.X_OK),
        "filesystem": mount_of(os.path.realpath(path), mounts())[1],
    }


@section("disk")
def fact_disk(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: statvfs(3) and access(2) of home, the temporary folder, the caches and the paths asked about."""
    table = mounts()
    roles = {}  # type: Dict[str, List[str]]
    for role, path in writing_places(ask) + [("", path) for path in ask.paths] + ask.places:
        roles.setdefault(path, []).append(role)
    rows = {}  # type: Dict[str, Dict[str, Any]]
    waited = {}  # type: Dict[str, Any]  # by mount, the thread that has no answer yet
    left = []  # type: List[Tuple[str, str]]

    def measure(path):
        # type: (str) -> None
        rows[path] = measured(path, table)

    for path in roles:
        mount = mount_of(os.path.abspath(os.path.expanduser(path)), table)[0]
        if mount not in waited:
            thread = start_thread(functools.partial(measure, path))
            if thread is None:
                continue
            thread.join(max(0.1, min(PATH_SECONDS, ask.left() / 2)))
            if not thread.is_alive():
                continue
            waited[mount] = thread
        left.append((mount, path))
    until = time.monotonic() + min(MOUNT_SECONDS - PATH_SECONDS, ask.left() / 4)
    for mount, path in left:
        waited[mount].join(max(0.0, until - time.monotonic()))
        if waited[mount].is_alive():
            reason = "no answer within %.0f seconds: the mount %s hangs" % (MOUNT_SECONDS, mount)
            rows[path] = dict(unmeasured(path, reason), mount=mount)
        elif path not in rows:
            measure(path)
    found = dict(rows)  # a late answer changes nothing any more
    return {"paths": [dict(found[path], roles=[role for role in unique(held) if role]) for path, held in roles.items()]}


def writing_places(ask):
    # type: (Ask) -> List[Tuple[str, str]]
    """Where every job writes: home, temporary files, the caches of Hugging Face, torch's extensions and Triton."""
    cache = ask.variables.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    places = [
        ("home", home_folder()),
        ("temporary files", ask.variables.get("TMPDIR") or "/tmp"),
        ("hub cache", ask.variables.get("HF_HOME") or os.path.join(cache, "huggingface")),
        ("extension cache", extension_cache(ask)),
    ]
    named = (
        ("hub cache", "HF_HUB_CACHE"),
        ("datasets cache", "HF_DATASETS_CACHE"),
        ("Triton cache", "TRITON_CACHE_DIR"),
    )
    return places + [(role, ask.variables[name]) for role, name in named if ask.variables.get(name)]


def measured(path, table):
    # type: (str, List[Tuple[str, str, str]]) -> Dict[str, Any]
    """One path's figures, or why there are none."""
    try:
        return disk_path(path, table)
    except (OSError, ValueError) as failure:
        return unmeasured(path, getattr(failure, "strerror", None) or str(failure))


def unmeasured(path, reason):
    # type: (str, str) -> Dict[str, Any]
    """A path whose file system gave no figures."""
    return {"path": path, "exists": False, "total_bytes": 0, "free_bytes": 0, "error": reason}


def disk_path(path, table):
    # type: (str, List[Tuple[str, str, str]]) -> Dict[str, Any]
    """One path's file system: its own, or that of the nearest parent that exists. Raises OSError."""
    absolute = os.path.abspath(os.path.expanduser(path))
    nearest = absolute
    while not os.path.exists(nearest) and nearest != os.path.dirname(nearest):
        nearest = os.path.dirname(nearest)
    sizes = os.statvfs(nearest)
    mount, filesystem, source = mount_of(os.path.realpath(nearest), table)
    return {
        "path": path,
        "mount": mount,
        "exists": nearest == absolute,
        "total_bytes": sizes.f_blocks * sizes.f_frsize,
        "free_bytes": sizes.f_bavail * sizes.f_frsize,
        "inodes_free": sizes.f_favail if sizes.f_files else None,  # btrfs and others do not count them
        "writable": os.access(nearest, os.W_OK | (os.X_OK if os.path.isdir(nearest) else 0)),
        "filesystem": filesystem,
        "source": source,
    }


# ---------------------------------------------------------------------------------------------------------------------
# The cache of extensions, and the session


def extension_cache(ask):
    # type: (Ask) -> str
    """Where torch builds extensions. Source: _get_build_directory of torch/utils/cpp_extension.py."""
    cache = ask.variables.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return ask.variables.get("TORCH_EXTENSIONS_DIR") or os.path.join(cache, "torch_extensions")


CACHE_ENTRIES = 500  # of a folder in the cache of extensions


@section("cache")
def fact_extensions(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: the folders that torch.utils.cpp_extension builds in, their `lock` and build.ninja; /proc/PID/fd."""
    folder = os.path.abspath(os.path.expanduser(extension_cache(ask)))
    _, filesystem, source = mount_of(os.path.realpath(folder), mounts())
    torch = package_folder("torch")
    values = constants(read_or(torch + "/version.py")) if torch else {}
    shared = not ask.variables.get("TORCH_EXTENSIONS_DIR")
    return {
        "folder": folder,
        "exists": os.path.isdir(folder),
        "filesystem": filesystem,
        "source": source,
        "environment": extension_environment(values) if torch and shared else None,
        "lock_kind": lock_kind(torch) if torch else None,
        "builds": extension_builds(folder),
    }


def extension_environment(values):
    # type: (Dict[str, Any]) -> str
    """The folder that this Python and the torch with these versions use: py311_cu128."""
    kind = "cpu"
    for name, prefix in (("cuda", "cu"), ("hip", "rocm")):
        if values.get(name):
            kind = prefix + str(values[name]).replace(".", "")
    return "py%d%d%s_%s" % (sys.version_info[0], sys.version_info[1], getattr(sys, "abiflags", ""), kind)


def lock_kind(torch):
    # type: (str) -> Optional[str]
    """How a torch guards a build: by a file's being there (FileBaton), or by a lock of the kernel's (since 2.14)."""
    text = read_or(torch + "/utils/cpp_extension.py")
    return "file" if "FileBaton(" in text else "flock" if "FileLock(" in text else None


def extension_builds(folder):
    # type: (str) -> List[Dict[str, Any]]
    """The builds in a cache, each in a folder of its own or one below that of a Python."""
    found = []  # type: List[Dict[str, Any]]
    for name in entries(folder)[:CACHE_ENTRIES]:
        path = os.path.join(folder, name)
        names = entries(path)[:CACHE_ENTRIES]
        if is_build(names):
            found.append(extension_build(name, path, names))
            continue
        for inner in names:
            inside = entries(os.path.join(path, inner))[:CACHE_ENTRIES]
            if is_build(inside):
                found.append(extension_build(name + "/" + inner, os.path.join(path, inner), inside))
    return found[:CACHE_ENTRIES]


def is_build(names):
    # type: (List[str]) -> bool
    """Whether a folder of these names is one that an extension is built in."""
    return any(name in ("lock", "build.ninja") or name.endswith(".so") for name in names)


def extension_build(name, path, names):
    # type: (str, str, List[str]) -> Dict[str, Any]
    """One build. The file `lock` is made when a build begins and never written again, so its age is the build's."""
    recipe = read_or(path + "/build.ninja")
    row = {
        "name": name,
        "path": path,
        "built": any(each.endswith(".so") for each in names),
        "native": "-march=native" in recipe or "-mcpu=native" in recipe,
    }  # type: Dict[str, Any]
    try:
        age = time.time() - os.lstat(path + "/lock").st_mtime
    except OSError:
        return row
    return dict(row, lock_age_seconds=round(max(0.0, age), 1), lock_holders=holders(path + "/lock"))


def holders(path):
    # type: (str) -> List[int]
    """The processes that have a file open, as far as this user may see; FileBaton keeps its lock open."""
    real = os.path.realpath(path)
    found = []
    for pid in (number(name) for name in entries("/proc")):
        folder = "/proc/%s/fd/" % pid
        for name in entries(folder) if pid else ():
            try:
                if os.readlink(folder + name) == real:
                    found.append(pid)
                    break
            except OSError:
                continue  # closed meanwhile
    return [pid for pid in found if pid is not None]


@section("quick")
def fact_session(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: the password database, /proc of this process and those above it, systemd-logind's files."""
    import pwd

    try:
        shell = pwd.getpwuid(os.getuid()).pw_shell
    except KeyError:
        shell = ""
    scope = re.search(r"/session-(\w+)\.scope|/(user@\d+)\.service", read_or(at("/proc/self/cgroup")))
    return {
        "shell": shell,
        "shell_seconds": shell_seconds(os.environ.get("DSDOCTOR_SHELL_AT", "")),
        "printed": "",  # the probe cannot see these two; who started it fills them in
        "setup": [],
        "logind": os.path.isdir(at("/run/systemd/sessions")),
        "login_session": scope.group(1) or scope.group(2) if scope else None,
        "remove_ipc": logind_setting("RemoveIPC", True),
        "kill_user_processes": logind_setting("KillUserProcesses", None),
        "lingers": os.path.exists(at("/var/lib/systemd/linger/" + user_name(os.getuid()))),
    }


def shell_seconds(ready):
    # type: (str) -> Optional[float]
    """What the login shell took. `ready` is the uptime when it had come to the command, as /proc/uptime has it.

    The login shell is the process right below sshd; commands replace it or run below it, and its start stays.
    """
    try:
        until = float(ready)
    except ValueError:
        return None
    pid = os.getpid()
    for _ in range(64):
        words = read_or(at("/proc/%d/stat" % pid)).rpartition(")")[2].split()
        if len(words) < 20:
            return None  # another user's processes may be hidden
        parent = int(words[1])
        if read_or(at("/proc/%d/comm" % parent)).startswith(("sshd", "dropbear")):
            took = until - int(words[19]) / float(os.sysconf("SC_CLK_TCK"))
            return round(took, 2) if 0 <= took < 600 else None  # a container's uptime may be one of its own
        pid = parent
    return None


def logind_setting(name, default):
    # type: (str, Optional[bool]) -> Optional[bool]
    """A yes-or-no setting of systemd-logind, without any the compiled-in one as the shipped file's comment names it.

    Source: logind.conf(5): one main file, the first of four folders that has it, then the drop-ins of all folders in
    the order of their names, where a file hides others of its name in later folders.
    """
    folders = [at(place) for place in ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")]
    folders.append(at("/lib/systemd"))
    main = next((text for text in (read_or(folder + "/logind.conf") for folder in folders) if text), "")
    drop_ins = {}  # type: Dict[str, str]
    for folder in folders:
        for each in entries(folder + "/logind.conf.d"):
            if each.endswith(".conf"):
                drop_ins.setdefault(each, folder + "/logind.conf.d/" + each)
    texts = [main] + [read_or(drop_ins[each]) for each in sorted(drop_ins)]
    pattern = r"^[ \t]*%s[ \t]*%s[ \t]*=[ \t]*(\w+)"
    words = re.findall(pattern % ("", name), "\n".join(texts), re.M)
    words = words or re.findall(pattern % ("#", name), main, re.M)
    return words[-1].lower() in ("yes", "true", "on", "1", "y", "t") if words else default


# ---------------------------------------------------------------------------------------------------------------------
# The paths that the job names

INPUT_SECONDS = 6.0  # for all of them
INPUT_PATIENCE = 2.5  # beyond its share of these, for one that does not answer
WALK_ENTRIES = 50000  # of one folder with everything below it
READ_FILES = 500  # small files whose content is compared
READ_BYTES = 8 << 20  # of these together
SMALL_BYTES = 64 << 10
SHOWN_ENTRIES = 200
SHOWN_NAMES = 20
POINTER = b"version https://git-lfs.github.com/spec/"
# What programs leave behind in folders of data: caches, locks, version control. It differs without harm.
PASSING = re.compile(
    r"^(\.git|\.cache|\.huggingface|__pycache__|\.DS_Store|\._.*|cache-.*\.arrow|.*\.lock|.*\.incomplete)$"
)


@section("inputs")
def fact_inputs(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: stat(2), access(2) and readdir(3) of the job's paths, small files, the headers and ends of weights."""
    table = mounts()
    begun = time.monotonic()
    until, latest = begun + min(INPUT_SECONDS, ask.timeout * 0.3), begun + min(9.0, ask.timeout * 0.45)
    hanging = set()  # type: Set[str]
    rows = []
    for index, order in enumerate(ask.inputs):
        place = os.path.abspath(os.path.expanduser(str(order.get("at") or order.get("path"))))
        row = {"path": str(order.get("path")), "role": str(order.get("role")), "at": place, "kind": "unknown"}
        mount = mount_of(place, table)[0]
        share = max(0.2, (until - time.monotonic()) / (len(ask.inputs) - index))
        found = {}  # type: Dict[str, Any]
        if mount in hanging:
            found["error"] = "the mount %s hangs" % mount
        elif until <= time.monotonic():
            found["error"] = "no time was left for it"
        else:
            thread = start_thread(functools.partial(look_at, place, row["role"], time.monotonic() + share, found))
            patience = min(share + INPUT_PATIENCE, latest - time.monotonic())
            if thread is not None:
                thread.join(max(0.1, patience))
                if thread.is_alive():
                    hanging.add(mount)
                    found = {"error": "no answer within %.1f seconds: the mount %s hangs" % (patience, mount)}
        rows.append(dict(row, **found))
    return {"paths": rows}


def look_at(place, role, until, found):
    # type: (str, str, float, Dict[str, Any]) -> None
    """Everything about one path; what goes wrong is its error."""
    try:
        found.update(input_path(place, role, until))
    except (OSError, ValueError) as failure:
        found.update(kind="unknown", error=getattr(failure, "strerror", None) or str(failure))


def input_path(place, role, until):
    # type: (str, str, float) -> Dict[str, Any]
    """One path. Raises OSError for what is neither there nor missing."""
    blocked, nearest = way_to(place)
    row = {"nearest": nearest, "blocked": blocked}  # type: Dict[str, Any]
    if blocked is not None:
        return dict(row, kind="unknown", error="the folder %s may not be entered" % blocked)
    try:
        mode = os.stat(place).st_mode
    except OSError as failure:
        if failure.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return dict(row, kind="missing", writable=os.access(nearest, os.W_OK | os.X_OK))
    folder = stat.S_ISDIR(mode)
    row["kind"] = "folder" if folder else "file" if stat.S_ISREG(mode) else "other"
    row["readable"] = os.access(place, os.R_OK | os.X_OK if folder else os.R_OK)
    row["writable"] = os.access(place, os.W_OK | os.X_OK if folder else os.W_OK)
    if not row["readable"] or row["kind"] == "other":
        return row
    if role == "output":
        return dict(row, **leftovers(place) if folder else {})
    if role in ("data", "model"):
        walk = Walk(place, until)
        row.update(walk.folder() if folder else walk.single())
    if role == "model" and folder:
        row["model"] = model_files(place, until)
    return row


def way_to(place):
    # type: (str) -> Tuple[Optional[str], str]
    """The folder on the way to a path that may not be entered, or None, and the deepest part of it that is there."""
    nearest = "/"
    way = [place]
    while way[-1] != os.path.dirname(way[-1]):
        way.append(os.path.dirname(way[-1]))
    for folder in reversed(way[1:]):
        if not os.path.isdir(folder):
            return None, nearest
        nearest = folder
        if not os.access(folder, os.X_OK):
            return folder, nearest
    return None, place if os.path.lexists(place) else nearest


class Walk(object):
    """What lies below a path: names, sizes, the content of small files, and what this user may not read."""

    def __init__(self, place, until):
        # type: (str, float) -> None
        self.place = place
        self.until = until
        self.complete = True
        self.sizes = {}  # type: Dict[str, int]
        self.unreadable = []  # type: List[str]
        self.pointers = []  # type: List[str]

    def folder(self):
        # type: () -> Dict[str, Any]
        """The fields for a folder."""
        status = os.stat(self.place)
        waiting, seen, left = [""], {(status.st_dev, status.st_ino)}, WALK_ENTRIES
        while waiting and self.complete:
            inside = waiting.pop()
            try:
                with os.scandir(os.path.join(self.place, inside)) as listed:
                    found = list(itertools.islice(listed, left + 1))
            except OSError:
                self.unreadable.append(inside or ".")
                continue
            left -= len(found)
            self.complete = left >= 0
            # In the order of their names: of two links to one folder the first is followed, on every host the same.
            for entry in sorted(found, key=lambda entry: entry.name):
                if time.monotonic() > self.until:
                    self.complete = False
                    break
                if not PASSING.match(entry.name):
                    self.take(entry, os.path.join(inside, entry.name), waiting, seen)
        return self.described()

    def take(self, entry, name, waiting, seen):
        # type: (Any, str, List[str], Set[Tuple[int, int]]) -> None
        """One entry of a folder. Links are followed; a folder that was seen already, over a link, is not again."""
        try:
            status = entry.stat()
        except OSError:
            self.unreadable.append(name)  # a link into the void, or its folder lacks the x bit
            return
        if stat.S_ISDIR(status.st_mode):
            key = (status.st_dev, status.st_ino)
            if key not in seen:
                seen.add(key)
                waiting.append(name)
                if not os.access(os.path.join(self.place, name), os.R_OK | os.X_OK):
                    self.unreadable.append(name)
                    waiting.pop()
        elif stat.S_ISREG(status.st_mode):
            self.sizes[name] = status.st_size

    def single(self):
        # type: () -> Dict[str, Any]
        """The fields for a file."""
        self.sizes[""] = os.stat(self.place).st_size
        return self.described()

    def described(self):
        # type: () -> Dict[str, Any]
        """The fields out of what was found, in an order that is the same on every host."""
        import hashlib

        contents = self.contents()
        groups = {}  # type: Dict[str, List[str]]
        for name in sorted(self.sizes):
            line = "%s\0%d\0%s" % (name, self.sizes[name], contents.get(name, ""))
            groups.setdefault(name.partition("/")[0], []).append(line)

        def digest(lines):
            # type: (Iterable[str]) -> str
            return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]

        def total(lines):
            # type: (List[str]) -> int
            return sum(self.sizes[line.partition("\0")[0]] for line in lines)

        top = [
            {
                "name": name,
                "files": len(groups[name]),
                "total_bytes": total(groups[name]),
                "digest": digest(groups[name]),
            }
            for name in sorted(groups)[:SHOWN_ENTRIES]
            if name
        ]
        unreadable = sorted(set(self.unreadable))
        return {
            "files": len(self.sizes),
            "total_bytes": sum(self.sizes.values()),
            "complete": self.complete,
            "digest": digest(line for name in sorted(groups) for line in groups[name]) if self.complete else "",
            "entries": top if self.complete else [],
            "unreadable": unreadable[:SHOWN_NAMES],
            "unreadable_count": len(unreadable),
            "pointers": self.pointers[:SHOWN_NAMES],
        }

    def contents(self):
        # type: () -> Dict[str, str]
        """Digests of the small files, the first by name as far as the limits go; finds the Git-LFS pointers."""
        import hashlib

        digests = {}  # type: Dict[str, str]
        left = READ_BYTES
        for name in sorted(name for name, size in self.sizes.items() if size <= SMALL_BYTES)[:READ_FILES]:
            left -= self.sizes[name]
            if left < 0 or time.monotonic() > self.until:
                self.complete = self.complete and left < 0  # out of time: hosts would be told apart by their pace
                break
            path = os.path.join(self.place, name) if name else self.place
            try:
                text = read(path, SMALL_BYTES).encode("utf-8", "surrogateescape")
            except OSError:
                self.unreadable.append(name or ".")
                continue
            digests[name] = hashlib.sha256(text).hexdigest()[:16]
            if text.startswith(POINTER):
                self.pointers.append(name or os.path.basename(self.place))
        return digests


LEFTOVERS = re.compile(
    r"^(checkpoint-\d+|global_step\d+|step_\d+|epoch_\d+|latest|adapter|rep_mats\.pkl|trainer_state\.json|"
    r"adapter_model\.(bin|safetensors)|pytorch_model.*\.bin|model.*\.safetensors|.*\.ckpt)$"
)


def leftovers(folder):
    # type: (str) -> Dict[str, Any]
    """What an earlier run left in an output folder that a later one may go on from, or mix with its own."""
    names = entries(folder)
    found = [name for name in names if LEFTOVERS.match(name)]
    times = []
    for name in found[:1000]:
        try:
            times.append(os.stat(os.path.join(folder, name)).st_mtime)
        except OSError:
            continue  # gone meanwhile
    return {"files": len(names), "checkpoints": found[:SHOWN_ENTRIES], "newest": max(times) if times else None}


# In the order in which transformers looks for them (modeling_utils.py, from_pretrained).
WEIGHTS = (
    ("safetensors", "model.safetensors"),
    ("safetensors", "model.safetensors.index.json"),
    ("bin", "pytorch_model.bin"),
    ("bin", "pytorch_model.bin.index.json"),
    ("safetensors", "adapter_model.safetensors"),
    ("bin", "adapter_model.bin"),
)
TOKENIZER = re.compile(
    r"^(tokenizer\.json|tokenizer\.model|spiece\.model|sentencepiece\.bpe\.model|vocab\.(json|txt|bpe)|merges\.txt|"
    r"tokenizer_config\.json|.*\.tiktoken|tekken\.json)$"
)


def model_files(folder, until):
    # type: (str, float) -> Dict[str, Any]
    """A model's folder: its config, its tokenizer, its weights and what is missing of them."""
    names = entries(folder)
    broken = []  # type: List[str]
    config = json_file(folder, "config.json", names, broken)
    tokenizer = json_file(folder, "tokenizer_config.json", names, broken)
    kind, first = next(((kind, name) for kind, name in WEIGHTS if name in names), ("", ""))
    wanted = [first] if first else []
    if first.endswith(".index.json"):
        shards = json_file(folder, first, names, broken).get("weight_map")
        values = shards.values() if isinstance(shards, dict) else []
        wanted = sorted({value for value in values if isinstance(value, str)})
    elif not first:
        wanted = [name for name in names if name.endswith(".gguf")]
        kind = "gguf" if wanted else ""
    sizes = {}  # type: Dict[str, int]
    for name in wanted:
        try:
            status = os.stat(os.path.join(folder, name))
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(status.st_mode):
            sizes[name] = status.st_size
    whole = {"safetensors": whole_safetensors, "bin": whole_archive}.get(kind)
    cut_off = []
    for name, size in sizes.items():
        if whole and time.monotonic() < until and not whole(os.path.join(folder, name), size):
            cut_off.append(name)
    dtype = config.get("dtype") or config.get("torch_dtype")
    return {
        "model_type": text_of(config.get("model_type")),
        "dtype": text_of(dtype),
        "tokenizer_class": text_of(tokenizer.get("tokenizer_class")),
        "tokenizer_files": [name for name in names if TOKENIZER.match(name)],
        "weights": kind,
        "weights_bytes": sum(sizes.values()),
        "largest_bytes": max(sizes.values()) if sizes else 0,
        "shards": len(wanted),
        "missing": [name for name in wanted if name not in sizes][:SHOWN_ENTRIES],
        "cut_off": cut_off[:SHOWN_ENTRIES],
        "broken": broken,
        "adapter": "adapter_config.json" in names,
    }


def text_of(value):
    # type: (Any) -> Optional[str]
    """A text, or None for anything else."""
    return value if isinstance(value, str) else None


def json_file(folder, name, names, broken):
    # type: (str, str, List[str], List[str]) -> Dict[str, Any]
    """The object in a JSON file; a file that is there and holds none is noted as broken."""
    if name not in names:
        return {}
    try:
        value = json.loads(read(os.path.join(folder, name), 64 << 20))
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        broken.append(name)
        return {}
    return value


def whole_safetensors(path, size):
    # type: (str, int) -> bool
    """Whether a safetensors file is as long as its header says; true where it cannot be told.

    Eight bytes with the header's length, the header (JSON) with every tensor's data_offsets, the data. Source: the
    format's description in the repository huggingface/safetensors, README.md.
    """
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, 100 << 20):
                return False
            header = json.loads(file.read(length).decode("utf-8"))
        ends = [value["data_offsets"][1] for name, value in header.items() if name != "__metadata__"]
        return bool(size >= 8 + length + max(ends + [0]))
    except OSError:
        return True  # said elsewhere
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return False


def whole_archive(path, size):
    # type: (str, int) -> bool
    """Whether a file that begins as a zip archive, as torch.save writes since 1.6, also ends as one."""
    try:
        with open(path, "rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return size > 0  # the older format has no end that could be told
            file.seek(max(0, size - (64 << 10)))
            return b"PK\x05\x06" in file.read()
    except OSError:
        return True  # said elsewhere


# ---------------------------------------------------------------------------------------------------------------------
# Environment

# Beginnings of the names that matter to training; a name may also be given whole. The last pattern catches the usual
# slips in "NCCL_".
RELEVANT = re.compile(
    r"^(NCCL|TORCH|GLOO|CUDA|NVIDIA_|OMP_|MKL_|KMP_|GOMP_|OPENBLAS_|NUMEXPR_|PYTORCH|PYTHON|DS_|DEEPSPEED|HF_|"
    r"HUGGING|TRANSFORMERS|ACCELERATE|FSDP|DATASETS_|TRITON_|WANDB|MLFLOW|TENSORBOARD|MASTER_|RANK$|WORLD_SIZE$|LOCAL_|"
    r"NODE_RANK$|GROUP_|ROLE_|SLURM_|OMPI_|PMI|PMIX|MV2_|UCX_|UCC_|FI_|RDMA|IBV_|MLX5_|AWS_OFI|LD_|PATH$|CONDA|"
    r"VIRTUAL_ENV|UV_|TOKENIZERS_|BNB_|MAX_JOBS$|CC$|CXX$|CFLAGS$|CXXFLAGS$|LDFLAGS$|NVCC|TMPDIR$|HOME$|SHELL$|LANG$|"
    r"LC_ALL$|HIP_|ROCR_|HSA_|XDG_CACHE_HOME$|FLASH_ATTENTION|XFORMERS|\w+_proxy$|\w+_PROXY$)|^N{1,2}C{1,2}L{0,2}C?L?_"
)
SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSW|PASSPHRASE|CREDENTIAL|AUTH", re.I)
NOT_SECRET = re.compile(r"^(TOKENIZERS_\w+|NCCL_IB_PKEY|UCX_IB_PKEY\w*)$")
# Shapes of well-known tokens, wherever they stand: Hugging Face, GitHub, OpenAI, AWS, Slack, JSON web tokens.
TOKEN_SHAPES = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{16,}|AKIA[0-9A-Z]{16}|xox[a-z]-[\w-]{10,}|"
    r"eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
)
USER_INFO = re.compile(r"(?<=://)[^\s/@]+(?=@)")


def secret(name):
    # type: (str) -> bool
    """Whether a variable's name says that its value is nobody's business."""
    return bool(SECRET.search(name)) and not NOT_SECRET.match(name)


def masked(value):
    # type: (str) -> str
    """A value without passwords inside URLs and without anything that looks like a token."""
    value = TOKEN_SHAPES.sub("***", USER_INFO.sub("***", value))
    return value if len(value) <= VALUE_CHARACTERS else value[:VALUE_CHARACTERS] + "..."


def visible(pairs):
    # type: (Iterable[Tuple[str, str]]) -> Dict[str, str]
    """The pairs that may be reported."""
    return {name: masked(value) for name, value in pairs if not secret(name)}


@section("disk")
def fact_environment(ask):
    # type: (Ask) -> Dict[str, Any]
    """Source: this process's environment, NCCL's and DeepSpeed's files, and what shells read at their start.

    NCCL reads $NCCL_CONF_FILE or else ~/.nccl.conf, then /etc/nccl.conf (src/misc/param.cc); DeepSpeed reads
    $DS_ENV_FILE or else .deepspeed_env, at home and then in the folder that it is started in (launcher/runner.py).
    """
    relevant = [(name, value) for name, value in sorted(os.environ.items()) if RELEVANT.search(name)]
    home = home_folder()
    nccl = [os.environ.get("NCCL_CONF_FILE") or os.path.join(home, ".nccl.conf"), at("/etc/nccl.conf")]
    folders = [os.path.expanduser("~"), working_folder()] + [path for role, path in ask.places if role == "work"]
    launch = [os.path.join(folder, os.environ.get("DS_ENV_FILE") or ".deepspeed_env") for folder in folders if folder]
    shell = [os.path.join(home, name) for name in (".bashrc", ".bash_profile", ".profile", ".zshrc", ".zshenv")]
    shell += [at("/etc/environment"), at("/etc/bash.bashrc"), at("/etc/bashrc"), at("/etc/profile")]
    folder = at("/etc/profile.d")
    shell += [os.path.join(folder, name) for name in entries(folder) if name.endswith(".sh")]
    return {
        "variables": visible(relevant),
        "secrets": [name for name, _ in relevant if secret(name)],
        "files": config_files(nccl, parse_nccl_conf, "nccl") + config_files(launch, parse_deepspeed_env, "deepspeed"),
        "shell_files": [row for row in config_files(shell, parse_shell, "shell") if row["variables"]],
    }


def working_folder():
    # type: () -> str
    """The folder that this process was started in; empty where that is gone."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def config_files(paths, parse, reader):
    # type: (List[str], Callable[[str], Tuple[List[Tuple[str, str]], List[int]]], str) -> List[Dict[str, Any]]
    """The files that are there, parsed; one that two paths lead to is there once."""
    rows = []
    places = {}  # type: Dict[str, str]
    for path in paths:
        places.setdefault(os.path.realpath(path), path)
    for path in places.values():
        try:
            pairs, bad = parse(read(path))
        except (OSError, ValueError):
            continue  # not there, or not this user's to read: the job could not read it either
        secrets = [name for name, _ in pairs if secret(name)]
        known = {"path": path, "variables": visible(pairs), "bad_lines": bad, "reader": reader, "secrets": secrets}
        rows.append(known)
    return rows


def parse_nccl_conf(text):
    # type: (str) -> Tuple[List[Tuple[str, str]], List[int]]
    """NAME=value as NCCL takes it: nothing is stripped, the first of two wins, `#` counts as a line's first letter."""
    pairs = {}  # type: Dict[str, str]
    bad = []
    for index, line in enumerate(text.split("\n"), 1):
        name, equals, value = line.partition("=")
        if line.startswith("#"):
            continue
        if equals:
            pairs.setdefault(name, value)
        elif line.strip():
            bad.append(index)
    return list(pairs.items()), bad


def parse_deepspeed_env(text):
    # type: (str) -> Tuple[List[Tuple[str, str]], List[int]]
    """NAME=value as DeepSpeed takes it: both stripped, the last of two wins; any line without `=` stops the launch."""
    pairs = {}  # type: Dict[str, str]
    bad = []
    for index, line in enumerate(text.splitlines(), 1):
        name, equals, value = line.partition("=")
        if equals:
            pairs[name.strip()] = value.strip()
        else:
            bad.append(index)
    return list(pairs.items()), bad


def parse_shell(text):
    # type: (str) -> Tuple[List[Tuple[str, str]], List[int]]
    """The plain assignments of a shell's start file that matter to training; what is computed there is not followed."""
    import shlex

    pairs = {}  # type: Dict[str, str]
    for line in text.splitlines():
        if not re.match(r"\s*(?:export\s+|declare\s+-x\s+|typeset\s+-x\s+)?[A-Za-z_]\w*=", line):
            continue
        try:
            words = shlex.split(line.replace(";", " ; "), comments=True)
        except ValueError:
            continue  # a quotation that goes on in the next line
        words = [word for word in words if word not in ("export", "declare", "typeset", "-x", ";")]
        assigned = dict(word.split("=", 1) for word in words if re.match(r"[A-Za-z_]\w*=", word))
        if any(word not in assigned and word.partition("=")[0] not in assigned for word in words):
            continue  # a command with variables before it sets nothing
        pairs.update((name, value) for name, value in assigned.items() if RELEVANT.search(name))
    return list(pairs.items()), []


# ---------------------------------------------------------------------------------------------------------------------
# Working through the sections


def clean(value):
    # type: (Any) -> Any
    """The value with nothing in it that JSON or UTF-8 has no word for: undecodable bytes are written in hex."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return os.fsencode(value).decode("utf-8", "backslashreplace") if encodable(value) else ascii(value)[1:-1]
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None  # NaN and the infinities
    if isinstance(value, dict):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [clean(item) for item in value]
    return value


def encodable(text):
    # type: (str) -> bool
    """Whether a text came from undecodable bytes, rather than from anywhere with half a surrogate pair."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def examined(name, ask):
    # type: (str, Ask) -> Dict[str, Any]
    """One section: its value or its error, and the seconds it took. Nothing that a section raises gets out."""
    begun = time.monotonic()
    try:
        outcome = {"value": clean(SECTIONS[name][1](ask))}
        json.dumps(outcome)
    except ProbeError as failure:
        outcome = {"error": clean(str(failure))}
    except BaseException as failure:
        outcome = {"error": clean("%s: %s" % (type(failure).__name__, failure))[:500]}
    outcome["seconds"] = round(time.monotonic() - begun, 4)
    return outcome


class Worker(object):
    """A forked process that works through the sections of one group and reports each as it begins and ends."""

    def __init__(self, names):
        # type: (List[str]) -> None
        self.names = list(names)  # not reported yet
        self.begun = time.monotonic()  # the section it is at
        self.pid = -1
        self.pipe = -1
        self.rest = b""

    def start(self, ask, others):
        # type: (Ask, Iterable[Worker]) -> None
        """Fork. Raises OSError when the system allows no further process."""
        inward, outward = os.pipe()
        STARTING.append(0)
        try:
            self.pid = os.fork()
        except OSError:
            os.close(inward)
            os.close(outward)
            started()
            raise
        if self.pid == 0:
            try:
                del STARTING[:]
                for other in others:
                    os.close(other.pipe)
                os.close(inward)
                self.work(ask, outward)
            finally:
                os._exit(0)
        os.close(outward)
        WORKING.append(self.pid)
        started()
        self.pipe, self.begun = inward, time.monotonic()

    def work(self, ask, outward):
        # type: (Ask, int) -> None
        """In the child: no hold on the probe's own input and outputs, then section by section."""
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        WORKING.clear()  # the others are the parent's
        for name in self.names:
            tell(outward, {"begun": name})
            tell(outward, {"name": name, "section": examined(name, ask)})

    def hear(self, sections):
        # type: (Dict[str, Any]) -> bool
        """Take what has come; False at the end of the stream."""
        chunk = os.read(self.pipe, 1 << 16)
        lines = (self.rest + chunk).split(b"\n")
        self.rest = lines.pop()
        for line in lines:
            message = json.loads(line.decode("ascii"))
            self.begun = time.monotonic()
            if "section" in message:
                sections[message["name"]] = message["section"]
                self.names.remove(message["name"])
        return bool(chunk)

    def end(self):
        # type: () -> str
        """Close the stream, end the process if it still runs, and say how it ended."""
        os.close(self.pipe)
        for attempt_signal, patience in ((0, 0.05), (signal.SIGTERM, 0.2), (signal.SIGKILL, 0.5)):
            if attempt_signal:
                os.kill(self.pid, attempt_signal)
            until = time.monotonic() + patience
            while time.monotonic() < until:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    WORKING.remove(pid)
                    return ending(status)
                time.sleep(0.002)
        return "cannot be killed: it hangs inside the kernel"


WORKING = []  # type: List[int]  # the workers' process ids


def stop_working(signum, frame):
    # type: (int, Any) -> None
    """End on a signal, in the parent and in the workers: nothing that was started here stays behind."""
    if STARTING:
        STARTING.append(signum)  # its number is not known yet: `started` comes back to this
        return
    for group in RUNNING:
        end_group(group)
    left = list(WORKING)  # not waited for yet, so the numbers are still their own
    for kind in (signal.SIGTERM, signal.SIGKILL):
        for pid in left:
            os.kill(pid, kind)
        until = time.monotonic() + 1.0
        while left and time.monotonic() < until:
            left = [pid for pid in left if os.waitpid(pid, os.WNOHANG)[0] == 0]
            time.sleep(0.005)
    os._exit(128 + signum)


def started():
    # type: () -> None
    """The process is on its list now; a signal that came in between takes effect."""
    signals = STARTING[1:]
    del STARTING[:]
    if signals:
        stop_working(signals[0], None)


def ending(status):
    # type: (int) -> str
    """How a process ended, in words."""
    if not os.WIFSIGNALED(status):
        return "ended with status %d" % os.WEXITSTATUS(status)
    signum = os.WTERMSIG(status)
    names = {int(item): item.name for item in signal.Signals}
    return "was killed by signal %d (%s)" % (signum, names.get(signum, "unknown"))


def tell(pipe, message):
    # type: (int, Dict[str, Any]) -> None
    """Send one message to the parent."""
    data = json.dumps(message).encode("ascii") + b"\n"
    while data:
        data = data[os.write(pipe, data) :]


def survey(ask):
    # type: (Ask) -> Dict[str, Any]
    """All sections, each group in its own process; in this one where no process can be forked."""
    groups = {}  # type: Dict[str, List[str]]
    for name in ask.sections:
        groups.setdefault(SECTIONS[name][0], []).append(name)
    sections = {}  # type: Dict[str, Any]
    workers = []  # type: List[Worker]
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a parent that ignores it would have our children forgotten
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, stop_working)
    limit = min(SECTION_SECONDS, ask.timeout / 2)  # what follows a section that hangs still has time
    PATIENCE["program"] = min(PROGRAM_SECONDS, limit / 2)  # and so has the section whose program hangs
    for names in groups.values():
        begin(names, ask, workers, sections)
    poller = select.poll()
    while workers:
        until = min([ask.deadline] + [worker.begun + limit for worker in workers])
        for worker in workers:
            poller.register(worker.pipe, select.POLLIN | select.POLLHUP)
        ready = {pipe for pipe, _ in poller.poll(max(0, int((until - time.monotonic()) * 1000) + 1))}
        for worker in workers:
            poller.unregister(worker.pipe)
        for worker in list(workers):
            if worker.pipe in ready and worker.hear(sections):
                continue
            late = time.monotonic() >= min(ask.deadline, worker.begun + limit)
            if worker.pipe in ready or late:
                workers.remove(worker)
                how = worker.end()
                reason = "no answer within %.1f seconds" % limit if late else "its process " + how
                give_up(worker.names, reason, ask, workers, sections)
    return {name: sections[name] for name in ask.sections}


def begin(names, ask, workers, sections):
    # type: (List[str], Ask, List[Worker], Dict[str, Any]) -> None
    """Start a worker on the sections, or do them here when the system allows no further process."""
    worker = Worker(names)
    try:
        worker.start(ask, workers)
    except OSError:
        for name in names:
            sections[name] = examined(name, ask)
        return
    workers.append(worker)


def give_up(names, reason, ask, workers, sections):
    # type: (List[str], str, Ask, List[Worker], Dict[str, Any]) -> None
    """Of the sections that an ended worker left, the first is the one that ended it; the others are begun anew."""
    if not names:
        return
    sections[names[0]] = {"error": reason, "seconds": 0.0}
    if ask.left() > 0.05:
        if names[1:]:
            begin(names[1:], ask, workers, sections)
        return
    for name in names[1:]:
        sections[name] = {"error": "no time was left for it", "seconds": 0.0}


def answer(config):
    # type: (Dict[str, Any]) -> Dict[str, Any]
    """The probe's answer to a config."""
    import resource

    begun = time.monotonic()
    sections = survey(Ask(config))
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "schema": SCHEMA,
        "probe_version": PROBE_VERSION,
        "recorded_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.monotonic() - begun, 4),
        "cpu_seconds": round(sum(usage.ru_utime + usage.ru_stime for usage in spent), 4),
        "sections": sections,
    }


def main(arguments):
    # type: (List[str]) -> None
    """Print the answer; one that says why there is none is an answer too."""
    try:
        config = json.loads(base64.b64decode(arguments[0]).decode("utf-8")) if arguments else {}
        line = json.dumps(answer(config), ensure_ascii=True)
    except Exception as failure:
        line = refusal("the probe itself failed: %s: %s" % (type(failure).__name__, failure))
    say(line)


if __name__ == "__main__":
    main(sys.argv[1:])
