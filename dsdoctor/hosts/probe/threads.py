"""Threads that may hang and are left behind; `threading` would wait for them at the end, and costs an import."""

from __future__ import annotations

import _thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Running:
    """A thread that was started."""

    def __init__(self, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.lock = _thread.allocate_lock()  # held until the function has ended
        self.lock.acquire()
        try:
            _thread.start_new_thread(self.work, (function, arguments))
        except RuntimeError:
            self.lock.release()
            raise

    def work(self, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """In the thread."""
        try:
            function(*arguments)
        finally:
            self.lock.release()

    def join(self, seconds: float) -> None:
        """Wait for its end, at most so long."""
        if self.lock.acquire(True, max(0.0, seconds)):
            self.lock.release()

    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.lock.locked()


def start_thread(function: Callable[..., None], *arguments: Any) -> Running | None:
    """Start a thread that may hang and is then left behind; where no thread can be had, call the function here."""
    try:
        return Running(function, arguments)
    except RuntimeError:  # the user's limit on processes
        function(*arguments)
        return None
