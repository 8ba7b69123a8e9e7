"""The loop with devices, clock and writer that the test gives it."""

from __future__ import annotations

import asyncio
import json
import logging

import psutil
import pytest

from power_collector import collector as collector_module
from power_collector.collector import Collector
from power_collector.config import HostConfig, SiteConfig
from power_collector.devices.base import (
    ChargeControllerReading,
    InverterReading,
    NoAnswerError,
    OutbackReading,
)
from power_collector.host import Host
from power_collector.line_protocol import parse
from power_collector.site import Site
from power_collector.time_source import PATIENCE_S
from power_collector.writer import Counters


class Sink:
    def __init__(self, clock, stop: asyncio.Event | None = None, stop_after: int = 3) -> None:
        self.counters = Counters(stored_points=5, dropped_points=6, rejected_points=7)
        self.cycles: list = []
        self.datings: list = []
        self.at: list[float] = []
        self._clock = clock
        self._stop = stop
        self._stop_after = stop_after

    def put(self, cycle) -> None:
        self.cycles.append(cycle)
        self.at.append(self._clock.wall())
        if self._stop is not None and len(self.cycles) >= self._stop_after:
            self._stop.set()

    def date(self, dating) -> None:
        self.datings.append(dating)

    def points(self, number: int = -1):
        return [parse(line) for line in self.cycles[number].lines]

    def status(self, device: str, number: int = -1):
        return next(
            p.fields
            for p in self.points(number)
            if p.measurement == "device_status" and p.tags["device"] == device
        )


def outback(inverters: int) -> OutbackReading:
    return OutbackReading(
        tuple(InverterReading(port, {"battery_voltage_v": 52.0}) for port in range(1, inverters + 1)),
        dc_voltage_v=52.4,
    )


@pytest.fixture
def setup(make_config, fake_device, clock):
    """Make a collector of `count` chargers, and a hub where `hub` is given."""

    def make(count: int = 2, *, hub: bool = False, interval_s: int = 15, sink=None, **options):
        config = make_config(*range(2001, 2001 + count), hub=2000 if hub else None, interval_s=interval_s)
        devices = [fake_device() for _ in config.devices]
        sink = sink or Sink(clock)
        pairs = list(zip(config.devices, devices, strict=True))
        return Collector(config, pairs, sink, clock=clock, **options), devices, sink

    return make


async def test_cycles_are_aligned_and_their_points_carry_the_tick(setup, clock) -> None:
    stop = asyncio.Event()
    clock.advance(4.25)
    subject, _, sink = setup(sink=Sink(clock, stop))
    await asyncio.wait_for(subject.run(stop), 5)
    begin = 1_764_000_000
    assert [cycle.time for cycle in sink.cycles][:3] == [begin + 15, begin + 30, begin + 45]
    assert sink.at[:3] == [begin + 15, begin + 30, begin + 45]
    assert {point.time for point in sink.points(2)} == {begin + 45}


async def test_a_clock_that_is_set_while_it_sleeps_counts_at_once(setup, clock, monkeypatch) -> None:
    stop = asyncio.Event()
    subject, _, sink = setup(sink=Sink(clock, stop))
    sleep = clock.sleep

    async def set_forward(seconds: float) -> None:
        await sleep(seconds)
        clock.step = 86_400.0 + 7

    monkeypatch.setattr(clock, "sleep", set_forward)
    await asyncio.wait_for(subject.run(stop), 5)
    assert [cycle.time for cycle in sink.cycles][:3] == [1_764_000_000 + 86_400 + s for s in (15, 30, 45)]


async def test_all_devices_are_asked_at_once_and_one_fault_touches_no_other(setup, clock) -> None:
    subject, devices, sink = setup(3)
    together = asyncio.Barrier(3)

    async def answers() -> ChargeControllerReading:
        await together.wait()
        return ChargeControllerReading({"output_power_w": 1000.0})

    async def fails() -> None:
        await together.wait()
        raise NoAnswerError("sc2: no answer")

    devices[0].script, devices[1].script, devices[2].script = [answers], [fails], [answers]
    await asyncio.wait_for(subject.cycle(), 5)
    read = {p.tags["device"] for p in sink.points() if p.measurement == "charge_controller"}
    assert read == {"sc1", "sc3"}
    assert (sink.status("sc1")["up"], sink.status("sc2")["up"]) == (1, 0)
    partial = next(p.fields for p in sink.points() if p.measurement == "solar_charger_partial")
    assert partial == {"power_kw": 2.0, "read": 2, "expected": 3}


