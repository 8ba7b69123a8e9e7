"""Collector, writer, store and database together, while the machine does not know what time it is."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from power_collector import clock_mark
from power_collector.backlog import Backlog
from power_collector.collector import Collector
from power_collector.config import StoreConfig
from power_collector.devices.base import ChargeControllerReading, NoAnswerError, OutbackReading, SystemReading
from power_collector.influx import InfluxClient
from power_collector.known_good import KnownGoodFile
from power_collector.line_protocol import parse
from power_collector.store import Store
from power_collector.time_source import TimeSource
from power_collector.writer import Writer

TRUE = 1_800_000_000
HOUR = 3600
INTERVAL = 15


class Site:
    """A Pi with a MATE3s and a charger, and what reaches its database. The charger's power counts cycles."""

    def __init__(self, clock, make_config, fake_device, influx, client, directory: Path) -> None:
        self.clock = clock
        clock.start = TRUE
        self.backlog: Backlog | None = None
        self.influx = influx
        self.directory = directory
        self.box_wrong: float | None = 0.0
        """How wrong the MATE3s's clock is; None: there is no MATE3s."""
        self.store = StoreConfig(path=directory / "store.sqlite", max_mb=100, max_age_days=30)
        self._config = make_config(2001, hub=2000)
        self._make_device = fake_device
        self._client = client
        self.read: dict[int, float] = {}
        """The number of each cycle -> the true time of its begin."""

    def boot(self, *, wrong: float = 0.0, synchronises: bool = False, boot_id: str = "this-boot") -> None:
        """Start the machine with a clock that is so wrong, and the service on it."""
        self.clock.step, self.clock.synchronises, self.clock.boot_id = wrong, synchronises, boot_id
        if self.backlog is not None:
            self.kill()
            self.clock.start += self.clock.elapsed + 30
            self.clock.elapsed = 0.0
        self.start()

    def start(self) -> None:
        """Start the service."""
        self.backlog = Backlog(self.store, self.clock)
        self.writer = Writer(self.backlog, self._client, self.clock)
        self.devices = [self._make_device(), self._make_device()]
        self.collector = Collector(
            self._config,
            list(zip(self._config.devices, self.devices, strict=True)),
            self.writer,
            clock=self.clock,
            time_source=TimeSource(self.clock, KnownGoodFile(self.directory)),
            runtime_directory=self.directory,
        )

    @property
    def true(self) -> float:
        return self.clock.start + self.clock.elapsed

    async def run(self, seconds: float) -> None:
        """Let cycles come and the writer do its work."""
        end = self.clock.elapsed + seconds
        while self.clock.elapsed + 0.001 < end:
            time = self.clock.monotonic() + self.collector._time.offset
            self.rest(self.collector._ticks.wait_s(time))
            number = len(self.read) + 1
            self.devices[0].script = [self._hub()]
            self.devices[1].script = [ChargeControllerReading({"output_power_w": float(number)})]
            self.read[number] = self.true
            await self.collector.cycle()
            self.settle()

    def rest(self, seconds: float) -> None:
        """Let the writer do what is due meanwhile."""
        end = self.clock.elapsed + seconds
        while self.clock.elapsed < end:
            self.clock.advance(min(self.settle(), end - self.clock.elapsed))

    def settle(self) -> float:
        for _ in range(1000):
            if (delay := self.writer.step()) > 0:
                return delay
        pytest.fail("the writer never comes to rest")

    def _hub(self) -> object:
        if self.box_wrong is None:
            return NoAnswerError("mate3s: no answer")
        says = datetime.fromtimestamp(int(self.true + self.box_wrong), UTC)
        return OutbackReading((), dc_voltage_v=52.0, system=SystemReading({}, says, self.clock.monotonic()))

    def kill(self) -> None:
        """Let the process die with what it has in memory."""
        assert self.backlog is not None
        assert self.backlog._store is not None
        self.backlog._store.close()

    @property
    def points(self) -> dict[int, float]:
        """What the database has: cycle number -> time."""
        found: dict[int, float] = {}
        for (series, time), fields in self.influx.points.items():
            if series.startswith("charge_controller"):
                point = parse(f"{series} {fields} {time}")
                found[int(point.fields["output_power_w"])] = point.time
        return found

    @property
    def sources(self) -> dict[int, int]:
        """`clock_source` by time, of what the database has."""
        return {
            int(time): int(parse(f"{series} {fields} {time}").fields["clock_source"])
            for (series, time), fields in self.influx.points.items()
            if series == "collector_status"
        }

    @property
    def last_status(self) -> Mapping[str, float]:
        series, time = "collector_status", str(max(self.sources))
        return parse(f"{series} {self.influx.points[series, time]} {time}").fields

    @property
    def box_offsets(self) -> list[float]:
        """Each `clock_offset_s` of the database."""
        return [
            parse(f"{series} {fields} {time}").fields["clock_offset_s"]
            for (series, time), fields in self.influx.points.items()
            if series.startswith("outback_system")
        ]

    def errors(self) -> dict[int, float]:
        """Cycle number -> how wrong its time in the database is."""
        return {number: time - self.read[number] for number, time in self.points.items()}

    def undated_rows(self) -> int:
        with Store(self.store.path, max_mb=100, max_age_days=30) as store:
            return sum(batch.undated is not None for batch in store.batches())


