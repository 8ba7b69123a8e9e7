"""A simulated power room over real Modbus TCP: for demos, rehearsals and tests."""

from __future__ import annotations

import asyncio
from datetime import tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

from power_collector.config import Config
from power_collector.simulator.room import ControlError, SimulatedRoom

__all__ = ["ControlError", "SimulatedRoom", "run"]


async def run(
    config: Config,
    *,
    bind: str | None = None,
    answers: Path | None = None,
    control: Path | None = None,
    zone: tzinfo | None = None,
) -> None:
    """Serve the devices of `config` by the wall clock until cancelled.

    `bind` replaces each device's host. `zone` is the room's; None: the configuration's, else the host's.
    `answers` gets a JSON line for each request. `control` names the file that switches faults; it is read
    again when it changes.

    Raises:
        OSError: an address cannot be had.
        ControlError: the control file is there and cannot be used.
    """
    if zone is None and config.site is not None:
        zone = ZoneInfo(config.site.timezone)
    async with SimulatedRoom(config, bind=bind, answers=answers, control=control, zone=zone):
        await asyncio.Event().wait()
