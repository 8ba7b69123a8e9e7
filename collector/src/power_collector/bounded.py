"""Calls that may hang, waited for only so long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedCalls(Generic[T]):
    """Runs calls one after the other, each in a thread that is left alone when its time is up.

    For what no time-out of its own bounds as a whole: a name that is looked up, an answer that comes byte by
    byte. A call that hangs keeps nobody from ending the process.
    """

    def __init__(self, name: str) -> None:
        """Prepare; `name` is the threads'."""
        self._name = name
        self._last: Future[T] | None = None

    def run(self, call: Callable[[], T], timeout_s: float) -> T:
        """Return what the call returns.

        Raises:
            TimeoutError: it did not end in time, or the one before it, given up earlier, has not ended yet.
            BaseException: whatever it raises.
        """
        if self._last is not None and not self._last.done():
            raise TimeoutError("what timed out before still goes on")
        outcome: Future[T] = Future()
        self._last = outcome

        def run() -> None:
            try:
                outcome.set_result(call())
            except BaseException as error:  # noqa: BLE001 - it is raised where the call is waited for
                outcome.set_exception(error)

        threading.Thread(target=run, name=self._name, daemon=True).start()
        try:
            return outcome.result(timeout_s)
        except TimeoutError:
            if outcome.done():
                return outcome.result()
            raise TimeoutError(f"timed out after {timeout_s:g} s") from None
