"""The day's energy: counters with a day of their own, restarts, gaps, and what is integrated."""

from __future__ import annotations

import json
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_collector.config import DeviceConfig
from power_collector.contract import Point
from power_collector.daily_energy import COUNTER_GAP_S, EVERY_S, DailyEnergy, Energy
from power_collector.devices.base import ChargeControllerReading, InverterReading, OutbackReading
from power_collector.points import Poll

ZONE = ZoneInfo("America/Los_Angeles")
CHARGER = DeviceConfig(name="sc1", driver="tristar-mppt-600v", host="192.0.2.101")
OTHER = DeviceConfig(name="sc2", driver="tristar-mppt-600v", host="192.0.2.102")
MATE = DeviceConfig(name="mate3s", driver="outback", host="192.0.2.100", inverters=2)
NIGHT, MPPT = 3, 5


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZONE).timestamp())


def charger(
    today_kwh: float | None, device: DeviceConfig = CHARGER, *, state: int = MPPT, watts=None
) -> Poll:
    values = {"today_kwh": today_kwh, "charge_state": state, "output_power_w": watts}
    return Poll(device, ChargeControllerReading(values), 20.0, 0, 0.0)


def silent(device: DeviceConfig = CHARGER) -> Poll:
    return Poll(device, None, 20.0, 3, 60.0)


def inverter(port: int, output: float, generator: float = 0.0, charger: float = 0.0) -> InverterReading:
    return InverterReading(
        port,
        {
            "l1_output_today_kwh": output / 2,
            "l2_output_today_kwh": output / 2,
            "l1_generator_buy_today_kwh": generator,
            "l2_generator_buy_today_kwh": 0.0,
            "l1_grid_buy_today_kwh": 0.0,
            "charger_today_kwh": charger,
        },
    )


def mate(*inverters: InverterReading) -> Poll:
    return Poll(MATE, OutbackReading(inverters), 20.0, 0, 0.0)


def solar(energy: DailyEnergy, *polls: Poll) -> float | None:
    value = energy.today(polls).get("solar_today_kwh")
    return None if value is None else round(value, 6)


def a_day(points: list[Point]) -> dict[str, tuple[int, dict[str, float]]]:
    return {point.tags["device"]: (point.time, dict(point.fields)) for point in points}


def test_a_chargers_counter_of_yesterday_does_not_count_until_its_dawn() -> None:
    energy = DailyEnergy(ZONE)
    for time, counter, state, today in (
        ("2026-06-24 23:59:45", 18.0, NIGHT, 18.0),
        ("2026-06-25 00:00:00", 18.0, NIGHT, 0.0),
        ("2026-06-25 05:30:00", 18.0, NIGHT, 0.0),
        ("2026-06-25 05:45:00", 0.0, MPPT, 0.0),
        ("2026-06-25 06:45:00", 0.7, MPPT, 0.7),
        ("2026-06-25 08:45:00", 4.0, MPPT, 4.0),
    ):
        poll = charger(counter, state=state)
        energy.look([poll], at(time), None)
        assert solar(energy, poll) == today


@pytest.mark.parametrize(
    ("time", "state", "today"),
    [
        ("2026-06-25 03:00:00", NIGHT, 0.0),  # still yesterday's
        ("2026-06-25 09:00:00", MPPT, 5.0),
        ("2026-06-25 22:00:00", NIGHT, 5.0),  # after sunset
    ],
)
def test_what_a_first_look_says_of_the_day(time: str, state: int, today: float) -> None:
    energy = DailyEnergy(ZONE)
    poll = charger(5.0, state=state)
    energy.look([poll], at(time), None)
    assert solar(energy, poll) == today


def test_inverters_begin_their_day_at_the_mate3s_midnight() -> None:
    """It is 40 minutes late here, as one without daylight saving time is by an hour."""
    energy = DailyEnergy(ZONE)
    for time, output, load in (
        ("2026-06-24 23:50:00", 10.0, 20.0),
        ("2026-06-25 00:00:00", 10.1, 0.2),
        ("2026-06-25 00:39:45", 10.4, 0.8),
        ("2026-06-25 00:40:00", 0.0, 0.8),
        ("2026-06-25 01:40:00", 0.5, 1.8),
        ("2026-06-25 03:30:00", 1.5, 3.8),
    ):
        poll = mate(inverter(1, output), inverter(2, output))
        energy.look([poll], at(time), None)
        assert energy.today([poll])["load_today_kwh"] == pytest.approx(load)


def test_right_after_midnight_a_first_look_at_the_inverters_says_nothing_of_the_day() -> None:
    """A MATE3s without daylight saving time still counts the day before."""
    energy = DailyEnergy(ZONE)
    poll = mate(inverter(1, 10.0), inverter(2, 10.0))
    energy.look([poll], at("2026-06-25 00:30:00"), None)
    assert energy.today([poll])["load_today_kwh"] == 0.0


