"""One cycle of all devices, for `once`: nothing is stored."""

from __future__ import annotations

import asyncio

from power_collector import devices
from power_collector.clock import Clock, SystemClock
from power_collector.config import Config
from power_collector.contract import Point
from power_collector.points import Poll, Surroundings, build
from power_collector.poller import Poller
from power_collector.sun import Sun


async def read(config: Config, time: int, clock: Clock | None = None) -> tuple[list[Poll], list[Point]]:
    """Poll all devices at once; return the polls and their points with `time` (seconds since 1970)."""
    clock = clock or SystemClock()
    pollers = [
        Poller(device, devices.make(device, clock.monotonic), config.interval_s, clock)
        for device in config.devices
    ]
    polls = await asyncio.gather(*(poller.poll() for poller in pollers))
    sun_works = Sun(config.site).works(time) if config.site else None
    return polls, build(polls, time, surroundings=Surroundings(sun_works))
