"""Provokes failures a few at a time, ahead of the tests that ask for them: most of them wait more than they compute."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from tests.provoked.failure import Failure
from tests.provoked.sandbox import Outcome, Provocation

AT_A_TIME = 2  # the failures of several hosts go on beside them


class Ahead:
    """Failures under way in sandboxes. Use it as a context manager: nothing of them runs on afterwards."""

    def __init__(self, failures: Iterable[Failure]) -> None:
        self._pool = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="provoked")
        self._provocations = {each.name: Provocation(each) for each in failures}
        self._outcomes: dict[str, Future[Outcome]] = {
            name: self._pool.submit(provocation.run) for name, provocation in self._provocations.items()
        }

    def outcome(self, failure: Failure) -> Outcome:
        """What a failure came to; waits for it.

        Raises:
            NotProvokedError: it took longer than its limit.
        """
        return self._outcomes[failure.name].result()

    def __enter__(self) -> Ahead:
        """Go on."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give up what has not begun, and end what has."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for provocation in self._provocations.values():
            provocation.give_up()
        self._pool.shutdown(wait=True)
