"""The host's side of a sync: one file for any Python from 3.8 on, sent over ssh and talked with by lines of JSON.

It makes the folders, refuses foreign ones, says who uses them, holds a lock while files are copied, and takes its own
traces away when the line ends, however it ends.
"""

from __future__ import annotations

# What few syncs need is imported where it is needed: the host waits for every import of its Python.
import contextlib
import errno
import fcntl
import json
import os
import queue
import re
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional

    Order = Dict[str, Any]

MARK = "<<<dsdoctor-sync "
QUESTIONS = (
    *("open", "look", "space", "sweep", "missing", "link", "note", "unlock"),
    *("knows", "hand", "handed"),
)
# From one host to another: the user's own keys and known hosts there, no questions, and no agent that would lend them.
SSH = (
    *("ssh", "-T", "-x", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "ForwardAgent=no"),
    *("-o", "ClearAllForwardings=yes", "-o", "LogLevel=ERROR"),
)
PING, PONG = b"ping\n", "pong\n"
MARKER = ".dsdoctor-sync"  # a folder that carries it is dsdoctor's own
TOKENS = ".dsdoctor-tokens"
LOCK = ".dsdoctor-lock"
USED = ".dsdoctor-used"  # below it, one file for each run that was given this code
TEMP = ".dsdoctor-temp"
PARTIAL = ".dsdoctor-partial"
ASIDE = ".~tmp~"  # where rsync --delay-updates keeps files until all are there
OWN = (MARKER, TOKENS, LOCK, USED, TEMP, PARTIAL)
FORGOTTEN = 7 * 86400  # seconds after which nobody asks any more which runs had this code


