"""What a host's own Python is asked when a run stands still: where each rank of the run is, and whether it moves.

One function, sent as text over the transport (see :mod:`dsdoctor.run.on_host`); Python 3.8 and the standard library.
It looks and does not touch: py-spy reads the processes' memory without stopping them, /proc is read, and a signal is
sent only where the job has said that its own faulthandler listens to it, and the process does catch it.
"""

from __future__ import annotations

from typing import Any


def look_at_ranks(order: dict[str, Any]) -> dict[str, Any]:
    """Look twice at every rank of a run on this host, `seconds` apart.

    `order`: spool (the guardian's, which says who it is), root (the process below which to look where that cannot be
    read), seconds, recorder (whether NCCL's flight recorder is to be written out), room (bytes of
    recorder files that may come back).

    A rank is the topmost process that has RANK in its environment. Returned of each: pid, rank, state (a letter of
    proc(5)), cpu (cores used), moved_bytes (read and written a second), wait (the kernel function it sleeps in),
    threads (name, state, call), stacks (py-spy's JSON of the second look), moved (whether the Python stack of its main
    thread changed), gpu (whether it has one open), problem (why there is no stack), signalled, recorder ({file: text in
    base64}).
    """
    import base64
    import json
    import os
    import signal
    import subprocess
    import sys
    import time

    def read(path: str) -> str:
        try:
            with open(path, "rb") as file:
                return file.read(1 << 20).decode("utf-8", "replace")
        except OSError:
            return ""

    def fields(pid: int) -> list[str]:
        return read("/proc/%d/stat" % pid).rpartition(")")[2].split()

    def below(root: int) -> list[tuple[int, int]]:
        children: dict[int, list[int]] = {}
        for name in os.listdir("/proc"):
            stat = fields(int(name)) if name.isdigit() else []
            if stat and stat[0] not in "ZX":
                children.setdefault(int(stat[1]), []).append(int(name))
        found, todo = [], [(root, 0)]
        while todo:
            pid, parent = todo.pop()
            found.append((pid, parent))
            todo += [(child, pid) for child in children.get(pid, [])]
        return found

    def environment(pid: int) -> dict[str, str]:
        pairs = (entry.partition("=") for entry in read("/proc/%d/environ" % pid).split("\0"))
        return {name: value for name, _, value in pairs}

    def ranks(root: int) -> dict[int, dict[str, str]]:
        found: dict[int, dict[str, str]] = {}
        inside = set()  # ranks, and what descends from them
        for pid, parent in below(root):
            if parent in inside:
                inside.add(pid)
                continue
            variables = environment(pid)
            if variables.get("RANK", "").isdigit() and "LOCAL_RANK" in variables:
                inside.add(pid)
                found[pid] = variables
        return found

    def sample(pids: list[int]) -> tuple[float, dict[int, int], dict[int, int]]:
        """Now, ticks of processor time, and bytes read and written, of each rank with what descends from it."""
        ticks, moved = {}, {}
        for root in pids:
            ticks[root] = moved[root] = 0
            for pid, _ in below(root):
                stat = fields(pid)
                ticks[root] += sum(int(each) for each in stat[11:13])
                for line in read("/proc/%d/io" % pid).splitlines():
                    if line.startswith(("rchar:", "wchar:")):
                        moved[root] += int(line.split()[1])
        return time.monotonic(), ticks, moved

    def spy() -> str | None:
        places = [os.path.dirname(sys.executable), *os.environ.get("PATH", "").split(os.pathsep)]
        candidates = (os.path.join(place, "py-spy") for place in places if place)
        return next((each for each in candidates if os.access(each, os.X_OK) and os.path.isfile(each)), None)

    def dump(program: str, pid: int, stopped: bool) -> tuple[list[Any], str]:
        said = ""
        # Nothing is stopped for it at first; a stack that changes meanwhile may not be read so. A stopped process
        # cannot be stopped again.
        for more in [["--nonblocking"], []][: 1 if stopped else 2]:
            argv = [program, "dump", "--json", "--pid", str(pid), *more]
            try:
                done = subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=10)
            except (OSError, subprocess.TimeoutExpired) as error:
                return [], "%s: %s" % (program, error)
            if done.returncode == 0:
                try:
                    return json.loads(done.stdout.decode("utf-8", "replace")), ""
                except ValueError:
                    said = "%s gave no JSON" % program
            else:
                lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
                said = " ".join(each.strip() for each in lines[:4])[:300]
        return [], said

    def dumps(pids: list[int]) -> dict[int, tuple[list[Any], str]]:
        program = spy()
        if program is None:
            return {pid: ([], "py-spy is not installed here (%s has none)" % sys.executable) for pid in pids}
        return {pid: dump(program, pid, fields(pid)[:1] in (["T"], ["t"])) for pid in pids}

    def shape(pid: int, stacks: list[Any]) -> list[Any]:
        """The main thread's stack; other threads may only look at a clock now and then."""
        main = [thread for thread in stacks if thread.get("os_thread_id") == pid] or stacks
        return [[(each.get("name"), each.get("line")) for each in thread.get("frames", [])] for thread in main]

    def has_gpu(pid: int) -> bool:
        try:
            names = os.listdir("/proc/%d/fd" % pid)[:1024]
        except OSError:
            return False
        for name in names:
            try:
                if os.readlink("/proc/%d/fd/%s" % (pid, name)).startswith("/dev/nvidia"):
                    return True
            except OSError:
                continue
        return False

    def threads(pid: int) -> list[dict[str, str]]:
        found = []
        try:
            names = sorted(os.listdir("/proc/%d/task" % pid), key=int)[:64]
        except OSError:
            return []
        for name in names:
            task = "/proc/%d/task/%s/" % (pid, name)
            state = read(task + "stat").rpartition(")")[2].split()[:1]
            call = read(task + "syscall").split()[:1]
            found.append(
                {
                    "id": name,
                    "name": read(task + "comm").strip(),
                    "state": state[0] if state else "?",
                    "wait": read(task + "wchan").strip("0\n"),
                    "call": call[0] if call else "",
                    "kernel": read(task + "stack")[:2000],
                }
            )
        return found

    def signalled(pid: int, variables: dict[str, str]) -> str | None:
        """Ask the process's own faulthandler, if the job says which signal it listens to, and it does."""
        name = variables.get("DSDOCTOR_STACKS_SIGNAL", "")
        number = getattr(signal, name if name.startswith("SIG") else "SIG" + name, None)
        if not name or number is None:
            return None
        for line in read("/proc/%d/status" % pid).splitlines():
            if line.startswith("SigCgt:") and int(line.split()[1], 16) >> (number - 1) & 1:
                os.kill(pid, number)
                return signal.Signals(number).name
        return None

    def trigger(variables: dict[str, str]) -> bool:
        stem = variables.get("TORCH_NCCL_DEBUG_INFO_PIPE_FILE")
        if not stem:
            return False
        try:
            pipe = os.open("%s%s.pipe" % (stem, variables["RANK"]), os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # no such pipe, or nobody reads: gloo, or NCCL has not begun
            return False
        try:
            return os.write(pipe, b"1\n") > 0
        except OSError:
            return False
        finally:
            os.close(pipe)

    def recorder(variables: dict[str, str], began: float, room: int) -> dict[str, str]:
        names = ("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE")
        home = variables.get("XDG_CACHE_HOME") or variables.get("HOME", "/tmp") + "/.cache"  # noqa: S108
        # FlightRecorder.cpp, torch 2.13; older ones had it in /tmp. A plan names another place anyhow.
        usual = home + "/torch/comm_lib_trace_rank_"
        path = next((variables[each] for each in names if variables.get(each)), usual) + variables["RANK"]
        try:
            if os.stat(path).st_mtime < began - 1 or os.stat(path).st_size > room:
                return {}
            with open(path, "rb") as file:
                return {path: base64.b64encode(file.read()).decode("ascii")}
        except OSError:
            return {}

    def guardian() -> int:
        """The guardian's process; one that was started at another time than it says is another."""
        try:
            with open(os.path.join(order["spool"], "identity"), "rb") as file:
                said = json.loads(file.read().decode("utf-8"))["guardian"]
            if int(fields(said["pid"])[19]) == said["start"]:
                return int(said["pid"])
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            pass
        return int(order.get("root") or 0)

    root = guardian()
    found = ranks(root) if root else {}
    pids = list(found)
    began = time.time()
    asked = {pid for pid in pids if order.get("recorder") and trigger(found[pid])}
    first, before = dumps(pids), sample(pids)
    time.sleep(order["seconds"])
    after, second = sample(pids), dumps(pids)
    passed = max(0.001, after[0] - before[0])
    result = []
    for pid in pids:
        stat = fields(pid)
        stacks, problem = second[pid]
        result.append(
            {
                "pid": pid,
                "rank": int(found[pid]["RANK"]),
                "state": stat[0] if stat else "X",
                "cpu": (after[1][pid] - before[1][pid]) / os.sysconf("SC_CLK_TCK") / passed,
                "moved_bytes": (after[2][pid] - before[2][pid]) / passed,
                "wait": read("/proc/%d/wchan" % pid).strip("0\n"),
                "threads": threads(pid),
                "stacks": stacks,
                "moved": bool(stacks and first[pid][0] and shape(pid, stacks) != shape(pid, first[pid][0])),
                "gpu": has_gpu(pid),
                "problem": problem,
                "signalled": None if stacks else signalled(pid, found[pid]),
                "recorder": recorder(found[pid], began, order.get("room", 0)) if pid in asked else {},
            }
        )
    return {"ranks": result}
