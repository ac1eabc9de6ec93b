"""Giving every host its files before a run: the code, and what of data and model the job names.

rsync through the job's own ssh, in parallel, once for each file system, never onto itself, verified. `--delete` is used
only in a folder that carries dsdoctor's marker, and a folder that another run is using is not changed.
"""

from __future__ import annotations

import errno
import functools
import random
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from dsdoctor.hosts.transport import Transport, TransportError
from dsdoctor.plan.model import LaunchPlan
from dsdoctor.run.events import Copying
from dsdoctor.run.sync.code import Code, CodeGiver
from dsdoctor.run.sync.errors import SyncError
from dsdoctor.run.sync.parts import Got, Host, holder
from dsdoctor.run.sync.relay import RELAY_BYTES, Relay, pays
from dsdoctor.run.sync.rsync import Rsync
from dsdoctor.run.sync.session import Session
from dsdoctor.run.sync.source import left_out
from dsdoctor.run.sync.tree import Lack, Tree, TreeGiver
from dsdoctor.run.sync.view import grouped

S = TypeVar("S")
T = TypeVar("T")
LOCK_SECONDS = 600.0  # how long another sync into the same folder is waited for

Progress = Callable[[Copying], None]


def sync(
    plan: LaunchPlan,
    transports: Mapping[str, Transport],
    progress: Progress = lambda event: None,
    *,
    timeout: float = 3600.0,
    lifeline: float = 20.0,
    directory: Path | None = None,
    relay_from: int = RELAY_BYTES,
    sessions: Mapping[str, Session] | None = None,
) -> list[Got]:
    """Copy to every host that is not this machine what it lacks; returns for each how it got it.

    Args:
        plan: names the hosts and what they are to have.
        transports: the way to every host, by name.
        progress: is told how far each copy is, from several threads.
        timeout: seconds that one copy may take.
        lifeline: seconds of silence after which a host is given up.
        directory: the run's directory here; None when the copy is for no run.
        relay_from: bytes of data or model that a host lacks, from which on hosts that are done help.
        sessions: hosts that were talked with already; they are hung up at the end, as the others are.

    Raises:
        SyncError: the first host, in the plan's order, where it did not work; the others were still finished.
    """
    remote = [host for host in plan.hosts if not host.local]
    if not remote:
        return []
    rsync = Rsync(timeout, lifeline)
    hosts = []
    for place in remote:
        session = (sessions or {}).get(place.name) or Session(place, transports[place.name], plan.setup, lifeline)
        session.host = place  # whoever talked with it before did not know its folders
        hosts.append(Host(session, secrets.token_hex(8)))
    with ThreadPoolExecutor(max_workers=min(32, len(hosts))) as pool:
        try:
            return _Sync(plan, hosts, rsync, progress, pool, directory, relay_from).carry_out()
        except KeyboardInterrupt:  # the pool waits for its threads, and they for rsync and the hosts
            rsync.stop()
            for host in hosts:
                transports[host.name].close()
            raise
        finally:
            list(pool.map(lambda host: host.session.close(), hosts))


