"""The parts of a running collector put together, and taken apart again."""

from __future__ import annotations

import asyncio
import logging
import runpy
import socket
import sys
import threading
import time

import pytest

from power_collector import service
from power_collector.contract import Point
from power_collector.line_protocol import parse
from power_collector.store import Store
from power_collector.stuck_database import CHECK_S


class StopAfter:
    """Sets the stop when so many cycles are through, as the service manager hears it."""

    def __init__(self, cycles: int) -> None:
        self.stop = asyncio.Event()
        self.told: list[str] = []
        self._left = cycles

    def __call__(self, state: str) -> None:
        self.told.append(state)
        if state == "WATCHDOG=1":
            self._left -= 1
            if not self._left:
                self.stop.set()


def stored(config) -> list[Point]:
    with Store(config.store.path, max_mb=256, max_age_days=30) as store:
        return [parse(line) for batch in store.batches() for line in batch.lines()]


async def test_what_was_in_memory_is_in_the_store_after_the_stop(make_config, clock, unused_tcp_port) -> None:
    """No device answers: its status is stored all the same, each cycle's at its tick."""
    config = make_config(unused_tcp_port, interval_s=1)
    manager = StopAfter(3)
    assert await asyncio.wait_for(service.run(config, manager.stop, clock=clock, notify=manager), 30)
    points = stored(config)
    times = [point.time for point in points if point.measurement == "device_status"]
    assert times[:3] == [1_764_000_000 + seconds for seconds in (1, 2, 3)]
    assert {point.fields["up"] for point in points if point.measurement == "device_status"} == {0}
    assert manager.told[0] == "READY=1"


async def test_with_an_influxdb_the_points_go_there_and_none_stays(
    make_config, clock, unused_tcp_port, influx, influx_config, tmp_path, monkeypatch
) -> None:
    sleep = clock.sleep

    async def never_the_minute_of_the_watch(seconds: float) -> None:
        # This clock jumps for whoever sleeps: the loop alone is to move it.
        await (asyncio.Event().wait() if seconds == CHECK_S else sleep(seconds))

    monkeypatch.setattr(clock, "sleep", never_the_minute_of_the_watch)
    table = (
        f'[influxdb]\nurl = "{influx.url}"\norg = "Parks Ranch"\nbucket = "power"\n'
        f'token_file = "{influx_config.token_file}"\n'
    )
    config = make_config(unused_tcp_port, interval_s=1, more=table)
    manager = StopAfter(3)
    running = service.run(config, manager.stop, clock=clock, runtime_directory=tmp_path, notify=manager)
    assert await asyncio.wait_for(running, 30)
    times = sorted(int(time) for series, time in influx.points if series.startswith("device_status,"))
    assert times[:3] == [1_764_000_000 + seconds for seconds in (1, 2, 3)]
    assert stored(config) == []


async def test_a_writer_that_does_not_end_is_said(
    make_config, clock, unused_tcp_port, monkeypatch, caplog
) -> None:
    real = service.WriterThread.stop

    def too_late(self) -> bool:
        real(self)
        return False

    monkeypatch.setattr(service.WriterThread, "stop", too_late)
    manager = StopAfter(1)
    config = make_config(unused_tcp_port, interval_s=1)
    assert not await asyncio.wait_for(service.run(config, manager.stop, clock=clock, notify=manager), 30)
    (said,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert "what was in memory may be lost" in said


async def test_names_that_are_looked_up_in_vain_do_not_keep_the_end_waiting(
    make_config, clock, monkeypatch
) -> None:
    given_up = threading.Event()
    real = socket.getaddrinfo

    def look_up(host: str, *arguments, **options):
        if host.endswith(".example"):
            given_up.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "no name server answers")
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    config = make_config(*range(1, 41), interval_s=1)
    named = [device.model_copy(update={"host": f"{device.name}.example"}) for device in config.devices]
    manager = StopAfter(1)
    began = time.monotonic()
    running = service.run(
        config.model_copy(update={"devices": named}), manager.stop, clock=clock, notify=manager
    )
    try:
        assert await asyncio.wait_for(running, 25)
        assert time.monotonic() - began < 10
    finally:
        given_up.set()
    assert stored(config)


def test_the_package_is_the_command_too(make_config, tmp_path, monkeypatch, capsys) -> None:
    make_config(1502)
    path = str(tmp_path / "config.toml")
    monkeypatch.setattr(sys, "argv", ["power-collector", "check-config", path])
    with pytest.raises(SystemExit) as exit_status:
        runpy.run_module("power_collector", run_name="__main__")
    assert exit_status.value.code == 0
    assert path in capsys.readouterr().out
