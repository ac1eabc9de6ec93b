"""Big trees through hosts that have them already: worth it where the head's cable is what everybody waits for.

Hosts that get to one another with the user's own keys copy on from a host that is done; where that does not work, or
turns out slower, the head goes on as it would have without. The number of those that have it doubles each time.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any

from dsdoctor.hosts.transport import TransportError
from dsdoctor.run.events import Copying
from dsdoctor.run.sync.errors import SyncError
from dsdoctor.run.sync.host_side import PARTIAL, TOKENS
from dsdoctor.run.sync.parts import Host, holder
from dsdoctor.run.sync.tree import TreeGiver

RELAY_BYTES = 64 << 20  # that one host lacks; less is sooner copied than asked about
FEWEST = 3  # hosts that lack it
PROBE_SECONDS = 8.0
TRIAL_SECONDS = 3.0  # that a copy from here is alone, and then two are, to see what the cable takes
_RATE = re.compile(r"([\d.]+)([kMGT]?)B/s")
POLL_SECONDS = 0.25


def pays(sizes: Sequence[int], least: int = RELAY_BYTES) -> bool:
    """Whether so many bytes for so many hosts are worth asking the hosts whether they get to one another."""
    return len(sizes) >= FEWEST and max(sizes) >= least


class Relay:
    """One tree's way to several hosts."""

    def __init__(self, giver: TreeGiver, pool: Executor) -> None:
        """Nothing is copied yet; `giver` copies from here."""
        self.tree, self.from_head, self.progress = giver.tree, giver.copy, giver.progress
        giver.progress = self._listen
        self.pool = pool
        self.by_whom: dict[str, str] = {}  # host -> the host that it got the tree from
        self._rates: dict[str, float] = {}  # bytes a second, of copies from the head
        self._seconds: dict[bool, float] = {}  # of the quickest copy: from the head, from a host

    def spread(self, hosts: Sequence[Host], having: Sequence[Host] = ()) -> dict[str, SyncError]:
        """Give all hosts the tree, with the help of those `having` it; returns what went wrong, by host."""
        waiting = list(hosts)
        failed: dict[str, SyncError] = {}
        busy: dict[Future[str | None], tuple[Host | None, Host]] = {}
        idle = list(having) if any(self._knows(host, waiting[0]) for host in having[:1]) else []
        if not idle and (not self._knows(waiting[0], waiting[1]) or not self._is_bound(waiting, busy)):
            return {**self._all_from_head(waiting), **self._ended(busy)}
        while waiting or busy:
            while idle and waiting:
                giver, taker = idle.pop(0), waiting.pop(0)
                busy[self.pool.submit(self._hand_on, giver, taker)] = (giver, taker)
            head_busy = any(by is None for by, _ in busy.values())
            if waiting and not head_busy and self._head_helps(idle, busy):
                taker = waiting.pop(0)
                busy[self.pool.submit(self._from_head, taker)] = (None, taker)
            done, _ = wait(busy, return_when=FIRST_COMPLETED)
            for future in done:
                by, to = busy.pop(future)
                problem = future.result()
                if problem is None:
                    idle += [to] if by is None else [to, by]
                elif by is None:
                    failed[to.name] = SyncError(to.name, problem)
                else:
                    waiting.append(to)  # and the one that gave gives no more
            if not self._pays():
                idle.clear()
        return failed

    def _is_bound(self, waiting: list[Host], busy: dict[Future[str | None], tuple[Host | None, Host]]) -> bool:
        """Begin the first copies from here, and see whether two at once are as slow as one: then the cable is full."""
        rates = []
        for _ in range(2):
            taker = waiting.pop(0)
            busy[self.pool.submit(self._from_head, taker)] = (None, taker)
            done, _ = wait(busy, timeout=TRIAL_SECONDS, return_when=FIRST_COMPLETED)
            if done:
                return True  # too quick to tell: so is what may be lost by it
            rates.append(sum(self._rates.get(host.name, 0.0) for _, host in busy.values()))
        return rates[1] < 1.5 * rates[0]

    def _ended(self, busy: dict[Future[str | None], tuple[Host | None, Host]]) -> dict[str, SyncError]:
        """What went wrong with the copies under way, at their end."""
        problems = {to.name: future.result() for future, (_, to) in busy.items()}
        return {name: SyncError(name, problem) for name, problem in problems.items() if problem is not None}

    def _listen(self, event: Copying) -> None:
        rate = _RATE.fullmatch(event.rate)
        if rate:
            self._rates[event.host] = float(rate[1]) * 1024 ** " kMGT".index(rate[2] or " ")
        self.progress(event)

    def _head_helps(self, idle: Sequence[Host], busy: dict[Any, Any]) -> bool:
        """Whether the head copies, too: it does not where a host hands on in less than half its time."""
        if not idle and not busy:
            return True  # nobody else is left
        within, from_head = self._seconds.get(False), self._seconds.get(True)
        return within is not None and from_head is not None and within > from_head / 2

    def _pays(self) -> bool:
        within, from_head = self._seconds.get(False), self._seconds.get(True)
        return within is None or from_head is None or within < 2 * from_head

    def _all_from_head(self, hosts: Sequence[Host]) -> dict[str, SyncError]:
        problems = list(self.pool.map(self._from_head, hosts))
        return {
            host.name: SyncError(host.name, problem)
            for host, problem in zip(hosts, problems, strict=True)
            if problem is not None
        }

    def _from_head(self, taker: Host) -> str | None:
        began = time.monotonic()
        try:
            self.from_head(taker)
        except SyncError as error:
            return error.detail
        except TransportError as error:
            return error.detail
        self._took(True, began)
        return None

    def _hand_on(self, giver: Host, taker: Host) -> str | None:
        """Let one host copy to another, and look at what came of it; returns why that did not work."""
        began = time.monotonic()
        self.progress(Copying(taker.name, 0, self.tree.kind, f"from {giver.name}"))
        try:
            if not self._knows(giver, taker) or not self._handed(giver, taker):
                return f"{giver.name} does not get to {taker.name}"
            if not self.tree.lack(taker.session, self.tree.tree.places[taker.name]).whole:
                return f"what {giver.name} handed on is not whole"
        except SyncError as error:
            return str(error)
        self._took(False, began)
        self.by_whom[taker.name] = giver.name
        return None

    def _handed(self, giver: Host, taker: Host) -> bool:
        plan, to = self.tree.tree, taker.session.host
        place, there = plan.places[giver.name], plan.places[taker.name]
        name = f"[{to.name}]" if ":" in to.name else to.name
        target = f"{to.user}@{name}" if to.user else name
        folder = there if not plan.file else holder(plan, taker.name)
        temp = taker.opened["trees"][plan.kind].get("temp")
        options = ["-rlpt", "-s", "--timeout=60", f"--partial-dir={PARTIAL}", *self.tree.left_out]
        options += [f"--temp-dir={temp}"] if temp else []
        giver.session.ask(
            "hand",
            options=options,
            ssh=_words(taker),
            source=place if plan.file else f"{place}/",
            target=f"{target}:{folder}/",
        )
        while True:
            answer = giver.session.ask("handed")
            if "error" in answer or answer.get("code") is not None:
                return answer.get("code") == 0
            if taker.session.silent_for > self.tree.rsync.silence:
                return False
            threading.Event().wait(POLL_SECONDS)

    def _knows(self, giver: Host, taker: Host) -> bool:
        """Whether one host gets to another, and to the very folder that is meant."""
        token = f"{holder(self.tree.tree, taker.name)}/{TOKENS}/{taker.token}"
        quoted = "'" + token.replace("'", "'\\''") + "'"
        try:
            answer = giver.session.ask(
                "knows", ssh=_words(taker), name=taker.name, test=f"test -e {quoted}", limit=PROBE_SECONDS
            )
        except SyncError:
            return False
        return answer.get("known") is True

    def _took(self, from_head: bool, began: float) -> None:
        seconds = time.monotonic() - began
        self._seconds[from_head] = min(seconds, self._seconds.get(from_head, seconds))


def _words(taker: Host) -> list[str]:
    to = taker.session.host
    return [*(["-l", to.user] if to.user else []), *(["-p", str(to.port)] if to.port else [])]
