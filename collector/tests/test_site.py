"""Sun, night and day together, over restarts, and with a disk that fails."""

from __future__ import annotations

import json
import logging
import os
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from power_collector.config import DeviceConfig, SiteConfig
from power_collector.devices.base import ChargeControllerReading, OutbackReading
from power_collector.points import Poll
from power_collector.site import EVERY_S, NAME, Site

SITE = SiteConfig(latitude=35.0, longitude=-119.0, timezone="America/Los_Angeles")
NOON = int(datetime(2026, 6, 24, 12, tzinfo=ZoneInfo(SITE.timezone)).timestamp())
MATE = DeviceConfig(name="mate3s", driver="outback", host="192.0.2.100", inverters=1)
CHARGER = DeviceConfig(name="sc1", driver="tristar-mppt-600v", host="192.0.2.101")


def polls(voltage: float = 52.0, today_kwh: float = 5.0) -> list[Poll]:
    charger = {"today_kwh": today_kwh, "charge_state": 5, "output_power_w": 1000.0}
    return [
        Poll(MATE, OutbackReading((), dc_voltage_v=voltage), 20.0, 0, 0.0),
        Poll(CHARGER, ChargeControllerReading(charger), 20.0, 0, 0.0),
    ]


def test_noon_and_night(tmp_path: Path) -> None:
    site = Site(SITE, tmp_path)
    by_day, points = site.look(polls(), NOON)
    assert by_day.sun_works is True
    assert {name: value for name, value in by_day.totals.items() if value is not None} == {
        "solar_today_kwh": 5.0
    }
    assert [(point.measurement, point.time) for point in points] == [("daily_energy", NOON - 12 * 3600)]
    for hour in range(1, 11):
        site.look(polls(55.0 - hour), NOON + hour * 3600)
    at_night, _ = site.look(polls(53.0), NOON + 11 * 3600)
    assert at_night.sun_works is False
    assert at_night.totals["battery_voltage_night_min"] == 45.0


def test_the_state_is_written_hourly_and_at_the_stop(tmp_path: Path, monkeypatch) -> None:
    written: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (written.append(time), fsync(fd)))
    time = NOON
    site = Site(SITE, tmp_path)
    for time in range(NOON, NOON + 2 * EVERY_S + 1, 15):
        site.look(polls(), time)
    assert written == [NOON, NOON + EVERY_S, NOON + 2 * EVERY_S]
    time += 600
    site = Site(SITE, tmp_path)
    site.look(polls(today_kwh=6.0), time)
    assert len(written) == 3, "also over restarts"
    site.save()
    assert len(written) == 4
    assert {path.name for path in tmp_path.iterdir()} == {NAME}


def test_a_restart_goes_on(tmp_path: Path) -> None:
    site = Site(SITE, tmp_path)
    site.look(polls(), NOON)
    site.save()
    site = Site(SITE, tmp_path)
    surroundings, _ = site.look(polls(today_kwh=6.0), NOON + 1800)
    assert surroundings.totals["solar_today_kwh"] == 6.0


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", '{"time": 1, "night": {}, "energy": {}}', "\x00" * 100]
)
def test_a_state_that_a_power_cut_tore_is_told_and_replaced(tmp_path: Path, caplog, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    site = Site(SITE, tmp_path)
    assert NAME in caplog.text
    site.look(polls(), NOON)
    assert json.loads((tmp_path / NAME).read_text())["time"] == NOON


def test_a_disk_that_takes_nothing_is_told_once(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "file").write_text("")
    site = Site(SITE, tmp_path / "file")
    caplog.clear()
    for time in range(NOON, NOON + 4 * EVERY_S, 900):
        surroundings, _ = site.look(polls(), time)
        assert surroundings.totals["solar_today_kwh"] == 5.0
    site.save()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_without_a_look_nothing_is_written(tmp_path: Path) -> None:
    Site(SITE, tmp_path).save()
    assert list(tmp_path.iterdir()) == []