@pytest.fixture
def site(clock, make_config, fake_device, influx, influx_config, tmp_path) -> Iterator[Site]:
    directory = tmp_path / "state"
    made = Site(clock, make_config, fake_device, influx, InfluxClient(influx_config), directory)
    yield made
    if made.backlog is not None:
        made.backlog.close()


def right(site: Site, cycles: int) -> None:
    """All cycles are in the database with their right times, rounded to the interval, one a time."""
    errors = site.errors()
    assert sorted(errors) == list(range(1, cycles + 1))
    assert max(map(abs, errors.values())) <= INTERVAL / 2 + 1
    assert all(time % INTERVAL == 0 for time in site.points.values())
    assert len(set(site.points.values())) == cycles


async def test_ten_hours_off_with_a_mate3s_loses_nothing_and_misdates_nothing(site) -> None:
    site.boot(wrong=-10 * HOUR - 7)
    await site.run(110)
    assert site.points == {}
    assert site.undated_rows() == 1  # a minute is on the disk, the rest in memory
    await site.run(490)
    right(site, len(site.read))
    assert set(site.sources.values()) == {2}
    assert site.backlog.points == 0
    # What waited says nothing of the MATE3s's clock: there was none to compare it with.
    assert 0 < len(site.box_offsets) < len(site.read)
    assert max(map(abs, site.box_offsets)) <= INTERVAL / 2 + 1


async def test_a_system_clock_that_is_set_at_the_mark_moves_no_point(site) -> None:
    site.boot(wrong=-10 * HOUR - 7)
    mark = site.directory / clock_mark.NAME
    await site.run(110)
    assert not mark.exists()
    await site.run(40)
    says = int(mark.read_text())
    assert TRUE + 120 <= says < TRUE + 120 + INTERVAL  # by the very cycle that took the MATE3s's time
    mark.unlink()
    site.clock.step = 0.0
    await site.run(1800)
    assert not mark.exists()
    right(site, len(site.read))
    assert set(site.sources.values()) == {2}
    assert site.last_status["clock_steps"] == 0


async def test_a_clock_that_agrees_with_the_mate3s_is_used_from_the_first_cycle(site) -> None:
    site.boot(wrong=-100)
    await site.run(150)
    assert set(site.errors().values()) == {-100}  # the system's time, which agrees
    assert len(site.errors()) == len(site.read)
    assert set(site.sources.values()) == {2}


@pytest.mark.parametrize("off", [-10 * HOUR, 10 * HOUR, -7.4, 22.6])
async def test_ntp_arrives_before_the_points_have_to_go(site, off, caplog) -> None:
    caplog.set_level(logging.INFO)
    site.box_wrong = None
    site.boot(wrong=off)
    await site.run(100)
    assert site.points == {}
    site.clock.step, site.clock.synchronises = 0.0, True
    await site.run(200)
    right(site, len(site.read))
    assert set(site.sources.values()) == {1}
    assert "the clock was set" not in caplog.text  # nothing that is stored was wrong
    assert site.last_status["clock_steps"] == 0


async def test_ntp_arrives_late_what_was_written_unverified_stays(site, caplog) -> None:
    site.box_wrong = None
    site.boot(wrong=-10 * HOUR)
    await site.run(600)
    assert set(site.sources.values()) == {3}
    assert set(site.errors().values()) == {-10 * HOUR}
    before = dict(site.points)
    site.clock.step, site.clock.synchronises = 0.0, True
    await site.run(600)
    assert {number: site.points[number] for number in before} == before
    assert {error for number, error in site.errors().items() if number not in before} == {0}
    assert site.sources[max(site.sources)] == 1
    assert site.writer.counters.dropped_points == 0