class Folders:
    """What one sync holds on this host: the lock, its token in each folder, folders for unfinished files."""

    def __init__(self) -> None:
        self.lock: Any = None
        self.handing: Any = None  # an rsync from here to another host
        self.said: Any = None
        self.placed: List[str] = []
        self.temporary: List[str] = []

    def open(self, order: Order) -> Order:
        """Lock the work folder, make and claim the folders, leave a token in each.

        `code` and `trees` (each with `kind`, `place`, `source`, `same`, `file`) say which folders; `id` and `who` name
        the sync, `run` and `run_dir` the run that it is for. On a shared file system all hosts do this at the same
        moment: the lock is one sync's and not one host's.
        """
        work = os.path.dirname(order["code"])
        os.makedirs(work, exist_ok=True)
        holder = self.take_lock(os.path.join(work, LOCK), order)
        if holder is not None:
            return {"locked": holder}
        answer: Order = {"code": self.claim(order["code"], order["token"]), "trees": {}}
        for tree in order["trees"]:
            answer["trees"][tree["kind"]] = self.open_tree(tree, order["token"])
        if order.get("run_dir"):
            os.makedirs(order["run_dir"], exist_ok=True)
        answer["users"] = users(order["code"], order.get("run_dir", ""))
        answer["runs"] = other_runs(os.path.join(work, USED), order["run"])
        return answer

    def take_lock(self, path: str, order: Order) -> Optional[str]:
        """Hold the lock for this sync; returns who holds it when that is another one."""
        if self.lock is not None:
            return None
        file = open(path, "a+")
        for _ in range(20):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
            else:
                file.seek(0)
                file.truncate()
                file.write("%s %s" % (order["id"], order["who"]))
                file.flush()
                self.lock = file
                return None
            file.seek(0)
            words = file.read(400).split(" ", 1)
            if words[0] == order["id"]:
                return None  # another host of this very sync, on a shared file system
            if len(words) == 2:
                file.close()
                return words[1]
            time.sleep(0.1)  # locked this moment, and not signed yet
        file.close()
        return "another dsdoctor"

    def claim(self, folder: str, token: str) -> str:
        """Make a folder dsdoctor's own: `new` without files, `ours`, or `foreign`, and then it is left alone."""
        os.makedirs(folder, exist_ok=True)
        found = set(os.listdir(folder))
        # Another host's turn may have put its token there, and not yet its marker.
        if MARKER not in found and found - set(OWN):
            return "foreign"
        with open(os.path.join(folder, MARKER), "a"):
            pass
        self.leave_token(folder, token)
        return "ours" if found - set(OWN) else "new"

    def leave_token(self, folder: str, token: str) -> None:
        """Leave a file by which others see that they see this folder."""
        if not token:
            return
        os.makedirs(os.path.join(folder, TOKENS), exist_ok=True)
        path = os.path.join(folder, TOKENS, token)
        with open(path, "w"):
            self.placed.append(path)

    def open_tree(self, tree: Order, token: str) -> Order:
        """Make the place of a data or model tree ready, and say what is there and at the path it has on the head."""
        import shutil

        place, same = tree["place"], tree["same"]
        if not same and os.path.islink(place) and not os.path.exists(place):
            os.unlink(place)
        holder = os.path.dirname(place) if tree["file"] or not same else place
        there = kind_of(place)
        marked = os.path.exists(os.path.join(holder, MARKER))
        answer = {"there": there, "ours": marked, "elsewhere": "none" if same else kind_of(tree["source"])}
        if not same:
            answer["ours"] = True
            answer["claim"] = self.claim(holder, token)
            if answer["claim"] == "foreign":
                return answer
        elif there == "none" and not tree["file"]:
            self.claim(place, token)
            answer["ours"] = True
        else:
            with contextlib.suppress(OSError):  # a folder that cannot be written may be whole all the same
                os.makedirs(holder, exist_ok=True)
                self.leave_token(holder, token)
        temporary = os.path.join(holder, TEMP)
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary)  # of a host that went down in the middle of a file
        with contextlib.suppress(OSError):
            os.mkdir(temporary)
            self.temporary.append(temporary)
        answer["temp"] = temporary
        return answer

    def note(self, order: Order) -> Order:
        """Write down that a run was given the code of this folder."""
        folder = os.path.join(os.path.dirname(order["code"]), USED)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, order["run"])
        with open(path + ".part", "w") as file:
            json.dump({key: order[key] for key in ("run", "head", "directory")}, file)
        os.replace(path + ".part", path)
        return {}

    def look(self, order: Order) -> Order:
        """The tokens, of those asked for, that this host sees in each folder.

        They are asked for by name: a listing may come out of a network file system's cache.
        """
        return {
            kind: [name for name in order["names"] if os.path.exists(os.path.join(folder, TOKENS, name))]
            for kind, folder in order["folders"].items()
        }

    def space(self, order: Order) -> Order:
        """What is free where a folder is, or will be."""
        return room(order["path"])

    def sweep(self, order: Order) -> Order:
        """Take away what a copy that failed has put aside in the code's folder; says what is free then."""
        import shutil

        for at, names, _ in os.walk(order["code"]):
            if ASIDE in names:
                names.remove(ASIDE)
                shutil.rmtree(os.path.join(at, ASIDE), ignore_errors=True)
        return room(order["code"])

    def missing(self, order: Order) -> Order:
        """The paths, of those asked for, that lead nowhere on this host."""
        return {"paths": [path for path in order["paths"] if not os.path.exists(path)]}

    def link(self, order: Order) -> Order:
        """Let the place of a tree be a link to where this host has it anyway; without `target` a link is removed."""
        place = order["place"]
        if os.path.islink(place):
            os.unlink(place)
        if order.get("target"):
            os.symlink(order["target"], place)
        return {}

    def knows(self, order: Order) -> Order:
        """Whether this host gets to another by its user's own keys, and finds that host's token there.

        A name may lead elsewhere from here than from the head; the token proves that it is the same folder.
        """
        import shutil
        import subprocess

        try:
            argv = [*SSH, *order["ssh"], "--", order["name"], order["test"]]
            null = subprocess.DEVNULL
            code = subprocess.call(argv, stdin=null, stdout=null, stderr=null, timeout=order["limit"])
        except (OSError, subprocess.SubprocessError):
            return {"known": False}
        return {"known": code == 0 and shutil.which("rsync") is not None}

    def hand(self, order: Order) -> Order:
        """Begin to copy what this host has to another; :meth:`handed` says how far that is."""
        import shlex
        import subprocess
        import tempfile

        shell = " ".join(shlex.quote(word) for word in [*SSH, *order["ssh"]])
        argv = ["rsync", *order["options"], "-e", shell, "--", order["source"], order["target"]]
        self.said = tempfile.TemporaryFile()
        self.handing = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.said, start_new_session=True
        )
        return {}

    def handed(self, order: Order) -> Order:
        """The exit code of what :meth:`hand` began and what it said; `code` is None while it runs."""
        code = self.handing.poll()
        if code is None:
            return {"code": None}
        self.said.seek(0)
        return {"code": code, "said": self.said.read(2000).decode("utf-8", "replace")}

    def unlock(self, order: Order) -> Order:
        """Let go of everything: another sync has the lock on some other host."""
        self.close()
        return {}

    def close(self) -> None:
        """Take away what was only there for the time of the sync, and end what it has under way."""
        if self.handing is not None and self.handing.poll() is None:
            import signal

            with contextlib.suppress(OSError):
                os.killpg(self.handing.pid, signal.SIGKILL)
            self.handing.wait()
        for path in self.placed:
            with contextlib.suppress(OSError):
                os.unlink(path)
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(path))
        for path in self.temporary:
            with contextlib.suppress(OSError):  # what was interrupted is about to be moved from there
                os.rmdir(path)
        self.placed, self.temporary = [], []
        if self.lock is not None:
            self.lock.close()
            self.lock = None


