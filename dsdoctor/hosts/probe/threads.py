"""Threads that may hang and are left behind."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def start_thread(function: Callable[[], None]) -> Any:
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
