"""The data contract: types never change, ranges hold, line protocol is what InfluxDB reads."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_collector import contract

ALL_FIELDS = [
    (name, field)
    for name in (*contract.MEASUREMENTS, "solar_charger_1")
    for field in contract.measurement(name).fields
]


@given(st.sampled_from(ALL_FIELDS), st.one_of(st.none(), st.floats(), st.integers(-(2**70), 2**70)))
def test_whatever_comes_a_field_keeps_its_type_and_range(
    where: tuple[str, str], value: float | int | None
) -> None:
    name, field = where
    expected = contract.measurement(name).fields[field]
    point = contract.point(name, dict.fromkeys(contract.measurement(name).tags, "x"), {field: value}, 0)
    if point is None:
        usable = value is not None and math.isfinite(value) and expected.minimum <= value <= expected.maximum
        assert not usable
    else:
        assert type(point.fields[field]) is expected.type
        assert expected.minimum <= point.fields[field] <= expected.maximum


def test_absent_and_impossible_values_are_left_out_and_the_rest_kept() -> None:
    point = contract.point(
        "charge_controller",
        {"device": "sc1"},
        {
            "battery_voltage_v": 52.5,
            "array_voltage_v": math.nan,
            "heatsink_temperature_c": 999.0,
            "faults": None,
        },
        1764000000,
    )
    assert point is not None
    assert point.fields == {"battery_voltage_v": 52.5}


def test_a_point_with_nothing_left_is_no_point() -> None:
    assert contract.point("charge_controller", {"device": "sc1"}, {"array_voltage_v": math.inf}, 0) is None


def test_a_field_or_tag_outside_the_contract_is_a_fault_of_the_caller() -> None:
    with pytest.raises(KeyError):
        contract.point("mate3s", {}, {"battery": 1.0}, 0)
    with pytest.raises(KeyError):
        contract.point("solar_charger", {}, {"power_kw": 1.0}, 0)
    with pytest.raises(ValueError, match="tags"):
        contract.point("charge_controller", {}, {"battery_voltage_v": 1.0}, 0)


def test_line_protocol_marks_integers_and_escapes_names() -> None:
    point = contract.point("mate3s", {}, {"Inverter Current": 7, "Battery Voltage": 52}, 1764000000)
    assert point is not None
    assert point.to_line() == r"mate3s Inverter\ Current=7i,Battery\ Voltage=52.0 1764000000"
    tagged = contract.point("inverter", {"port": "2", "device": "mate 3s"}, {"mode": 2}, 15)
    assert tagged is not None
    assert tagged.to_line() == r"inverter,device=mate\ 3s,port=2 mode=2i 15"


def test_the_old_programs_fields_keep_their_types() -> None:
    """An existing database fixed them by its first points: a change would be refused with 422."""
    legacy = {
        ("mate3s", "Inverter Current"): int,
        ("mate3s", "Power Usage"): int,
        ("mate3s", "Battery Voltage"): float,
        ("power_room_totals", "total_output_current"): float,
        ("power_room_totals", "total_charge_current"): float,
        ("power_room_totals", "battery_voltage"): float,
        ("solar_charger_6", "power_kw"): float,
        ("solar_charger_total", "power_kw"): float,
    }
    assert {key: contract.measurement(key[0]).fields[key[1]].type for key in legacy} == legacy
