"""What one sync holds on this host: the lock, its token in each folder, folders for unfinished files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time

from . import ASIDE, LOCK, MARKER, OWN, TEMP, TOKENS, USED
from .seen import kind_of, other_runs, room, users
from .words import as_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional

    from .handing import Handing

    Order = Dict[str, Any]


class Folders:
    """What one sync holds on this host: the lock, its token in each folder, folders for unfinished files."""

    def __init__(self) -> None:
        self.lock: Any = None
        self.handing: Optional[Handing] = None  # an rsync from here to another host
        self.placed: List[str] = []
        self.temporary: List[str] = []

    def home(self, order: Order) -> Order:
        """This user's home folder."""
        return {"home": os.path.expanduser("~")}

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
            file.write(as_json({key: order[key] for key in ("run", "head", "directory")}))
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
        """Whether this host gets to another; see :mod:`.handing`."""
        from .handing import knows

        return knows(order)

    def hand(self, order: Order) -> Order:
        """Begin to copy what this host has to another; :meth:`handed` says how far that is."""
        from .handing import Handing

        self.handing = Handing(order)
        return {}

    def handed(self, order: Order) -> Order:
        """How far what :meth:`hand` began is."""
        return {"code": None} if self.handing is None else self.handing.state()

    def unlock(self, order: Order) -> Order:
        """Let go of everything: another sync has the lock on some other host."""
        self.close()
        return {}

    def close(self) -> None:
        """Take away what was only there for the time of the sync, and end what it has under way."""
        if self.handing is not None:
            self.handing.end()
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