async def test_a_mate3s_with_a_wrong_clock_ends_with_unverified_points(site, caplog) -> None:
    site.box_wrong = -20 * 365 * 86400.0
    site.boot(wrong=-10 * HOUR)
    await site.run(300)
    assert set(site.sources.values()) == {3}
    assert set(site.errors().values()) == {-10 * HOUR}
    assert "a MATE3s that says 2007" in caplog.text


async def test_a_reboot_in_between_leaves_the_first_boots_points_unverified(site) -> None:
    site.box_wrong = None
    site.boot(wrong=-10 * HOUR)
    await site.run(90)
    cut = [number for number, at in site.read.items() if at <= TRUE + 60]
    site.boot(wrong=-10 * HOUR, boot_id="next-boot")
    assert site.backlog.points > 0
    await site.run(60)
    assert site.points == {}  # neither boot's
    site.clock.step, site.clock.synchronises = 0.0, True
    await site.run(60)
    errors = site.errors()
    assert sorted(number for number in errors if number <= 6) == cut
    assert {errors[number] for number in cut} == {-10 * HOUR}
    assert max(abs(error) for number, error in errors.items() if number > 6) <= INTERVAL / 2
    sources = site.sources
    assert {sources[int(site.points[number])] for number in cut} == {3}
    assert {source for at, source in sources.items() if at > TRUE} == {1}
    assert site.undated_rows() == 0


async def test_a_restart_in_the_same_boot_dates_what_the_first_process_stored(site) -> None:
    site.box_wrong = None
    site.boot(wrong=-10 * HOUR)
    await site.run(90)
    site.writer.finish(site.clock.monotonic())
    assert site.points == {}
    site.clock.advance(5)
    site.start()
    await site.run(60)
    site.clock.step, site.clock.synchronises = 0.0, True
    await site.run(30)
    right(site, len(site.read))
    assert set(site.sources.values()) == {1}


async def test_while_the_database_is_away_too_nothing_is_misdated(site) -> None:
    site.influx.usual = (503, {}, "")
    site.boot(wrong=-10 * HOUR)
    await site.run(1800)
    assert site.undated_rows() == 0  # the store has been told
    site.influx.usual = None
    await site.run(120)
    right(site, len(site.read))


async def test_what_a_power_cut_may_cost_is_a_minute_here_too(site) -> None:
    site.box_wrong = None
    site.boot(wrong=-10 * HOUR)
    for _ in range(7):
        await site.run(15)
        with Store(site.store.path, max_mb=100, max_age_days=30) as store:
            lines = [line for batch in store.batches() for line in batch.lines()]
        kept = sum("charge_controller" in line for line in lines)
        assert len(site.read) - kept <= 60 / INTERVAL


async def test_a_system_clock_in_the_future_makes_nothing_too_old(site) -> None:
    site.influx.usual = (503, {}, "")
    site.boot(synchronises=True)
    await site.run(600)
    site.boot(wrong=5 * 365 * 86400.0, boot_id="next-boot")
    await site.run(300)
    site.influx.usual = None
    await site.run(120)
    assert set(range(1, 37)) <= set(site.points)
    assert site.writer.counters.dropped_points == 0


async def test_after_a_step_back_the_later_reading_wins_whatever_waits(site, caplog) -> None:
    site.boot(synchronises=True)
    await site.run(150)
    site.influx.usual = (503, {}, "")
    await site.run(150)
    site.clock.step = -240.0
    await site.run(150)
    site.influx.usual = None
    await site.run(300)
    assert site.backlog.points == 0
    by_time = {time: number for number, time in site.points.items()}
    # Every time after the step belongs to the later cycle.
    after = {number: at - 240 for number, at in site.read.items() if number > 20}
    assert {by_time[at] for at in after.values()} == set(after)
    (warning,) = [r.message for r in caplog.records if "set back" in r.message]
    assert "set back: from 2027-01-15 08:05:15 UTC to 2027-01-15 08:01:15 UTC" in warning
    status = site.last_status
    assert status["clock_steps"] == 1
    # 16 cycles came at times that had been there; each has the same points.
    assert status["replaced_points"] == 16 * status["points"]


async def test_the_clock_is_in_latest_json(site, tmp_path) -> None:
    site.boot(wrong=-10 * HOUR)
    site.collector._runtime_directory = tmp_path

    def clock() -> dict[str, object]:
        return json.loads((tmp_path / "latest.json").read_text())["clock"]

    await site.run(15)
    assert clock() == {
        "time": None,
        "system_time": site.clock.wall(),
        "source": 0,
        "offset_s": None,
        "steps": 0,
        "replaced_points": 0,
    }
    await site.run(150)
    assert clock()["source"] == 2
    assert clock()["time"] == site.true
    assert clock()["offset_s"] == 0
