"""The drivers: each reads one kind of device and returns a reading. Nothing here can write to hardware."""

from __future__ import annotations

import time
from collections.abc import Callable

from power_collector.config import DeviceConfig
from power_collector.devices.base import Device
from power_collector.devices.outback import Outback
from power_collector.devices.tristar import TriStar


def make(config: DeviceConfig, clock: Callable[[], float] = time.monotonic) -> Device:
    """Return the driver for a device; it connects at its first read. `clock` is monotonic, in seconds."""
    if config.driver == "outback":
        return Outback(config, clock)
    return TriStar(config)