async def test_status_points_come_each_cycle_also_in_back_off(setup, clock) -> None:
    subject, devices, sink = setup(1)
    devices[0].script = [NoAnswerError("sc1: no answer")] * 50
    for _ in range(20):
        await subject.cycle()
        clock.advance(15)
    assert devices[0].reads < 10
    assert len(sink.cycles) == 20
    assert [sink.status("sc1", n)["up"] for n in range(20)] == [0] * 20
    assert sink.status("sc1")["failures"] == devices[0].reads


async def test_the_collector_says_how_it_is(setup, clock) -> None:
    subject, devices, sink = setup(1, hub=True)
    devices[0].script = [outback(3)]
    await subject.cycle()
    status = sink.points()[-1]
    assert status.measurement == "collector_status"
    assert status.fields == {
        "cycle_ms": 0.0,
        "points": len(sink.cycles[-1].lines),
        "stored_points": 5,
        "dropped_points": 6,
        "rejected_points": 7,
        "inverters_read": 3,
        "inverters_expected": 3,
        "clock_source": 1,
        "memory_mb": pytest.approx(psutil.Process().memory_info().rss / 1e6, rel=0.1),
        "uptime_s": 0.0,
        "clock_steps": 0,
        "replaced_points": 0,
    }


async def test_missing_inverters_are_told_once_and_their_return_once(setup, clock, caplog) -> None:
    caplog.set_level(logging.INFO)
    subject, devices, _ = setup(0, hub=True)
    devices[0].script = [
        outback(3),
        outback(2),
        outback(2),
        NoAnswerError("mate3s: no"),
        outback(2),
        outback(3),
    ]
    for _ in range(6):
        await subject.cycle()
        clock.advance(15)
    said = [r.message for r in caplog.records if "inverters" in r.message]
    assert len(said) == 2
    assert said[0].startswith("mate3s: only 2 of 3 inverters")
    assert said[1] == "mate3s: all 3 inverters again"


async def test_latest_json_shows_the_cycle(setup, clock, tmp_path) -> None:
    subject, devices, sink = setup(2, runtime_directory=tmp_path)
    devices[1].script = [NoAnswerError("sc2: no answer")]
    await subject.cycle()
    table = json.loads((tmp_path / "latest.json").read_text())
    assert table["time"] == int(clock.wall())
    assert [(d["name"], d["up"], d["error"]) for d in table["devices"]] == [
        ("sc1", True, None),
        ("sc2", False, "sc2: no answer"),
    ]
    assert table["devices"][0]["address"] == "127.0.0.1:2001"
    assert table["counters"] == {"stored_points": 5, "dropped_points": 6, "rejected_points": 7}
    assert [(p["measurement"], p["tags"], p["fields"], p["time"]) for p in table["points"]] == [
        (p.measurement, p.tags, p.fields, p.time) for p in sink.points()
    ]
    assert [path.name for path in tmp_path.glob("*latest*")] == ["latest.json"]


async def test_a_runtime_directory_that_is_gone_costs_no_points_and_is_told_once(
    setup, clock, tmp_path, caplog
) -> None:
    subject, _, sink = setup(1, runtime_directory=tmp_path / "gone")
    for _ in range(3):
        await subject.cycle()
        clock.advance(15)
    assert len(sink.cycles) == 3
    assert [r.levelname for r in caplog.records if r.levelno > logging.INFO] == ["WARNING"]


async def test_the_service_manager_hears_ready_first_and_each_completed_cycle(setup, clock) -> None:
    stop = asyncio.Event()
    told: list[str] = []
    subject, devices, sink = setup(1, sink=Sink(clock, stop), notify=told.append)
    devices[0].script = [NoAnswerError("sc1: no answer")] * 9  # a dead device is not a hung loop
    await asyncio.wait_for(subject.run(stop), 5)
    assert told[0] == "READY=1"
    assert told.count("WATCHDOG=1") >= len(sink.cycles) - 1
    assert told[-1] in ("STOPPING=1", "WATCHDOG=1")
    assert "STOPPING=1" in told


