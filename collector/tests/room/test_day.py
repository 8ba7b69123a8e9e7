"""A whole day of the simulated room: its energies, its night, and when its chargers are expected."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from power_collector.config import SiteConfig
from power_collector.site import Site

from .conftest import NOON, ZONE

HOUR = 3600
MIDNIGHT = int(NOON) + 12 * HOUR
"""Of the day that is looked at: the next one."""


async def test_a_day_from_noon_to_noon_and_the_evening(ranch, tmp_path: Path) -> None:
    site = Site(SiteConfig(latitude=35.0, longitude=-119.0, timezone=str(ZONE)), tmp_path)
    async with ranch(interval_s=300, site=site) as one:
        one.room.change("mate3s", generator_hours=(20, 21))
        before = await one.cycles(12 * 12 - 1)
        day = await one.cycles(24 * 12)
        (after,) = await one.cycles(1)
        at = one.room.at

        assert day[0].time == MIDNIGHT
        assert {point.time for written in day[1:] for point in written.of("daily_energy")} == {MIDNIGHT}
        closed = {p.tags["device"]: p.fields for p in after.of("daily_energy") if p.time == MIDNIGHT}
        end = at(MIDNIGHT + 24 * HOUR - 1)
        totals = {written.time: written.one("power_room_totals").fields for written in day}
        for number in range(3):
            truth = end.chargers[number].today_wh / 1000
            assert closed[f"sc{number + 1}"]["solar_kwh"] == pytest.approx(truth, abs=0.05)
        output, bought, charged = (
            sum(getattr(inverter, f"{name}_today_wh") for inverter in end.inverters) / 1000
            for name in ("output", "buy", "charge")
        )
        assert closed["mate3s"]["load_kwh"] == pytest.approx(output + bought - charged, abs=0.5)
        assert closed["mate3s"]["generator_kwh"] == pytest.approx(bought, abs=0.4)
        assert bought > 5
        running = [time for time, fields in totals.items() if fields["generator_power_kw"] > 5]
        assert {datetime.fromtimestamp(time, ZONE).hour for time in running} == {20}

        solar = sum(charger.today_wh for charger in end.chargers) / 1000
        assert totals[MIDNIGHT + 4 * HOUR]["solar_today_kwh"] == 0.0, "yesterday's, until the sun comes"
        assert totals[MIDNIGHT + 23 * HOUR]["solar_today_kwh"] == pytest.approx(solar, abs=0.1)
        # As the chargers and the inverters tell it: without the inverters' losses (7 %) and own use.
        charged = sum(max(at(time).battery_w, 0) for time in totals) / 12 / 1000
        discharged = sum(max(-at(time).battery_w, 0) for time in totals) / 12 / 1000
        last = totals[MIDNIGHT + 24 * HOUR - 300]
        assert charged < last["battery_in_today_kwh"] < 1.2 * charged + 1
        assert 0.8 * discharged - 1 < last["battery_out_today_kwh"] < discharged

        expected = {written.time for written in day if written.status("sc1").get("expected")}
        hours = {datetime.fromtimestamp(time, ZONE).hour for time in expected}
        assert hours == set(range(6, 20))
        assert all(written.status("mate3s")["expected"] == 1 for written in before + day)

        night = [
            w.time for w in before + day if not w.status("sc1")["expected"] and w.time < MIDNIGHT + 8 * HOUR
        ]
        lowest = min(totals[time]["battery_voltage"] for time in night if time in totals)
        assert totals[MIDNIGHT + 12 * HOUR]["battery_voltage_night_min"] == pytest.approx(lowest, abs=0.2)