def test_load_is_output_and_what_was_bought_without_what_went_into_the_battery() -> None:
    energy = DailyEnergy(ZONE)
    poll = mate(inverter(1, 4.0, generator=6.0, charger=5.0), inverter(2, 3.0, generator=2.0, charger=1.0))
    points = energy.look([poll], at("2026-06-25 12:00:00"), None)
    assert a_day(points)["mate3s"] == (
        at("2026-06-25 00:00:00"),
        {"load_kwh": 9.0, "generator_kwh": 8.0, "grid_kwh": 0.0},
    )


def test_a_sum_needs_every_expected_inverter_once_a_day() -> None:
    energy = DailyEnergy(ZONE)
    one = mate(inverter(1, 4.0))
    energy.look([one], at("2026-06-25 12:00:00"), None)
    assert energy.today([one]).get("load_today_kwh") is None
    both = mate(inverter(1, 4.0), inverter(2, 3.0))
    energy.look([both], at("2026-06-25 12:00:15"), None)
    one = mate(inverter(1, 4.1))
    energy.look([one], at("2026-06-25 12:00:30"), None)
    assert energy.today([one])["load_today_kwh"] == pytest.approx(7.1)


def test_todays_energy_is_not_told_of_devices_that_are_silent() -> None:
    energy = DailyEnergy(ZONE)
    time = at("2026-06-25 12:00:00")
    energy.look([charger(5.0), charger(4.0, OTHER), mate(inverter(1, 1.0), inverter(2, 1.0))], time, 1.0)
    assert solar(energy, charger(5.5), silent(OTHER)) == 9.0, "what it gave before is not lost"
    assert energy.today([silent(), silent(OTHER), Poll(MATE, None, None, 3, 60.0)]) == {}


def test_a_point_a_device_and_day_is_written_anew_every_five_minutes_and_at_the_end_of_the_day() -> None:
    energy = DailyEnergy(ZONE)
    begin, midnight = at("2026-06-25 12:00:00"), at("2026-06-25 00:00:00")
    assert a_day(energy.look([charger(5.0)], begin, None)) == {"sc1": (midnight, {"solar_kwh": 5.0})}
    assert energy.look([charger(5.1)], begin + 15, None) == []
    assert a_day(energy.look([charger(5.2)], begin + EVERY_S, None)) == {
        "sc1": (midnight, {"solar_kwh": 5.2})
    }
    energy.look([charger(9.0)], at("2026-06-25 12:30:00"), None)
    energy.look([charger(9.9, state=NIGHT)], at("2026-06-25 13:00:00"), None)
    for hour in range(14, 24):
        energy.look([charger(10.0, state=NIGHT)], at(f"2026-06-25 {hour}:00:00"), None)
    energy.look([charger(10.0, state=NIGHT)], at("2026-06-25 23:59:45"), None)
    last, first = energy.look([charger(10.0, state=NIGHT)], at("2026-06-26 00:00:00"), None)
    assert (last.time, dict(last.fields)) == (midnight, {"solar_kwh": 10.0})
    assert (first.time, dict(first.fields)) == (at("2026-06-26 00:00:00"), {"solar_kwh": 0.0})


@pytest.mark.parametrize(("day", "hours"), [("2026-03-08", 23), ("2026-11-01", 25), ("2026-06-25", 24)])
def test_days_are_those_of_the_clock_on_the_wall(day: str, hours: int) -> None:
    energy = DailyEnergy(ZONE)
    midnight = at(f"{day} 00:00:00")
    ends = {
        point.time
        for time in range(midnight, midnight + hours * 3600, 1800)
        for point in energy.look([charger(1.0)], time, None)
    }
    assert ends == {midnight}
    after = energy.look([charger(1.0)], midnight + hours * 3600, None)
    assert {point.time for point in after} == {midnight, midnight + hours * 3600}


def test_a_clock_set_back_over_midnight_does_not_begin_the_day_before_again() -> None:
    energy = DailyEnergy(ZONE)
    midnight = at("2026-06-25 00:00:00")
    energy.look([charger(8.0, state=NIGHT)], midnight - 60, None)
    energy.look([charger(8.0, state=NIGHT)], midnight + 15, None)
    points = energy.look([charger(8.0, state=NIGHT)], midnight - 90, None)
    assert {point.time for point in points} <= {midnight}


def test_the_batterys_energy_is_integrated_each_way_and_not_over_gaps() -> None:
    energy = DailyEnergy(ZONE)
    poll = mate(inverter(1, 1.0), inverter(2, 1.0))
    time = at("2026-06-25 12:00:00")
    for second in range(0, 3601, 15):
        energy.look([poll], time + second, 2.0)
    for second in range(3615, 5401, 15):
        energy.look([poll], time + second, -4.0)
    today = energy.today([poll])
    assert today["battery_in_today_kwh"] == pytest.approx(2.0, abs=0.01)
    assert today["battery_out_today_kwh"] == pytest.approx(2.0, abs=0.02)
    energy.look([poll], time + 5400 + 3600, -4.0)
    assert energy.today([poll])["battery_out_today_kwh"] == today["battery_out_today_kwh"]