def kind_of(path: str) -> str:
    """What is at a path: `none`, `link`, `folder` or `file`."""
    if os.path.islink(path):
        return "link" if os.path.exists(path) else "none"
    return "folder" if os.path.isdir(path) else "file" if os.path.exists(path) else "none"


def room(path: str) -> Order:
    """Bytes and files that are free to this user where a path is, or will be."""
    while not os.path.exists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    try:
        disk = os.statvfs(path)
    except OSError:
        return {}
    files = disk.f_favail if disk.f_files else None  # some file systems count none
    return {"free": disk.f_bavail * disk.f_frsize, "files": files, "at": path}


def other_runs(folder: str, own: str) -> List[Order]:
    """The runs but `own` that were given the code of this work folder, each with its `age` in seconds."""
    others = []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        path = os.path.join(folder, name)
        try:
            age = time.time() - os.stat(path).st_mtime
            if age > FORGOTTEN:
                os.unlink(path)
                continue
            with open(path) as file:
                other = json.load(file)
        except (OSError, ValueError):
            continue
        if other.get("run") != own:
            others.append(dict(other, age=age))
    return others


def users(folder: str, own: str) -> List[Order]:
    """The processes that work in a folder and belong to no terminal: ranks, and not somebody's shell or editor.

    Those whose arguments or variables name the folder `own` are this run's and not told.
    """
    real, found = os.path.realpath(folder), []
    for pid in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else []):
        try:
            at = os.readlink("/proc/%s/cwd" % pid)
            if at != real and not at.startswith(real + "/"):
                continue
            with open("/proc/%s/stat" % pid) as file:
                terminal = int(file.read().rpartition(")")[2].split()[4])
            with open("/proc/%s/cmdline" % pid, "rb") as raw:
                argv = raw.read()
            with open("/proc/%s/environ" % pid, "rb") as raw:
                words = argv + b"\0" + raw.read()
        except (OSError, ValueError, IndexError):  # gone meanwhile, or another user's
            continue
        if terminal or int(pid) == os.getpid() or (own and os.fsencode(own) in words):
            continue
        named = re.search(rb"/runs/([A-Za-z0-9._-]+)", words)
        command = " ".join(argv.decode("utf-8", "replace").split("\0")).strip()[:80]
        found.append({"pid": int(pid), "command": command, "run": named.group(1).decode() if named else ""})
    return found


def answer_to(folders: Folders, order: Order) -> Order:
    """Do what one line asks; an error of the system is an answer, too."""
    handlers = {name: getattr(folders, name) for name in QUESTIONS}
    try:
        return dict(handlers[order["do"]](order))
    except OSError as error:
        path = error.filename if isinstance(error.filename, str) else ""
        return {"error": error.strerror or str(error), "errno": error.errno, "path": path, "room": room(path or "/")}


def attend(silence: float) -> None:
    """Answer line by line, until the head hangs up or has been silent for so many seconds."""
    lines: "queue.Queue[bytes]" = queue.Queue()
    writing = threading.Lock()

    def write(text: str) -> None:
        with writing:
            sys.stdout.write(text)
            sys.stdout.flush()

    def read() -> None:
        with contextlib.suppress(OSError):
            for line in sys.stdin.buffer:
                if line == PING:
                    write(PONG)  # at once, whatever is being done
                lines.put(line)
        lines.put(b"")

    threading.Thread(target=read, daemon=True).start()
    folders = Folders()
    try:
        while True:
            line = lines.get(timeout=silence)
            if not line:
                break
            if line != PING:
                write("\n" + MARK + json.dumps(answer_to(folders, json.loads(line))) + "\n")
    except (queue.Empty, OSError):
        pass
    finally:
        folders.close()


if __name__ == "__main__":
    attend(60.0)
    sys.stdout.flush()
    os._exit(0)  # the reader may sit in a read that never ends
