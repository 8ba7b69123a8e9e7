"""The day: balanced powers, the same again for the same seed and time, counters that roll."""

from datetime import UTC, datetime, timedelta

import pytest

from power_collector.simulator.day import ABSORPTION, FLOAT, MPPT, NIGHT, Day

HOUR = 3600


@pytest.fixture
def midnight(noon):
    return int(noon) - 12 * HOUR


@pytest.fixture
def day(zone):
    return Day(chargers=6, inverters=3, zone=zone)


def test_the_same_seed_and_time_give_the_same_room(day, zone, noon):
    again = Day(chargers=6, inverters=3, zone=zone)
    again.at(noon + 3 * 86400)  # what was asked before does not matter
    assert again.at(noon) == day.at(noon)
    assert Day(chargers=6, inverters=3, zone=zone, seed=2).at(noon) != day.at(noon)


def test_the_host_zone_is_used_where_none_is_given(noon):
    assert (
        Day(chargers=1, inverters=1).at(noon).local.utcoffset()
        == datetime.fromtimestamp(noon, UTC).astimezone().utcoffset()
    )


@pytest.mark.parametrize("hours", range(24))
def test_powers_balance(day, midnight, hours):
    moment = day.at(midnight + hours * HOUR)
    for charger in moment.chargers:
        assert charger.power_w == pytest.approx(charger.battery_v * charger.battery_a)
        assert charger.input_w == pytest.approx(charger.array_v * charger.array_a)
        assert 0 <= charger.power_w <= 3400
    for inverter in moment.inverters:
        assert inverter.load_w == pytest.approx(inverter.output_w + inverter.buy_w - inverter.charge_w)
    taken = sum(inverter.output_w for inverter in moment.inverters) / 0.93 + 3 * 30
    assert moment.battery_w == pytest.approx(sum(c.power_w for c in moment.chargers) - taken)
    assert 46 <= moment.battery_v <= 58


def test_a_clear_day_passes_through_the_charge_states(day, midnight):
    states = [day.at(midnight + minutes * 60).chargers[0].state for minutes in range(0, 1440, 10)]
    order = [state for i, state in enumerate(states) if i == 0 or state != states[i - 1]]
    assert order == [NIGHT, MPPT, ABSORPTION, FLOAT, NIGHT]


def test_energies_are_the_sums_of_their_powers(day, midnight):
    solar = output = 0.0
    for minute in range(1440):
        moment = day.at(midnight + minute * 60)
        solar += sum(charger.power_w for charger in moment.chargers) / 60
        output += sum(inverter.output_w for inverter in moment.inverters) / 60
    end = day.at(midnight + 86399)
    assert sum(charger.today_wh for charger in end.chargers) == pytest.approx(solar, rel=0.03)
    assert sum(inverter.output_today_wh for inverter in end.inverters) == pytest.approx(output, rel=0.03)
    charger = end.chargers[0]
    assert charger.today_wh / charger.today_ah == pytest.approx(54, abs=3)


def test_inverters_count_from_midnight_and_chargers_from_dawn(day, midnight):
    evening, night = day.at(midnight + 86399), day.at(midnight + 86401)
    assert night.inverters[0].output_today_wh < 1 < 5000 < evening.inverters[0].output_today_wh
    assert night.chargers[0].today_wh == evening.chargers[0].today_wh
    morning = day.at(midnight + 86400 + 8 * HOUR)
    assert 0 < morning.chargers[0].today_wh < 1000 < night.chargers[0].today_wh


def test_counters_never_fall_but_at_their_rollover(day, midnight):
    falls = {"charger": [], "inverter": []}
    before = day.at(midnight - HOUR)
    for time in range(midnight - HOUR + 20, midnight + 86400 - HOUR, 20):
        moment = day.at(time)
        if moment.chargers[0].today_wh < before.chargers[0].today_wh:
            falls["charger"].append(moment.local.hour)
        if moment.inverters[0].output_today_wh < before.inverters[0].output_today_wh:
            falls["inverter"].append(moment.local.hour)
        assert moment.chargers[0].total_wh > before.chargers[0].total_wh
        before = moment
    assert falls == {"charger": [7], "inverter": [0]}


@pytest.mark.parametrize(("date", "length"), [((2026, 3, 8), 23), ((2026, 11, 1), 25)])
def test_days_of_23_and_25_hours_end_at_midnight(day, zone, date, length):
    begin = datetime(*date, tzinfo=zone).timestamp()
    last = day.at(begin + length * HOUR - 1)
    assert last.local.time().replace(microsecond=0).isoformat() == "23:59:59"
    assert (
        last.inverters[0].output_today_wh > day.at(begin + (length - 1) * HOUR).inverters[0].output_today_wh
    )
    assert day.at(begin + length * HOUR).inverters[0].output_today_wh == 0


def test_without_sun_the_generator_keeps_the_battery_alive(zone, midnight):
    day = Day(chargers=0, inverters=2, zone=zone)
    moments = [day.at(midnight + half * HOUR / 2) for half in range(4 * 48)]
    running = [moment for moment in moments if moment.generator]
    assert 0 < len(running) < len(moments)
    for moment in running:
        inverter = moment.inverters[0]
        assert inverter.output_w == 0 < inverter.charge_w < inverter.buy_w
        assert inverter.buy_w == pytest.approx(inverter.load_w + inverter.charge_w)
    assert min(moment.soc for moment in moments) > 0.25
    assert max(moment.inverters[0].buy_today_wh for moment in moments) > 5000


def test_years_stay_in_bounds(zone, midnight):
    day = Day(chargers=6, inverters=3, zone=zone)
    for week in range(0, 53, 4):
        moment = day.at(midnight + timedelta(weeks=week).total_seconds() + 13 * HOUR)
        assert 46 <= moment.battery_v <= 58
        assert 0.05 <= moment.soc <= 1
        assert sum(charger.power_w for charger in moment.chargers) > 500


def test_the_generator_runs_in_the_hours_that_are_asked_for(day, midnight):
    assert not any(day.at(midnight + hour * HOUR).generator for hour in range(24))
    day.exercise = (17, 18.5)
    running = [quarter / 4 for quarter in range(96) if day.at(midnight + quarter * HOUR // 4).generator]
    assert running == [17, 17.25, 17.5, 17.75, 18, 18.25]
    bought = sum(inverter.buy_today_wh for inverter in day.at(midnight + 23 * HOUR).inverters)
    powers = [
        sum(inverter.buy_w for inverter in day.at(midnight + 17 * HOUR + 60 * minute).inverters)
        for minute in range(90)
    ]
    assert bought == pytest.approx(sum(powers) / 60, rel=0.03)
    assert min(powers) > 7500
    day.exercise = None
    assert day.at(midnight + 18 * HOUR).generator is False