def test_without_a_counter_the_power_is_integrated_and_a_counter_that_comes_back_is_right() -> None:
    energy = DailyEnergy(ZONE)
    time = at("2026-06-25 12:00:00")
    energy.look([charger(5.0, watts=2000.0)], time, None)
    for second in range(15, 1801, 15):
        energy.look([charger(None, watts=2000.0)], time + second, None)
    assert solar(energy, charger(None)) == 6.0
    poll = charger(5.9, watts=2000.0)
    energy.look([poll], time + 1815, None)
    assert solar(energy, poll) == 5.9


def test_a_restart_goes_on_with_what_was_left() -> None:
    before = DailyEnergy(ZONE)
    time = at("2026-06-25 12:00:00")
    for second in range(0, 3601, 15):
        before.look([charger(5.0), mate(inverter(1, 1.0), inverter(2, 1.0))], time + second, 2.0)
    after = DailyEnergy(ZONE)
    after.restore(json.loads(json.dumps(before.state())))
    polls = [charger(6.5), mate(inverter(1, 1.5), inverter(2, 1.5))]
    after.look(polls, time + 3600 + 1800, 2.0)
    assert after.today(polls) == {
        "solar_today_kwh": pytest.approx(6.5),
        "load_today_kwh": pytest.approx(3.0),
        "generator_today_kwh": 0.0,
        "grid_today_kwh": 0.0,
        "battery_in_today_kwh": pytest.approx(2.0),
        "battery_out_today_kwh": 0.0,
    }


def test_a_restart_on_another_day_does_not_write_over_what_is_in_the_database() -> None:
    before = DailyEnergy(ZONE)
    before.look([charger(5.0)], at("2026-06-25 22:00:00"), None)
    after = DailyEnergy(ZONE)
    after.restore(json.loads(json.dumps(before.state())))
    points = after.look([charger(3.0)], at("2026-06-26 10:00:00"), None)
    assert len(points) == 1
    assert a_day(points) == {"sc1": (at("2026-06-26 00:00:00"), {"solar_kwh": 3.0})}


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"begin": 0, "devices": []},
        {"begin": "yesterday", "devices": {}},
        {"begin": 0, "devices": {"sc1": {"solar": {"total": 1.0}}}},
        {"begin": 0, "devices": {"sc1": {"solar": dict.fromkeys(Energy.__slots__, "much")}}},
    ],
)
def test_a_state_that_is_none_is_refused(state: dict[str, object]) -> None:
    with pytest.raises((AttributeError, KeyError, TypeError, ValueError)):
        DailyEnergy(ZONE).restore(state)


def test_a_counter_that_is_nothing_for_a_moment_counts_once() -> None:
    energy = DailyEnergy(ZONE)
    time = at("2026-06-25 12:00:00")
    for second, counter in ((0, 18.0), (15, 0.0), (30, 18.0), (45, 18.1)):
        energy.look([charger(counter)], time + second, None)
    assert solar(energy, charger(18.1)) == 18.1


def test_a_counter_that_falls_a_little_does_not_begin_its_day() -> None:
    energy = DailyEnergy(ZONE)
    time = at("2026-06-25 12:00:00")
    for second, counter in ((0, 8.0), (1800, 7.98), (3600, 8.1)):
        energy.look([charger(counter)], time + second, None)
    assert solar(energy, charger(8.1)) == pytest.approx(8.1, abs=0.03)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -500.0, 1e9])
def test_wild_values_do_not_count(value: float) -> None:
    energy = DailyEnergy(ZONE)
    time = at("2026-06-25 12:00:00")
    energy.look([charger(5.0, watts=100.0)], time, None)
    energy.look([charger(value, watts=value)], time + 15, None)
    assert solar(energy, charger(5.0)) == 5.0


STEPS = st.lists(
    st.tuples(
        st.integers(1, COUNTER_GAP_S // 4),  # seconds
        st.floats(0, 10),  # kW
        st.booleans(),  # whether it answers
        st.booleans(),  # whether its counter's day begins before the step
    ),
    max_size=60,
)


@given(STEPS, st.floats(0, 20), st.booleans())
def test_what_a_counter_counted_is_told_once(steps, before: float, days_begin: bool) -> None:
    """With days of its own, what came between its last reading and its midnight is told by nobody."""
    energy = Energy()
    time, counter, came = 0, before, 0.0
    energy.add(time, counter, None)
    for number, (seconds, power, answers, begins) in enumerate(steps):
        time += seconds
        counter = 0.0 if begins and days_begin else counter
        counter += power * seconds / 3600
        came += power * seconds / 3600
        if answers or number % 3 == 2 or number == len(steps) - 1:
            energy.add(time, counter, None)
    if days_begin:
        assert energy.kwh <= came + 1e-4
    else:
        assert energy.kwh == pytest.approx(came, abs=1e-4)