async def test_a_cycle_that_never_ends_feeds_no_watchdog_and_ends_with_the_stop(
    setup, clock, monkeypatch
) -> None:
    monkeypatch.setattr(collector_module, "STOP_CYCLE_S", 0.05)
    stop = asyncio.Event()
    told: list[str] = []
    subject, devices, sink = setup(1, notify=told.append)
    asked = asyncio.Event()

    async def hang():
        asked.set()
        await asyncio.Event().wait()

    devices[0].script = [hang]
    running = asyncio.create_task(subject.run(stop))
    await asyncio.wait_for(asked.wait(), 5)
    stop.set()
    await asyncio.wait_for(running, 5)
    assert told == ["READY=1", "STOPPING=1"]
    assert sink.cycles == []


async def test_a_cycle_under_way_is_finished_at_the_stop(setup, clock) -> None:
    stop = asyncio.Event()
    subject, devices, sink = setup(1)

    async def stop_meanwhile():
        stop.set()
        await asyncio.sleep(0.01)
        return ChargeControllerReading({"output_power_w": 1.0})

    devices[0].script = [stop_meanwhile]
    await asyncio.wait_for(subject.run(stop), 5)
    assert len(sink.cycles) == 1
    assert sink.status("sc1")["up"] == 1


async def test_a_writer_that_failed_ends_the_loop(setup, clock) -> None:
    class Failed(Sink):
        def put(self, cycle) -> None:
            raise RuntimeError("the writer has failed")

    subject, _, _ = setup(1, sink=Failed(clock))
    with pytest.raises(RuntimeError, match="the writer has failed"):
        await asyncio.wait_for(subject.run(asyncio.Event()), 5)


async def test_250_devices_in_one_cycle(setup, clock) -> None:
    subject, _, sink = setup(250)
    await subject.cycle()
    assert sum(p.measurement == "charge_controller" for p in sink.points()) == 250


RANCH = SiteConfig(latitude=35.0, longitude=-119.0, timezone="America/Los_Angeles")


def of(sink, measurement: str) -> list[dict[str, int | float]]:
    return [dict(p.fields) for p in sink.points() if p.measurement == measurement]


def a_charger() -> ChargeControllerReading:
    return ChargeControllerReading({"output_power_w": 1000.0, "today_kwh": 3.0, "charge_state": 5})


async def test_sun_day_and_monitor_are_told_where_the_configuration_has_them(setup, clock, tmp_path) -> None:
    subject, devices, sink = setup(1, site=Site(RANCH, tmp_path), host=Host(HostConfig(), tmp_path))
    devices[0].script = [a_charger(), a_charger()]
    await subject.cycle()
    assert of(sink, "daily_energy") == [{"solar_kwh": 3.0}]
    assert of(sink, "power_room_totals") == [{"solar_today_kwh": 3.0}]
    assert sink.status("sc1")["expected"] == 1
    assert len(of(sink, "host")) == 1
    assert sink.cycles[-1].again, "what waits of the same day must not be sent after it"
    clock.advance(15)
    await subject.cycle()
    assert not sink.cycles[-1].again
    assert (of(sink, "daily_energy"), of(sink, "host")) == ([], [])


@pytest.mark.parametrize("waited_s", [0, PATIENCE_S + 1])
async def test_a_time_that_nobody_vouches_for_is_no_day(setup, clock, tmp_path, waited_s: float) -> None:
    """Not while it is not known, nor unverified: a day that is right already could be written over."""
    clock.synchronises = False
    subject, devices, sink = setup(1, hub=True, site=Site(RANCH, tmp_path), host=Host(HostConfig(), tmp_path))
    devices[0].script, devices[1].script = [outback(3), outback(3)], [a_charger(), a_charger()]
    await subject.cycle()
    clock.advance(waited_s)
    await subject.cycle()
    assert of(sink, "collector_status")[0]["clock_source"] == (3 if waited_s else 0)
    assert of(sink, "daily_energy") == []
    assert "solar_today_kwh" not in of(sink, "power_room_totals")[0]
    assert "expected" not in sink.status("sc1")
    assert sink.status("mate3s")["expected"] == 1
    assert list(tmp_path.glob("day.json")) == []


async def test_without_site_and_host_nothing_is_said_of_them(setup) -> None:
    subject, devices, sink = setup(1)
    devices[0].script = [a_charger()]
    await subject.cycle()
    assert not {"daily_energy", "host", "power_room_totals"} & {p.measurement for p in sink.points()}
    assert "expected" not in sink.status("sc1")
