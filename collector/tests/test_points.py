"""Readings -> points: what is summed, when, and what is left out."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from power_collector import points
from power_collector.config import DeviceConfig
from power_collector.contract import Point
from power_collector.devices.base import (
    ChargeControllerReading,
    InverterReading,
    OutbackReading,
    Reading,
    SystemReading,
    Values,
)

TIME = 1764000000
MATE = DeviceConfig(name="mate3s", driver="outback", host="192.0.2.100", inverters=2)


def charger(number: int, *, legacy: bool = True) -> DeviceConfig:
    return DeviceConfig(
        name=f"sc{number}",
        driver="tristar-mppt-600v",
        host=f"192.0.2.{100 + number}",
        legacy_measurement=f"solar_charger_{number}" if legacy else None,
    )


def poll(device: DeviceConfig, reading: Reading | None) -> points.Poll:
    return points.Poll(
        device, reading, 20.0 if reading else None, 0 if reading else 3, 0.0 if reading else 45.0
    )


def inverter(port: int, **values: float | int | None) -> InverterReading:
    typical: Values = {
        "l1_output_current_a": 5.0,
        "l2_output_current_a": 6.0,
        "l1_charge_current_a": 1.0,
        "l2_charge_current_a": 2.0,
        "output_power_kw": 1.3,
        "charge_power_kw": 0.4,
        "load_power_kw": 0.9,
        "battery_voltage_v": 52.0,
    }
    return InverterReading(port, {**typical, **values})


def build(*polls: points.Poll) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for point in points.build(polls, TIME):
        assert point.time == TIME
        found.setdefault(point.measurement, []).append(point)
    return found


def test_a_mate3s_gives_the_old_programs_points_totals_and_one_point_an_inverter() -> None:
    reading = OutbackReading(
        (inverter(1), inverter(2)), ac_current_raw=23, ac_power_raw=260, dc_voltage_v=52.4
    )
    found = build(poll(MATE, reading))
    assert found["mate3s"][0].fields == {"Inverter Current": 23, "Power Usage": 260, "Battery Voltage": 52.4}
    assert found["power_room_totals"][0].fields == {
        "total_output_current": 22.0,
        "total_charge_current": 6.0,
        "total_output_power_kw": 2.6,
        "total_charge_power_kw": 0.8,
        "total_load_power_kw": 1.8,
        "battery_voltage": 52.4,
        "battery_power_kw": -1.8,
    }
    assert [point.tags for point in found["inverter"]] == [
        {"device": "mate3s", "port": "1"},
        {"device": "mate3s", "port": "2"},
    ]


def test_the_batterys_power_is_what_chargers_and_inverters_leave_of_it() -> None:
    reading = OutbackReading((inverter(1, sell_power_kw=0.5), inverter(2, sell_power_kw=0.0)))
    silent = poll(charger(2), None)
    sun = poll(charger(1), ChargeControllerReading({"output_power_w": 3000.0}))
    # 3.0 of the sun + 0.8 charge - 2.6 output - 0.5 sold
    assert build(poll(MATE, reading), sun, silent)["power_room_totals"][0].fields["battery_power_kw"] == 0.7
    assert "battery_power_kw" not in build(poll(MATE, reading), silent)["power_room_totals"][0].fields
    one_inverter = OutbackReading((inverter(1),))
    assert "battery_power_kw" not in build(poll(MATE, one_inverter), sun)["power_room_totals"][0].fields


@pytest.mark.parametrize(
    ("selected", "generator", "grid"),
    [(1, 4.0, 0.0), (0, 0.0, 4.0), (None, None, None), (7, None, None)],
)
def test_what_is_bought_belongs_to_the_input_that_is_selected(
    selected: int | None, generator: float | None, grid: float | None
) -> None:
    buys = inverter(1, buy_power_kw=4.0, ac_input=selected)
    idle = inverter(2, buy_power_kw=0.0, ac_input=0)
    fields = build(poll(MATE, OutbackReading((buys, idle))))["power_room_totals"][0].fields
    assert (fields.get("generator_power_kw"), fields.get("grid_power_kw")) == (generator, grid)
    one = build(poll(MATE, OutbackReading((buys,))))["power_room_totals"][0].fields
    assert "generator_power_kw" not in one
    assert "grid_power_kw" not in one


def test_what_is_sold_is_less_than_nothing_bought() -> None:
    sells = [inverter(port, buy_power_kw=0.0, sell_power_kw=1.5, ac_input=0) for port in (1, 2)]
    fields = build(poll(MATE, OutbackReading(tuple(sells))))["power_room_totals"][0].fields
    assert (fields["generator_power_kw"], fields["grid_power_kw"]) == (0.0, -3.0)


@pytest.mark.parametrize(("sun_works", "expected"), [(True, 1), (False, 0), (None, None)])
def test_chargers_are_expected_while_the_sun_works_and_inverters_always(
    sun_works: bool | None, expected: int | None
) -> None:
    found = points.build(
        [poll(MATE, None), poll(charger(1), None)], TIME, surroundings=points.Surroundings(sun_works)
    )
    mate, sc1 = (p.fields for p in found if p.measurement == "device_status")
    assert (mate["expected"], sc1.get("expected")) == (1, expected)


def test_what_day_and_night_tell_of_the_room_needs_no_inverters() -> None:
    further = points.Surroundings(totals={"battery_voltage_night_min": 50.8, "solar_today_kwh": 4.0})
    found = points.build([poll(MATE, None)], TIME, surroundings=further)
    (totals,) = (p.fields for p in found if p.measurement == "power_room_totals")
    assert totals == {"battery_voltage_night_min": 50.8, "solar_today_kwh": 4.0}


def test_totals_need_every_inverter_the_battery_voltage_does_not() -> None:
    found = build(poll(MATE, OutbackReading((inverter(2),))))
    assert found["power_room_totals"][0].fields == {"battery_voltage": 52.0}


def test_a_total_whose_value_one_inverter_lacks_is_left_out() -> None:
    found = build(poll(MATE, OutbackReading((inverter(1), inverter(2, load_power_kw=None)))))
    assert "total_load_power_kw" not in found["power_room_totals"][0].fields
    assert found["power_room_totals"][0].fields["total_output_power_kw"] == 2.6


def test_a_single_phase_inverter_counts_with_its_one_line() -> None:
    single = inverter(2, l2_output_current_a=None, l2_charge_current_a=None)
    found = build(poll(MATE, OutbackReading((inverter(1), single))))
    assert found["power_room_totals"][0].fields["total_output_current"] == 16.0


def test_without_102_the_battery_voltage_is_the_inverters_median() -> None:
    three = DeviceConfig(name="m", driver="outback", host="192.0.2.1", inverters=3)
    reading = OutbackReading(
        (
            inverter(1, battery_voltage_v=51.6),
            inverter(2, battery_voltage_v=52.0),
            inverter(3, battery_voltage_v=80.0),
        )
    )
    assert build(poll(three, reading))["power_room_totals"][0].fields["battery_voltage"] == 52.0


def test_the_boxs_clock_is_compared_with_the_cycles_time() -> None:
    clock = datetime.fromtimestamp(TIME - 90, UTC)
    reading = OutbackReading((), system=SystemReading({"battery_temperature_c": 21}, clock))
    assert build(poll(MATE, reading))["outback_system"][0].fields == {
        "battery_temperature_c": 21.0,
        "clock_offset_s": -90.0,
    }
    (unknown,) = [
        p
        for p in points.build([poll(MATE, reading)], TIME, time_known=False)
        if p.measurement == "outback_system"
    ]
    assert unknown.fields == {"battery_temperature_c": 21.0}
    without = OutbackReading((), system=SystemReading({"battery_temperature_c": 21}, None))
    assert build(poll(MATE, without))["outback_system"][0].fields == {"battery_temperature_c": 21.0}


def test_chargers_are_summed_and_keep_their_old_names() -> None:
    found = build(
        poll(charger(1), ChargeControllerReading({"output_power_w": 1500.0, "battery_voltage_v": 54.0})),
        poll(charger(2, legacy=False), ChargeControllerReading({"output_power_w": 250.0})),
    )
    assert found["solar_charger_1"][0].fields == {"power_kw": 1.5}
    assert "solar_charger_2" not in found
    assert found["solar_charger_total"][0].fields == {"power_kw": 1.75}
    assert found["solar_charger_partial"][0].fields == {"power_kw": 1.75, "read": 2, "expected": 2}
    assert len(found["charge_controller"]) == 2


@pytest.mark.parametrize("missing", [None, ChargeControllerReading({"output_power_w": math.nan})])
def test_with_a_charger_missing_there_is_a_partial_sum_and_no_total(missing: Reading | None) -> None:
    found = build(
        poll(charger(1), ChargeControllerReading({"output_power_w": 1500.0})), poll(charger(2), missing)
    )
    assert "solar_charger_total" not in found
    assert found["solar_charger_partial"][0].fields == {"power_kw": 1.5, "read": 1, "expected": 2}


@pytest.mark.parametrize(("watts", "kilowatts"), [(9.9, 0.0), (10.0, 0.010), (-20.0, 0.0)])
def test_the_total_is_zero_below_ten_watts(watts: float, kilowatts: float) -> None:
    found = build(poll(charger(1), ChargeControllerReading({"output_power_w": watts})))
    assert found["solar_charger_total"][0].fields == {"power_kw": kilowatts}


def test_every_device_has_a_status_also_when_it_is_away() -> None:
    found = build(poll(MATE, None), poll(charger(1), ChargeControllerReading({})))
    assert [(p.tags["device"], dict(p.fields)) for p in found["device_status"]] == [
        ("mate3s", {"up": 0, "expected": 1, "failures": 3, "age_s": 45.0}),
        ("sc1", {"up": 1, "response_ms": 20.0, "failures": 0, "age_s": 0.0}),
    ]
    assert "power_room_totals" not in found


def test_a_room_without_chargers_has_no_solar_points() -> None:
    assert not [name for name in build(poll(MATE, None)) if name.startswith("solar")]


def test_inverters_are_counted_over_all_polls() -> None:
    assert points.inverters_read([poll(MATE, OutbackReading((inverter(1),))), poll(charger(1), None)]) == 1
