"""Puts the parts of a running collector together, and takes them apart again."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from power_collector import devices
from power_collector.backlog import Backlog
from power_collector.clock import Clock, SystemClock
from power_collector.collector import Collector
from power_collector.config import Config
from power_collector.host import Host
from power_collector.influx import InfluxClient
from power_collector.known_good import KnownGoodFile
from power_collector.site import Site
from power_collector.stuck_database import Overheard, StuckDatabase, on_this_machine
from power_collector.time_source import TimeSource
from power_collector.writer import Client, Writer, WriterThread

logger = logging.getLogger(__name__)


@asynccontextmanager
async def stop_on_signals() -> AsyncIterator[asyncio.Event]:
    """Give an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def run(
    config: Config,
    stop: asyncio.Event,
    *,
    clock: Clock | None = None,
    runtime_directory: Path | None = None,
    notify: Callable[[str], object] = lambda state: None,
) -> bool:
    """Run until `stop` is set; return whether everything in memory was brought to safety at the end.

    Raises:
        Exception: whatever ended the loop.
    """
    clock = clock or SystemClock()
    client: Client | None = InfluxClient(config.influxdb) if config.influxdb else None
    stuck: StuckDatabase | None = None
    if client and config.influxdb and runtime_directory and on_this_machine(config.influxdb.url):
        stuck = StuckDatabase(config.influxdb.url, runtime_directory, clock)
        client = Overheard(client, stuck)
    writer = WriterThread(Writer(Backlog(config.store, clock), client, clock), clock)
    state_directory = config.store.path.parent
    site = Site(config.site, state_directory) if config.site else None
    collector = Collector(
        config,
        [(device, devices.make(device, clock.monotonic)) for device in config.devices],
        writer,
        clock=clock,
        time_source=TimeSource(clock, KnownGoodFile(state_directory)),
        site=site,
        host=Host(config.host) if config.host else None,
        runtime_directory=runtime_directory,
        notify=notify,
    )
    logger.info(
        "%d devices every %d s into %s",
        len(config.devices),
        config.interval_s,
        f"{config.influxdb.url}, bucket {config.influxdb.bucket}" if config.influxdb else config.store.path,
    )
    writer.start()
    watch = asyncio.create_task(stuck.watch()) if stuck else None
    try:
        await collector.run(stop)
    finally:
        if watch is not None:
            watch.cancel()
        # Not in a thread of the loop's: all of them may be busy with names that are looked up in vain.
        saved = writer.stop()
        if not saved:
            logger.error("the writer did not end in time; what was in memory may be lost")
        if site is not None:
            site.save()
    return saved