class _Sync:
    def __init__(
        self,
        plan: LaunchPlan,
        hosts: list[Host],
        rsync: Rsync,
        progress: Progress,
        pool: ThreadPoolExecutor,
        directory: Path | None,
        relay_from: int,
    ) -> None:
        self.plan, self.hosts, self.rsync = plan, hosts, rsync
        self.progress, self.pool, self.directory = progress, pool, directory
        self.relay_from = relay_from
        self.code = Code(rsync, plan.sync.source, left_out(plan.sync))
        self.id = secrets.token_hex(8)
        self.run = plan.run if directory is not None else ""

    def carry_out(self) -> list[Got]:
        """Everything in turn, each step on all hosts at once."""
        self._open()
        giver = CodeGiver(self.code, self.run, str(self.directory or ""), self.progress)
        got = self._each_group("code", lambda groups: self._on_all(giver.give, groups))
        for tree in self.plan.sync.trees:
            tree_giver = TreeGiver(Tree(self.rsync, tree), self.progress)
            got += self._each_group(tree.kind, functools.partial(self._tree, tree_giver))
        return got

    # --- opening

    def _open(self) -> None:
        """Lock and prepare every host's folders; another sync into one of them is waited for."""
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            for host, answer in zip(self.hosts, self._on_all(self._open_one, self.hosts), strict=True):
                host.opened = answer
            locked = [host for host in self.hosts if "locked" in host.opened]
            if not locked:
                break
            who = locked[0].opened["locked"]
            if time.monotonic() > deadline:
                raise SyncError(locked[0].name, f"files are being copied into its work folder by {who}; wait for that")
            self.progress(Copying(locked[0].name, 0, waiting=who))
            # All are let go, or two syncs that have a host each would wait for each other.
            self._on_all(lambda host: host.session.ask("unlock"), self.hosts)
            time.sleep(random.uniform(0.5, 1.5))  # noqa: S311 - so that they do not meet again
        if len(self.hosts) > 1:
            for host, seen in zip(self.hosts, self._on_all(self._look, self.hosts), strict=True):
                host.seen = seen

    def _open_one(self, host: Host) -> dict[str, Any]:
        place = host.session.host
        trees = [
            {"kind": tree.kind, "place": tree.places[host.name], "source": tree.source, "same": tree.same}
            | {"file": tree.file}
            for tree in self.plan.sync.trees
        ]
        answer = host.session.ask(
            "open",
            id=self.id,
            who=f"{self.run or 'dsdoctor sync'} from {socket.gethostname()}",
            token=host.token,
            run=self.run,
            run_dir=place.run_dir if self.run else "",
            code=place.code_dir,
            trees=trees,
        )
        if "error" in answer:
            raise SyncError(host.name, self._why_not_opened(answer, place.code_dir))
        return answer

    def _why_not_opened(self, answer: dict[str, Any], code_dir: str) -> str:
        path, number = answer.get("path") or code_dir, answer.get("errno")
        if number in (errno.EEXIST, errno.ENOTDIR):
            return (
                f"{path} is in the way: a file, or a link that leads nowhere, where a folder is wanted. Move it away, "
                "or give another work folder: workdir= in the hostfile"
            )
        full = number in (errno.ENOSPC, errno.EDQUOT)
        return f"{path}: {answer['error']}" + (f". {self.code.wanted(answer.get('room', {}))}" if full else "")

    def _look(self, host: Host) -> dict[str, list[str]]:
        folders = {"code": host.session.host.code_dir}
        folders |= {tree.kind: holder(tree, host.name) for tree in self.plan.sync.trees}
        answer = host.session.ask("look", folders=folders, names=[each.token for each in self.hosts])
        return {kind: answer.get(kind, []) for kind in folders}

    # --- copying

    def _each_group(self, what: str, give: Callable[[list[list[Host]]], list[Got]]) -> list[Got]:
        """Give the first host of each group its files; the others of it share them."""
        tokens = {host.name: host.token for host in self.hosts}
        seen = {host.name: host.seen.get(what, []) for host in self.hosts}
        by_name = {host.name: host for host in self.hosts}
        groups = [[by_name[name] for name in group] for group in grouped(list(by_name), tokens, seen)]
        found = {}
        for group, first in zip(groups, give(groups), strict=True):
            found[group[0].name] = first
            for host in group[1:]:
                of_what = "" if what == "code" else f" ({what})"
                detail = first.detail if first.how == "shares" else f"shares the folder of {group[0].name}{of_what}"
                found[host.name] = Got(host.name, what, "shares", detail)
                self.progress(Copying(host.name, 100, what))
        return [found[host.name] for host in self.hosts]

    def _tree(self, giver: TreeGiver, groups: list[list[Host]]) -> list[Got]:
        """Data or model: who lacks something gets it from here, or from a host that is done."""
        decided = self._on_all(giver.decide, groups)
        lacking = {group[0].name: what for group, what in zip(groups, decided, strict=True) if isinstance(what, Lack)}
        takers = [group[0] for group in groups if group[0].name in lacking]
        by_whom: dict[str, str] = {}
        if pays([lack.size for lack in lacking.values()], self.relay_from):
            relay = Relay(giver, self.pool)
            failed = relay.spread(takers, [group[0] for group in groups if group[0].name not in lacking])
            by_whom = relay.by_whom
            for host in takers:
                if host.name in failed:
                    raise failed[host.name]
        else:
            self._on_all(giver.copy, takers)
        for group in groups:
            self.progress(Copying(group[0].name, 100, giver.kind))
        return [
            what if isinstance(what, Got) else giver.done(group[0], what, by_whom.get(group[0].name))
            for group, what in zip(groups, decided, strict=True)
        ]

    # --- parts

    def _on_all(self, act: Callable[[S], T], those: Sequence[S]) -> list[T]:
        """Do something for all at once; the first error is raised when all have ended."""

        def attempt(each: S) -> T | SyncError:
            try:
                return act(each)
            except SyncError as error:
                return error
            except TransportError as error:
                return SyncError(error.host, error.detail)

        results = list(self.pool.map(attempt, those))
        for result in results:
            if isinstance(result, SyncError):
                raise result
        return [result for result in results if not isinstance(result, SyncError)]
