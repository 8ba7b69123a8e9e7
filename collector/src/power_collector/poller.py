"""Polls one device, cycle after cycle: what it last said, when it is asked again, what the log is told."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable

from power_collector.clock import Clock
from power_collector.config import DeviceConfig
from power_collector.devices.base import Device, DeviceError, Reading
from power_collector.points import Poll

MAX_BACKOFF_S = 60
_GRACE_S = 1.0
"""A driver keeps its `timeout_s` itself; one that is this much late has a bug."""

logger = logging.getLogger(__name__)


def backoff_cycles(failures: int, interval_s: int, jitter: float) -> int:
    """Return in how many cycles a device is asked again after `failures` (>= 1) failed polls in a row.

    Doubles with each failure, up to 60 s; `jitter` (0..1) takes away up to half of it, so that devices that
    failed together are not asked together for ever.
    """
    longest = max(MAX_BACKOFF_S // interval_s, 1)
    cycles: int = min(2 ** min(failures - 1, 10), longest)
    return math.ceil(cycles * (1 - jitter / 2))


class Poller:
    """One device and its state."""

    def __init__(
        self,
        config: DeviceConfig,
        device: Device,
        interval_s: int,
        clock: Clock,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.config = config
        self.error: str | None = None
        """Why the last poll failed; None where it did not."""
        self._device = device
        self._interval_s = interval_s
        self._clock = clock
        self._jitter = jitter
        self._failures = 0
        self._last_good: float | None = None
        self._ask_at = -math.inf
        self._told_bug = False

    async def poll(self) -> Poll:
        """Ask the device, or put it off while it is in back-off; no fault of device or driver raises."""
        begin = self._clock.monotonic()
        if begin < self._ask_at:
            return self._result(None, None)
        reading: Reading | None = None
        try:
            async with asyncio.timeout(self.config.timeout_s + _GRACE_S):
                reading = await self._device.read()
        except DeviceError as error:
            self._failed(begin, str(error))
        except Exception as error:
            # A bug of a driver: it must cost neither the other devices' points nor the loop.
            if self._told_bug:
                logger.debug("%s: its driver failed again", self.config.name, exc_info=True)
            else:
                logger.exception("%s: a bug of its driver; please report it", self.config.name)
            self._told_bug = True
            self._failed(begin, f"{self.config.name}: unexpected {type(error).__name__}: {error}")
        else:
            self._answered()
        end = self._clock.monotonic()
        if reading is not None:
            self._last_good = end
        return self._result(reading, (end - begin) * 1000)

    def _result(self, reading: Reading | None, response_ms: float | None) -> Poll:
        age_s = None if self._last_good is None else self._clock.monotonic() - self._last_good
        return Poll(self.config, reading, response_ms, self._failures, age_s)

    def _answered(self) -> None:
        if self._failures:
            logger.info("%s answers again after %d failed polls", self.config.name, self._failures)
        self._failures = 0
        self.error = None
        self._ask_at = -math.inf

    def _failed(self, begin: float, error: str) -> None:
        self._failures += 1
        self.error = error
        logger.log(logging.WARNING if self._failures == 1 else logging.DEBUG, "%s", error)
        cycles = backoff_cycles(self._failures, self._interval_s, self._jitter())
        # Half a cycle early: the polls of a cycle begin at slightly different moments after its tick.
        self._ask_at = begin + (cycles - 0.5) * self._interval_s
